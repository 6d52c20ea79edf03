//! Settings of the whole key space (the layout of its keys, the number of partitions), and the report when somebody
//! empties Redis while processes are running.
use redis::Value;

use super::Store;
use super::finding::{Finding, Repair};
use super::sizes::{EMPTIED_AT, Meta};
use super::status::WorkerStatus;
use super::wire::reply::{array, number};
use super::wire::{Home, Wire, keys};
use crate::{Error, Result, Timestamp, limits};

/// The field with the layout of the keys.
const LAYOUT: &str = "layout";

impl Store {
    /// Whether somebody has emptied Redis (FLUSHALL, DEL) under a live process, and when that was noticed; a doctor's
    /// repair ends the report. The number of partitions, which went with the jobs, is put back: whoever starts next
    /// must place jobs as those do that live. Learns of a growth of that number.
    ///
    /// # Errors
    /// [`Error::Config`] when the key space now has another number of partitions: this process must be started again.
    /// Those of any call.
    pub async fn emptied_at(&self) -> Result<Option<Timestamp>> {
        let meta = match self.read_meta().await {
            // In a cluster the node that has the settings may be away alone; the others work.
            Err(Error::Unavailable(_) | Error::OutcomeUnknown(_)) if self.inner.wire.connections().is_cluster() => {
                return Ok(None);
            }
            read => read?,
        };
        match meta.sizes {
            None => self.restore(meta.now).await.map(Some),
            Some(_) => Ok(meta.emptied_at),
        }
    }

    async fn restore(&self, now: i64) -> Result<Timestamp> {
        let (sizes, mut pipeline) = (self.sizes(), redis::pipe());
        // In one transaction: a crash in between would leave no report.
        pipeline.atomic().cmd("HSETNX").arg(keys::META).arg("partitions").arg(sizes.current());
        if !sizes.past().is_empty() {
            pipeline.cmd("HSETNX").arg(keys::META).arg("partitions_past").arg(sizes.past());
        }
        pipeline.cmd("HSETNX").arg(keys::META).arg(EMPTIED_AT).arg(now);
        pipeline.cmd("HSETNX").arg(keys::META).arg(LAYOUT).arg(limits::LAYOUT);
        self.inner.wire.pipe(Home::Meta, &pipeline).await?;
        tracing::error!(
            "{} is gone: somebody has emptied Redis (FLUSHALL, DEL) while Leasehold was at work, and every job accepted before \
             is lost; {} partitions are set again",
            keys::META,
            sizes.current()
        );
        Ok(Timestamp(now))
    }

    /// Reports to the operator, until acknowledged, that jobs were lost.
    pub(super) async fn find_emptied(&self) -> Result<Option<Finding>> {
        let Meta { sizes, emptied_at, .. } = Meta::read(&self.inner.wire).await?;
        let (problem, repair) = match (sizes, emptied_at) {
            (_, Some(at)) => (
                format!("somebody has emptied Redis (noticed {at}); every job accepted before is lost"),
                Some(Repair::AcceptEmptied),
            ),
            (None, None) if self.is_at_work().await? => {
                let advice = "a live worker puts it back within seconds; if none does, start Leasehold again";
                (format!("it is gone while Leasehold is at work: somebody has emptied Redis; {advice}"), None)
            }
            _ => return Ok(None),
        };
        Ok(Some(Finding { partition: 0, subject: keys::META.to_owned(), problem, repair }))
    }

    pub(super) async fn accept_emptied(&self) -> Result<()> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HDEL").arg(keys::META).arg(EMPTIED_AT);
        self.inner.wire.pipe(Home::Meta, &pipeline).await.map(drop)
    }

    /// Whether a worker has swept or renewed here.
    async fn is_at_work(&self) -> Result<bool> {
        is_at_work(&self.inner.wire).await
    }

    /// Grows the number of partitions to `to`, while the system is at work, and waits `adopted_ms` in between for the
    /// other processes. No job is moved. Returns the number before. Repeating it completes a growth that was
    /// interrupted.
    ///
    /// # Errors
    /// [`Error::Config`], with nothing changed: not more partitions than there are, above [`limits::PARTITIONS_MAX`],
    /// another growth has begun, or another layout. Those of any call: repeat it.
    pub async fn grow_partitions(&self, to: u16, adopted_ms: u64) -> Result<u16> {
        agree_layout(&self.inner.wire).await?;
        self.grow(to, adopted_ms).await
    }

    /// Takes the step from the layout of an earlier version to this one's, [`limits::LAYOUT`]. It can be repeated, and
    /// changes nothing while a worker is alive, since it would be one of the earlier version. API processes cannot be
    /// seen: the operator stops them.
    ///
    /// From layout 1: ended jobs are listed under other keys, and are moved; until that is complete the layout stays.
    /// Tokens are numbers of 16 digits, which 0.1 takes for damage.
    ///
    /// # Errors
    /// [`Error::Config`] for a layout of a later version; those of any call.
    pub async fn migrate(&self) -> Result<Migrated> {
        match layout(&self.inner.wire).await? {
            Layout::Current => return Ok(Migrated::Already),
            Layout::Later(later) => return Err(later_layout(later)),
            Layout::New | Layout::Earlier(_) => {}
        }
        let alive: Vec<WorkerStatus> =
            self.workers_at_a_glance().await?.into_iter().filter(|worker| worker.alive).collect();
        if !alive.is_empty() {
            return Ok(Migrated::Alive(alive));
        }
        let moved = self.move_ended().await?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("HSET").arg(keys::META).arg(LAYOUT).arg(limits::LAYOUT);
        self.inner.wire.pipe(Home::Meta, &pipeline).await?;
        Ok(Migrated::Done { moved })
    }

    /// Reports a layout of an earlier version, with which no other process of this version starts.
    pub(super) async fn find_layout(&self) -> Result<Option<Finding>> {
        let Layout::Earlier(earlier) = layout(&self.inner.wire).await? else { return Ok(None) };
        let problem = format!("its layout is {earlier}, of an earlier version; {MIGRATE}");
        Ok(Some(Finding { partition: 0, subject: keys::META.to_owned(), problem, repair: None }))
    }
}

/// What a migration did.
#[derive(Debug, Clone, PartialEq)]
pub enum Migrated {
    /// The key space has this version's layout now.
    Done {
        /// Entries of ended jobs that were moved.
        moved: u64,
    },
    /// It had it before.
    Already,
    /// Nothing: these workers are alive.
    Alive(Vec<WorkerStatus>),
}

/// What to do about an earlier layout.
const MIGRATE: &str = "stop every API and worker of the earlier version, then run `leasehold migrate`";

/// The layout of a key space.
enum Layout {
    /// Nobody has been at work.
    New,
    Current,
    Earlier(i64),
    Later(i64),
}

async fn layout(wire: &Wire) -> Result<Layout> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("HMGET").arg(keys::META).arg(LAYOUT).arg("partitions");
    let replies = wire.pipe(Home::Meta, &pipeline).await?;
    let [recorded, partitions] = array(&replies[0]) else { return Ok(Layout::New) };
    Ok(match number(recorded) {
        Some(limits::LAYOUT) => Layout::Current,
        Some(later) if later > limits::LAYOUT => Layout::Later(later),
        Some(earlier) => Layout::Earlier(earlier),
        None if *partitions == Value::Nil || !is_at_work(wire).await? => Layout::New,
        None => Layout::Earlier(1),
    })
}

async fn is_at_work(wire: &Wire) -> Result<bool> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("EXISTS").arg(keys::fixed(0, "clock"));
    Ok(number(&wire.pipe(Home::Partition(0), &pipeline).await?[0]) == Some(1))
}

fn later_layout(later: i64) -> Error {
    let own = limits::LAYOUT;
    Error::Config(format!(
        "Redis holds layout {later}, written by a later version of Leasehold, and this one knows layouts up to {own}; \
         install that version here too"
    ))
}

/// Checks that the key space has this version's layout, and records it in a new key space.
///
/// # Errors
/// [`Error::Config`] for another layout; those of any call.
pub(super) async fn agree_layout(wire: &Wire) -> Result<()> {
    match layout(wire).await? {
        Layout::Current => Ok(()),
        Layout::Later(later) => Err(later_layout(later)),
        Layout::Earlier(earlier) => Err(Error::Config(format!(
            "Redis holds layout {earlier}, of an earlier version of Leasehold, and this one writes {}; {MIGRATE}",
            limits::LAYOUT
        ))),
        Layout::New => {
            let mut pipeline = redis::pipe();
            pipeline.cmd("HSETNX").arg(keys::META).arg(LAYOUT).arg(limits::LAYOUT);
            wire.pipe(Home::Meta, &pipeline).await.map(drop)
        }
    }
}
