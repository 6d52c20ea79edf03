//! One job in one slot: taken in, run, settled.
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
use crate::handler::{Made, Work};
use crate::lease::leases::{Holding, Intake, release};
use crate::metrics::Asked;
use crate::outage::{Backoff, Refused};
use crate::panics::panic_message;
use crate::running::Running;
use crate::slots::Slot;
use crate::stop::{Stop, StopReason};
use context::{Attempt, Context};
use files::Files;
use report::Telling;

/// A job from its intake to its settle.
pub(crate) struct Run {
    running: Arc<Running>,
    job: ClaimedJob,
    holding: Holding,
    context: Context,
    timeout: Option<Duration>,
}

/// How the handler came to its end.
enum End {
    /// By itself, or by a panic.
    Returned(Result<Made, Failure>),
    /// Its future was dropped, since it did not stop when it was told to.
    Dropped,
}

impl Run {
    /// Takes the job in, and starts it on a task of its own. A job that came too late is given back instead.
    pub fn start(running: &Arc<Running>, job: ClaimedJob, slot: Slot, claimed_at: Instant) {
        let kind = running.kinds.get(&job.kind);
        let timeout = job.timeout_ms.or(kind.timeout_ms).filter(|ms| *ms > 0).map(Duration::from_millis);
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let stop = Arc::new(Stop::default());
        let intake = Intake {
            held: job.held.clone(),
            queue: job.queue.clone(),
            claimed_at,
            deadline,
            exclusive: kind.exclusive,
            stop: Arc::clone(&stop),
        };
        let Some(holding) = running.holds.take_in(job.partition, intake) else {
            return give_back(running, job, slot);
        };
        let attempt = Attempt {
            held: job.held.clone(),
            kind: job.kind.clone(),
            number: job.attempts.saturating_add(1),
            parent: job.parent.clone(),
            checkpoint: job.checkpoint.clone(),
            deadline,
            telling: Telling::new(job.held.clone(), Arc::clone(&stop)),
            stop,
            reporter: running.reporter.clone(),
            limits: running.config.limits.clone(),
            files: Files::new(
                running.store.files().cloned(),
                job.held.clone(),
                job.files.clone(),
                running.config.limits.upload_bytes,
            ),
            items: job.items,
            work: OnceLock::new(),
            store: running.store.clone(),
            slot,
        };
        let context = Context { attempt: Arc::new(attempt) };
        let run = Run { running: Arc::clone(running), job, holding, context, timeout };
        running.tasks.spawn(run.carry_out());
    }

    async fn carry_out(self) {
        self.see_through().await;
        let attempt = &self.context.attempt;
        if attempt.stop.reason().is_some() && Arc::strong_count(attempt) > 1 {
            attempt.slot.linger();
            tracing::warn!(job = %attempt.held.id, "its handler was told to stop and left something behind that keeps its slot");
        }
    }

    async fn see_through(&self) {
        let outcome = match self.misfit() {
            Some(outcome) => Some(outcome),
            None => {
                let begun = Instant::now();
                let end = self.work().await;
                self.holding.handler_ended();
                self.running.metrics.ran(&self.job.kind, begun.elapsed());
                self.judge(end)
            }
        };
        let files = &self.context.attempt.files;
        let Some(mut outcome) = outcome else {
            tracing::warn!(job = %self.job.held.id, token = self.job.held.token, "the lease was lost; nothing is settled");
            self.running.metrics.finished(&self.job.kind, None, None);
            return files.discard().await;
        };
        if let Outcome::Complete { skipped: None, files: left, .. } = &mut outcome {
            *left = files.take().await;
        }
        let asked = Asked::of(&outcome);
        let settled = tokio::select! {
            settled = async {
                self.context.attempt.reporter.flush(&self.context.attempt.telling).await;
                self.settle(outcome).await
            } => settled,
            () = self.running.gone.cancelled() => None,
        };
        self.running.metrics.finished(&self.job.kind, Some(asked), settled);
        if matches!(settled, Some(Settled::Stale | Settled::Missing)) {
            tracing::warn!(job = %self.job.held.id, token = self.job.held.token, "settled too late: the lease was lost");
        }
        match settled {
            Some(Settled::To(State::Completed)) if asked == Asked::Complete => {
                files.discard_older().await;
                self.remember().await;
            }
            Some(_) => files.discard().await,
            // It may have completed the job.
            None => {}
        }
    }

    /// Lets later jobs that would do the same work find this one. Without it, they do it.
    async fn remember(&self) {
        let Some(work) = self.context.attempt.work.get() else { return };
        let remembering = self.running.store.remember(&self.job.kind, &work.digest, &self.job.held.id, work.ms);
        tokio::select! {
            done = remembering => if let Err(e) = done {
                tracing::info!(job = %self.job.held.id, "not remembered for the cache: {e}");
            },
            () = self.running.gone.cancelled() => {}
        }
    }

    /// What becomes of a job that is not to be run here now.
    fn misfit(&self) -> Option<Outcome> {
        if self.running.shutdown.begun.is_cancelled() {
            return Some(Outcome::Release { delay_ms: None });
        }
        if self.job.version != limits::RECORD_VERSION {
            tracing::info!(job = %self.job.held.id, version = self.job.version, "given back: its record is of another version");
            return Some(Outcome::Release { delay_ms: Some(limits::UNKNOWN_VERSION_DELAY_MS) });
        }
        None
    }

    /// Runs the handler, and stops it when it is to be stopped.
    async fn work(&self) -> End {
        let Some(handler) = self.running.registry.get(&self.job.kind) else {
            let message = format!("this worker has no handler for kind {}", self.job.kind);
            return End::Returned(Err(Failure::new(message).coded(ErrorCode::NoHandler)));
        };
        let stop = &self.context.attempt.stop;
        let mut attempt = std::pin::pin!(guarded(handler.as_ref(), &self.context, &self.job));
        let late = async {
            match self.context.deadline() {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = &mut attempt => return End::Returned(result),
            () = stop.token().cancelled() => {}
            () = late => stop.ask(StopReason::Timeout),
        }
        tokio::select! {
            biased;
            result = &mut attempt => End::Returned(result),
            () = tokio::time::sleep(handler.grace()) => End::Dropped,
            () = self.running.shutdown.hurried.cancelled() => End::Dropped,
        }
    }

    /// How the claim is to end; `None`: it is no longer ours to end.
    fn judge(&self, end: End) -> Option<Outcome> {
        let reason = self.context.stop_reason();
        match (reason, end) {
            (Some(StopReason::Lost), _) => None,
            (Some(StopReason::Timeout), end) => Some(self.fail(self.timed_out(end))),
            (_, End::Returned(Ok((result, skipped)))) => Some(Outcome::Complete { result, skipped, files: Vec::new() }),
            (Some(StopReason::Shutdown), _) => Some(Outcome::Release { delay_ms: None }),
            // The script ends a flagged job as cancelled, whatever the failure asks for.
            (Some(StopReason::Cancel), End::Returned(Err(failure))) => {
                let message = format!("stopped on request: {}", failure.message);
                Some(self.fail(Failure { message, ..failure }))
            }
            (_, End::Returned(Err(failure))) => Some(self.fail(failure)),
            (_, End::Dropped) => Some(self.fail(Failure::new("stopped on request"))),
        }
    }

    fn timed_out(&self, end: End) -> Failure {
        let ms = self.timeout.map_or(0, |timeout| timeout.as_millis());
        let mut message = format!("it ran longer than the {ms} ms it may");
        if let End::Returned(Err(failure)) = end {
            message = format!("{message}: {}", failure.message);
        }
        Failure::new(message).coded(ErrorCode::Timeout)
    }

    fn fail(&self, failure: Failure) -> Outcome {
        let (job, kind) = (&self.job, self.running.kinds.get(&self.job.kind));
        let dice = rand::random_range(0.0..1.0);
        let retry_ms = retry::decide(failure.wish, job.attempts, job.max_attempts, &kind.backoff, dice);
        tracing::info!(job = %job.held.id, kind = %job.kind, attempt = job.attempts.saturating_add(1), retry_ms, "failed: {}", failure.message);
        let at = Timestamp(chrono::Utc::now().timestamp_millis());
        Outcome::Fail { error: JobError { code: failure.code, message: failure.message, at }, retry_ms }
    }

    /// Settles until there is an answer: an outage, however long, must not undo what the handler did. `None`: the record
    /// cannot be written, and for one lease it was tried.
    async fn settle(&self, outcome: Outcome) -> Option<Settled> {
        let running = &self.running;
        let settle = Settle { held: self.job.held.clone(), outcome };
        let mut refused = Refused::default();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            let error = match running.store.settle(&running.worker, settle.clone()).await {
                Ok(settled) => {
                    running.contact.works();
                    tracing::debug!(job = %settle.held.id, token = settle.held.token, "settled: {}", word(settled));
                    return Some(settled);
                }
                Err(error) => error,
            };
            running.contact.failed("settling a job", &error);
            if refused.lasts(Instant::now(), &error) > running.holds.lease() {
                tracing::error!(job = %settle.held.id, "given up: its settle is refused ({error}); its lease will run out");
                return None;
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    }
}

/// Releases a job whose claim took too long. Tried once: the audit would find it.
fn give_back(running: &Arc<Running>, job: ClaimedJob, slot: Slot) {
    tracing::info!(job = %job.held.id, token = job.held.token, "given back: its claim took too long");
    let (store, worker, metrics) = (running.store.clone(), running.worker.clone(), Arc::clone(&running.metrics));
    running.tasks.spawn(async move {
        let settled = store.settle(&worker, release(job.held)).await.ok();
        metrics.finished(&job.kind, Some(Asked::Release), settled);
        drop(slot);
    });
}

fn word(settled: Settled) -> &'static str {
    match settled {
        Settled::To(state) => State::as_str(state),
        Settled::Stale => "stale",
        Settled::Missing => "missing",
    }
}

/// The handler's future, in which a panic is a failure.
async fn guarded(handler: &dyn Work, context: &Context, job: &ClaimedJob) -> Result<Made, Failure> {
    let attempt = async { handler.attempt(context.clone(), &job.payload).await };
    AssertUnwindSafe(attempt).catch_unwind().await.unwrap_or_else(|panic| {
        Err(Failure::new(format!("its handler panicked: {}", panic_message(&*panic))).coded(ErrorCode::Panic))
    })
}
