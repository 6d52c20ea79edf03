//! Hints: messages from other processes, over a subscription that is restored whenever it is lost. They may be missed,
//! so nothing may depend on one.
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use redis::{PushInfo, PushKind};
use tokio::sync::broadcast;

use super::Store;
use super::wire::reply::text;
use super::wire::{Home, Node, keys};
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
        /// Its partition.
        partition: u16,
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

/// A message of a channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub partition: u16,
    pub payload: &'a str,
}

impl Store {
    /// Hints for workers, from all partitions, for as long as the receiver lives; a receiver that lags loses the
    /// oldest.
    pub fn hints(&self) -> broadcast::Receiver<Hint> {
        let (sender, receiver) = broadcast::channel(1_024);
        let store = self.clone();
        tokio::spawn(async move {
            let each = |message: Option<Message>| {
                drop(message.map_or(Some(Hint::Reconnected), hint).map(|hint| sender.send(hint)));
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
pub(super) async fn listen(store: &Store, channel: &str, each: impl Fn(Option<Message<'_>>)) {
    if store.inner.wire.connections().is_cluster() {
        return listen_to_nodes(store, channel, each).await;
    }
    loop {
        let partitions = store.partitions();
        tokio::select! {
            lost = subscribe(store, channel, &each) => if let Err(e) = lost {
                tracing::debug!(channel, "restoring the subscription: {e}");
            },
            _ = store.more_partitions(partitions) => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// [`listen`] in a cluster: one subscription to each node, for the partitions that it has.
async fn listen_to_nodes(store: &Store, channel: &str, each: impl Fn(Option<Message<'_>>)) {
    let connections = store.inner.wire.connections();
    loop {
        let (moves, partitions) = (connections.moves(), store.partitions());
        let mut shares: Vec<(Arc<Node>, Vec<u16>)> = Vec::new();
        let mut lacking = false;
        for partition in 0..partitions {
            match connections.node(Home::Partition(partition)).await {
                Ok(node) => match shares.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &node)) {
                    Some((_, partitions)) => partitions.push(partition),
                    None => shares.push((node, vec![partition])),
                },
                Err(_) => lacking = true,
            }
        }
        let each = &each;
        let listening = shares.iter().map(|(node, partitions)| async move {
            loop {
                if let Err(e) = subscribe_to_node(store, node, partitions, channel, each).await {
                    tracing::debug!(channel, node = node.address(), "restoring the subscription: {e}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        // Partitions without a node now are tried again soon, and all of them when slots have moved.
        let again = async { if lacking { tokio::time::sleep(SILENCE).await } else { std::future::pending().await } };
        tokio::select! {
            _ = join_all(listening), if !shares.is_empty() => {}
            () = moves => {}
            () = again => {}
            _ = store.more_partitions(partitions) => continue,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// [`subscribe`] to the partitions of one node.
async fn subscribe_to_node(
    store: &Store,
    node: &Arc<Node>,
    partitions: &[u16],
    channel: &str,
    each: impl Fn(Option<Message<'_>>),
) -> Result<()> {
    let connections = store.inner.wire.connections();
    let (mut connection, mut messages) = connections.slot_subscriber(node).await?;
    for partition in partitions {
        let mut subscribe = redis::cmd("SSUBSCRIBE");
        subscribe.arg(keys::fixed(*partition, channel));
        let subscribed = subscribe.query_async::<redis::Value>(&mut connection).await;
        subscribed.inspect_err(|e| connections.failed(node, e)).map_err(|e| connections.classify(&e))?;
    }
    each(None);
    loop {
        match tokio::time::timeout(SILENCE, messages.recv()).await {
            Ok(Some(PushInfo { kind: PushKind::SMessage, data })) => {
                if let [channel, payload] = &data[..] {
                    pass(&text(channel), &text(payload), &each);
                }
            }
            Ok(Some(PushInfo { kind: PushKind::Disconnection, .. }) | None) => return Ok(()),
            // The slot has left this node.
            Ok(Some(PushInfo { kind: PushKind::SUnsubscribe, .. })) => return Ok(()),
            Ok(Some(_)) => {}
            Err(_) => {
                let pinged = redis::cmd("PING").query_async::<redis::Value>(&mut connection).await;
                pinged.inspect_err(|e| connections.failed(node, e)).map_err(|e| connections.classify(&e))?;
            }
        }
    }
}

/// Passes each message of a channel, in every partition, to `each`, after a `None` once the subscription is ready;
/// returns when it is lost.
async fn subscribe(store: &Store, channel: &str, each: impl Fn(Option<Message<'_>>)) -> Result<()> {
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
            Ok(Some(message)) => {
                if let Ok(payload) = message.get_payload::<String>() {
                    pass(message.get_channel_name(), &payload, &each);
                }
            }
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

fn pass(channel: &str, payload: &str, each: impl Fn(Option<Message<'_>>)) {
    if let Some(partition) = keys::partition_in(channel) {
        each(Some(Message { partition, payload }));
    }
}

fn hint(message: Message) -> Option<Hint> {
    let mut words = message.payload.split(' ');
    match words.next()? {
        "cancel" => Some(Hint::Cancel {
            worker: WorkerId::parse(words.next()?).ok()?,
            partition: message.partition,
            id: JobId::parse(words.next()?).ok()?,
            token: words.next()?.parse().ok()?,
        }),
        "resume" => Some(Hint::Resume(QueueName::parse(words.next()?).ok()?)),
        "pause" => Some(Hint::Pause(QueueName::parse(words.next()?).ok()?)),
        _ => None,
    }
}
