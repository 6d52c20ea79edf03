//! The clock as a model: its steps, and what must hold.

use super::state::{JOBS, LEASE, RECLAIMED_IN, State};
use crate::endings::{self, Ends};
use crate::guard::{Guard, Guards};
use stateright::{Model, Property};

/// Invariant E.
pub const LIVE_KEPT: &str = "an outage or a step of the clock costs no live worker its lease";
/// Invariants 5 and R.
pub const DEAD_RECLAIMED: &str = "a dead worker's job is reclaimed within a lease and a sweep";
/// Invariant 5.
pub const NOT_STUCK: &str = "time goes on";

/// The longest time that Redis is away.
const AWAY_MAX: i16 = 2 * LEASE;
/// What the clock may be set on or back by.
const STEPS: [i16; 7] = [-20, -8, -3, -1, 3, 8, 20];

/// The model and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub guards: Guards,
    pub faults: u8,
    /// The longest silence that is no gap.
    pub gap_max: i16,
    /// A grace that lies further ahead does not count.
    pub grace_max: i16,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Tick,
    Renew(usize),
    Sweep,
    Reclaim(usize),
    /// Redis is away, or everybody is; and back.
    Leave,
    Return,
    Step(i16),
    Kill(usize),
}

impl Clock {
    /// Gaps longer than a third of a lease.
    pub fn new(faults: u8) -> Self {
        Self { guards: Guards::ALL, faults, gap_max: LEASE / 3, grace_max: 2 * LEASE }
    }

    /// A twin that lacks these guards.
    pub fn twin(missing: &[Guard]) -> Self {
        Self { guards: Guards::without(missing), ..Self::new(2) }
    }

    /// Whether all that a tick must see has happened.
    fn tick_is_over(&self, state: &State) -> bool {
        let renewed = state.jobs.iter().all(|job| job.renewed || !job.alive);
        match state.away {
            Some(ticks) => ticks < AWAY_MAX,
            None => state.swept && renewed && !(0..JOBS).any(|job| state.calls_for_reclaim(self, job)),
        }
    }
}

impl Model for Clock {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.faults)]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        if self.tick_is_over(state) {
            out.push(Action::Tick);
        }
        if state.away.is_some() {
            out.push(Action::Return);
        } else {
            out.push(Action::Sweep);
            out.extend((0..JOBS).filter(|&job| state.jobs[job].alive).map(Action::Renew));
            out.extend((0..JOBS).filter(|&job| state.calls_for_reclaim(self, job)).map(Action::Reclaim));
        }
        if state.faults > 0 {
            out.extend(STEPS.map(Action::Step));
            out.extend((0..JOBS).filter(|&job| state.jobs[job].alive).map(Action::Kill));
            out.extend(state.away.is_none().then_some(Action::Leave));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        if Self::is_chance(&action) {
            next.faults -= 1;
            next.calm = 0;
        }
        match action {
            Action::Tick => next.tick(),
            Action::Renew(job) => next.renew(self, job),
            Action::Sweep => next.sweep(self),
            Action::Reclaim(job) => next.reclaim(self, job),
            Action::Return => next.away = None,
            Action::Leave => next.away = Some(0),
            Action::Step(ticks) => next.step(ticks),
            Action::Kill(job) => next.jobs[job].alive = false,
        }
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LIVE_KEPT, |_, state: &State| !state.robbed),
            Property::always(DEAD_RECLAIMED, |_, state: &State| {
                state.calm <= RECLAIMED_IN || state.jobs.iter().all(|job| job.alive || job.end.is_none())
            }),
            Property::always(NOT_STUCK, endings::not_stuck),
        ]
    }
}

impl Ends for Clock {
    fn is_chance(action: &Action) -> bool {
        matches!(action, Action::Leave | Action::Step(_) | Action::Kill(_))
    }

    /// It never ends: while a worker lives it renews.
    fn is_over(_: &State) -> bool {
        false
    }
}
