//! What is refused at the start, and what the refusal says.
use std::time::Duration;

use leasehold::{Config, Store};
use leasehold_tests::{RedisServer, System, binary, eventually};

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
    both_refuse(&forgetful, &[], &["AOF is off", "appendonly yes"]).await;
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
