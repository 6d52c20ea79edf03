//! No token is given twice, and each twin of the model that lacks a rule is caught.

use super::model::{ONCE, Tokens};
use crate::check::{assert_caught, assert_holds, twins};
use crate::guard::Guard::*;
use crate::guard::Guards;

#[test]
fn lost_writes_give_no_token_twice() {
    assert_holds(Tokens::rolled_back(2), 5_000);
}

#[test]
fn a_clock_that_is_behind_gives_no_token_twice() {
    assert_holds(Tokens { rollback: false, ..Tokens::all(2) }, 5_000);
}

#[test]
fn lost_writes_and_a_clock_that_is_behind_give_no_worker_a_token_twice() {
    assert_holds(Tokens { workers: 1, ..Tokens::all(2) }, 1_000);
}

#[test]
fn lost_writes_and_a_clock_that_is_behind_give_no_token_twice_once_the_workers_have_renewed() {
    assert_holds(Tokens { renews_first: true, ..Tokens::all(2) }, 5_000);
}

/// The limit of what is promised: the new server's clock must be ahead of the claims that were lost.
#[test]
fn lost_writes_and_a_clock_that_is_behind_can_give_a_token_to_a_worker_that_has_not_seen_it() {
    assert_caught(Tokens::all(2), ONCE, 4);
}

#[test]
fn a_claim_that_does_not_heed_what_its_worker_has_seen_is_caught() {
    assert_caught(Tokens { guards: Guards::without(SEEN[0]), workers: 1, ..Tokens::all(2) }, ONCE, 4);
}

#[test]
fn a_renewal_that_does_not_raise_the_counter_is_caught() {
    assert_caught(Tokens { guards: Guards::without(SEEN[1]), renews_first: true, ..Tokens::all(2) }, ONCE, 6);
}

/// Caught by tests of their own, since they need a clock that is behind.
pub const SEEN: &[&[crate::guard::Guard]] = &[&[SeenClaim], &[SeenRenew]];

twins! {
    Tokens::twin;
    a_counter_that_was_rolled_back_is_caught: [OutrunClaim], ONCE, 4;
    a_counter_that_does_not_advance_is_caught: [FreshTokenClaim, OutrunClaim], ONCE, 4;
}
