//! Removal in the background, for sweeps: a slow file store must not delay them.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::FileStore;
use crate::JobId;

/// Removals that run at once.
const AT_ONCE: usize = 4;
/// Jobs whose files wait to be removed, beyond which the store is behind.
const PENDING_MAX: usize = 10_000;

/// The removals under way.
#[derive(Debug, Clone)]
pub(super) struct Later {
    /// Jobs whose files are still to be removed.
    pending: Arc<AtomicUsize>,
    turns: Arc<Semaphore>,
}

impl Default for Later {
    fn default() -> Self {
        Self { pending: Arc::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl FileStore {
    /// Removes the files of jobs in the background. What a process that ends leaves behind is orphaned, and deleted by
    /// the sweep of orphaned files.
    pub fn remove_later(&self, ids: Vec<JobId>) {
        let (files, count) = (self.clone(), ids.len());
        files.later.pending.fetch_add(count, Ordering::Relaxed);
        tokio::spawn(async move {
            let _turn = files.later.turns.acquire().await.expect("never closed");
            files.remove(ids).await;
            files.later.pending.fetch_sub(count, Ordering::Relaxed);
        });
    }

    /// Whether the files of so many jobs wait to be removed that no more jobs should be removed for now.
    pub fn is_behind(&self) -> bool {
        self.later.pending.load(Ordering::Relaxed) >= PENDING_MAX
    }
}
