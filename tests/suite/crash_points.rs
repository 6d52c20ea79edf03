//! Deaths and lost replies at the lines that matter. Each test says what must be so when it strikes there.
use std::time::Duration;

use leasehold::store::script_sha;
use leasehold::{JobId, State};
use leasehold_tests::proxy::{Rule, command, script};
use leasehold_tests::{Api, Proxy, Then, Worker, eventually};
use reqwest::Method;
use serde_json::json;

use crate::steered_command::*;

const URL: &str = "LEASEHOLD_REDIS_URL";

fn sha(name: &str) -> &'static str {
    script_sha(name).expect("a script of that name")
}

/// A call of a script that names a job.
fn script_about(name: &str, id: &JobId) -> impl Fn(&leasehold_tests::proxy::Command) -> bool + Send + Sync + 'static {
    let (sha, id) = (sha(name), id.as_str().to_owned());
    move |c| c.runs(sha) && c.contains(id.as_bytes())
}

async fn proxied(work: &Work) -> Proxy {
    Proxy::start(work.system.redis().port()).await
}

#[tokio::test]
async fn an_api_killed_between_commit_and_reply_leaves_one_job_for_its_key() {
    let work = Work::start(&[]).await;
    let proxy = proxied(&work).await;
    let doomed = work.system.api(&[(URL, &proxy.url())]).await;
    doomed.wait_ready().await;
    let lost = proxy.drop_reply_to(script(sha("submit")), 1, Then::BlackHole);
    let post = |api: &Api| {
        let request = api.request(Method::POST, "/api/v1/jobs").header("idempotency-key", "one");
        request.json(&json!({"kind": "step"}))
    };
    let sent = tokio::spawn(post(&doomed).send());
    lost.fired().await;
    doomed.kill9();
    assert!(sent.await.unwrap().is_err(), "the client has no answer");
    let api = work.system.api(&[]).await;
    let answer = leasehold_tests::api::answer(post(&api)).await;
    assert_eq!(answer.status, 200, "the key finds the job: {}", answer.text);
    let listed = api.get("/api/v1/jobs").await;
    assert_eq!(listed.json["jobs"].as_array().unwrap().len(), 1);
    work.system.finish().await;
}

#[tokio::test]
async fn a_submit_whose_reply_was_lost_is_repeated_and_there_once() {
    let work = Work::start(&[]).await;
    let proxy = proxied(&work).await;
    let api = work.system.api(&[(URL, &proxy.url())]).await;
    api.wait_ready().await;
    let lost = proxy.drop_reply_to(script(sha("submit")), 1, Then::Cut);
    submit(&api, "step").await;
    assert!(lost.has_fired());
    assert_eq!(api.get("/api/v1/jobs").await.json["jobs"].as_array().unwrap().len(), 1);
    work.system.finish().await;
}

/// Submits a job that is not due yet, so that its id is known before anything is done about it, and waits until it is
/// struck by the rule that `hurt` makes.
///
/// One that becomes due while no pop is armed is claimed by a call that names no job: then the next is tried.
async fn struck(work: &Work, api: &Api, hurt: impl Fn(&JobId) -> Rule) -> JobId {
    loop {
        let id = submit_with(api, json!({"kind": "step", "delay_ms": 700})).await;
        let rule = hurt(&id);
        tokio::select! {
            biased;
            _ = rule.fired() => return id,
            _ = work.completed(&id) => rule.release(),
        }
    }
}

/// Runs one job on a worker whose network is hurt once; it must run once and complete.
async fn runs_once_although(hurt: impl Fn(&Proxy, &JobId) -> Rule) {
    let work = Work::start(&[]).await;
    work.open_gate();
    let (api, proxy) = (work.system.api(&[]).await, proxied(&work).await);
    let _worker = work.system.worker(&[(URL, &proxy.url())]);
    work.workers(1).await;
    let id = struck(&work, &api, |id| hurt(&proxy, id)).await;
    let job = work.completed(&id).await;
    assert_eq!((work.count("begin", &id), job.attempt, job.crashes), (1, 1, 0));
    work.system.finish().await;
}

#[tokio::test]
async fn a_pop_whose_reply_was_lost_is_recovered() {
    runs_once_although(|proxy, _| proxy.drop_reply_to(command("BRPOPLPUSH"), 1, Then::Cut)).await;
}

#[tokio::test]
async fn a_pop_that_hangs_for_ever_is_recovered() {
    runs_once_although(|proxy, _| proxy.drop_reply_to(command("BRPOPLPUSH"), 1, Then::BlackHole)).await;
}

/// Runs one job whose claim's reply is lost, and then `more` on the worker's network; it must run once and complete.
async fn runs_once_although_its_claim_is_lost(more: impl AsyncFnOnce(&Proxy)) {
    let work = Work::start(&[("LEASEHOLD_LEASE_MS", "20000")]).await;
    work.open_gate();
    let (api, proxy) = (work.system.api(&[]).await, proxied(&work).await);
    let _worker = work.system.worker(&[(URL, &proxy.url())]);
    work.workers(1).await;
    let lose = |id: &JobId| proxy.drop_reply_to(script_about("claim", id), 1, Then::Cut);
    let id = struck(&work, &api, lose).await;
    more(&proxy).await;
    let job = work.completed(&id).await;
    assert_eq!((work.count("begin", &id), job.attempt, job.crashes), (1, 1, 0));
    work.system.finish().await;
}

#[tokio::test]
async fn a_claim_whose_reply_was_lost_is_sent_again_and_gets_the_same_job() {
    runs_once_although_its_claim_is_lost(async |_| ()).await;
}

#[tokio::test]
async fn a_claim_whose_reply_was_lost_is_sent_again_after_an_outage() {
    let outage = async |proxy: &Proxy| {
        proxy.accept(false).await;
        proxy.cut();
        // Meanwhile it is refused a few times.
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.accept(true).await;
    };
    runs_once_although_its_claim_is_lost(outage).await;
}

#[tokio::test]
async fn a_settle_whose_reply_was_lost_has_one_effect() {
    runs_once_although(|proxy, id| proxy.drop_reply_to(script_about("settle", id), 1, Then::Cut)).await;
}

#[tokio::test]
async fn a_settle_that_reached_redis_twice_has_one_effect() {
    runs_once_although(|proxy, id| proxy.replay(script_about("settle", id), 1)).await;
}

#[tokio::test]
async fn a_settle_that_never_reached_redis_is_sent_again() {
    runs_once_although(|proxy, id| proxy.cut_request_to(script_about("settle", id), 1, 40, Then::Cut)).await;
}

#[tokio::test]
async fn a_renewal_whose_reply_was_lost_costs_nothing() {
    let work = Work::start(&[]).await;
    let (api, proxy) = (work.system.api(&[]).await, proxied(&work).await);
    let _worker = work.system.worker(&[(URL, &proxy.url())]);
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    proxy.drop_reply_to(script_about("renew", &id), 1, Then::BlackHole).fired().await;
    let again = proxy.observe(script_about("renew", &id), 4);
    again.fired().await;
    work.open_gate();
    let job = work.completed(&id).await;
    assert_eq!((work.count("begin", &id), job.crashes), (1, 0));
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_killed_between_reservation_and_lease_costs_the_job_nothing() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let (api, proxy) = (work.system.api(&[]).await, proxied(&work).await);
    let doomed = work.system.worker(&[(URL, &proxy.url())]);
    work.workers(1).await;
    let lose = |id: &JobId| proxy.cut_request_to(script_about("claim", id), 1, 0, Then::BlackHole);
    let id = struck(&work, &api, lose).await;
    doomed.kill9();
    assert_eq!(work.job(&id).await.state, State::Queued);
    let _other = work.system.worker(&[]);
    let job = work.completed(&id).await;
    assert_eq!((work.count("begin", &id), job.attempt, job.crashes), (1, 1, 0));
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_killed_in_its_handler_costs_one_crash_and_its_command_dies_with_it() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let doomed = work.system.worker(&[]);
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    doomed.kill9();
    let _other = work.system.worker(&[]);
    work.begun(&id, 2).await;
    work.open_gate();
    let job = work.completed(&id).await;
    let tokens: Vec<u64> = work.journal().into_iter().filter(|(w, ..)| w == "begin").map(|(.., t)| t).collect();
    assert_eq!((job.crashes, job.attempt, job.token), (1, 1, Some(tokens[1])));
    assert_eq!(work.count("end", &id), 1, "the first command did not outlive its worker");
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_killed_between_its_handlers_end_and_the_settle_runs_it_again() {
    let work = Work::start(&[]).await;
    let (api, proxy) = (work.system.api(&[]).await, proxied(&work).await);
    let doomed = work.system.worker(&[(URL, &proxy.url())]);
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    let lost = proxy.cut_request_to(script_about("settle", &id), 1, 0, Then::BlackHole);
    work.open_gate();
    lost.fired().await;
    doomed.kill9();
    let _other = work.system.worker(&[]);
    let job = work.completed(&id).await;
    assert_eq!((work.count("end", &id), job.crashes), (2, 1));
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_killed_after_its_settle_ran_does_not_run_it_again() {
    let work = Work::start(&[]).await;
    let (api, proxy) = (work.system.api(&[]).await, proxied(&work).await);
    let doomed = work.system.worker(&[(URL, &proxy.url())]);
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    let lost = proxy.drop_reply_to(script_about("settle", &id), 1, Then::BlackHole);
    work.open_gate();
    lost.fired().await;
    doomed.kill9();
    assert_eq!(work.job(&id).await.state, State::Completed);
    assert_eq!(work.count("begin", &id), 1);
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_stopped_for_longer_than_its_lease_has_its_late_result_refused() {
    let work = Work::start(&[]).await;
    let (api, proxy) = (work.system.api(&[]).await, proxied(&work).await);
    let frozen = work.system.worker(&[(URL, &proxy.url())]);
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    frozen.sigstop();
    let _other = work.system.worker(&[]);
    work.begun(&id, 2).await;
    work.open_gate();
    let job = work.completed(&id).await;
    frozen.sigcont();
    work.workers(2).await;
    let tokens: Vec<u64> = work.journal().into_iter().filter(|(w, ..)| w == "begin").map(|(.., t)| t).collect();
    assert_eq!(tokens.len(), 2);
    let later = work.job(&id).await;
    assert_eq!((later.token, later.result, later.state), (Some(tokens[1]), job.result, State::Completed));
    work.system.finish().await;
}

/// Redis goes away under a running job and comes back after three leases.
async fn nothing_runs_twice_when(away: impl AsyncFnOnce(&leasehold_tests::RedisServer, Duration)) {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let _workers = [work.system.worker(&[]), work.system.worker(&[])];
    work.workers(2).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(submit(&api, "step").await);
    }
    for id in &ids {
        work.begun(id, 1).await;
    }
    away(work.system.redis(), Duration::from_millis(3 * LEASE_MS)).await;
    work.system.redis().wait_ready().await;
    work.open_gate();
    for id in &ids {
        let job = work.completed(id).await;
        assert_eq!((work.count("begin", id), job.crashes), (1, 0));
    }
    work.system.finish().await;
}

#[tokio::test]
async fn redis_killed_for_three_leases_makes_nothing_run_twice() {
    nothing_runs_twice_when(async |redis, time| {
        redis.kill9();
        tokio::time::sleep(time).await;
        redis.restart().await;
    })
    .await;
}

#[tokio::test]
async fn redis_stopped_for_three_leases_makes_nothing_run_twice() {
    nothing_runs_twice_when(async |redis, time| {
        redis.sigstop();
        tokio::time::sleep(time).await;
        redis.sigcont();
    })
    .await;
}

#[tokio::test]
async fn redis_killed_under_load_loses_no_acknowledged_job() {
    let work = Work::start(&[("LEASEHOLD_PARTITIONS", "4")]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[("LEASEHOLD_WORKER__CONCURRENCY", "4")]);
    let submits = (0..150).map(|n| {
        let request = api.request(Method::POST, "/api/v1/jobs").header("idempotency-key", format!("job-{n}"));
        leasehold_tests::api::answer(request.json(&json!({"kind": "step"})))
    });
    let submits = futures_util::future::join_all(submits);
    let kill = async {
        eventually(SOON, "jobs begin", async || !work.journal().is_empty()).await;
        work.system.redis().kill9();
        work.system.redis().restart().await;
    };
    let (answers, ()) = tokio::join!(submits, kill);
    let acknowledged = answers.iter().filter(|a| a.status == 202 || a.status == 200);
    let ids: Vec<JobId> = acknowledged.map(|a| JobId::parse(a.json["id"].as_str().unwrap()).unwrap()).collect();
    assert!(!ids.is_empty());
    for id in &ids {
        work.completed(id).await;
    }
    work.system.finish().await;
}

#[tokio::test]
async fn a_flushed_script_cache_is_nobodys_error() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[]);
    let mut ids = Vec::new();
    for _ in 0..20 {
        work.system.redis().command::<()>(&["SCRIPT", "FLUSH"]).await;
        ids.push(submit(&api, "step").await);
    }
    for id in &ids {
        let job = work.completed(id).await;
        assert_eq!((job.attempt, job.crashes), (1, 0));
    }
    work.system.finish().await;
}

#[tokio::test]
async fn killed_connections_are_nobodys_error() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[]);
    let mut ids = Vec::new();
    for _ in 0..20 {
        work.system.redis().command::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        ids.push(submit(&api, "step").await);
    }
    for id in &ids {
        work.completed(id).await;
    }
    work.system.finish().await;
}

#[tokio::test]
async fn a_half_open_connection_is_left_for_a_new_one() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let (api, proxy) = (work.system.api(&[]).await, proxied(&work).await);
    let _worker = work.system.worker(&[(URL, &proxy.url())]);
    work.workers(1).await;
    proxy.black_hole(leasehold_tests::Way::Both);
    let id = submit(&api, "step").await;
    work.completed(&id).await;
    work.system.finish().await;
}

#[tokio::test]
async fn a_handler_that_hogs_every_thread_loses_no_lease() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let (kinds, lease) = (work.folder().join("kinds.toml").display().to_string(), LEASE_MS.to_string());
    let environment = [(URL, work.system.redis().url()), ("LEASEHOLD_KINDS", kinds), ("LEASEHOLD_LEASE_MS", lease)];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let _hog = leasehold_tests::Process::ours("leasehold-test-worker", &[], &environment);
    work.workers(1).await;
    let journal = work.folder().join("journal");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let payload = json!({"ms": 2 * LEASE_MS, "journal": journal});
        ids.push(submit_with(&api, json!({"kind": "hog", "payload": payload})).await);
    }
    // The neighbour sweeps, and would take back what was not renewed.
    let _neighbour: Worker = work.system.worker(&[]);
    for id in &ids {
        let job = work.completed(id).await;
        assert_eq!((work.count("begin", id), job.crashes), (1, 0));
    }
    work.system.finish().await;
}

#[tokio::test]
async fn a_redis_emptied_under_live_processes_is_reported_and_worked_on() {
    let environment = [("LEASEHOLD_PARTITIONS", "4"), ("LEASEHOLD_WORKER__GRACE_MS", "200")];
    let work = Work::start(&environment).await;
    let api = work.system.api(&[]).await;
    api.wait_ready().await;
    let worker = work.system.worker(&[]);
    let lost = submit(&api, "step").await;
    work.begun(&lost, 1).await;
    assert!(api.get("/readyz").await.json["emptied_at"].is_null());
    work.system.redis().command::<()>(&["FLUSHALL"]).await;
    eventually(SOON, "the number of partitions is put back", async || {
        let stored: Option<String> = work.system.redis().command(&["HGET", "lh:meta", "partitions"]).await;
        stored.as_deref() == Some("4")
    })
    .await;
    let ready = api.get("/readyz").await;
    assert!(ready.status == 200 && ready.json["emptied_at"].is_string(), "{}", ready.text);
    let logs = [worker.stderr(), api.stderr()];
    assert!(logs.iter().any(|log| log.contains("emptied Redis")), "the one that noticed logs it: {logs:?}");
    eventually(SOON, "retention is registered again", async || {
        let again: Option<String> = work.system.redis().command(&["HGET", "lh:{0}:retention", "step"]).await;
        again.is_some()
    })
    .await;
    assert_eq!(api.get(&format!("/api/v1/jobs/{lost}")).await.status, 404);
    work.open_gate();
    let id = submit(&api, "step").await;
    work.completed(&id).await;
    let doctor = work.system.command(&["doctor"], &[]).await;
    assert!(!doctor.status.success() && doctor.stdout.contains("emptied Redis"), "{doctor:?}");
    let repaired = work.system.command(&["doctor", "--repair"], &[]).await;
    assert!(repaired.stdout.contains("no longer reported"), "{repaired:?}");
    assert!(api.get("/readyz").await.json["emptied_at"].is_null());
    assert!(worker.is_running());
    work.system.finish().await;
}
