//! What a worker survives that neither a job nor Redis does to it: a closed log, a want of files, a command's
//! leftovers.
use std::process::Stdio;
use std::time::Duration;

use leasehold::{Config, Error, State, Store};
use leasehold_tests::proxy::Shape;
use leasehold_tests::{Process, Proxy, RedisServer, binary, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::steered_command::*;

const URL: &str = "LEASEHOLD_REDIS_URL";

impl Work {
    /// Adds to the kinds file, for what is started from now on.
    fn add_kind(&self, settings: &str, script: &str) {
        let path = self.folder().join("kinds.toml");
        let kinds = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{kinds}[kinds.extra]\ncommand = [\"sh\", \"{{dir}}/extra.sh\"]\n{settings}\n"))
            .unwrap();
        std::fs::write(self.folder().join("extra.sh"), script).unwrap();
    }

    /// A worker with Rust handlers that misbehave.
    fn test_worker(&self, more: &[(&str, &str)]) -> Process {
        let (kinds, lease) = (self.folder().join("kinds.toml").display().to_string(), LEASE_MS.to_string());
        let url = self.system.redis().url();
        let mut environment = vec![(URL, url.as_str()), ("LEASEHOLD_KINDS", &kinds), ("LEASEHOLD_LEASE_MS", &lease)];
        environment.extend_from_slice(more);
        Process::ours("leasehold-test-worker", &[], &environment)
    }

    async fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.system.redis().command(words).await
    }
}

#[tokio::test]
async fn a_worker_whose_log_nobody_reads_any_more_works_on_and_ends_when_told() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let kinds = work.folder().join("kinds.toml");
    let mut command = tokio::process::Command::new(binary::path("leasehold-worker"));
    command.env("LEASEHOLD_REDIS_URL", work.system.redis().url()).env("LEASEHOLD_KINDS", kinds);
    command.env("LEASEHOLD_LEASE_MS", LEASE_MS.to_string()).current_dir(work.folder());
    let mut worker = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    drop(worker.stderr.take());
    work.workers(1).await;
    work.system.redis().restart().await;
    let api = work.system.api(&[]).await;
    for _ in 0..3 {
        work.completed(&submit(&api, "step").await).await;
    }
    kill(Pid::from_raw(worker.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    let status = tokio::time::timeout(SOON, worker.wait()).await.expect("it ends").unwrap();
    assert!(status.success(), "{status}");
    work.system.finish().await;
}

#[tokio::test]
async fn what_a_command_leaves_running_does_not_hold_its_job() {
    let work = Work::start(&[]).await;
    let leaves = r#"
dir=$(dirname "$0")
setsid sh -c 'i=0; while [ ! -e "$1/gate" ] && [ $i -lt 400 ]; do echo noise; sleep 0.05; i=$((i+1)); done' - "$dir" &
sleep 0.3
echo '{"result": "said"}'
"#;
    work.add_kind("timeout_ms = 6000\nmax_attempts = 1", leaves);
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[]);
    let job = work.completed(&submit(&api, "extra").await).await;
    assert_eq!(job.result.unwrap().as_str(), "\"said\"");
    work.open_gate();
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_that_may_open_no_file_tries_again_and_charges_no_job() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    let worker = work.system.worker(&[]);
    // Warm: what it needs for itself is open.
    work.completed(&submit(&api, "step").await).await;
    let limit = async |files: &str| {
        let (pid, files) = (worker.pid().to_string(), format!("--nofile={files}:"));
        let done = tokio::process::Command::new("prlimit").args(["--pid", &pid, &files]).status().await.unwrap();
        assert!(done.success());
    };
    limit("3").await;
    let id = submit(&api, "step").await;
    eventually(SOON, "its start fails", async || worker.stderr().contains("cannot be started, retrying")).await;
    limit("1000").await;
    let job = work.completed(&id).await;
    assert_eq!((job.attempt, work.count("begin", &id)), (1, 1));
    work.system.finish().await;
}

#[tokio::test]
async fn a_folder_that_a_cleaner_removed_is_made_again() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let temporary = work.folder().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[("TMPDIR", temporary.to_str().unwrap())]);
    work.completed(&submit(&api, "step").await).await;
    for entry in std::fs::read_dir(&temporary).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    assert_eq!(work.completed(&submit(&api, "step").await).await.attempt, 1);
    work.system.finish().await;
}

#[tokio::test]
async fn what_fails_before_a_call_is_sent_is_an_outage_and_no_corruption() {
    let nowhere = Config { redis_url: "redis://no-such-host.invalid:6379".into(), ..Config::default() };
    let quick = |mut config: Config| {
        config.redis.outage_ms = 0;
        config
    };
    let unavailable = |e: Option<Error>| assert!(matches!(e, Some(Error::Unavailable(_))), "{e:?}");
    unavailable(Store::connect(&quick(nowhere)).await.err());
    let redis = RedisServer::start_with(&[("busy-reply-threshold", "50")], &[]).await;
    let second = quick(Config { redis_url: format!("{}1", redis.url()), ..Config::default() });
    let store = Store::connect(&second).await.unwrap();
    let id = leasehold::JobId::parse("nobody").unwrap();
    assert!(store.get(&id).await.unwrap().is_none());
    let busy = tokio::spawn({
        let mut connection = redis.connection().await;
        async move { redis::cmd("EVAL").arg("while true do end").arg(0).query_async::<()>(&mut connection).await }
    });
    eventually(SOON, "Redis is busy", async || {
        redis.try_command::<String>(&["PING"]).await.err().filter(|e| e.code() == Some("BUSY"))
    })
    .await;
    for _ in 0..3 {
        unavailable(store.get(&id).await.err());
    }
    redis.command::<()>(&["SCRIPT", "KILL"]).await;
    assert!(busy.await.unwrap().is_err());
    assert!(store.get(&id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_worker_starts_although_the_kinds_cannot_be_registered() {
    let work = Work::start(&[]).await;
    work.open_gate();
    // The names of kinds cannot be reserved.
    work.redis::<()>(&["SET", "lh:{0}:reserved", "garbage"]).await;
    let worker = work.system.worker(&[]);
    eventually(SOON, "it runs", async || worker.stderr().contains("running on Redis")).await;
    work.redis::<()>(&["DEL", "lh:{0}:reserved"]).await;
    let api = work.system.api(&[]).await;
    work.completed(&submit(&api, "step").await).await;
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_whose_slots_are_all_held_by_what_its_handlers_left_behind_ends() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let worker = work.test_worker(&[("LEASEHOLD_WORKER__CONCURRENCY", "1")]);
    let id = submit_with(&api, json!({"kind": "leaks", "timeout_ms": 100, "max_attempts": 1})).await;
    assert_eq!(work.ended(&id).await.state, State::Failed);
    let status = worker.wait_exit(SOON).await;
    assert!(!status.success() && worker.stderr().contains("all 1 slots are occupied"), "{status}");
    work.system.finish().await;
}

#[tokio::test]
async fn a_job_with_as_many_attempts_as_can_be_counted_harms_nobody() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    let id = submit(&api, "step").await;
    work.redis::<()>(&["HSET", &format!("lh:{{0}}:job:{id}"), "attempts", "4294967295"]).await;
    let _worker = work.system.worker(&[]);
    work.completed(&id).await;
    work.completed(&submit(&api, "step").await).await;
    work.system.finish().await;
}

#[tokio::test]
async fn a_queue_that_is_no_list_is_set_aside_by_an_idle_worker() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let _worker = work.system.worker(&[]);
    work.workers(1).await;
    work.redis::<()>(&["SET", "lh:{0}:queue:default", "garbage"]).await;
    eventually(Duration::from_secs(5), "it is set aside", async || {
        work.redis::<String>(&["TYPE", "lh:{0}:queue:default"]).await != "string"
    })
    .await;
    let api = work.system.api(&[]).await;
    work.completed(&submit(&api, "step").await).await;
    work.redis::<()>(&["DEL", "lh:{0}:quarantined:queue:default", "lh:{0}:quarantine"]).await;
    work.system.finish().await;
}

#[tokio::test]
async fn checkpoints_get_through_a_link_that_carries_few_at_once() {
    let work = Work::start(&[("LEASEHOLD_LEASE_MS", "20000")]).await;
    let saves = r#"
dir=$(dirname "$0")
echo "begin $LEASEHOLD_JOB_ID $LEASEHOLD_TOKEN" >> "$dir/journal"
while [ ! -e "$dir/gate" ]; do sleep 0.02; done
printf '{"checkpoint": "%060000d"}\n' 1
"#;
    work.add_kind("max_attempts = 1", saves);
    let (api, proxy) = (work.system.api(&[]).await, Proxy::start(work.system.redis().port()).await);
    let _worker = work.system.worker(&[(URL, &proxy.url()), ("LEASEHOLD_WORKER__CONCURRENCY", "12")]);
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(submit(&api, "extra").await);
    }
    for id in &ids {
        work.begun(id, 1).await;
    }
    // In 3 s (`redis.response_ms`) five of them.
    proxy.shape(Shape { bytes_per_second: 110_000, ..Shape::default() });
    work.open_gate();
    for id in &ids {
        work.completed(id).await;
    }
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_leaves_in_order_over_a_slow_link() {
    let work = Work::start(&[("LEASEHOLD_LEASE_MS", "10000"), ("LEASEHOLD_PARTITIONS", "4")]).await;
    let proxy = Proxy::start(work.system.redis().port()).await;
    let worker = work.system.worker(&[(URL, &proxy.url())]);
    work.workers(1).await;
    proxy.shape(Shape { delay: Duration::from_millis(200), ..Shape::default() });
    worker.sigterm();
    assert!(worker.wait_exit(SOON).await.success());
    assert!(work.store.workers().await.unwrap().is_empty(), "it has left");
    work.system.finish().await;
}

#[tokio::test]
async fn what_is_no_id_does_not_stay_in_a_claimed_list() {
    let work = Work::start(&[]).await;
    let _worker = work.system.worker(&[]);
    work.workers(1).await;
    let name = work.store.workers().await.unwrap()[0].id.to_string();
    let list = format!("lh:{{0}}:claimed:{name}");
    work.redis::<()>(&["RPUSH", &list, "no id!", ""]).await;
    eventually(Duration::from_secs(5), "it is gone", async || work.redis::<usize>(&["LLEN", &list]).await == 0).await;
    work.system.finish().await;
}
