//! The items of a batch, a page at a time: never all in memory, however many there are.
use futures_util::Stream;
use futures_util::stream::try_unfold;

use super::{Repeat, Store};
use crate::{Error, Job, JobId, Refusal, Result, limits};

/// A walk through the items of a batch.
struct Walk {
    store: Store,
    parent: JobId,
    next: u64,
    total: Option<u64>,
    /// Items to read next, by what the last ones weighed.
    step: u64,
    /// The first item that could not be read.
    fault: Option<Error>,
}

impl Store {
    /// The items that a batch has now, in their order, in pages of at most [`limits::STREAM_JOBS`] jobs and about
    /// [`limits::STREAM_BYTES`]. An item that cannot be read, or is gone because its batch is being removed, is passed over,
    /// and is the error that ends the stream after all others.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] at the first page when there is no such job; those of any call.
    pub fn items(&self, parent: &JobId) -> impl Stream<Item = Result<Vec<Job>>> + Send + use<> {
        let store = self.clone();
        let walk = Walk { store, parent: parent.clone(), next: 0, total: None, step: 10, fault: None };
        try_unfold(walk, |mut walk| async move { Ok(walk.page().await?.map(|page| (page, walk))) })
    }
}

impl Walk {
    async fn page(&mut self) -> Result<Option<Vec<Job>>> {
        let total = match self.total {
            Some(total) => total,
            None => self.count().await?,
        };
        if self.next >= total {
            return self.fault.take().map_or(Ok(None), Err);
        }
        let to = total.min(self.next + self.step);
        let ids: Vec<JobId> = (self.next..to).map(|number| self.store.item_id(&self.parent, number)).collect();
        let mut page = Vec::with_capacity(ids.len());
        for (id, read) in ids.iter().zip(self.store.read_many(&ids, Repeat::Safe).await?) {
            match read {
                Ok(Some(job)) => page.push(job),
                Ok(None) => drop(self.fault.get_or_insert_with(|| Refusal::NotFound(id.clone()).into())),
                Err(e) => drop(self.fault.get_or_insert(e)),
            }
        }
        let bytes: usize = page.iter().map(Job::weight).sum();
        let each = (bytes / page.len().max(1)).max(1);
        self.step = ((limits::STREAM_BYTES / each) as u64).clamp(1, limits::STREAM_JOBS);
        self.next = to;
        Ok(Some(page))
    }

    async fn count(&mut self) -> Result<u64> {
        let parent = self.store.get(&self.parent).await?;
        let parent = parent.ok_or_else(|| Refusal::NotFound(self.parent.clone()))?;
        let total = parent.items.map_or(0, |items| items.total);
        self.total = Some(total);
        Ok(total)
    }
}
