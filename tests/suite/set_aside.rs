//! A record that cannot be read is set aside, reported once, and its batch ends.
use leasehold::store::Settled;
use leasehold::{Error, JobId, Refusal, State};
use leasehold_tests::eventually;

use crate::clocked_store::*;
use crate::steered_command::{SOON, Work, submit};

fn key(g: &Ground, id: &JobId) -> String {
    format!("lh:{{{}}}:job:{id}", g.store.partition_of(id))
}

async fn run(g: &Ground, command: &[&str]) {
    g.redis.command::<redis::Value>(command).await;
}

/// Accepts what was set aside; nothing else is found.
async fn accept(g: &Ground, count: usize) {
    let found = g.store.check().await.unwrap();
    assert_eq!(found.len(), count, "{found:?}");
    for finding in &found {
        assert!(finding.problem.contains("has been set aside"), "{finding:?}");
        g.store.repair(finding).await.unwrap();
    }
}

async fn swept(g: &Ground) -> usize {
    g.sweep().await.iter().map(|swept| swept.set_aside).sum()
}

#[tokio::test]
async fn the_url_of_a_job_that_was_set_aside_says_where_its_record_is() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let id = submit(&api, "step").await;
    let key = format!("lh:{{0}}:job:{id}");
    work.system.redis().command::<()>(&["HDEL", &key, "payload"]).await;
    let worker = work.system.worker(&[]);
    let aside = key.replace(":job:", ":quarantined:job:");
    eventually(SOON, "the record is set aside", async || {
        let answer = api.get(&format!("/api/v1/jobs/{id}")).await;
        let found = answer.status == 500 && answer.json["detail"].as_str().is_some_and(|d| d.contains(&aside));
        if found { Ok(()) } else { Err(answer.text) }
    })
    .await;
    drop(worker);
    let config = leasehold::Config { redis_url: work.system.redis().url(), ..leasehold::Config::default() };
    let store = leasehold::Store::connect_unchecked(&config).await.unwrap();
    while let Some(finding) = store.check().await.unwrap().pop() {
        store.repair(&finding).await.unwrap();
    }
    work.system.finish().await;
}

on_ground! {
    async fn a_job_without_payload_is_set_aside_and_reported_where(g: &Ground) {
        let (broken, whole) = (g.submit(job()).await, g.submit(job()).await);
        run(g, &["HDEL", &key(g, &broken), "payload"]).await;
        let claimed = g.claim("w1", 9).await;
        assert_eq!(claimed.iter().map(|job| &job.held.id).collect::<Vec<_>>(), [&whole]);
        let Err(Error::Corrupt { key: aside, reason }) = g.store.get(&broken).await else { panic!("it is set aside") };
        assert_eq!(aside, key(g, &broken).replace(":job:", ":quarantined:job:"));
        assert!(reason.contains("payload is missing"), "{reason}");
        assert_eq!((swept(g).await, swept(g).await), (1, 0), "it is reported once");
        g.settle("w1", complete(&claimed[0].held)).await;
        while let Some(finding) = g.store.check().await.unwrap().pop() {
            g.store.repair(&finding).await.unwrap();
        }
        assert_eq!(g.store.get(&broken).await.unwrap(), None, "an operator has accepted it");
    }

    async fn the_batch_of_an_item_that_is_set_aside_ends(g: &Ground) {
        let damages: [&[&str]; 4] = [&["HDEL", "payload"], &["HSET", "crashes", "many"], &["HDEL", "kind"], &["SET"]];
        for damage in damages {
            let parent = g.submit(batch(2)).await;
            let broken = g.store.item_id(&parent, g.store.partition_of(&parent), 1);
            let (command, rest) = damage.split_first().unwrap();
            let key = key(g, &broken);
            let rest = if rest.is_empty() { &["garbage"] } else { rest };
            run(g, &[&[*command, &key], rest].concat()).await;
            let held = g.claim("w1", 9).await.pop().unwrap().held;
            g.settle("w1", complete(&held)).await;
            assert_eq!(g.state(&parent).await, State::Waiting);
            assert_eq!(swept(g).await, 1);
            let batch = g.get(&parent).await;
            let items = batch.items.unwrap();
            assert_eq!((batch.state, items.succeeded, items.failed), (State::Completed, 1, 1), "{damage:?}");
            let item = g.get(&broken).await;
            let error = item.error.unwrap();
            assert!(item.state == State::Failed && error.message.contains(":quarantined:job:"), "{error:?}");
            // Its payload is lost.
            g.store.retry(std::slice::from_ref(&parent)).await.unwrap()[0].clone().unwrap();
            assert_eq!((g.state(&broken).await, g.state(&parent).await), (State::Failed, State::Completed));
            accept(g, 1).await;
        }
    }

    async fn an_item_that_runs_or_has_ended_is_counted_once(g: &Ground) {
        let parent = g.submit(batch(3)).await;
        let held: Vec<_> = g.claim("w1", 9).await.into_iter().map(|job| job.held).collect();
        g.settle("w1", complete(&held[0])).await;
        for held in &held[..2] {
            run(g, &["HSET", &key(g, &held.id), "attempts", "x"]).await;
        }
        assert_eq!(g.settle("w1", fail(&held[0], None)).await, Settled::Missing);
        assert_eq!(g.settle("w1", fail(&held[1], None)).await, Settled::Missing);
        assert_eq!(swept(g).await, 2);
        let items = g.get(&parent).await.items.unwrap();
        assert_eq!((g.state(&parent).await, items.succeeded, items.failed), (State::Waiting, 1, 1));
        g.settle("w1", complete(&held[2])).await;
        assert_eq!(g.state(&parent).await, State::Completed);
        for finding in g.store.check().await.unwrap() {
            g.store.repair(&finding).await.unwrap();
        }
        while let Some(finding) = g.store.check().await.unwrap().pop() {
            g.store.repair(&finding).await.unwrap();
        }
    }

    async fn a_running_item_that_is_set_aside_ends_under_its_holder(g: &Ground) {
        let parent = g.submit(batch(1)).await;
        let held = g.claim_one("w1").await.held;
        run(g, &["HSET", &key(g, &held.id), "attempts", "x"]).await;
        assert!(g.store.retry(std::slice::from_ref(&held.id)).await.unwrap()[0].is_err());
        assert_eq!(swept(g).await, 1);
        assert_eq!(g.state(&parent).await, State::Completed);
        assert_eq!(g.settle("w1", complete(&held)).await, Settled::Stale);
        accept(g, 1).await;
    }

    async fn a_cancel_ends_a_batch_whose_item_is_gone(g: &Ground) {
        let parent = g.submit(batch(3)).await;
        run(g, &["DEL", &key(g, &g.store.item_id(&parent, g.store.partition_of(&parent), 1))]).await;
        g.store.cancel(std::slice::from_ref(&parent)).await.unwrap()[0].clone().unwrap();
        let batch = g.get(&parent).await;
        assert_eq!((batch.state, batch.items.unwrap().cancelled), (State::Cancelled, 3));
        let item = g.store.item_id(&parent, g.store.partition_of(&parent), 1);
        let refused = g.store.retry(std::slice::from_ref(&item)).await.unwrap().remove(0);
        assert!(matches!(refused, Err(Refusal::WrongState { .. } | Refusal::RetryParent(_))), "{refused:?}");
    }
}
