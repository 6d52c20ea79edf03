//! A schedule and its sweepers as a model: their steps, and what must hold.

use crate::guard::{Guard, Guards};
use stateright::{Model, Property};

/// A tick has one job.
pub const ONCE: &str = "no tick has two jobs";
/// None comes early.
pub const EARLY: &str = "no job is submitted before its tick";
/// A plan that was replaced submits nothing.
pub const PLAN: &str = "no job is made of a plan that was replaced";
/// Sweepers that live do every tick.
pub const DONE: &str = "no tick is left out";

/// Sweepers in the model.
const SWEEPERS: usize = 2;
/// Ticks of one run.
const TICKS: u8 = 4;

/// The model and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub guards: Guards,
    /// How often the plan is replaced.
    pub writes: u8,
    /// How often the schedule is removed and made again, which begins after the present.
    pub restarts: u8,
    /// How often the clock is set back, by a tick or more.
    pub backs: u8,
}

/// Redis's half and the sweepers' half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    now: u8,
    /// The next tick, and the revision of the plan.
    next: u8,
    revision: u8,
    /// What each sweeper has read.
    read: [Option<(u8, u8)>; SWEEPERS],
    /// The jobs of each tick.
    jobs: [u8; TICKS as usize + 1],
    writes: u8,
    restarts: u8,
    backs: u8,
    early: bool,
    stale: bool,
    /// A tick was passed over, and by no decision of the writer.
    left_out: bool,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A tick's time comes.
    Pass,
    /// A sweeper reads the schedule, which is due.
    Read(usize),
    /// Its script runs, and its reply arrives.
    Tick(usize),
    /// Its script runs, and its reply is lost: it is sent again.
    LostTick(usize),
    /// It dies before its script runs.
    Die(usize),
    /// The plan is replaced; the ticks are the same.
    Write,
    /// The schedule is removed and made again.
    Restart,
    /// Redis's clock is set back.
    Back,
}

impl Schedule {
    /// Everything that may happen.
    pub fn all() -> Self {
        Self { guards: Guards::ALL, writes: 2, restarts: 1, backs: 1 }
    }

    /// A twin that lacks these guards.
    pub fn twin(missing: &[Guard]) -> Self {
        Self { guards: Guards::without(missing), ..Self::all() }
    }

    /// tick.lua
    fn tick(&self, state: &mut State, (tick, revision): (u8, u8)) {
        let on = |guard| self.guards.on(guard);
        let refused = on(Guard::RevisedTick) && state.revision != revision
            || on(Guard::UnmovedTick) && state.next != tick
            || on(Guard::DueTick) && tick > state.now;
        if refused {
            return;
        }
        let jobs = &mut state.jobs[usize::from(tick)];
        if *jobs == 0 || !on(Guard::OnceTick) {
            *jobs += 1;
            state.early |= tick > state.now;
            state.stale |= state.revision != revision;
        }
        state.left_out |= tick > state.next;
        state.next = tick + 1;
    }
}

impl Model for Schedule {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            next: 1,
            revision: 0,
            read: [None; SWEEPERS],
            jobs: [0; TICKS as usize + 1],
            writes: self.writes,
            restarts: self.restarts,
            backs: self.backs,
            early: false,
            stale: false,
            left_out: false,
        }]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        out.extend((state.now < TICKS).then_some(Action::Pass));
        for sweeper in 0..SWEEPERS {
            match state.read[sweeper] {
                None if state.next <= state.now => out.push(Action::Read(sweeper)),
                None => {}
                Some(_) => out.extend([Action::Tick(sweeper), Action::LostTick(sweeper), Action::Die(sweeper)]),
            }
        }
        out.extend((state.writes > 0).then_some(Action::Write));
        out.extend((state.restarts > 0).then_some(Action::Restart));
        out.extend((state.backs > 0 && state.now > 0).then_some(Action::Back));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        match action {
            Action::Pass => next.now += 1,
            Action::Read(sweeper) => next.read[sweeper] = Some((last.next, last.revision)),
            Action::Tick(sweeper) => {
                next.read[sweeper] = None;
                self.tick(&mut next, last.read[sweeper]?);
            }
            Action::LostTick(sweeper) => self.tick(&mut next, last.read[sweeper]?),
            Action::Die(sweeper) => next.read[sweeper] = None,
            Action::Write => {
                next.writes -= 1;
                next.revision += 1;
            }
            Action::Restart => {
                next.restarts -= 1;
                next.revision += 1;
                next.next = last.now + 1;
            }
            Action::Back => {
                next.backs -= 1;
                next.now -= 1;
            }
        }
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, state: &State| state.jobs.iter().all(|jobs| *jobs <= 1)),
            Property::always(EARLY, |_, state: &State| !state.early),
            Property::always(PLAN, |_, state: &State| !state.stale),
            Property::always(DONE, |_, state: &State| !state.left_out),
        ]
    }
}
