//! Hints: messages from other processes, over a subscription that is restored whenever it is lost. They may be missed,
//! so nothing may depend on one.
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::broadcast;

use super::Store;
use super::wire::keys;
use crate::{Error, JobId, QueueName, Result, WorkerId};

/// How long a subscription may be silent before it is pinged.
const SILENCE: Duration = Duration::from_secs(5);
/// The pause before a lost subscription is restored.
const PAUSE: Duration = Duration::from_millis(200);

/// What a worker can receive between its renewals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A job that it holds was flagged for cancellation.
    Cancel {
        /// The holder.
        worker: WorkerId,
        /// The job.
        id: JobId,
        /// The token of its lease.
        token: u64,
    },
    /// A queue was resumed.
    Resume(QueueName),
    /// A queue was paused.
    Pause(QueueName),
    /// The subscription was restored: messages may have been lost.
    Reconnected,
}

impl Store {
    /// Hints for workers, from all partitions, for as long as the receiver lives; a receiver that lags loses the
    /// oldest.
    pub fn hints(&self) -> broadcast::Receiver<Hint> {
        let (sender, receiver) = broadcast::channel(1_024);
        let store = self.clone();
        tokio::spawn(async move {
            let each = |payload: Option<&str>| {
                drop(payload.map_or(Some(Hint::Reconnected), hint).map(|hint| sender.send(hint)));
            };
            tokio::select! {
                () = listen(&store, "hints", each) => {}
                () = sender.closed() => {}
            }
        });
        receiver
    }
}

/// Hands each message of a channel, in every partition, to `each`, for ever; a `None` comes first, and again whenever
/// the subscription had to be restored, since anything may have been missed.
pub(super) async fn listen(store: &Store, channel: &str, each: impl Fn(Option<&str>)) {
    loop {
        if let Err(e) = subscribe(store, channel, &each).await {
            tracing::debug!(channel, "restoring the subscription: {e}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Passes each message of a channel, in every partition, to `each`, after a `None` once the subscription is ready;
/// returns when it is lost.
async fn subscribe(store: &Store, channel: &str, each: impl Fn(Option<&str>)) -> Result<()> {
    let mut subscriber = store.inner.wire.connections().subscriber().await?;
    for partition in 0..store.partitions() {
        let subscribing = subscriber.subscribe(keys::fixed(partition, channel));
        let subscribed = tokio::time::timeout(Duration::from_secs(5), subscribing).await;
        subscribed
            .map_err(|_| Error::Unavailable("subscribing took too long".into()))?
            .map_err(|e| Error::Unavailable(e.to_string()))?;
    }
    each(None);
    let (mut sink, mut messages) = subscriber.split();
    loop {
        match tokio::time::timeout(SILENCE, messages.next()).await {
            Ok(Some(message)) => drop(message.get_payload::<String>().map(|payload| each(Some(&payload)))),
            Ok(None) => return Ok(()),
            // A half-open connection would stay silent forever: a connection that does not answer a ping is closed.
            Err(_) => {
                let pinged = tokio::time::timeout(Duration::from_secs(3), sink.ping::<redis::Value>()).await;
                pinged
                    .map_err(|_| Error::Unavailable("no answer to a ping".into()))?
                    .map_err(|e| Error::Unavailable(e.to_string()))?;
            }
        }
    }
}

fn hint(payload: &str) -> Option<Hint> {
    let mut words = payload.split(' ');
    match words.next()? {
        "cancel" => Some(Hint::Cancel {
            worker: WorkerId::parse(words.next()?).ok()?,
            id: JobId::parse(words.next()?).ok()?,
            token: words.next()?.parse().ok()?,
        }),
        "resume" => Some(Hint::Resume(QueueName::parse(words.next()?).ok()?)),
        "pause" => Some(Hint::Pause(QueueName::parse(words.next()?).ok()?)),
        _ => None,
    }
}
