//! How the API starts, and how it ends.
use std::time::{Duration, Instant};

use leasehold_tests::api::answer;
use leasehold_tests::{Proxy, RedisServer, System, eventually, proxy, run};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{LIMIT, connect, id, start};

#[tokio::test]
async fn a_wrong_setting_is_refused_at_start_with_what_would_be_right() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let folder = tempfile::tempdir().unwrap();
    let typo = folder.path().join("kinds.toml");
    std::fs::write(&typo, "[kinds.echo]\nmax_atempts = 3\n").unwrap();
    for (name, value, said) in [
        ("LEASEHOLD_API__LISTEN", "0.0.0.0:0", "127.0.0.1"),
        ("LEASEHOLD_API__LISTEN", "nonsense", "127.0.0.1:8080"),
        ("LEASEHOLD_API__LISTN", "127.0.0.1:0", "LEASEHOLD_API__LISTEN"),
        ("LEASEHOLD_REDIS_URLS", "redis://127.0.0.1", "LEASEHOLD_REDIS_URL"),
        ("LEASEHOLD_REDIS_URL", "http://127.0.0.1", "redis://"),
        ("LEASEHOLD_PARTITIONS", "0", "1 to 256"),
        ("LEASEHOLD_LIMITS__CONNECTIONS", "0", "1 to"),
        ("LEASEHOLD_KINDS", typo.to_str().unwrap(), "max_atempts"),
        ("LEASEHOLD_LOG__FILTER", "no=such=filter", "log.filter"),
    ] {
        let environment =
            [("LEASEHOLD_REDIS_URL", url.as_str()), ("LEASEHOLD_API__LISTEN", "127.0.0.1:0"), (name, value)];
        let ended = run("leasehold-api", &[], &environment, LIMIT).await;
        assert_eq!(ended.status.code(), Some(1), "{name}={value}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{name}={value}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_redis_that_would_lose_jobs_is_refused_at_start() {
    for (setting, value, said) in
        [("maxmemory-policy", "allkeys-lru", "maxmemory-policy noeviction"), ("appendonly", "no", "appendonly yes")]
    {
        let redis = RedisServer::start_with(&[(setting, value)], &[]).await;
        let environment = [("LEASEHOLD_REDIS_URL", redis.url()), ("LEASEHOLD_API__LISTEN", "127.0.0.1:0".into())];
        let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let ended = run("leasehold-api", &[], &environment, LIMIT).await;
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let system = System::start(&[("LEASEHOLD_PARTITIONS", "4")]).await;
    system.api(&[]).await.wait_ready().await;
    let environment = [("LEASEHOLD_REDIS_URL", system.redis().url()), ("LEASEHOLD_API__LISTEN", "127.0.0.1:0".into())];
    let mut environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
    environment.push(("LEASEHOLD_PARTITIONS", "2"));
    let ended = run("leasehold-api", &[], &environment, LIMIT).await;
    assert!(ended.status.code() == Some(1) && ended.stderr.contains("write 4"), "{}", ended.stderr);
    system.finish().await;
}

#[tokio::test]
async fn flags_win_over_variables() {
    let redis = RedisServer::start().await;
    let environment = [("LEASEHOLD_REDIS_URL", "redis://127.0.0.1:1"), ("LEASEHOLD_API__LISTEN", "0.0.0.0:1")];
    let url = redis.url();
    let arguments = ["--listen", "127.0.0.1:0", "--redis-url", &url];
    let api = leasehold_tests::Process::ours("leasehold-api", &arguments, &environment);
    eventually(LIMIT, "it is connected", async || api.stderr().contains("connected")).await;
    api.sigint();
    assert!(api.wait_exit(LIMIT).await.success());
}

#[tokio::test]
async fn sigterm_lets_a_request_finish_and_takes_no_new_one() {
    let system = System::start(&[]).await;
    let network = Proxy::start(system.redis().port()).await;
    let api = system.api(&[("LEASEHOLD_REDIS_URL", &network.url())]).await;
    api.wait_ready().await;
    api.post("/api/v1/jobs", &json!({"kind": "other"})).await;
    let held = network.hold(proxy::script(leasehold::store::script_sha("submit").unwrap()), 1);
    let idle = connect(&api).await;
    let (submitted, ()) = tokio::join!(async { api.post("/api/v1/jobs", &json!({"kind": "echo"})).await }, async {
        held.fired().await;
        api.sigterm();
        let address = api.url("").strip_prefix("http://").unwrap().to_owned();
        eventually(LIMIT, "it takes no new connections", async || TcpStream::connect(&address).await.is_err()).await;
        held.release();
    });
    assert_eq!(submitted.status, 202, "{}", submitted.text);
    assert!(api.wait_exit(LIMIT).await.success());
    drop(idle);
    api.restart().await;
    api.wait_ready().await;
    assert_eq!(api.get(&format!("/api/v1/jobs/{}", id(&submitted))).await.status, 200);
    system.finish().await;
}

#[tokio::test]
async fn sigterm_ends_waits_with_the_job_as_it_is() {
    let system = System::start(&[]).await;
    let network = Proxy::start(system.redis().port()).await;
    let api = system.api(&[("LEASEHOLD_REDIS_URL", &network.url())]).await;
    api.wait_ready().await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let path = format!("/api/v1/jobs/{}", id(&job));
    let read = network.observe(proxy::script(leasehold::store::script_sha("get").unwrap()), 1);
    let begun = Instant::now();
    let waiting = answer(api.request(Method::GET, &path).header("prefer", "wait=60"));
    let (waited, ()) = tokio::join!(waiting, async {
        read.fired().await;
        api.sigterm();
    });
    assert_eq!((waited.status, &waited.json["state"]), (200, &json!("queued")));
    assert!(api.wait_exit(LIMIT).await.success());
    assert!(begun.elapsed() < Duration::from_secs(20));
    system.finish().await;
}

#[tokio::test]
async fn a_frozen_api_answers_when_it_goes_on() {
    let (system, api) = start(&[]).await;
    api.sigstop();
    let (submitted, ()) = tokio::join!(async { api.post("/api/v1/jobs", &json!({"kind": "echo"})).await }, async {
        let pending = async || api.request(Method::GET, "/livez").timeout(Duration::from_millis(200)).send().await;
        assert!(pending().await.is_err(), "nobody answers");
        api.sigcont();
    });
    assert_eq!(submitted.status, 202, "{}", submitted.text);
    system.finish().await;
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_end() {
    let (system, api) = start(&[]).await;
    let mut idle = Vec::new();
    for at in 0..20 {
        let mut stream = connect(&api).await;
        if at % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nx-").await.unwrap();
        }
        idle.push(stream);
    }
    api.get("/livez").await;
    let begun = Instant::now();
    api.sigterm();
    assert!(api.wait_exit(LIMIT).await.success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    system.finish().await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (system, api) = start(&[]).await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let mut stuck = connect(&api).await;
    let request = format!(
        "POST /api/v1/jobs/{}/items HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\n\r\n",
        id(&job)
    );
    stuck.write_all(request.as_bytes()).await.unwrap();
    let mut go_on = [0; 12];
    stuck.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100", "the handler waits for the body");
    api.sigterm();
    eventually(LIMIT, "it stops", async || api.stderr().contains("stopping")).await;
    api.sigterm();
    assert!(!api.wait_exit(Duration::from_secs(5)).await.success());
    system.finish().await;
}
