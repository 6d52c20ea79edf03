//! `Running`: the state that the roles of one worker share.
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

/// The state that the roles of one worker share.
pub(crate) struct Running {
    /// Every call to Redis goes through it. The lease thread and the probe have connections of their own.
    pub store: Store,
    /// This worker's id, new at each start: leases and reservations in Redis carry it.
    pub worker: WorkerId,
    pub config: Config,
    /// The defaults and limits of each kind, applied when an attempt starts and when it fails.
    pub kinds: Kinds,
    /// The handlers, by kind.
    pub registry: Registry,
    /// The kinds to claim, each with its `max_running`; 0 is no limit.
    pub served: Vec<(Kind, u32)>,
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
    /// To the claim loop.
    pub events: mpsc::UnboundedSender<Event>,
}

impl Running {
    /// Notifies the claim loop. Ignored once the loop has ended.
    pub fn tell_claimer(&self, event: Event) {
        drop(self.events.send(event));
    }
}
