//! Checks that all processes have the same settings, where they must have: the kinds file and the lease.
use redis::Value;

use super::Store;
use super::wire::reply::{array, number, text};
use super::wire::{Home, keys};
use crate::kinds::PublishedKinds;
use crate::{Error, Kind, Kinds, Result};

/// The key, in partition 0, of what was published last.
const PUBLISHED: &str = "published";

/// What processes have published of their settings, the last one to start last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// The kinds; `None` when no process has had a kinds file.
    pub kinds: Option<PublishedKinds>,
    /// The lease of the workers, ms; `None` when no worker has started.
    pub lease_ms: Option<u64>,
}

/// The settings of a process that differ from what was published last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Kinds with other settings, or that only one of the two has.
    pub kinds: Vec<Kind>,
    /// The published lease, ms, when it is not that of this process.
    pub lease_ms: Option<u64>,
}

/// Compares the settings of a process with what was published last, and logs each change of the outcome.
#[derive(Debug)]
pub struct Agreement {
    own: Published,
    differences: Differences,
}

impl Agreement {
    /// For a process with these kinds and this lease, ms; a process without a kinds file agrees with every other.
    pub fn new(kinds: &Kinds, lease_ms: u64) -> Self {
        let own = Published { kinds: (!kinds.is_empty()).then(|| kinds.published()), lease_ms: Some(lease_ms) };
        Self { own, differences: Differences::default() }
    }

    /// Replaces the kinds of this process, whose file was read again.
    pub fn set_kinds(&mut self, kinds: &Kinds) {
        self.own.kinds = (!kinds.is_empty()).then(|| kinds.published());
    }

    /// What differs now; a process that starts publishes its settings, so the last one to start is right.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn check(&mut self, store: &Store) -> Result<&Differences> {
        let published = store.published().await?;
        let kinds = match (&self.own.kinds, &published.kinds) {
            (Some(own), Some(published)) => own.differing(published),
            _ => Vec::new(),
        };
        if kinds != self.differences.kinds {
            if kinds.is_empty() {
                tracing::info!("the kinds file agrees again with the published kinds");
            } else {
                tracing::warn!(
                    "a process that started later has another kinds file, with other settings of {}; give every API and \
                     worker the same file, and restart those with the old one",
                    names(&kinds)
                );
            }
        }
        let lease_ms = published.lease_ms.filter(|lease_ms| Some(*lease_ms) != self.own.lease_ms);
        if lease_ms != self.differences.lease_ms {
            match lease_ms {
                None => tracing::info!("lease_ms agrees again with that of the workers"),
                Some(theirs) => tracing::warn!(
                    "lease_ms is {} here, and {theirs} in a worker that started later; with different leases jobs of \
                     live workers may be reclaimed: give every API and worker the same, and restart those with the \
                     old one",
                    self.own.lease_ms.unwrap_or_default()
                ),
            }
        }
        self.differences = Differences { kinds, lease_ms };
        Ok(&self.differences)
    }
}

impl Store {
    /// Writes to every partition how long ended jobs of each configured kind are kept, for the scripts: by kind,
    /// `<completed> <failed> <cancelled> <keep>`, ms and a count. Reserves the names of the kinds and of their queues,
    /// for which the limit on names does not count. Publishes the kinds, replacing those published
    /// before, for [`Store::published`]. Without kinds nothing changes.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn register_kinds(&self, kinds: &Kinds) -> Result<()> {
        if kinds.is_empty() {
            return Ok(());
        }
        let mut commands = Vec::new();
        for partition in 0..self.partitions() {
            for (kind, config) in kinds.iter() {
                let r = &config.retention;
                let kept = format!("{} {} {} {}", r.completed_ms, r.failed_ms, r.cancelled_ms, r.keep);
                let mut command = redis::cmd("HSET");
                command.arg(keys::fixed(partition, "retention")).arg(kind.as_str()).arg(kept);
                commands.push((Home::Partition(partition), command));
            }
            let names =
                kinds.iter().flat_map(|(kind, config)| [format!("kind {kind}"), format!("queue {}", config.queue)]);
            let mut command = redis::cmd("SADD");
            command.arg(keys::fixed(partition, "reserved")).arg(names.collect::<Vec<_>>());
            commands.push((Home::Partition(partition), command));
        }
        unless_full("the kinds' retention", self.inner.wire.pipe_each(&commands).await.map(drop))?;
        let published = serde_json::to_string(&kinds.published()).expect("settings are plain JSON");
        self.publish("kinds", &published).await
    }

    /// Publishes the lease of a worker, ms, replacing the one published before.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn publish_lease(&self, lease_ms: u64) -> Result<()> {
        self.publish("lease_ms", &lease_ms.to_string()).await
    }

    async fn publish(&self, field: &str, value: &str) -> Result<()> {
        let (home, key) = (Home::Partition(0), keys::fixed(0, PUBLISHED));
        let mut pipeline = redis::pipe();
        pipeline.cmd("HSET").arg(&key).arg(field).arg(value);
        let published = self.inner.wire.pipe_leniently(home, &pipeline).await;
        // The replies have errors for keys of another type only.
        if let Ok([Value::ServerError(_)]) = published.as_deref() {
            let mut aside = redis::pipe();
            aside.cmd("RENAME").arg(&key).arg(keys::fixed(0, &format!("quarantined:{PUBLISHED}")));
            // Another process may have set it aside meanwhile.
            drop(self.inner.wire.pipe(home, &aside).await);
            return unless_full(field, self.inner.wire.pipe(home, &pipeline).await.map(drop));
        }
        unless_full(field, published.map(drop))
    }

    /// What processes have published of their settings. What cannot be read counts as not published, and is logged: the
    /// next process that starts replaces it.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn published(&self) -> Result<Published> {
        let key = keys::fixed(0, PUBLISHED);
        let mut pipeline = redis::pipe();
        pipeline.cmd("HMGET").arg(&key).arg("kinds").arg("lease_ms");
        let replies = self.inner.wire.pipe_leniently(Home::Partition(0), &pipeline).await?;
        let unreadable = |reason: String| {
            tracing::warn!(
                "{key} cannot be read and is ignored; start an API or a worker with the kinds file again: {reason}"
            );
        };
        if let Value::ServerError(error) = &replies[0] {
            unreadable(format!("{error:?}"));
            return Ok(Published::default());
        }
        let [kinds, lease_ms] = array(&replies[0]) else { return Ok(Published::default()) };
        let kinds = (*kinds != Value::Nil).then(|| serde_json::from_str(&text(kinds)));
        let kinds = kinds.and_then(|read| read.map_err(|e: serde_json::Error| unreadable(e.to_string())).ok());
        Ok(Published { kinds, lease_ms: number(lease_ms).and_then(|ms| u64::try_from(ms).ok()) })
    }
}

/// A process must start on a full Redis too: only finishing jobs frees memory. What was written before stays in effect.
pub(super) fn unless_full(what: &str, written: Result<()>) -> Result<()> {
    match written {
        Err(Error::Full(reason)) => {
            tracing::warn!("could not write {what}; the previous value stays in effect: {reason}");
            Ok(())
        }
        written => written,
    }
}

/// The names of kinds, for a message.
pub fn names(kinds: &[Kind]) -> String {
    const SHOWN: usize = 5;
    let mut names: Vec<&str> = kinds.iter().take(SHOWN).map(Kind::as_str).collect();
    let more = kinds.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("{more} more"));
    names.extend(more.as_deref());
    names.join(", ")
}
