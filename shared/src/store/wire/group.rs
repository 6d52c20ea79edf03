//! Group commit: entries that arrive while a call is in flight travel together in the next one. Without a call in
//! flight an entry is sent at once.
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::args::Args;
use super::call::Wire;
use super::patience::{Pause, is_passing, patience_of, spend};
use super::scripts::Script;
use crate::{Error, Result, limits};

/// An entry that comes so soon after a call is probably not the only one.
const BUSY: Duration = Duration::from_millis(1);

/// The group commits of one script, one per partition. Each starts at its first use, on the runtime that uses it.
pub(crate) struct Groups {
    wire: Arc<Wire>,
    script: &'static LazyLock<Script>,
    /// The most entries of a call.
    most: usize,
    each: OnceLock<Vec<OnceLock<Group>>>,
}

impl Groups {
    pub(crate) fn new(wire: Arc<Wire>, script: &'static LazyLock<Script>, most: usize) -> Self {
        Self { wire, script, most, each: OnceLock::new() }
    }

    /// That of a partition.
    pub(crate) fn of(&self, partition: u16) -> &Group {
        let each = self.each.get_or_init(|| (0..limits::PARTITIONS_MAX).map(|_| OnceLock::new()).collect());
        let spawn = || Group::spawn(Arc::clone(&self.wire), self.script, partition, self.most);
        each[usize::from(partition)].get_or_init(spawn)
    }
}

/// Entries for one script in one partition, each answered separately.
pub(crate) struct Group {
    sender: mpsc::Sender<Waiting>,
    /// How long an entry rides out an outage.
    outage: Duration,
}

/// An entry that waits for the next call.
struct Waiting {
    /// Entries with a different head need a separate call.
    head: Args,
    /// As do those that wait for another number of replicas.
    replicas: u8,
    entry: Args,
    /// How long it may ride out an outage.
    until: Instant,
    /// An attempt may have been executed.
    unknown: bool,
    answer: oneshot::Sender<Result<Value>>,
}

impl Waiting {
    fn fail(self, error: Error) {
        // The caller may have gone.
        drop(self.answer.send(Err(if self.unknown { error.after_a_change() } else { error })));
    }
}

/// The sender of a group: its entries, and how much of them it sends at once.
struct Sending {
    wire: Arc<Wire>,
    script: &'static LazyLock<Script>,
    partition: u16,
    /// The most entries of a call.
    most: usize,
    waiting: VecDeque<Waiting>,
    /// About the bytes of a call: fewer after one that did not arrive in time, over a slow link.
    bytes_max: usize,
    pause: Pause,
}

impl Sending {
    /// The next entries for a call, at least one.
    fn next(&mut self) -> Vec<Waiting> {
        let (mut batch, mut bytes): (Vec<Waiting>, usize) = (Vec::new(), 0);
        while batch.len() < self.most && (batch.is_empty() || bytes < self.bytes_max) {
            let is_alike = |next: &Waiting| {
                batch.first().is_none_or(|first| next.head == first.head && next.replicas == first.replicas)
            };
            if !self.waiting.front().is_some_and(is_alike) {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            bytes += next.entry.bytes();
            batch.push(next);
        }
        batch
    }

    /// Sends some of what is waiting. After a failure that may pass, those that have waited too long get the error,
    /// and the others are sent again.
    async fn send(&mut self) {
        let mut batch = self.next();
        let Some(first) = batch.first() else { return };
        let (head, replicas, begun) = (first.head.clone(), first.replicas, Instant::now());
        let entries: Vec<Args> = batch.iter_mut().map(|waiting| std::mem::take(&mut waiting.entry)).collect();
        let bytes: usize = entries.iter().map(Args::bytes).sum();
        match self.wire.try_many(self.script, self.partition, head, entries, replicas).await {
            Ok(replies) => {
                self.pause = Pause::default();
                if begun.elapsed() < self.wire.response() / 4 {
                    self.bytes_max = self.bytes_max.saturating_mul(2).min(limits::BATCH_BYTES_MAX);
                }
                batch.into_iter().zip(replies).for_each(|(waiting, reply)| drop(waiting.answer.send(Ok(reply))));
            }
            Err((e, _)) if !is_passing(&e) => batch.into_iter().for_each(|waiting| waiting.fail(e.clone())),
            Err((e, entries)) => {
                let is_late = matches!(e, Error::OutcomeUnknown(_));
                if is_late {
                    self.bytes_max = (bytes / 4).max(1);
                }
                // One that is late alone, as for its size, must not keep the others from being sent.
                let is_alone = is_late && batch.len() == 1;
                for (mut waiting, entry) in batch.into_iter().zip(entries).rev() {
                    waiting.entry = entry;
                    waiting.unknown |= is_late;
                    if is_alone { self.waiting.push_back(waiting) } else { self.waiting.push_front(waiting) }
                }
                let next = Instant::now() + self.pause.most();
                let (late, waiting) = self.waiting.drain(..).partition(|waiting| waiting.until <= next);
                self.waiting = waiting;
                late.into_iter().for_each(|waiting| waiting.fail(e.clone()));
                if !self.waiting.is_empty() {
                    self.pause.sleep().await;
                }
            }
        }
    }
}

impl Group {
    /// Sends what is waiting, up to `most` entries and about [`limits::BATCH_BYTES_MAX`] bytes a call,
    /// until the group is dropped.
    pub(crate) fn spawn(wire: Arc<Wire>, script: &'static LazyLock<Script>, partition: u16, most: usize) -> Self {
        let outage = wire.outage();
        let (sender, mut receiver) = mpsc::channel::<Waiting>(limits::BATCH_MAX);
        tokio::spawn(async move {
            let (bytes_max, pause) = (limits::BATCH_BYTES_MAX, Pause::default());
            let mut idle_since = Instant::now();
            let mut sending = Sending { wire, script, partition, most, waiting: VecDeque::new(), bytes_max, pause };
            loop {
                if sending.waiting.is_empty() {
                    let Some(first) = receiver.recv().await else { return };
                    sending.waiting.push_back(first);
                    // Under load, what other tasks that can run now will send goes along.
                    if idle_since.elapsed() < BUSY {
                        tokio::task::yield_now().await;
                    }
                }
                while sending.waiting.len() < 2 * limits::BATCH_MAX {
                    let Ok(next) = receiver.try_recv() else { break };
                    sending.waiting.push_back(next);
                }
                sending.send().await;
                idle_since = Instant::now();
            }
        });
        Self { sender, outage }
    }

    /// Sends one entry, in one call with the others of this `head` that are waiting. Returns its element of the reply,
    /// once so many replicas have what it wrote; 0: at once.
    pub(crate) async fn call(&self, head: Args, entry: Args, replicas: u8) -> Result<Value> {
        let (begun, (answer, reply)) = (Instant::now(), oneshot::channel());
        let gone = || Error::Unavailable("the store is shutting down".into());
        let until = begun + patience_of(self.outage);
        let waiting = Waiting { head, replicas, entry, until, unknown: false, answer };
        self.sender.send(waiting).await.map_err(|_| gone())?;
        // It may have been sent: only repeating it can tell.
        let stopped = || Error::OutcomeUnknown("the store stopped before the answer came".into());
        let answer = reply.await.unwrap_or_else(|_| Err(stopped()));
        if answer.is_err() {
            spend(begun.elapsed());
        }
        answer
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
