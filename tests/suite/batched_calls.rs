//! Calls for many jobs at once: none of them gets what belongs to another, or waits for it.
use std::time::Duration;

use leasehold::job::NewBatch;
use leasehold::store::{Held, Settled};
use leasehold::{Config, NewJob, State, Store};
use leasehold_tests::Proxy;
use leasehold_tests::proxy::Shape;

use crate::clocked_store::*;

/// A batch without items, whose `then` is due at once.
fn ready(then: &str) -> NewJob {
    NewJob { batch: Some(NewBatch { items: Vec::new(), open: false, then: Some(kind(then)) }), ..job() }
}

on_ground! {
    async fn a_then_that_is_claimed_beside_plain_jobs_of_its_batchs_kind_keeps_its_limit(g: &Ground) {
        let kinds = [("work", 0), ("gather", 1)];
        for _ in 0..20 {
            g.submit(job()).await;
            g.submit(ready("gather")).await;
        }
        let mut gathering = 0;
        for _ in 0..2 {
            gathering += g.claim_kinds("w1", 100, &kinds).await.iter().filter(|job| job.kind == kind("gather")).count();
        }
        assert_eq!(gathering, usize::from(g.store.partitions()), "one in each partition");
    }

    async fn a_settle_that_comes_twice_in_a_call_counts_once(g: &Ground) {
        let parent = g.submit(batch(2)).await;
        let held: Vec<_> = g.claim("w1", 2).await.into_iter().map(|job| job.held).collect();
        let stale = Held { token: held[0].token - 1, ..held[0].clone() };
        for held in &held {
            let settles = [complete(&stale), complete(held), complete(held), complete(&stale), complete(held)];
            let settled = g.store.settle_many(&worker("w1"), &settles).await.unwrap();
            let done = Settled::To(State::Completed);
            assert_eq!(settled, [Settled::Stale, done, done, Settled::Stale, done]);
        }
        let items = g.store.get(&parent).await.unwrap().unwrap().items.unwrap();
        assert_eq!((items.succeeded, items.failed), (2, 0));
    }

    async fn fields_that_somebody_wrote_by_hand_stop_no_claim(g: &Ground) {
        let ids = [g.submit(job()).await, g.submit(job()).await];
        for id in &ids {
            let key = format!("lh:{{{}}}:job:{id}", g.store.partition_of(id));
            let () = g.redis.command(&["HSET", &key, "row", "x", "id", "y", "key", "z", "runs", "other"]).await;
        }
        let mut claimed: Vec<_> = g.claim("w1", 9).await.into_iter().map(|job| job.held.id).collect();
        claimed.sort();
        assert_eq!(claimed, ids);
    }
}

#[tokio::test]
async fn a_job_too_large_for_the_link_keeps_no_other_from_being_read() {
    let g = Ground::new(1).await;
    let large = g.submit(NewJob { payload: json(&format!("\"{}\"", "x".repeat(600_000))), ..job() }).await;
    let small = g.submit(job()).await;
    let proxy = Proxy::start(g.redis.port()).await;
    let config = Config { redis_url: proxy.url(), partitions: Some(1), ..Config::default() };
    let store = Store::connect(&config).await.unwrap();
    store.get(&small).await.unwrap().expect("it is there");
    // The large one takes 6 s, and a reply may take 3 (`redis.response_ms`).
    proxy.shape(Shape { bytes_per_second: 100_000, ..Shape::default() });
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.get(&large).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.get(&small).await.expect("it is read between two attempts").expect("it is there");
    assert!(!reading.is_finished(), "the large one is still being tried");
    reading.abort();
    g.end().await;
}
