//! `Running`: the state that the roles of one worker share.
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use leasehold::store::WorkerInfo;
use leasehold::{Config, FileStore, Kind, Kinds, QueueName, Store, WorkerId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::report::Reporter;
use crate::error::Error;
use crate::event::Event;
use crate::handler::Registry;
use crate::kinds;
use crate::lease::leases::Leases;
use crate::metrics::Metrics;
use crate::outage::RedisStatus;
use crate::shutdown::Shutdown;
use crate::slots::Slots;

/// The state that the roles of one worker share.
pub(crate) struct Running {
    /// Every call to Redis goes through it. The lease thread and the probe have connections of their own.
    pub store: Store,
    /// This worker's id, new at each start: leases and reservations in Redis carry it.
    pub worker: WorkerId,
    pub config: Config,
    /// What this worker can run. Replaced when the kinds file has changed; running attempts are not affected.
    pub work: RwLock<Arc<Work>>,
    /// The queues to claim from, each with its weight.
    pub queues: Vec<(QueueName, u32)>,
    /// The leases in hand: filled by attempts, renewed by the lease thread.
    pub leases: Arc<Leases>,
    /// Bounds the jobs that run at once. The claim loop asks for no more jobs than there are free slots.
    pub slots: Arc<Slots>,
    /// Sends progress and checkpoints of all attempts in batches.
    pub reporter: Reporter,
    /// Whether Redis answers. Shared, so that an outage is logged once rather than by every role.
    pub redis: Arc<RedisStatus>,
    pub metrics: Arc<Metrics>,
    /// The tasks of the attempts. Draining waits for them.
    pub tasks: TaskTracker,
    /// The request to end, from outside.
    pub shutdown: Shutdown,
    /// Cancelled when no further pop or claim will be sent, so that draining may wait for the last attempt.
    pub claims_over: CancellationToken,
    /// Cancelled when the worker has ended or its `run` was dropped. Ends all roles and the lease thread.
    pub gone: CancellationToken,
    /// Kinds of which an attempt has failed because of the file store.
    pub needs_files: Mutex<BTreeSet<Kind>>,
    /// When the claim loop last turned: it does so at least once a second, unless it waits for a call to Redis.
    pub turned: Turned,
    /// To the claim loop.
    pub events: mpsc::UnboundedSender<Event>,
}

/// The work that a worker can do.
pub(crate) struct Work {
    /// The defaults and limits of each kind, applied when an attempt starts and when it fails.
    pub kinds: Kinds,
    /// The handlers, by kind.
    pub registry: Registry,
    /// The kinds to claim, each with its `max_running`; 0 is no limit.
    pub served: Vec<(Kind, u32)>,
}

impl Work {
    /// The commands of the kinds file and the built-in kinds, beside the handlers of the program.
    ///
    /// # Errors
    /// [`kinds::register`]'s.
    pub fn new(kinds: Kinds, program: &Registry, config: &Config) -> Result<Self, Error> {
        let mut registry = program.clone();
        kinds::register(&mut registry, &kinds, config)?;
        let served = registry.kinds().map(|kind| (kind.clone(), kinds.get(kind).max_running.unwrap_or(0))).collect();
        Ok(Self { kinds, registry, served })
    }

    /// Describes it to other processes.
    pub fn describe(&self, info: &mut WorkerInfo) {
        info.kinds = self.served.iter().map(|(kind, _)| kind.clone()).collect();
        info.kinds_digest = (!self.kinds.is_empty()).then(|| self.kinds.published().digest());
    }
}

/// When a loop last turned.
#[derive(Debug)]
pub(crate) struct Turned(Mutex<Instant>);

impl Turned {
    pub fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// The loop turns.
    pub fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago it last did.
    pub fn since(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Running {
    /// What this worker can run now.
    pub fn work(&self) -> Arc<Work> {
        self.work.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The kinds to claim now, each with its `max_running`. While the file store fails, those that are known to need it
    /// are left to other workers, and to the time when it works again.
    pub fn claimable<'a>(&self, work: &'a Work) -> Cow<'a, [(Kind, u32)]> {
        if self.store.files().and_then(FileStore::fault).is_none() {
            return Cow::Borrowed(&work.served);
        }
        let needing = self.needs_files.lock().unwrap_or_else(PoisonError::into_inner);
        Cow::Owned(work.served.iter().filter(|(kind, _)| !needing.contains(kind)).cloned().collect())
    }

    /// An attempt has failed because of the file store.
    pub fn lacked_files(&self, kind: &Kind) {
        if let Some(files) = self.store.files() {
            files.doubt();
        }
        self.needs_files.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.clone());
    }

    /// Lets the claim loop look at every partition.
    pub fn look_everywhere(&self) {
        (0..self.store.partitions()).for_each(|partition| self.tell_claimer(Event::Look(partition)));
    }

    /// Replaces what this worker can run, and lets the claim loop look for jobs of new kinds.
    pub fn set_work(&self, work: Work) {
        *self.work.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(work);
        self.look_everywhere();
    }

    /// Notifies the claim loop. Ignored once the loop has ended.
    pub fn tell_claimer(&self, event: Event) {
        drop(self.events.send(event));
    }
}
