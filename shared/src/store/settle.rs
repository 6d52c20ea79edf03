//! Complete, fail, release: how a holder ends its claim; and what it reports on the way.
use redis::Value;

use super::Store;
use super::claim::Held;
use super::wire::reply::text;
use super::wire::{Args, scripts, split};
use crate::files::{FileEntry, Output};
use crate::job::{JobError, Progress, cut};
use crate::{Json, Result, State, WorkerId, limits};

/// How one claim ends.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is done.
    Complete {
        /// What it made.
        result: Json,
        /// Why there was nothing to do, if so.
        skipped: Option<String>,
        /// Files it left in the file store under its token: from now on they are the job's.
        files: Vec<FileEntry>,
    },
    /// The attempt failed.
    Fail {
        /// Why.
        error: JobError,
        /// Ms until the next attempt; `None`: there is none.
        retry_ms: Option<u64>,
    },
    /// Released: another worker may claim it, and no attempt is charged.
    Release {
        /// Ms until it is queued again; `None`: at once, at the front.
        delay_ms: Option<u64>,
    },
}

/// One settle.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The job and the token that proves the lease.
    pub held: Held,
    /// What happened.
    pub outcome: Outcome,
}

impl Settle {
    /// Releases a job: it is queued again after `delay_ms`, or with `None` at once, at the front.
    pub fn release(held: Held, delay_ms: Option<u64>) -> Self {
        Self { held, outcome: Outcome::Release { delay_ms } }
    }
}

/// What became of the job. The same token gets the same answer until the job is claimed again or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It ended, or went, there. Other than asked when a cancel was.
    To(State),
    /// The lease was lost before: nothing was changed.
    Stale,
    /// The job is gone.
    Missing,
}

/// What a running handler tells.
#[derive(Debug, Clone)]
pub struct Report {
    /// The job and the token that proves the lease.
    pub held: Held,
    /// How far it is.
    pub progress: Option<Progress>,
    /// Where the next attempt is to begin.
    pub checkpoint: Option<Json>,
}

impl Store {
    /// Settles one job, together with whatever else this worker is settling.
    ///
    /// # Errors
    /// Those of any call. It may be repeated for ever: it has one effect.
    pub async fn settle(&self, worker: &WorkerId, settle: Settle) -> Result<Settled> {
        let groups = self.inner.settles.get_or_init(|| self.groups(&scripts::SETTLE));
        let group = &groups[usize::from(self.partition_of(&settle.held.id))];
        group.call(head(worker), settle_entry(&settle)).await.map(|reply| settled(&reply))
    }

    /// Settles many, each answered alone, in order.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn settle_many(&self, worker: &WorkerId, settles: &[Settle]) -> Result<Vec<Settled>> {
        let mut answers = vec![Settled::Missing; settles.len()];
        for (partition, share) in self.by_partition(settles, |s| &s.held.id) {
            for chunk in split(&share, |(_, settle)| bytes(settle)) {
                let entries = chunk.iter().map(|(_, settle)| settle_entry(settle)).collect();
                let replies = self.inner.wire.run_many(&scripts::SETTLE, partition, head(worker), entries).await?;
                for ((at, _), reply) in chunk.iter().zip(&replies) {
                    answers[*at] = settled(reply);
                }
            }
        }
        Ok(answers)
    }

    /// Saves progress and checkpoints; for each whether its lease still stands.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn report(&self, worker: &WorkerId, reports: &[Report]) -> Result<Vec<bool>> {
        let mut answers = vec![false; reports.len()];
        for (partition, share) in self.by_partition(reports, |r| &r.held.id) {
            for chunk in split(&share, |(_, r)| r.checkpoint.as_ref().map_or(0, |c| c.as_str().len())) {
                let entries = chunk.iter().map(|(_, report)| report_entry(report)).collect();
                let replies = self.inner.wire.run_many(&scripts::REPORT, partition, head(worker), entries).await?;
                for ((at, _), word) in chunk.iter().zip(&replies) {
                    answers[*at] = text(word) == "saved";
                }
            }
        }
        Ok(answers)
    }
}

/// What a settle takes with it.
fn bytes(settle: &Settle) -> usize {
    match &settle.outcome {
        Outcome::Complete { result, files, .. } => result.as_str().len() + 256 * files.len(),
        Outcome::Fail { error, .. } => error.message.len().min(limits::MESSAGE_BYTES_MAX),
        Outcome::Release { .. } => 0,
    }
}

/// What all entries of a call have in common: who settles or reports.
fn head(worker: &WorkerId) -> Args {
    Args::default().text(worker.as_str())
}

fn settle_entry(settle: &Settle) -> Args {
    let ms = |ms: &Option<u64>| ms.map(|ms| ms.to_string()).unwrap_or_default();
    let (verb, a, b, c) = match &settle.outcome {
        Outcome::Complete { result, skipped, files } => {
            let reason = skipped.as_deref().map(|s| cut(s, limits::MESSAGE_BYTES_MAX));
            // An empty reason is a reason.
            let reason = reason.map_or("", |r| if r.is_empty() { " " } else { r }).to_owned();
            ("complete", result.as_str().to_owned(), reason, output(settle.held.token, files))
        }
        Outcome::Fail { error, retry_ms } => {
            let error =
                JobError { message: cut(&error.message, limits::MESSAGE_BYTES_MAX).to_owned(), ..error.clone() };
            ("fail", Json::of(&error).expect("an error is plain JSON").as_str().to_owned(), ms(retry_ms), String::new())
        }
        Outcome::Release { delay_ms } => ("release", String::new(), ms(delay_ms), String::new()),
    };
    Args::default().texts([verb, settle.held.id.as_str()]).number(settle.held.token).texts([a, b, c])
}

/// What the record says of the files; nothing when there are none.
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
    Args::default()
        .text(report.held.id.as_str())
        .number(report.held.token)
        .text(percent.unwrap_or_default())
        .text(message.unwrap_or_default())
        .text(report.checkpoint.as_ref().map_or("", Json::as_str))
}

fn settled(reply: &Value) -> Settled {
    match text(reply).as_str() {
        "stale" => Settled::Stale,
        "missing" => Settled::Missing,
        word => State::parse(word).map_or(Settled::Stale, Settled::To),
    }
}
