//! The leases this worker holds: each job from its claim, before the handler starts, until its settle is answered. The
//! lease thread renews exactly these.
//!
//! There is one lock per partition, never held across an await, so the lease thread is never blocked by a handler.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use leasehold::store::{Held, Outcome, Renewal, Renewed, Settle};
use leasehold::{JobId, QueueName, limits};
use tokio::sync::Notify;

use super::audit::{Audit, Calls};
use crate::stop::{LEASE_GRACE, Stop, StopReason};

/// A claimed job whose lease is to be kept.
pub(crate) struct NewLease {
    pub held: Held,
    pub queue: QueueName,
    /// When its claim was sent. The lease in Redis began no earlier.
    pub claimed_at: Instant,
    /// When the handler reaches its timeout.
    pub deadline: Option<Instant>,
    /// The handler is stopped before the lease expires by the local clock: its kind must never run twice at once.
    pub exclusive: bool,
    /// Stops the handler.
    pub stop: Arc<Stop>,
}

/// One lease in hand.
struct Lease {
    job: NewLease,
    /// When the claim, or the last renewal that was answered, was sent. The lease in Redis expires no earlier than this
    /// plus the lease time.
    renewed_at: Instant,
    /// When the handler ended. The lease is renewed for one more lease time, since the settle may still be in flight.
    ended_at: Option<Instant>,
    /// No longer renewed: another worker has the job, or the lease is left to expire.
    abandoned: bool,
}

/// Why a claimed job must not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdded {
    /// The claim took too long: release it.
    Late,
    /// A handler runs under this token already, and the lease is that handler's.
    Running,
}

/// The state of one partition.
#[derive(Default)]
struct Partition {
    /// Keyed by id and token, so that a late answer about an old lease cannot affect a newer one of the same job.
    leases: HashMap<Held, Lease>,
    /// Open pops and claims: they may still lease what the renewals report as reserved.
    calls: Calls,
    /// Finds reservations that nobody will claim.
    audit: Audit,
    /// When the last answered renewal was sent. Nothing is claimed while this is too old.
    renewed_at: Option<Instant>,
    /// When a pop or claim was last dropped without an answer. Redis may run it later, so a worker that ends soon after
    /// must stay registered.
    lost_call_at: Option<Instant>,
    /// The highest token that Redis has reported. Sent with each claim and renewal, so that no token is issued twice,
    /// even after Redis has lost its last writes.
    highest_token: u64,
    /// Cancels that arrived before the reply of the claim they are about.
    early_cancels: Vec<(Held, Instant)>,
}

/// All leases of this worker, by partition.
pub(crate) struct Leases {
    /// How long a lease lasts in Redis.
    lease_time: Duration,
    /// Locked separately, so that partitions do not wait for each other.
    partitions: Vec<Mutex<Partition>>,
    /// By partition: the next renewal, and with it an audit, is wanted now.
    renew_now: Vec<Notify>,
    /// When the lease thread last enforced deadlines. `/livez` fails when this is too long ago.
    checked_at: Mutex<Instant>,
}

impl Leases {
    pub fn new(lease_time: Duration) -> Arc<Self> {
        // Partitions may be added: there is room for all that there can be.
        let renew_now = (0..limits::PARTITIONS_MAX).map(|_| Notify::new()).collect();
        let partitions = (0..limits::PARTITIONS_MAX).map(|_| Mutex::default()).collect();
        Arc::new(Self { lease_time, partitions, renew_now, checked_at: Mutex::new(Instant::now()) })
    }

    pub fn lease_time(&self) -> Duration {
        self.lease_time
    }

    fn lock(&self, partition: u16) -> MutexGuard<'_, Partition> {
        self.partitions[usize::from(partition)].lock().expect("lock not poisoned")
    }

    /// Adds the lease of a claimed job.
    ///
    /// # Errors
    /// Why the job must not be started.
    pub fn add(self: &Arc<Self>, partition: u16, job: NewLease) -> Result<LeaseGuard, NotAdded> {
        let mut state = self.lock(partition);
        state.highest_token = state.highest_token.max(job.held.token);
        // Two handlers under one token could not be told apart, by the audit nor by a settle.
        if state.leases.contains_key(&job.held) {
            return Err(NotAdded::Running);
        }
        if job.claimed_at.elapsed() > self.lease_time / 2 {
            return Err(NotAdded::Late);
        }
        let held = job.held.clone();
        if state.early_cancels.iter().any(|(cancelled, _)| *cancelled == held) {
            job.stop.request(StopReason::Cancel);
        }
        let lease = Lease { renewed_at: job.claimed_at, ended_at: None, abandoned: false, job };
        state.leases.insert(held.clone(), lease);
        Ok(LeaseGuard { leases: Arc::clone(self), partition, held })
    }

    /// Call before sending a pop or a claim; keep the result until the jobs it brings have been added.
    pub fn begin_call(self: &Arc<Self>, partition: u16) -> Call {
        let number = self.lock(partition).calls.begin(Instant::now());
        Call { leases: Arc::clone(self), partition, number, began: Instant::now() }
    }

    /// Whether the partition's last renewal is recent enough to claim more jobs.
    pub fn is_fresh(&self, partition: u16) -> bool {
        self.lock(partition).renewed_at.is_some_and(|at| at.elapsed() < self.lease_time / 2)
    }

    /// The highest token of the partition that Redis has reported; 0: none.
    pub fn highest_token(&self, partition: u16) -> u64 {
        self.lock(partition).highest_token
    }

    /// The leases that the next renewal names.
    pub fn to_renew(&self, partition: u16) -> Vec<Held> {
        let state = self.lock(partition);
        let may_settle = |lease: &Lease| lease.ended_at.is_none_or(|at| at.elapsed() < self.lease_time);
        let renewed = state.leases.iter().filter(|(_, lease)| !lease.abandoned && may_settle(lease));
        renewed.map(|(held, _)| held.clone()).collect()
    }

    /// Applies the answer of a renewal, sent at `sent` for `named`. Returns the reservations to recover.
    pub fn renewed(&self, partition: u16, sent: Instant, named: &[Held], renewed: &Renewed) -> Vec<JobId> {
        let mut state = self.lock(partition);
        for (held, answer) in named.iter().zip(&renewed.answers) {
            let Some(lease) = state.leases.get_mut(held) else { continue };
            match answer {
                Renewal::Renewed => lease.renewed_at = sent,
                Renewal::Cancel => {
                    lease.renewed_at = sent;
                    lease.job.stop.request(StopReason::Cancel);
                }
                Renewal::Stale | Renewal::Missing => lease.abandon(),
            }
        }
        state.renewed_at = Some(sent);
        let Partition { calls, audit, .. } = &mut *state;
        audit.check(&renewed.reserved, calls, Instant::now(), self.lease_time / 2)
    }

    /// Whether the audit has marked reservations and needs a second look.
    pub fn has_marks(&self, partition: u16) -> bool {
        self.lock(partition).audit.has_marks()
    }

    /// Stops the handler of a job whose cancel was requested.
    pub fn cancel(&self, partition: u16, held: &Held) {
        let mut state = self.lock(partition);
        match state.leases.get(held) {
            Some(lease) => lease.job.stop.request(StopReason::Cancel),
            None => {
                state.early_cancels.retain(|(_, at)| at.elapsed() < self.lease_time / 2);
                if state.early_cancels.len() < limits::SLOTS_MAX {
                    state.early_cancels.push((held.clone(), Instant::now()));
                }
            }
        }
    }

    /// Requests every handler to stop.
    pub fn stop_all(&self, reason: StopReason) {
        self.for_each(|lease| lease.job.stop.request(reason));
    }

    /// Stops handlers that are past their deadline, independently of the threads they run on. Returns the number of
    /// handlers still running long after they were requested to stop; their leases are no longer renewed.
    pub fn enforce_deadlines(&self) -> usize {
        let (now, mut unresponsive) = (Instant::now(), 0);
        *self.checked_at.lock().expect("lock not poisoned") = now;
        self.for_each(|lease| {
            if lease.ended_at.is_some() {
                return;
            }
            if lease.job.deadline.is_some_and(|deadline| now >= deadline) {
                lease.job.stop.request(StopReason::Timeout);
            }
            if lease.job.exclusive && now.duration_since(lease.renewed_at) > self.lease_time * 9 / 10 {
                lease.abandon();
            }
            if lease.job.stop.requested_at().is_some_and(|at| now.duration_since(at) > LEASE_GRACE) {
                lease.abandon();
                unresponsive += 1;
            }
        });
        unresponsive
    }

    /// Time since [`Leases::enforce_deadlines`] was last called. The lease thread calls it several times a second.
    pub fn since_last_check(&self) -> Duration {
        self.checked_at.lock().expect("lock not poisoned").elapsed()
    }

    fn for_each(&self, mut apply: impl FnMut(&mut Lease)) {
        for partition in &self.partitions {
            partition.lock().expect("lock not poisoned").leases.values_mut().for_each(&mut apply);
        }
    }

    /// The number of running jobs, by queue.
    pub fn running(&self) -> BTreeMap<QueueName, u64> {
        let mut running = BTreeMap::new();
        self.for_each(|lease| *running.entry(lease.job.queue.clone()).or_default() += 1);
        running
    }

    /// The number of leases in hand.
    pub fn count(&self) -> usize {
        let mut count = 0;
        self.for_each(|_| count += 1);
        count
    }

    /// Leases whose handlers are still running.
    pub fn unfinished(&self) -> Vec<Held> {
        let mut unfinished = Vec::new();
        self.for_each(|lease| {
            if lease.ended_at.is_none() && !lease.abandoned {
                unfinished.push(lease.job.held.clone());
            }
        });
        unfinished
    }

    /// Requests a renewal, and with it an audit, at once.
    pub fn request_renewal(&self, partition: u16) {
        self.renew_now[usize::from(partition)].notify_one();
    }

    /// Waits for [`Leases::request_renewal`].
    pub async fn renewal_requested(&self, partition: u16) {
        self.renew_now[usize::from(partition)].notified().await;
    }

    /// Whether a pop or claim was dropped within this time, so that Redis may still run it.
    pub fn lost_a_call_within(&self, age: Duration) -> bool {
        let lost = |partition: &Partition| partition.lost_call_at.is_some_and(|at| at.elapsed() < age);
        self.partitions.iter().any(|partition| lost(&partition.lock().expect("lock not poisoned")))
    }
}

impl Lease {
    /// Renews it no more, and stops its handler.
    fn abandon(&mut self) {
        self.abandoned = true;
        if self.ended_at.is_none() {
            self.job.stop.request(StopReason::Lost);
        }
    }
}

/// Keeps one lease renewed until it is dropped.
pub(crate) struct LeaseGuard {
    leases: Arc<Leases>,
    partition: u16,
    held: Held,
}

impl LeaseGuard {
    /// The handler has ended. The lease is renewed for one more lease time, so that the settle is not refused.
    pub fn handler_ended(&self) {
        if let Some(lease) = self.leases.lock(self.partition).leases.get_mut(&self.held) {
            lease.ended_at = Some(Instant::now());
        }
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.leases.lock(self.partition).leases.remove(&self.held);
    }
}

/// An open pop or claim. Dropping it means that it was answered, or abandoned.
pub(crate) struct Call {
    leases: Arc<Leases>,
    partition: u16,
    number: u64,
    began: Instant,
}

impl Call {
    /// Whether it is so old that the audit no longer waits for it. The audit then recovers what it brings.
    pub fn is_overdue(&self) -> bool {
        self.began.elapsed() > self.leases.lease_time / 2
    }

    /// It was abandoned without an answer. Requests a renewal, so that the audit soon finds what it may have claimed.
    pub fn lost(self) {
        self.leases.lock(self.partition).lost_call_at = Some(Instant::now());
        let (leases, partition) = (Arc::clone(&self.leases), self.partition);
        drop(self);
        leases.request_renewal(partition);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.leases.lock(self.partition).calls.end(self.number);
    }
}

/// The settle that releases a lease: the job returns to its queue without delay.
pub(crate) fn release(held: Held) -> Settle {
    Settle { held, outcome: Outcome::Release { delay_ms: None } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(token: u64) -> (NewLease, Arc<Stop>) {
        let stop = Arc::new(Stop::default());
        let held = Held { partition: 0, id: JobId::parse("a").unwrap(), token };
        let (queue, claimed_at) = (QueueName::parse("default").unwrap(), Instant::now());
        let job = NewLease { held, queue, claimed_at, deadline: None, exclusive: false, stop: Arc::clone(&stop) };
        (job, stop)
    }

    #[test]
    fn a_second_handler_under_one_token_is_refused_and_changes_nothing_for_the_first() {
        let leases = Leases::new(Duration::from_secs(30));
        let (first, stop) = lease(7);
        let held = first.held.clone();
        let guard = leases.add(0, first).expect("it is new");
        let (second, other) = lease(7);
        assert_eq!(leases.add(0, second).err(), Some(NotAdded::Running));
        assert_eq!(leases.to_renew(0).len(), 1, "the first is still renewed");
        leases.cancel(0, &held);
        assert_eq!((stop.reason(), other.reason()), (Some(StopReason::Cancel), None));
        drop(guard);
        assert_eq!(leases.count(), 0);
    }

    #[test]
    fn the_highest_token_seen_is_kept_after_its_lease_has_ended() {
        let leases = Leases::new(Duration::from_secs(30));
        assert_eq!(leases.highest_token(0), 0);
        drop(leases.add(0, lease(9).0));
        drop(leases.add(0, lease(7).0));
        assert_eq!((leases.highest_token(0), leases.highest_token(1)), (9, 0));
    }
}
