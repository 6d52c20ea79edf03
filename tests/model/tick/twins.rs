//! Every tick has one job, in time, and each twin of the model that lacks a rule is caught.

use super::model::{EARLY, ONCE, PLAN, Schedule};
use crate::check::{assert_caught, assert_holds, twins};
use crate::guard::Guard::*;

#[test]
fn each_tick_has_one_job_in_time() {
    assert_holds(Schedule::all(), 5_000);
}

twins! {
    Schedule::twin;
    a_sweeper_that_does_not_look_where_the_schedule_stands_is_caught: [UnmovedTick, OnceTick], ONCE, 6;
    a_tick_that_the_clock_brings_back_is_caught: [OnceTick], ONCE, 9;
    a_clock_that_is_set_back_before_the_script_is_caught: [DueTick], EARLY, 5;
    a_plan_that_was_replaced_is_caught: [RevisedTick], PLAN, 8;
}
