//! The only door to Redis: one method a verb, each a script that guards before it writes.
//!
//! Reading order: `submit`, `claim`, `settle`, `sweep` follow a job's life; `import` brings jobs from other stores; `inspect`
//! reads; `check` holds the invariants against the keys; `files` is where records and files meet; `hints` hears and `watch`
//! waits; `cache` names who did a work before. `link` is the connection,
//! `group` the group commit, `keys` every key's name.
mod admin;
mod cache;
mod check;
mod claim;
mod files;
mod hints;
mod history;
mod import;
mod items;
mod list;
mod meta;
mod prune;
mod settle;
mod status;
mod submit;
mod sweep;
mod watch;
mod wire;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::Value;

use crate::files::FileStore;
use crate::{Config, Error, JobId, Kinds, Result};

pub use crate::canonical::request_digest;
pub use admin::{Cancelled, Removed, Retried, ServerFault, Standing};
pub use check::{Finding, Repair};
pub use claim::{ClaimRequest, Claimed, ClaimedJob, Held, Popper, RenewRequest, Renewal, Renewed, Reservation};
pub use hints::Hint;
pub use history::HistoryEntry;
pub use import::{Ending, IMPORTED_TOKEN, ImportedItem, ImportedJob, Known, Past};
pub use list::{Cursor, ListQuery, Page, QueueStatus, WorkerInfo, WorkerStatus};
pub use prune::{PruneQuery, Pruned};
pub use settle::{Outcome, Report, Settle, Settled};
pub use status::Counts;
pub use submit::{Accepted, Submitted};
pub use sweep::{SweepRequest, Swept};
pub use watch::{Watch, Watcher};
pub use wire::metrics::Metrics;

use group::Group;
use link::Link;
use scripts::Script;
use wire::{connection as link, group, keys, scripts};

/// A handle on Redis: cheap to clone, safe to share within one tokio runtime.
///
/// Calls that are safe to repeat are repeated over an outage until `redis.outage_ms` has passed; a claim is not, since
/// the audit recovers what a lost reply took.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    partitions: u16,
    outage: Duration,
    clock: Option<Arc<AtomicI64>>,
    files: Option<FileStore>,
    submits: OnceLock<Vec<submit::SubmitGroup>>,
    settles: OnceLock<Vec<settle::SettleGroup>>,
}

impl Store {
    /// Connects, checks that Redis is fit to keep jobs, and adopts or sets the number of partitions.
    ///
    /// # Errors
    /// [`Error::Config`] says what to write instead: a Redis too old, with its AOF off or eviction on, another number of
    /// partitions, a folder for files that is not this Redis's. [`Error::Unavailable`] when there is no Redis within `redis.outage_ms`.
    pub async fn connect(config: &Config) -> Result<Self> {
        Self::connect_with(config, None).await
    }

    /// [`Store::connect`], counting its calls in `metrics`, tries that fail too.
    ///
    /// # Errors
    /// [`Store::connect`]'s.
    pub async fn connect_counted(config: &Config, metrics: &Metrics) -> Result<Self> {
        Self::connect_inner(Inner::open(config, None, metrics.clone())?, config).await
    }

    /// [`Store::connect`] with a clock of the test's choosing, in ms, in place of Redis's.
    ///
    /// # Errors
    /// [`Store::connect`]'s.
    pub async fn connect_with(config: &Config, clock: Option<Arc<AtomicI64>>) -> Result<Self> {
        Self::connect_inner(Inner::open(config, clock, Metrics::default())?, config).await
    }

    async fn connect_inner(mut inner: Inner, config: &Config) -> Result<Self> {
        admin::check_server(&inner).await?;
        inner.partitions = meta::agree_partitions(&inner, config.partitions, true).await?;
        inner.files = files::open(&inner, config).await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// [`Store::connect`] for the doctor, who must see a Redis that is not fit ([`Store::server_faults`] tells), and sets
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Config`] for another number of partitions; [`Error::Unavailable`].
    pub async fn connect_unchecked(config: &Config) -> Result<Self> {
        let mut inner = Inner::open(config, None, Metrics::default())?;
        inner.partitions = meta::agree_partitions(&inner, config.partitions, false).await?;
        inner.files = match files::open(&inner, config).await {
            // The keys are looked at all the same.
            Err(Error::Config(reason)) => {
                tracing::warn!("the file store is left out: {reason}");
                None
            }
            opened => opened?,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same key space over connections of its own, as `config` has them: for another runtime, or another patience. Its
    /// calls count with this one's.
    ///
    /// # Errors
    /// [`Error::Config`] when the address cannot be read.
    pub fn apart(&self, config: &Config) -> Result<Self> {
        let mut inner = Inner::open(config, self.inner.clock.clone(), self.inner.link.metrics().clone())?;
        inner.partitions = self.inner.partitions;
        inner.files = self.inner.files.clone();
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How many shares the key space has.
    pub fn partitions(&self) -> u16 {
        self.inner.partitions
    }

    /// The share that holds `id` and all that belongs to it.
    pub fn partition_of(&self, id: &JobId) -> u16 {
        keys::partition_of(id.as_str(), self.inner.partitions)
    }

    /// The id of item `number` of `parent`.
    pub fn item_id(&self, parent: &JobId, number: u64) -> JobId {
        keys::item(parent, number, self.inner.partitions)
    }

    /// Tells every partition how long finished jobs of each configured kind are kept.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn register_kinds(&self, kinds: &Kinds) -> Result<()> {
        admin::register_kinds(&self.inner, kinds).await
    }

    /// The address of Redis, without its password.
    pub fn address(&self) -> &str {
        self.inner.link.address()
    }

    /// Positions of `ids`, by partition.
    fn by_partition<'a, T>(&self, items: &'a [T], id: impl Fn(&T) -> &JobId) -> Vec<(u16, Vec<(usize, &'a T)>)> {
        let mut shares: Vec<Vec<(usize, &T)>> = vec![Vec::new(); usize::from(self.inner.partitions)];
        for (at, item) in items.iter().enumerate() {
            shares[usize::from(self.partition_of(id(item)))].push((at, item));
        }
        let shares = shares.into_iter().enumerate().filter(|(_, share)| !share.is_empty());
        shares.map(|(p, share)| (u16::try_from(p).expect("partitions are u16"), share)).collect()
    }
}

/// The address of the Redis that is configured, without user and password: [`Store::address`] for one who has no Store.
///
/// # Errors
/// [`Error::Config`] when it cannot be read.
pub fn address(config: &Config) -> Result<String> {
    link::address(config)
}

/// The share, of `partitions` (at least 1), that holds `id`: [`Store::partition_of`] for one who has no Store.
pub fn partition_of(id: &JobId, partitions: u16) -> u16 {
    keys::partition_of(id.as_str(), partitions)
}

/// The SHA-1 by which Redis knows the script of that name (`claim`, `settle`, …): what `redis-cli MONITOR` and a proxy
/// between see of a call.
pub fn script_sha(name: &str) -> Option<&'static str> {
    scripts::all().into_iter().find(|script| script.name == name).map(|script| script.sha.as_str())
}

/// May a call whose outcome is not known be made again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing the second time.
    Safe,
    /// It does not: one try.
    Never,
}

/// The arguments of a script call, behind the time.
#[derive(Default)]
struct Args(Vec<Vec<u8>>);

impl Args {
    fn text(mut self, text: impl AsRef<str>) -> Self {
        self.0.push(text.as_ref().as_bytes().to_vec());
        self
    }

    fn number(self, number: impl Into<i128>) -> Self {
        self.text(number.into().to_string())
    }

    fn count(self, number: usize) -> Self {
        self.text(number.to_string())
    }

    fn texts<T: AsRef<str>>(mut self, texts: impl IntoIterator<Item = T>) -> Self {
        self.0.extend(texts.into_iter().map(|t| t.as_ref().as_bytes().to_vec()));
        self
    }
}

impl Inner {
    fn open(config: &Config, clock: Option<Arc<AtomicI64>>, metrics: Metrics) -> Result<Self> {
        let link = Link::open(config, metrics)?;
        let outage = Duration::from_millis(config.redis.outage_ms);
        Ok(Self { link, partitions: 1, outage, clock, files: None, submits: OnceLock::new(), settles: OnceLock::new() })
    }

    /// Runs a script in a partition, over an outage if that is safe.
    async fn run(&self, script: &Script, partition: u16, args: &Args, repeat: Repeat) -> Result<Value> {
        let now = self.clock.as_ref().map(|c| c.load(Ordering::SeqCst).to_string()).unwrap_or_default();
        let mut patience = Patience::new(self.outage, repeat);
        loop {
            match self.link.eval(script, &keys::prefix(partition), &now, &args.0).await {
                Err(e) => patience.bear(e).await?,
                reply => return reply,
            }
        }
    }

    /// Runs plain commands in one round trip; they must be safe to repeat.
    async fn pipe(&self, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
        let replies = self.pipe_leniently(pipeline).await?;
        replies.into_iter().map(|v| v.extract_error().map_err(|e| link::sort_error(&e))).collect()
    }

    /// [`Inner::pipe`], with the error of each command that met a key of the wrong type in its place.
    async fn pipe_leniently(&self, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
        let mut patience = Patience::new(self.outage, Repeat::Safe);
        loop {
            match self.link.pipe(pipeline).await.and_then(unless_refused) {
                Err(e) => patience.bear(e).await?,
                replies => return replies,
            }
        }
    }
}

/// The replies, or the first refusal among them that is not about the type of a key.
fn unless_refused(replies: Vec<Value>) -> Result<Vec<Value>> {
    let refusal = replies.iter().find_map(|reply| match reply {
        Value::ServerError(e) if e.code() != "WRONGTYPE" => Some(link::sort_error(&e.clone().into())),
        _ => None,
    });
    refusal.map_or(Ok(replies), Err)
}

/// How long a call goes on trying.
struct Patience {
    end: tokio::time::Instant,
    pause: Duration,
    repeat: Repeat,
    unknown: bool,
}

impl Patience {
    fn new(outage: Duration, repeat: Repeat) -> Self {
        Self { end: tokio::time::Instant::now() + outage, pause: Duration::from_millis(10), repeat, unknown: false }
    }

    /// Waits before the next try; gives the error back when there is to be none.
    async fn bear(&mut self, error: Error) -> Result<()> {
        self.unknown |= matches!(error, Error::OutcomeUnknown(_));
        let passing = matches!(error, Error::Unavailable(_) | Error::OutcomeUnknown(_));
        if !passing || self.repeat == Repeat::Never || tokio::time::Instant::now() + self.pause >= self.end {
            // An earlier try may have been done, whatever the last one met.
            return Err(if self.unknown { error.after_a_change() } else { error });
        }
        // Jitter keeps those who lost Redis together from coming back together.
        tokio::time::sleep(self.pause.mul_f64(rand::random_range(0.5..1.0))).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(500));
        Ok(())
    }
}
