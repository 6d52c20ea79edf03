//! The state machine, as a table. The scripts in `store/lua` name their verbs in a `Transition:` line, and
//! ARCHITECTURE.md has the same table; a test checks that the three agree.
use serde::{Deserialize, Serialize};

/// The state of a job. The state of a living job follows from the key that holds its id; only final states and
/// `waiting`, `scheduled`, `retrying` are stored in its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A parent whose items have not all ended.
    Waiting,
    /// Not due yet.
    Scheduled,
    /// In a list, for a worker to claim.
    Queued,
    /// Held by a worker on lease.
    Running,
    /// Failed, and waiting for its back-off to pass.
    Retrying,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by a cancel.
    Cancelled,
}

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [State; 8] = [
        State::Waiting,
        State::Scheduled,
        State::Queued,
        State::Running,
        State::Retrying,
        State::Completed,
        State::Failed,
        State::Cancelled,
    ];

    /// The word in keys, JSON and routes.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Scheduled => "scheduled",
            State::Queued => "queued",
            State::Running => "running",
            State::Retrying => "retrying",
            State::Completed => "completed",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// The state named by a word.
    pub fn parse(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// Whether the job has ended: only an operator's retry leaves such a state.
    pub fn is_final(self) -> bool {
        matches!(self, State::Completed | State::Failed | State::Cancelled)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What can happen to a job. The same word names the event, the Store's method, the script, the route and the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // The table below describes each.
pub enum Verb {
    Submit,
    Import,
    Promote,
    Claim,
    Renew,
    Complete,
    Fail,
    Release,
    Reclaim,
    Recover,
    Lose,
    Cancel,
    Finish,
    Retry,
    Remove,
    Prune,
}

impl Verb {
    /// The verb's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Submit => "submit",
            Verb::Import => "import",
            Verb::Promote => "promote",
            Verb::Claim => "claim",
            Verb::Renew => "renew",
            Verb::Complete => "complete",
            Verb::Fail => "fail",
            Verb::Release => "release",
            Verb::Reclaim => "reclaim",
            Verb::Recover => "recover",
            Verb::Lose => "lose",
            Verb::Cancel => "cancel",
            Verb::Finish => "finish",
            Verb::Retry => "retry",
            Verb::Remove => "remove",
            Verb::Prune => "prune",
        }
    }
}

/// The transitions of one verb: from any of `from` (empty: no job yet) to any of `to` (empty: the job is removed).
#[derive(Debug)]
pub struct Transition {
    /// The verb.
    pub verb: Verb,
    /// The states in which it applies.
    pub from: &'static [State],
    /// The states it may lead to.
    pub to: &'static [State],
    /// The actor.
    pub by: &'static str,
}

use State::{Cancelled, Completed, Failed, Queued, Retrying, Running, Scheduled, Waiting};

const fn row(verb: Verb, from: &'static [State], to: &'static [State], by: &'static str) -> Transition {
    Transition { verb, from, to, by }
}

/// The state machine.
pub const TRANSITIONS: &[Transition] = &[
    row(Verb::Submit, &[], &[Queued, Scheduled, Waiting], "client"),
    row(Verb::Import, &[], &[Queued, Waiting, Completed, Failed, Cancelled], "operator"),
    row(Verb::Promote, &[Scheduled, Retrying], &[Queued], "sweeper"),
    row(Verb::Claim, &[Queued], &[Running], "worker"),
    row(Verb::Renew, &[Running], &[Running], "worker"),
    row(Verb::Complete, &[Running], &[Completed], "worker"),
    row(Verb::Fail, &[Running], &[Retrying, Failed, Cancelled], "worker"),
    row(Verb::Release, &[Running], &[Queued, Retrying, Cancelled], "worker"),
    row(Verb::Reclaim, &[Running], &[Queued, Failed, Cancelled], "sweeper"),
    row(Verb::Recover, &[Queued], &[Queued], "worker's audit, sweeper"),
    row(Verb::Lose, &[Scheduled, Queued, Running, Retrying], &[Failed], "sweeper"),
    row(Verb::Cancel, &[Scheduled, Queued, Retrying, Running, Waiting], &[Cancelled, Running, Waiting], "client"),
    row(Verb::Finish, &[Waiting], &[Completed, Queued, Cancelled], "script that ends an item"),
    row(Verb::Retry, &[Failed, Cancelled, Completed], &[Queued, Waiting], "operator"),
    row(Verb::Remove, &[Completed, Failed, Cancelled], &[], "operator"),
    row(Verb::Prune, &[Completed, Failed, Cancelled], &[], "sweeper"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_living_state_can_be_left_and_every_state_entered() {
        for state in State::ALL {
            assert!(TRANSITIONS.iter().any(|t| t.to.contains(&state)), "{state} is never entered");
            if !state.is_final() {
                let leaves = |t: &&Transition| t.from.contains(&state) && t.to.iter().any(|s| *s != state);
                assert!(TRANSITIONS.iter().any(|t| leaves(&t)), "{state} is never left");
            }
        }
    }

    #[test]
    fn only_retry_remove_and_prune_leave_a_final_state() {
        for t in TRANSITIONS.iter().filter(|t| t.from.iter().any(|s| s.is_final())) {
            assert!(matches!(t.verb, Verb::Retry | Verb::Remove | Verb::Prune), "{:?}", t.verb);
        }
    }
}
