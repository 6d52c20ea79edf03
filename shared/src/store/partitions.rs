//! The number of partitions, and how it grows while the system is at work.
//!
//! A job stays where its submit has placed it. `lh:meta` keeps every number by which jobs have been
//! placed, and a job, or an Idempotency-Key, is looked for by each. A growth takes three steps, all of which can be
//! repeated:
//!
//! 1. The new number is announced. Within seconds every process looks for jobs there too, and workers serve the new
//!    partitions, which are still empty.
//! 2. Each old partition is closed to new keys (`lh:{P}:partitions`). A process that does not know of the growth may
//!    only replay a key there; otherwise two processes could place one key in two partitions.
//! 3. The new number is in force: new jobs are placed by it. Whoever is refused by step 2 takes this step too, so that
//!    a growth whose command died is completed.
use std::time::Duration;

use redis::Value;

use super::Store;
use super::sizes::{Meta, Sizes};
use super::wire::reply::{array, text};
use super::wire::{Home, Wire, keys};
use crate::{Error, JobId, Result, limits};

const GROW: &str = include_str!("lua/grow.lua");
const CLOSE: &str = include_str!("lua/close.lua");

impl Store {
    /// The number of partitions, which may grow: those of a growth that has been announced are included.
    pub fn partitions(&self) -> u16 {
        self.inner.known.sizes.borrow().served()
    }

    /// Waits until there are more than `than` partitions. Returns how many.
    pub async fn more_partitions(&self, than: u16) -> u16 {
        let mut sizes = self.inner.known.sizes.subscribe();
        let grown = sizes.wait_for(|sizes| sizes.served() > than).await.map(|sizes| sizes.served());
        grown.expect("the store has the sender")
    }

    pub(super) fn sizes(&self) -> Sizes {
        self.inner.known.sizes.borrow().clone()
    }

    /// The partition in which a new job with this id is placed. A job that exists may be in another: [`crate::Job`] has
    /// its partition.
    pub fn partition_of(&self, id: &JobId) -> u16 {
        keys::partition_of(id.as_str(), self.inner.known.sizes.borrow().current())
    }

    /// The id of item `number` of a parent in `partition`.
    pub fn item_id(&self, parent: &JobId, partition: u16, number: u64) -> JobId {
        self.inner.known.sizes.borrow().item(parent, partition, number)
    }

    /// The ids of items of a parent in `partition`.
    pub(super) fn item_ids(&self, parent: &JobId, partition: u16, numbers: std::ops::Range<u64>) -> Vec<JobId> {
        let sizes = self.inner.known.sizes.borrow();
        numbers.map(|number| sizes.item(parent, partition, number)).collect()
    }

    /// The partition of each job; of a job that does not exist, where it would be placed. Costs a call only when the
    /// partitions have grown.
    ///
    /// # Errors
    /// Those of any call.
    pub(super) async fn places<'a>(&self, ids: impl IntoIterator<Item = &'a JobId>) -> Result<Vec<u16>> {
        if self.inner.known.is_to_read() && self.inner.known.reading.try_lock().is_ok() {
            // Boxed here and below: otherwise users hit the type-length limit. Tried once: the node that has the number
            // may be away, and the call may need another.
            let store = self.impatient();
            if let Err(e) = Box::pin(store.learn_partitions()).await {
                tracing::debug!("reading the number of partitions: {e}");
            }
        }
        let sizes = self.sizes();
        let homes: Vec<(&JobId, (u16, Vec<u16>))> = ids.into_iter().map(|id| (id, sizes.homes(id))).collect();
        if homes.iter().all(|(_, (_, others))| others.is_empty()) {
            return Ok(homes.into_iter().map(|(_, (home, _))| home).collect());
        }
        Box::pin(self.look_for(homes)).await
    }

    async fn look_for(&self, homes: Vec<(&JobId, (u16, Vec<u16>))>) -> Result<Vec<u16>> {
        let exists = |id: &JobId, partition: u16| {
            (Home::Partition(partition), redis::cmd("EXISTS").arg(keys::job(partition, id)).to_owned())
        };
        let looks = homes.iter().flat_map(|(id, (_, others))| others.iter().map(|other| exists(id, *other)));
        let (looks, mut found) = (looks.collect::<Vec<_>>(), Vec::new());
        for part in looks.chunks(limits::BATCH_MAX) {
            found.extend(self.inner.wire.pipe_each(part).await?);
        }
        let mut found = found.into_iter().map(|found| found == Value::Int(1));
        let place = |(_, (home, others)): (&JobId, (u16, Vec<u16>))| {
            let at = others.into_iter().filter(|_| found.next() == Some(true)).last();
            at.unwrap_or(home)
        };
        Ok(homes.into_iter().map(place).collect())
    }

    /// The partition of one job.
    ///
    /// # Errors
    /// Those of any call.
    pub(super) async fn place(&self, id: &JobId) -> Result<u16> {
        Ok(self.places([id]).await?[0])
    }

    /// Reads `lh:meta`, and learns of a growth; if Redis has lost one, puts it back: jobs may be in the new partitions.
    ///
    /// # Errors
    /// [`Known::learn`]'s; those of any call.
    pub(super) async fn read_meta(&self) -> Result<Meta> {
        let known = &self.inner.known;
        let _turn = known.reading.lock().await;
        let meta = Meta::read(&self.inner.wire).await?;
        if let Some(read) = &meta.sizes
            && let Some(lost) = known.learn(read)?
        {
            tracing::error!("Redis has lost that it has {} partitions, and not {}", lost.current(), read.current());
            let more = [read.current().to_string(), lost.past()];
            self.step("restore", lost.current(), meta.now, &more).await?;
        }
        Ok(meta)
    }

    async fn learn_partitions(&self) -> Result<Sizes> {
        self.read_meta().await?;
        Ok(self.sizes())
    }

    /// After a submit was refused because the partitions have grown: learns the new number, or completes the growth.
    ///
    /// # Errors
    /// Those of any call.
    pub(super) async fn catch_up(&self) -> Result<()> {
        let known = self.sizes().current();
        let sizes = self.learn_partitions().await?;
        match sizes.growing {
            Some(growing) if sizes.current() == known => self.activate(&sizes, growing).await,
            _ => Ok(()),
        }
    }

    /// [`Store::grow_partitions`], without the check of the layout.
    pub(super) async fn grow(&self, to: u16, adopted_ms: u64) -> Result<u16> {
        let sizes = self.learn_partitions().await?;
        let (current, refused) = (sizes.current(), |reason: String| Err(Error::Config(reason)));
        if to > limits::PARTITIONS_MAX {
            return refused(format!("{to} partitions are too many; the most is {}", limits::PARTITIONS_MAX));
        }
        if to <= current {
            return refused(format!(
                "there are {current} partitions, and they can only become more; write a number from {} to {}",
                current.saturating_add(1),
                limits::PARTITIONS_MAX
            ));
        }
        let unfinished = |other: &str| {
            format!(
                "a growth to {other} partitions has begun and is not complete; run `leasehold partitions grow {other}` \
                 to complete it first"
            )
        };
        if let Some(other) = sizes.growing.filter(|other| *other != to) {
            return refused(unfinished(&other.to_string()));
        }
        self.prepare_new(current, to).await?;
        let reply = self.step("announce", to, 0, &[]).await?;
        match text(reply.first().unwrap_or(&Value::Nil)).as_str() {
            "announced" => {}
            "growing" => return refused(unfinished(&reply.get(1).map(text).unwrap_or_default())),
            "fewer" => {
                let now = reply.get(1).map(text).unwrap_or_default();
                return refused(format!("another command has made it {now} partitions meanwhile"));
            }
            _ => return refused("no process has started here yet; start an API or a worker first".into()),
        }
        tokio::time::sleep(Duration::from_millis(adopted_ms)).await;
        let sizes = self.learn_partitions().await?;
        if sizes.current() < to {
            self.activate(&sizes, to).await?;
        }
        Ok(current)
    }

    /// Gives the new partitions the retention of the kinds. Nothing is in them yet.
    async fn prepare_new(&self, current: u16, to: u16) -> Result<()> {
        let retention = |partition| keys::fixed(partition, "retention");
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(retention(0));
        let kept = array(&self.inner.wire.pipe(Home::Partition(0), &pipeline).await?[0]).to_vec();
        let kept: Vec<String> = kept.iter().map(text).collect();
        if !kept.is_empty() {
            let set = |partition| {
                (Home::Partition(partition), redis::cmd("HSET").arg(retention(partition)).arg(&kept).to_owned())
            };
            let commands: Vec<_> = (current..to).map(set).collect();
            self.inner.wire.pipe_each(&commands).await?;
        }
        self.pause_new(current, to).await
    }

    /// Pauses in the new partitions the queues that are paused in the old ones, and no other.
    async fn pause_new(&self, current: u16, to: u16) -> Result<()> {
        let paused = |partition| keys::fixed(partition, "paused");
        let read = |partition| (Home::Partition(partition), redis::cmd("SMEMBERS").arg(paused(partition)).to_owned());
        let commands: Vec<_> = std::iter::once(0).chain(current..to).map(read).collect();
        let replies = self.inner.wire.pipe_each(&commands).await?;
        let sets: Vec<Vec<String>> = replies.iter().map(|reply| array(reply).iter().map(text).collect()).collect();
        let mut commands = Vec::new();
        for (partition, there) in (current..to).zip(&sets[1..]) {
            let mut change = |command: &str, of: &[String], unless: &[String]| {
                let names: Vec<&String> = of.iter().filter(|name| !unless.contains(name)).collect();
                if !names.is_empty() {
                    let command = redis::cmd(command).arg(paused(partition)).arg(names).to_owned();
                    commands.push((Home::Partition(partition), command));
                }
            };
            change("SADD", &sets[0], there);
            change("SREM", there, &sets[0]);
        }
        if commands.is_empty() { Ok(()) } else { self.inner.wire.pipe_each(&commands).await.map(drop) }
    }

    /// Puts an announced number in force.
    async fn activate(&self, sizes: &Sizes, to: u16) -> Result<()> {
        // Processes that learned of it only now may have paused a queue in the old partitions alone.
        self.pause_new(sizes.current(), to).await?;
        let close = |partition| {
            let key = keys::fixed(partition, "partitions");
            (Home::Partition(partition), redis::cmd("EVAL").arg(CLOSE).arg(1).arg(key).arg(to).to_owned())
        };
        let commands: Vec<_> = (0..sizes.current()).map(close).collect();
        self.inner.wire.pipe_each(&commands).await?;
        let now = Meta::read(&self.inner.wire).await?.now;
        self.step("activate", to, now, &[]).await?;
        self.learn_partitions().await.map(drop)
    }

    async fn step(&self, step: &str, to: u16, now: i64, more: &[String]) -> Result<Vec<Value>> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(GROW).arg(1).arg(keys::META).arg(step).arg(to).arg(now).arg(more);
        Ok(array(&self.inner.wire.pipe(Home::Meta, &pipeline).await?[0]).to_vec())
    }
}

/// Checks the number of partitions against the one in Redis; sets it in a new key space, unless read-only.
///
/// A partition is a single slot of a cluster, so few of them would leave nodes without work.
pub(super) async fn agree(wire: &Wire, wanted: Option<u16>, sets: bool) -> Result<Sizes> {
    let (first, least) = if wire.connections().is_cluster() { (64, limits::CLUSTER_PARTITIONS_MIN) } else { (1, 1) };
    let enough = |partitions: u16| {
        if partitions >= least || !sets {
            return Ok(());
        }
        Err(Error::Config(format!(
            "the key space has {partitions} partitions, and each is on one node of the cluster only; write \
             partitions = 64 for a new key space ({least} is the least for a cluster), `leasehold partitions grow 64` \
             for one with jobs, or use a single server or Redis Sentinel"
        )))
    };
    let mut stored = Meta::read(wire).await?.sizes;
    if stored.is_none() {
        wanted.map(enough).transpose()?;
        if !sets {
            return Ok(Sizes::single(wanted.unwrap_or(first)));
        }
        let mut setting = redis::pipe();
        setting.cmd("HSETNX").arg(keys::META).arg("partitions").arg(wanted.unwrap_or(first));
        wire.pipe(Home::Meta, &setting).await?;
        stored = Meta::read(wire).await?.sizes;
    }
    let Some(stored) = stored else { return Err(Error::Unavailable(format!("{} was removed just now", keys::META))) };
    let current = stored.current();
    match wanted {
        Some(n) if !stored.includes(n) => Err(Error::Config(format!(
            "partitions is {n}, but this Redis was set up with {current}, and jobs are placed by it; write {current}, or \
             leave LEASEHOLD_PARTITIONS unset (`leasehold partitions grow {n}` makes them more)"
        ))),
        wanted => {
            if let Some(n) = wanted.filter(|n| *n < current) {
                tracing::warn!(
                    "partitions is {n}, and has since grown to {current}; write {current}, or leave it unset"
                );
            }
            enough(current)?;
            Ok(stored)
        }
    }
}
