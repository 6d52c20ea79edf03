//! Finds the completed job that has done the same work before, for kinds with a `cache`. A hint: the reader verifies
//! that job.
use super::Store;
use super::wire::reply::text;
use super::wire::{Home, keys};
use crate::{JobId, Kind, Result};

impl Store {
    /// The job that [`Store::remember`] recorded last for this digest, until the entry expires.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn remembered(&self, kind: &Kind, digest: &str) -> Result<Option<JobId>> {
        let (home, mut pipeline) = (self.home_of_digest(digest), redis::pipe());
        pipeline.cmd("GET").arg(keys::cache(kind, digest, self.partitions()));
        // A key of another type counts as absent.
        let replies = self.inner.wire.pipe_leniently(home, &pipeline).await?;
        Ok(replies.first().and_then(|id| JobId::parse(&text(id)).ok()))
    }

    /// Records the job that has done the work of this digest, for `ms` (at least 1).
    ///
    /// # Errors
    /// Those of any call; an error is harmless.
    pub async fn remember(&self, kind: &Kind, digest: &str, id: &JobId, ms: u64) -> Result<()> {
        let key = keys::cache(kind, digest, self.partitions());
        let (home, mut pipeline) = (self.home_of_digest(digest), redis::pipe());
        pipeline.cmd("SET").arg(key).arg(id.as_str()).arg("PX").arg(ms);
        self.inner.wire.pipe(home, &pipeline).await.map(drop)
    }
    fn home_of_digest(&self, digest: &str) -> Home {
        Home::Partition(keys::partition_of(digest, self.partitions()))
    }
}
