//! Which waiting jobs may start: what an autoscaler provides workers for.
use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use super::Store;
use super::agreement::unless_full;
use super::status::WorkerInfo;
use super::wire::reply::{array, count, number, text};
use super::wire::{Home, keys};
use crate::kinds::PublishedKinds;
use crate::{Kind, QueueName, Result, Timestamp, limits};

/// The hash, in partition 0, of the queues and kinds that workers have served: `<queue> <kind>`, and when last, ms.
const SERVED: &str = "served";

/// The kinds that may start, by queue, and their limits.
#[derive(Debug, Default)]
pub(super) struct Startable {
    published: Option<PublishedKinds>,
    served: BTreeMap<QueueName, BTreeSet<Kind>>,
}

impl Startable {
    /// How many of a partition's `depth` ids in a queue are jobs that may start: `demanded` is
    /// `{ids examined, {kind, queued, permits in use}…}`. Ids that were not examined are counted.
    pub(super) fn count(&self, queue: &QueueName, depth: u64, demanded: &[Value]) -> u64 {
        let Some((examined, kinds)) = demanded.split_first() else { return depth };
        let startable = kinds.iter().map(array).filter_map(|entry| {
            let kind = Kind::parse(&text(entry.first()?)).ok()?;
            let (queued, permits) = (count(entry.get(1)?), count(entry.get(2)?));
            let published = self.published.as_ref().is_some_and(|published| published.contains(&kind));
            let served = self.served.get(queue).is_some_and(|kinds| kinds.contains(&kind));
            let max_running = self.published.as_ref().and_then(|published| published.max_running(&kind));
            let room = max_running.map_or(u64::MAX, |most| u64::from(most).saturating_sub(permits));
            (published || served).then_some(queued.min(room))
        });
        startable.sum::<u64>() + depth.saturating_sub(count(examined))
    }
}

impl Store {
    /// Records the queues and kinds that a worker serves, and forgets pairs that no worker has served for
    /// [`limits::SERVED_MS`]. Workers call this at start and at times after it.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn remember_served(&self, worker: &WorkerInfo) -> Result<()> {
        let key = keys::fixed(0, SERVED);
        let mut reading = redis::pipe();
        reading.cmd("TIME").cmd("HGETALL").arg(&key);
        let replies = self.inner.wire.pipe_leniently(Home::Partition(0), &reading).await?;
        let now = array(&replies[0]).first().and_then(number).unwrap_or(0) * 1_000;
        let mut writing = redis::pipe();
        if matches!(replies[1], Value::ServerError(_)) {
            writing.cmd("RENAME").arg(&key).arg(keys::fixed(0, &format!("quarantined:{SERVED}")));
        }
        for pair in pairs(&replies[1]).filter(|(_, at)| now - at.0 > SERVED_MS).map(|(pair, _)| pair) {
            writing.cmd("HDEL").arg(&key).arg(pair);
        }
        for (queue, kind) in worker.queues.iter().flat_map(|queue| worker.kinds.iter().map(move |kind| (queue, kind))) {
            writing.cmd("HSET").arg(&key).arg(format!("{queue} {kind}")).arg(now);
        }
        if writing.is_empty() {
            return Ok(());
        }
        unless_full("what this worker serves", self.inner.wire.pipe(Home::Partition(0), &writing).await.map(drop))
    }

    /// What may start, as published and as workers have served it.
    pub(super) async fn startable(&self) -> Result<Startable> {
        let mut reading = redis::pipe();
        reading.cmd("TIME").cmd("HGETALL").arg(keys::fixed(0, SERVED));
        let replies = self.inner.wire.pipe_leniently(Home::Partition(0), &reading).await?;
        let now = array(&replies[0]).first().and_then(number).unwrap_or(0) * 1_000;
        let mut served: BTreeMap<QueueName, BTreeSet<Kind>> = BTreeMap::new();
        for (pair, at) in pairs(&replies[1]) {
            let parsed = pair.split_once(' ').map(|(queue, kind)| (QueueName::parse(queue), Kind::parse(kind)));
            if let Some((Ok(queue), Ok(kind))) = parsed
                && now - at.0 <= SERVED_MS
            {
                served.entry(queue).or_default().insert(kind);
            }
        }
        Ok(Startable { published: self.published().await?.kinds, served })
    }
}

const SERVED_MS: i64 = limits::SERVED_MS as i64;

/// The entries of the hash.
fn pairs(reply: &Value) -> impl Iterator<Item = (String, Timestamp)> {
    array(reply).chunks_exact(2).map(|entry| (text(&entry[0]), Timestamp(number(&entry[1]).unwrap_or(0))))
}
