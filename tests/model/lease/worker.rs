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
        matches!(self.call, Call::Claimed(grants) if grants[job].is_some_and(|grant| grant.token == token))
    }

    /// Whether its give-back is on its way, or a reply that brings what was given back.
    pub fn gives_back(&self, job: usize, token: u8) -> bool {
        self.back == Some((job as u8, token)) || self.awaits(job, token)
    }

    /// Slots that neither a hold nor a grant on its way fills.
    pub fn free_slots(&self) -> usize {
        let held = self.holds.iter().flatten().count();
        let coming = match self.call {
            Call::None => 0,
            Call::Moved(_) => 1,
            Call::Claimed(grants) => grants.iter().flatten().count(),
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

    /// The reply arrives. What was given back since, or comes too late, is not started.
    pub fn intake(&mut self, guards: Guards, worker: usize) {
        let Call::Claimed(grants) = self.workers[worker].call else {
            return;
        };
        self.answered(worker);
        for (job, grant) in grants.into_iter().enumerate().filter_map(|(job, grant)| Some((job, grant?))) {
            let back = self.workers[worker].marks[job] == Mark::GivenBack { token: grant.token };
            let prompt =
                self.jobs[job].lease.is_some_and(|lease| !lease.expired) && self.is_holder(worker, job, grant.token);
            if back && guards.on(Guard::GivenBack) || !back && !prompt && guards.on(Guard::Prompt) {
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
            found[job] = None;
        }
    }

    /// No claim call is on its way any more, answered or given up.
    pub fn answered(&mut self, worker: usize) {
        let worker = &mut self.workers[worker];
        worker.call = Call::None;
        for mark in &mut worker.marks {
            if let Mark::Seen { waits, .. } = mark {
                *waits = false;
            }
        }
    }

    /// A reply that was on its way is lost with its connection.
    pub fn lose_call(&mut self, worker: usize) {
        if let Call::Claimed(grants) = self.workers[worker].call {
            for (job, grant) in grants.into_iter().enumerate() {
                if grant.is_some_and(|grant| self.is_holder(worker, job, grant.token)) {
                    self.excuse(job, false);
                }
            }
        }
        self.answered(worker);
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

    /// One beat: renews what live handlers run, and asks what the claimed list holds.
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
            let entry = |job: usize| (self.claimed[worker][job] > 0).then_some(self.leased(worker, job));
            let found: [Option<u8>; JOBS] = std::array::from_fn(entry);
            let memory = &mut self.workers[worker];
            let unheld = |job: usize| found[job].is_some_and(|token| !memory.holds(job, token));
            let marked = memory.marks.iter().any(|&mark| mark != Mark::None);
            memory.found = (marked || (0..JOBS).any(unheld)).then_some(found);
        }
    }

    /// The audit: an entry that is not held is marked, and given back when seen so again.
    pub fn audit(&mut self, guards: Guards, worker: usize) {
        let worker = &mut self.workers[worker];
        let Some(found) = worker.found.take() else { return };
        let on_its_way = guards.on(Guard::Unanswered) && worker.call != Call::None;
        for (job, entry) in found.into_iter().enumerate() {
            let entry = entry.filter(|&token| token == 0 || !worker.holds(job, token));
            worker.marks[job] = match (worker.marks[job], entry) {
                (Mark::GivenBack { token }, _) if worker.gives_back(job, token) => worker.marks[job],
                (_, None) => Mark::None,
                (Mark::Seen { token: seen, waits: false } | Mark::GivenBack { token: seen }, Some(token))
                    if seen == token && worker.back.is_none() =>
                {
                    worker.back = Some((job as u8, token));
                    Mark::GivenBack { token }
                }
                (Mark::Seen { token: seen, waits }, Some(token)) if seen == token => Mark::Seen { token, waits },
                (_, Some(token)) => Mark::Seen { token, waits: on_its_way },
            };
        }
    }

    /// The give-back runs in Redis: a release under the token seen, or a recover.
    pub fn give_back(&mut self, guards: Guards, worker: usize) {
        let Some((job, token)) = self.workers[worker].back.take() else {
            return;
        };
        let id = usize::from(job);
        if guards.on(Guard::Heard) && !self.workers[worker].gives_back(id, token) {
            self.workers[worker].marks[id] = Mark::None;
        }
        if token == 0 {
            self.recover(guards, worker, id);
        } else {
            let claim = self.jobs[id].claims;
            self.settle(guards, Settle { worker: worker as u8, job, token, claim, verdict: Verdict::Release });
        }
    }

    /// A call that its sender gave up runs after all.
    pub fn arrive(&mut self, guards: Guards) {
        match self.late.take() {
            Some(Late::Settle(call)) => {
                self.settle_by_handler(guards, call);
            }
            Some(Late::Claim { worker, job }) => {
                let granted = self.claim(guards, usize::from(worker), usize::from(job), Origin::Reserved);
                if granted.is_some() {
                    self.excuse(usize::from(job), false);
                }
            }
            None => {}
        }
    }
}
