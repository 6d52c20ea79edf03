//! The items of a batch: added in parts, and read a page at a time, so that they are never all in memory.
use futures_util::Stream;
use futures_util::stream::try_unfold;
use redis::Value;

use super::Store;
use super::wire::reply::{array, number, text};
use super::wire::{Args, Repeat, scripts, split};
use crate::{Error, Job, JobId, Json, Refusal, Result, limits};

/// An iteration over the items of a batch.
struct Walk {
    store: Store,
    parent: JobId,
    next: u64,
    /// Its partition, and how many items it has; once it has been read.
    whole: Option<(u16, u64)>,
    /// The number of items to read next, by the size of the last ones.
    step: u64,
    /// The first item that could not be read.
    fault: Option<Error>,
}

impl Store {
    /// Adds a part of a batch: `payloads` are its items from number `first` on. `last` seals it. A part sent twice
    /// changes nothing. Returns how many items the parent has.
    ///
    /// # Errors
    /// [`Error::Refused`]: no such job, not a batch, sealed, or out of order.
    pub async fn add_items(&self, parent: &JobId, first: u64, payloads: &[Json], last: bool) -> Result<u64> {
        self.refuse_if_unfit()?;
        self.add_items_on(parent, first, payloads, last, 0).await
    }

    /// [`Store::add_items`], answered once so many replicas have all of them. Only the last call waits: a server that
    /// lacks an earlier part would refuse it.
    pub(super) async fn add_items_on(
        &self,
        parent: &JobId,
        first: u64,
        payloads: &[Json],
        last: bool,
        replicas: u8,
    ) -> Result<u64> {
        if first > u64::from(u32::MAX) {
            return Err(Refusal::Gap(self.get(parent).await?.and_then(|j| j.items).map_or(0, |i| i.total)).into());
        }
        let (partition, mut total) = (self.place(parent).await?, first);
        let chunks: Vec<&[Json]> = if payloads.is_empty() { vec![&[]] } else { split(payloads, |p| p.as_str().len()) };
        let mut number_of_first = first;
        for (at, chunk) in chunks.iter().enumerate() {
            let is_last = at + 1 == chunks.len();
            let replicas = if is_last { replicas } else { 0 };
            let ids = self.item_ids(parent, partition, number_of_first..number_of_first + chunk.len() as u64);
            let args = part(parent, number_of_first, &ids, chunk, last && is_last);
            total = self.run_items(parent, partition, &args, replicas).await?;
            number_of_first += chunk.len() as u64;
        }
        Ok(total)
    }

    /// Runs the script that adds items. Returns how many the parent has then, once so many replicas have them.
    pub(super) async fn run_items(&self, parent: &JobId, partition: u16, args: &Args, replicas: u8) -> Result<u64> {
        let reply = self.inner.wire.run_on_replicas(&scripts::ITEMS, partition, args, replicas).await?;
        let reply = array(&reply);
        let total = || reply.get(1).and_then(number).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        match text(reply.first().unwrap_or(&Value::Nil)).as_str() {
            "added" => Ok(total()),
            "gap" => Err(Refusal::Gap(total()).into()),
            "sealed" => Err(Refusal::Sealed(total()).into()),
            "taken" => {
                let id = reply.get(1).map(text).and_then(|id| JobId::parse(&id).ok());
                Err(Refusal::Taken(id.unwrap_or_else(|| parent.clone())).into())
            }
            "childless" => Err(Refusal::NotABatch(parent.clone()).into()),
            _ => Err(Refusal::NotFound(parent.clone()).into()),
        }
    }

    /// The current items of a batch, in order, in pages of at most [`limits::STREAM_JOBS`] jobs and about
    /// [`limits::STREAM_BYTES`]. An item that cannot be read, or is gone because its batch is being removed, is passed
    /// over, and is the error that ends the stream after all others.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] at the first page when there is no such job; those of any call.
    pub fn items(&self, parent: &JobId) -> impl Stream<Item = Result<Vec<Job>>> + Send + use<> {
        let store = self.clone();
        let walk = Walk { store, parent: parent.clone(), next: 0, whole: None, step: 10, fault: None };
        try_unfold(walk, |mut walk| async move { Ok(walk.page().await?.map(|page| (page, walk))) })
    }
}

/// The arguments of a part of a batch.
fn part(parent: &JobId, first: u64, ids: &[JobId], payloads: &[Json], last: bool) -> Args {
    let args = Args::default().text(parent.as_str()).number(first).number(u8::from(last)).texts(["", ""]);
    ids.iter().zip(payloads).fold(args.count(payloads.len()), |args, (id, payload)| {
        args.texts([id.as_str(), "", "1", "payload", payload.as_str()])
    })
}

impl Walk {
    async fn page(&mut self) -> Result<Option<Vec<Job>>> {
        let (partition, total) = match self.whole {
            Some(whole) => whole,
            None => self.count().await?,
        };
        if self.next >= total {
            return self.fault.take().map_or(Ok(None), Err);
        }
        let to = total.min(self.next + self.step);
        let ids = self.store.item_ids(&self.parent, partition, self.next..to);
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

    async fn count(&mut self) -> Result<(u16, u64)> {
        let parent = self.store.get(&self.parent).await?;
        let parent = parent.ok_or_else(|| Refusal::NotFound(self.parent.clone()))?;
        Ok(*self.whole.insert((parent.partition, parent.items.map_or(0, |items| items.total))))
    }
}
