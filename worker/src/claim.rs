//! The claim loop: claims as many jobs as there are free slots, with the claim script while there is work and with
//! blocking pops while there is none.
//!
//! The script handles priorities, weights, suspects and parked jobs, and fills all free slots in one round trip, but
//! polling it would load an idle Redis and delay jobs by the polling interval. A blocking pop costs nothing while it
//! waits and returns within a millisecond, but watches a single list, and the job it moves is only a reservation until
//! the script leases it.
mod budget;
mod partition;
mod pops;

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold::store::{ClaimRequest, Claimed};
use leasehold::{Error, QueueName, limits};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::attempt::Attempt;
use crate::event::{Event, Popped};
use crate::lease::leases::Call;
use crate::outage::is_outage;
use crate::running::Running;
use budget::Budgets;
use partition::Partition;
use pops::{List, Pops};

/// How often a list without a pop is looked at.
const PASS_EVERY: Duration = Duration::from_millis(500);
/// How often the claim script is called while Redis refuses pops, because it is out of memory or a queue's key is not a
/// list.
const FULL_EVERY: Duration = Duration::from_secs(1);
/// How often a paused queue is checked without a hint.
const PAUSED_EVERY: Duration = Duration::from_secs(5);
/// How often a partition without fresh renewals is checked without an event from the lease thread.
const STALE_EVERY: Duration = Duration::from_secs(1);
/// How long a shutdown waits for its pops to return before it drops their connections: longer than a pop blocks, since
/// over a slow link the call that unblocks them may first need a connection.
const UNBLOCK_WITHIN: Duration = Duration::from_millis(limits::POP_MS_MAX + 500);

/// The claim loop of one worker.
pub(crate) struct Claimer {
    running: Arc<Running>,
    /// Results of pops, and hints from the lease thread. One channel, so that they are handled in order.
    events: UnboundedReceiver<Event>,
    pops: Pops,
    /// Kept from call to call, so that the queues' shares come out right with a single free slot too.
    budgets: Budgets,
    partitions: Vec<Partition>,
    /// Where the search for a due partition continues, so that none is starved.
    turn: usize,
    /// No slot was free at the last check, so the pops have been unblocked; avoids doing so again at every event.
    was_full: bool,
}

impl Claimer {
    pub fn new(running: Arc<Running>, events: UnboundedReceiver<Event>) -> Self {
        let wait = Duration::from_millis(limits::POP_MS_MAX.min(running.config.lease_ms / 3));
        Self {
            pops: Pops::new(Arc::clone(&running), running.events.clone(), wait),
            budgets: Budgets::new(&running.queues),
            partitions: Vec::new(),
            turn: 0,
            was_full: false,
            events,
            running,
        }
    }

    /// Claims until the shutdown begins. When it returns, no pop is armed, and unclaimed reservations are back in their
    /// queues.
    pub async fn run(mut self) {
        let running = Arc::clone(&self.running);
        while !running.shutdown.begun.is_cancelled() {
            running.turned.now();
            self.serve_all();
            while let Ok(event) = self.events.try_recv() {
                self.handle(event);
            }
            self.update_due();
            if let Some(partition) = self.next_due() {
                self.claim(partition).await;
                continue;
            }
            if self.look().await {
                continue;
            }
            self.update_pops();
            let next = self.next_time();
            tokio::select! {
                biased;
                () = running.shutdown.begun.cancelled() => {}
                event = self.events.recv() => if let Some(event) = event { self.handle(event) },
                // Other tasks that can run now may free more: one claim for all of them.
                () = running.slots.freed() => tokio::task::yield_now().await,
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
        self.shut_down().await;
    }

    /// Serves every partition: their number may have grown.
    fn serve_all(&mut self) {
        let partitions = self.running.store.partitions();
        self.partitions.resize_with(usize::from(partitions).max(self.partitions.len()), Partition::new);
        self.pops.add_lists(partitions);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Popped(popped) => self.handle_popped(popped),
            Event::Look(partition) => {
                // A new partition is due when it is added.
                if let Some(share) = self.partitions.get_mut(usize::from(partition)) {
                    share.due = true;
                }
            }
            Event::Resumed(queue) => self.set_paused(&queue, false),
            Event::Paused(queue) => self.set_paused(&queue, true),
        }
    }

    fn handle_popped(&mut self, mut popped: Popped) {
        self.pops.disarm(&mut popped);
        let list = &mut self.pops.lists[popped.list];
        let share = &mut self.partitions[usize::from(list.partition)];
        match popped.answer {
            Ok(reserved) => {
                self.running.redis.answered_in(Some(list.partition));
                share.backoff.reset();
                match reserved {
                    Some(reservation) => share.reserved.push((reservation, popped.call)),
                    None => share.look = true,
                }
            }
            Err(Error::Full(reason)) => {
                tracing::debug!("a pop was refused: {reason}");
                share.due = true;
                list.not_before = Instant::now() + FULL_EVERY;
            }
            Err(e) => {
                // Outages are detected by the renewals: a pop also fails after the process has been suspended for a
                // while.
                list.not_before = Instant::now() + share.backoff.delay();
                if !is_outage(&e) {
                    self.running.redis.failed_in(Some(list.partition), "waiting for jobs", &e);
                    // The claim script sets aside what a pop cannot read.
                    share.due = true;
                    list.not_before = Instant::now() + FULL_EVERY;
                }
                if matches!(e, Error::OutcomeUnknown(_)) {
                    popped.call.lost();
                }
            }
        }
    }

    fn set_paused(&mut self, queue: &QueueName, paused: bool) {
        for list in self.pops.lists.iter_mut().filter(|list| list.queue == *queue) {
            list.paused = paused;
            self.partitions[usize::from(list.partition)].due = true;
        }
    }

    /// Marks the partitions due whose time has come, or in which a freed slot may let a held-back job run.
    fn update_due(&mut self) {
        let now = Instant::now();
        for (partition, share) in (0..).zip(&mut self.partitions) {
            if share.look_at.is_some_and(|at| at <= now) {
                (share.look, share.look_at) = (true, None);
            }
            share.due |= self.running.slots.look_again(partition);
        }
    }

    /// The slots to claim for; none while there is no kind to claim.
    fn free(&self) -> usize {
        if self.running.work().served.is_empty() { 0 } else { self.running.slots.free() }
    }

    /// The next partition to claim from, in turn. Reservations are passed to the script even without a free slot: it
    /// returns them to their queues.
    fn next_due(&mut self) -> Option<u16> {
        let (now, count) = (Instant::now(), self.partitions.len());
        let free = self.free();
        let is_due = |at: &usize| {
            let (share, partition) = (&self.partitions[*at], u16::try_from(*at).expect("partitions are u16"));
            (share.due && free > 0 || !share.reserved.is_empty() || share.unanswered.is_some())
                && share.not_before <= now
                && self.running.leases.is_fresh(partition)
        };
        let at = (0..count).map(|step| (self.turn + step) % count).find(is_due)?;
        self.turn = at + 1;
        u16::try_from(at).ok()
    }

    /// Looks, in one call, whether jobs wait in the partitions in which that is wanted. Returns whether any is due now.
    async fn look(&mut self) -> bool {
        let (now, running) = (Instant::now(), Arc::clone(&self.running));
        if self.free() == 0 {
            return false;
        }
        let wants = |(partition, share): &(u16, &mut Partition)| {
            share.look && !share.due && share.not_before <= now && running.leases.is_fresh(*partition)
        };
        let shares: Vec<_> = (0..).zip(&mut self.partitions).filter(wants).collect();
        if shares.is_empty() {
            return false;
        }
        let partitions: Vec<u16> = shares.iter().map(|(partition, _)| *partition).collect();
        for ((partition, share), found) in
            shares.into_iter().zip(running.store.waiting(&partitions, &running.queues).await)
        {
            match found {
                Ok(found) => {
                    // Only a claim reports that a queue was resumed.
                    let paused = self.pops.lists.iter().any(|list| list.partition == partition && list.paused);
                    (share.look, share.due) = (false, found || paused);
                }
                Err(e) => {
                    running.redis.failed_in(Some(partition), "looking for jobs", &e);
                    share.not_before = now + share.backoff.delay();
                }
            }
        }
        self.partitions.iter().any(|share| share.due)
    }

    async fn claim(&mut self, partition: u16) {
        let running = Arc::clone(&self.running);
        let (share, work) = (usize::from(partition), running.work());
        let slots = running.slots.free().min(self.partitions[share].most);
        // A claim that is sent again leases what it reserved the first time.
        let reserved = match self.partitions[share].unanswered {
            None => std::mem::take(&mut self.partitions[share].reserved),
            Some(_) => Vec::new(),
        };
        let reserved = reserved.into_iter();
        let (reservations, mut calls): (Vec<_>, Vec<_>) = reserved.filter(|(_, call)| !call.is_overdue()).unzip();
        let (number, sent) = self.partitions[share].next_claim();
        let request = ClaimRequest {
            worker: &running.worker,
            number,
            lease_ms: running.config.lease_ms,
            slots,
            suspects: 1_usize.saturating_sub(running.slots.suspects()),
            seen: running.leases.highest_token(partition),
            reservations: &reservations,
            queues: &self.budgets.share(slots),
            kinds: &running.claimable(&work),
        };
        calls.push(running.leases.begin_call(partition));
        match running.store.claim(partition, &request).await {
            Ok(claimed) => {
                running.redis.answered_in(Some(partition));
                self.partitions[share].backoff.reset();
                self.partitions[share].unanswered = None;
                if sent.elapsed() < Duration::from_millis(running.config.redis.response_ms / 4) {
                    self.partitions[share].most = (self.partitions[share].most * 2).min(limits::SLOTS_MAX);
                }
                self.start_claimed(partition, slots, sent, claimed);
                // The handlers begin before the next pops are armed.
                tokio::task::yield_now().await;
            }
            Err(e) => {
                running.redis.failed_in(Some(partition), "claiming jobs", &e);
                let share = &mut self.partitions[share];
                (share.due, share.not_before) = (true, Instant::now() + share.backoff.delay());
                if matches!(e, Error::OutcomeUnknown(_)) {
                    share.most = (slots / 2).max(1);
                }
                let may_have_run = !matches!(e, Error::Unavailable(_));
                share.claim_failed(sent, may_have_run);
                if may_have_run {
                    calls.into_iter().for_each(Call::lost);
                } else {
                    // The call was not sent, so the reservations are still valid.
                    share.reserved.extend(reservations.into_iter().zip(calls));
                }
            }
        }
    }

    fn start_claimed(&mut self, partition: u16, slots: usize, sent: Instant, claimed: Claimed) {
        let share = &mut self.partitions[usize::from(partition)];
        let filled = claimed.jobs.len() >= slots;
        // A full worker has no pops armed, so it must call the script again once a slot is free.
        share.due = claimed.more || filled;
        for list in self.pops.lists.iter_mut().filter(|list| list.partition == partition) {
            list.paused = claimed.paused.contains(&list.queue);
        }
        if !claimed.paused.is_empty() {
            share.look_by(Instant::now() + PAUSED_EVERY);
        }
        let work = self.running.work();
        for job in claimed.jobs {
            self.running.metrics.claimed(&job);
            let limited = work.kinds.get(&job.kind).max_running.is_some();
            let slot = self.running.slots.take(partition, job.crashes > 0, limited);
            Attempt::start(&self.running, job, slot, sent);
        }
    }

    /// Arms pops while slots are free, and unblocks them while none is, or there is no kind to claim.
    fn update_pops(&mut self) {
        let running = Arc::clone(&self.running);
        let (now, free) = (Instant::now(), self.free());
        if free == 0 {
            if !std::mem::replace(&mut self.was_full, true) {
                // If one still returns a reservation, the script returns it to its queue.
                self.unblock(|_| true);
            }
            self.partitions.iter_mut().for_each(|share| share.look_by(now + PASS_EVERY));
            return;
        }
        self.was_full = false;
        let partitions = &self.partitions;
        let open = free.saturating_sub(self.pops.armed());
        let without = self.pops.arm(open, |list| {
            let share = &partitions[usize::from(list.partition)];
            list.not_before <= now && share.not_before <= now && !share.due && running.leases.is_fresh(list.partition)
        });
        without.into_iter().for_each(|partition| self.partitions[usize::from(partition)].look_by(now + PASS_EVERY));
        self.unblock(|list| list.paused);
    }

    /// Unblocks the pops on the lists that `which` selects; does not wait, since Redis may be unavailable.
    fn unblock(&self, which: impl Fn(&List) -> bool) {
        let (store, armed) = (self.running.store.clone(), self.pops.connections(which));
        if !armed.is_empty() {
            tokio::spawn(async move { drop(store.unblock(&armed).await) });
        }
    }

    /// When something becomes due without an event.
    fn next_time(&self) -> Instant {
        let now = Instant::now();
        let mut next = now + STALE_EVERY;
        for share in &self.partitions {
            next = share.look_at.map_or(next, |at| next.min(at));
            if share.not_before > now {
                next = next.min(share.not_before);
            }
        }
        let resting = self.pops.lists.iter().map(|list| list.not_before).filter(|at| *at > now);
        resting.fold(next, Instant::min)
    }

    /// Ends all pops, and returns their reservations to the queues.
    async fn shut_down(mut self) {
        let (running, end) = (Arc::clone(&self.running), Instant::now() + UNBLOCK_WITHIN);
        while self.pops.armed() > 0 && Instant::now() < end {
            // Repeated for pops that had not reached Redis at the last try.
            self.unblock(|_| true);
            let wait = Duration::from_millis(100);
            while let Ok(Some(event)) = tokio::time::timeout(wait, self.events.recv()).await {
                self.handle(event);
                if self.pops.armed() == 0 {
                    break;
                }
            }
        }
        if self.pops.abort_all() > 0 {
            running.leases.begin_call(0).lost();
        }
        for partition in 0..u16::try_from(self.partitions.len()).expect("partitions are u16") {
            if self.partitions[usize::from(partition)].unanswered.is_some() && Instant::now() < end {
                // What it brings is released at once.
                self.claim(partition).await;
            }
        }
        for (partition, share) in (0..).zip(self.partitions) {
            let (reserved, calls): (Vec<_>, Vec<_>) = share.reserved.into_iter().unzip();
            let ids: Vec<_> = reserved.into_iter().map(|reservation| reservation.id).collect();
            if !ids.is_empty() && running.store.recover(partition, &running.worker, &ids).await.is_err() {
                calls.into_iter().for_each(Call::lost);
            }
        }
    }
}
