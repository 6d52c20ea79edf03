//! The scripts of sweepers, operators and cancelling clients.

use super::CRASHES_MAX;
use super::job::{Place, Verb};
use super::state::{Life, Read, State, Worker};
use crate::guard::{Guard, Guards};

impl State {
    /// recover.lua: a reservation goes back to its queue.
    pub fn recover(&mut self, guards: Guards, worker: usize, job: usize) {
        if self.claimed[worker][job] == 0 {
            return;
        }
        self.drop_claimed(worker, job);
        let queued = self.jobs[job].place == Place::Queued;
        if queued || !guards.on(Guard::QueuedRecover) {
            self.queue[job] += 1;
        }
        if !queued && !guards.on(Guard::QueuedRecover) {
            self.move_to(job, Verb::Promote, Place::Queued);
        }
    }

    /// Whether nobody renews this lease any more.
    pub fn is_abandoned(&self, guards: Guards, job: usize) -> bool {
        self.jobs[job].lease.is_some_and(|lease| {
            let worker = &self.workers[usize::from(lease.worker)];
            let named = worker.holds(job, lease.token) || worker.awaits(job, lease.token);
            worker.life == Life::Dead || (guards.on(Guard::Named) && !named)
        })
    }

    /// reclaim.lua. Its twin without `expired` has read that the lease is out, and writes later.
    pub fn reclaim(&mut self, guards: Guards, job: usize) {
        let expired = self.is_abandoned(guards, job) || self.jobs[job].lease.is_some_and(|lease| lease.expired);
        match self.read {
            Some(Read::Expired(_)) => self.read = None,
            _ if !expired => return,
            _ if !guards.on(Guard::ExpiredReclaim) => {
                self.read = Some(Read::Expired(job as u8));
                return;
            }
            _ => {}
        }
        self.jobs[job].lease = None;
        let record = &mut self.jobs[job];
        record.crashes += 1;
        let place = match record.flagged && guards.on(Guard::FlaggedReclaim) {
            true => Place::Cancelled,
            false if record.crashes >= CRASHES_MAX => Place::Failed,
            false => Place::Queued,
        };
        self.queue[job] += u8::from(place == Place::Queued);
        self.move_to(job, Verb::Reclaim, place);
    }

    /// promote.lua. Its twin without `due` has read that the job waits, and writes later.
    pub fn promote(&mut self, guards: Guards, job: usize) {
        match self.read {
            Some(Read::Due(_)) => self.read = None,
            _ if !matches!(self.jobs[job].place, Place::Scheduled | Place::Retrying) => return,
            _ if !guards.on(Guard::DuePromote) => {
                self.read = Some(Read::Due(job as u8));
                return;
            }
            _ => {}
        }
        self.queue[job] += 1;
        self.move_to(job, Verb::Promote, Place::Queued);
    }

    /// cancel.lua. The id of a queued job stays in the list.
    pub fn cancel(&mut self, guards: Guards, job: usize) {
        match self.jobs[job].place {
            Place::Absent => {}
            place if place.is_final() && guards.on(Guard::LivingCancel) => {}
            Place::Running => self.jobs[job].flagged = true,
            _ => self.move_to(job, Verb::Cancel, Place::Cancelled),
        }
    }

    /// retry.lua: attempts and crashes are counted anew.
    pub fn retry(&mut self, guards: Guards, job: usize) {
        let place = self.jobs[job].place;
        let ended = matches!(place, Place::Failed | Place::Cancelled);
        if place == Place::Absent || (guards.on(Guard::EndedRetry) && !ended) {
            return;
        }
        self.jobs[job].lease = None;
        self.queue[job] += 1;
        self.move_to(job, Verb::Retry, Place::Queued);
        let record = &mut self.jobs[job];
        (record.attempts, record.crashes, record.flagged) = (0, 0, false);
        record.may_claim += 1;
        record.may_start += 1;
    }

    /// sweep.lua drops a dead worker's entry. Whoever has no entry is not looked for again.
    pub fn drop_worker(&mut self, guards: Guards, worker: usize) {
        let empty = self.claimed[worker].iter().all(|&copies| copies == 0);
        if empty || !guards.on(Guard::EmptyRecover) {
            self.workers[worker].registered = false;
        }
    }

    /// A worker process ends. Redis keeps what it has.
    pub fn kill(&mut self, worker: usize, armed: bool) {
        let registered = self.workers[worker].registered;
        for job in 0..self.jobs.len() {
            let token = self.leased(worker, job);
            let started = self.workers[worker].holds(job, token);
            if token != 0 {
                self.excuse(job, started);
            }
        }
        self.workers[worker] = Worker { armed, ..Worker::new(Life::Dead, registered) };
    }
}
