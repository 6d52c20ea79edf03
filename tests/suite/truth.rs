//! What operators and clients are told when Redis itself has changed under a running system.
use std::time::Duration;

use leasehold_tests::{Api, eventually};
use serde_json::json;

use crate::steered_command::*;

/// Within 10 s, and what a busy machine adds.
const NOTICED: Duration = Duration::from_secs(30);

async fn becomes_unready(api: &Api, words: &str) {
    eventually(NOTICED, &format!("readiness says {words:?}"), async || {
        let ready = api.get("/readyz").await;
        (ready.status == 503 && ready.text.contains(words)).then_some(()).ok_or(ready)
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_would_lose_jobs_now_accepts_no_more_of_them() {
    for (setting, bad, good) in [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")] {
        let work = Work::start(&[]).await;
        let api = work.system.api(&[]).await;
        api.wait_ready().await;
        let _worker = work.system.worker(&[]);
        let before = submit(&api, "step").await;
        let () = work.system.redis().command(&["CONFIG", "SET", setting, bad]).await;
        let words = if setting == "appendonly" { "AOF is off" } else { "maxmemory-policy" };
        becomes_unready(&api, words).await;
        let refused = api.post("/api/v1/jobs", &json!({"kind": "step"})).await;
        assert!(refused.status == 503 && refused.text.contains(words), "{refused:?}");
        let many = api.post("/api/v1/jobs/bulk", &json!({"jobs": [{"kind": "step"}]})).await;
        assert!(many.status == 503 && many.text.contains(words), "{many:?}");
        assert!(api.get("/metrics").await.text.contains("leasehold_redis_unfit 1"));
        assert!(api.stderr().contains("no new jobs are accepted"), "{}", api.stderr());
        // What is there runs on.
        work.open_gate();
        eventually(SOON, "the job of before is completed", async || {
            let job = api.get(&format!("/api/v1/jobs/{before}")).await;
            (job.json["state"] == "completed").then_some(()).ok_or(job)
        })
        .await;
        let () = work.system.redis().command(&["CONFIG", "SET", setting, good]).await;
        eventually(NOTICED, "it is ready again", async || {
            let ready = api.get("/readyz").await;
            (ready.status == 200).then_some(()).ok_or(ready)
        })
        .await;
        submit(&api, "step").await;
        work.system.finish().await;
    }
}

#[tokio::test]
async fn a_password_that_redis_has_got_meanwhile_is_named() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    api.wait_ready().await;
    // This connection stays what it was.
    let mut connection = work.system.redis().connection().await;
    let mut set = async |password: &str| {
        let command = redis::cmd("CONFIG").arg("SET").arg("requirepass").arg(password).to_owned();
        command.query_async::<()>(&mut connection).await.unwrap();
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
        kill.query_async::<()>(&mut connection).await.unwrap();
    };
    set("new").await;
    for _ in 0..3 {
        let refused = api.post("/api/v1/jobs", &json!({"kind": "step"})).await;
        assert!(refused.status == 503 && refused.text.contains("user and password in redis_url"), "{refused:?}");
    }
    becomes_unready(&api, "user and password in redis_url").await;
    set("").await;
    eventually(NOTICED, "submits are accepted again", async || {
        let submitted = api.post("/api/v1/jobs", &json!({"kind": "step"})).await;
        (submitted.status == 202).then_some(()).ok_or(submitted)
    })
    .await;
    work.system.finish().await;
}

#[tokio::test]
async fn settings_of_the_key_space_of_another_type_are_named_with_the_repair() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    api.wait_ready().await;
    let redis = work.system.redis();
    let () = redis.command(&["RENAME", "lh:meta", "kept"]).await;
    let () = redis.command(&["SET", "lh:meta", "no hash"]).await;
    let doctor = work.system.command(&["doctor"], &[]).await;
    assert!(!doctor.status.success(), "{doctor:?}");
    assert!(doctor.stderr.contains("lh:meta") && doctor.stderr.contains("RENAME"), "{doctor:?}");
    becomes_unready(&api, "lh:meta").await;
    let () = redis.command(&["RENAME", "lh:meta", "lh:aside"]).await;
    let () = redis.command(&["DEL", "lh:aside"]).await;
    let () = redis.command(&["RENAME", "kept", "lh:meta"]).await;
    api.wait_ready().await;
    work.system.finish().await;
}
