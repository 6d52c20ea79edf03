//! Autoscaling: what a queue demands, and that nothing stays hidden while no worker runs.
use std::time::Duration;

use leasehold_tests::{Api, System, eventually};
use serde_json::{Value, json};

use crate::steered_command::*;

async fn demand(api: &Api) -> Value {
    let answer = api.get("/api/v1/queues/default").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["demand"].clone()
}

async fn becomes(api: &Api, demanded: u64) {
    let limit = Duration::from_secs(10);
    eventually(limit, &format!("the demand is {demanded}"), async || {
        let now = demand(api).await;
        (now == json!(demanded)).then_some(()).ok_or(now)
    })
    .await;
}

#[tokio::test]
async fn demand_is_what_runs_and_what_could_start() {
    for partitions in ["1", "4"] {
        let work = Work::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let api = work.system.api(&[]).await;
        api.wait_ready().await;
        assert_eq!(demand(&api).await, 0, "a queue that was never used is not a 404");
        let one = submit(&api, "step").await;
        submit(&api, "step").await;
        assert_eq!(demand(&api).await, 2);
        // Two of the kind wait, and one may run.
        submit(&api, "narrow").await;
        submit(&api, "narrow").await;
        assert_eq!(demand(&api).await, 3);
        submit(&api, "unheard-of").await;
        assert_eq!(demand(&api).await, 3, "no published kind has that name, and no worker has served it");
        assert_eq!(api.post(&format!("/api/v1/jobs/{one}/cancel"), &json!({})).await.status, 200);
        assert_eq!(demand(&api).await, 2, "the id of an ended job stays in the list");
        let metric = "leasehold_queue_demand{queue=\"default\"} 2";
        eventually(SOON, metric, async || api.get("/metrics").await.text.contains(metric)).await;
        assert_eq!(api.post("/api/v1/queues/default/pause", &json!({})).await.json["demand"], 0);
        assert_eq!(api.post("/api/v1/queues/default/resume", &json!({})).await.json["demand"], 2);
        let worker = work.system.worker(&[("LEASEHOLD_WORKER__CONCURRENCY", "1")]);
        eventually(SOON, "one runs, and the others wait", async || {
            let queue = api.get("/api/v1/queues/default").await.json;
            (queue["running"] == 1).then_some(()).ok_or(queue)
        })
        .await;
        becomes(&api, 2).await;
        assert_eq!(api.post("/api/v1/queues/default/pause", &json!({})).await.json["demand"], 1, "what runs");
        api.post("/api/v1/queues/default/resume", &json!({})).await;
        work.open_gate();
        becomes(&api, 0).await;
        drop(worker);
        work.system.finish().await;
    }
}

#[tokio::test]
async fn a_kind_that_a_worker_has_served_is_demanded_without_any_kinds_file() {
    let system = System::start(&[]).await;
    let path = system.folder().join("kinds.toml");
    std::fs::write(&path, "[kinds.a]\ncommand = [\"true\"]\n").unwrap();
    let served = system.worker(&[("LEASEHOLD_KINDS", &path.display().to_string())]);
    let has_served = async || system.redis().command::<Option<u64>>(&["HGET", "lh:{0}:served", "default a"]).await;
    eventually(SOON, "what it serves is recorded", async || has_served().await.is_some()).await;
    served.sigterm();
    served.wait_exit(SOON).await;
    let _: i64 = system.redis().command(&["HDEL", "lh:{0}:published", "kinds"]).await;
    let api = system.api(&[]).await;
    api.wait_ready().await;
    submit(&api, "a").await;
    assert_eq!(demand(&api).await, 1);
    // Thirty-one days ago.
    let old = has_served().await.unwrap() - 31 * 86_400_000;
    let _: i64 = system.redis().command(&["HSET", "lh:{0}:served", "default a", &old.to_string()]).await;
    assert_eq!(demand(&api).await, 0);
    drop((served, api));
    system.finish().await;
}

#[tokio::test]
async fn without_workers_due_jobs_and_lost_leases_become_demand() {
    // Long enough for a machine that hangs for a second: the clock takes a third of it for an outage.
    let work = Work::start(&[("LEASEHOLD_LEASE_MS", "9000")]).await;
    let (api, _second) = tokio::join!(work.system.api(&[]), work.system.api(&[]));
    api.wait_ready().await;
    let due = submit_with(&api, json!({"kind": "step", "delay_ms": 2_000})).await;
    assert_eq!(demand(&api).await, 0);
    becomes(&api, 1).await;
    let worker = work.system.worker(&[]);
    work.begun(&due, 1).await;
    worker.kill9();
    // The lease of the dead worker expires, and no other worker lives.
    eventually(2 * SOON, "the job is queued again", async || {
        let job = api.get(&format!("/api/v1/jobs/{due}")).await.json;
        (job["state"] == "queued" && job["crashes"] == 1).then_some(()).ok_or(job)
    })
    .await;
    becomes(&api, 1).await;
    work.open_gate();
    let scaled_up = work.system.worker(&[]);
    work.completed(&due).await;
    becomes(&api, 0).await;
    drop((worker, scaled_up));
    work.system.finish().await;
}
