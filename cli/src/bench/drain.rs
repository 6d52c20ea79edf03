//! A drain: a queue is filled while it is paused, then one worker of many slots empties it. Afterwards every job must
//! have run and completed exactly once, and the consistency check must find nothing.
use std::time::{Duration, Instant};

use leasehold::{QueueName, State, Store};

use super::meter::Snapshot;
use super::site::{Fsync, Ground, Running, Site};
use super::work::{self, NOOP};
use crate::failure::Failure;

/// Jobs that the worker runs at once.
const SLOTS: usize = 300;
/// Jobs that are drained before anything is measured.
const WARM_UP: usize = 1_000;
/// How often the completed jobs are counted.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a drain may take without progress.
const STUCK: Duration = Duration::from_secs(60);

/// What a drain, or the submits before it, cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Jobs a second.
    pub rate: f64,
    /// CPU time of Redis for each job, µs.
    pub redis_us: f64,
    /// Commands that Redis ran for each job, those inside scripts included.
    pub commands: f64,
}

/// A site with a worker, to be drained.
pub(super) struct Drain {
    /// Where.
    pub site: Site,
    worker: Running,
    queue: QueueName,
    /// Jobs that have been submitted for it.
    pub submitted: u64,
}

impl Cost {
    fn between(before: &Snapshot, after: &Snapshot, jobs: u64, rate: f64) -> Self {
        let jobs = jobs as f64;
        Self {
            rate,
            redis_us: (after.cpu_us - before.cpu_us) / jobs,
            commands: (after.commands - before.commands) / jobs,
        }
    }
}

/// The number of completed jobs.
pub(super) async fn completed(store: &Store) -> Result<u64, Failure> {
    Ok(store.totals().await?.get(&State::Completed).copied().unwrap_or(0))
}

impl Drain {
    /// Starts a Redis and a worker, drains a few jobs to warm up, and pauses the queue.
    pub(super) async fn prepare(ground: &Ground, fsync: Fsync, partitions: u16) -> Result<Self, Failure> {
        Self::on(Site::start(ground, fsync, partitions).await?, ground).await
    }

    /// [`Drain::prepare`] on a site that is there.
    pub(super) async fn on(site: Site, ground: &Ground) -> Result<Self, Failure> {
        let worker = site.worker(SLOTS).await?;
        let queue = QueueName::parse("default").expect("a valid name");
        let mut drain = Self { site, worker, queue, submitted: 0 };
        drain.pause(true).await?;
        drain.fill(WARM_UP.min(ground.size.drain())).await?;
        drain.run(WARM_UP.min(ground.size.drain()) as u64).await?;
        Ok(drain)
    }

    async fn pause(&self, paused: bool) -> Result<(), Failure> {
        Ok(self.site.store.pause(&self.queue, paused).await?)
    }

    /// Submits jobs in bulk.
    pub(super) async fn fill(&mut self, jobs: usize) -> Result<Cost, Failure> {
        let before = self.site.meter.read().await?;
        work::submit(&self.site.store, jobs).await?;
        self.submitted += jobs as u64;
        let after = self.site.meter.read().await?;
        let rate = jobs as f64 / (after.at - before.at).as_secs_f64();
        Ok(Cost::between(&before, &after, jobs as u64, rate))
    }

    /// Lets the worker empty the queue until `jobs` more have completed, and pauses it again.
    pub(super) async fn run(&mut self, jobs: u64) -> Result<Cost, Failure> {
        let store = &self.site.store;
        let (earlier, before) = (completed(store).await?, self.site.meter.read().await?);
        let begun = Instant::now();
        self.pause(false).await?;
        let (mut first, mut seen, mut progress) = ((begun, 0), 0, begun);
        while seen < jobs {
            tokio::time::sleep(LOOK_EVERY).await;
            let (now, done) = (Instant::now(), completed(store).await? - earlier);
            if done > seen {
                progress = now;
                // From the first jobs on: when the pause ends, the worker may be waiting between two looks.
                if seen == 0 && done * 4 < jobs {
                    first = (now, done);
                }
            } else if now - progress > STUCK {
                let seconds = STUCK.as_secs();
                return Err(Failure::Failed(format!("no job completed for {seconds} s; {seen} of {jobs} have")));
            }
            seen = done;
        }
        let rate = (seen - first.1) as f64 / first.0.elapsed().as_secs_f64();
        let after = self.site.meter.read().await?;
        self.pause(true).await?;
        Ok(Cost::between(&before, &after, seen, rate))
    }

    /// The process id of the worker.
    pub(super) fn worker_pid(&self) -> u32 {
        self.worker.pid()
    }

    /// Fills and drains: what the drain cost.
    pub(super) async fn fill_and_run(&mut self, jobs: usize) -> Result<Cost, Failure> {
        self.fill(jobs).await?;
        self.run(jobs as u64).await
    }

    /// Stops the worker, and checks that each job has run and completed exactly once or still waits. No worker ran
    /// `others` of the completed jobs, and `removed` of those that have run are not there.
    pub(super) async fn check(self, others: u64, removed: u64) -> Result<Site, Failure> {
        let output = self.worker.stop().await?;
        let ran = output.lines().rev().find_map(|line| line.strip_prefix("ran ")?.parse::<u64>().ok()).unwrap_or(0);
        let (store, submitted) = (&self.site.store, self.submitted);
        let totals = store.totals().await?;
        let completed = (completed(store).await? + removed).saturating_sub(others);
        let left: u64 = totals.iter().filter(|(state, _)| **state != State::Completed).map(|(_, count)| count).sum();
        let waiting: u64 = store.queues(Some(&self.queue)).await?.iter().map(|queue| queue.queued).sum();
        if ran != completed || completed + waiting != submitted || left > 0 {
            return Err(Failure::Failed(format!(
                "of {submitted} jobs of kind {NOOP}, {ran} ran, {completed} completed, {waiting} wait and {left} are \
                 in another state"
            )));
        }
        consistent(store).await?;
        Ok(self.site)
    }
}

/// Fails when the consistency check finds something.
pub(super) async fn consistent(store: &Store) -> Result<(), Failure> {
    let findings = store.check().await?;
    let Some(first) = findings.first() else { return Ok(()) };
    let (count, subject, problem) = (findings.len(), &first.subject, &first.problem);
    Err(Failure::Failed(format!("the consistency check found {count} problems; the first: {subject}: {problem}")))
}
