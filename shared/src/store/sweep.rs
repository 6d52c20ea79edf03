//! The sweep: promotes, reclaims, recovers, prunes, goes on with cascades. Needs no leader: each step is one bounded
//! script, and all workers may take it at once.
use redis::Value;

use super::claim::gap_max_ms;
use super::inspect::{array, number, text};
use super::{Args, Repeat, Store, keys, scripts};
use crate::{Error, JobId, Json, Kind, Result, WorkerId, limits};

/// What a sweep must know.
#[derive(Debug, Clone, Copy)]
pub struct SweepRequest {
    /// The lease of whoever sweeps, ms.
    pub lease_ms: u64,
    /// Workers a job may lose.
    pub max_crashes: u32,
}

/// What one sweep of a partition did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Jobs that became due.
    pub promoted: usize,
    /// Jobs taken back from a lost lease.
    pub reclaimed: Vec<JobId>,
    /// Reservations of dead workers put back.
    pub recovered: usize,
    /// Jobs whose retention had passed.
    pub pruned: usize,
    /// Steps of cascades taken.
    pub cascaded: usize,
    /// Unsealed parents whose hour had passed.
    pub closed: usize,
}

impl Swept {
    /// Whether jobs may wait in a queue that did not before.
    pub fn queued_any(&self) -> bool {
        self.promoted + self.recovered + self.cascaded + self.reclaimed.len() > 0
    }
}

impl Store {
    /// Sweeps one partition: a look, and the steps that it finds have work.
    ///
    /// # Errors
    /// Those of any call; what was done before stays done.
    pub async fn sweep(&self, partition: u16, request: &SweepRequest) -> Result<Swept> {
        let args = Args::default()
            .number(request.lease_ms)
            .number(gap_max_ms(request.lease_ms))
            .number(limits::BACKOFF_MS_MAX);
        let look = self.inner.run(&scripts::SWEEP, partition, &args, Repeat::Safe).await?;
        let look = array(&look);
        let at = |n: usize| look.get(n).unwrap_or(&Value::Nil);
        let has = |n: usize| number(at(n)) == Some(1);
        let mut swept = Swept::default();
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
        for entry in array(at(5)).chunks_exact(2) {
            if let Ok(parent) = JobId::parse(&text(&entry[0])) {
                swept.cascaded += self.cascade(partition, &parent, &text(&entry[1])).await?;
            }
        }
        if has(6) {
            self.mend_leases(partition).await?;
        }
        for entry in array(at(7)).iter().map(array) {
            swept.pruned += self.prune_kept(partition, entry).await?;
        }
        Ok(swept)
    }

    /// Queues what has become due. Returns how many.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn promote(&self, partition: u16) -> Result<usize> {
        let args = Args::default().count(limits::SWEEP_BATCH).number(limits::BACKOFF_MS_MAX);
        let mut promoted = 0;
        for _ in 0..limits::SWEEP_STEPS {
            let reply = self.inner.run(&scripts::PROMOTE, partition, &args, Repeat::Safe).await?;
            let step = number(&reply).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            promoted += step;
            if step < limits::SWEEP_BATCH {
                break;
            }
        }
        Ok(promoted)
    }

    /// Takes back running jobs whose lease has run out, grace aside. Returns them.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn reclaim(&self, partition: u16, request: &SweepRequest) -> Result<Vec<JobId>> {
        let max_crashes = request.max_crashes;
        let message = format!("it lost its worker {max_crashes} times since its last checkpoint, or too often in all");
        let error = Json::of(&serde_json::json!({"code": "crashed", "message": message})).expect("plain JSON");
        let args = Args::default().count(limits::SWEEP_BATCH).number(max_crashes).text(error.as_str());
        let args = args.number(request.lease_ms).number(gap_max_ms(request.lease_ms));
        let mut reclaimed = Vec::new();
        for _ in 0..limits::SWEEP_STEPS {
            let reply = self.inner.run(&scripts::RECLAIM, partition, &args, Repeat::Safe).await?;
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

    /// Puts a dead worker's reservations back, and forgets it once it has been gone long enough. Returns how many.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn recover_dead(&self, partition: u16, worker: &WorkerId, request: &SweepRequest) -> Result<usize> {
        let args = Args::default().text(worker.as_str()).text("dead").count(limits::CLAIMED_MAX);
        let args = args.number(request.lease_ms).number(gap_max_ms(request.lease_ms));
        let reply = self.inner.run(&scripts::RECOVER, partition, &args, Repeat::Safe).await?;
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
            let reply = self.inner.run(&scripts::REMOVE, partition, &args, Repeat::Safe).await?;
            let answers = self.discard(&reply).await;
            pruned += answers.len();
            if answers.len() < limits::SWEEP_BATCH {
                break;
            }
        }
        Ok(pruned)
    }

    /// Removes the oldest ended jobs of a kind beyond those to keep: `{kind, keep, ended ones here}`. Counted over all
    /// partitions, so the sweep of the kind's own does it.
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
        let reply = self.inner.run(&scripts::CANCEL, partition, &args, Repeat::Safe).await?;
        Ok(array(&reply).iter().filter(|v| text(v) == "requested").count())
    }

    /// Goes on with a cascade that stands at `step` (`<verb> <number of the next item>`). Returns how many steps it took.
    ///
    /// # Errors
    /// Those of any call.
    async fn cascade(&self, partition: u16, parent: &JobId, step: &str) -> Result<usize> {
        let (verb, from) = step.split_once(' ').unwrap_or((step, "0"));
        let mut from: u64 = from.parse().unwrap_or(0);
        let total = match self.get(parent).await {
            Ok(job) => job.and_then(|job| job.items).map_or(0, |items| items.total),
            // It stops nobody else: the walk over the keys reports it.
            Err(Error::Corrupt { .. }) => return Ok(0),
            Err(e) => return Err(e),
        };
        for taken in 1..=limits::SWEEP_STEPS {
            let to = total.min(from + limits::CASCADE_BATCH as u64);
            let items: Vec<JobId> = (from..to).map(|k| self.item_id(parent, k)).collect();
            let args = Args::default().text(parent.as_str()).text(verb).number(from);
            let args = args.texts(items.iter().map(JobId::as_str));
            let reply = self.inner.run(&scripts::CASCADE, partition, &args, Repeat::Safe).await?;
            let reply = array(&reply);
            self.delete_files(reply.get(1..).unwrap_or_default()).await;
            if reply.first().map(text).as_deref() != Some("more") {
                return Ok(taken);
            }
            from = to;
        }
        Ok(limits::SWEEP_STEPS)
    }
}
