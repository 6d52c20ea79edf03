//! Processes with different kinds files: noticed by each, and reported to an operator.
use std::time::Duration;

use leasehold_tests::{System, eventually};
use serde_json::json;

/// Processes compare every 5 s.
const NOTICED: Duration = Duration::from_secs(20);

#[tokio::test]
async fn processes_with_different_kinds_files_are_reported() {
    let system = System::start(&[]).await;
    let write = |name: &str, attempts: u32| {
        let path = system.folder().join(name);
        let text =
            format!("[kinds.a]\ncommand = [\"true\"]\nmax_attempts = {attempts}\n[kinds.b]\ncommand = [\"true\"]\n");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (old, new) = (write("old.toml", 3), write("new.toml", 4));
    let api = system.api(&[("LEASEHOLD_KINDS", &old)]).await;
    assert_eq!(api.get("/readyz").await.json.get("kinds_differ"), None);
    let worker = system.worker(&[("LEASEHOLD_KINDS", &new)]);
    eventually(NOTICED, "the API reports the kind that differs", async || {
        let ready = api.get("/readyz").await;
        (ready.json["kinds_differ"] == json!(["a"])).then_some(()).ok_or(ready.text)
    })
    .await;
    let doctor = async || system.command(&["doctor"], &[]).await.stdout;
    assert!(!doctor().await.contains("another kinds file"), "the worker started last");
    let second = system.api(&[("LEASEHOLD_KINDS", &old)]).await;
    eventually(NOTICED, "the doctor names the worker, whose file is not the last one", async || {
        let said = doctor().await;
        said.contains("has another kinds file than the process that started last").then_some(()).ok_or(said)
    })
    .await;
    eventually(NOTICED, "the worker logs it", async || {
        let log = worker.stderr();
        log.contains("has another kinds file, with other settings of a;").then_some(()).ok_or(log)
    })
    .await;
    // An API without a kinds file applies what was published.
    let bare = system.api(&[]).await;
    let job = bare.post("/api/v1/jobs", &json!({"kind": "a", "queue": "elsewhere"})).await;
    assert_eq!((job.status, &job.json["max_attempts"]), (202, &json!(3)), "{job:?}");
    drop((worker, second, api, bare));
    system.finish().await;
}

#[tokio::test]
async fn a_job_that_comes_before_redis_gets_the_published_defaults_too() {
    let system = System::start(&[]).await;
    let path = system.folder().join("kinds.toml");
    std::fs::write(&path, "[kinds.a]\ncommand = [\"true\"]\nmax_attempts = 3\n").unwrap();
    let published = system.api(&[("LEASEHOLD_KINDS", &path.display().to_string())]).await;
    published.wait_ready().await;
    drop(published);
    system.redis().sigstop();
    // It lives, and waits for Redis.
    let bare = system.api(&[]).await;
    let body = json!({"kind": "a", "queue": "elsewhere"});
    let (job, ()) = tokio::join!(bare.post("/api/v1/jobs", &body), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        system.redis().sigcont();
    });
    assert_eq!((job.status, &job.json["max_attempts"]), (202, &json!(3)), "{job:?}");
    drop(bare);
    system.finish().await;
}
