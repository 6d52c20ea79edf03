//! A batch as a model: its steps, and what must hold.

use super::state::{Client, Counts, Handler, ITEMS, Place, State, Verdict};
use crate::endings::{self, Ends};
use crate::guard::{Guard, Guards};
use stateright::{Model, Property};

/// Invariant 4, second half.
pub const COUNTS_TELL: &str = "a parent's counts are those of its items";
pub const NO_LIVING_ITEMS: &str = "a parent that has finished has no living items and takes no more";
pub const AT_ONCE: &str = "a parent finishes in the script that makes it ready";
pub const CANCEL_REACHES: &str = "after a cancel's last step each living item is flagged";
pub const CANCEL_KEPT: &str = "a parent cancelled while it waits ends cancelled";
pub const FINAL_STAYS: &str = "a final item stays but for a retry";
pub const NOT_STUCK: &str = "where nothing moves, the parent and its items are final";

/// The model and its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub guards: Guards,
    /// Faults and an operator's retries.
    pub faults: u8,
    /// Whether the parent has a handler of its own.
    pub then: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The client sends its next part.
    Submit,
    Claim(usize),
    Settle(usize, usize, Verdict),
    Cascade,
    /// The parent's own handler is claimed, and completes.
    Then,
    /// An unsealed parent whose client is gone is cancelled after an hour.
    Expire,
    Cancel,
    CancelItem(usize),
    Fault(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    SubmitReplyLost,
    SettleReplyLost(usize, usize, Verdict),
    /// The lease runs out while the handler lives.
    Reclaim(usize),
    ClientGone,
    /// Whoever took a cascade's steps dies.
    CascadeLost,
    Retry,
    RetryItem(usize),
}

impl Batch {
    /// The healthy model.
    pub fn new(faults: u8, then: bool) -> Self {
        Self { guards: Guards::ALL, faults, then }
    }

    /// A twin that lacks these guards.
    pub fn twin(missing: &[Guard]) -> Self {
        Self { guards: Guards::without(missing), ..Self::new(2, false) }
    }

    fn submit(&self, state: &mut State, replied: bool) {
        let Client::Sends { part } = state.client else { return };
        let taken = state.submit(self, part);
        if replied {
            state.client = if taken && part == 0 { Client::Sends { part: 1 } } else { Client::Done };
        }
    }

    fn settle(&self, state: &mut State, item: usize, slot: usize, verdict: Verdict, replied: bool) {
        let Some(handler) = state.items[item].handlers[slot] else { return };
        state.settle(self, item, handler.token, verdict);
        let unanswered = Handler { sent: Some(verdict), ..handler };
        state.items[item].handlers[slot] = (!replied).then_some(unanswered);
    }

    fn strike(&self, state: &mut State, fault: Fault) {
        state.faults -= 1;
        match fault {
            Fault::SubmitReplyLost => self.submit(state, false),
            Fault::SettleReplyLost(item, slot, verdict) => self.settle(state, item, slot, verdict, false),
            Fault::Reclaim(item) => state.reclaim(self, item),
            Fault::ClientGone => state.client = Client::Gone,
            Fault::CascadeLost if self.guards.on(Guard::StandingCascade) => {}
            Fault::CascadeLost => state.parent.cascade = None,
            Fault::Retry => state.retry(),
            Fault::RetryItem(item) => state.retry_item(self, item),
        }
    }
}

impl Model for Batch {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.faults)]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        out.extend([Action::Submit, Action::Cascade, Action::Then, Action::Expire, Action::Cancel]);
        let mut faults = vec![Fault::SubmitReplyLost, Fault::ClientGone, Fault::CascadeLost, Fault::Retry];
        for item in 0..ITEMS {
            out.extend([Action::Claim(item), Action::CancelItem(item)]);
            faults.extend([Fault::Reclaim(item), Fault::RetryItem(item)]);
            for (slot, handler) in state.items[item].handlers.iter().enumerate() {
                for verdict in [Verdict::Complete, Verdict::Fail] {
                    if handler.is_some_and(|handler| handler.sent.is_none_or(|sent| sent == verdict)) {
                        out.push(Action::Settle(item, slot, verdict));
                        faults.push(Fault::SettleReplyLost(item, slot, verdict));
                    }
                }
            }
        }
        if state.faults > 0 {
            out.extend(faults.into_iter().map(Action::Fault));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        match action {
            Action::Submit => self.submit(&mut next, true),
            Action::Claim(item) if last.items[item].place == Place::Queued => next.claim(item),
            Action::Settle(item, slot, verdict) => self.settle(&mut next, item, slot, verdict, true),
            Action::Cascade => next.cascade(self),
            Action::Then => match last.parent.place {
                Place::Queued => next.parent.place = Place::Running,
                Place::Running => next.parent.place = Place::Completed,
                _ => return None,
            },
            Action::Expire if last.client == Client::Gone && !last.parent.sealed => {
                if self.guards.on(Guard::OpenCancel) && !last.parent.flagged {
                    next.cancel(self);
                }
            }
            Action::Cancel if !last.parent.flagged => next.cancel(self),
            Action::CancelItem(item) => next.cancel_item(self, item),
            Action::Fault(Fault::Reclaim(item)) if last.items[item].place != Place::Running => return None,
            Action::Fault(Fault::ClientGone) if !matches!(last.client, Client::Sends { part: 1 }) => return None,
            Action::Fault(fault) => self.strike(&mut next, fault),
            _ => return None,
        }
        let unchanged = State { faults: last.faults, ..next } == *last;
        (!unchanged).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(COUNTS_TELL, |_, state: &State| counts_tell(state)),
            Property::always(NO_LIVING_ITEMS, |_, state: &State| {
                matches!(state.parent.place, Place::Absent | Place::Waiting)
                    || state.parent.sealed && state.living().count() == 0
            }),
            Property::always(AT_ONCE, |_, state: &State| {
                state.parent.place != Place::Waiting
                    || !state.parent.sealed
                    || state.parent.cascade.is_some()
                    || state.living().count() > 0
            }),
            Property::always(CANCEL_REACHES, |_, state: &State| {
                !state.parent.flagged || state.parent.cascade.is_some() || state.living().all(|item| item.flagged)
            }),
            Property::always(CANCEL_KEPT, |_, state: &State| {
                !state.parent.refused || matches!(state.parent.place, Place::Waiting | Place::Cancelled)
            }),
            Property::always(FINAL_STAYS, |_, state: &State| !state.broken),
            Property::always(NOT_STUCK, endings::not_stuck),
        ]
    }
}

fn counts_tell(state: &State) -> bool {
    let mut counts = Counts::default();
    for item in state.items.iter().filter(|item| item.place != Place::Absent) {
        *counts.of(item.place) += 1;
    }
    counts == state.parent.counts
}

impl Ends for Batch {
    fn is_chance(action: &Action) -> bool {
        matches!(action, Action::Fault(_) | Action::Cancel | Action::CancelItem(_))
    }

    fn is_over(state: &State) -> bool {
        state.parent.place.is_final()
            && state.living().count() == 0
            && state.items.iter().all(|item| item.handlers == [None; 2])
    }
}
