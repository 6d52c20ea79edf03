//! What must hold in every state of the lease protocol.

use super::broken;
use super::job::Place;
use super::protocol::Protocol;
use super::state::{JOBS, NAMES, State};
use crate::endings;
use stateright::Property;

/// Invariant 1.
pub const IN_ITS_PLACE: &str = "a queued job stands in a queue or is a reservation";
/// Invariant 2.
pub const ONE_LEASE: &str = "running is leased";
/// Invariants 3 and C.
pub const FENCED: &str = "a stale write changes nothing";
/// Invariant 4.
pub const LIFECYCLE: &str = "a job moves as the state machine says, and a final state stays";
pub const SAME_ANSWER: &str = "the same token gets the same answer until the next claim";
pub const CANCEL_KEPT: &str = "a flagged job ends cancelled or completed";
pub const CAUSED: &str = "a job is claimed again only for a cause";
/// Invariant E.
pub const EXECUTIONS: &str = "executions are at most 1 + faults + failures";
/// Invariant 5, first half.
pub const HELD: &str = "only what a live handler runs is renewed";
/// Invariants 5 and B.
pub const NOT_STUCK: &str = "where nothing moves, every job is final and nothing is left behind";

/// All of them.
pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(IN_ITS_PLACE, |_, state: &State| (0..JOBS).all(|job| in_its_place(state, job))),
        Property::always(ONE_LEASE, |_, state: &State| (0..JOBS).all(|job| one_lease(state, job))),
        Property::always(FENCED, |_, state: &State| state.broken & broken::STALE == 0),
        Property::always(LIFECYCLE, |_, state: &State| state.broken & broken::MOVE == 0),
        Property::always(SAME_ANSWER, |_, state: &State| state.broken & broken::ANSWER == 0),
        Property::always(CANCEL_KEPT, |_, state: &State| {
            state
                .jobs
                .iter()
                .all(|job| !job.flagged || !matches!(job.place, Place::Queued | Place::Retrying | Place::Failed))
        }),
        Property::always(CAUSED, |_, state: &State| state.broken & broken::CAUSE == 0),
        Property::always(EXECUTIONS, |_, state: &State| state.broken & broken::EXECUTION == 0),
        Property::always(HELD, |_, state: &State| state.broken & broken::UNHELD == 0),
        Property::always(NOT_STUCK, endings::not_stuck),
    ]
}

fn in_its_place(state: &State, job: usize) -> bool {
    let reserved = |worker: usize| state.claimed[worker][job] > 0;
    state.jobs[job].place != Place::Queued || state.queue[job] > 0 || (0..NAMES).any(reserved)
}

fn one_lease(state: &State, job: usize) -> bool {
    (state.jobs[job].place == Place::Running) == state.jobs[job].lease.is_some()
}
