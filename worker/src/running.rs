//! `Running`: what the roles of one worker share.
use std::sync::Arc;

use leasehold::{Config, Kind, Kinds, QueueName, Store, WorkerId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::report::Reporter;
use crate::event::Event;
use crate::handler::Registry;
use crate::lease::leases::Leases;
use crate::metrics::Metrics;
use crate::outage::RedisStatus;
use crate::shutdown::Shutdown;
use crate::slots::Slots;

/// What the roles of one worker share.
pub(crate) struct Running {
    pub store: Store,
    pub worker: WorkerId,
    pub config: Config,
    pub kinds: Kinds,
    pub registry: Registry,
    /// The kinds it serves, each with its `max_running`; 0 is no limit.
    pub served: Vec<(Kind, u32)>,
    pub queues: Vec<(QueueName, u32)>,
    pub leases: Arc<Leases>,
    pub slots: Arc<Slots>,
    pub reporter: Reporter,
    pub redis: Arc<RedisStatus>,
    pub metrics: Arc<Metrics>,
    /// The slots' tasks.
    pub tasks: TaskTracker,
    pub shutdown: Shutdown,
    /// No pop or claim is sent any more.
    pub claims_over: CancellationToken,
    /// The worker has ended, or its `run` was dropped.
    pub gone: CancellationToken,
    pub events: mpsc::UnboundedSender<Event>,
}

impl Running {
    /// Tells the claim loop; a worker that ends has none, and needs none.
    pub fn tell_claimer(&self, event: Event) {
        drop(self.events.send(event));
    }
}
