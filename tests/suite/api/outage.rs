//! Redis away, full, or refusing writes: the API says so, promises nothing, and is back by itself.
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leasehold_tests::proxy::Shape;
use leasehold_tests::{Proxy, System, Way, eventually};
use serde_json::json;

use super::{LIMIT, ask, id, problem, start};

/// How long a call rides out an outage here, so that a test need not wait for the usual 8 s.
const SHORT: (&str, &str) = ("LEASEHOLD_REDIS__OUTAGE_MS", "500");

#[tokio::test]
async fn a_killed_redis_is_told_in_time_and_loses_nothing_acknowledged() {
    let (system, api) = start(&[SHORT]).await;
    let kept = api.post("/api/v1/jobs", &json!({"kind": "echo", "payload": "kept"})).await;
    system.redis().kill9();
    let begun = Instant::now();
    for refused in [
        api.post("/api/v1/jobs", &json!({"kind": "echo"})).await,
        api.get("/api/v1/jobs").await,
        ask(&api, &format!("/api/v1/jobs/{}/cancel", id(&kept))).await,
        api.get("/readyz").await,
    ] {
        problem(&refused, 503, "redis_unavailable");
        assert!(refused.headers.contains_key("retry-after"));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "each answer took about as long as an outage is ridden out");
    assert_eq!(api.get("/livez").await.status, 200);
    system.redis().restart().await;
    api.wait_ready().await;
    let read = api.get(&format!("/api/v1/jobs/{}", id(&kept))).await;
    assert_eq!((read.status, &read.json["payload"]), (200, &json!("kept")));
    assert_eq!(api.post("/api/v1/jobs", &json!({"kind": "echo"})).await.status, 202);
    system.finish().await;
}

#[tokio::test]
async fn a_short_outage_is_ridden_out() {
    let (system, api) = start(&[]).await;
    system.redis().kill9();
    let submits = join_all((0..20).map(|n| {
        let api = &api;
        async move { api.post("/api/v1/jobs", &json!({"kind": "echo", "payload": n})).await }
    }));
    let (answers, ()) = tokio::join!(submits, system.redis().restart());
    for answer in answers {
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    assert_eq!(api.get("/api/v1/jobs?limit=100").await.json["jobs"].as_array().map(Vec::len), Some(20));
    system.finish().await;
}

#[tokio::test]
async fn an_api_may_start_before_its_redis() {
    let system = System::start(&[]).await;
    system.redis().kill9();
    let api = system.api(&[SHORT]).await;
    problem(&api.get("/readyz").await, 503, "redis_unavailable");
    problem(&api.post("/api/v1/jobs", &json!({"kind": "echo"})).await, 503, "redis_unavailable");
    system.redis().restart().await;
    api.wait_ready().await;
    assert_eq!(api.post("/api/v1/jobs", &json!({"kind": "echo"})).await.status, 202);
    system.finish().await;
}

#[tokio::test]
async fn a_redis_that_does_not_answer_costs_no_more_than_the_deadline() {
    let system = System::start(&[]).await;
    let network = Proxy::start(system.redis().port()).await;
    let environment = [("LEASEHOLD_REDIS_URL", network.url()), ("LEASEHOLD_LIMITS__REQUEST_MS", "1000".into())];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let api = system.api(&environment).await;
    api.wait_ready().await;
    network.freeze(Way::Both);
    let begun = Instant::now();
    let (read, submitted) =
        tokio::join!(api.get("/api/v1/jobs"), async { api.post("/api/v1/jobs", &json!({"kind": "echo"})).await });
    assert!(begun.elapsed() < Duration::from_secs(5));
    problem(&read, 503, "deadline_exceeded");
    // It is on its way, and may well be done once the network is back.
    problem(&submitted, 503, "outcome_unknown");
    network.heal().await;
    eventually(LIMIT, "the API answers again", async || api.get("/api/v1/jobs").await.status == 200).await;
    system.finish().await;
}

#[tokio::test]
async fn a_full_redis_takes_no_new_jobs_and_lets_old_ones_go() {
    let (system, api) = start(&[]).await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let () = system.redis().command(&["CONFIG", "SET", "maxmemory", "100kb"]).await;
    let refused = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    assert!(problem(&refused, 503, "redis_full")["detail"].as_str().unwrap().contains("maxmemory"));
    assert!(refused.headers.contains_key("retry-after"));
    problem(&api.get("/readyz").await, 503, "redis_full");
    let path = format!("/api/v1/jobs/{}", id(&job));
    assert_eq!(ask(&api, &format!("{path}/cancel")).await.status, 200, "what frees memory goes on");
    assert_eq!(api.delete(&path).await.status, 204);
    let () = system.redis().command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(api.post("/api/v1/jobs", &json!({"kind": "echo"})).await.status, 202);
    api.wait_ready().await;
    system.finish().await;
}

#[tokio::test]
async fn a_redis_that_refuses_writes_is_not_ready() {
    let (system, api) = start(&[SHORT]).await;
    let () = system.redis().command(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let refused = api.get("/readyz").await;
    assert!(problem(&refused, 503, "redis_unavailable")["detail"].as_str().unwrap().contains("NOREPLICAS"));
    problem(&api.post("/api/v1/jobs", &json!({"kind": "echo"})).await, 503, "redis_unavailable");
    let () = system.redis().command(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    api.wait_ready().await;
    system.finish().await;
}

#[tokio::test]
async fn a_flushed_script_cache_is_not_noticed() {
    let (system, api) = start(&[]).await;
    for _ in 0..5 {
        let () = system.redis().command(&["SCRIPT", "FLUSH"]).await;
        let answers =
            join_all((0..20).map(|_| async { api.post("/api/v1/jobs", &json!({"kind": "echo"})).await })).await;
        assert!(answers.iter().all(|answer| answer.status == 202));
    }
    system.finish().await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_hides_no_other() {
    let (system, api) = start(&[]).await;
    let good = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let bad = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let key = format!("lh:{{0}}:job:{}", id(&bad));
    let () = system.redis().command(&["HDEL", &key, "created_at"]).await;
    problem(&api.get(&format!("/api/v1/jobs/{}", id(&bad))).await, 500, "corrupt_record");
    let listed = api.get("/api/v1/jobs").await;
    assert_eq!(listed.json["jobs"].as_array().unwrap().len(), 1, "{}", listed.text);
    assert_eq!(id(&good), listed.json["jobs"][0]["id"]);
    let () = system.redis().command(&["HSET", &key, "created_at", "1"]).await;
    system.finish().await;
}

#[tokio::test]
async fn no_submit_in_an_outage_takes_several_times_the_limit() {
    const OUTAGE: Duration = Duration::from_millis(4_000);
    const RESPONSE: Duration = Duration::from_millis(1_000);
    let system = System::start(&[("LEASEHOLD_PARTITIONS", "1")]).await;
    let network = Proxy::start(system.redis().port()).await;
    let (outage_ms, response_ms) = (OUTAGE.as_millis().to_string(), RESPONSE.as_millis().to_string());
    let environment = [
        ("LEASEHOLD_REDIS_URL", network.url()),
        ("LEASEHOLD_REDIS__OUTAGE_MS", outage_ms),
        ("LEASEHOLD_REDIS__RESPONSE_MS", response_ms),
    ];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let api = system.api(&environment).await;
    api.wait_ready().await;
    network.freeze(Way::Both);
    // Each arrives while others wait, so that they travel in several groups; a batch takes several calls.
    let ask = async |n: u64| {
        tokio::time::sleep(Duration::from_millis(150 * n)).await;
        let begun = Instant::now();
        let body = match n.is_multiple_of(5) {
            true => json!({"kind": "echo", "items": [1, 2]}),
            false => json!({"kind": "echo"}),
        };
        let answer = api.post("/api/v1/jobs", &body).await;
        (begun.elapsed(), answer)
    };
    let answers = join_all((0..60).map(ask)).await;
    for (took, answer) in answers {
        assert_eq!(answer.status, 503, "{}", answer.text);
        // The last attempt and its connection, and 1.5 s for a slow machine.
        assert!(took < OUTAGE + RESPONSE + Duration::from_millis(1_500), "{took:?}");
    }
    network.heal().await;
    eventually(LIMIT, "the API answers again", async || api.get("/api/v1/jobs").await.status == 200).await;
    system.finish().await;
}

#[tokio::test]
async fn a_slow_link_lets_large_payloads_through() {
    const JOBS: usize = 8;
    let kinds = tempfile::tempdir().unwrap();
    let file = kinds.path().join("kinds.toml");
    std::fs::write(&file, "[kinds.big]\nmax_attempts = 1\ncommand = [\"true\"]\n").unwrap();
    let file = file.display().to_string();
    let system = System::start(&[("LEASEHOLD_PARTITIONS", "1"), ("LEASEHOLD_KINDS", &file)]).await;
    let network = Proxy::start(system.redis().port()).await;
    let url = network.url();
    let environment = [
        ("LEASEHOLD_REDIS_URL", url.as_str()),
        ("LEASEHOLD_REDIS__RESPONSE_MS", "1500"),
        ("LEASEHOLD_LEASE_MS", "10000"),
    ];
    let api = system.api(&environment).await;
    api.wait_ready().await;
    // A payload takes about 0.6 s, and three of them too long.
    network.shape(Shape { bytes_per_second: 400_000, ..Shape::default() });
    let payload = "x".repeat(250_000);
    let submits = join_all((0..JOBS).map(|n| {
        let (api, payload) = (&api, format!("{n}{payload}"));
        async move { api.post("/api/v1/jobs", &json!({"kind": "big", "payload": payload})).await }
    }));
    let mut ids = Vec::new();
    for answer in submits.await {
        assert_eq!(answer.status, 202, "{}", answer.text);
        ids.push(id(&answer));
    }
    let bulk: Vec<_> = (0..JOBS).map(|n| json!({"kind": "big", "payload": format!("{n}{payload}")})).collect();
    let answer = api.post("/api/v1/jobs/bulk", &json!({"jobs": bulk})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let worker = system.worker(&environment);
    eventually(6 * LIMIT, "all are completed", async || {
        let state: usize = system.redis().command(&["ZCARD", "lh:{0}:finished:big:completed"]).await;
        (state == 2 * JOBS).then_some(()).ok_or(state)
    })
    .await;
    drop(worker);
    network.shape(Shape::default());
    for id in ids {
        let job = api.get(&format!("/api/v1/jobs/{id}")).await;
        assert_eq!((&job.json["attempt"], &job.json["crashes"]), (&json!(1), &json!(0)), "none was charged");
    }
    system.finish().await;
}
