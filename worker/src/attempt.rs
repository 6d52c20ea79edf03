//! One attempt of a job in a slot: started, run, settled.
pub(crate) mod context;
pub(crate) mod files;
mod progress;
pub(crate) mod report;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use leasehold::job::{ErrorCode, JobError};
use leasehold::store::{ClaimedJob, Outcome, Settle, Settled};
use leasehold::{State, Timestamp, limits, retry};

use crate::failure::Failure;
use crate::handler::{Completion, DynHandler};
use crate::lease::leases::{LeaseGuard, NewLease, NotAdded, release};
use crate::metrics::Requested;
use crate::outage::{Backoff, RefusalTimer};
use crate::panics::panic_message;
use crate::running::Running;
use crate::slots::Slot;
use crate::stop::{Stop, StopReason};
use context::{Context, Shared};
use files::Files;
use report::ProgressHandle;

/// A job from its claim to its settle.
pub(crate) struct Attempt {
    running: Arc<Running>,
    job: ClaimedJob,
    lease: LeaseGuard,
    context: Context,
    timeout: Option<Duration>,
}

/// How the handler ended.
enum HandlerEnd {
    /// It returned or panicked.
    Returned(Result<Completion, Failure>),
    /// Its future was dropped because it did not stop in time.
    Dropped,
}

impl Attempt {
    /// Registers the job's lease and starts the job on a separate task. A job whose claim took too long is released
    /// instead.
    pub fn start(running: &Arc<Running>, job: ClaimedJob, slot: Slot, claimed_at: Instant) {
        let work = running.work();
        let kind = work.kinds.get(&job.kind);
        let timeout = job.timeout_ms.or(kind.timeout_ms).filter(|ms| *ms > 0).map(Duration::from_millis);
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let stop = Arc::new(Stop::default());
        let intake = NewLease {
            held: job.held.clone(),
            queue: job.queue.clone(),
            claimed_at,
            deadline,
            exclusive: kind.exclusive,
            stop: Arc::clone(&stop),
        };
        let lease = match running.leases.add(job.partition, intake) {
            Ok(lease) => lease,
            Err(NotAdded::Late) => return release_late(running, job, slot),
            Err(NotAdded::Running) => {
                let (id, token) = (&job.held.id, job.held.token);
                return tracing::error!(job = %id, token, "not started: it is running here under this token");
            }
        };
        let shared = Shared {
            held: job.held.clone(),
            kind: job.kind.clone(),
            number: job.attempts.saturating_add(1),
            parent: job.parent.clone(),
            checkpoint: job.checkpoint.clone(),
            scheduled_for: job.scheduled_for,
            deadline,
            progress: ProgressHandle::new(job.held.clone(), Arc::clone(&stop)),
            stop,
            reporter: running.reporter.clone(),
            limits: running.config.limits.clone(),
            files: Files::new(running.store.files().cloned(), &job, running.config.limits.upload_bytes),
            items: job.items,
            cache_entry: OnceLock::new(),
            store: running.store.clone(),
            slot,
        };
        let context = Context { shared: Arc::new(shared) };
        let attempt = Attempt { running: Arc::clone(running), job, lease, context, timeout };
        running.tasks.spawn(attempt.run());
    }

    async fn run(self) {
        self.run_and_settle().await;
        let shared = &self.context.shared;
        if shared.stop.reason().is_some() && Arc::strong_count(shared) > 1 {
            shared.slot.linger();
            tracing::warn!(job = %shared.held.id, "the handler was stopped, but something it started still holds its context and keeps the slot");
        }
    }

    async fn run_and_settle(&self) {
        let outcome = match self.early_release() {
            Some(outcome) => Some(outcome),
            None => {
                let begun = Instant::now();
                let end = self.run_handler().await;
                self.lease.handler_ended();
                self.running.metrics.ran(&self.job.kind, begun.elapsed());
                self.outcome(end)
            }
        };
        let files = &self.context.shared.files;
        let Some(mut outcome) = outcome else {
            tracing::warn!(job = %self.job.held.id, token = self.job.held.token, "the lease was lost; the outcome is discarded");
            self.running.metrics.finished(&self.job.kind, &self.job.queue, None, None);
            return files.discard().await;
        };
        if let Outcome::Complete { skipped: None, files: left, .. } = &mut outcome {
            *left = files.take().await;
        }
        let requested = Requested::of(&outcome);
        let settled = tokio::select! {
            settled = async {
                self.context.shared.reporter.flush(&self.context.shared.progress).await;
                self.settle(outcome).await
            } => settled,
            () = self.running.gone.cancelled() => None,
        };
        self.running.metrics.finished(&self.job.kind, &self.job.queue, Some(requested), settled);
        if matches!(settled, Some(Settled::Stale | Settled::Missing)) {
            tracing::warn!(job = %self.job.held.id, token = self.job.held.token, "the outcome was rejected: the lease was lost before it was recorded");
        }
        match settled {
            Some(Settled::To(State::Completed)) if requested == Requested::Complete => {
                files.discard_older().await;
                self.remember().await;
            }
            Some(_) => files.discard().await,
            // The settle may still have completed the job, so its files are kept.
            None => {}
        }
    }

    /// Records this job in the cache, for later jobs of equal work. If that fails, they do the work again.
    async fn remember(&self) {
        let Some(entry) = self.context.shared.cache_entry.get() else { return };
        let remembering = self.running.store.remember(&self.job.kind, &entry.digest, &self.job.held.id, entry.ms);
        tokio::select! {
            done = remembering => if let Err(e) = done {
                tracing::info!(job = %self.job.held.id, "the result was not added to the cache: {e}");
            },
            () = self.running.gone.cancelled() => {}
        }
    }

    /// The outcome of a job that must not be run here now; `None`: it may be run.
    fn early_release(&self) -> Option<Outcome> {
        if self.running.shutdown.begun.is_cancelled() {
            return Some(Outcome::Release { delay_ms: None });
        }
        if self.job.version > limits::RECORD_VERSION {
            tracing::info!(job = %self.job.held.id, version = self.job.version, "released: its record has an unsupported version");
            return Some(Outcome::Release { delay_ms: Some(limits::UNKNOWN_VERSION_DELAY_MS) });
        }
        None
    }

    /// Runs the handler, and stops it on a cancel, shutdown, timeout or lost lease.
    async fn run_handler(&self) -> HandlerEnd {
        let work = self.running.work();
        let Some(handler) = work.registry.get(&self.job.kind) else {
            let message = format!("this worker has no handler for kind {}", self.job.kind);
            return HandlerEnd::Returned(Err(Failure::new(message).with_code(ErrorCode::NoHandler)));
        };
        let stop = &self.context.shared.stop;
        let mut attempt = std::pin::pin!(catching_panics(handler.as_ref(), &self.context, &self.job));
        let late = async {
            match self.context.deadline() {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = &mut attempt => return HandlerEnd::Returned(result),
            () = stop.token().cancelled() => {}
            () = late => stop.request(StopReason::Timeout),
        }
        tokio::select! {
            biased;
            result = &mut attempt => HandlerEnd::Returned(result),
            () = tokio::time::sleep(handler.grace()) => HandlerEnd::Dropped,
            () = self.running.shutdown.hurried.cancelled() => HandlerEnd::Dropped,
        }
    }

    /// The outcome to settle; `None`: the lease was lost, so there is nothing to settle.
    fn outcome(&self, end: HandlerEnd) -> Option<Outcome> {
        let reason = self.context.stop_reason();
        match (reason, end) {
            (Some(StopReason::Lost), _) => None,
            (Some(StopReason::Timeout), end) => Some(self.fail(self.timed_out(end))),
            (_, HandlerEnd::Returned(Ok((result, skipped)))) => {
                Some(Outcome::Complete { result, skipped, files: Vec::new() })
            }
            (Some(StopReason::Shutdown), _) => Some(Outcome::Release { delay_ms: None }),
            // The script ends a job with the cancel flag as cancelled, whether or not the failure requests a retry.
            (Some(StopReason::Cancel), HandlerEnd::Returned(Err(failure))) => {
                let message = format!("stopped on request: {}", failure.message);
                Some(self.fail(Failure { message, ..failure }))
            }
            (_, HandlerEnd::Returned(Err(failure))) if failure.uncharged => Some(self.release(&failure)),
            (_, HandlerEnd::Returned(Err(failure))) => Some(self.fail(failure)),
            (_, HandlerEnd::Dropped) => Some(self.fail(Failure::new("stopped on request"))),
        }
    }

    /// The system is at fault, and charging attempts would fail each job of its time.
    fn release(&self, failure: &Failure) -> Outcome {
        let (id, delay_ms) = (&self.job.held.id, limits::SYSTEM_FAULT_DELAY_MS);
        self.running.lacked_files(&self.job.kind);
        tracing::error!(job = %id, kind = %self.job.kind, delay_ms, "released, no attempt charged: {}", failure.message);
        self.context.warn(&format!("released, no attempt charged: {}", failure.message));
        Outcome::Release { delay_ms: Some(delay_ms) }
    }

    fn timed_out(&self, end: HandlerEnd) -> Failure {
        let ms = self.timeout.map_or(0, |timeout| timeout.as_millis());
        let mut message = format!("the attempt exceeded its timeout of {ms} ms");
        if let HandlerEnd::Returned(Err(failure)) = end {
            message = format!("{message}: {}", failure.message);
        }
        Failure::new(message).with_code(ErrorCode::Timeout)
    }

    fn fail(&self, failure: Failure) -> Outcome {
        let (job, work) = (&self.job, self.running.work());
        let kind = work.kinds.get(&job.kind);
        let dice = rand::random_range(0.0..1.0);
        let retry_ms = retry::decide(failure.wish, job.attempts, job.max_attempts, &kind.backoff, dice);
        tracing::info!(job = %job.held.id, kind = %job.kind, attempt = job.attempts.saturating_add(1), retry_ms, "failed: {}", failure.message);
        let at = Timestamp(chrono::Utc::now().timestamp_millis());
        Outcome::Fail { error: JobError { code: failure.code, message: failure.message, at }, retry_ms }
    }

    /// Retries the settle until Redis answers: an outage of any length must not discard the handler's outcome. `None`:
    /// Redis refused the settle for longer than one lease.
    async fn settle(&self, outcome: Outcome) -> Option<Settled> {
        let running = &self.running;
        let settle = Settle { held: self.job.held.clone(), outcome };
        let mut refused = RefusalTimer::default();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            let error = match running.store.settle(&running.worker, settle.clone()).await {
                Ok(settled) => {
                    running.redis.answered();
                    tracing::debug!(job = %settle.held.id, token = settle.held.token, "settled: {}", label(settled));
                    return Some(settled);
                }
                Err(error) => error,
            };
            running.redis.failed("settling a job", &error);
            if refused.refused_for(Instant::now(), &error) > running.leases.lease_time() {
                tracing::error!(job = %settle.held.id, "could not record the outcome ({error}); the lease will expire");
                return None;
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    }
}

/// Releases a job whose claim took too long.
fn release_late(running: &Arc<Running>, job: ClaimedJob, slot: Slot) {
    tracing::info!(job = %job.held.id, token = job.held.token, "released: its claim took too long");
    let (store, worker, metrics) = (running.store.clone(), running.worker.clone(), Arc::clone(&running.metrics));
    metrics.released.inc();
    running.tasks.spawn(async move {
        let settled = store.settle(&worker, release(job.held)).await.ok();
        metrics.finished(&job.kind, &job.queue, Some(Requested::Release), settled);
        drop(slot);
    });
}

fn label(settled: Settled) -> &'static str {
    match settled {
        Settled::To(state) => State::as_str(state),
        Settled::Stale => "stale",
        Settled::Missing => "missing",
    }
}

/// Runs the handler; a panic becomes a failure.
async fn catching_panics(handler: &dyn DynHandler, context: &Context, job: &ClaimedJob) -> Result<Completion, Failure> {
    let attempt = async { handler.call_json(context.clone(), &job.payload).await };
    AssertUnwindSafe(attempt).catch_unwind().await.unwrap_or_else(|panic| {
        Err(Failure::new(format!("the handler panicked: {}", panic_message(&*panic))).with_code(ErrorCode::Panic))
    })
}
