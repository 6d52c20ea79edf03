//! Complete, fail, release: how a holder ends its claim; and the reports of a running handler.
use redis::Value;

use super::claim::Held;
use super::wire::reply::text;
use super::wire::{Args, scripts, split};
use super::{Store, by_partition};
use crate::files::{FileEntry, Output};
use crate::job::{JobError, Progress, cut};
use crate::{Json, Result, State, WorkerId, limits};

/// How one claim ends.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The job is completed.
    Complete {
        /// The result.
        result: Json,
        /// Why there was nothing to do, for a skipped job.
        skipped: Option<String>,
        /// Files that the attempt wrote to the file store under its token; they become the job's output.
        files: Vec<FileEntry>,
    },
    /// The attempt failed.
    Fail {
        /// The error.
        error: JobError,
        /// Ms until the next attempt; `None`: no further attempt.
        retry_ms: Option<u64>,
    },
    /// Released: another worker may claim it, and no attempt is charged.
    Release {
        /// Ms until it is queued again; `None`: at once, at the front of the queue.
        delay_ms: Option<u64>,
    },
}

/// The settle of one claim.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The job and the token that proves the lease.
    pub held: Held,
    /// The outcome.
    pub outcome: Outcome,
}

impl Settle {
    /// Releases a job: it is queued again after `delay_ms`, or with `None` at once, at the front.
    pub fn release(held: Held, delay_ms: Option<u64>) -> Self {
        Self { held, outcome: Outcome::Release { delay_ms } }
    }
}

/// The job after a settle. The same token gets the same answer until the job is claimed again or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The job's state now. It differs from the requested outcome if the job was flagged for cancellation.
    To(State),
    /// The lease had been lost; nothing was changed.
    Stale,
    /// The job no longer exists.
    Missing,
}

/// A report of a running handler.
#[derive(Debug, Clone)]
pub struct Report {
    /// The job and the token that proves the lease.
    pub held: Held,
    /// Its progress.
    pub progress: Option<Progress>,
    /// A checkpoint: where the next attempt continues.
    pub checkpoint: Option<Json>,
    /// A line for the job's history: something is wrong, and the attempt continues.
    pub warning: Option<String>,
}

impl Store {
    /// Settles one job, in one call with the other settles that are waiting.
    ///
    /// # Errors
    /// Those of any call. Idempotent: it may be repeated any number of times.
    pub async fn settle(&self, worker: &WorkerId, settle: Settle) -> Result<Settled> {
        let group = self.inner.settles.of(settle.held.partition);
        group.call(head(worker), settle_entry(&settle), 0).await.map(|reply| settled(&reply))
    }

    /// Settles many jobs; each is answered separately, in order.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn settle_many(&self, worker: &WorkerId, settles: &[Settle]) -> Result<Vec<Settled>> {
        let mut answers = vec![Settled::Missing; settles.len()];
        for (partition, share) in by_partition(settles, |_, settle| settle.held.partition) {
            for chunk in split(&share, |(_, settle)| bytes(settle)) {
                let entries = chunk.iter().map(|(_, settle)| settle_entry(settle)).collect();
                let replies = self.inner.wire.run_many(&scripts::SETTLE, partition, head(worker), entries, 0).await?;
                for ((at, _), reply) in chunk.iter().zip(&replies) {
                    answers[*at] = settled(reply);
                }
            }
        }
        Ok(answers)
    }

    /// Saves progress, checkpoints and warnings. Returns for each whether its lease is still valid.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn report(&self, worker: &WorkerId, reports: &[Report]) -> Result<Vec<bool>> {
        let mut answers = vec![false; reports.len()];
        for (partition, share) in by_partition(reports, |_, report| report.held.partition) {
            for chunk in split(&share, |(_, r)| r.checkpoint.as_ref().map_or(0, |c| c.as_str().len())) {
                let entries = chunk.iter().map(|(_, report)| report_entry(report)).collect();
                let replies = self.inner.wire.run_many(&scripts::REPORT, partition, head(worker), entries, 0).await?;
                for ((at, _), word) in chunk.iter().zip(&replies) {
                    answers[*at] = text(word) == "saved";
                }
            }
        }
        Ok(answers)
    }
}

/// The entry of a settle in the script's arguments.
fn bytes(settle: &Settle) -> usize {
    match &settle.outcome {
        Outcome::Complete { result, files, .. } => result.as_str().len() + 256 * files.len(),
        Outcome::Fail { error, .. } => error.message.len().min(limits::MESSAGE_BYTES_MAX),
        Outcome::Release { .. } => 0,
    }
}

/// The arguments common to all entries of a call: the worker that settles or reports.
fn head(worker: &WorkerId) -> Args {
    Args::default().text(worker.as_str())
}

fn settle_entry(settle: &Settle) -> Args {
    let entry = |verb| Args::default().texts([verb, settle.held.id.as_str()]).number(settle.held.token);
    let ms = |ms: &Option<u64>| ms.map(|ms| ms.to_string()).unwrap_or_default();
    match &settle.outcome {
        Outcome::Complete { result, skipped: None, files } if files.is_empty() => {
            entry("complete").text(result.as_str())
        }
        Outcome::Complete { result, skipped, files } => {
            let reason = skipped.as_deref().map(|s| cut(s, limits::MESSAGE_BYTES_MAX));
            // An empty reason still means skipped.
            let reason = reason.map_or("", |r| if r.is_empty() { " " } else { r });
            entry("finish").texts([result.as_str(), reason, &output(settle.held.token, files)])
        }
        Outcome::Fail { error, retry_ms } => {
            let error =
                JobError { message: cut(&error.message, limits::MESSAGE_BYTES_MAX).to_owned(), ..error.clone() };
            let error = Json::of(&error).expect("an error is plain JSON");
            entry("fail").texts([error.as_str(), &ms(retry_ms)])
        }
        Outcome::Release { delay_ms } => entry("release").text(ms(delay_ms)),
    }
}

/// The record's field for output files; empty without files.
fn output(token: u64, files: &[FileEntry]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let output = Output { token, files: files.to_vec() };
    Json::of(&output).expect("a list of files is plain JSON").as_str().to_owned()
}

fn report_entry(report: &Report) -> Args {
    let progress = report.progress.as_ref();
    let percent = progress.and_then(|p| p.percent).map(|p| p.clamp(0.0, 100.0).to_string());
    let message = progress.and_then(|p| p.message.as_deref()).map(|m| cut(m, limits::MESSAGE_BYTES_MAX));
    let warning = report.warning.as_deref().map(|w| cut(w, limits::MESSAGE_BYTES_MAX));
    Args::default()
        .text(report.held.id.as_str())
        .number(report.held.token)
        .text(percent.unwrap_or_default())
        .text(message.unwrap_or_default())
        .text(report.checkpoint.as_ref().map_or("", Json::as_str))
        .text(warning.unwrap_or_default())
}

fn settled(reply: &Value) -> Settled {
    match text(reply).as_str() {
        "stale" => Settled::Stale,
        "missing" => Settled::Missing,
        word => State::parse(word).map_or(Settled::Stale, Settled::To),
    }
}
