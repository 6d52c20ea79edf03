//! Names of queues and kinds: how an unused one goes, by hand and by the sweep.
use leasehold::job::Due;
use leasehold::limits::NAMES_MAX;
use leasehold::{Error, JobId, NewJob, Refusal, State};

use crate::clocked_store::*;

fn in_use(result: leasehold::Result<()>) -> String {
    match result {
        Err(Error::Refused(Refusal::QueueInUse { reason, .. })) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn has_queue(g: &Ground, name: &str) -> bool {
    !g.store.queues(Some(&queue(name))).await.unwrap().is_empty()
}

on_ground! {
    async fn a_queue_is_removed_only_when_nothing_uses_it(g: &Ground) {
        let name = queue("reports");
        let of_it = || NewJob { queue: name.clone(), ..job() };
        let unknown = g.store.remove_queue(&name).await;
        assert!(matches!(unknown, Err(Error::Refused(Refusal::NoQueue(_)))), "{unknown:?}");
        g.store.pause(&name, true).await.unwrap();
        let cancel = async |id: &JobId| g.store.cancel(std::slice::from_ref(id)).await.unwrap();
        let waiting = g.submit(of_it()).await;
        assert!(in_use(g.store.remove_queue(&name).await).contains("jobs wait in it"));
        assert!(g.store.queues(Some(&name)).await.unwrap()[0].paused, "a refused removal changes nothing");
        cancel(&waiting).await;
        for (new, state) in [
            (NewJob { due: Due::In(60_000), ..of_it() }, "scheduled"),
            (NewJob { queue: name.clone(), ..batch(0) }, "waiting"),
        ] {
            let open = leasehold::job::NewBatch { open: true, ..Default::default() };
            let new = NewJob { batch: new.batch.is_some().then_some(open), ..new };
            let id = g.submit(new).await;
            let reason = in_use(g.store.remove_queue(&name).await);
            assert!(reason.contains(&format!("job {id} is {state}")), "{reason}");
            cancel(&id).await;
            g.pass(2_000).await;
        }
        g.store.remove_queue(&name).await.unwrap();
        assert!(!has_queue(g, "reports").await);
        let again = g.store.remove_queue(&name).await;
        assert!(matches!(again, Err(Error::Refused(Refusal::NoQueue(_)))), "{again:?}");
        g.renew("w1", &[]).await;
        g.submit(job()).await;
        g.claim_one("w1").await;
        let reason = in_use(g.store.remove_queue(&queue("default")).await);
        assert!(reason.contains("worker w1 serves it"), "{reason}");
    }

    async fn a_queue_with_parked_or_retrying_jobs_is_not_removed(g: &Ground) {
        let name = queue("default");
        let id = g.submit(NewJob { kind: kind("other"), ..job() }).await;
        assert_eq!(g.claim("w1", 1).await.len(), 0, "it is parked");
        assert!(in_use(g.store.remove_queue(&name).await).contains("jobs wait in it"));
        let held = g.claim_kinds("w1", 1, &[("other", 0)]).await.pop().unwrap().held;
        assert!(in_use(g.store.remove_queue(&name).await).contains("is running"));
        g.settle("w1", fail(&held, Some(60_000))).await;
        assert!(in_use(g.store.remove_queue(&name).await).contains(&format!("job {id} is retrying")));
    }
}

#[tokio::test]
async fn a_full_table_of_names_takes_new_ones_once_the_sweep_has_dropped_the_unused() {
    const KEPT: usize = 10;
    let g = Ground::new(1).await;
    let named = |n: String| NewJob { kind: kind(&format!("k{n}")), queue: queue(&format!("q{n}")), ..job() };
    let jobs = (0..NAMES_MAX).map(|n| named(n.to_string())).collect();
    let ids: Vec<JobId> = g.store.submit_many(jobs).await.unwrap().into_iter().map(|s| s.unwrap().id).collect();
    let refused = g.store.submit(named("-more".into())).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::TooManyNames { .. }))), "{refused:?}");
    for answer in g.store.cancel(&ids[KEPT..]).await.unwrap() {
        answer.unwrap();
    }
    for answer in g.store.remove(&ids[KEPT..]).await.unwrap() {
        answer.unwrap();
    }
    let size = async |set: &str| g.redis.command::<usize>(&["SCARD", &format!("lh:{{0}}:{set}")]).await;
    for _ in 0..200 {
        g.pass(SWEEP as i64).await;
        if size("queues").await <= NAMES_MAX / 2 && size("kinds").await <= NAMES_MAX / 2 {
            break;
        }
    }
    let more = (0..NAMES_MAX / 2).map(|n| named(format!("-{n}"))).collect();
    for answer in g.store.submit_many(more).await.unwrap() {
        answer.unwrap();
    }
    // What has a job has kept its names.
    let queues = g.store.queues(None).await.unwrap();
    for (n, id) in ids[..KEPT].iter().enumerate() {
        assert_eq!(g.state(id).await, State::Queued);
        assert!(queues.iter().any(|q| q.name.as_str() == format!("q{n}") && q.queued == 1), "q{n}");
    }
    g.end().await;
}

/// Submits `n` plain jobs.
async fn submit_plain(g: &Ground, n: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for chunk in vec![(); n].chunks(1_000) {
        let jobs = chunk.iter().map(|()| job()).collect();
        ids.extend(g.store.submit_many(jobs).await.unwrap().into_iter().map(|s| s.unwrap().id));
    }
    ids
}

async fn cancel_all(g: &Ground, ids: &[JobId]) {
    for answer in g.store.cancel(ids).await.unwrap() {
        answer.unwrap();
    }
}

#[tokio::test]
async fn the_list_of_a_queue_that_nobody_serves_does_not_grow_by_cancelled_jobs() {
    let g = Ground::new(1).await;
    g.store.pause(&queue("default"), true).await.unwrap();
    let ids = submit_plain(&g, 4_000).await;
    // Near both ends a cancel removes the id itself.
    for _ in 0..20 {
        let id = g.submit(job()).await;
        cancel_all(&g, &[id]).await;
    }
    cancel_all(&g, &ids[..20]).await;
    assert_eq!(g.length(0, "queue:default").await, 3_980);
    // Further in, sweeps do as soon as it is among the 200 ids at one of the ends.
    cancel_all(&g, &ids[100..500]).await;
    cancel_all(&g, &ids[3_500..3_900]).await;
    assert!(g.length(0, "queue:default").await > 3_180, "the cancel is bounded");
    for _ in 0..500 {
        if g.length(0, "queue:default").await == 3_180 {
            break;
        }
        g.pass(SWEEP as i64).await;
    }
    let kept: Vec<String> = g.redis.command(&["LRANGE", "lh:{0}:queue:default", "0", "-1"]).await;
    let expected = ids[20..100].iter().chain(&ids[500..3_500]).chain(&ids[3_900..]);
    assert!(kept.into_iter().rev().eq(expected.map(JobId::to_string)), "in their order");
    // Lists by priority, of suspects and parked ones.
    let high = g.submit(NewJob { priority: leasehold::job::Priority::High, ..job() }).await;
    let other = g.submit(NewJob { kind: kind("other"), queue: queue("second"), ..job() }).await;
    let () = g.redis.command(&["RPOPLPUSH", "lh:{0}:queue:second", "lh:{0}:parked:second:other"]).await;
    let () = g.redis.command(&["SADD", "lh:{0}:parked:second", "other"]).await;
    cancel_all(&g, &[high, other]).await;
    assert_eq!(g.length(0, "queue:default:high").await + g.length(0, "parked:second:other").await, 0);
    g.end().await;
}

#[tokio::test]
async fn a_cancelled_batch_has_no_history_for_each_queued_item() {
    let g = Ground::new(1).await;
    let parent = g.submit(batch(600)).await;
    let held = g.claim_one("w1").await.held;
    cancel_all(&g, std::slice::from_ref(&parent)).await;
    g.pass(3_000).await;
    g.settle("w1", complete(&held)).await;
    let lists: Vec<String> = g.redis.command(&["KEYS", "lh:{0}:history:*"]).await;
    assert_eq!(lists.len(), 2, "that of the batch, and that of the item that ran: {lists:?}");
    let item = g.store.item_id(&parent, 0, 599);
    let events: Vec<String> = g.store.history(&item).await.unwrap().into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["submit", "cancelled"]);
    assert_eq!(g.length(0, "queue:default").await, 0);
    g.pass(2_000).await;
    g.end().await;
}

/// How long the oldest job of the queue has been waiting, ms.
async fn oldest(g: &Ground) -> Option<u64> {
    g.store.queues(Some(&queue("default"))).await.unwrap()[0].oldest_wait_ms
}

#[tokio::test]
async fn the_oldest_wait_is_that_of_a_job_that_waits() {
    let g = Ground::new(1).await;
    let gone = submit_plain(&g, 5).await;
    g.elapse(60_000).await;
    let waits = g.submit(job()).await;
    cancel_all(&g, &gone).await;
    // As it is where a cancel has not found the ids in a long list.
    for id in &gone {
        let () = g.redis.command(&["RPUSH", "lh:{0}:queue:default", id.as_str()]).await;
    }
    g.elapse(7_000).await;
    assert_eq!(oldest(&g).await, Some(7_000));
    g.store.remove(&gone).await.unwrap();
    assert_eq!(oldest(&g).await, Some(7_000), "removed ones wait as little");
    cancel_all(&g, &[waits]).await;
    assert_eq!(oldest(&g).await, None);
    // A delayed job waits from when it is due, and a retried one from its retry.
    g.submit(NewJob { due: Due::In(3_600_000), ..job() }).await;
    g.elapse(3_601_000).await;
    g.sweep().await;
    assert_eq!(oldest(&g).await, Some(1_000));
    let held = g.claim_one("w1").await.held;
    g.settle("w1", fail(&held, Some(600_000))).await;
    g.elapse(601_000).await;
    g.sweep().await;
    g.elapse(2_000).await;
    assert_eq!(oldest(&g).await, Some(2_000));
    let held = g.claim_one("w1").await.held;
    g.settle("w1", fail(&held, None)).await;
    g.elapse(480_000).await;
    g.store.retry(std::slice::from_ref(&held.id)).await.unwrap()[0].clone().unwrap();
    g.elapse(3_000).await;
    assert_eq!(oldest(&g).await, Some(3_000));
    g.end().await;
}

#[tokio::test]
async fn more_queues_than_one_call_visits_are_listed() {
    const QUEUES: usize = 700;
    let g = Ground::new(1).await;
    let named = |n: usize| NewJob { queue: queue(&format!("q{n}")), ..job() };
    for answer in g.store.submit_many((0..QUEUES).map(named).collect()).await.unwrap() {
        answer.unwrap();
    }
    const { assert!(4 * QUEUES > leasehold::limits::QUEUE_LISTS) };
    let queues = g.store.queues(None).await.unwrap();
    assert_eq!(queues.len(), QUEUES);
    assert!(queues.iter().all(|q| q.queued == 1 && q.oldest_wait_ms == Some(0)));
    g.end().await;
}

#[tokio::test]
async fn a_permit_whose_record_and_job_are_gone_is_dropped() {
    let g = Ground::new(1).await;
    let kinds = leasehold::Kinds::parse("[kinds.limited]\nmax_running = 1", "/".into()).unwrap();
    g.store.register_kinds(&kinds).await.unwrap();
    let () = g.redis.command(&["SADD", "lh:{0}:permits:limited", "lost"]).await;
    let id = g.submit(NewJob { kind: kind("limited"), limited: true, ..job() }).await;
    assert_eq!(g.claim_kinds("w1", 1, &[("limited", 1)]).await.len(), 0, "the permit is held");
    g.pass(2_000).await;
    let held = g.claim_kinds("w1", 1, &[("limited", 1)]).await.pop().expect("the permit is free").held;
    assert_eq!(held.id, id);
    g.pass(2_000).await;
    let permits: usize = g.redis.command(&["SCARD", "lh:{0}:permits:limited"]).await;
    assert_eq!(permits, 1, "that of the running job");
    g.end().await;
}

#[tokio::test]
async fn a_suspect_brings_the_name_of_its_queue_back() {
    let g = Ground::new(1).await;
    let id = g.submit(job()).await;
    g.renew("w1", &[]).await;
    g.claim_one("w1").await;
    // As the sweep drops the name of an empty queue.
    let () = g.redis.command(&["SREM", "lh:{0}:queues", "default"]).await;
    g.pass(LEASE as i64 + 1_000).await;
    assert_eq!((g.state(&id).await, g.get(&id).await.crashes), (State::Queued, 1));
    assert!(has_queue(&g, "default").await);
    g.end().await;
}

#[tokio::test]
async fn a_submit_repeated_after_its_job_was_removed_does_not_run_it_again() {
    let g = Ground::new(1).await;
    let network = leasehold_tests::Proxy::start(g.redis.port()).await;
    let store = g.store_at(network.url()).await.unwrap();
    g.submit(job()).await;
    let held = g.claim_one("w1").await.held;
    g.settle("w1", complete(&held)).await;
    let submit = || leasehold_tests::proxy::script(leasehold::store::script_sha("submit").unwrap());
    let lost = network.drop_reply_to(submit(), 1, leasehold_tests::proxy::Then::BlackHole);
    let again = tokio::spawn(async move { store.submit(job()).await });
    lost.fired().await;
    let held = g.claim_one("w1").await.held;
    g.settle("w1", complete(&held)).await;
    g.store.remove(std::slice::from_ref(&held.id)).await.unwrap()[0].clone().unwrap();
    network.heal().await;
    let answer = again.await.unwrap().expect("the repetition is answered");
    assert_eq!(answer.id, held.id);
    assert_eq!(g.store.get(&held.id).await.unwrap().map(|job| job.state), None, "it has run once");
    let remembered: i64 = g.redis.command(&["PTTL", "lh:{0}:gone"]).await;
    assert!((1..=leasehold::limits::RESENT_MS as i64).contains(&remembered), "{remembered}");
    g.end().await;
}
