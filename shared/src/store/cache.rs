//! Which completed job has done a work before, for kinds with a `cache`. A hint: whoever reads it looks at that job.
use super::Store;
use super::wire::keys;
use super::wire::reply::text;
use crate::{JobId, Kind, Result};

impl Store {
    /// The job that [`Store::remember`] named last for this digest, while that holds.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn remembered(&self, kind: &Kind, digest: &str) -> Result<Option<JobId>> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(keys::cache(kind, digest, self.partitions()));
        // One of another type is none.
        let replies = self.inner.wire.pipe_leniently(&pipeline).await?;
        Ok(replies.first().and_then(|id| JobId::parse(&text(id)).ok()))
    }

    /// Names the job that has done the work of this digest, for `ms` (at least 1).
    ///
    /// # Errors
    /// Those of any call; nobody is harmed by one.
    pub async fn remember(&self, kind: &Kind, digest: &str, id: &JobId, ms: u64) -> Result<()> {
        let key = keys::cache(kind, digest, self.partitions());
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(key).arg(id.as_str()).arg("PX").arg(ms);
        self.inner.wire.pipe(&pipeline).await.map(drop)
    }
}
