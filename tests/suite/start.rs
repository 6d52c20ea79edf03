//! What is refused at the start, and what the refusal says.
use std::time::Duration;

use leasehold::{Config, Store};
use leasehold_tests::{Port, RedisServer, System, binary, eventually};

const LIMIT: Duration = Duration::from_secs(20);

async fn refusal(program: &str, environment: &[(&str, &str)]) -> String {
    let output = binary::run(program, &[], environment, Duration::from_secs(30)).await;
    assert_eq!(output.status.code(), Some(1), "{program}: {}", output.stderr);
    output.stderr
}

async fn both_refuse(redis: &RedisServer, environment: &[(&str, &str)], says: &[&str]) {
    let url = redis.url();
    let mut all = vec![("LEASEHOLD_REDIS_URL", url.as_str()), ("LEASEHOLD_API__LISTEN", "127.0.0.1:0")];
    all.extend_from_slice(environment);
    for program in ["leasehold-api", "leasehold-worker"] {
        let said = refusal(program, &all).await;
        for words in says {
            assert!(said.contains(words), "{program} says {said:?}, not {words:?}");
        }
    }
}

#[tokio::test]
async fn a_redis_that_would_lose_jobs_is_refused() {
    let evicting = RedisServer::start_with(&[("maxmemory-policy", "volatile-lru")], &[]).await;
    both_refuse(&evicting, &[], &["volatile-lru", "maxmemory-policy noeviction"]).await;
    let forgetful = RedisServer::start_with(&[("appendonly", "no")], &[]).await;
    let names = "redis.durability = \"managed\"";
    both_refuse(&forgetful, &[], &["AOF is off", "appendonly yes", names, "LEASEHOLD_REDIS__DURABILITY=managed"]).await;
}

const MANAGED: (&str, &str) = ("LEASEHOLD_REDIS__DURABILITY", "managed");

/// An API and a worker run on this Redis; each says that it is managed, in its log, its probe and its metrics.
async fn runs_managed(redis: RedisServer, url: &str, warnings: &[&str]) {
    let system = System::with_redis(redis, &[MANAGED, ("LEASEHOLD_REDIS_URL", url)]);
    let api = system.api(&[]).await;
    api.wait_ready().await;
    let port = Port::reserve();
    let address = port.address().to_string();
    let worker = system.worker(&[("LEASEHOLD_WORKER__LISTEN", &address)]);
    let probe = format!("http://{address}/readyz");
    let ready = eventually(LIMIT, "the worker is ready", async || {
        reqwest::get(&probe).await.map_err(|e| e.to_string())?.error_for_status().map_err(|e| e.to_string())
    })
    .await;
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!(
        (&ready["durability"], &api.get("/readyz").await.json["durability"]),
        (&"managed".into(), &"managed".into())
    );
    let metrics = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
    for text in [metrics, api.get("/metrics").await.text] {
        assert!(text.contains("leasehold_redis_durability_managed 1"), "{text}");
    }
    for (process, log) in [("API", api.stderr()), ("worker", worker.stderr())] {
        for words in ["redis.durability is managed"].iter().chain(warnings) {
            assert!(log.contains(words), "the {process} does not warn {words:?}: {log}");
        }
    }
    assert_eq!(api.post("/api/v1/jobs", &serde_json::json!({"kind": "echo"})).await.status, 202);
    system.finish().await;
}

#[tokio::test]
async fn a_managed_redis_without_an_aof_is_accepted_with_a_warning() {
    let redis = RedisServer::start_with(&[("appendonly", "no")], &[]).await;
    let url = redis.url();
    runs_managed(redis, &url, &["AOF is off"]).await;
}

#[tokio::test]
async fn a_managed_redis_without_config_is_accepted_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let renames = folder.path().join("renames.conf");
    std::fs::write(&renames, "rename-command CONFIG \"\"\n").unwrap();
    let renames = renames.to_str().unwrap();
    let redis = RedisServer::start_with(&[("include", renames), ("appendonly", "no")], &[]).await;
    let url = redis.url();
    runs_managed(redis, &url, &["denies CONFIG GET"]).await;
    let evicting = [("include", renames), ("maxmemory-policy", "allkeys-lru")];
    let evicting = RedisServer::start_with(&evicting, &[]).await;
    both_refuse(&evicting, &[MANAGED], &["allkeys-lru", "maxmemory-policy noeviction"]).await;
}

#[tokio::test]
async fn a_managed_redis_that_denies_info_is_accepted_with_a_warning() {
    let redis = RedisServer::start().await;
    let denied: &[&str] = &["ACL", "SETUSER", "user", "on", ">secret", "~*", "&*", "+@all", "-info", "-config"];
    redis.command::<()>(denied).await;
    let url = redis.url().replace("redis://", "redis://user:secret@");
    both_refuse(&redis, &[("LEASEHOLD_REDIS_URL", &url)], &["denies INFO", "+info", "redis.durability"]).await;
    runs_managed(redis, &url, &["denies INFO", "denies CONFIG GET"]).await;
}

#[tokio::test]
async fn a_redis_that_still_loads_its_files_is_waited_for() {
    // Slow enough to be asked meanwhile; in INFO it then says that its AOF is off.
    let redis = RedisServer::start_with(&[("key-load-delay", "100")], &[]).await;
    let () = redis.command(&["EVAL", "for i = 1, 20000 do redis.call('SET', 'key' .. i, i) end", "0"]).await;
    redis.process().restart();
    eventually(Duration::from_secs(20), "it loads", async || {
        let info: String = redis.try_command(&["INFO", "persistence"]).await.map_err(|e| e.to_string())?;
        if info.contains("loading:1") { Ok(()) } else { Err(info) }
    })
    .await;
    Store::connect(&Config { redis_url: redis.url(), ..Config::default() }).await.map(drop).unwrap();
}

#[tokio::test]
async fn a_worker_without_redis_logs_at_once_that_it_waits() {
    let system = System::start(&[]).await;
    system.redis().kill9();
    // The default user has no password, so Redis accepts any.
    let url = system.redis().url().replace("redis://", "redis://default:secret@");
    let worker = system.worker(&[("LEASEHOLD_REDIS_URL", &url)]);
    let waiting = format!("waiting for Redis at 127.0.0.1:{}", system.redis().port());
    eventually(Duration::from_secs(5), "it logs that it waits", async || worker.stderr().contains(&waiting)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let log = worker.stderr();
    assert!(log.matches(&waiting).count() == 1 && !log.contains("secret"), "{log}");
    system.redis().restart().await;
    eventually(Duration::from_secs(20), "it runs", async || worker.stderr().contains("running on Redis")).await;
    system.finish().await;
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let system = System::start(&[("LEASEHOLD_PARTITIONS", "4")]).await;
    system.api(&[]).await.wait_ready().await;
    both_refuse(system.redis(), &[("LEASEHOLD_PARTITIONS", "2")], &["partitions is 2", "write 4"]).await;
    system.finish().await;
}

#[tokio::test]
async fn a_typo_is_refused_by_name() {
    let redis = RedisServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let kinds = folder.path().join("kinds.toml");
    std::fs::write(&kinds, "[kinds.a]\ncommand = [\"true\"]\nmax_atempts = 3\n").unwrap();
    let kinds = kinds.display().to_string();
    both_refuse(&redis, &[("LEASEHOLD_KINDS", &kinds)], &["max_atempts", "max_attempts"]).await;
    both_refuse(&redis, &[("LEASEHOLD_LEASE_SM", "1")], &["LEASEHOLD_LEASE_SM", "LEASEHOLD_LEASE_MS"]).await;
    both_refuse(&redis, &[("LEASEHOLD_WORKER__CONCURENCY", "1")], &["LEASEHOLD_WORKER__CONCURRENCY"]).await;
    both_refuse(&redis, &[("LEASEHOLD_LEASE_MS", "5")], &["lease_ms is 5", "1000"]).await;
}

#[tokio::test]
async fn a_worker_refuses_a_kind_that_nothing_runs() {
    let redis = RedisServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let kinds = folder.path().join("kinds.toml");
    std::fs::write(&kinds, "[kinds.unheard-of]\nmax_attempts = 3\n").unwrap();
    let (url, kinds) = (redis.url(), kinds.display().to_string());
    let said = refusal("leasehold-worker", &[("LEASEHOLD_REDIS_URL", &url), ("LEASEHOLD_KINDS", &kinds)]).await;
    assert!(said.contains("unheard-of"), "{said}");
}
