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
    // A connection that was just used may be taken before its end is seen.
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Redis closes a connection after its refusal: none may be used a second time.
    for _ in 0..100 {
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

#[tokio::test]
async fn a_redis_that_accepts_no_more_connections_is_named() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    api.wait_ready().await;
    let redis = work.system.redis();
    let mut connection = redis.connection().await;
    let () = redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).query_async(&mut connection).await.unwrap();
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
    let () = kill.query_async(&mut connection).await.unwrap();
    let doctor = work.system.command(&["doctor"], &[]).await;
    assert!(!doctor.status.success(), "{doctor:?}");
    assert!(doctor.stderr.contains("raise its `maxclients`") && !doctor.stderr.contains("start one"), "{doctor:?}");
    becomes_unready(&api, "maxclients").await;
    let () = redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(10_000).query_async(&mut connection).await.unwrap();
    api.wait_ready().await;
    work.system.finish().await;
}

/// A tmpfs as the file store; unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`: only root can mount one.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(folder.path()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    fn fill(&self) {
        use std::io::Write;
        let mut filler = std::fs::File::create(self.0.path().join("filler")).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[tokio::test]
async fn a_file_store_that_fails_is_reported_and_its_kinds_are_not_claimed() {
    const WRITES: usize = 12;
    let Some(disk) = SmallDisk::mount() else {
        return println!("SKIPPED: a tmpfs, which only root can mount");
    };
    let storage = disk.0.path().join("files");
    let storage = format!("file://{}", storage.display());
    let system = System::start(&[("LEASEHOLD_STORAGE_URL", &storage)]).await;
    let kinds = system.folder().join("kinds.toml");
    let command = "head -c 100000 /dev/zero > out/data";
    let text = format!(
        "[kinds.writes]\nmax_attempts = 1\ncommand = [\"sh\", \"-c\", \"{command}\"]\n\
         [kinds.plain]\ncommand = [\"true\"]\n"
    );
    std::fs::write(&kinds, text).unwrap();
    let kinds = kinds.display().to_string();
    let api = system.api(&[("LEASEHOLD_KINDS", &kinds)]).await;
    api.wait_ready().await;
    let port = leasehold_tests::Port::reserve();
    let listen = format!("127.0.0.1:{}", port.number());
    let worker = system.worker(&[
        ("LEASEHOLD_KINDS", &kinds),
        ("LEASEHOLD_WORKER__LISTEN", &listen),
        ("LEASEHOLD_WORKER__CONCURRENCY", "4"),
    ]);
    let seen = async |path: &str| reqwest::get(format!("http://{listen}{path}")).await.unwrap().text().await.unwrap();
    let count = async |kind: &str| {
        let text = seen("/metrics").await;
        let name = format!("leasehold_jobs_claimed_total{{kind=\"{kind}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<usize>().ok()).unwrap_or(0)
    };
    let state = async |id: &leasehold::JobId| api.get(&format!("/api/v1/jobs/{id}")).await.json["state"].clone();
    let all_are = async |ids: &[leasehold::JobId], wanted: &str| {
        eventually(3 * SOON, &format!("all are {wanted}"), async || {
            for id in ids {
                let state = state(id).await;
                if state != wanted {
                    return Err(state);
                }
            }
            Ok(())
        })
        .await
    };
    all_are(&[submit(&api, "writes").await], "completed").await;
    disk.fill();
    let mut ids = vec![submit(&api, "writes").await];
    eventually(SOON, "the API and the worker report it", async || {
        let (of_api, of_worker) = (api.get("/readyz").await, seen("/readyz").await);
        let says = |text: &str| text.contains("files_fault") && text.contains("ready");
        (of_api.status == 200 && says(&of_api.text) && says(&of_worker)).then_some(()).ok_or(of_worker)
    })
    .await;
    for text in [api.get("/metrics").await.text, seen("/metrics").await] {
        assert!(text.contains("\nleasehold_file_store_failing 1\n"), "{text}");
    }
    let doctor = system.command(&["doctor"], &[]).await;
    assert!(!doctor.status.success() && doctor.stdout.contains("file store failed"), "{doctor:?}");
    eventually(SOON, "an attempt has failed", async || worker.stderr().contains("no attempt charged")).await;
    // From now on the worker leaves the kind alone, and runs others.
    let before = count("writes").await;
    for _ in 1..WRITES {
        ids.push(submit(&api, "writes").await);
    }
    all_are(&[submit(&api, "plain").await], "completed").await;
    let plain = count("plain").await;
    all_are(&[submit(&api, "plain").await], "completed").await;
    let slots = 4;
    assert!(count("writes").await <= before + slots, "at most what was being claimed already");
    let parked = count("writes").await;
    all_are(&[submit(&api, "plain").await, submit(&api, "plain").await], "completed").await;
    assert_eq!((count("writes").await, count("plain").await), (parked, plain + 3));
    disk.free();
    all_are(&ids, "completed").await;
    eventually(SOON, "it is well", async || !api.get("/readyz").await.text.contains("files_fault")).await;
    assert!(system.command(&["doctor"], &[]).await.status.success());
    drop(worker);
    system.finish().await;
}
