//! Every step of the lease protocol, and which of them are open in a state.

use super::job::{Place, Verdict};
use super::protocol::Protocol;
use super::state::{Call, JOBS, Life, NAMES, Read, SLOTS, State};

/// A step of a process that is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Submit(usize),
    Cancel(usize),
    Promote(usize),
    Reclaim(usize),
    /// BRPOPLPUSH moves an id.
    Pop(usize, usize),
    /// The claim script runs: the reservation, and those it moves itself.
    Claim(usize, [bool; JOBS]),
    Intake(usize),
    /// A claim whose reply was lost is sent again.
    Again(usize),
    Settle(usize, usize, Verdict),
    Report(usize, usize),
    /// Renewal; and audit, where the reply is as fast.
    Renew(usize),
    Audit(usize),
    GiveBack(usize),
    Register(usize),
    Start(usize),
    /// A sweeper recovers an entry of a dead worker's list.
    Recover(usize, usize),
    DropWorker(usize),
    /// A dead worker's pop, still armed in the server, moves an id.
    ArmedPop(usize, usize),
    Disarm(usize),
    /// A call that its sender gave up runs.
    Arrive,
    Fault(Fault),
}

/// A step that costs one of the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    SubmitReplyLost(usize),
    CallReplyLost(usize),
    /// The claim call is delayed on its way: the worker sends it again, and this copy runs when it will.
    CallLate(usize),
    SettleReplyLost(usize, usize, Verdict),
    SettleLate(usize, usize, Verdict),
    Crash(usize),
    /// The worker dies while its pop is armed.
    CrashArmed(usize),
    /// A live worker's lease runs out.
    FalseDeath(usize),
    /// A sweeper takes a live worker for dead and recovers its reservation.
    FalseGone(usize, usize),
    /// A live worker's entry is dropped.
    FalseDrop(usize),
    /// A handler is lost without a settle.
    Forget(usize, usize),
    /// An id is pushed by hand.
    Duplicate(usize),
    Retry(usize),
    /// A shutdown: the job is released.
    Shutdown(usize, usize),
}

impl Protocol {
    /// The steps that need no fault.
    pub fn open(&self, state: &State, out: &mut Vec<Action>) {
        for (job, record) in state.jobs.iter().enumerate() {
            if !record.acknowledged {
                out.push(Action::Submit(job));
            }
            if matches!(record.place, Place::Scheduled | Place::Retrying) || state.read == Some(Read::Due(job as u8)) {
                out.push(Action::Promote(job));
            }
            if record.lease.is_some() || state.read == Some(Read::Expired(job as u8)) {
                out.push(Action::Reclaim(job));
            }
            if self.cancels[job] && !record.flagged {
                out.push(Action::Cancel(job));
            }
        }
        if state.late.is_some() {
            out.push(Action::Arrive);
        }
        for worker in 0..NAMES {
            match state.workers[worker].life {
                Life::Alive => self.open_to_worker(state, worker, out),
                Life::Dead => open_after_death(state, worker, out),
                Life::Unborn if state.workers.iter().any(|worker| worker.life == Life::Dead) => {
                    out.push(Action::Start(worker));
                }
                Life::Unborn => {}
            }
        }
    }

    fn open_to_worker(&self, state: &State, worker: usize, out: &mut Vec<Action>) {
        let memory = &state.workers[worker];
        let free = memory.free_slots();
        if !memory.registered {
            out.push(Action::Register(worker));
        }
        match memory.call {
            Call::None if free > 0 => {
                out.extend((0..JOBS).filter(|&job| state.queue[job] > 0).map(|job| Action::Pop(worker, job)));
                open_claims(state, worker, free, false, out);
            }
            Call::None => {}
            Call::Moved(_) => open_claims(state, worker, free, true, out),
            Call::Claimed(_) => out.push(Action::Intake(worker)),
            Call::Unanswered(_) => out.push(Action::Again(worker)),
        }
        for slot in 0..SLOTS {
            for verdict in self.verdicts(state, worker, slot) {
                out.push(Action::Settle(worker, slot, verdict));
            }
            if memory.holds[slot].is_some() {
                out.push(Action::Report(worker, slot));
            }
        }
        match memory.found {
            None => out.push(Action::Renew(worker)),
            Some(_) => out.push(Action::Audit(worker)),
        }
        if memory.back.is_some() {
            out.push(Action::GiveBack(worker));
        }
    }

    /// How a slot's handler may end; one that has sent its settle sends it again.
    fn verdicts(&self, state: &State, worker: usize, slot: usize) -> impl Iterator<Item = Verdict> {
        let hold = state.workers[worker].holds[slot];
        let fails = hold.is_some_and(|hold| self.fails[usize::from(hold.job)]);
        let sent = hold.and_then(|hold| hold.sent);
        [Verdict::Complete, Verdict::Fail, Verdict::Release].into_iter().filter(move |&verdict| match sent {
            Some(sent) => verdict == sent,
            None => hold.is_some() && (verdict == Verdict::Complete || verdict == Verdict::Fail && fails),
        })
    }

    /// The faults that may strike, while there are any left.
    pub fn faults(&self, state: &State, out: &mut Vec<Action>) {
        let mut add = |fault| out.push(Action::Fault(fault));
        for (job, record) in state.jobs.iter().enumerate() {
            if !record.acknowledged {
                add(Fault::SubmitReplyLost(job));
            }
            if record.lease.is_some_and(|lease| !lease.expired) && !state.is_abandoned(self.guards, job) {
                add(Fault::FalseDeath(job));
            }
            if self.wide && record.place != Place::Absent {
                add(Fault::Duplicate(job));
                add(Fault::Retry(job));
            }
        }
        for worker in (0..NAMES).filter(|&worker| state.workers[worker].life == Life::Alive) {
            self.worker_faults(state, worker, &mut add);
        }
    }

    fn worker_faults(&self, state: &State, worker: usize, add: &mut impl FnMut(Fault)) {
        let memory = &state.workers[worker];
        if (0..NAMES).any(|other| other != worker && state.workers[other].life != Life::Dead) {
            add(Fault::Crash(worker));
            if self.wide && memory.call == Call::None {
                add(Fault::CrashArmed(worker));
            }
        }
        if matches!(memory.call, Call::Moved(_) | Call::Claimed(_)) {
            add(Fault::CallReplyLost(worker));
        }
        if self.wide && matches!(memory.call, Call::Moved(_)) && state.late.is_none() {
            add(Fault::CallLate(worker));
        }
        for slot in (0..SLOTS).filter(|&slot| memory.holds[slot].is_some()) {
            for verdict in self.verdicts(state, worker, slot) {
                if memory.holds[slot].is_some_and(|hold| hold.sent.is_none()) {
                    add(Fault::SettleReplyLost(worker, slot, verdict));
                }
                if self.wide && state.late.is_none() {
                    add(Fault::SettleLate(worker, slot, verdict));
                }
            }
            add(Fault::Forget(worker, slot));
            if self.wide {
                add(Fault::Shutdown(worker, slot));
            }
        }
        if self.wide {
            add(Fault::FalseDrop(worker));
            for job in (0..JOBS).filter(|&job| state.claimed[worker][job] > 0) {
                add(Fault::FalseGone(worker, job));
            }
        }
    }
}

/// The claim calls a worker may send: any of the ids that wait, within its free slots.
fn open_claims(state: &State, worker: usize, free: usize, reserved: bool, out: &mut Vec<Action>) {
    for mask in usize::from(!reserved)..1 << JOBS {
        let take = std::array::from_fn(|job| mask & 1 << job != 0);
        let taken = take.iter().filter(|&&taken| taken).count();
        if taken <= free && (0..JOBS).all(|job| !take[job] || state.queue[job] > 0) {
            out.push(Action::Claim(worker, take));
        }
    }
}

fn open_after_death(state: &State, worker: usize, out: &mut Vec<Action>) {
    let memory = &state.workers[worker];
    if memory.armed {
        out.extend((0..JOBS).filter(|&job| state.queue[job] > 0).map(|job| Action::ArmedPop(worker, job)));
        out.push(Action::Disarm(worker));
    }
    if memory.registered {
        out.extend((0..JOBS).filter(|&job| state.claimed[worker][job] > 0).map(|job| Action::Recover(worker, job)));
        if !memory.armed {
            out.push(Action::DropWorker(worker));
        }
    }
}
