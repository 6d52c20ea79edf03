//! What a process knows of the numbers of partitions, past and present; `partitions` changes them.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::Value;
use tokio::sync::watch;

use super::wire::reply::{array, number, text};
use super::wire::{Home, Wire, keys};
use crate::{Error, JobId, Result, Timestamp, limits};

/// How old the knowledge of the numbers may be when a job is looked for.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// How long after a growth the earlier homes of keys are looked at, beyond the life of a key, ms.
const KEYS_MARGIN_MS: i64 = 60 * 60 * 1_000;
/// The field with the time at which a running process found the key space emptied.
pub(super) const EMPTIED_AT: &str = "emptied_at";

/// The fields of `lh:meta` that change while processes run.
pub(super) struct Meta {
    /// The numbers of partitions; `None` in a new key space.
    pub sizes: Option<Sizes>,
    /// When the key space was found emptied.
    pub emptied_at: Option<Timestamp>,
    /// Redis's time, ms.
    pub now: i64,
}

impl Meta {
    /// # Errors
    /// [`Error::Corrupt`] when a number of partitions cannot be read; those of any call.
    pub(super) async fn read(wire: &Wire) -> Result<Self> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME").cmd("HMGET").arg(keys::META).arg(EMPTIED_AT).arg("partitions");
        pipeline.arg("partitions_past").arg("partitions_growing").arg("partitions_grown_at");
        let replies = wire.pipe(Home::Meta, &pipeline).await.map_err(|e| match e {
            Error::Corrupt { .. } => Error::Corrupt {
                key: keys::META.into(),
                reason:
                    "it is not a hash; rename it (`redis-cli RENAME lh:meta lh:aside`) while a process of Leasehold \
                         runs, which then writes it again"
                        .into(),
            },
            e => e,
        })?;
        let now = array(&replies[0]).first().and_then(number).unwrap_or(0) * 1_000;
        let [emptied_at, sizes @ ..] = array(&replies[1]) else {
            return Ok(Self { sizes: None, emptied_at: None, now });
        };
        Ok(Self { sizes: Sizes::read(sizes, now)?, emptied_at: number(emptied_at).map(Timestamp), now })
    }
}

/// The numbers of partitions of a key space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sizes {
    /// All numbers by which jobs have been placed, the oldest first. The last is in force.
    placed: Vec<u16>,
    /// The next number, once it is announced.
    pub(super) growing: Option<u16>,
    /// Keys that were placed by an earlier number may not have expired yet.
    keys_moved: bool,
}

impl Sizes {
    pub(super) fn single(partitions: u16) -> Self {
        Self { placed: vec![partitions], growing: None, keys_moved: false }
    }

    /// From the fields of `lh:meta`: `partitions`, `partitions_past`, `partitions_growing`, `partitions_grown_at`;
    /// `None` when there is no number yet. `now`: Redis's time, ms.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when one cannot be read.
    pub(super) fn read(fields: &[Value], now: i64) -> Result<Option<Self>> {
        let [partitions, past, growing, grown_at] = fields else { return Ok(None) };
        if *partitions == Value::Nil {
            return Ok(None);
        }
        let size = |text: &str| text.parse().ok().filter(|n| (1..=limits::PARTITIONS_MAX).contains(n));
        let corrupt = |field: &str, what: &str| Error::Corrupt {
            key: keys::META.into(),
            reason: format!("`{field}` is not {what}1 to {}", limits::PARTITIONS_MAX),
        };
        let current: u16 = size(&text(partitions)).ok_or_else(|| corrupt("partitions", ""))?;
        let past = text(past).split_whitespace().map(size).collect::<Option<Vec<u16>>>();
        let mut placed = past.ok_or_else(|| corrupt("partitions_past", "a list of "))?;
        placed.push(current);
        if !placed.is_sorted_by(|a, b| a < b) {
            return Err(corrupt("partitions_past", "an ascending list, below `partitions`, of "));
        }
        let growing = match growing {
            Value::Nil => None,
            growing => Some(size(&text(growing)).ok_or_else(|| corrupt("partitions_growing", ""))?),
        };
        let keys_live = i64::try_from(limits::IDEMPOTENCY_MS).unwrap_or(i64::MAX).saturating_add(KEYS_MARGIN_MS);
        let keys_moved = placed.len() > 1 && number(grown_at).is_none_or(|at| now - at < keys_live);
        Ok(Some(Self { placed, growing: growing.filter(|n| *n > current), keys_moved }))
    }

    /// The number by which new jobs are placed.
    pub(super) fn current(&self) -> u16 {
        *self.placed.last().expect("there is always one")
    }

    /// The first number. Kinds with `max_running` are placed by it for ever, since their jobs are counted in one place.
    pub(super) fn first(&self) -> u16 {
        self.placed[0]
    }

    /// The partitions to serve and to look into.
    pub(super) fn served(&self) -> u16 {
        self.growing.map_or(self.current(), |growing| growing.max(self.current()))
    }

    /// The earlier numbers, the oldest first, separated by spaces.
    pub(super) fn past(&self) -> String {
        self.placed[..self.placed.len() - 1].iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Whether `partitions` is in force, or was.
    pub(super) fn includes(&self, partitions: u16) -> bool {
        self.placed.contains(&partitions) || self.growing == Some(partitions)
    }

    /// Whether these are the same numbers at a later time.
    fn follows(&self, earlier: &Self) -> bool {
        self.placed.starts_with(&earlier.placed)
    }

    /// The partitions in which a job may be: the one in which a new job with this id is placed, and the others.
    pub(super) fn homes(&self, id: &JobId) -> (u16, Vec<u16>) {
        let home = keys::partition_of(id.as_str(), self.current());
        let mut others = Vec::new();
        for partitions in self.growing.iter().chain(self.placed.iter().rev()) {
            let other = keys::partition_of(id.as_str(), *partitions);
            if other != home && !others.contains(&other) {
                others.push(other);
            }
        }
        (home, others)
    }

    /// The partitions in which an Idempotency-Key may be by an earlier number than the one in force, the newest first.
    pub(super) fn earlier_homes_of_key(&self, key: &str) -> Vec<u16> {
        let current = keys::partition_of(key, self.current());
        let earlier = self.placed[..self.placed.len() - 1].iter().rev().filter(|_| self.keys_moved);
        let mut homes: Vec<u16> = earlier.map(|partitions| keys::partition_of(key, *partitions)).collect();
        homes.retain(|home| *home != current);
        homes.dedup();
        homes
    }

    /// Item `number` of a parent in `partition`: by the oldest number that places the parent there, so that it is the
    /// same in every process and after every growth.
    pub(super) fn item(&self, parent: &JobId, partition: u16, number: u64) -> JobId {
        let places = |n: &&u16| keys::partition_of(parent.as_str(), **n) == partition;
        let partitions = self.placed.iter().find(places).copied().unwrap_or_else(|| self.served());
        keys::item(parent, number, partitions)
    }
}

/// The numbers as this process knows them, shared by all its stores.
pub(super) struct Known {
    pub(super) sizes: watch::Sender<Sizes>,
    read_at: Mutex<Instant>,
    /// One reader at a time, so that what is read later is newer.
    pub(super) reading: tokio::sync::Mutex<()>,
}

impl Known {
    pub(super) fn new(sizes: Sizes) -> Arc<Self> {
        Arc::new(Self {
            sizes: watch::Sender::new(sizes),
            read_at: Mutex::new(Instant::now()),
            reading: tokio::sync::Mutex::default(),
        })
    }

    /// Takes in what was read. Returns what was known before, if Redis has lost a part of it: by a failover, or because
    /// somebody has emptied it.
    ///
    /// # Errors
    /// [`Error::Config`] when it is not a growth of what was known: this process must be started again.
    pub(super) fn learn(&self, read: &Sizes) -> Result<Option<Sizes>> {
        let known = self.sizes.borrow().clone();
        if known.placed.len() > read.placed.len() && known.follows(read) {
            return Ok(Some(known));
        }
        if !read.follows(&known) {
            return Err(Error::Config(format!(
                "Redis was emptied and set up again with {} partitions, and this process places jobs by {}; start it \
                 again",
                read.current(),
                known.current()
            )));
        }
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if known != *read {
            match read.growing {
                Some(growing) => tracing::info!("the partitions are growing from {} to {growing}", read.current()),
                None => {
                    tracing::info!("there are {} partitions, and new jobs are placed in all of them", read.current())
                }
            }
            self.sizes.send_replace(read.clone());
        }
        Ok(None)
    }

    /// Whether the knowledge is old; only the first caller of each [`KNOWN_FOR`] is answered so, and reads again.
    pub(super) fn is_to_read(&self) -> bool {
        let mut read_at = self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        let old = read_at.elapsed() > KNOWN_FOR;
        if old {
            *read_at = Instant::now();
        }
        old
    }
}
