//! The sweep: promotes, reclaims, recovers, prunes, continues cascades. It needs no leader: each step is one bounded
//! script, and any number of workers may run it concurrently.
use std::collections::VecDeque;

use futures_util::future::join_all;
use redis::Value;

use super::Store;
use super::renew::gap_max_ms;
use super::wire::reply::{array, number, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use crate::{Error, JobId, Json, Kind, Result, WorkerId, limits};

/// Settings of a sweep.
#[derive(Debug, Clone, Copy)]
pub struct SweepRequest {
    /// The lease of the sweeping worker, ms.
    pub lease_ms: u64,
    /// Workers a job may lose before it fails.
    pub max_crashes: u32,
    /// The partition is left alone when anybody has swept it within 0.7 of this time, ms; 0: it is swept in any case.
    pub interval_ms: u64,
}

impl SweepRequest {
    /// How long all workers may be silent before the clock takes it for an outage, ms.
    pub fn gap_max_ms(&self) -> u64 {
        gap_max_ms(self.lease_ms)
    }
}

/// The results of one sweep of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Jobs that became due.
    pub promoted: usize,
    /// Jobs reclaimed after their lease expired.
    pub reclaimed: Vec<JobId>,
    /// Recovered reservations of dead workers.
    pub recovered: usize,
    /// Jobs removed because their retention had passed.
    pub pruned: usize,
    /// Steps of cascades.
    pub cascaded: usize,
    /// Unsealed parents cancelled an hour after their last part.
    pub closed: usize,
    /// The bound on steps was reached before all work was done: sweep again soon.
    pub more: bool,
    /// Another has just swept the partition, so nothing was done.
    pub fresh: bool,
    /// Workers that have renewed here within a lease.
    pub workers: usize,
}

impl Swept {
    /// Whether the sweep may have queued jobs.
    pub fn queued_any(&self) -> bool {
        self.promoted + self.recovered + self.cascaded + self.reclaimed.len() > 0
    }
}

impl Store {
    /// Sweeps one partition: one call finds out which steps have work, then these are run.
    ///
    /// # Errors
    /// Those of any call; the steps before the error keep their effect.
    pub async fn sweep(&self, partition: u16, request: &SweepRequest) -> Result<Swept> {
        let args = Args::default()
            .number(request.lease_ms)
            .number(gap_max_ms(request.lease_ms))
            .number(limits::BACKOFF_MS_MAX)
            .number(request.interval_ms * 7 / 10);
        let look = self.inner.wire.run(&scripts::SWEEP, partition, &args, Repeat::Safe).await?;
        let look = array(&look);
        let word = look.first().map(text);
        let workers = look.get(1).and_then(number).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let mut swept = Swept { workers, fresh: word.as_deref() == Some("fresh"), ..Swept::default() };
        let at = |n: usize| look.get(n + 2).unwrap_or(&Value::Nil);
        let has = |n: usize| number(at(n)) == Some(1);
        if swept.fresh {
            return Ok(swept);
        }
        if has(0) {
            swept.promoted = self.promote(partition).await?;
        }
        if has(1) {
            swept.reclaimed = self.reclaim(partition, request).await?;
        }
        if has(2) {
            swept.pruned = self.prune_expired(partition).await?;
        }
        for worker in array(at(3)).iter().filter_map(|v| WorkerId::parse(&text(v)).ok()) {
            swept.recovered += self.recover_dead(partition, &worker, request).await?;
        }
        let unsealed: Vec<JobId> = array(at(4)).iter().filter_map(|v| JobId::parse(&text(v)).ok()).collect();
        swept.closed = self.close_unsealed(partition, &unsealed).await?;
        self.cascade_all(partition, array(at(5)), &mut swept).await?;
        let most = limits::SWEEP_STEPS * limits::SWEEP_BATCH;
        swept.more |= swept.promoted >= most || swept.reclaimed.len() >= most || swept.pruned >= most;
        if has(6) {
            self.mend_leases(partition).await?;
        }
        for entry in array(at(7)).iter().map(array) {
            let pruned = self.prune_kept(partition, entry).await?;
            swept.pruned += pruned;
            swept.more |= pruned >= most;
        }
        Ok(swept)
    }

    /// The partitions that nobody has swept, and in which no worker has renewed, for `silence_ms`. A worker that lives
    /// renews in all of them, so the others are looked at only when `probe` is silent: with a worker this costs two
    /// commands, however many partitions there are.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn silent_partitions(&self, probe: u16, silence_ms: u64) -> Result<Vec<u16>> {
        let probed = self.silent_among(std::iter::once(probe), silence_ms).await;
        match probed {
            Ok(silent) if silent.is_empty() => Ok(silent),
            Err(e) if self.partitions() == 1 => Err(e),
            _ => self.silent_among(0..self.partitions(), silence_ms).await,
        }
    }

    async fn silent_among(&self, partitions: impl Iterator<Item = u16> + Clone, silence_ms: u64) -> Result<Vec<u16>> {
        let command = |partition, command: &str| (Home::Partition(partition), redis::cmd(command));
        let mut commands = Vec::new();
        for partition in partitions.clone() {
            commands.push(command(partition, "TIME"));
            let (home, mut stamp) = command(partition, "HGET");
            stamp.arg(keys::fixed(partition, "clock")).arg("stamp");
            commands.push((home, stamp));
        }
        let wire = &self.inner.wire;
        let replies = match wire.pipe_each_leniently(&commands).await {
            Err(e) if commands.len() == 2 => return Err(e),
            Ok(replies) => replies,
            // In a cluster one node may be away.
            Err(_) => {
                let each = commands.chunks(2).map(|of_one| async move {
                    wire.pipe_each_leniently(of_one).await.unwrap_or_else(|_| vec![Value::Nil; 2])
                });
                join_all(each).await.concat()
            }
        };
        let silence = i64::try_from(silence_ms).unwrap_or(i64::MAX);
        let silent = partitions.zip(replies.chunks_exact(2)).filter(|(_, reply)| {
            let Some(now) = array(&reply[0]).first().and_then(number) else { return false };
            number(&reply[1]).is_none_or(|stamp| now * 1_000 - stamp >= silence)
        });
        Ok(silent.map(|(partition, _)| partition).collect())
    }

    /// Queues jobs that have become due. Returns how many.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn promote(&self, partition: u16) -> Result<usize> {
        let args = Args::default().count(limits::SWEEP_BATCH).number(limits::BACKOFF_MS_MAX);
        let mut promoted = 0;
        for _ in 0..limits::SWEEP_STEPS {
            let reply = self.inner.wire.run(&scripts::PROMOTE, partition, &args, Repeat::Safe).await?;
            let step = number(&reply).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            promoted += step;
            if step < limits::SWEEP_BATCH {
                break;
            }
        }
        Ok(promoted)
    }

    /// Reclaims running jobs whose lease has expired, unless a grace period protects them. Returns them.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn reclaim(&self, partition: u16, request: &SweepRequest) -> Result<Vec<JobId>> {
        let max_crashes = request.max_crashes;
        let message =
            format!("its worker was lost {max_crashes} times since the last checkpoint, or too often in total");
        let error = Json::of(&serde_json::json!({"code": "crashed", "message": message})).expect("plain JSON");
        let args = Args::default().count(limits::SWEEP_BATCH).number(max_crashes).text(error.as_str());
        let args = args.number(request.lease_ms).number(gap_max_ms(request.lease_ms));
        let mut reclaimed = Vec::new();
        for _ in 0..limits::SWEEP_STEPS {
            let reply = self.inner.wire.run(&scripts::RECLAIM, partition, &args, Repeat::Safe).await?;
            let step = array(&reply);
            reclaimed.extend(step.iter().filter_map(|v| {
                let entry = array(v);
                let word = text(entry.get(1)?);
                (word != "dropped").then(|| JobId::parse(&text(&entry[0])).ok()).flatten()
            }));
            if step.len() < limits::SWEEP_BATCH {
                break;
            }
        }
        Ok(reclaimed)
    }

    /// Recovers a dead worker's reservations, and forgets the worker once it has been gone long enough. Returns how
    /// many.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn recover_dead(&self, partition: u16, worker: &WorkerId, request: &SweepRequest) -> Result<usize> {
        let args = Args::default().text(worker.as_str()).text("dead").count(limits::CLAIMED_MAX);
        let args = args.number(request.lease_ms).number(gap_max_ms(request.lease_ms));
        let reply = self.inner.wire.run(&scripts::RECOVER, partition, &args, Repeat::Safe).await?;
        Ok(array(&reply).first().and_then(number).and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
    }

    /// Removes jobs whose retention has passed. Returns how many.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn prune_expired(&self, partition: u16) -> Result<usize> {
        let args = Args::default().count(limits::SWEEP_BATCH).text("");
        let mut pruned = 0;
        for _ in 0..limits::SWEEP_STEPS {
            let reply = self.inner.wire.run(&scripts::REMOVE, partition, &args, Repeat::Safe).await?;
            let answers = self.discard_of_sweep(&reply).await;
            pruned += answers.len();
            if answers.len() < limits::SWEEP_BATCH {
                break;
            }
        }
        Ok(pruned)
    }

    /// Removes the oldest ended jobs of a kind beyond those to keep: `{kind, keep, ended jobs here}`. They are counted
    /// over all partitions, so only the sweep of the kind's home partition does it.
    async fn prune_kept(&self, partition: u16, entry: &[Value]) -> Result<usize> {
        let [kind, keep, here] = entry else { return Ok(0) };
        let (Ok(kind), Ok(keep)) = (Kind::parse(&text(kind)), text(keep).parse::<u64>()) else { return Ok(0) };
        let is_home = keys::partition_of(kind.as_str(), self.partitions()) == partition;
        let here = number(here).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        if !is_home || (self.partitions() == 1 && here <= keep) {
            return Ok(0);
        }
        self.prune_beyond(&kind, keep).await
    }

    async fn close_unsealed(&self, partition: u16, parents: &[JobId]) -> Result<usize> {
        if parents.is_empty() {
            return Ok(0);
        }
        let args = Args::default().text("open").texts(parents.iter().map(JobId::as_str));
        let reply = self.inner.wire.run(&scripts::CANCEL, partition, &args, Repeat::Safe).await?;
        Ok(array(&reply).iter().filter(|v| text(v) == "requested").count())
    }

    /// Continues cascades (`parent`, `<verb> <number of the next item>`, …), one step each in turn: a large cascade
    /// must not delay the others, and all of them must not delay the rest of the sweep.
    async fn cascade_all(&self, partition: u16, entries: &[Value], swept: &mut Swept) -> Result<()> {
        let mut walks = VecDeque::new();
        for entry in entries.chunks_exact(2) {
            let Ok(parent) = JobId::parse(&text(&entry[0])) else { continue };
            let total = match self.get(&parent).await {
                Ok(job) => job.and_then(|job| job.items).map_or(0, |items| items.total),
                // It does not stop the others; `doctor` reports it.
                Err(Error::Corrupt { .. }) => continue,
                Err(e) => return Err(e),
            };
            let step = text(&entry[1]);
            let (verb, from) = step.split_once(' ').unwrap_or((&step, "0"));
            walks.push_back(Cascade { parent, verb: verb.to_owned(), from: from.parse().unwrap_or(0), total });
        }
        for _ in 0..limits::SWEEP_STEPS {
            let Some(mut walk) = walks.pop_front() else { return Ok(()) };
            swept.cascaded += 1;
            if self.cascade(partition, &mut walk).await? {
                walks.push_back(walk);
            }
        }
        swept.more |= !walks.is_empty();
        Ok(())
    }

    /// Runs one step of a cascade. Returns whether there are more.
    async fn cascade(&self, partition: u16, walk: &mut Cascade) -> Result<bool> {
        let to = walk.total.min(walk.from + limits::CASCADE_BATCH as u64);
        let items = self.item_ids(&walk.parent, partition, walk.from..to);
        let args = Args::default().text(walk.parent.as_str()).text(&walk.verb).number(walk.from);
        let args = args.texts(items.iter().map(JobId::as_str));
        let reply = self.inner.wire.run(&scripts::CASCADE, partition, &args, Repeat::Safe).await?;
        let reply = array(&reply);
        self.delete_files_of_sweep(reply.get(1..).unwrap_or_default()).await;
        walk.from = to;
        Ok(reply.first().map(text).as_deref() == Some("more"))
    }
}

/// A cancel, retry or remove in progress over a batch's items.
struct Cascade {
    parent: JobId,
    verb: String,
    from: u64,
    total: u64,
}
