//! All access to Redis: a method for each verb, and for each a script that checks its guards before it writes.
//!
//! Reading order: `submit` and `items`, `pop` and `claim`, `renew`, `settle`, `sweep` and `prune` follow a job's life;
//! `admin` is what clients and operators do to jobs, `cascade` does it to the items of batches, `import` writes jobs of
//! other stores (`past`), `files` relates records and files, `cache` finds the job that has done the same work before. Then the reads: `record` reads one job,
//! `list` pages of them, `history` what happened to one, `status` queues and workers, `demand` which waiting jobs may
//! start; `hints` receives messages, and `watch` waits for changes. `check` verifies the invariants against the keys;
//! `finding` is what it reports, `repair` fixes it.
//!
//! `connect` makes a [`Store`], after `server` has checked the server and `meta` what the key space agrees on. All
//! calls go through `wire`.
mod admin;
mod agreement;
mod cache;
mod cascade;
mod check;
mod claim;
mod connect;
mod demand;
mod files;
mod finding;
mod hints;
mod history;
mod import;
mod items;
mod list;
mod meta;
mod past;
mod pop;
mod prune;
mod record;
mod renew;
mod repair;
mod server;
mod settle;
mod status;
mod submit;
mod sweep;
mod watch;
mod wire;

use std::sync::{Arc, LazyLock, OnceLock};

use crate::JobId;
use crate::files::FileStore;

pub use crate::canonical::request_digest;
pub use admin::{Cancelled, Removed, Retried};
pub use agreement::{Agreement, Differences, Published, names as kind_names};
pub use claim::{ClaimRequest, Claimed, ClaimedJob, Held};
pub use finding::{Finding, Repair};
pub use hints::Hint;
pub use history::HistoryEntry;
pub use import::{ImportedItem, ImportedJob, Known};
pub use list::{Cursor, ListQuery, Page};
pub use meta::Migrated;
pub use past::{Ending, IMPORTED_TOKEN, Past};
pub use pop::{Popper, PopperId, Reservation};
pub use prune::{PruneQuery, Pruned};
pub use renew::{RenewRequest, Renewal, Renewed};
pub use server::{ServerFault, Standing};
pub use settle::{Outcome, Report, Settle, Settled};
pub use status::{Counts, QueueStatus, Serving, WorkerInfo, WorkerStatus};
pub use submit::{Accepted, Submitted};
pub use sweep::{SweepPart, SweepRequest, Swept};
pub use watch::{Watch, Watcher};
pub use wire::address::address;
pub use wire::metrics::Metrics;
pub use wire::scripts::script_sha;

use wire::scripts::Script;
use wire::{Group, Wire, keys};

/// A handle on Redis: cheap to clone, safe to share within one tokio runtime.
///
/// During an outage, idempotent calls are repeated until `redis.outage_ms` has passed. A claim is not repeated, since
/// the audit recovers the jobs of a lost reply.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What the clones of a [`Store`] share.
struct Inner {
    /// Every call goes through it. Shared with the tasks of the groups, which must not keep `Inner` alive: they end
    /// when it is dropped.
    wire: Arc<Wire>,
    /// The number of partitions. Fixed at the first start: jobs are placed by it, so it is agreed on before the
    /// first call.
    partitions: u16,
    /// The file store; `None` when no folder is configured. That it belongs to this Redis is checked before the first
    /// call.
    files: Option<FileStore>,
    /// The checks of masters, shared with the stores apart.
    checked: Arc<server::Checked>,
    /// The group commits of submits, one per partition, since a script runs in one partition. Started at the first use,
    /// on the runtime that uses them.
    submits: OnceLock<Vec<Group>>,
    /// The group commits of submits that wait for replicas.
    waiting_submits: OnceLock<Vec<Group>>,
    /// The group commits of settles, separate so that settles never wait behind a backlog of submits.
    settles: OnceLock<Vec<Group>>,
}

impl Store {
    fn new(wire: Wire, partitions: u16, files: Option<FileStore>, checked: Arc<server::Checked>) -> Self {
        let (wire, submits, waiting_submits, settles) =
            (Arc::new(wire), OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { inner: Arc::new(Inner { wire, partitions, files, checked, submits, waiting_submits, settles }) }
    }

    /// A group commit of a script in each partition.
    fn groups(&self, script: &'static LazyLock<Script>) -> Vec<Group> {
        (0..self.partitions()).map(|partition| Group::spawn(self.inner.wire.clone(), script, partition)).collect()
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u16 {
        self.inner.partitions
    }

    /// The partition that holds `id` and all its keys.
    pub fn partition_of(&self, id: &JobId) -> u16 {
        keys::partition_of(id.as_str(), self.inner.partitions)
    }

    /// The id of item `number` of `parent`.
    pub fn item_id(&self, parent: &JobId, number: u64) -> JobId {
        keys::item(parent, number, self.inner.partitions)
    }

    /// The address of Redis, without its password.
    pub fn address(&self) -> &str {
        self.inner.wire.connections().address()
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

/// The partition, of `partitions` (at least 1), that holds `id`: [`Store::partition_of`] without a `Store`.
pub fn partition_of(id: &JobId, partitions: u16) -> u16 {
    keys::partition_of(id.as_str(), partitions)
}
