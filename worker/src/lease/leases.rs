//! What this worker holds: from the intake, before a handler starts, until its settle is answered. The lease thread renews
//! what stands here and nothing else.
//!
//! All of it is guarded by one lock a partition, never held over an await, so that the lease thread waits for nobody.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use leasehold::store::{Held, Outcome, Renewal, Renewed, Settle};
use leasehold::{QueueName, limits};
use tokio::sync::Notify;

use super::audit::{Audit, Calls, Entry};
use crate::stop::{LEASE_GRACE, Stop, StopReason};

/// What is to be held.
pub(crate) struct Intake {
    pub held: Held,
    pub queue: QueueName,
    /// When the claim that brought it was sent.
    pub claimed_at: Instant,
    /// When its handler will have run too long.
    pub deadline: Option<Instant>,
    /// Its kind's handlers are cancelled when the lease has run out by the local clock.
    pub exclusive: bool,
    pub stop: Arc<Stop>,
}

struct Hold {
    intake: Intake,
    /// When the last renewal that was answered, or the claim, was sent.
    renewed_at: Instant,
    /// When the handler ended; its settle may still be on its way.
    ended_at: Option<Instant>,
    /// Somebody else's by now, or left to the reclaim: no longer renewed.
    let_go: bool,
}

#[derive(Default)]
struct Share {
    holds: HashMap<Held, Hold>,
    calls: Calls,
    audit: Audit,
    renewed_at: Option<Instant>,
    /// When a call that may bring a job was last given up without an answer.
    lost_call_at: Option<Instant>,
    /// Cancels that overtook the answer of the claim.
    early_cancels: Vec<(Held, Instant)>,
}

/// Everything this worker holds.
pub(crate) struct Holds {
    lease: Duration,
    shares: Vec<Mutex<Share>>,
    beat_now: Vec<Notify>,
    watched_at: Mutex<Instant>,
}

impl Holds {
    pub fn new(lease: Duration, partitions: u16) -> Arc<Self> {
        let shares = (0..partitions).map(|_| Mutex::default()).collect();
        let beat_now = (0..partitions).map(|_| Notify::new()).collect();
        Arc::new(Self { lease, shares, beat_now, watched_at: Mutex::new(Instant::now()) })
    }

    pub fn lease(&self) -> Duration {
        self.lease
    }

    fn share(&self, partition: u16) -> MutexGuard<'_, Share> {
        self.shares[usize::from(partition)].lock().expect("nobody panics with it")
    }

    /// Takes a claimed job in. `None`: its claim took too long, or it was given back since; it must not be started.
    pub fn take_in(self: &Arc<Self>, partition: u16, intake: Intake) -> Option<Holding> {
        let mut share = self.share(partition);
        let entry = (intake.held.id.clone(), Some(intake.held.token));
        if intake.claimed_at.elapsed() > self.lease / 2 || share.audit.gave_back(&entry) {
            return None;
        }
        let held = intake.held.clone();
        if share.early_cancels.iter().any(|(cancelled, _)| *cancelled == held) {
            intake.stop.ask(StopReason::Cancel);
        }
        let hold = Hold { renewed_at: intake.claimed_at, ended_at: None, let_go: false, intake };
        share.holds.insert(held.clone(), hold);
        Some(Holding { holds: Arc::clone(self), partition, held })
    }

    /// To be called before a pop or a claim is sent, and kept until what it brought is held.
    pub fn begin_call(self: &Arc<Self>, partition: u16) -> Call {
        let number = self.share(partition).calls.begin(Instant::now());
        Call { holds: Arc::clone(self), partition, number, began: Instant::now() }
    }

    /// Whether the partition's renewals are young enough to take more jobs.
    pub fn is_fresh(&self, partition: u16) -> bool {
        self.share(partition).renewed_at.is_some_and(|at| at.elapsed() < self.lease / 2)
    }

    /// What the next renewal names.
    pub fn to_renew(&self, partition: u16) -> Vec<Held> {
        let share = self.share(partition);
        let settled_in_time = |hold: &Hold| hold.ended_at.is_none_or(|at| at.elapsed() < self.lease);
        let named = share.holds.iter().filter(|(_, hold)| !hold.let_go && settled_in_time(hold));
        named.map(|(held, _)| held.clone()).collect()
    }

    /// Takes in a renewal's answer, sent at `sent` for `named`; returns what is to be given back.
    pub fn renewed(&self, partition: u16, sent: Instant, named: &[Held], renewed: &Renewed) -> Vec<Entry> {
        let mut share = self.share(partition);
        for (held, answer) in named.iter().zip(&renewed.answers) {
            let Some(hold) = share.holds.get_mut(held) else { continue };
            match answer {
                Renewal::Renewed => hold.renewed_at = sent,
                Renewal::Cancel => {
                    hold.renewed_at = sent;
                    hold.intake.stop.ask(StopReason::Cancel);
                }
                Renewal::Stale | Renewal::Missing => hold.lose(),
            }
        }
        share.renewed_at = Some(sent);
        let Share { holds, calls, audit, .. } = &mut *share;
        let held = |(id, token): &Entry| token.is_some_and(|token| holds.contains_key(&Held { id: id.clone(), token }));
        audit.look(&renewed.claimed, held, calls, Instant::now(), self.lease / 2)
    }

    /// Whether the audit waits for a second look.
    pub fn suspects_any(&self, partition: u16) -> bool {
        self.share(partition).audit.suspects_any()
    }

    /// Tells the holder of a lease that its cancel was asked.
    pub fn cancel(&self, partition: u16, held: &Held) {
        let mut share = self.share(partition);
        match share.holds.get(held) {
            Some(hold) => hold.intake.stop.ask(StopReason::Cancel),
            None => {
                share.early_cancels.retain(|(_, at)| at.elapsed() < self.lease / 2);
                if share.early_cancels.len() < limits::SLOTS_MAX {
                    share.early_cancels.push((held.clone(), Instant::now()));
                }
            }
        }
    }

    /// Tells every handler to stop.
    pub fn stop_all(&self, reason: StopReason) {
        self.each(|hold| hold.intake.stop.ask(reason));
    }

    /// Holds each handler to its time, whatever the threads it runs on are doing. Returns how many have not stopped long
    /// after they were told to; their leases are let run out.
    pub fn watch(&self) -> usize {
        let (now, mut deaf) = (Instant::now(), 0);
        *self.watched_at.lock().expect("nobody panics with it") = now;
        self.each(|hold| {
            if hold.ended_at.is_some() {
                return;
            }
            if hold.intake.deadline.is_some_and(|deadline| now >= deadline) {
                hold.intake.stop.ask(StopReason::Timeout);
            }
            if hold.intake.exclusive && now.duration_since(hold.renewed_at) > self.lease * 9 / 10 {
                hold.lose();
            }
            if hold.intake.stop.asked_at().is_some_and(|at| now.duration_since(at) > LEASE_GRACE) {
                hold.lose();
                deaf += 1;
            }
        });
        deaf
    }

    /// How long ago [`Holds::watch`] was last called: a lease thread that lives does so several times a second.
    pub fn unwatched(&self) -> Duration {
        self.watched_at.lock().expect("nobody panics with it").elapsed()
    }

    fn each(&self, mut look: impl FnMut(&mut Hold)) {
        for share in &self.shares {
            share.lock().expect("nobody panics with it").holds.values_mut().for_each(&mut look);
        }
    }

    /// Jobs that run, by queue.
    pub fn running(&self) -> BTreeMap<QueueName, u64> {
        let mut running = BTreeMap::new();
        self.each(|hold| *running.entry(hold.intake.queue.clone()).or_default() += 1);
        running
    }

    /// How many jobs are held.
    pub fn count(&self) -> usize {
        let mut count = 0;
        self.each(|_| count += 1);
        count
    }

    /// Leases whose handlers have not ended.
    pub fn unended(&self) -> Vec<Held> {
        let mut unended = Vec::new();
        self.each(|hold| {
            if hold.ended_at.is_none() && !hold.let_go {
                unended.push(hold.intake.held.clone());
            }
        });
        unended
    }

    /// Returns when the partition's next renewal is not to wait for its time.
    pub async fn beat_now(&self, partition: u16) {
        self.beat_now[usize::from(partition)].notified().await;
    }

    /// Asks for a renewal, and so an audit, at once.
    pub fn hurry(&self, partition: u16) {
        self.beat_now[usize::from(partition)].notify_one();
    }

    /// Whether a pop or claim may still reach Redis after its sender has given it up.
    pub fn lost_a_call_within(&self, age: Duration) -> bool {
        let lost = |share: &Share| share.lost_call_at.is_some_and(|at| at.elapsed() < age);
        self.shares.iter().any(|share| lost(&share.lock().expect("nobody panics with it")))
    }
}

impl Hold {
    fn lose(&mut self) {
        self.let_go = true;
        if self.ended_at.is_none() {
            self.intake.stop.ask(StopReason::Lost);
        }
    }
}

/// One held job; dropping it ends the hold.
pub(crate) struct Holding {
    holds: Arc<Holds>,
    partition: u16,
    held: Held,
}

impl Holding {
    /// The handler is gone; for one lease the job is still renewed, so that its settle finds it.
    pub fn handler_ended(&self) {
        if let Some(hold) = self.holds.share(self.partition).holds.get_mut(&self.held) {
            hold.ended_at = Some(Instant::now());
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.holds.share(self.partition).holds.remove(&self.held);
    }
}

/// An open pop or claim; dropping it says that it was answered, or given up.
pub(crate) struct Call {
    holds: Arc<Holds>,
    partition: u16,
    number: u64,
    began: Instant,
}

impl Call {
    /// Whether it is so old that the audit no longer waits for it: what it brought is to be left to the audit.
    pub fn is_overdue(&self) -> bool {
        self.began.elapsed() > self.holds.lease / 2
    }

    /// It was given up without an answer: what it took must be found soon.
    pub fn lost(self) {
        self.holds.share(self.partition).lost_call_at = Some(Instant::now());
        let (holds, partition) = (Arc::clone(&self.holds), self.partition);
        drop(self);
        holds.hurry(partition);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.holds.share(self.partition).calls.end(self.number);
    }
}

/// The settle that gives a lease back at once.
pub(crate) fn release(held: Held) -> Settle {
    Settle { held, outcome: Outcome::Release { delay_ms: None } }
}
