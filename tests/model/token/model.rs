//! The counter of tokens as a model: its steps, and what must hold.

use crate::guard::{Guard, Guards};
use stateright::{Model, Property};

/// Invariant 3.
pub const ONCE: &str = "no two handlers run under one token";

/// Workers in the model.
const WORKERS: usize = 2;
/// Claims of one run.
const CLAIMS_MAX: u8 = 5;
/// Redis's clock at the start.
const BEGIN: u8 = 8;

/// The model and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    pub guards: Guards,
    /// How many faults may strike in one run.
    pub faults: u8,
    /// Workers that claim.
    pub workers: usize,
    /// Whether Redis may lose its last writes.
    pub rollback: bool,
    /// Whether its clock may be set back.
    pub behind: bool,
    /// Whether each worker renews after a fault before any of them claims.
    pub renews_first: bool,
}

/// Redis's half and the workers' half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    now: u8,
    counter: u8,
    /// The highest token that each worker has seen.
    seen: [u8; WORKERS],
    /// Which workers have renewed since the last fault.
    renewed: [bool; WORKERS],
    /// The tokens under which a handler was started, a bit for each.
    started: u64,
    claims: u8,
    faults: u8,
    twice: bool,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A claim whose reply arrives, so that a handler is started.
    Claim(usize),
    /// A claim whose reply is lost: nothing is started.
    LostClaim(usize),
    Renew(usize),
    /// Redis continues with the counter as it was so many tokens ago.
    Rollback(u8),
    /// Redis's clock is set back by so much.
    Behind(u8),
}

impl Tokens {
    /// Lost writes, on a server whose clock is right.
    pub fn rolled_back(faults: u8) -> Self {
        Self { guards: Guards::ALL, faults, workers: WORKERS, rollback: true, behind: false, renews_first: false }
    }

    /// Lost writes, and a clock that is behind.
    pub fn all(faults: u8) -> Self {
        Self { behind: true, ..Self::rolled_back(faults) }
    }

    /// A twin that lacks these guards.
    pub fn twin(missing: &[Guard]) -> Self {
        Self { guards: Guards::without(missing), ..Self::rolled_back(1) }
    }

    /// claim.lua
    fn claim(&self, state: &mut State, worker: usize) -> u8 {
        let on = |guard, value| if self.guards.on(guard) { value } else { 0 };
        let last = on(Guard::FreshTokenClaim, state.counter);
        let token = last.max(on(Guard::OutrunClaim, state.now - 1)).max(on(Guard::SeenClaim, state.seen[worker])) + 1;
        state.counter = token;
        state.claims += 1;
        state.now += 1;
        token
    }

    /// renew.lua
    fn renew(&self, state: &mut State, worker: usize) {
        if self.guards.on(Guard::SeenRenew) {
            state.counter = state.counter.max(state.seen[worker]);
        }
        state.renewed[worker] = true;
    }
}

impl Model for Tokens {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: BEGIN,
            counter: 0,
            seen: [0; WORKERS],
            renewed: [true; WORKERS],
            started: 0,
            claims: 0,
            faults: self.faults,
            twice: false,
        }]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        let ready = !self.renews_first || state.renewed.iter().take(self.workers).all(|&renewed| renewed);
        for worker in 0..self.workers {
            out.push(Action::Renew(worker));
            if state.claims < CLAIMS_MAX && ready {
                out.extend([Action::Claim(worker), Action::LostClaim(worker)]);
            }
        }
        if state.faults > 0 {
            out.extend((1..=state.counter).filter(|_| self.rollback).map(Action::Rollback));
            out.extend((1..BEGIN).filter(|by| self.behind && *by < state.now).map(Action::Behind));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        match action {
            Action::Claim(worker) => {
                let token = self.claim(&mut next, worker);
                next.seen[worker] = next.seen[worker].max(token);
                next.twice |= last.started & (1 << token) != 0;
                next.started |= 1 << token;
            }
            Action::LostClaim(worker) => drop(self.claim(&mut next, worker)),
            Action::Renew(worker) => self.renew(&mut next, worker),
            Action::Rollback(by) => next.counter -= by,
            Action::Behind(by) => next.now -= by,
        }
        if matches!(action, Action::Rollback(_) | Action::Behind(_)) {
            next.faults -= 1;
            next.renewed = [false; WORKERS];
        }
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(ONCE, |_, state: &State| !state.twice)]
    }
}
