//! What a handler is given besides its payload.
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures_util::{Stream, StreamExt, TryStreamExt};
use leasehold::job::Items;
use leasehold::store::Held;
use leasehold::{Error, FileEntry, FileError, Job, JobId, Json, Kind, Limits, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;

use super::files::Files;
use super::report::{ProgressHandle, Reporter};
use crate::error::CheckpointError;
use crate::failure::Failure;
use crate::slots::Slot;
use crate::stop::{Stop, StopReason};

/// The attempt a handler runs. Clones are one; the slot is free again once the attempt is settled and every clone is gone,
/// so work on other threads that outlives the handler keeps its slot by keeping a clone.
#[derive(Clone)]
pub struct Context {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub held: Held,
    pub kind: Kind,
    pub number: u32,
    pub parent: Option<JobId>,
    pub checkpoint: Option<Json>,
    pub deadline: Option<Instant>,
    pub stop: Arc<Stop>,
    pub progress: Arc<ProgressHandle>,
    pub reporter: Reporter,
    pub limits: Limits,
    pub files: Files,
    pub items: Option<Items>,
    /// The work it does, for others to find once it has completed the job.
    pub cache_entry: OnceLock<CacheEntry>,
    pub store: Store,
    pub slot: Slot,
}

/// What a later job is to be told apart by that would do the same work.
pub(crate) struct CacheEntry {
    pub digest: String,
    /// How long it may be told that, ms.
    pub ms: u64,
}

impl Context {
    /// The job.
    pub fn job_id(&self) -> &JobId {
        &self.shared.held.id
    }

    /// Proof of the lease: larger with every claim of this job. A database that refuses a smaller one than it has seen is
    /// safe from an attempt that has lost its lease.
    pub fn token(&self) -> u64 {
        self.shared.held.token
    }

    /// 1, 2, …: failed attempts + 1.
    pub fn attempt(&self) -> u32 {
        self.shared.number
    }

    /// The job's kind; for a batch that runs its `then`, that kind.
    pub fn kind(&self) -> &Kind {
        &self.shared.kind
    }

    /// The batch it belongs to, for an item.
    pub fn parent(&self) -> Option<&JobId> {
        self.shared.parent.as_ref()
    }

    /// How the items of its batch have ended, for a batch that runs its `then`; `None` for any other job.
    pub fn batch(&self) -> Option<Items> {
        self.shared.items
    }

    /// The items of the batch that runs its `then`, as they have ended, in their order; none for any other job. They are read
    /// a page at a time, however many there are, and do not change while the `then` runs.
    ///
    /// # Errors
    /// Redis is away for longer than `redis.outage_ms`, or an item cannot be read; that one ends the stream after all others.
    pub fn items(&self) -> impl Stream<Item = Result<Job, Error>> + Send + Unpin + use<> {
        let pages = self.shared.items.map(|_| self.shared.store.items(self.job_id()));
        let jobs = |page: Vec<Job>| futures_util::stream::iter(page.into_iter().map(Ok));
        Box::pin(futures_util::stream::iter(pages).flatten().map_ok(jobs).try_flatten())
    }

    /// When the attempt will have run too long; `None`: it may run for ever.
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.deadline
    }

    /// What the last attempt, or this one before, saved; `None` when nothing was.
    ///
    /// # Errors
    /// serde_json's, when it is not what `T` expects.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        self.shared.checkpoint.as_ref().map(|json| serde_json::from_str(json.as_str())).transpose()
    }

    /// Saves where the next attempt is to begin, and returns once Redis has it; rides out an outage. A checkpoint that
    /// differs from the last forgives the crashes before it.
    ///
    /// # Errors
    /// [`CheckpointError`]; after [`CheckpointError::Lost`] nothing this attempt does is recorded any more.
    pub async fn save_checkpoint<T: Serialize>(&self, value: &T) -> Result<(), CheckpointError> {
        let text = serde_json::to_string(value).map_err(|e| CheckpointError::NotJson(e.to_string()))?;
        let json = Json::parse(&text, self.limits().json_depth, self.limits().checkpoint_bytes);
        self.save_json(json.map_err(CheckpointError::OverLimit)?).await
    }

    pub(crate) async fn save_json(&self, checkpoint: Json) -> Result<(), CheckpointError> {
        self.shared.reporter.save(&self.shared.progress, checkpoint).await
    }

    /// Tells how far the job is, 0 to 100, and the phase it is in (empty: the same as before). Cheap, and may be called from
    /// any thread: the first is written at once, then the last at most every 500 ms; each change of the phase is kept in the
    /// job's history.
    pub fn progress(&self, percent: f64, message: &str) {
        self.set_progress(Some(percent), (!message.is_empty()).then_some(message));
    }

    pub(crate) fn set_progress(&self, percent: Option<f64>, message: Option<&str>) {
        let percent = percent.filter(|p| p.is_finite()).map(|p| p.clamp(0.0, 100.0));
        self.shared.reporter.progress(&self.shared.progress, percent, message);
    }

    /// The files that came with the job's submit.
    pub fn files(&self) -> &[FileEntry] {
        self.shared.files.input()
    }

    /// Opens one of [`Context::files`].
    ///
    /// # Errors
    /// [`FileError`]: there is no such file, or the file store fails.
    pub async fn open_file(&self, name: &str) -> Result<impl AsyncRead + Send + Unpin + use<>, FileError> {
        self.shared.files.open(name).await
    }

    /// Leaves a file: all that `from` has. It is the job's once this attempt completes it; another of the same name is
    /// replaced. An attempt that fails, skips or has lost its lease leaves none.
    ///
    /// # Errors
    /// [`FileError`]: the name is not allowed, a limit is reached (`limits.upload_bytes`, 100 files), or the file store
    /// fails or is none.
    pub async fn write_file(&self, name: &str, from: impl AsyncRead + Unpin) -> Result<FileEntry, FileError> {
        self.shared.files.write(name, from).await
    }

    /// Fails for good where nothing could be left, before any work is done.
    #[cfg(feature = "web")]
    pub(crate) fn require_file_store(&self) -> Result<(), Failure> {
        self.shared.files.store().map(drop).map_err(|e| Failure::fatal(e.to_string()))
    }

    /// Returns when the handler is to stop; [`Context::stop_reason`] says why. It then has a few seconds to end by itself,
    /// best with a failure: a result counts as done, unless its time was up.
    pub async fn cancelled(&self) {
        self.shared.stop.token().cancelled().await;
    }

    /// Whether the handler is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.shared.stop.token().is_cancelled()
    }

    /// Why the handler is to stop; `None` while it is not.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.shared.stop.reason()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("kind", self.kind())
            .field("job", self.job_id())
            .field("token", &self.token())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
