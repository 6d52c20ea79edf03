//! Settings of the whole key space (the number of partitions, the kinds' settings), and the report when somebody
//! empties Redis while processes are running.
use redis::Value;

use super::Store;
use super::finding::{Finding, Repair};
use super::wire::reply::{array, number, text};
use super::wire::{Home, Wire, keys};
use crate::kinds::PublishedKinds;
use crate::{Error, Kinds, Result, Timestamp, limits};

/// The field with the time at which a running process found the key space emptied.
const EMPTIED_AT: &str = "emptied_at";
/// The key, in partition 0, of the kinds that were published last.
const PUBLISHED: &str = "published";

impl Store {
    /// Writes to every partition how long ended jobs of each configured kind are kept, for the scripts: by kind,
    /// `<completed> <failed> <cancelled> <keep>`, ms and a count. Publishes the kinds, replacing those published
    /// before, for [`Store::published_kinds`]. Without kinds nothing changes.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn register_kinds(&self, kinds: &Kinds) -> Result<()> {
        let mut commands = Vec::new();
        let hset =
            |key: String, field: &str, value: String| redis::cmd("HSET").arg(key).arg(field).arg(value).to_owned();
        for partition in 0..self.partitions() {
            for (kind, config) in kinds.iter() {
                let r = &config.retention;
                let kept = format!("{} {} {} {}", r.completed_ms, r.failed_ms, r.cancelled_ms, r.keep);
                let command = hset(keys::fixed(partition, "retention"), kind.as_str(), kept);
                commands.push((Home::Partition(partition), command));
            }
        }
        if commands.is_empty() {
            return Ok(());
        }
        let published = serde_json::to_string(&kinds.published()).expect("settings are plain JSON");
        commands.push((Home::Partition(0), hset(keys::fixed(0, PUBLISHED), "kinds", published)));
        match self.inner.wire.pipe_each(&commands).await {
            // A worker must start nevertheless: only finishing jobs frees memory.
            Err(Error::Full(reason)) => {
                tracing::warn!("could not write the kinds' retention; the previous one stays in effect: {reason}");
                Ok(())
            }
            registered => registered.map(drop),
        }
    }

    /// The kinds that an API or a worker published last; `None` when none has had a kinds file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they cannot be read: the next start of an API or a worker publishes them again.
    pub async fn published_kinds(&self) -> Result<Option<PublishedKinds>> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGET").arg(keys::fixed(0, PUBLISHED)).arg("kinds");
        let reply = self.inner.wire.pipe(Home::Partition(0), &pipeline).await?.remove(0);
        if reply == Value::Nil {
            return Ok(None);
        }
        let unreadable = |e: serde_json::Error| Error::Corrupt {
            key: keys::fixed(0, PUBLISHED),
            reason: format!("{e}; start an API or a worker with the kinds file again"),
        };
        serde_json::from_str(&text(&reply)).map(Some).map_err(unreadable)
    }

    /// Whether somebody has emptied Redis (FLUSHALL, DEL) under a live process, and when that was noticed; a doctor's
    /// repair ends the report. The number of partitions, which went with the jobs, is put back: whoever starts next
    /// must place jobs as those do that live.
    ///
    /// # Errors
    /// [`Error::Config`] when the key space now has another number of partitions: this process must be started again.
    /// Those of any call.
    pub async fn emptied_at(&self) -> Result<Option<Timestamp>> {
        let (stored, emptied_at) = match read(&self.inner.wire).await {
            // In a cluster the node that has the settings may be away alone; the others work.
            Err(Error::Unavailable(_) | Error::OutcomeUnknown(_)) if self.inner.wire.connections().is_cluster() => {
                return Ok(None);
            }
            read => read?,
        };
        match stored {
            None => self.restore().await.map(Some),
            Some(stored) if stored != i64::from(self.partitions()) => Err(Error::Config(format!(
                "Redis was emptied and set up again with {stored} partitions, and this process places jobs by {}; start it \
                 again",
                self.partitions()
            ))),
            Some(_) => Ok(emptied_at),
        }
    }

    async fn restore(&self) -> Result<Timestamp> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        let now =
            array(&self.inner.wire.pipe(Home::Meta, &pipeline).await?[0]).first().and_then(number).unwrap_or(0) * 1_000;
        let mut pipeline = redis::pipe();
        // In one transaction: a crash in between would leave no report.
        pipeline.atomic().cmd("HSETNX").arg(keys::META).arg("partitions").arg(self.partitions());
        pipeline.cmd("HSETNX").arg(keys::META).arg(EMPTIED_AT).arg(now);
        self.inner.wire.pipe(Home::Meta, &pipeline).await?;
        tracing::error!(
            "{} is gone: somebody has emptied Redis (FLUSHALL, DEL) while Leasehold was at work, and every job accepted before \
             is lost; {} partitions are set again",
            keys::META,
            self.partitions()
        );
        Ok(Timestamp(now))
    }

    /// Reports to the operator, until acknowledged, that jobs were lost.
    pub(super) async fn find_emptied(&self) -> Result<Option<Finding>> {
        let (stored, emptied_at) = read(&self.inner.wire).await?;
        let (problem, repair) = match (stored, emptied_at) {
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
        let mut pipeline = redis::pipe();
        pipeline.cmd("EXISTS").arg(keys::fixed(0, "clock"));
        Ok(number(&self.inner.wire.pipe(Home::Partition(0), &pipeline).await?[0]) == Some(1))
    }
}

/// The number of partitions, and when the key space was found emptied.
async fn read(wire: &Wire) -> Result<(Option<i64>, Option<Timestamp>)> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("HMGET").arg(keys::META).arg("partitions").arg(EMPTIED_AT);
    let replies = wire.pipe(Home::Meta, &pipeline).await?;
    let [partitions, emptied_at] = array(&replies[0]) else { return Ok((None, None)) };
    Ok((number(partitions), number(emptied_at).map(Timestamp)))
}

/// Checks the number of partitions against the one set at the first start; sets it, unless read-only.
///
/// A partition is a single slot of a cluster, so few of them would leave nodes without work.
pub(super) async fn agree_partitions(wire: &Wire, wanted: Option<u16>, sets: bool) -> Result<u16> {
    let (first, least) = if wire.connections().is_cluster() { (64, limits::CLUSTER_PARTITIONS_MIN) } else { (1, 1) };
    let enough = |partitions: u16| {
        if partitions >= least || !sets {
            return Ok(partitions);
        }
        Err(Error::Config(format!(
            "the key space has {partitions} partitions, and each is on one node of the cluster only; write \
             partitions = 64 for a new key space ({least} is the least for a cluster), or use a single server or Redis \
             Sentinel"
        )))
    };
    wanted.map(enough).transpose()?;
    let mut reading = redis::pipe();
    reading.cmd("HGET").arg(keys::META).arg("partitions");
    let mut replies = wire.pipe(Home::Meta, &reading).await?;
    if replies[0] == Value::Nil && !sets {
        return Ok(wanted.unwrap_or(first));
    }
    if replies[0] == Value::Nil {
        let mut setting = redis::pipe();
        setting.cmd("HSETNX").arg(keys::META).arg("partitions").arg(wanted.unwrap_or(first));
        wire.pipe(Home::Meta, &setting).await?;
        replies = wire.pipe(Home::Meta, &reading).await?;
    }
    let stored =
        number(&replies[0]).and_then(|n| u16::try_from(n).ok()).filter(|n| (1..=limits::PARTITIONS_MAX).contains(n));
    let reason = || "`partitions` is not 1 to 256".to_owned();
    let stored = stored.ok_or_else(|| Error::Corrupt { key: keys::META.into(), reason: reason() })?;
    match wanted {
        Some(n) if n != stored => Err(Error::Config(format!(
            "partitions is {n}, but this Redis was set up with {stored}, and jobs are placed by it; \
             write {stored}, or leave LEASEHOLD_PARTITIONS unset"
        ))),
        _ => enough(stored),
    }
}
