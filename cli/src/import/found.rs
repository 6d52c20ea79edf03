//! What a reader finds in an old store, and the channel to the importer.
use std::path::{Path, PathBuf};

use leasehold::store::{Ending, ImportedItem};
use leasehold::{Config, JobId, Json, Timestamp};
use tokio::sync::mpsc;

/// Something of an old store.
pub(super) enum Found {
    /// The expected number of records.
    Total(u64),
    /// What is left out, and why.
    Skipped(Told),
    /// A job.
    Job(Box<OldJob>),
    /// A batch; its items follow, and then [`Found::End`].
    Batch(Box<OldJob>),
    /// The next item of the batch.
    Item(Box<OldItem>),
    /// The batch is complete, and had ended so.
    End(Option<Ending>, Option<Told>),
}

/// Something to tell of a place in the old store.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub place: Place,
    pub reason: String,
}

/// Where in the old store.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub path: PathBuf,
    /// The line of a file, or the row of a table; from 1.
    pub line: Option<u64>,
}

/// A job of an old store.
pub(super) struct OldJob {
    pub place: Place,
    pub id: JobId,
    pub created_at: Timestamp,
    /// Its record as it stood.
    pub record: Json,
    /// What its handler takes.
    pub payload: Json,
    /// `None`: it is to run.
    pub ending: Option<Ending>,
    /// When it had ended; for one that is to run, when it was last changed.
    pub ended_at: Timestamp,
    pub attachment: Option<Attachment>,
    /// A note to report when it is imported.
    pub note: Option<String>,
}

/// A file that goes with a job.
pub(super) struct Attachment {
    pub path: PathBuf,
    pub name: String,
    /// It is what the job made; else what it is to work on.
    pub made: bool,
}

/// An item of a batch.
pub(super) struct OldItem {
    pub item: ImportedItem,
    pub note: Option<Told>,
}

/// Bounds, and what there is to write to.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// Bytes of a file that is one job.
    pub record_bytes: u64,
    /// Bytes of a file that is a whole batch.
    pub batch_bytes: u64,
    /// Bytes of what is kept of a record, and of a payload.
    pub payload_bytes: usize,
    pub result_bytes: usize,
    pub upload_bytes: u64,
    pub json_depth: usize,
    /// There is a file store.
    pub storage: bool,
}

impl Terms {
    pub(super) fn new(config: &Config) -> Self {
        let limits = &config.limits;
        Self {
            record_bytes: limits.body_bytes as u64,
            batch_bytes: limits.bulk_body_bytes as u64,
            payload_bytes: limits.payload_bytes,
            result_bytes: limits.result_bytes,
            upload_bytes: limits.upload_bytes,
            json_depth: limits.json_depth,
            storage: config.storage_url.is_some(),
        }
    }
}

/// Nobody hears the reader any more.
pub(super) struct Gone;

/// Whether the reader continues.
pub(super) type Flow = Result<(), Gone>;

/// Where a reader puts what it finds.
pub(super) struct Out {
    sender: mpsc::Sender<Found>,
    pub terms: Terms,
}

impl Out {
    pub(super) fn new(sender: mpsc::Sender<Found>, terms: Terms) -> Self {
        Self { sender, terms }
    }

    /// Hands something on; waits while there is enough on the way.
    pub(super) fn send(&self, found: Found) -> Flow {
        self.sender.blocking_send(found).map_err(|_| Gone)
    }

    /// Hands a job on, or why there is none.
    pub(super) fn job(&self, path: &Path, job: Result<OldJob, String>) -> Flow {
        match job {
            Ok(job) => self.send(Found::Job(Box::new(job))),
            Err(reason) => self.skip(Place::of(path), reason),
        }
    }

    /// Reports what is left out.
    pub(super) fn skip(&self, place: Place, reason: impl Into<String>) -> Flow {
        self.send(Found::Skipped(Told { place, reason: reason.into() }))
    }
}

impl Place {
    /// A whole file or folder.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), line: None }
    }

    /// A line or row of it.
    pub(super) fn at(path: &Path, line: u64) -> Self {
        Self { path: path.to_owned(), line: Some(line) }
    }

    pub(super) fn told(self, reason: impl Into<String>) -> Told {
        Told { place: self, reason: reason.into() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}
