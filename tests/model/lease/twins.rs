//! The lease protocol holds, and each twin of it that lacks a rule is caught.

use super::properties::*;
use super::protocol::Protocol;
use super::state::JOBS;
use crate::check::{assert_caught, assert_holds, twins};
use crate::endings::{assert_an_end_is_in_reach, assert_every_run_ends};
use crate::guard::Guard::{self, *};

const NONE: [bool; JOBS] = [false; JOBS];
/// What a twin lacks whose runs need not end.
pub const ENDLESS: &[&[Guard]] = &[&[Heard], &[Unanswered]];

#[test]
fn three_everyday_faults_break_nothing() {
    assert_holds(Protocol { fails: NONE, ..Protocol::everyday(3) }, 190_000);
}

#[test]
fn two_faults_of_any_kind_break_nothing() {
    assert_holds(Protocol { cancels: NONE, ..Protocol::any(2) }, 200_000);
}

#[test]
#[ignore = "a minute or two: jobs that fail, too, and all that three_everyday_faults leaves out"]
fn three_everyday_faults_break_nothing_of_jobs_that_fail() {
    assert_holds(Protocol::everyday(3), 400_000);
}

#[test]
#[ignore = "a minute or two: cancels, too"]
fn two_faults_of_any_kind_break_nothing_of_jobs_that_are_cancelled() {
    assert_holds(Protocol::any(2), 400_000);
    assert_every_run_ends(&Protocol { cancels: NONE, ..Protocol::any(2) });
}

#[test]
fn a_slow_renewal_breaks_nothing() {
    let model = Protocol { slow: true, fails: NONE, cancels: NONE, delayed: NONE, ..Protocol::any(1) };
    assert_holds(model, 29_000);
    assert_an_end_is_in_reach(&model);
}

#[test]
fn every_run_ends_however_it_is_scheduled() {
    assert_every_run_ends(&Protocol::everyday(2));
    assert_every_run_ends(&Protocol::any(1));
}

#[test]
#[should_panic(expected = "ends badly or never")]
fn an_audit_that_keeps_its_marks_through_a_claim_is_caught() {
    assert_every_run_ends(&Protocol::any(0).without(ENDLESS[0]));
}

#[test]
#[should_panic(expected = "ends badly or never")]
fn an_audit_that_does_not_wait_is_caught() {
    assert_every_run_ends(&Protocol::any(0).without(ENDLESS[1]));
}

/// So this rule is a second line: what has been recovered since is not leased unless it is queued, either.
#[test]
fn a_claim_of_what_is_queued_need_not_be_in_the_list() {
    assert_holds(Protocol::any(1).without(&[ReservedClaim]), 20_000);
}

twins! {
    Protocol::twin;
    a_submit_that_is_not_idempotent_is_caught: [OnceSubmit], LIFECYCLE, 8;
    a_claim_of_what_is_not_queued_is_caught: [QueuedClaim], LIFECYCLE, 8;
    an_activation_without_check_is_caught: [ReservedClaim, QueuedClaim], LIFECYCLE, 8;
    a_claim_that_is_not_answered_twice_is_caught: [NumberedClaim], CAUSED, 8;
    a_token_that_a_claim_does_not_advance_is_caught: [FreshTokenClaim], FENCED, 8;
    a_renewal_without_fence_is_caught: [HolderRenew], HELD, 8;
    a_report_without_fence_is_caught: [HolderReport], FENCED, 8;
    a_settle_without_fence_is_caught: [HolderSettle], FENCED, 8;
    a_settle_that_forgets_its_answer_is_caught: [SettledSettle], SAME_ANSWER, 8;
    a_fail_that_ignores_a_cancel_is_caught: [FlaggedSettle], CANCEL_KEPT, 8;
    a_reclaim_that_ignores_a_cancel_is_caught: [FlaggedReclaim], CANCEL_KEPT, 8;
    a_recover_of_what_is_not_queued_is_caught: [QueuedRecover], LIFECYCLE, 8;
    a_reclaim_that_reads_first_and_pushes_later_is_caught: [ExpiredReclaim], LIFECYCLE, 8;
    a_promote_that_reads_first_and_pushes_later_is_caught: [DuePromote], LIFECYCLE, 8;
    a_cancel_of_what_is_final_is_caught: [LivingCancel], LIFECYCLE, 8;
    a_retry_of_what_is_not_final_is_caught: [EndedRetry], LIFECYCLE, 8;
    a_dead_worker_dropped_with_its_reservation_is_caught: [EmptyRecover], NOT_STUCK, 8;
    a_live_worker_dropped_too_soon_is_caught: [GoneRecover], NOT_STUCK, 8;
    a_pop_before_registration_is_caught: [Registered], NOT_STUCK, 8;
    a_renewal_of_all_of_mine_is_caught: [Named], HELD, 8;
    a_renewal_of_all_of_mine_without_audit_is_caught: [Named, Audited], NOT_STUCK, 8;
    reservations_without_audit_are_caught: [Audited], NOT_STUCK, 8;
    a_job_started_long_after_its_claim_is_caught: [Prompt], EXECUTIONS, 8;
}
