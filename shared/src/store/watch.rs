//! Waiting for what others do. Messages are hints: who waits subscribes first, then reads, and reads again after each
//! reconnect and every few seconds.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::{Store, keys};
use crate::{Error, Job, JobId, QueueName, Result, WorkerId, limits};

/// How often what is watched is read without a hint.
const READ_EVERY: Duration = Duration::from_secs(5);

/// What a worker may be told between its renewals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A job it holds is asked to stop.
    Cancel {
        /// Who holds it.
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
    /// The subscription was made anew: anything may have been missed.
    Reconnected,
}

/// Waits for jobs, over one subscription for the whole process.
#[derive(Clone)]
pub struct Watcher {
    store: Store,
    watched: Arc<Mutex<HashMap<JobId, watch::Sender<u64>>>>,
}

impl Watcher {
    /// Subscribes in the background, for as long as any handle lives.
    pub fn spawn(store: Store) -> Self {
        let watched = Arc::new(Mutex::new(HashMap::new()));
        let watcher = Self { store, watched };
        let (store, watched) = (watcher.store.clone(), Arc::downgrade(&watcher.watched));
        tokio::spawn(async move {
            let wake = |ids: Option<&str>| {
                let Some(watched) = watched.upgrade() else { return };
                let watched = watched.lock().expect("nobody panics with it");
                let Some(ids) = ids else { return watched.values().for_each(|s| s.send_modify(|n| *n += 1)) };
                for id in ids.split(' ').skip(1).filter_map(|id| JobId::parse(id).ok()) {
                    if let Some(sender) = watched.get(&id) {
                        sender.send_modify(|n| *n += 1);
                    }
                }
            };
            while watched.strong_count() > 0 {
                let messages = subscribe(&store, "changes", wake);
                // A lost subscription is made anew; meanwhile whoever waits reads every few seconds.
                let alive = async {
                    while watched.strong_count() > 0 {
                        tokio::time::sleep(Duration::from_secs(1)).await
                    }
                };
                tokio::select! { _ = messages => {}, () = alive => return }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        watcher
    }

    /// Reads the job until it has ended or `limit` has passed; the job as it is then, `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when too many wait already; those of a read.
    pub async fn wait_for_end(&self, id: &JobId, limit: Duration) -> Result<Option<Job>> {
        let end = Instant::now() + limit;
        let mut changes = self.watch(id)?;
        loop {
            changes.borrow_and_update();
            let read = self.store.get(id).await;
            let ended = matches!(&read, Ok(job) if job.as_ref().is_none_or(|j| j.state.is_final()));
            if ended || read.is_err() || Instant::now() >= end {
                self.unwatch(id, changes);
                return read;
            }
            let until = end.min(Instant::now() + READ_EVERY);
            drop(tokio::time::timeout_at(until, changes.changed()).await);
        }
    }

    fn unwatch(&self, id: &JobId, changes: watch::Receiver<u64>) {
        let mut watched = self.watched.lock().expect("nobody panics with it");
        drop(changes);
        if watched.get(id).is_some_and(|sender| sender.receiver_count() == 0) {
            watched.remove(id);
        }
    }

    fn watch(&self, id: &JobId) -> Result<watch::Receiver<u64>> {
        let mut watched = self.watched.lock().expect("nobody panics with it");
        if watched.len() >= limits::WATCHERS_MAX {
            watched.retain(|_, sender| sender.receiver_count() > 0);
            if watched.len() >= limits::WATCHERS_MAX {
                return Err(Error::Unavailable("too many requests wait for jobs; poll instead".into()));
            }
        }
        Ok(watched.entry(id.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe())
    }
}

impl Store {
    /// Hints for workers, from all partitions, for as long as the receiver lives; one that lags misses the oldest.
    pub fn hints(&self) -> broadcast::Receiver<Hint> {
        let (sender, receiver) = broadcast::channel(1_024);
        let store = self.clone();
        tokio::spawn(async move {
            while sender.receiver_count() > 0 {
                let closed = async {
                    while sender.receiver_count() > 0 {
                        tokio::time::sleep(Duration::from_secs(1)).await
                    }
                };
                let messages = subscribe(&store, "hints", |payload| {
                    drop(payload.map_or(Some(Hint::Reconnected), hint).map(|hint| sender.send(hint)));
                });
                tokio::select! { _ = messages => {}, () = closed => return }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        receiver
    }
}

/// Hands each message of a channel, in every partition, to `each`, after a `None` once the subscription stands; returns
/// when it is lost.
async fn subscribe(store: &Store, channel: &str, each: impl Fn(Option<&str>)) -> Result<()> {
    let mut subscriber = store.inner.link.subscriber().await?;
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
        match tokio::time::timeout(READ_EVERY, messages.next()).await {
            Ok(Some(message)) => drop(message.get_payload::<String>().map(|payload| each(Some(&payload)))),
            Ok(None) => return Ok(()),
            // A half-open connection says nothing for ever: one that does not answer a ping is given up.
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
