//! More partitions for a system at work: nothing is moved, lost or done twice, and nobody is restarted.
use std::collections::{BTreeMap, HashSet};

use leasehold::store::Submitted;
use leasehold::{NewJob, Refusal};
use leasehold_tests::api::{Answer, answer};
use leasehold_tests::{Api, eventually};
use reqwest::Method;
use serde_json::json;

use crate::clocked_store::*;
use crate::steered_command::{SOON, Work, submit};

fn limited() -> NewJob {
    NewJob { limited: true, ..job() }
}

fn open() -> NewJob {
    let mut open = batch(3);
    open.batch.as_mut().unwrap().open = true;
    open
}

#[tokio::test]
async fn jobs_of_before_and_after_a_growth_are_found_by_everybody() {
    let g = Ground::new(4).await;
    let late = g.another().await;
    let mut ids = Vec::new();
    for new in [job(), batch(3), keyed("k", "d"), limited(), open()] {
        ids.push(g.submit(new).await);
    }
    let (batch_of_before, limited_of_before, open_of_before) = (ids[1].clone(), ids[3].clone(), ids[4].clone());
    assert_eq!(g.store.grow_partitions(64, 0).await.unwrap(), 4);
    assert_eq!((g.store.partitions(), late.partitions()), (64, 4));
    for _ in 0..40 {
        ids.push(g.submit(job()).await);
        ids.push(late.submit(job()).await.unwrap().id);
        ids.push(g.submit(batch(2)).await);
    }
    let limited_of_after = g.submit(limited()).await;
    // The other process looks at once when it asks Redis whether it was emptied.
    assert_eq!(late.emptied_at().await.unwrap(), None);
    assert_eq!(late.partitions(), 64);
    let mut partitions = HashSet::new();
    for store in [&g.store, &late] {
        for (id, found) in ids.iter().zip(store.get_many(&ids).await.unwrap()) {
            let found = found.unwrap_or_else(|| panic!("{id} is not found"));
            partitions.insert(found.partition);
            assert!(!store.history(id).await.unwrap().is_empty());
            assert!(store.job_files(id).await.unwrap().is_some());
            for number in 0..found.items.map_or(0, |items| items.total) {
                let item = store.item_id(id, found.partition, number);
                assert_eq!(store.get(&item).await.unwrap().map(|item| item.parent), Some(Some(id.clone())));
            }
        }
    }
    assert!(partitions.len() > 8, "new jobs are in new partitions: {partitions:?}");
    assert_eq!(g.get(&limited_of_before).await.partition, g.get(&limited_of_after).await.partition, "one count");
    // An open batch of before is continued, in its partition.
    assert_eq!(late.add_items(&open_of_before, 3, &[json("3")], true).await.unwrap(), 4);
    // Cancel, retry and remove find them, and so do a worker's claims and settles.
    for id in [&batch_of_before, &open_of_before] {
        assert!(g.store.cancel(std::slice::from_ref(id)).await.unwrap()[0].is_ok());
    }
    g.sweep().await;
    assert_eq!(g.state(&batch_of_before).await, leasehold::State::Cancelled);
    assert!(g.store.remove(std::slice::from_ref(&batch_of_before)).await.unwrap()[0].is_ok());
    g.sweep().await;
    let mut done = 0;
    g.renew("w1", &[]).await;
    loop {
        let claimed = g.claim("w1", 100).await;
        if claimed.is_empty() {
            break;
        }
        for claimed in claimed {
            g.settle("w1", complete(&claimed.held)).await;
            done += 1;
        }
    }
    assert_eq!(done, 1 + 1 + 1 + 80 + 80 + 1, "each job and item once");
    g.end().await;
}

#[tokio::test]
async fn a_key_makes_one_job_whoever_knows_of_the_growth() {
    let g = Ground::new(2).await;
    let mut first: BTreeMap<String, _> = BTreeMap::new();
    for n in 0..30 {
        let key = format!("before-{n}");
        first.insert(key.clone(), g.submit(keyed(&key, "d")).await);
    }
    let late = g.another().await;
    // Four processes submit the same keys, old and new, while a fifth makes it 32 partitions and then 64.
    let mut submitters = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = g.another().await;
        submitters.spawn(async move {
            let mut found: BTreeMap<String, leasehold::JobId> = BTreeMap::new();
            for round in 0..3 {
                for n in 0..60 {
                    for key in [format!("before-{}", n % 30), format!("new-{}", round * 60 + n)] {
                        let submitted: Submitted = store.submit(keyed(&key, "d")).await.unwrap();
                        found.insert(key, submitted.id);
                    }
                }
                let many: Vec<NewJob> = (0..60).map(|n| keyed(&format!("bulk-{round}-{n}"), "d")).collect();
                for (n, answer) in store.submit_many(many).await.unwrap().into_iter().enumerate() {
                    found.insert(format!("bulk-{round}-{n}"), answer.unwrap().id);
                }
            }
            found
        });
    }
    assert_eq!(g.store.grow_partitions(32, 100).await.unwrap(), 2);
    assert_eq!(g.store.grow_partitions(64, 100).await.unwrap(), 32);
    while let Some(found) = submitters.join_next().await {
        for (key, id) in found.unwrap() {
            let known = first.entry(key.clone()).or_insert_with(|| id.clone());
            assert_eq!(*known, id, "{key} made two jobs");
        }
    }
    // One that has slept through both of them.
    for (key, id) in &first {
        assert_eq!(late.submit(keyed(key, "d")).await.unwrap().id, *id, "{key}");
        let other = late.submit(keyed(key, "other")).await;
        assert!(matches!(other, Err(leasehold::Error::Refused(Refusal::KeyConflict(_)))), "{other:?}");
    }
    let fresh = late.submit(keyed("fresh", "d")).await.unwrap();
    assert!(!fresh.replayed);
    assert_eq!(g.store.submit(keyed("fresh", "d")).await.unwrap().id, fresh.id);
    let listed = g.store.list(&leasehold::store::ListQuery { limit: 1_000, ..Default::default() }).await.unwrap();
    assert_eq!(listed.jobs.len(), first.len() + 1, "each key once");
    g.end().await;
}

#[tokio::test]
async fn a_growth_whose_command_died_is_completed_by_the_next_submit_with_a_key() {
    let g = Ground::new(2).await;
    let old = g.submit(keyed("old", "d")).await;
    // It died after it had closed one of the partitions.
    let () = g.redis.command(&["HSET", "lh:meta", "partitions_growing", "16"]).await;
    for partition in 0..2 {
        let () = g.redis.command(&["SET", &format!("lh:{{{partition}}}:partitions"), "16"]).await;
    }
    assert_eq!(g.submit(keyed("old", "d")).await, old, "a replay needs nothing");
    assert_eq!(g.store.partitions(), 2);
    g.submit(keyed("new", "d")).await;
    assert_eq!(g.store.partitions(), 16);
    let growing: Option<String> = g.redis.command(&["HGET", "lh:meta", "partitions_growing"]).await;
    assert_eq!(growing, None);
    g.end().await;
}

#[tokio::test]
async fn a_growth_that_redis_has_lost_is_put_back() {
    let g = Ground::new(2).await;
    g.store.grow_partitions(16, 0).await.unwrap();
    let id = g.submit(job()).await;
    // As after a failover to a replica that had not received it.
    let () = g.redis.command(&["HSET", "lh:meta", "partitions", "2"]).await;
    let () = g.redis.command(&["HDEL", "lh:meta", "partitions_past", "partitions_grown_at"]).await;
    assert_eq!(g.store.emptied_at().await.unwrap(), None);
    let fields: Vec<String> = g.redis.command(&["HMGET", "lh:meta", "partitions", "partitions_past"]).await;
    assert_eq!(fields, ["16", "2"]);
    assert!(g.another().await.get(&id).await.unwrap().is_some());
    g.end().await;
}

#[tokio::test]
async fn paused_queues_and_retention_are_the_same_in_the_new_partitions() {
    let g = Ground::new(1).await;
    g.store.pause(&queue("default"), true).await.unwrap();
    let () = g.redis.command(&["HSET", "lh:{0}:retention", "work", "1 2 3 4"]).await;
    // As if another growth had overtaken this one: it must not open the partition again.
    let () = g.redis.command(&["SET", "lh:{0}:partitions", "99"]).await;
    g.store.grow_partitions(8, 0).await.unwrap();
    for partition in 1..8 {
        let paused: Vec<String> = g.redis.command(&["SMEMBERS", &format!("lh:{{{partition}}}:paused")]).await;
        assert_eq!(paused, ["default"]);
        let kept: String = g.redis.command(&["HGET", &format!("lh:{{{partition}}}:retention"), "work"]).await;
        assert_eq!(kept, "1 2 3 4");
    }
    assert_eq!(g.redis.command::<u16>(&["GET", "lh:{0}:partitions"]).await, 99);
    g.end().await;
}

#[tokio::test]
async fn a_system_at_work_grows_without_a_restart() {
    let work = Work::start(&[("LEASEHOLD_PARTITIONS", "1"), ("LEASEHOLD_WORKER__CONCURRENCY", "4")]).await;
    let (one, other) = (work.system.api(&[]).await, work.system.api(&[]).await);
    let _worker = work.system.worker(&[]);
    one.wait_ready().await;
    other.wait_ready().await;
    work.open_gate();
    let before = submit(&one, "step").await;
    let grow = async |to: &str| work.system.command(&["partitions", "grow", to], &[]).await;
    for (to, reason) in [
        ("0", "0 is not in 1..=65535"),
        ("1", "there are 1 partitions, and they can only become more; write a number from 2 to 256"),
        ("257", "257 partitions are too many; the most is 256"),
    ] {
        let refused = grow(to).await;
        assert!(!refused.status.success() && refused.stderr.contains(reason), "{to}: {refused:?}");
    }
    let () = work.system.redis().command(&["HSET", "lh:meta", "partitions_growing", "9"]).await;
    work.store.pause(&queue("other"), true).await.unwrap();
    let refused = grow("8").await;
    let advice = "run `leasehold partitions grow 9` to complete it first";
    assert!(refused.status.code() == Some(1) && refused.stderr.contains(advice), "{refused:?}");
    let () = work.system.redis().command(&["HDEL", "lh:meta", "partitions_growing"]).await;
    let written: Vec<String> = work.system.redis().command(&["KEYS", "lh:{7}:paused"]).await;
    assert_eq!(written, Vec::<String>::new(), "a refusal changes nothing");
    // Both APIs submit all the time, each key to both.
    let growing = grow("16");
    let mut ids = HashSet::from([before.clone()]);
    let submits = async {
        for n in 0..200 {
            let (first, second) = (submit_keyed(&one, n).await, submit_keyed(&other, n).await);
            assert_eq!((first.status, second.status), (202, 200), "{first:?} {second:?}");
            assert_eq!(first.json["id"], second.json["id"], "one key, one job");
            ids.insert(first.json["id"].as_str().unwrap().parse().unwrap());
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let (grown, ()) = tokio::join!(growing, submits);
    assert!(grown.status.success() && grown.stdout.contains("in 16 partitions"), "{grown:?}");
    for n in 0..50 {
        ids.insert(submit(if n % 2 == 0 { &one } else { &other }, "step").await);
    }
    let mut partitions = HashSet::new();
    for id in &ids {
        for api in [&one, &other] {
            eventually(SOON, "it is completed", async || {
                let job = api.get(&format!("/api/v1/jobs/{id}")).await;
                assert_eq!(job.status, 200, "{job:?}");
                partitions.insert(job.json["partition"].as_u64().unwrap());
                (job.json["state"] == "completed").then_some(()).ok_or(job)
            })
            .await;
        }
    }
    assert!(partitions.len() > 4, "{partitions:?}");
    let depths = one.get("/api/v1/queues/default").await.json["partitions"].as_array().map(Vec::len);
    assert_eq!(depths, Some(16));
    let shown = work.system.command(&["jobs", "show", before.as_str()], &[]).await;
    assert!(shown.stdout.contains("partition") && shown.status.success(), "{shown:?}");
    // A process that was configured with the number of before starts nevertheless.
    let again = work.system.api(&[("LEASEHOLD_PARTITIONS", "1")]).await;
    again.wait_ready().await;
    work.system.finish().await;
}

async fn submit_keyed(api: &Api, n: usize) -> Answer {
    let request = api.request(Method::POST, "/api/v1/jobs").header("Idempotency-Key", format!("k-{n}"));
    answer(request.json(&json!({"kind": "step", "payload": n}))).await
}
