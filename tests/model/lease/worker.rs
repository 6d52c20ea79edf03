//! What a worker does with what it is told: intake, settling, renewal and audit.

use super::broken;
use super::job::{Answer, Verdict};
use super::scripts::Origin;
use super::state::{Call, Hold, JOBS, Late, Life, Mark, SLOTS, Settle, State, Worker};
use crate::guard::{Guard, Guards};

impl Worker {
    /// One that knows of nothing.
    pub fn new(life: Life, registered: bool) -> Self {
        Self {
            life,
            registered,
            armed: false,
            call: Call::None,
            holds: [None; SLOTS],
            marks: [Mark::None; JOBS],
            back: None,
            found: None,
        }
    }

    /// Whether a handler runs this job under this token, or its settle is unanswered.
    pub fn holds(&self, job: usize, token: u8) -> bool {
        self.holds.iter().flatten().any(|hold| usize::from(hold.job) == job && hold.token == token)
    }

    /// Whether a reply on its way brings this job under this token.
    pub fn awaits(&self, job: usize, token: u8) -> bool {
        let (Call::Claimed(grants) | Call::Unanswered(grants)) = self.call else { return false };
        grants[job].is_some_and(|grant| grant.token == token)
    }

    /// Slots that neither a hold nor a grant on its way fills.
    pub fn free_slots(&self) -> usize {
        let held = self.holds.iter().flatten().count();
        let coming = match self.call {
            Call::None => 0,
            Call::Moved(_) => 1,
            Call::Claimed(grants) | Call::Unanswered(grants) => grants.iter().flatten().count(),
        };
        SLOTS.saturating_sub(held + coming)
    }
}

impl State {
    /// The claim call runs in Redis: the reservation, if there is one, and those of `take`.
    pub fn send_claim(&mut self, guards: Guards, worker: usize, take: [bool; JOBS]) {
        let mut grants = [None; JOBS];
        if let Call::Moved(job) = self.workers[worker].call {
            let job = usize::from(job);
            grants[job] = self.claim(guards, worker, job, Origin::Reserved);
        }
        for job in (0..JOBS).filter(|&job| take[job]) {
            grants[job] = self.claim(guards, worker, job, Origin::Queue).or(grants[job]);
        }
        self.workers[worker].call = Call::Claimed(grants);
    }

    /// A claim is sent again with its number: Redis answers with what it still has on lease from the first.
    pub fn claim_again(&mut self, worker: usize) {
        let Call::Unanswered(mut grants) = self.workers[worker].call else { return };
        for (job, grant) in grants.iter_mut().enumerate() {
            *grant = grant.filter(|grant| self.is_holder(worker, job, grant.token));
        }
        self.workers[worker].call = Call::Claimed(grants);
    }

    /// The reply arrives. What comes too late is not started.
    pub fn intake(&mut self, guards: Guards, worker: usize) {
        let Call::Claimed(grants) = self.workers[worker].call else {
            return;
        };
        self.answered(worker);
        for (job, grant) in grants.into_iter().enumerate().filter_map(|(job, grant)| Some((job, grant?))) {
            let prompt =
                self.jobs[job].lease.is_some_and(|lease| !lease.expired) && self.is_holder(worker, job, grant.token);
            if !prompt && guards.on(Guard::Prompt) {
                continue;
            }
            if guards.on(Guard::Heard) {
                self.hear_of(worker, job);
            }
            let without_cause = self.jobs[job].may_start == 0;
            self.witness(broken::EXECUTION, without_cause);
            self.jobs[job].may_start = self.jobs[job].may_start.saturating_sub(1);
            self.hold(worker, Hold { job: job as u8, token: grant.token, claim: grant.claim, sent: None });
        }
    }

    /// A claim's answer names this job: what was seen of it before says nothing any more.
    fn hear_of(&mut self, worker: usize, job: usize) {
        let worker = &mut self.workers[worker];
        worker.marks[job] = Mark::None;
        if let Some(found) = &mut worker.found {
            found[job] = false;
        }
    }

    /// No call is on its way any more.
    pub fn answered(&mut self, worker: usize) {
        self.workers[worker].call = Call::None;
        self.given_up(worker);
    }

    /// The audit waits no longer for the call that was on its way.
    pub fn given_up(&mut self, worker: usize) {
        for mark in &mut self.workers[worker].marks {
            if let Mark::Seen { waits } = mark {
                *waits = false;
            }
        }
    }

    /// A reply that was on its way is lost with its connection.
    pub fn lose_call(&mut self, guards: Guards, worker: usize) {
        let call = self.workers[worker].call;
        self.answered(worker);
        if let Call::Claimed(grants) = call
            && guards.on(Guard::NumberedClaim)
        {
            self.workers[worker].call = Call::Unanswered(grants);
        }
    }

    fn hold(&mut self, worker: usize, hold: Hold) {
        let holds = &mut self.workers[worker].holds;
        let slot = holds.iter().position(Option::is_none).expect("a claim asks for free slots only");
        holds[slot] = Some(hold);
        holds.sort_unstable();
    }

    /// Takes a job out of its slot.
    pub fn drop_hold(&mut self, worker: usize, slot: usize) {
        self.workers[worker].holds[slot] = None;
        self.workers[worker].holds.sort_unstable();
    }

    /// The settle call of a slot.
    pub fn settle_of(&self, worker: usize, slot: usize, verdict: Verdict) -> Option<Settle> {
        let hold = self.workers[worker].holds[slot]?;
        Some(Settle { worker: worker as u8, job: hold.job, token: hold.token, claim: hold.claim, verdict })
    }

    /// A handler's settle runs in Redis.
    pub fn settle_by_handler(&mut self, guards: Guards, call: Settle) -> Answer {
        let (worker, job) = (usize::from(call.worker), usize::from(call.job));
        if call.verdict != Verdict::Complete && self.is_holder(worker, job, call.token) {
            self.excuse(job, true);
        }
        self.settle(guards, call)
    }

    /// One beat: renews what live handlers run, and asks what is reserved.
    pub fn beat(&mut self, guards: Guards, worker: usize) {
        self.workers[worker].registered = true;
        for slot in 0..SLOTS {
            if let Some(hold) = self.workers[worker].holds[slot]
                && !self.renew(guards, worker, usize::from(hold.job), hold.token)
            {
                self.workers[worker].holds[slot] = None;
            }
        }
        self.workers[worker].holds.sort_unstable();
        for job in (0..JOBS).filter(|_| !guards.on(Guard::Named)) {
            let token = self.leased(worker, job);
            let memory = &self.workers[worker];
            let unheld = token != 0 && !memory.holds(job, token) && !memory.awaits(job, token);
            self.witness(broken::UNHELD, unheld);
        }
        if guards.on(Guard::Audited) {
            let found: [bool; JOBS] = std::array::from_fn(|job| self.claimed[worker][job] > 0);
            let memory = &mut self.workers[worker];
            let marked = memory.marks.iter().any(|&mark| mark != Mark::None);
            memory.found = (marked || found.contains(&true)).then_some(found);
        }
    }

    /// The audit: a reservation is marked, and recovered when seen again.
    pub fn audit(&mut self, guards: Guards, worker: usize) {
        let worker = &mut self.workers[worker];
        let Some(found) = worker.found.take() else { return };
        let on_its_way = guards.on(Guard::Unanswered) && worker.call != Call::None;
        for (job, reserved) in found.into_iter().enumerate() {
            worker.marks[job] = match (worker.marks[job], reserved) {
                (Mark::GivenBack, _) if worker.back == Some(job as u8) => Mark::GivenBack,
                (_, false) => Mark::None,
                (Mark::Seen { waits: false } | Mark::GivenBack, true) if worker.back.is_none() => {
                    worker.back = Some(job as u8);
                    Mark::GivenBack
                }
                (Mark::Seen { waits }, true) => Mark::Seen { waits },
                (_, true) => Mark::Seen { waits: on_its_way },
            };
        }
    }

    /// The recovery runs in Redis.
    pub fn give_back(&mut self, guards: Guards, worker: usize) {
        let Some(job) = self.workers[worker].back.take().map(usize::from) else {
            return;
        };
        if guards.on(Guard::Heard) {
            self.workers[worker].marks[job] = Mark::None;
        }
        self.recover(guards, worker, job);
    }

    /// A call that its sender gave up runs after all.
    pub fn arrive(&mut self, guards: Guards) {
        match self.late.take() {
            Some(Late::Settle(call)) => {
                self.settle_by_handler(guards, call);
            }
            Some(Late::Claim { worker, job }) => {
                let (worker, waiting) = (usize::from(worker), Call::Moved(job));
                let job = usize::from(job);
                let (dead, numbered) = (self.workers[worker].life == Life::Dead, guards.on(Guard::NumberedClaim));
                // Once another copy has run, this one leases nothing.
                if numbered && !dead && self.workers[worker].call != waiting {
                    return;
                }
                let grant = self.claim(guards, worker, job, Origin::Reserved);
                if dead && grant.is_some() {
                    self.excuse(job, false);
                } else if numbered && !dead {
                    let mut grants = [None; JOBS];
                    grants[job] = grant;
                    self.workers[worker].call = Call::Unanswered(grants);
                }
            }
            None => {}
        }
    }
}
