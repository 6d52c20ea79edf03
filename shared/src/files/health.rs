//! Whether the file store works. It is tried from time to time, so that readiness, metrics and the claims of a worker
//! know of a fault before one job after the other meets it.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::time::{Instant, sleep, timeout};

use super::folder::OWNER;
use super::{FileError, FileStore, failed};

/// The pause between two tries, and how long a try may take: a fault is known within 10 s.
const EVERY: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_secs(5);
/// How often a bucket that works is written to. Between these tries its owner is read, which costs less.
const WRITE_EVERY: Duration = Duration::from_secs(60);
/// What is written to a folder: more than the last block of a full disk takes.
const FOLDER_BYTES: usize = 64 << 10;

/// The outcome of the last try.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    fault: Arc<RwLock<Option<String>>>,
    /// An operation has failed since, so the next try writes.
    doubted: Arc<AtomicBool>,
}

impl FileStore {
    /// Why the file store did not work at the last try of [`FileStore::watch`]; `None` when it did.
    pub fn fault(&self) -> Option<String> {
        self.health.fault.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes and deletes a file, as a job would.
    ///
    /// # Errors
    /// [`FileError::Failed`], with the reason.
    pub async fn try_out(&self) -> Result<(), FileError> {
        self.limited(true).await
    }

    /// Tries the file store every few seconds, until it is dropped, and logs when it begins to fail and when it works
    /// again; `changed` is called with each, `true` for a failure.
    pub async fn watch(&self, changed: impl Fn(bool)) {
        // A bucket has been written to at the start.
        let mut written_at = self.is_remote().then(Instant::now);
        loop {
            let failing = self.fault().is_some();
            let writes = !self.is_remote()
                || failing
                || self.health.doubted.swap(false, Ordering::Relaxed)
                || written_at.is_none_or(|at| at.elapsed() >= WRITE_EVERY);
            if writes {
                written_at = Some(Instant::now());
            }
            let fault = self.limited(writes).await.err().map(|e| e.to_string());
            match (&fault, failing) {
                (Some(fault), false) => tracing::error!("{fault}; jobs that need files are not started until it works"),
                (None, true) => tracing::info!("the file store works again"),
                _ => {}
            }
            let fails = fault.is_some();
            *self.health.fault.write().unwrap_or_else(PoisonError::into_inner) = fault;
            if fails != failing {
                changed(fails);
            }
            sleep(EVERY).await;
        }
    }

    /// Makes the next try of a bucket write: an operation has failed.
    pub fn doubt(&self) {
        self.health.doubted.store(true, Ordering::Relaxed);
    }

    async fn limited(&self, writes: bool) -> Result<(), FileError> {
        let late = || FileError::Failed(format!("it did not answer within {} s", LIMIT.as_secs()));
        timeout(LIMIT, self.attempt(writes)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn attempt(&self, writes: bool) -> Result<(), FileError> {
        let at = |name: &str| ObjectPath::parse(name).expect("a valid path");
        // A folder that is not mounted is there, and empty.
        let owner = self.objects.get(&at(OWNER)).await.map_err(|e| match failed(&e, OWNER) {
            FileError::Missing(_) => FileError::Failed(format!("its file {OWNER} is missing; is the folder mounted?")),
            error => error,
        })?;
        owner.bytes().await.map_err(|e| failed(&e, OWNER))?;
        if writes {
            // Another name each time: stores limit how often one object may be written.
            let path = at(&format!("{OWNER}-probe-{}", uuid::Uuid::now_v7()));
            let content = vec![b'p'; if self.is_remote() { 6 } else { FOLDER_BYTES }];
            let put = self.objects.put(&path, PutPayload::from(content)).await;
            // Also after a failure: a part may have been written.
            let deleted = self.objects.delete(&path).await;
            put.and(deleted).map_err(|e| match failed(&e, "") {
                FileError::Missing(_) => FileError::Failed("what was written to it is not there".into()),
                error => error,
            })?;
        }
        Ok(())
    }
}
