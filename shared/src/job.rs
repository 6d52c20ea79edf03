//! A job: as a client submits it, and as a client sees it.
use serde::{Deserialize, Serialize};

use crate::files::FileEntry;
use crate::limits::REPLICAS_MAX;
use crate::{JobId, Json, Kind, QueueName, ScheduleName, State, Timestamp, WorkerId};

/// The priority within a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before normal and low.
    High,
    /// In order of arrival.
    #[default]
    Normal,
    /// After high and normal.
    Low,
}

impl Priority {
    /// The word in keys and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }

    /// The priority named by a word.
    pub fn parse(word: &str) -> Option<Self> {
        [Priority::High, Priority::Normal, Priority::Low].into_iter().find(|p| p.as_str() == word)
    }
}

/// When a new job may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Due {
    /// At once.
    #[default]
    Now,
    /// This many ms after Redis has accepted it; 0 is at once.
    In(u64),
    /// At this time; at once if it has passed.
    At(Timestamp),
}

/// An Idempotency-Key and a digest of its request. Keys are scoped to the job's kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key chosen by the client, printable ASCII.
    pub key: String,
    /// Hex digest of the request: the same key with another digest is refused.
    pub digest: String,
}

/// A job to submit, with its kind's defaults applied.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The kind of work.
    pub kind: Kind,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority.
    pub priority: Priority,
    /// The input of its handler.
    pub payload: Json,
    /// When it may start.
    pub due: Due,
    /// Maximum attempts, at least 1.
    pub max_attempts: u32,
    /// Maximum run time of an attempt, ms; `None`: its kind's.
    pub timeout_ms: Option<u64>,
    /// Makes a repeated submit return the same job.
    pub idempotency: Option<Idempotency>,
    /// How many replicas must have it before the submit is answered.
    pub durability: Durability,
    /// The kind has a `max_running`, so the job is stored in the kind's home partition.
    pub limited: bool,
    /// Makes the job the parent of this batch.
    pub batch: Option<NewBatch>,
    /// Files of the job, already in the file store.
    pub uploaded: Option<Uploaded>,
}

/// What a submit waits for, beyond Redis's own reply: how many replicas of Redis must have the job. By default none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Durability {
    replicas: u8,
}

impl Durability {
    /// Reads `replicas:N`.
    ///
    /// # Errors
    /// A sentence with what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let replicas = (0..=REPLICAS_MAX).find(|n| text.strip_prefix("replicas:") == Some(&n.to_string()));
        let shown = cut(text, 80);
        let fault = || format!("{shown:?} is not replicas:N; write N from 0 to {REPLICAS_MAX}, as in \"replicas:1\"");
        replicas.map(|replicas| Self { replicas }).ok_or_else(fault)
    }

    /// The number of replicas; 0: the submit does not wait.
    pub fn replicas(self) -> u8 {
        self.replicas
    }
}

impl TryFrom<String> for Durability {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Durability> for String {
    fn from(durability: Durability) -> Self {
        format!("replicas:{}", durability.replicas)
    }
}

/// Files written to the file store before the submit.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// The id under which they were written, minted for this job by `Store::mint_id`; it becomes the job's id.
    pub id: JobId,
    /// The files, at most [`crate::limits::FILES_MAX`].
    pub files: Vec<FileEntry>,
}

/// The batch of a submitted parent.
#[derive(Debug, Clone, Default)]
pub struct NewBatch {
    /// Payloads of the first items.
    pub items: Vec<Json>,
    /// More items will follow: the parent is not sealed.
    pub open: bool,
    /// The kind with which to run the parent once its items have ended.
    pub then: Option<Kind>,
}

/// The progress of a running job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 100.
    pub percent: Option<f64>,
    /// The current phase.
    pub message: Option<String>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// The sort of failure.
    pub code: ErrorCode,
    /// A human-readable message.
    pub message: String,
    /// The time of the failure.
    pub at: Timestamp,
}

/// The sort of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The handler reported an error.
    Failed,
    /// It exceeded its maximum run time.
    Timeout,
    /// The handler panicked.
    Panic,
    /// Its worker was lost too often.
    Crashed,
    /// The handler could not read the payload.
    BadPayload,
    /// The worker that claimed it has no handler for it.
    NoHandler,
}

/// A parent's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Items {
    /// Items submitted so far.
    pub total: u64,
    /// Completed, skipped items excluded.
    pub succeeded: u64,
    /// Failed for good.
    pub failed: u64,
    /// Completed as skipped.
    pub skipped: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// More items may be added.
    pub open: bool,
}

/// A complete job; a field that does not apply is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The partition that holds its keys.
    pub partition: u16,
    /// The kind of work.
    pub kind: Kind,
    /// Its queue.
    pub queue: QueueName,
    /// Its state.
    pub state: State,
    /// The priority within a queue.
    pub priority: Priority,
    /// The input of its handler.
    pub payload: Json,
    /// Failed attempts + 1, at most `max_attempts`.
    pub attempt: u32,
    /// Maximum attempts.
    pub max_attempts: u32,
    /// Workers lost since its last checkpoint.
    pub crashes: u32,
    /// The token of its lease, or of its last lease when it is not running.
    pub token: Option<u64>,
    /// The worker that runs it, or ran it last.
    pub worker: Option<WorkerId>,
    /// It is running or waiting for its items, and was flagged for cancellation.
    pub cancel_requested: bool,
    /// Its progress.
    pub progress: Option<Progress>,
    /// Its result.
    pub result: Option<Json>,
    /// Why there was nothing to do, for a skipped job.
    pub skipped: Option<String>,
    /// The error of its last failed attempt.
    pub error: Option<JobError>,
    /// The batch it belongs to.
    pub parent: Option<JobId>,
    /// Counts of its items, for a parent.
    pub items: Option<Items>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The schedule that submitted it; absent for any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleName>,
    /// The tick of its schedule; absent for a job that somebody has triggered, or without a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
    /// When it is, or was, due.
    pub scheduled_at: Option<Timestamp>,
    /// When its last run started.
    pub started_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When its lease expires unless it is renewed.
    pub lease_expires_at: Option<Timestamp>,
    /// Whether a living worker serves both its kind and its queue; only for a job that waits for one.
    #[serde(default)]
    pub served: Option<bool>,
    /// For an imported job, its original record in the old store; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Json>,
}

impl Job {
    /// Bytes of its payload and result.
    pub fn weight(&self) -> usize {
        self.payload.as_str().len() + self.result.as_ref().map_or(0, |result| result.as_str().len())
    }
}

/// The longest prefix of `text` of at most `bytes_max` bytes that ends at a character boundary.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durability_names_a_number_of_replicas() {
        for (text, replicas) in [("replicas:0", Some(0)), ("replicas:1", Some(1)), ("replicas:10", Some(10))] {
            assert_eq!(Durability::parse(text).ok().map(Durability::replicas), replicas, "{text}");
        }
        for text in [
            "",
            "replicas",
            "replicas:",
            "replicas:11",
            "replicas:01",
            "replicas:-1",
            "replicas:+1",
            "replicas:1 ",
            "1",
            "aof",
        ] {
            let fault = Durability::parse(text).expect_err(text);
            assert!(fault.contains("write N from 0 to 10"), "{fault}");
        }
    }
}
