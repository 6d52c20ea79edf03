//! What ended jobs are kept for: by age and number in the sweep, and by hand.
use std::path::PathBuf;
use std::time::Duration;

use leasehold::store::{PruneQuery, Pruned};
use leasehold::{JobId, Kinds, NewJob, State};
use leasehold_tests::System;
use reqwest::Method;
use serde_json::json;

use crate::clocked_store::*;

/// Submits a job of a kind and ends it, a second after the one before.
async fn ended(g: &Ground, name: &str, completes: bool) -> JobId {
    let id = g.submit(NewJob { kind: kind(name), ..job() }).await;
    end(g, &id, completes).await;
    id
}

async fn end(g: &Ground, id: &JobId, completes: bool) {
    g.advance(1_000);
    let kinds = ["work", "few", "many", "other"].map(|k| (k, 0));
    let held = g.claim_kinds("w1", 1, &kinds).await.pop().expect("it waits alone").held;
    assert_eq!(held.id, *id);
    g.settle("w1", if completes { complete(&held) } else { fail(&held, None) }).await;
}

async fn left<'a>(g: &Ground, ids: &'a [JobId]) -> Vec<&'a JobId> {
    let jobs = g.store.get_many(ids).await.unwrap();
    ids.iter().zip(jobs).filter(|(_, job)| job.is_some()).map(|(id, _)| id).collect()
}

async fn configure(g: &Ground, text: &str) {
    let kinds = Kinds::parse(text, PathBuf::from("/")).unwrap();
    g.store.register_kinds(&kinds).await.unwrap();
}

fn of(name: &str) -> PruneQuery {
    PruneQuery { kind: Some(kind(name)), ..PruneQuery::default() }
}

on_ground! {
    async fn the_newest_ended_jobs_of_a_kind_are_kept_over_all_partitions(g: &Ground) {
        let mut few = Vec::new();
        for n in 0..12 {
            few.push(ended(g, "few", n % 3 > 0).await);
        }
        let other = ended(g, "other", true).await;
        let living = g.submit(NewJob { kind: kind("few"), ..job() }).await;
        g.sweep().await;
        assert_eq!(left(g, &few).await.len(), 12, "nothing says how many to keep");
        configure(g, "[kinds.few]\nretention = { keep = 5 }").await;
        g.sweep().await;
        assert_eq!(left(g, &few).await, few[7..].iter().collect::<Vec<_>>(), "those that ended last stay");
        g.sweep().await;
        assert_eq!(left(g, &few).await.len(), 5);
        assert_eq!((g.state(&other).await, g.state(&living).await), (State::Completed, State::Queued));
    }

    async fn a_retried_job_is_neither_counted_nor_pruned(g: &Ground) {
        configure(g, "[kinds.few]\nretention = { keep = 1 }").await;
        let (first, second) = (ended(g, "few", false).await, ended(g, "few", true).await);
        g.store.retry(std::slice::from_ref(&first)).await.unwrap()[0].clone().unwrap();
        g.sweep().await;
        assert_eq!((g.state(&first).await, g.state(&second).await), (State::Queued, State::Completed));
        end(g, &first, true).await;
        g.sweep().await;
        assert_eq!(left(g, &[first.clone(), second]).await, [&first], "it ended last");
    }

    async fn a_batch_counts_once_and_goes_with_its_items(g: &Ground) {
        configure(g, "[kinds.work]\nretention = { keep = 1 }").await;
        let parents = [g.submit(batch(3)).await, g.submit(batch(3)).await];
        g.advance(1_000);
        for claimed in g.claim("w1", 6).await {
            g.settle("w1", complete(&claimed.held)).await;
            g.advance(1_000);
        }
        for _ in 0..3 {
            g.sweep().await;
        }
        let stays: Vec<_> = left(g, &parents).await;
        assert_eq!(stays.len(), 1);
        let items = |parent: &JobId| {
            let partition = g.store.partition_of(parent);
            (0..3).map(|n| g.store.item_id(parent, partition, n)).collect::<Vec<_>>()
        };
        for parent in &parents {
            let expected = if parent == stays[0] { 3 } else { 0 };
            assert_eq!(left(g, &items(parent)).await.len(), expected);
        }
    }

    async fn two_sweepers_at_once_remove_no_more_than_one(g: &Ground) {
        let mut few = Vec::new();
        for _ in 0..40 {
            few.push(ended(g, "few", true).await);
        }
        configure(g, "[kinds.few]\nretention = { keep = 11 }").await;
        tokio::join!(g.sweep(), g.sweep(), g.sweep());
        assert_eq!(left(g, &few).await, few[29..].iter().collect::<Vec<_>>());
    }

    async fn each_final_state_is_kept_as_long_as_its_kind_says(g: &Ground) {
        configure(g, "[kinds.few]\nretention = { completed_ms = 60000, failed_ms = 120000, cancelled_ms = 180000 }").await;
        let done = [ended(g, "few", true).await, ended(g, "few", false).await];
        let cancelled = g.submit(NewJob { kind: kind("few"), ..job() }).await;
        g.store.cancel(std::slice::from_ref(&cancelled)).await.unwrap()[0].clone().unwrap();
        let other = ended(g, "other", true).await;
        let ids = [done[0].clone(), done[1].clone(), cancelled, other];
        for expected in [4, 3, 2, 1] {
            assert_eq!(left(g, &ids).await.len(), expected);
            g.elapse(61_000).await;
            g.sweep().await;
        }
        assert_eq!(left(g, &ids).await, [&ids[3]], "the default holds for a kind that is not configured: 7 days");
        g.elapse(7 * 86_400_000).await;
        g.sweep().await;
        assert_eq!(left(g, &ids).await.len(), 0);
    }

    async fn a_prune_by_hand_takes_those_of_which_all_is_true(g: &Ground) {
        let mut many = Vec::new();
        for n in 0..10 {
            many.push(ended(g, "many", n % 2 == 0).await);
        }
        let other = ended(g, "other", false).await;
        let living = g.submit(NewJob { kind: kind("many"), ..job() }).await;
        let failed = PruneQuery { state: Some(State::Failed), ..PruneQuery::default() };
        let count = PruneQuery { dry_run: true, ..failed.clone() };
        assert_eq!(g.store.prune(&count).await.unwrap(), Pruned { deleted: 0, matching: 6, more: false });
        assert_eq!(left(g, &many).await.len(), 10, "only counted");
        let newest_two_failed = PruneQuery { keep: Some(2), ..failed.clone() };
        let pruned = g.store.prune(&PruneQuery { kind: Some(kind("many")), ..newest_two_failed }).await.unwrap();
        assert_eq!((pruned.deleted, pruned.matching), (3, 3));
        let rest: Vec<_> = [0, 2, 4, 6, 7, 8, 9].map(|n: usize| &many[n]).into();
        assert_eq!(left(g, &many).await, rest);
        // The last of them ended one second ago, and the one before it two.
        let old = PruneQuery { older_than_ms: Some(2_000), ..of("many") };
        assert_eq!(g.store.prune(&old).await.unwrap().deleted, 5);
        assert_eq!(left(g, &many).await, [&many[8], &many[9]]);
        assert_eq!(g.store.prune(&failed).await.unwrap().deleted, 2);
        assert_eq!((left(g, &many).await, left(g, std::slice::from_ref(&other)).await.len()), (vec![&many[8]], 0));
        assert_eq!(g.store.prune(&PruneQuery::default()).await.unwrap().deleted, 1, "what lives is never pruned");
        assert_eq!(g.state(&living).await, State::Queued);
    }

    async fn a_prune_by_bytes_keeps_the_newest_that_fit(g: &Ground) {
        let mut many = Vec::new();
        for n in [3_000, 10, 2_000, 2_000] {
            let payload = json(&format!("\"{}\"", "x".repeat(n)));
            let id = g.submit(NewJob { kind: kind("many"), payload, ..job() }).await;
            end(g, &id, true).await;
            many.push(id);
        }
        let batch = g.submit(NewJob { kind: kind("many"), ..batch(2) }).await;
        for n in 0..2 {
            end(g, &g.store.item_id(&batch, g.store.partition_of(&batch), n), true).await;
        }
        let bytes = |bytes_max| PruneQuery { bytes_max: Some(bytes_max), dry_run: true, ..of("many") };
        for (bytes_max, matching) in [(8_000, 0), (7_000, 1), (4_200, 1), (3_000, 3), (20, 5), (0, 5)] {
            assert_eq!(g.store.prune(&bytes(bytes_max)).await.unwrap().matching, matching, "{bytes_max}");
        }
        // One that would fit behind one that did not goes too: older ones never outlive newer ones.
        assert_eq!(g.store.prune(&PruneQuery { dry_run: false, ..bytes(3_000) }).await.unwrap().deleted, 3);
        assert_eq!(left(g, &many).await, [&many[3]]);
        assert_eq!(g.state(&batch).await, State::Completed);
    }

    async fn a_prune_stops_when_its_time_is_up_and_goes_on_when_asked_again(g: &Ground) {
        let jobs: Vec<_> = (0..700).map(|_| NewJob { kind: kind("many"), ..job() }).collect();
        let ids: Vec<_> = g.store.submit_many(jobs).await.unwrap().into_iter().map(|a| a.unwrap().id).collect();
        for answer in g.store.cancel(&ids).await.unwrap() {
            answer.unwrap();
        }
        let none = PruneQuery { within: Some(Duration::ZERO), ..of("many") };
        assert_eq!(g.store.prune(&none).await.unwrap(), Pruned { deleted: 0, matching: 0, more: true });
        let all = PruneQuery { within: Some(Duration::from_secs(60)), ..of("many") };
        assert_eq!(g.store.prune(&all).await.unwrap(), Pruned { deleted: 700, matching: 700, more: false });
        assert_eq!(left(g, &ids).await.len(), 0);
    }
}

#[tokio::test]
async fn a_prune_over_http_counts_first_and_refuses_what_would_take_all() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    api.wait_ready().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await.json["id"].as_str().unwrap().to_owned();
        api.post(&format!("/api/v1/jobs/{id}/cancel"), &json!(null)).await;
        ids.push(id);
    }
    for (query, named, said) in [
        ("", "state", "every finished job"),
        ("?state=queued", "state", "completed, failed, cancelled"),
        ("?kind=echo&older_than_ms=-1", "older_than_ms", "whole number"),
        ("?state=failed&keep=3", "keep", "kind="),
        ("?state=failed&bytes_max=3", "bytes_max", "kind="),
        ("?kind=echo&dry_run=yes", "dry_run", "true or false"),
        ("?older_then_ms=5", "older_then_ms", "known are state, kind, older_than_ms"),
        ("?kind=Echo", "kind", "a-z 0-9"),
    ] {
        let refused = api.delete(&format!("/api/v1/jobs{query}")).await;
        assert_eq!(refused.status, 400, "{query}: {}", refused.text);
        let fault = &refused.json["errors"][0];
        assert!(
            fault.to_string().contains(named) && fault["detail"].as_str().unwrap().contains(said),
            "{query}: {fault}"
        );
    }
    let counted = api.delete("/api/v1/jobs?kind=echo&dry_run=true").await;
    assert_eq!((counted.status, counted.json), (200, json!({"deleted": 0, "matching": 3, "more": false})));
    let kept = api.delete("/api/v1/jobs?kind=echo&state=cancelled&keep=1").await;
    assert_eq!(kept.json, json!({"deleted": 2, "more": false}));
    assert_eq!(api.get(&format!("/api/v1/jobs/{}", ids[2])).await.status, 200);
    let none = api.request(Method::DELETE, "/api/v1/jobs?older_than_ms=3600000");
    assert_eq!(leasehold_tests::api::answer(none).await.json["deleted"], 0);
    system.finish().await;
}
