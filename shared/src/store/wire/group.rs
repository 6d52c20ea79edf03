//! Group commit: entries that arrive while a call is in flight travel together in the next one. Without a call in
//! flight an entry is sent at once.
use std::sync::{Arc, LazyLock, OnceLock};

use redis::Value;
use tokio::sync::{mpsc, oneshot};

use super::call::{Args, Wire};
use super::scripts::Script;
use crate::{Error, Result, limits};

/// The group commits of one script, one per partition. Each starts at its first use, on the runtime that uses it.
pub(crate) struct Groups {
    wire: Arc<Wire>,
    script: &'static LazyLock<Script>,
    each: OnceLock<Vec<OnceLock<Group>>>,
}

impl Groups {
    pub(crate) fn new(wire: Arc<Wire>, script: &'static LazyLock<Script>) -> Self {
        Self { wire, script, each: OnceLock::new() }
    }

    /// That of a partition.
    pub(crate) fn of(&self, partition: u16) -> &Group {
        let each = self.each.get_or_init(|| (0..limits::PARTITIONS_MAX).map(|_| OnceLock::new()).collect());
        let spawn = || Group::spawn(Arc::clone(&self.wire), self.script, partition);
        each[usize::from(partition)].get_or_init(spawn)
    }
}

/// Entries for one script in one partition, each answered separately.
pub(crate) struct Group {
    sender: mpsc::Sender<Waiting>,
}

/// An entry that waits for the next call.
struct Waiting {
    /// Entries with a different head need a separate call.
    head: Args,
    /// As do those that wait for another number of replicas.
    replicas: u8,
    entry: Args,
    answer: oneshot::Sender<Result<Value>>,
}

impl Group {
    /// Sends what is waiting, up to [`limits::BATCH_MAX`] entries and about [`limits::BATCH_BYTES_MAX`] bytes a call,
    /// until the group is dropped.
    pub(crate) fn spawn(wire: Arc<Wire>, script: &'static LazyLock<Script>, partition: u16) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Waiting>(limits::BATCH_MAX);
        tokio::spawn(async move {
            while let Some(first) = receiver.recv().await {
                let mut bytes = first.entry.bytes();
                let mut batch = vec![first];
                while batch.len() < limits::BATCH_MAX && bytes < limits::BATCH_BYTES_MAX {
                    let Ok(next) = receiver.try_recv() else { break };
                    bytes += next.entry.bytes();
                    batch.push(next);
                }
                let mut batch = batch.into_iter().peekable();
                while let Some(Waiting { head, replicas, entry, answer }) = batch.next() {
                    let (mut entries, mut answers) = (vec![entry], vec![answer]);
                    while let Some(next) = batch.next_if(|next| next.head == head && next.replicas == replicas) {
                        entries.push(next.entry);
                        answers.push(next.answer);
                    }
                    // The caller may have gone.
                    match wire.run_many(script, partition, head, entries, replicas).await {
                        Ok(replies) => answers.into_iter().zip(replies).for_each(|(a, r)| drop(a.send(Ok(r)))),
                        Err(e) => answers.into_iter().for_each(|a| drop(a.send(Err(e.clone())))),
                    }
                }
            }
        });
        Self { sender }
    }

    /// Sends one entry, in one call with the others of this `head` that are waiting. Returns its element of the reply,
    /// once so many replicas have what it wrote; 0: at once.
    pub(crate) async fn call(&self, head: Args, entry: Args, replicas: u8) -> Result<Value> {
        let (answer, reply) = oneshot::channel();
        let gone = || Error::Unavailable("the store is shutting down".into());
        self.sender.send(Waiting { head, replicas, entry, answer }).await.map_err(|_| gone())?;
        // It may have been sent: only repeating it can tell.
        reply.await.map_err(|_| Error::OutcomeUnknown("the store stopped before the answer came".into()))?
    }
}

/// Parts of at most [`limits::BATCH_MAX`] elements and [`limits::BATCH_BYTES_MAX`] bytes.
pub(crate) fn split<T>(all: &[T], bytes: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut parts, mut begin, mut size) = (Vec::new(), 0, 0);
    for (at, one) in all.iter().enumerate() {
        if at > begin && (at - begin == limits::BATCH_MAX || size + bytes(one) > limits::BATCH_BYTES_MAX) {
            parts.push(&all[begin..at]);
            (begin, size) = (at, 0);
        }
        size += bytes(one);
    }
    parts.push(&all[begin..]);
    parts
}
