//! All access to Redis: a method for each verb, and for each a script that checks its guards before it writes.
//!
//! Reading order: `submit` and `items`, `pop` and `claim`, `renew`, `settle`, `sweep` and `prune` follow a job's life;
//! `schedules` and `tick` submit jobs at their times. `admin` is what clients and operators do to jobs, `cascade` does
//! it to the items of batches, `import` writes jobs of other stores (`past`), `files` relates records and files,
//! `cache` finds the job that has done the same work before. Then the reads: `record` reads one job, `list` pages of
//! them, `history` what happened to one, `status` queues and workers, `demand` which waiting jobs may start; `hints`
//! receives messages, and `watch` waits for changes. `check` verifies the invariants against the keys; `finding` is
//! what it reports, `repair` fixes it.
//!
//! `connect` makes a [`Store`], after `server` has checked the server and `meta` what the key space agrees on, with the
//! number of `partitions`, of which each process knows the `sizes`. All
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
mod migrate;
mod partitions;
mod past;
mod pop;
mod prune;
mod record;
mod renew;
mod repair;
mod running;
mod schedules;
mod server;
mod settle;
mod sizes;
mod status;
mod submit;
mod sweep;
mod tick;
mod watch;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::files::FileStore;
use crate::limits;

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
pub use tick::Ticked;
pub use watch::{Watch, Watcher};
pub use wire::address::address;
pub use wire::metrics::Metrics;
pub use wire::scripts::script_sha;
pub use wire::within_one_outage;

use wire::{Groups, Wire, scripts};

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
    /// The number of partitions, and those of the past: jobs are placed by them.
    known: Arc<sizes::Known>,
    /// The file store; `None` when no folder is configured. That it belongs to this Redis is checked before the first
    /// call.
    files: Option<FileStore>,
    /// The checks of masters, shared with the stores apart.
    checked: Arc<server::Checked>,
    /// The group commits of submits, one per partition, since a script runs in one partition.
    submits: Groups,
    /// The group commits of submits that wait for replicas.
    waiting_submits: Groups,
    /// The group commits of settles, separate so that settles never wait behind a backlog of submits.
    settles: Groups,
    /// Reads of one job, together.
    reads: Groups,
}

impl Store {
    fn new(wire: Wire, known: Arc<sizes::Known>, files: Option<FileStore>, checked: Arc<server::Checked>) -> Self {
        let wire = Arc::new(wire);
        let groups = |script, most| Groups::new(Arc::clone(&wire), script, most);
        let submits = groups(&scripts::SUBMIT, limits::BATCH_MAX);
        let waiting_submits = groups(&scripts::SUBMIT, limits::BATCH_MAX);
        let (settles, reads) = (groups(&scripts::SETTLE, limits::BATCH_MAX), groups(&scripts::GET, record::READ_MAX));
        Self { inner: Arc::new(Inner { wire, known, files, checked, submits, waiting_submits, settles, reads }) }
    }

    /// The address of Redis, without its password.
    pub fn address(&self) -> &str {
        self.inner.wire.connections().address()
    }
}

/// The items by their partitions, each with its position.
fn by_partition<T>(items: &[T], partition: impl Fn(usize, &T) -> u16) -> BTreeMap<u16, Vec<(usize, &T)>> {
    let mut shares: BTreeMap<u16, Vec<(usize, &T)>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        shares.entry(partition(at, item)).or_default().push((at, item));
    }
    shares
}
