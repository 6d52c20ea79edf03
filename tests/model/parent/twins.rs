//! A batch holds, and each twin of it that lacks a rule is caught.

use super::model::*;
use crate::check::{assert_caught, assert_holds, twins};
use crate::endings::assert_every_run_ends;
use crate::guard::Guard::*;

#[test]
fn three_faults_and_retries_break_no_batch() {
    assert_holds(Batch::new(3, false), 100_000);
    assert_every_run_ends(&Batch::new(3, false));
}

#[test]
fn three_faults_and_retries_break_no_batch_with_a_handler_of_its_own() {
    assert_holds(Batch::new(3, true), 140_000);
    assert_every_run_ends(&Batch::new(3, true));
}

twins! {
    Batch::twin;
    items_numbered_by_nobody_are_caught: [NumberedItems], COUNTS_TELL, 8;
    items_after_the_seal_are_caught: [UnsealedItems], CANCEL_REACHES, 8;
    an_item_counted_on_a_repeated_settle_is_caught: [CountedFinish], COUNTS_TELL, 8;
    an_item_revived_and_still_counted_is_caught: [RevivedFinish], COUNTS_TELL, 8;
    a_parent_that_finishes_unsealed_is_caught: [SealedFinish], NO_LIVING_ITEMS, 8;
    a_parent_that_finishes_within_a_cascade_is_caught: [CascadedFinish], NO_LIVING_ITEMS, 12;
    a_cancel_forgotten_at_the_finish_is_caught: [FlaggedFinish], CANCEL_KEPT, 8;
    an_item_retried_under_a_final_or_cancelled_parent_is_caught: [ParentRetry], NO_LIVING_ITEMS, 8;
    a_cancel_that_does_not_seal_is_caught: [SealingCancel], CANCEL_REACHES, 8;
    a_parent_left_open_by_a_dead_client_is_caught: [OpenCancel], NOT_STUCK, 8;
    a_cascade_that_dies_with_its_process_is_caught: [StandingCascade], CANCEL_REACHES, 8;
}
