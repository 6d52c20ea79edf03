//! What a worker does with jobs when nothing is broken but the jobs.
use std::time::{Duration, Instant};

use leasehold::State;
use leasehold::job::ErrorCode;
use leasehold_tests::eventually;
use serde_json::{Value, json};

use crate::steered_command::*;

#[tokio::test]
async fn a_cancel_reaches_a_running_handler_within_a_second() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[]);
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    let asked = Instant::now();
    let answer = api.post(&format!("/api/v1/jobs/{id}/cancel"), &Value::Null).await;
    assert_eq!((answer.status, &answer.json["cancel_requested"]), (202, &json!(true)));
    let job = work.ended(&id).await;
    assert_eq!((job.state, work.count("end", &id)), (State::Cancelled, 0));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    work.system.finish().await;
}

#[tokio::test]
async fn a_job_that_runs_too_long_times_out_and_uses_its_attempts() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[]);
    let id = submit(&api, "slow").await;
    let job = work.ended(&id).await;
    assert_eq!((job.state, job.attempt, job.error.unwrap().code), (State::Failed, 2, ErrorCode::Timeout));
    assert_eq!((work.count("begin", &id), work.count("end", &id)), (2, 0));
    work.system.finish().await;
}

#[tokio::test]
async fn exit_codes_decide_what_becomes_of_a_job() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[]);
    for (code, state, attempt) in
        [(0, State::Completed, 1), (65, State::Failed, 1), (75, State::Failed, 2), (1, State::Failed, 2)]
    {
        let id = submit_with(&api, json!({"kind": "exits", "payload": code})).await;
        let job = work.ended(&id).await;
        assert_eq!((job.state, job.attempt), (state, attempt), "exit {code}");
        if code > 0 {
            assert!(job.error.unwrap().message.contains(&format!("about to exit with {code}")));
        }
    }
    work.system.finish().await;
}

#[tokio::test]
async fn a_shutdown_gives_back_what_does_not_end_in_time_uncharged() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let worker = work.system.worker(&[("LEASEHOLD_WORKER__GRACE_MS", "200")]);
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    worker.sigterm();
    assert!(worker.wait_exit(SOON).await.success());
    let job = work.job(&id).await;
    assert_eq!((job.state, job.attempt, job.crashes), (State::Queued, 1, 0));
    assert!(work.store.workers().await.unwrap().is_empty(), "it has left");
    work.system.finish().await;
}

#[tokio::test]
async fn a_shutdown_lets_what_ends_in_time_end() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let worker = work.system.worker(&[]);
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    worker.sigterm();
    work.open_gate();
    assert!(worker.wait_exit(SOON).await.success());
    assert_eq!(work.job(&id).await.state, State::Completed);
    work.system.finish().await;
}

#[tokio::test]
async fn a_second_signal_gives_back_at_once() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let worker = work.system.worker(&[]);
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    worker.sigterm();
    worker.sigint();
    worker.wait_exit(Duration::from_secs(5)).await;
    assert_eq!(work.job(&id).await.state, State::Queued);
    work.system.finish().await;
}

#[tokio::test]
async fn max_running_holds_over_workers_and_a_kill() {
    let work = Work::start(&[("LEASEHOLD_PARTITIONS", "4")]).await;
    let api = work.system.api(&[]).await;
    let workers: Vec<_> = (0..3).map(|_| work.system.worker(&[])).collect();
    work.workers(3).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(submit(&api, "narrow").await);
    }
    let holder = eventually(SOON, "one runs", async || {
        if work.journal().is_empty() {
            return None;
        }
        // By its lease: what a worker's list holds may be a reservation that is about to be parked.
        let jobs = work.store.get_many(&ids).await.ok()?;
        let holder = jobs.into_iter().flatten().find(|job| job.state == State::Running)?.worker;
        work.store.workers().await.ok()?.into_iter().find(|w| Some(&w.id) == holder.as_ref()).map(|w| w.pid)
    })
    .await;
    assert_eq!(work.journal().len(), 1, "one at a time");
    workers.iter().find(|w| w.pid() == holder).expect("a worker of ours").kill9();
    eventually(SOON, "the next begins", async || work.journal().len() == 2).await;
    work.open_gate();
    for id in &ids {
        work.completed(id).await;
    }
    let journal = work.journal();
    let mut running = 0;
    for (word, ..) in &journal[1..] {
        running += if word == "begin" { 1 } else { -1 };
        assert!((0..=1).contains(&running), "{journal:?}");
    }
    work.system.finish().await;
}

#[tokio::test]
async fn a_full_redis_refuses_submits_and_drains() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[("LEASEHOLD_WORKER__CONCURRENCY", "1")]);
    let ids = [submit(&api, "step").await, submit(&api, "step").await];
    work.begun(&ids[0], 1).await;
    work.system.redis().command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = api.post("/api/v1/jobs", &json!({"kind": "step"})).await;
    assert_eq!((refused.status, &refused.json["code"]), (503, &json!("redis_full")), "{}", refused.text);
    work.open_gate();
    for id in &ids {
        work.completed(id).await;
    }
    work.system.redis().command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let id = submit(&api, "step").await;
    work.completed(&id).await;
    work.system.finish().await;
}

#[tokio::test]
async fn an_idle_worker_costs_redis_a_few_calls_a_second() {
    let work = Work::start(&[("LEASEHOLD_LEASE_MS", "30000")]).await;
    let _worker = work.system.worker(&[]);
    work.workers(1).await;
    let calls = async || {
        let stats: String = work.system.redis().command(&["INFO", "commandstats"]).await;
        let count = |name: &str| {
            let line = stats.lines().find(|l| l.starts_with(&format!("cmdstat_{name}:")));
            line.and_then(|l| l.split(['=', ',']).nth(1)?.parse::<u64>().ok()).unwrap_or(0)
        };
        ["evalsha", "eval", "brpoplpush", "ping"].map(count).iter().sum::<u64>()
    };
    let (before, seconds) = (calls().await, 6);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let spent = calls().await - before;
    assert!(spent <= 5 * seconds, "{spent} calls in {seconds} s");
    assert!(spent >= seconds, "{spent} calls: it sweeps every second");
    work.system.finish().await;
}
