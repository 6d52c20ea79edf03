//! What gaps and steps of Redis's clock must not cost: leases of other lengths, open batches, ended jobs.
use leasehold::job::NewBatch;
use leasehold::store::ClaimRequest;
use leasehold::{JobId, NewJob, State};

use crate::clocked_store::*;

const HOUR: i64 = 3_600_000;

/// Leases one job for `name` with a lease of this length, ms.
async fn claim_for(g: &Ground, id: &JobId, name: &str, lease_ms: u64) -> leasehold::store::Held {
    let (worker, queues, kinds) = (worker(name), [(queue("default"), 1)], [(kind("work"), 0)]);
    let request = ClaimRequest { lease_ms, queues: &queues, kinds: &kinds, ..claim_of(&worker, 1) };
    let claimed = g.store.claim(g.store.partition_of(id), &request).await.unwrap();
    claimed.jobs.into_iter().next().expect("it is queued").held
}

/// Lets time pass in which a worker with leases of 1 s renews and sweeps in time.
async fn pass_with_short_leases(g: &Ground, ms: i64) {
    for _ in 0..ms / 250 {
        g.advance(250);
        g.renew_for("short", &[], 1_000).await;
        g.sweep_for(1_000).await;
    }
}

on_ground! {
    async fn a_hiccup_that_endangers_short_leases_delays_no_other_reclaim(g: &Ground) {
        let id = g.submit(job()).await;
        g.renew_for("long", &[], HOUR as u64).await;
        g.renew_for("short", &[], 1_000).await;
        claim_for(g, &id, "dead", LEASE).await;
        pass_with_short_leases(g, 29_000).await;
        g.advance(400);
        pass_with_short_leases(g, 3_000).await;
        assert_eq!(g.state(&id).await, State::Queued, "its lease has expired, and the grace was a second");
    }

    async fn an_outage_costs_no_long_lease_when_a_short_one_comes_back_first(g: &Ground) {
        let id = g.submit(job()).await;
        g.renew_for("short", &[], 1_000).await;
        g.renew("w1", &[]).await;
        let held = claim_for(g, &id, "w1", LEASE).await;
        pass_with_short_leases(g, 2_000).await;
        g.advance(61_000);
        pass_with_short_leases(g, 4_000).await;
        assert_eq!(g.state(&id).await, State::Running, "its worker has a lease's time to come back");
        g.advance(400);
        pass_with_short_leases(g, 2_000).await;
        assert_eq!(g.state(&id).await, State::Running, "a hiccup in the grace does not end it");
        g.renew("w1", std::slice::from_ref(&held)).await;
        pass_with_short_leases(g, 25_000).await;
        assert_eq!(g.state(&id).await, State::Running);
        pass_with_short_leases(g, 10_000).await;
        assert_eq!(g.state(&id).await, State::Queued, "and then it is reclaimed");
    }

    async fn a_longest_lease_that_is_gone_cuts_none_of_the_others(g: &Ground) {
        let id = g.submit(job()).await;
        g.renew_for("longest", &[], 60_000).await;
        g.renew("w1", &[]).await;
        let held = claim_for(g, &id, "w1", LEASE).await;
        for _ in 0..40 {
            pass_with_short_leases(g, 5_000).await;
            g.renew("w1", std::slice::from_ref(&held)).await;
        }
        pass_with_short_leases(g, 4_000).await;
        let ends = g.get(&id).await.lease_expires_at.expect("it is running").0 - g.now();
        assert_eq!(ends, LEASE as i64 - 4_000);
    }

    async fn a_gap_after_an_outage_does_not_hide_it_from_open_batches(g: &Ground) {
        let open = NewBatch { open: true, ..NewBatch::default() };
        let parent = g.submit(NewJob { batch: Some(open), ..job() }).await;
        g.sweep().await;
        g.pass(49 * 60_000).await;
        g.advance(50 * 60_000);
        g.sweep().await;
        g.advance(15_000);
        g.sweep().await;
        g.pass(60_000).await;
        assert_eq!(g.state(&parent).await, State::Waiting, "its client had 11 minutes left");
        g.pass(12 * 60_000).await;
        assert_eq!(g.state(&parent).await, State::Cancelled);
    }

    async fn a_clock_that_jumps_ahead_for_a_while_removes_nothing(g: &Ground) {
        let id = g.submit(job()).await;
        let held = g.claim_one("w1").await.held;
        g.settle("w1", complete(&held)).await;
        g.pass(2_000).await;
        g.advance(30 * 86_400_000);
        g.pass(60_000).await;
        assert_eq!(g.state(&id).await, State::Completed);
        g.advance(-30 * 86_400_000);
        g.pass(2_000).await;
        assert_eq!(g.state(&id).await, State::Completed);
        for _ in 0..(7 * 24) {
            g.pass(4_000).await;
            g.advance(HOUR);
        }
        g.pass(2 * HOUR / 100).await;
        g.advance(10 * 86_400_000);
        g.sweep().await;
        g.pass(HOUR + 60_000).await;
        assert!(g.store.get(&id).await.unwrap().is_none(), "an outage delays the removal by an hour");
    }

    async fn the_times_of_a_job_never_run_backwards(g: &Ground) {
        let id = g.submit(job()).await;
        g.advance(-3_000);
        let held = g.claim_one("w1").await.held;
        g.advance(-5_000);
        g.settle("w1", complete(&held)).await;
        let job = g.get(&id).await;
        let times = [Some(job.created_at), job.started_at, job.finished_at].map(Option::unwrap);
        assert!(times.is_sorted() && job.updated_at >= times[2], "{times:?}");
    }
}

on_ground! {
    async fn a_delay_that_was_given_while_the_clock_was_ahead_is_what_was_asked_for(g: &Ground) {
        use leasehold::job::Due;
        use leasehold::Timestamp;
        g.renew("w1", &[]).await;
        let begun = g.submit(job()).await;
        g.sweep().await;
        g.advance(HOUR);
        g.renew("w1", &[]).await;
        let delayed = g.submit(NewJob { due: Due::In(5_000), ..job() }).await;
        let at = g.now() + HOUR;
        let timed = g.submit(NewJob { due: Due::At(Timestamp(at)), ..job() }).await;
        let held = claim_for(g, &begun, "w1", LEASE).await;
        g.settle("w1", fail(&held, Some(7_000))).await;
        g.sweep().await;
        g.advance(-HOUR);
        g.renew("w1", &[]).await;
        g.pass(4_000).await;
        assert_eq!((g.state(&delayed).await, g.state(&begun).await), (State::Scheduled, State::Retrying));
        g.pass(2_500).await;
        assert_eq!((g.state(&delayed).await, g.state(&begun).await), (State::Queued, State::Retrying));
        g.pass(2_500).await;
        assert_eq!(g.state(&begun).await, State::Queued);
        let timed = g.get(&timed).await;
        assert_eq!((timed.state, timed.scheduled_at.map(|at| at.0)), (State::Scheduled, Some(at)), "a time is a time");
        let given = g.submit(NewJob { due: Due::In(2 * HOUR as u64), ..job() }).await;
        g.pass(2_000).await;
        assert_eq!(g.state(&given).await, State::Scheduled, "a delay that was given since is kept");
    }
}
