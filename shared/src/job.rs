//! A job: what a client asks for, and what it sees.
use serde::{Deserialize, Serialize};

use crate::files::FileEntry;
use crate::{JobId, Json, Kind, QueueName, State, Timestamp, WorkerId};

/// How soon within its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before the others.
    High,
    /// In its turn.
    #[default]
    Normal,
    /// After the others.
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

    /// The priority of that word.
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
    /// So many ms after Redis has taken it; 0 is at once.
    In(u64),
    /// At that time; at once when it has passed.
    At(Timestamp),
}

/// An Idempotency-Key and a digest of the request it came with. Its scope is the job's kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// What the client chose, printable ASCII.
    pub key: String,
    /// Hex digest of the request: the same key with another digest is refused.
    pub digest: String,
}

/// A job to submit. Defaults that hang on its kind have been filled in by the caller.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// What it is.
    pub kind: Kind,
    /// Where it waits.
    pub queue: QueueName,
    /// How soon.
    pub priority: Priority,
    /// For its handler.
    pub payload: Json,
    /// When it may start.
    pub due: Due,
    /// Attempts it is given, at least 1.
    pub max_attempts: u32,
    /// Longest run, ms; `None`: its kind's.
    pub timeout_ms: Option<u64>,
    /// So that a second submit of the same is known.
    pub idempotency: Option<Idempotency>,
    /// The kind has a `max_running`: its jobs live in the kind's home partition.
    pub limited: bool,
    /// The job is a parent, and this is its batch.
    pub batch: Option<NewBatch>,
    /// Its files are in the file store already.
    pub uploaded: Option<Uploaded>,
}

/// What was written to the file store before the submit.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// The id it was written under, minted for this very job by `Store::mint_id`: the job gets it.
    pub id: JobId,
    /// The files, at most [`crate::limits::FILES_MAX`].
    pub files: Vec<FileEntry>,
}

/// What makes a submitted job a parent.
#[derive(Debug, Clone, Default)]
pub struct NewBatch {
    /// Payloads of the items known now.
    pub items: Vec<Json>,
    /// More will come: the parent is not sealed.
    pub open: bool,
    /// A kind to run the parent with once its items have ended.
    pub then: Option<Kind>,
}

/// How far a running job is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 100.
    pub percent: Option<f64>,
    /// The phase it is in.
    pub message: Option<String>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// The sort of failure.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// The sort of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Its handler said so.
    Failed,
    /// It ran longer than it may.
    Timeout,
    /// Its handler panicked.
    Panic,
    /// It lost its worker too often.
    Crashed,
    /// Its handler could not read the payload.
    BadPayload,
    /// The worker that claimed it has no handler for it.
    NoHandler,
}

/// A parent's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Items {
    /// Items submitted so far.
    pub total: u64,
    /// Completed, not skipped.
    pub succeeded: u64,
    /// Failed for good.
    pub failed: u64,
    /// Completed as skipped.
    pub skipped: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// More may come.
    pub open: bool,
}

/// A job, whole; a field that does not apply is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it is.
    pub kind: Kind,
    /// Where it waits.
    pub queue: QueueName,
    /// Where it is in its life.
    pub state: State,
    /// How soon within its queue.
    pub priority: Priority,
    /// For its handler.
    pub payload: Json,
    /// Failed attempts + 1, at most `max_attempts`.
    pub attempt: u32,
    /// Attempts it is given.
    pub max_attempts: u32,
    /// Workers it has lost since its last checkpoint.
    pub crashes: u32,
    /// Proof of the lease; of the last one when it is not running.
    pub token: Option<u64>,
    /// Who runs it, or ran it last.
    pub worker: Option<WorkerId>,
    /// It runs or waits for its items, and was asked to stop.
    pub cancel_requested: bool,
    /// How far it is.
    pub progress: Option<Progress>,
    /// What it made.
    pub result: Option<Json>,
    /// Why there was nothing to do.
    pub skipped: Option<String>,
    /// Why its last attempt failed.
    pub error: Option<JobError>,
    /// The batch it belongs to.
    pub parent: Option<JobId>,
    /// Counts of its items, for a parent.
    pub items: Option<Items>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it is, or was, due.
    pub scheduled_at: Option<Timestamp>,
    /// When its last run began.
    pub started_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When its holder loses it unless it renews.
    pub lease_expires_at: Option<Timestamp>,
    /// Whether a living worker serves both its kind and its queue; only for a job that waits for one.
    #[serde(default)]
    pub served: Option<bool>,
    /// Its record in the store that it was imported from, as it stood there; absent for a job that was submitted here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Json>,
}

impl Job {
    /// Bytes of its payload and result.
    pub fn weight(&self) -> usize {
        self.payload.as_str().len() + self.result.as_ref().map_or(0, |result| result.as_str().len())
    }
}

/// The largest prefix of `text` that has at most `bytes_max` bytes and ends between characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
