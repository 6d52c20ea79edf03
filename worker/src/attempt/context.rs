//! The context of an attempt: what a handler receives besides its payload.
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures_util::{Stream, StreamExt, TryStreamExt};
use leasehold::job::Items;
use leasehold::store::Held;
use leasehold::{Error, FileEntry, FileError, Job, JobId, Json, Kind, Limits, Store, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;

use super::files::Files;
use super::report::{ProgressHandle, Reporter};
use crate::error::CheckpointError;
#[cfg(feature = "web")]
use crate::failure::Failure;
use crate::slots::Slot;
use crate::stop::{Stop, StopReason};

/// The attempt a handler runs. Clones share state; the slot is freed once the attempt is settled and every clone is
/// dropped, so work on other threads that outlives the handler keeps the slot by holding a clone.
#[derive(Clone)]
pub struct Context {
    pub(crate) shared: Arc<Shared>,
}

/// The state that all clones of a [`Context`] share.
pub(crate) struct Shared {
    /// The job's id and the lease's token: every write of this attempt is checked against them.
    pub held: Held,
    pub kind: Kind,
    /// 1, 2, …: failed attempts + 1.
    pub number: u32,
    /// The batch, if the job is an item.
    pub parent: Option<JobId>,
    /// As of the claim; what this attempt saves goes to Redis only.
    pub checkpoint: Option<Json>,
    /// The tick of the schedule that submitted the job.
    pub scheduled_for: Option<Timestamp>,
    /// Computed once at the start, so that the handler sees the same deadline that is enforced.
    pub deadline: Option<Instant>,
    /// Set by whoever stops the attempt: the lease thread, the deadline, a refused report.
    pub stop: Arc<Stop>,
    /// Separate from the context, so that a pending report does not keep the slot.
    pub progress: Arc<ProgressHandle>,
    pub reporter: Reporter,
    pub limits: Limits,
    pub files: Files,
    /// How the batch's items ended, if this attempt runs its `then`.
    pub items: Option<Items>,
    /// Set by a command with a cache; recorded only once the job has completed.
    pub cache_entry: OnceLock<CacheEntry>,
    /// For reads only: the items of a batch and the cache. Writes go through `reporter` and the settle.
    pub store: Store,
    /// Held here so that it is freed with the last clone, not when the handler returns.
    pub slot: Slot,
}

/// The entry under which later jobs of equal work find this one.
pub(crate) struct CacheEntry {
    /// Identifies the work: the cached members of the payload, and the input files.
    pub digest: String,
    /// How long the entry is valid, ms.
    pub ms: u64,
}

impl Context {
    /// The id of the job.
    pub fn job_id(&self) -> &JobId {
        &self.shared.held.id
    }

    /// The fencing token of the lease: it increases with every claim of the job. A database that rejects a smaller
    /// token than it has seen is protected from an attempt that has lost its lease.
    pub fn token(&self) -> u64 {
        self.shared.held.token
    }

    /// 1, 2, …: failed attempts + 1.
    pub fn attempt(&self) -> u32 {
        self.shared.number
    }

    /// The tick of the schedule that submitted the job: the time that it is about, however late it runs. `None` for any
    /// other job, and for one that somebody has triggered.
    pub fn scheduled_for(&self) -> Option<Timestamp> {
        self.shared.scheduled_for
    }

    /// The job's kind; when a batch runs its `then`, the kind of the `then`.
    pub fn kind(&self) -> &Kind {
        &self.shared.kind
    }

    /// The batch the job belongs to, if it is an item.
    pub fn parent(&self) -> Option<&JobId> {
        self.shared.parent.as_ref()
    }

    /// How the items of its batch have ended, for a batch that runs its `then`; `None` for any other job.
    pub fn batch(&self) -> Option<Items> {
        self.shared.items
    }

    /// The finished items of the batch whose `then` this is, in their order; empty for any other job. They are read
    /// page by page and do not change while the `then` runs.
    ///
    /// # Errors
    /// Redis is unavailable for longer than `redis.outage_ms`, or an item cannot be read; the latter error is returned
    /// after all readable items, and ends the stream.
    pub fn items(&self) -> impl Stream<Item = Result<Job, Error>> + Send + Unpin + use<> {
        let pages = self.shared.items.map(|_| self.shared.store.items(self.job_id()));
        let jobs = |page: Vec<Job>| futures_util::stream::iter(page.into_iter().map(Ok));
        Box::pin(futures_util::stream::iter(pages).flatten().map_ok(jobs).try_flatten())
    }

    /// When the attempt times out; `None`: it has no timeout.
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.deadline
    }

    /// The checkpoint that earlier attempts left; `None` if there is none.
    ///
    /// # Errors
    /// The checkpoint cannot be deserialized as `T`.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        self.shared.checkpoint.as_ref().map(|json| serde_json::from_str(json.as_str())).transpose()
    }

    /// Saves a checkpoint from which the next attempt continues, and returns once it is stored in Redis; waits out an
    /// outage. A checkpoint that differs from the last one resets the job's count of crashes.
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

    /// Reports the progress, 0 to 100, and the phase (empty: unchanged). Cheap, and may be called from any thread: the
    /// first report is written at once, then the latest at most every 500 ms; each change of the phase is kept in the
    /// job's history.
    pub fn progress(&self, percent: f64, message: &str) {
        self.set_progress(Some(percent), (!message.is_empty()).then_some(message));
    }

    pub(crate) fn set_progress(&self, percent: Option<f64>, message: Option<&str>) {
        let percent = percent.filter(|p| p.is_finite()).map(|p| p.clamp(0.0, 100.0));
        self.shared.reporter.progress(&self.shared.progress, percent, message);
    }

    /// Adds a warning to the job's history.
    pub(crate) fn warn(&self, warning: &str) {
        self.shared.reporter.warn(&self.shared.progress, warning.to_owned());
    }

    /// The files that were submitted with the job.
    pub fn files(&self) -> &[FileEntry] {
        self.shared.files.input()
    }

    /// Opens one of [`Context::files`].
    ///
    /// # Errors
    /// [`FileError`]: the file does not exist, or the file store fails.
    pub async fn open_file(&self, name: &str) -> Result<impl AsyncRead + Send + Unpin + use<>, FileError> {
        self.shared.files.open(name).await
    }

    /// Writes an output file from all of `from`; a file of the same name is replaced. The files become the job's when
    /// this attempt completes it, and are deleted when it fails, skips or has lost its lease.
    ///
    /// # Errors
    /// [`FileError`]: the name is not allowed, a limit is exceeded (`limits.upload_bytes`, 100 files), or there is no file
    /// store or it fails.
    pub async fn write_file(&self, name: &str, from: impl AsyncRead + Unpin) -> Result<FileEntry, FileError> {
        self.shared.files.write(name, from).await
    }

    /// Fails for good without a file store, so that no work is done whose output could not be stored.
    #[cfg(feature = "web")]
    pub(crate) fn require_file_store(&self) -> Result<(), Failure> {
        self.shared.files.store().map(drop).map_err(|e| Failure::fatal(e.to_string()))
    }

    /// Returns when the handler must stop; [`Context::stop_reason`] gives the reason. The handler then has a few
    /// seconds to return, preferably a failure: a result completes the job, except after a timeout.
    pub async fn cancelled(&self) {
        self.shared.stop.token().cancelled().await;
    }

    /// Whether the handler must stop.
    pub fn is_cancelled(&self) -> bool {
        self.shared.stop.token().is_cancelled()
    }

    /// Why the handler must stop; `None` as long as it may run.
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
