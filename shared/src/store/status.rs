//! Status for operators: queues, workers, and the number of jobs.
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use redis::Value;
use serde::{Deserialize, Serialize};

use super::Store;
use super::wire::reply::{array, count, number, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use crate::{JobId, Kind, QueueName, Result, State, Timestamp, WorkerId, limits};

/// Partitions that are read at once.
const AT_ONCE: usize = 8;

/// The status of a queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Its name.
    pub name: QueueName,
    /// Ids in its lists, parked ones included: an upper bound on queued jobs.
    pub queued: u64,
    /// The age of the oldest waiting job, ms; null when no job is waiting.
    pub oldest_wait_ms: Option<u64>,
    /// Jobs of this queue running on live workers.
    pub running: u64,
    /// What an autoscaler should provide slots for: jobs that run, and those that wait and could start. A job could
    /// start when the published kinds name its kind, or a worker of this queue has served it within
    /// [`limits::SERVED_MS`], and its kind's `max_running` leaves room; none when the queue is paused.
    #[serde(default)]
    pub demand: u64,
    /// Whether claims from it are stopped.
    pub paused: bool,
    /// Whether a live worker serves it.
    pub served: bool,
    /// Ids in its lists, by partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<u64>,
}

impl QueueStatus {
    /// A queue that nothing has used.
    pub fn unused(name: QueueName, partitions: u16) -> Self {
        Self {
            name,
            queued: 0,
            oldest_wait_ms: None,
            running: 0,
            demand: 0,
            paused: false,
            served: false,
            partitions: vec![0; usize::from(partitions)],
        }
    }

    /// Whether it has no jobs and no workers, and is not paused.
    pub fn is_unused(&self) -> bool {
        self.queued + self.running == 0 && !self.paused && !self.served
    }
}

/// A worker's description of itself, sent with each renewal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its id, new with every start.
    pub id: WorkerId,
    /// Its host name.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// The queues it serves.
    pub queues: Vec<QueueName>,
    /// The kinds it serves.
    pub kinds: Vec<Kind>,
    /// Its number of slots.
    pub slots: usize,
    /// Its lease, ms: this long after its last renewal it counts as gone.
    pub lease_ms: u64,
    /// The digest of its kinds file; absent when it has none.
    #[serde(default)]
    pub kinds_digest: Option<String>,
    /// Jobs it runs, by queue, over all partitions.
    pub running: BTreeMap<QueueName, u64>,
}

/// The status of a worker, as shown by `GET /api/v1/workers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its id, new with every start.
    pub id: WorkerId,
    /// Its host name.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Whether it has renewed within its lease.
    pub alive: bool,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// Its last renewal.
    pub seen_at: Timestamp,
    /// The queues it serves.
    pub queues: Vec<QueueName>,
    /// The kinds it serves.
    pub kinds: Vec<Kind>,
    /// Its number of slots.
    pub slots: usize,
    /// Its lease, ms; not shown, 0 over HTTP.
    #[serde(skip)]
    pub lease_ms: u64,
    /// The number of jobs it holds.
    pub running: Vec<JobId>,
    /// Running jobs by queue, as reported by the worker; not shown.
    #[serde(skip)]
    running_of: BTreeMap<QueueName, u64>,
    /// The digest of its kinds file; `None` when it has none, or over HTTP.
    #[serde(skip)]
    pub kinds_digest: Option<String>,
}

impl WorkerStatus {
    /// A worker that holds nothing, from its own description.
    fn new(info: WorkerInfo, seen_at: Timestamp, alive: bool) -> Self {
        let WorkerInfo {
            id,
            host,
            pid,
            version,
            started_at,
            queues,
            kinds,
            slots,
            lease_ms,
            kinds_digest,
            running: running_of,
        } = info;
        let running = Vec::new();
        Self {
            id,
            host,
            pid,
            version,
            alive,
            started_at,
            seen_at,
            queues,
            kinds,
            slots,
            lease_ms,
            kinds_digest,
            running,
            running_of,
        }
    }
}

impl WorkerStatus {
    /// Slots in use, as reported by the worker with its last renewal.
    pub fn busy(&self) -> usize {
        let running: u64 = self.running_of.values().sum();
        usize::try_from(running).unwrap_or(usize::MAX).min(self.slots)
    }
}

/// The number of jobs of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All jobs, ended ones included, items excluded.
    pub total: u64,
    /// Running jobs; for a kind without `max_running`, those of every kind.
    pub running: u64,
}

/// The kinds and queues of live workers: a job needs a worker that serves both its kind and its queue.
#[derive(Debug, Clone, Default)]
pub struct Serving(Vec<WorkerStatus>);

impl Serving {
    /// From those of `workers` that are alive.
    pub fn of(workers: Vec<WorkerStatus>) -> Self {
        Self(workers.into_iter().filter(|worker| worker.alive).collect())
    }

    /// Whether one live worker serves both.
    pub fn serves(&self, kind: &Kind, queue: &QueueName) -> bool {
        self.0.iter().any(|worker| worker.kinds.contains(kind) && worker.queues.contains(queue))
    }

    /// A sentence that says what no live worker serves; `None` when one serves both.
    pub fn lack(&self, kind: &Kind, queue: &QueueName) -> Option<String> {
        if self.serves(kind, queue) {
            return None;
        }
        let has_kind = self.0.iter().any(|worker| worker.kinds.contains(kind));
        let has_queue = self.0.iter().any(|worker| worker.queues.contains(queue));
        Some(match (has_kind, has_queue) {
            (false, true) => format!("no living worker serves kind {kind}"),
            (true, false) => format!("no living worker serves queue {queue}"),
            (false, false) => format!("no living worker serves kind {kind}, and none queue {queue}"),
            (true, true) => format!("no living worker serves both kind {kind} and queue {queue}"),
        })
    }
}

impl Store {
    /// All queues, or one that has been used, or that a worker serves or an operator paused.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn queues(&self, only: Option<&QueueName>) -> Result<Vec<QueueStatus>> {
        let (workers, startable) = (self.workers_at_a_glance().await?, self.startable().await?);
        let mut queues: BTreeMap<QueueName, QueueStatus> = BTreeMap::new();
        let unused = |name: &QueueName| QueueStatus::unused(name.clone(), self.partitions());
        let scan = (limits::DEMAND_SCAN / usize::from(self.partitions())).max(limits::DEMAND_SCAN_MIN);
        let read = |partition| self.queues_in(partition, only, scan);
        let replies: Vec<_> = stream::iter(0..self.partitions()).map(read).buffered(AT_ONCE).try_collect().await?;
        for (partition, entries) in replies.iter().enumerate() {
            for (now, entry) in entries.iter().map(|(now, entry)| (now, array(entry))) {
                let Ok(name) = QueueName::parse(&text(&entry[0])) else { continue };
                let queue = queues.entry(name.clone()).or_insert_with(|| unused(&name));
                let depth = count(&entry[1]);
                queue.queued += depth;
                queue.partitions[partition] = depth;
                let wait = number(&entry[2]).map(|since| u64::try_from(now - since).unwrap_or(0));
                queue.oldest_wait_ms = queue.oldest_wait_ms.max(wait);
                queue.paused |= number(&entry[3]) == Some(1);
                queue.demand += startable.count(&name, depth, array(&entry[4]));
            }
        }
        queues.values_mut().filter(|queue| queue.paused).for_each(|queue| queue.demand = 0);
        for worker in workers.iter().filter(|w| w.alive) {
            for name in worker.queues.iter().filter(|q| only.is_none_or(|o| o == *q)) {
                let queue = queues.entry(name.clone()).or_insert_with(|| unused(name));
                let running = worker.running_of.get(name).copied().unwrap_or(0);
                queue.served = true;
                queue.running += running;
                queue.demand += running;
            }
        }
        let known = if only.is_some() { self.names("queues").await? } else { Vec::new() };
        let named =
            |q: &QueueStatus| only.is_none() || q.served || q.paused || known.iter().any(|n| n == q.name.as_str());
        Ok(queues.into_values().filter(|q| named(q)).collect())
    }

    /// The queues of a partition, each with the time at which it was read, ms: entries of `queues.lua`. `scan`: ids to
    /// examine.
    pub(super) async fn queues_in(
        &self,
        partition: u16,
        only: Option<&QueueName>,
        scan: usize,
    ) -> Result<Vec<(i64, Value)>> {
        let (mut entries, mut after) = (Vec::new(), String::new());
        loop {
            let args = Args::default().text(only.map_or("", QueueName::as_str)).count(scan);
            let args = args.count(limits::QUEUE_LISTS).text(&after);
            let reply = self.inner.wire.run(&scripts::QUEUES, partition, &args, Repeat::Safe).await?;
            let [now, last, found @ ..] = array(&reply) else { return Ok(entries) };
            let now = number(now).unwrap_or(0);
            entries.extend(found.iter().map(|entry| (now, entry.clone())));
            after = text(last);
            if after.is_empty() {
                return Ok(entries);
            }
        }
    }

    /// Workers that are alive, or were within the last hour, by id.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn workers(&self) -> Result<Vec<WorkerStatus>> {
        self.read_workers(true).await
    }

    /// [`Store::workers`] without the ids that they hold, for which Redis reads up to [`limits::CLAIMED_MAX`] ids for
    /// each worker.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn workers_at_a_glance(&self) -> Result<Vec<WorkerStatus>> {
        self.read_workers(false).await
    }

    async fn read_workers(&self, with_held: bool) -> Result<Vec<WorkerStatus>> {
        let mut workers: BTreeMap<WorkerId, WorkerStatus> = BTreeMap::new();
        let read = |partition| self.workers_in(partition, with_held);
        let mut partitions = stream::iter(0..self.partitions()).map(read).buffered(AT_ONCE);
        while let Some(seen) = partitions.try_next().await? {
            for mut here in seen {
                match workers.entry(here.id.clone()) {
                    Entry::Vacant(place) => drop(place.insert(here)),
                    Entry::Occupied(mut place) => {
                        let worker = place.get_mut();
                        worker.alive &= here.alive;
                        worker.seen_at = worker.seen_at.max(here.seen_at);
                        worker.running.append(&mut here.running);
                    }
                }
            }
        }
        Ok(workers.into_values().collect())
    }

    /// The workers as one partition knows them.
    async fn workers_in(&self, partition: u16, with_held: bool) -> Result<Vec<WorkerStatus>> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZREVRANGE").arg(keys::fixed(partition, "workers")).arg(0).arg(limits::PAGE_MAX - 1).cmd("TIME");
        let replies = self.inner.wire.pipe_leniently(Home::Partition(partition), &pipeline).await?;
        let now = array(&replies[1]).first().and_then(number).unwrap_or(0) * 1_000;
        let ids: Vec<WorkerId> = array(&replies[0]).iter().filter_map(|v| WorkerId::parse(&text(v)).ok()).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for id in &ids {
            pipeline.cmd("HMGET").arg(keys::worker(partition, id)).arg("info").arg("seen_at");
        }
        let replies = self.inner.wire.pipe_leniently(Home::Partition(partition), &pipeline).await?;
        let mut running = if with_held { self.running_in(partition).await? } else { HashMap::new() };
        let of_each = replies.iter().filter_map(|reply| {
            // An unreadable worker record is omitted; `doctor` reports it.
            let [info, seen_at] = array(reply) else { return None };
            let info = serde_json::from_str::<WorkerInfo>(&text(info)).ok()?;
            let seen_at = Timestamp(number(seen_at).unwrap_or(0));
            let alive = now - seen_at.0 < i64::try_from(info.lease_ms).unwrap_or(i64::MAX);
            let running = running.remove(info.id.as_str()).unwrap_or_default();
            Some(WorkerStatus { running, ..WorkerStatus::new(info, seen_at, alive) })
        });
        Ok(of_each.collect())
    }

    /// The kinds and queues that live workers serve.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn serving(&self) -> Result<Serving> {
        Ok(Serving::of(self.workers_at_a_glance().await?))
    }

    /// The number of jobs in each state but `queued`, items included; [`QueueStatus::queued`] counts those.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn totals(&self) -> Result<BTreeMap<State, u64>> {
        let args = Args::default();
        let read = |partition| self.inner.wire.run(&scripts::TOTALS, partition, &args, Repeat::Safe);
        let replies: Vec<Value> = stream::iter(0..self.partitions()).map(read).buffered(AT_ONCE).try_collect().await?;
        let mut totals: BTreeMap<State, u64> = BTreeMap::new();
        for entry in replies.iter().flat_map(|reply| array(reply).chunks_exact(2)) {
            if let Some(state) = State::parse(&text(&entry[0])) {
                *totals.entry(state).or_default() += count(&entry[1]);
            }
        }
        Ok(totals)
    }

    /// Counts the jobs of a kind; `limited`: it has a `max_running`.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn counts(&self, kind: &Kind, limited: bool) -> Result<Counts> {
        let mut commands = Vec::new();
        for partition in 0..self.partitions() {
            let mut add = |command: &str, name: &str| {
                let command = redis::cmd(command).arg(keys::fixed(partition, name)).to_owned();
                commands.push((Home::Partition(partition), command));
            };
            add("ZCARD", &keys::kind_suffix(kind));
            if limited { add("SCARD", &format!("permits:{kind}")) } else { add("ZCARD", "leases") }
        }
        let replies = self.inner.wire.pipe_each_leniently(&commands).await?;
        let count = |at: usize| {
            let of_each = replies.iter().skip(at).step_by(2).filter_map(number);
            of_each.filter_map(|n| u64::try_from(n).ok()).sum()
        };
        Ok(Counts { total: count(0), running: count(1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(queue: &str, kind: &str, alive: bool) -> WorkerStatus {
        let info = WorkerInfo {
            id: WorkerId::parse("w").expect("an id"),
            host: "h".into(),
            pid: 1,
            version: "1".into(),
            started_at: Timestamp(0),
            queues: vec![QueueName::parse(queue).expect("a queue")],
            kinds: vec![Kind::parse(kind).expect("a kind")],
            slots: 1,
            lease_ms: 1,
            kinds_digest: None,
            running: BTreeMap::new(),
        };
        WorkerStatus::new(info, Timestamp(0), alive)
    }

    #[test]
    fn one_living_worker_must_serve_both_kind_and_queue() {
        let serving = Serving::of(vec![
            worker("reports", "count", true),
            worker("default", "resize", true),
            worker("default", "dead", false),
        ]);
        let lack =
            |kind, queue| serving.lack(&Kind::parse(kind).expect("a kind"), &QueueName::parse(queue).expect("a queue"));
        for (kind, queue, said) in [
            ("count", "reports", None),
            ("dead", "default", Some("no living worker serves kind dead")),
            ("count", "other", Some("no living worker serves queue other")),
            ("none", "other", Some("no living worker serves kind none, and none queue other")),
            ("count", "default", Some("no living worker serves both kind count and queue default")),
        ] {
            assert_eq!(lack(kind, queue).as_deref(), said);
        }
    }
}
