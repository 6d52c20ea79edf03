//! The state of the clock model, and the scripts that look at the clock.

use super::model::Clock;
use crate::guard::Guard;

/// Jobs, each with a worker of its own. One worker more has none: it sweeps, and is never killed.
pub const JOBS: usize = 2;
/// A lease, in ticks.
pub const LEASE: i16 = 6;
/// The clock set back by no more than this is no gap.
pub const BACK_MAX: i16 = 1;
/// Ticks after the last fault in which a dead worker's job is reclaimed: one lease, and one sweep.
pub const RECLAIMED_IN: i16 = LEASE + 1;

/// A gap in the stamps, for as long as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grace {
    /// The last stamp before it.
    pub from: i16,
    pub until: i16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// The lease's end, until it is reclaimed.
    pub end: Option<i16>,
    pub alive: bool,
    pub renewed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub jobs: [Job; JOBS],
    pub stamp: i16,
    pub grace: Option<Grace>,
    pub swept: bool,
    /// How long Redis has been away.
    pub away: Option<i16>,
    pub faults: u8,
    /// Ticks since the last fault, as far as they matter.
    pub calm: i16,
    /// A live worker's lease was reclaimed.
    pub robbed: bool,
}

impl State {
    /// All leases fresh.
    pub fn new(faults: u8) -> Self {
        let job = Job { end: Some(LEASE), alive: true, renewed: false };
        Self { jobs: [job; JOBS], stamp: 0, grace: None, swept: false, away: None, faults, calm: 0, robbed: false }
    }

    /// clock.lua: a gap is kept, and the clock stamped.
    fn stamp(&mut self, model: &Clock) {
        let gap = -self.stamp > model.gap_max || self.stamp > BACK_MAX;
        if gap && model.guards.on(Guard::GapClock) {
            let during = |grace: &Grace| grace.until > self.stamp && model.guards.on(Guard::OldestClock);
            let from = self.grace.filter(during).map_or(0, |grace| grace.from);
            self.grace = Some(Grace { from: from.min(self.stamp), until: LEASE });
        }
        self.stamp = 0;
        self.grace = self.grace.filter(|grace| grace.until > 0);
    }

    /// renew.lua
    pub fn renew(&mut self, model: &Clock, job: usize) {
        self.stamp(model);
        self.jobs[job].renewed = true;
        if let Some(end) = &mut self.jobs[job].end {
            *end = LEASE;
        }
    }

    /// sweep.lua
    pub fn sweep(&mut self, model: &Clock) {
        self.stamp(model);
        self.swept = true;
    }

    /// Whether reclaim.lua has something to do for this job: its lease has run out, or lies further
    /// ahead than any may.
    pub fn calls_for_reclaim(&self, model: &Clock, job: usize) -> bool {
        self.has_run_out(model, job) || model.guards.on(Guard::CutReclaim) && self.jobs[job].end > Some(LEASE)
    }

    fn has_run_out(&self, model: &Clock, job: usize) -> bool {
        let counts = |grace: &Grace| grace.until > 0 && grace.until <= model.grace_max;
        let grace = self.grace.filter(counts).filter(|_| model.guards.on(Guard::GraceClock));
        self.jobs[job].end.is_some_and(|end| end <= 0 && grace.is_none_or(|grace| end <= grace.from))
    }

    /// reclaim.lua
    pub fn reclaim(&mut self, model: &Clock, job: usize) {
        if model.guards.on(Guard::StampedReclaim) {
            self.stamp(model);
        }
        if self.has_run_out(model, job) {
            self.jobs[job].end = None;
            self.robbed |= self.jobs[job].alive;
        } else if model.guards.on(Guard::CutReclaim) {
            self.jobs[job].end = self.jobs[job].end.map(|end| end.min(LEASE));
        }
    }

    /// Moves the clock, and so all that is kept as seen from it.
    pub fn step(&mut self, ticks: i16) {
        self.stamp -= ticks;
        for end in self.jobs.iter_mut().filter_map(|job| job.end.as_mut()) {
            *end -= ticks;
        }
        if let Some(grace) = &mut self.grace {
            grace.from -= ticks;
            grace.until -= ticks;
        }
    }

    /// Time goes on.
    pub fn tick(&mut self) {
        self.step(1);
        self.swept = false;
        for job in &mut self.jobs {
            job.renewed = false;
        }
        match &mut self.away {
            Some(ticks) => *ticks += 1,
            None => self.calm = (self.calm + 1).min(RECLAIMED_IN + 1),
        }
    }
}
