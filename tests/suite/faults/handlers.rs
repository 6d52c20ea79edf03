//! Rows in which a handler takes its worker along, or does not end.
use leasehold::State;
use leasehold::job::ErrorCode;
use leasehold_tests::Process;
use serde_json::json;

use super::*;
use crate::steered_command::{LEASE_MS, SOON, Work, submit, submit_with};

/// A worker whose handlers misbehave, beside one that does not; `die` makes it end by itself as often as the cap
/// allows.
async fn poison(number: u8, fault: &'static str, injected: &'static str, kind: &str, limit: Option<&str>) {
    let work = Work::start(&[("LEASEHOLD_MAX_CRASHES", "2")]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    let _neighbour = work.system.worker(&[]);
    let (kinds, lease) = (work.folder().join("kinds.toml").display().to_string(), LEASE_MS.to_string());
    let url = work.system.redis().url();
    let environment = [
        ("LEASEHOLD_REDIS_URL", url.as_str()),
        ("LEASEHOLD_KINDS", &kinds),
        ("LEASEHOLD_LEASE_MS", &lease),
        ("LEASEHOLD_MAX_CRASHES", "2"),
    ];
    let doomed = Process::ours("leasehold-test-worker", &[], &environment);
    let bound = || {
        let Some(limit) = limit else { return };
        let (pid, limit) = (doomed.pid().to_string(), format!("--as={limit}"));
        assert!(std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    bound();
    let begun = Instant::now();
    let poisoned = submit_with(&api, json!({ "kind": kind })).await;
    let job = async {
        loop {
            let job = work.job(&poisoned).await;
            if job.state.is_final() {
                return job;
            }
            // Its supervisor.
            if !doomed.is_running() {
                doomed.restart();
                bound();
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let job = tokio::time::timeout(3 * SOON, job).await.expect("the cap is reached");
    assert_eq!((job.state, job.error.map(|error| error.code)), (State::Failed, Some(ErrorCode::Crashed)));
    let neighbours = submit(&api, "step").await;
    assert_eq!(work.completed(&neighbours).await.crashes, 0);
    let executions = job.crashes as usize;
    table::line(number, fault, injected, [2, executions, 0, 0], Some(begun.elapsed()));
    drop(doomed);
    work.system.finish().await;
}

#[tokio::test]
async fn row_29_a_job_that_exhausts_its_workers_memory_fails_and_its_neighbours_run() {
    let injected = "a handler allocates until `prlimit --as` stops it; 2 crashes allowed";
    poison(29, "worker out of memory by a job", injected, "allocates", Some("4000000000")).await;
}

#[tokio::test]
async fn row_30_a_job_that_aborts_its_worker_fails_and_its_neighbours_run() {
    poison(30, "handler aborts", "a handler calls abort(); 2 crashes allowed", "aborts", None).await;
}

#[tokio::test]
async fn row_30_a_panic_and_a_loop_without_end_fail_their_jobs_alone() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    let (kinds, lease) = (work.folder().join("kinds.toml").display().to_string(), LEASE_MS.to_string());
    let url = work.system.redis().url();
    let environment =
        [("LEASEHOLD_REDIS_URL", url.as_str()), ("LEASEHOLD_KINDS", &kinds), ("LEASEHOLD_LEASE_MS", &lease)];
    let worker = Process::ours("leasehold-test-worker", &[], &environment);
    let begun = Instant::now();
    let panics = submit_with(&api, json!({"kind": "panics", "payload": "at the disco", "max_attempts": 1})).await;
    let job = work.ended(&panics).await;
    let error = job.error.expect("a failed job has an error");
    assert!(job.state == State::Failed && error.message.contains("at the disco"), "{error:?}");
    let payload = json!({"ms": 8_000, "journal": work.folder().join("journal")});
    let loops = json!({"kind": "hog", "payload": payload, "timeout_ms": 1_000, "max_attempts": 1});
    let loops = submit_with(&api, loops).await;
    let job = work.ended(&loops).await;
    assert_eq!((job.state, job.crashes, work.count("begin", &loops)), (State::Failed, 0, 1));
    let doubles = submit_with(&api, json!({"kind": "doubles", "payload": 4})).await;
    assert_eq!(work.completed(&doubles).await.result.expect("a result").as_str(), "8");
    assert!(worker.is_running());
    table::line(30, "handler panics, or loops", "two Rust handlers", [3, 1, 0, 0], Some(begun.elapsed()));
    work.system.finish().await;
}
