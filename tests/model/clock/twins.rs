//! The grace holds, and each twin of it that lacks a rule is caught.

use super::model::{Clock, DEAD_RECLAIMED, LIVE_KEPT};
use super::state::LEASE;
use crate::check::{assert_caught, assert_holds, twins};
use crate::guard::Guard::*;

#[test]
fn two_faults_cost_no_live_worker_its_lease_and_keep_no_dead_ones() {
    assert_holds(Clock::new(2), 54_000);
}

#[test]
#[ignore = "ten seconds: no outage is too short to be seen"]
fn three_faults_that_are_seen_cost_no_live_worker_its_lease() {
    assert_holds(Clock { gap_max: 1, ..Clock::new(3) }, 1_000_000);
}

/// The limit of what is promised: executions stay below 1 + faults.
#[test]
fn three_outages_too_short_for_a_gap_and_too_close_for_a_renewal_cost_a_lease() {
    assert_caught(Clock::new(3), LIVE_KEPT, 16);
}

#[test]
fn a_gap_of_half_a_lease_is_too_long() {
    assert_caught(Clock { gap_max: LEASE / 2, ..Clock::new(2) }, LIVE_KEPT, 16);
}

#[test]
fn a_gap_of_a_lease_is_too_long() {
    assert_caught(Clock { gap_max: LEASE, ..Clock::new(1) }, LIVE_KEPT, 16);
}

#[test]
fn a_grace_that_a_small_step_back_ends_is_caught() {
    assert_caught(Clock { grace_max: LEASE, ..Clock::new(2) }, LIVE_KEPT, 16);
}

twins! {
    Clock::twin;
    a_reclaim_without_grace_is_caught: [GraceClock], LIVE_KEPT, 16;
    a_reclaim_that_does_not_look_at_the_clock_first_is_caught: [StampedReclaim], LIVE_KEPT, 16;
    a_lease_far_ahead_that_is_not_cut_is_caught: [CutReclaim], DEAD_RECLAIMED, 40;
    a_stamp_that_keeps_no_gap_is_caught: [GapClock], LIVE_KEPT, 16;
    a_second_gap_that_hides_the_first_is_caught: [OldestClock], LIVE_KEPT, 40;
}
