//! Each guard of the Store's verbs: what it lets through, and what it refuses without a trace.
use std::time::Duration;

use leasehold::job::{Due, NewBatch, Priority};
use leasehold::store::{Cancelled, ClaimRequest, Removed, Reservation, Retried, Settled};
use leasehold::{Error, NewJob, Refusal, State, Timestamp};

use crate::clocked_store::*;

on_ground! {
    async fn a_job_goes_from_submit_to_completed(g: &Ground) {
        let id = g.submit(job()).await;
        assert_eq!(g.state(&id).await, State::Queued);
        let claimed = g.claim_one("w1").await;
        assert_eq!((claimed.held.id.clone(), claimed.payload.as_str()), (id.clone(), "{\"n\":1}"));
        let running = g.get(&id).await;
        assert_eq!((running.state, running.token), (State::Running, Some(claimed.held.token)));
        assert_eq!(running.lease_expires_at, Some(Timestamp(g.now() + LEASE as i64)));
        assert_eq!(g.settle("w1", complete(&claimed.held)).await, Settled::To(State::Completed));
        let done = g.get(&id).await;
        assert_eq!((done.state, done.result.unwrap().as_str()), (State::Completed, "{\"ok\":true}"));
        assert_eq!(done.worker, Some(worker("w1")));
    }

    async fn a_settle_sent_again_gets_the_same_answer_until_the_next_claim(g: &Ground) {
        let id = g.submit(job()).await;
        let first = g.claim_one("w1").await.held;
        for _ in 0..2 {
            assert_eq!(g.settle("w1", fail(&first, Some(5_000))).await, Settled::To(State::Retrying));
        }
        assert_eq!(g.get(&id).await.attempt, 2, "one failure was counted once");
        g.pass(6_000).await;
        assert_eq!(g.settle("w1", fail(&first, Some(5_000))).await, Settled::To(State::Retrying));
        let second = g.claim_one("w2").await.held;
        assert!(second.token > first.token);
        assert_eq!(g.settle("w1", complete(&first)).await, Settled::Stale);
        assert_eq!(g.settle("w2", release(&second)).await, Settled::To(State::Queued));
        assert_eq!(g.settle("w2", release(&second)).await, Settled::To(State::Queued));
        assert_eq!(g.claim("w3", 9).await.len(), 1, "a release sent again queues it once");
    }

    async fn only_the_holder_settles(g: &Ground) {
        g.submit(job()).await;
        let held = g.claim_one("w1").await.held;
        assert_eq!(g.settle("w2", complete(&held)).await, Settled::Stale);
        let forged = leasehold::store::Held { token: held.token + 1, ..held.clone() };
        assert_eq!(g.settle("w1", complete(&forged)).await, Settled::Stale);
        assert_eq!(g.settle("w1", complete(&held)).await, Settled::To(State::Completed));
    }

    async fn the_last_failed_attempt_fails_the_job_and_a_retry_starts_anew(g: &Ground) {
        let id = g.submit(job()).await;
        let held = g.claim_one("w1").await.held;
        assert_eq!(g.settle("w1", fail(&held, None)).await, Settled::To(State::Failed));
        assert_eq!(g.get(&id).await.error.unwrap().message, "no");
        assert_eq!(g.store.retry(std::slice::from_ref(&id)).await.unwrap(), [Ok(Retried::Queued)]);
        assert_eq!(g.settle("w1", fail(&held, None)).await, Settled::To(State::Failed), "the old token hears the old answer");
        let again = g.get(&id).await;
        assert_eq!((again.state, again.attempt, again.error), (State::Queued, 1, None));
        assert!(matches!(g.store.retry(&[id]).await.unwrap()[0], Err(Refusal::WrongState { state: State::Queued, .. })));
        g.claim_one("w1").await;
    }

    async fn a_lost_lease_is_reclaimed_once_and_its_late_result_refused(g: &Ground) {
        let id = g.submit(job()).await;
        g.renew("w1", &[]).await;
        let lost = g.claim_one("w1").await.held;
        g.pass(LEASE as i64 + 1_000).await;
        assert_eq!((g.state(&id).await, g.get(&id).await.crashes), (State::Queued, 1));
        assert_eq!(g.settle("w1", complete(&lost)).await, Settled::Stale);
        let suspect = g.claim_one("w2").await;
        assert_eq!(suspect.crashes, 1);
        assert_eq!(g.settle("w1", complete(&lost)).await, Settled::Stale);
        assert_eq!(g.settle("w2", complete(&suspect.held)).await, Settled::To(State::Completed));
    }

    async fn a_renewed_lease_is_not_reclaimed(g: &Ground) {
        let id = g.submit(job()).await;
        let held = g.claim_one("w1").await.held;
        for _ in 0..10 {
            g.pass(5_000).await;
            let answers: Vec<_> = g.renew("w1", std::slice::from_ref(&held)).await.into_iter().flat_map(|r| r.answers).collect();
            assert_eq!(answers, [leasehold::store::Renewal::Renewed]);
        }
        assert_eq!(g.state(&id).await, State::Running);
    }

    async fn a_job_that_keeps_losing_its_worker_fails_as_crashed(g: &Ground) {
        let id = g.submit(job()).await;
        for _ in 0..3 {
            g.claim_one("w1").await;
            g.pass(LEASE as i64 + 1_000).await;
        }
        let job = g.get(&id).await;
        assert_eq!((job.state, job.crashes), (State::Failed, 3));
        assert_eq!(serde_json::to_value(job.error.unwrap()).unwrap()["code"], "crashed");
    }

    async fn after_an_outage_nothing_is_reclaimed_for_one_lease(g: &Ground) {
        let id = g.submit(job()).await;
        let held = g.claim_one("w1").await.held;
        g.pass(2_000).await;
        g.advance(3 * LEASE as i64);
        g.sweep().await;
        assert_eq!(g.state(&id).await, State::Running, "everybody was away: its holder may be alive");
        g.renew("w1", &[held]).await;
        g.pass(LEASE as i64 - 2_000).await;
        assert_eq!(g.state(&id).await, State::Running);
        g.pass(LEASE as i64).await;
        assert_eq!(g.state(&id).await, State::Queued, "its holder did not come back");
    }

    async fn a_clock_set_back_takes_no_lease_and_gives_none_for_ever(g: &Ground) {
        let id = g.submit(job()).await;
        g.claim_one("w1").await;
        g.pass(2_000).await;
        g.advance(-3_600_000);
        g.pass(LEASE as i64 - 2_000).await;
        assert_eq!(g.state(&id).await, State::Running);
        g.pass(2 * LEASE as i64).await;
        assert_eq!(g.state(&id).await, State::Queued, "the lease was cut to what it may be");
    }

    async fn a_checkpoint_forgives_crashes(g: &Ground) {
        let id = g.submit(job()).await;
        g.claim_one("w1").await;
        g.pass(LEASE as i64 + 1_000).await;
        let held = g.claim_one("w1").await.held;
        let report = |n: &str| {
            let checkpoint = Some(json(n));
            leasehold::store::Report { held: held.clone(), progress: None, checkpoint, warning: None }
        };
        assert_eq!(g.store.report(&worker("w1"), &[report("1")]).await.unwrap(), [true]);
        assert_eq!(g.get(&id).await.crashes, 0);
        assert_eq!(g.store.report(&worker("w2"), &[report("2")]).await.unwrap(), [false]);
        g.settle("w1", release(&held)).await;
        assert_eq!(g.claim_one("w2").await.checkpoint, Some(json("1")));
    }

    async fn a_reservation_is_leased_by_its_worker_only(g: &Ground) {
        let id = g.submit(job()).await;
        let mut popper = g.store.popper(0).await.unwrap();
        let partition = g.store.partition_of(&id);
        let reservation =
            popper.reserve(partition, &queue("default"), &worker("w1"), Duration::from_secs(1)).await.unwrap().unwrap();
        assert_eq!(reservation, Reservation { queue: queue("default"), id: id.clone() });
        assert_eq!(g.state(&id).await, State::Queued);
        assert!(claim_reserved(g, "w2", &reservation).await.is_empty(), "it is not in w2's list");
        let held = claim_reserved(g, "w1", &reservation).await.pop().unwrap();
        assert!(claim_reserved(g, "w1", &reservation).await.is_empty(), "it runs already");
        g.settle("w1", complete(&held)).await;
    }

    async fn a_reservation_nobody_leased_is_recovered(g: &Ground) {
        let id = g.submit(job()).await;
        let partition = g.store.partition_of(&id);
        g.renew("w1", &[]).await;
        let mut popper = g.store.popper(0).await.unwrap();
        popper.reserve(partition, &queue("default"), &worker("w1"), Duration::from_secs(1)).await.unwrap().unwrap();
        assert!(g.claim("w2", 9).await.is_empty());
        g.pass(LEASE as i64 + 2_000).await;
        let held = g.claim_one("w2").await.held;
        assert_eq!((held.id.clone(), g.get(&id).await.crashes), (id.clone(), 0));
        assert_eq!(g.store.recover(partition, &worker("w2"), std::slice::from_ref(&id)).await.unwrap(), 0, "what is held is not recovered");
        assert_eq!(g.state(&id).await, State::Running);
    }

    async fn a_cancelled_job_is_never_claimed(g: &Ground) {
        let (id, other) = (g.submit(job()).await, g.submit(job()).await);
        assert_eq!(g.store.cancel(std::slice::from_ref(&id)).await.unwrap(), [Ok(Cancelled::Done)]);
        assert_eq!(g.store.cancel(std::slice::from_ref(&id)).await.unwrap(), [Ok(Cancelled::Done)], "asked again: the same");
        assert_eq!(g.claim("w1", 9).await.iter().map(|j| &j.held.id).collect::<Vec<_>>(), [&other]);
        assert_eq!(g.state(&id).await, State::Cancelled);
    }

    async fn a_running_job_is_flagged_and_ends_cancelled_unless_it_completes_first(g: &Ground) {
        for (outcome, end) in [("complete", State::Completed), ("fail", State::Cancelled), ("release", State::Cancelled)] {
            let id = g.submit(job()).await;
            let held = g.claim_one("w1").await.held;
            assert_eq!(g.store.cancel(std::slice::from_ref(&id)).await.unwrap(), [Ok(Cancelled::Requested)]);
            assert!(g.get(&id).await.cancel_requested);
            let answers: Vec<_> = g.renew("w1", std::slice::from_ref(&held)).await.into_iter().flat_map(|r| r.answers).collect();
            assert_eq!(answers, [leasehold::store::Renewal::Cancel]);
            let settle = match outcome {
                "complete" => complete(&held),
                "fail" => fail(&held, Some(1)),
                _ => release(&held),
            };
            assert_eq!(g.settle("w1", settle.clone()).await, Settled::To(end));
            assert_eq!(g.settle("w1", settle).await, Settled::To(end));
            assert!(!g.get(&id).await.cancel_requested);
            assert!(matches!(g.store.cancel(&[id]).await.unwrap()[..], [Ok(Cancelled::Done)] | [Err(Refusal::WrongState { .. })]));
        }
    }

    async fn a_flagged_job_that_loses_its_worker_ends_cancelled(g: &Ground) {
        let id = g.submit(job()).await;
        g.claim_one("w1").await;
        g.store.cancel(std::slice::from_ref(&id)).await.unwrap()[0].clone().unwrap();
        g.pass(LEASE as i64 + 1_000).await;
        assert_eq!(g.state(&id).await, State::Cancelled);
    }

    async fn a_scheduled_job_waits_for_its_time(g: &Ground) {
        let id = g.submit(NewJob { due: Due::In(5_000), ..job() }).await;
        let at = g.submit(NewJob { due: Due::At(Timestamp(g.now() + 5_000)), ..job() }).await;
        let past = g.submit(NewJob { due: Due::At(Timestamp(1)), ..job() }).await;
        assert_eq!([g.state(&id).await, g.state(&at).await, g.state(&past).await], [State::Scheduled, State::Scheduled, State::Queued]);
        g.pass(4_000).await;
        assert_eq!(g.claim("w1", 9).await.len(), 1);
        g.pass(2_000).await;
        assert_eq!(g.claim("w1", 9).await.len(), 2);
    }

    async fn an_idempotency_key_submits_once(g: &Ground) {
        let first = g.store.submit(keyed("k", "d")).await.unwrap();
        let again = g.store.submit(keyed("k", "d")).await.unwrap();
        assert_eq!((again.id.clone(), again.replayed), (first.id.clone(), true));
        assert_eq!(g.store.submit(keyed("k", "other")).await, Err(Error::Refused(Refusal::KeyConflict(first.id.clone()))));
        g.store.cancel(std::slice::from_ref(&first.id)).await.unwrap()[0].clone().unwrap();
        assert_eq!(g.store.remove(std::slice::from_ref(&first.id)).await.unwrap(), [Ok(Removed::Done)]);
        assert_eq!(g.store.submit(keyed("k", "d")).await, Err(Error::Refused(Refusal::KeyGone(first.id))));
    }

    async fn max_running_holds_over_all_workers_and_blocks_nobody(g: &Ground) {
        let limited = || NewJob { kind: kind("narrow"), limited: true, ..job() };
        for _ in 0..4 {
            g.submit(limited()).await;
        }
        let wide = g.submit(job()).await;
        let kinds = [("narrow", 2), ("work", 0)];
        let first = g.claim_kinds("w1", 9, &kinds).await;
        assert_eq!(first.iter().filter(|j| j.kind == kind("narrow")).count(), 2);
        assert!(first.iter().any(|j| j.held.id == wide), "the others are not blocked");
        assert!(g.claim_kinds("w2", 9, &kinds).await.is_empty());
        assert_eq!(g.store.queues(None).await.unwrap()[0].queued, 2, "parked ones count in the depth");
        let narrow = first.iter().find(|j| j.kind == kind("narrow")).unwrap();
        g.settle("w1", complete(&narrow.held)).await;
        assert_eq!(g.claim_kinds("w2", 9, &kinds).await.len(), 1);
        g.pass(LEASE as i64 + 1_000).await;
        let after = g.claim_kinds("w3", 9, &kinds).await;
        let narrow: Vec<_> = after.iter().filter(|j| j.kind == kind("narrow")).collect();
        assert_eq!((narrow.len(), narrow.iter().filter(|j| j.crashes > 0).count()), (2, 1), "one suspect a worker");
    }

    async fn a_kind_nobody_here_serves_is_parked_until_somebody_does(g: &Ground) {
        let foreign = g.submit(NewJob { kind: kind("foreign"), ..job() }).await;
        let own = g.submit(job()).await;
        assert_eq!(g.claim("w1", 9).await.iter().map(|j| &j.held.id).collect::<Vec<_>>(), [&own]);
        assert_eq!(g.state(&foreign).await, State::Queued);
        assert_eq!(g.claim_kinds("w2", 9, &[("foreign", 0)]).await[0].held.id, foreign);
    }

    async fn a_paused_queue_gives_nothing_until_resumed(g: &Ground) {
        let id = g.submit(job()).await;
        g.store.pause(&queue("default"), true).await.unwrap();
        assert!(g.claim("w1", 9).await.is_empty());
        let partition = g.store.partition_of(&id);
        let mut popper = g.store.popper(0).await.unwrap();
        let wait = Duration::from_secs(1);
        let reservation = popper.reserve(partition, &queue("default"), &worker("w1"), wait).await.unwrap().unwrap();
        assert!(claim_reserved(g, "w1", &reservation).await.is_empty(), "what a pop brought goes back");
        assert!(g.store.queues(None).await.unwrap()[0].paused);
        g.store.pause(&queue("default"), false).await.unwrap();
        assert_eq!(g.claim_one("w1").await.held.id, id);
    }

    async fn a_batch_counts_each_end_once_and_finishes(g: &Ground) {
        let parent = g.submit(batch(4)).await;
        assert_eq!(g.state(&parent).await, State::Waiting);
        let items = g.claim("w1", 9).await;
        assert_eq!(items.len(), 4);
        for _ in 0..2 {
            g.settle("w1", complete(&items[0].held)).await;
            g.settle("w1", fail(&items[1].held, None)).await;
        }
        g.store.cancel(std::slice::from_ref(&items[2].held.id)).await.unwrap()[0].clone().unwrap();
        g.settle("w1", fail(&items[2].held, Some(1))).await;
        let skip = leasehold::store::Outcome::Complete { result: json("null"), skipped: Some("none".into()), files: Vec::new() };
        g.settle("w1", leasehold::store::Settle { held: items[3].held.clone(), outcome: skip }).await;
        let done = g.get(&parent).await;
        let counts = done.items.unwrap();
        assert_eq!((done.state, counts.succeeded, counts.failed, counts.cancelled, counts.skipped), (State::Completed, 1, 1, 1, 1));
        assert!(matches!(g.store.retry(std::slice::from_ref(&items[1].held.id)).await.unwrap()[0], Err(Refusal::RetryParent(_))));
        assert_eq!(g.store.retry(std::slice::from_ref(&parent)).await.unwrap(), [Ok(Retried::Waiting)]);
        g.sweep().await;
        let again = g.claim("w2", 9).await;
        assert_eq!(again.len(), 2, "the failed and the cancelled one");
        for item in again {
            g.settle("w2", complete(&item.held)).await;
        }
        assert_eq!(g.get(&parent).await.items.unwrap().succeeded, 3);
        assert_eq!(g.store.remove(std::slice::from_ref(&parent)).await.unwrap(), [Ok(Removed::Done)]);
        assert!(g.store.get(&parent).await.unwrap().is_none());
        assert!(g.store.get(&items[0].held.id).await.unwrap().is_none());
    }

    async fn a_batch_in_parts_takes_each_part_once(g: &Ground) {
        let open = NewJob { batch: Some(NewBatch { open: true, then: Some(kind("work")), ..NewBatch::default() }), ..job() };
        let parent = g.submit(open).await;
        let part: Vec<_> = (0..3).map(|n| json(&n.to_string())).collect();
        for _ in 0..2 {
            assert_eq!(g.store.add_items(&parent, 0, &part, false).await.unwrap(), 3);
        }
        assert_eq!(g.store.add_items(&parent, 5, &part, false).await, Err(Error::Refused(Refusal::Gap(3))));
        assert_eq!(g.store.add_items(&parent, 2, &part, true).await.unwrap(), 5);
        assert_eq!(g.store.add_items(&parent, 4, &part[..1], true).await.unwrap(), 5, "the last part sent again");
        assert_eq!(g.store.add_items(&parent, 5, &part, true).await, Err(Error::Refused(Refusal::Sealed(5))));
        for item in g.claim("w1", 9).await {
            g.settle("w1", complete(&item.held)).await;
        }
        let then = g.claim_one("w1").await;
        assert_eq!(then.held.id, parent, "its `then` runs over the finished items");
        g.settle("w1", complete(&then.held)).await;
        assert_eq!(g.state(&parent).await, State::Completed);
    }

    async fn a_cancelled_batch_leaves_no_living_item(g: &Ground) {
        let parent = g.submit(batch(1_200)).await;
        let running = g.claim_one("w1").await.held;
        assert_eq!(g.store.cancel(std::slice::from_ref(&parent)).await.unwrap(), [Ok(Cancelled::Requested)]);
        g.sweep().await;
        let counts = g.get(&parent).await.items.unwrap();
        assert_eq!((g.state(&parent).await, counts.cancelled), (State::Waiting, 1_199), "one still runs");
        g.settle("w1", release(&running)).await;
        let done = g.get(&parent).await;
        assert_eq!((done.state, done.items.unwrap().cancelled), (State::Cancelled, 1_200));
        assert_eq!(g.store.retry(std::slice::from_ref(&parent)).await.unwrap(), [Ok(Retried::Waiting)]);
        g.sweep().await;
        assert_eq!(g.get(&parent).await.items.unwrap().cancelled, 0);
        g.store.cancel(std::slice::from_ref(&parent)).await.unwrap()[0].clone().unwrap();
        g.sweep().await;
        assert_eq!(g.state(&parent).await, State::Cancelled);
    }

    async fn an_unsealed_batch_is_cancelled_after_its_hour(g: &Ground) {
        let open = NewJob { batch: Some(NewBatch { open: true, ..NewBatch::default() }), ..job() };
        let parent = g.submit(open).await;
        g.store.add_items(&parent, 0, &[json("1")], false).await.unwrap();
        g.sweep().await;
        g.advance(3_600_000);
        g.sweep().await;
        assert_eq!(g.state(&parent).await, State::Waiting, "nobody could send a part while the clock jumped");
        for _ in 0..399 {
            g.advance(9_000);
            g.sweep().await;
        }
        assert_eq!(g.state(&parent).await, State::Waiting);
        g.advance(9_000);
        g.sweep().await;
        g.sweep().await;
        assert_eq!(g.state(&parent).await, State::Cancelled);
    }

    async fn what_has_expired_is_pruned(g: &Ground) {
        let id = g.submit(job()).await;
        let held = g.claim_one("w1").await.held;
        g.settle("w1", complete(&held)).await;
        g.elapse(7 * 86_400_000 - 1_000).await;
        g.sweep().await;
        assert_eq!(g.state(&id).await, State::Completed);
        g.advance(2_000);
        g.sweep().await;
        assert!(g.store.get(&id).await.unwrap().is_none());
    }

    async fn a_settle_of_a_job_that_is_gone_writes_nothing(g: &Ground) {
        let ids = [g.submit(job()).await, g.submit(job()).await];
        let held: Vec<_> = g.claim("w1", 2).await.into_iter().map(|job| job.held).collect();
        let key = format!("lh:{{{}}}:job:{}", g.store.partition_of(&ids[0]), ids[0]);
        g.redis.command::<()>(&["DEL", &key]).await;
        let settles: Vec<_> = ids.iter().map(|id| complete(held.iter().find(|held| held.id == *id).unwrap())).collect();
        let settled = g.store.settle_many(&worker("w1"), &settles).await.unwrap();
        assert_eq!(settled, [Settled::Missing, Settled::To(State::Completed)]);
        assert!(!g.redis.command::<bool>(&["EXISTS", &key]).await);
        for finding in g.store.check().await.unwrap() {
            assert_eq!(finding.subject, ids[0].to_string());
            g.store.repair(&finding).await.unwrap();
        }
    }

    async fn a_claim_that_is_sent_again_with_fewer_slots_releases_the_others(g: &Ground) {
        let parent = g.submit(batch(5)).await;
        let partition = g.store.partition_of(&parent);
        g.renew("w1", &[]).await;
        let claim = async |number: u64, slots: usize| {
            let (name, queues, kinds) = (worker("w1"), [(queue("default"), slots)], [(kind("work"), 0)]);
            let request = ClaimRequest { number, queues: &queues, kinds: &kinds, ..claim_of(&name, slots) };
            g.store.claim(partition, &request).await.unwrap().jobs.into_iter().map(|j| j.held).collect::<Vec<_>>()
        };
        let first = claim(7, 4).await;
        assert_eq!(first.len(), 4);
        g.store.cancel(std::slice::from_ref(&first[1].id)).await.unwrap()[0].clone().unwrap();
        assert_eq!(claim(7, 1).await, first[..1]);
        assert_eq!(claim(7, 4).await, first[..1], "what was released is not brought again");
        let states = [g.state(&first[1].id).await, g.state(&first[2].id).await, g.state(&first[3].id).await];
        assert_eq!(states, [State::Running, State::Queued, State::Queued], "a flagged job ends with its lease");
        assert_eq!(g.settle("w1", complete(&first[2])).await, Settled::Stale);
        let next = claim(8, 2).await;
        let ids: Vec<_> = next.iter().map(|held| &held.id).collect();
        assert_eq!(ids, [&first[2].id, &first[3].id], "in their order");
        assert_eq!(claim(7, 4).await, [], "a copy that arrives after the next claim leases nothing");
        let last = claim(9, 4).await;
        for held in [&first[0], &next[0], &next[1], &last[0]] {
            assert_eq!(g.settle("w1", complete(held)).await, Settled::To(State::Completed));
        }
        g.elapse(2 * LEASE as i64).await;
        g.sweep().await;
        assert_eq!(g.state(&first[1].id).await, State::Cancelled);
    }

    async fn a_claim_that_is_sent_again_gets_the_jobs_of_the_first(g: &Ground) {
        let ids = [g.submit(job()).await, g.submit(job()).await];
        g.renew("w1", &[]).await;
        for partition in 0..g.store.partitions() {
            let here: Vec<_> = ids.iter().filter(|id| g.store.partition_of(id) == partition).collect();
            let claim = async |name: &str, number: u64| {
                let (name, queues, kinds) = (worker(name), [(queue("default"), 1)], [(kind("work"), 0)]);
                let request = ClaimRequest { number, queues: &queues, kinds: &kinds, ..claim_of(&name, 1) };
                g.store.claim(partition, &request).await.unwrap().jobs.into_iter().map(|j| j.held).collect::<Vec<_>>()
            };
            let first = claim("w1", 7).await;
            assert_eq!(first.iter().map(|held| &held.id).collect::<Vec<_>>(), here[..here.len().min(1)]);
            assert_eq!(claim("w1", 7).await, first, "the same tokens");
            let Some(held) = first.first() else { continue };
            g.settle("w1", complete(held)).await;
            assert_eq!(claim("w1", 7).await, [], "what has ended is not brought again");
            let next = claim("w1", 8).await;
            assert!(next.iter().all(|other| other.id != held.id) && next.len() == here.len() - 1);
            assert_eq!(claim("w2", 7).await, [], "the number is the worker's");
        }
    }

    async fn wrong_types_are_set_aside_and_stop_nobody(g: &Ground) {
        let id = g.submit(job()).await;
        let p = g.store.partition_of(&id);
        let broken = g.submit(job()).await;
        let key = |p: u16, suffix: &str| format!("lh:{{{p}}}:{suffix}");
        let broken_key = key(g.store.partition_of(&broken), &format!("job:{broken}"));
        g.redis.command::<()>(&["SET", &broken_key, "garbage"]).await;
        g.redis.command::<()>(&["SET", &key(p, "leases"), "garbage"]).await;
        g.redis.command::<()>(&["SET", &key(p, "claimed:w1"), "garbage"]).await;
        g.redis.command::<()>(&["LPUSH", &key(p, "running"), "garbage"]).await;
        let claimed = g.claim("w1", 9).await;
        assert_eq!(claimed.iter().map(|j| &j.held.id).collect::<Vec<_>>(), [&id]);
        assert_eq!(g.settle("w1", complete(&claimed[0].held)).await, Settled::To(State::Completed));
        g.renew("w1", &[]).await;
        let found = g.store.check().await.unwrap();
        assert!(found.iter().any(|f| f.subject == key(p, "leases") && f.problem.contains("set aside")), "{found:?}");
        for partition in 0..g.store.partitions() {
            g.redis.command::<()>(&["DEL", &key(partition, "quarantine")]).await;
        }
        let mended: Vec<_> = g.store.check().await.unwrap();
        for finding in &mended {
            assert!(finding.subject == broken.to_string(), "{finding:?}");
            g.store.repair(finding).await.unwrap();
        }
    }
}

async fn claim_reserved(g: &Ground, name: &str, reservation: &Reservation) -> Vec<leasehold::store::Held> {
    let (worker, reservations) = (worker(name), [reservation.clone()]);
    let kinds = [(kind("work"), 0)];
    let request = ClaimRequest { reservations: &reservations, kinds: &kinds, ..claim_of(&worker, 1) };
    let partition = g.store.partition_of(&reservation.id);
    g.store.claim(partition, &request).await.unwrap().jobs.into_iter().map(|j| j.held).collect()
}

#[tokio::test]
async fn priorities_are_taken_high_own_low() {
    let g = Ground::new(1).await;
    let mut ids = Vec::new();
    for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Low, Priority::High] {
        ids.push(g.submit(NewJob { priority, ..job() }).await);
    }
    // The first came to an empty queue, so it stands in the own list, where an idle worker blocks.
    let order: Vec<_> = g.claim("w1", 9).await.into_iter().map(|j| j.held.id).collect();
    let expected: Vec<_> = [2, 4, 0, 1, 3].map(|at: usize| ids[at].clone()).to_vec();
    assert_eq!(order, expected);
    g.end().await;
}

#[tokio::test]
async fn a_claim_that_leaves_the_own_list_empty_moves_the_next_over() {
    let g = Ground::new(1).await;
    for priority in [Priority::Normal, Priority::High, Priority::High] {
        g.submit(NewJob { priority, ..job() }).await;
    }
    g.claim("w1", 2).await;
    assert_eq!((g.length(0, "queue:default").await, g.length(0, "queue:default:high").await), (1, 0));
    g.end().await;
}

#[tokio::test]
async fn the_next_name_beyond_the_bound_is_refused() {
    let g = Ground::new(1).await;
    for n in 0..leasehold::limits::NAMES_MAX {
        g.submit(NewJob { kind: kind(&format!("k{n}")), ..job() }).await;
    }
    let refused = g.store.submit(NewJob { kind: kind("one-more"), queue: queue("new"), ..job() }).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::TooManyNames { .. }))), "{refused:?}");
    let queues: Vec<String> = g.redis.command(&["SMEMBERS", "lh:{0}:queues"]).await;
    assert_eq!(queues, ["default"], "a refused submit adds no name");
    // As many queues, and no kind.
    let rename = async |from: &str, to: &str| g.redis.command::<()>(&["RENAME", from, to]).await;
    rename("lh:{0}:queues", "kept").await;
    rename("lh:{0}:kinds", "lh:{0}:queues").await;
    let refused = g.store.submit(NewJob { queue: queue("new"), ..job() }).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::TooManyNames { .. }))), "{refused:?}");
    assert_eq!(g.redis.command::<usize>(&["SCARD", "lh:{0}:kinds"]).await, 0);
    rename("lh:{0}:queues", "lh:{0}:kinds").await;
    rename("kept", "lh:{0}:queues").await;
    g.end().await;
}
