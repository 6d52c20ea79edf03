//! The sweep: promotes, reclaims, recovers, prunes, continues cascades. It needs no leader: each step is one bounded
//! script, and any number of workers may run it concurrently.
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;

use super::Store;
use super::cascade::Cascade;
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

/// The part of a sweep. A worker has a loop for each, so that a backlog of the long part delays no job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepPart {
    /// What jobs wait for: promote, reclaim, recover.
    Short,
    /// The others: cascades, unsealed batches, prune.
    Long,
    /// Both, one after the other.
    All,
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
    /// Calls that took steps of cascades.
    pub cascaded: usize,
    /// Unsealed parents cancelled an hour after their last part.
    pub closed: usize,
    /// Unreadable keys that were set aside, each reported in the log.
    pub set_aside: usize,
    /// The bound on steps was reached before all work was done: sweep again soon.
    pub more: bool,
    /// After the short part: the long part may have work.
    pub long_due: bool,
    /// Another has just swept the partition, so nothing was done.
    pub fresh: bool,
    /// Workers that have renewed here within a lease.
    pub workers: usize,
    /// How long it is until the next tick of a schedule, for [`Store::tick`]; `None`: there is none to come.
    pub tick_in: Option<Duration>,
}

impl Swept {
    /// Whether the sweep may have queued jobs.
    pub fn queued_any(&self) -> bool {
        self.promoted + self.recovered + self.cascaded + self.reclaimed.len() > 0
    }
}

/// The reply of `sweep.lua`: which steps have work.
struct Look(Value);

impl Look {
    fn at(&self, at: usize) -> &Value {
        array(&self.0).get(at).unwrap_or(&Value::Nil)
    }

    fn has(&self, at: usize) -> bool {
        number(self.at(at)) == Some(1)
    }

    fn texts(&self, at: usize) -> Vec<String> {
        array(self.at(at)).iter().map(text).collect()
    }
}

/// The first error of a sweep. The steps after it run nevertheless: one that keeps failing must not stop the others.
#[derive(Default)]
struct Failure(Option<Error>);

impl Failure {
    fn keep<T: Default>(&mut self, result: Result<T>) -> T {
        result.unwrap_or_else(|e| {
            self.0.get_or_insert(e);
            T::default()
        })
    }
}

/// The most jobs that one step of a sweep handles, over all of its calls.
const MOST: usize = limits::SWEEP_STEPS * limits::SWEEP_BATCH;

impl Store {
    /// Sweeps one partition, both parts.
    ///
    /// # Errors
    /// [`Store::sweep_part`]'s.
    pub async fn sweep(&self, partition: u16, request: &SweepRequest) -> Result<Swept> {
        self.sweep_part(partition, request, SweepPart::All).await
    }

    /// Sweeps a part of one partition: one call finds out which steps have work, then these are run.
    ///
    /// # Errors
    /// The first error of a step; the other steps run nevertheless, and keep their effect.
    pub async fn sweep_part(&self, partition: u16, request: &SweepRequest, part: SweepPart) -> Result<Swept> {
        let word = match part {
            SweepPart::Short => "short",
            SweepPart::Long => "long",
            SweepPart::All => "all",
        };
        let args = Args::default()
            .text(word)
            .number(request.lease_ms)
            .number(limits::BACKOFF_MS_MAX)
            .number(request.interval_ms * 7 / 10)
            .count(limits::CASCADES_MAX);
        let look = Look(self.inner.wire.run(&scripts::SWEEP, partition, &args, Repeat::Safe).await?);
        let workers = number(look.at(1)).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let tick_in = number(look.at(2)).and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        let mut swept = Swept { workers, tick_in, fresh: text(look.at(0)) == "fresh", ..Swept::default() };
        swept.long_due = look.has(14);
        let mut failure = Failure::default();
        self.sweep_jobs(partition, request, &look, &mut swept, &mut failure).await;
        self.sweep_rest(partition, &look, &mut swept, &mut failure).await;
        swept.more |= swept.promoted >= MOST || swept.reclaimed.len() >= MOST;
        failure.0.map_or(Ok(swept), Err)
    }

    /// The short part.
    async fn sweep_jobs(
        &self,
        partition: u16,
        request: &SweepRequest,
        look: &Look,
        swept: &mut Swept,
        failure: &mut Failure,
    ) {
        if look.has(3) {
            swept.promoted = failure.keep(self.promote(partition).await);
        }
        if look.has(4) {
            swept.reclaimed = failure.keep(self.reclaim(partition, request).await);
        }
        for worker in look.texts(5).iter().filter_map(|worker| WorkerId::parse(worker).ok()) {
            swept.recovered += failure.keep(self.recover_dead(partition, &worker, request).await);
        }
        if look.has(6) {
            failure.keep(self.mend_leases(partition).await);
        }
    }

    /// The long part. What clients have asked for comes before what nobody waits for.
    async fn sweep_rest(&self, partition: u16, look: &Look, swept: &mut Swept, failure: &mut Failure) {
        let unsealed: Vec<JobId> = look.texts(7).iter().filter_map(|id| JobId::parse(id).ok()).collect();
        swept.closed = failure.keep(self.close_unsealed(partition, &unsealed).await);
        swept.set_aside = failure.keep(self.report_aside(partition, &look.texts(13)).await);
        // Removals apart: however many there are, no cancel waits for one.
        for at in [8, 9] {
            let cascades = array(look.at(at)).iter().filter_map(Cascade::read).collect();
            let walked = failure.keep(self.walk_cascades(partition, cascades, limits::SWEEP_STEPS).await);
            swept.cascaded += walked.calls;
            swept.more |= walked.more && walked.calls > 0;
        }
        swept.more |= look.has(10) && swept.cascaded > 0;
        if look.has(11) {
            swept.pruned = failure.keep(self.prune_expired(partition).await);
            swept.more |= swept.pruned >= MOST;
        }
        for entry in array(look.at(12)).iter().map(array) {
            let pruned = failure.keep(self.prune_kept(partition, entry).await);
            swept.pruned += pruned;
            swept.more |= pruned >= MOST;
        }
    }

    /// Reports keys that were set aside, each once, and ends the items among them. Returns how many.
    async fn report_aside(&self, partition: u16, keys: &[String]) -> Result<usize> {
        if keys.is_empty() {
            return Ok(0);
        }
        let reply = self.inner.wire.run(&scripts::LOSE, partition, &Args::default().texts(keys), Repeat::Safe).await?;
        for report in array(&reply).iter().map(array) {
            let [key, reason] = [0, 1].map(|at| report.get(at).map(text).unwrap_or_default());
            let aside = keys::aside(&key);
            tracing::error!(key, aside, reason, "an unreadable key was set aside; `leasehold doctor` says what to do");
        }
        Ok(array(&reply).len())
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
            let [Some(s), Some(us)] = [0, 1].map(|at| array(&reply[0]).get(at).and_then(number)) else { return false };
            number(&reply[1]).is_none_or(|stamp| s * 1_000 + us / 1_000 - stamp >= silence)
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
        let args = args.number(request.lease_ms);
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
        let args = args.number(request.lease_ms);
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
            if self.deletes_behind() {
                break;
            }
            let reply = self.inner.wire.run(&scripts::REMOVE, partition, &args, Repeat::Safe).await?;
            let answers = self.discard_later(&reply);
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

    /// Cancels unsealed parents whose time has passed, with the first steps over their items. Returns how many.
    async fn close_unsealed(&self, partition: u16, parents: &[JobId]) -> Result<usize> {
        if parents.is_empty() {
            return Ok(0);
        }
        let args = Args::default().text("open").texts(parents.iter().map(JobId::as_str));
        let reply = self.inner.wire.run(&scripts::CANCEL, partition, &args, Repeat::Safe).await?;
        let words = array(&reply).iter().map(text);
        let begun: Vec<(JobId, u64)> =
            parents.iter().zip(words).filter_map(|(id, word)| Some((id.clone(), begun(&word)?))).collect();
        let count = begun.len();
        self.first_steps("cancel", begun).await;
        Ok(count)
    }
}

/// The number of items in an answer `begun <items>`.
pub(super) fn begun(word: &str) -> Option<u64> {
    word.strip_prefix("begun ")?.parse().ok()
}
