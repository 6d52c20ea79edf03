//! The lease protocol as a model: what each step does.

use super::actions::{Action, Fault};
use super::job::{Answer, Verdict};
use super::properties;
use super::state::{Call, JOBS, Late, Life, State, Worker};
use crate::endings::Ends;
use crate::guard::{Guard, Guards};
use stateright::{Model, Property};

/// The model and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub guards: Guards,
    /// How many faults may strike in one run.
    pub faults: u8,
    /// Whether all faults may, or only the four kinds a small model takes three of: a lost reply,
    /// a crash, a false death, a forgotten handler.
    pub wide: bool,
    /// Whether a renewal's reply takes its time.
    pub slow: bool,
    /// Whether states that differ in the workers' names only are one.
    pub folds: bool,
    /// Which jobs are submitted with a delay, may fail, may be cancelled.
    pub delayed: [bool; JOBS],
    pub fails: [bool; JOBS],
    pub cancels: [bool; JOBS],
}

impl Protocol {
    /// The faults of every day: a lost reply, a crash, a false death, a forgotten handler.
    pub fn everyday(faults: u8) -> Self {
        Self {
            guards: Guards::ALL,
            faults,
            wide: false,
            slow: false,
            folds: true,
            delayed: [false; JOBS],
            fails: [true, false],
            cancels: [false; JOBS],
        }
    }

    /// Faults of any kind, a delayed submit, and cancels.
    pub fn any(faults: u8) -> Self {
        Self { wide: true, delayed: [true, false], cancels: [true, false], ..Self::everyday(faults) }
    }

    /// The same without these guards.
    pub fn without(self, missing: &[Guard]) -> Self {
        Self { guards: Guards::without(missing), ..self }
    }

    /// A twin that lacks these guards. Its states are not folded, so that its paths can be read.
    pub fn twin(missing: &[Guard]) -> Self {
        Self { folds: false, ..Self::any(2).without(missing) }
    }

    fn step(&self, state: &mut State, action: Action) {
        let guards = self.guards;
        match action {
            Action::Submit(job) => {
                state.submit(guards, job, self.delayed[job]);
                state.jobs[job].acknowledged = true;
            }
            Action::Cancel(job) => state.cancel(guards, job),
            Action::Promote(job) => state.promote(guards, job),
            Action::Reclaim(job) => state.reclaim(guards, job),
            Action::Pop(worker, job) => {
                move_id(state, worker, job);
                state.workers[worker].call = Call::Moved(job as u8);
            }
            Action::Claim(worker, take) => state.send_claim(guards, worker, take),
            Action::Intake(worker) => state.intake(guards, worker),
            Action::Again(worker) => state.claim_again(worker),
            Action::Settle(worker, slot, verdict) => {
                self.settle(state, worker, slot, verdict);
                state.drop_hold(worker, slot);
            }
            Action::Report(worker, slot) => {
                if let Some(hold) = state.workers[worker].holds[slot] {
                    state.report(guards, worker, usize::from(hold.job), hold.token, hold.claim);
                }
            }
            Action::Renew(worker) => {
                state.beat(guards, worker);
                if !self.slow {
                    state.audit(guards, worker);
                }
            }
            Action::Audit(worker) => state.audit(guards, worker),
            Action::GiveBack(worker) => state.give_back(guards, worker),
            Action::Register(worker) => state.workers[worker].registered = true,
            Action::Start(worker) => state.workers[worker] = Worker::new(Life::Alive, guards.on(Guard::Registered)),
            Action::Recover(worker, job) => state.recover(guards, worker, job),
            Action::DropWorker(worker) => state.drop_worker(guards, worker),
            Action::ArmedPop(worker, job) => {
                move_id(state, worker, job);
                state.workers[worker].armed = false;
            }
            Action::Disarm(worker) => state.workers[worker].armed = false,
            Action::Arrive => state.arrive(guards),
            Action::Fault(fault) => self.strike(state, fault),
        }
    }

    fn strike(&self, state: &mut State, fault: Fault) {
        let guards = self.guards;
        state.faults -= 1;
        match fault {
            Fault::SubmitReplyLost(job) => state.submit(guards, job, self.delayed[job]),
            Fault::CallReplyLost(worker) => state.lose_call(guards, worker),
            Fault::CallLate(worker) => {
                if let Call::Moved(job) = state.workers[worker].call {
                    state.late = Some(Late::Claim { worker: worker as u8, job });
                }
                state.given_up(worker);
            }
            Fault::SettleReplyLost(worker, slot, verdict) => {
                self.settle(state, worker, slot, verdict);
                self.sent(state, worker, slot, verdict);
            }
            Fault::SettleLate(worker, slot, verdict) => {
                state.late = state.settle_of(worker, slot, verdict).map(Late::Settle);
                self.sent(state, worker, slot, verdict);
            }
            Fault::Crash(worker) => state.kill(worker, false),
            Fault::CrashArmed(worker) => state.kill(worker, true),
            Fault::FalseDeath(job) => {
                let holder = state.jobs[job].lease.map(|lease| (usize::from(lease.worker), lease.token));
                let started = holder.is_some_and(|(worker, token)| state.workers[worker].holds(job, token));
                state.excuse(job, started);
                if let Some(lease) = &mut state.jobs[job].lease {
                    lease.expired = true;
                }
            }
            Fault::FalseGone(worker, job) => state.recover(guards, worker, job),
            Fault::FalseDrop(worker) => {
                if !guards.on(Guard::GoneRecover) {
                    state.drop_worker(guards, worker);
                }
            }
            Fault::Forget(worker, slot) => self.forget(state, worker, slot),
            Fault::Duplicate(job) => state.queue[job] += 1,
            Fault::Retry(job) => state.retry(guards, job),
            Fault::Shutdown(worker, slot) => {
                self.settle(state, worker, slot, Verdict::Release);
                state.drop_hold(worker, slot);
            }
        }
    }

    fn settle(&self, state: &mut State, worker: usize, slot: usize, verdict: Verdict) -> Option<Answer> {
        let call = state.settle_of(worker, slot, verdict)?;
        Some(state.settle_by_handler(self.guards, call))
    }

    fn sent(&self, state: &mut State, worker: usize, slot: usize, verdict: Verdict) {
        if let Some(hold) = &mut state.workers[worker].holds[slot] {
            hold.sent = Some(verdict);
        }
        state.workers[worker].holds.sort_unstable();
    }

    fn forget(&self, state: &mut State, worker: usize, slot: usize) {
        if let Some(hold) = state.workers[worker].holds[slot] {
            let job = usize::from(hold.job);
            if state.is_holder(worker, job, hold.token) {
                state.excuse(job, true);
            }
            state.drop_hold(worker, slot);
        }
    }
}

/// BRPOPLPUSH
fn move_id(state: &mut State, worker: usize, job: usize) {
    state.queue[job] -= 1;
    state.claimed[worker][job] += 1;
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.faults, self.guards.on(Guard::Registered))]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        self.open(state, out);
        if state.faults > 0 {
            self.faults(state, out);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        self.step(&mut next, action);
        let unchanged = State { faults: last.faults, ..next } == *last;
        let folded = if self.folds { next.folded() } else { next };
        (!unchanged).then_some(folded)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Ends for Protocol {
    /// A fault may strike or not, and a client may cancel or not: nobody may wait for it.
    fn is_chance(action: &Action) -> bool {
        matches!(action, Action::Fault(_) | Action::Cancel(_))
    }

    /// Every job is final, and nothing is left behind.
    fn is_over(state: &State) -> bool {
        let clean = state.queue.iter().chain(state.claimed.iter().flatten()).all(|&copies| copies == 0);
        let idle =
            state.workers.iter().all(|worker| worker.holds.iter().flatten().count() == 0 && worker.back.is_none());
        clean
            && idle
            && state.late.is_none()
            && state.jobs.iter().all(|job| job.place.is_final() && job.lease.is_none())
    }
}
