//! What operators and clients are told when Redis itself has changed under a running system.
use std::time::Duration;

use leasehold_tests::{Api, System, eventually};
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
        // A worker that starts later is refused.
        eventually(SOON, "the job runs", async || {
            let job = api.get(&format!("/api/v1/jobs/{before}")).await;
            (job.json["state"] == "running").then_some(()).ok_or(job)
        })
        .await;
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

#[tokio::test]
async fn a_queue_is_paused_and_resumed_on_a_full_redis() {
    let work = Work::start(&[("LEASEHOLD_PARTITIONS", "4")]).await;
    let api = work.system.api(&[]).await;
    api.wait_ready().await;
    submit(&api, "step").await;
    let () = work.system.redis().command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = api.post("/api/v1/jobs", &json!({"kind": "step"})).await;
    assert_eq!(full.json["code"], "redis_full", "{full:?}");
    for verb in ["pause", "resume"] {
        let answer = api.post(&format!("/api/v1/queues/default/{verb}"), &json!({})).await;
        assert_eq!((answer.status, &answer.json["paused"]), (200, &json!(verb == "pause")), "{answer:?}");
    }
    let () = work.system.redis().command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    work.system.finish().await;
}

#[tokio::test]
async fn a_file_store_that_fails_charges_no_attempt() {
    let system = System::start(&[]).await;
    let kinds = system.folder().join("kinds.toml");
    let gate = system.folder().join("gate");
    let command = format!("while [ ! -e {} ]; do sleep 0.02; done; echo data > out/data.txt", gate.display());
    let kind = format!("[kinds.writes]\nmax_attempts = 1\ncommand = [\"sh\", \"-c\", \"{command}\"]\n");
    std::fs::write(&kinds, kind).unwrap();
    let kinds = kinds.display().to_string();
    let api = system.api(&[("LEASEHOLD_KINDS", &kinds)]).await;
    api.wait_ready().await;
    let worker = system.worker(&[("LEASEHOLD_KINDS", &kinds)]);
    let id = submit(&api, "writes").await;
    let path = format!("/api/v1/jobs/{id}");
    let becomes = async |state: &str| {
        eventually(SOON, &format!("the job is {state}"), async || {
            let job = api.get(&path).await;
            (job.json["state"] == state).then_some(job.json.clone()).ok_or(job)
        })
        .await
    };
    becomes("running").await;
    // Nothing can be written below a file.
    let (storage, aside) = (system.folder().join("storage"), system.folder().join("aside"));
    std::fs::rename(&storage, &aside).unwrap();
    std::fs::write(&storage, "a file").unwrap();
    std::fs::write(&gate, "").unwrap();
    let job = becomes("retrying").await;
    assert_eq!((&job["attempt"], &job["error"]), (&json!(1), &json!(null)), "its only attempt is left: {job}");
    let history = api.get(&format!("{path}/history")).await;
    assert!(history.text.contains("no attempt charged") && history.text.contains("file store failed"), "{history:?}");
    assert!(worker.stderr().contains("no attempt charged"), "{}", worker.stderr());
    std::fs::remove_file(&storage).unwrap();
    std::fs::rename(&aside, &storage).unwrap();
    assert_eq!(api.post(&format!("{path}/cancel"), &json!({})).await.status, 200);
    system.finish().await;
}
