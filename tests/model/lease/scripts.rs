//! The scripts a client and a worker call, each one atomic step: read, guard, write, answer.

use super::job::{Answer, Lease, Place, Verb, Verdict};
use super::state::{Grant, Settle, State};
use super::{ATTEMPTS_MAX, broken};
use crate::guard::{Guard, Guards};

/// Where a claim finds an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// BRPOPLPUSH has moved it into the claimed list.
    Reserved,
    /// The script moves it itself.
    Queue,
}

impl State {
    /// submit.lua
    pub fn submit(&mut self, guards: Guards, job: usize, delayed: bool) {
        if guards.on(Guard::OnceSubmit) && self.jobs[job].place != Place::Absent {
            return;
        }
        let place = if delayed { Place::Scheduled } else { Place::Queued };
        self.queue[job] += u8::from(!delayed);
        self.jobs[job].lease = None;
        self.move_to(job, Verb::Submit, place);
    }

    /// claim.lua, for one id.
    pub fn claim(&mut self, guards: Guards, worker: usize, job: usize, origin: Origin) -> Option<Grant> {
        if origin == Origin::Reserved && self.claimed[worker][job] == 0 && guards.on(Guard::ReservedClaim) {
            return None;
        }
        match origin {
            Origin::Reserved => self.drop_claimed(worker, job),
            Origin::Queue => self.queue[job] -= 1,
        }
        if self.jobs[job].place != Place::Queued && guards.on(Guard::QueuedClaim) {
            return None;
        }
        self.move_to(job, Verb::Claim, Place::Running);
        let record = &mut self.jobs[job];
        record.token = if guards.on(Guard::FreshTokenClaim) { record.token + 1 } else { 1 };
        record.claims += 1;
        record.settled = None;
        record.lease = Some(Lease { worker: worker as u8, token: record.token, expired: false, excused: false });
        let grant = Grant { token: record.token, claim: record.claims };
        let without_cause = record.may_claim == 0;
        record.may_claim = record.may_claim.saturating_sub(1);
        self.witness(broken::CAUSE, without_cause);
        Some(grant)
    }

    /// renew.lua, for one (id, token). Answers whether it is still this worker's.
    pub fn renew(&mut self, guards: Guards, worker: usize, job: usize, token: u8) -> bool {
        let holder = self.is_holder(worker, job, token);
        if guards.on(Guard::HolderRenew) && !holder {
            return false;
        }
        let record = &mut self.jobs[job];
        if let Some(lease) = record.lease.as_mut().filter(|lease| lease.expired) {
            lease.expired = false;
            lease.excused = false;
            record.may_claim -= 1;
            record.may_start = record.may_start.saturating_sub(1);
        }
        let unheld = self.jobs[job].lease.is_some() && !holder;
        self.witness(broken::UNHELD, unheld);
        true
    }

    /// report.lua: progress and checkpoint, written under the token.
    pub fn report(&mut self, guards: Guards, worker: usize, job: usize, token: u8, claim: u8) {
        if guards.on(Guard::HolderReport) && !self.is_holder(worker, job, token) {
            return;
        }
        self.witness(broken::STALE, claim != self.jobs[job].claims);
    }

    /// settle.lua: complete, fail and release.
    pub fn settle(&mut self, guards: Guards, call: Settle) -> Answer {
        let (worker, job) = (usize::from(call.worker), usize::from(call.job));
        let record = self.jobs[job];
        let unfenced = !guards.on(Guard::HolderSettle) && record.lease.is_some();
        if !self.is_holder(worker, job, call.token) && !unfenced {
            let first = record.settled.filter(|&(token, _)| token == call.token).map(|(_, answer)| answer);
            let answer = first.filter(|_| guards.on(Guard::SettledSettle)).unwrap_or(Answer::Stale);
            self.witness(broken::ANSWER, first.is_some_and(|first| first != answer));
            return answer;
        }
        self.witness(broken::STALE, call.claim != record.claims);
        let flagged = record.flagged && guards.on(Guard::FlaggedSettle);
        let attempts = record.attempts + u8::from(call.verdict == Verdict::Fail);
        let place = match call.verdict {
            Verdict::Complete => Place::Completed,
            _ if flagged => Place::Cancelled,
            Verdict::Fail if attempts >= ATTEMPTS_MAX => Place::Failed,
            Verdict::Fail => Place::Retrying,
            Verdict::Release => Place::Queued,
        };
        self.jobs[job].lease = None;
        self.queue[job] += u8::from(place == Place::Queued);
        self.jobs[job].attempts = attempts;
        self.jobs[job].settled = Some((call.token, Answer::Now(place)));
        self.move_to(job, Verb::Settle(call.verdict), place);
        Answer::Now(place)
    }

    /// `LREM claimed:<worker> 1 id`
    pub fn drop_claimed(&mut self, worker: usize, job: usize) {
        self.claimed[worker][job] = self.claimed[worker][job].saturating_sub(1);
    }
}
