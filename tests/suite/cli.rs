//! The command line as a person and a script meet it: output, exit codes, and whole systems that leave nothing behind.
mod batch;
mod both_backends;
mod files;
mod watch;

use std::path::Path;
use std::time::Duration;

use leasehold_tests::api::client;
use leasehold_tests::{Output, Process, System, eventually, run};
use serde_json::Value;

/// How long a whole demo may take, on a machine that runs many tests at once.
const DEMO_LIMIT: Duration = Duration::from_secs(100);
/// How long a system may take to be up, or down.
const UP_LIMIT: Duration = Duration::from_secs(60);

/// How long anything may take that ought to happen soon.
const SOON: Duration = Duration::from_secs(30);

/// The path of the command, for scripts.
fn leasehold() -> String {
    std::env::current_exe().unwrap().parent().unwrap().with_file_name("leasehold").display().to_string()
}

/// Runs a command that must succeed; its standard output.
async fn ok(system: &System, arguments: &[&str]) -> String {
    let output = system.command(arguments, &[]).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    output.stdout
}

async fn json(system: &System, arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(system, &[arguments, &["-o", "json"]].concat()).await).unwrap()
}

/// Runs a command that must fail with `code`, and say why.
async fn fails(system: &System, code: i32, arguments: &[&str], said: &str) -> Output {
    let output = system.command(arguments, &[]).await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    assert!(output.stderr.contains(said), "{arguments:?}: {output:?}");
    output
}

#[tokio::test]
async fn a_job_is_submitted_shown_listed_cancelled_retried_and_removed() {
    let system = System::start(&[]).await;
    let payload = system.folder().join("payload.json");
    std::fs::write(&payload, "{\"n\": [1, 2.50]}").unwrap();
    let from_file = format!("@{}", payload.display());
    let id = ok(&system, &["jobs", "submit", "--kind", "count", "--payload", &from_file, "--priority", "high"]).await;
    let id = id.trim();
    let shown = json(&system, &["jobs", "show", id]).await;
    assert_eq!((&shown["state"], &shown["priority"]), (&"queued".into(), &"high".into()));
    assert_eq!((&shown["served"], &shown["payload"]), (&false.into(), &serde_json::json!({"n": [1, 2.5]})));
    let person = ok(&system, &["jobs", "show", id]).await;
    assert!(person.contains("partition") && person.contains("no living worker serves kind count"), "{person}");
    let list = json(&system, &["jobs", "ls", "--state", "queued", "--kind", "count"]).await;
    assert_eq!((list["jobs"][0]["id"].as_str(), &list["next_cursor"]), (Some(id), &Value::Null));
    assert!(ok(&system, &["jobs", "ls"]).await.contains(id));
    fails(&system, 1, &["jobs", "rm", id], "only a job that has ended can be removed").await;
    let cancelled = fails(&system, 1, &["jobs", "cancel", id, "nobody", id], "there is no job nobody").await;
    assert_eq!(cancelled.stdout.matches("cancelled").count(), 1, "each id is answered once: {cancelled:?}");
    assert!(ok(&system, &["jobs", "history", id]).await.contains("cancel"));
    assert!(ok(&system, &["jobs", "retry", id]).await.contains("queued"));
    ok(&system, &["jobs", "cancel", id]).await;
    let removed = json(&system, &["jobs", "rm", id]).await;
    assert_eq!(removed["results"], serde_json::json!([{"id": id, "done": "removed", "job": null}]));
    fails(&system, 1, &["jobs", "show", id], "there is no job").await;
    system.finish().await;
}

#[tokio::test]
async fn a_submit_that_no_living_worker_serves_is_warned_of_by_kind_and_queue() {
    let system = System::start(&[]).await;
    let kinds = system.folder().join("kinds.toml");
    std::fs::write(&kinds, "[kinds.count]\ncommand = [\"true\"]\n").unwrap();
    let worker = system.worker(&[("LEASEHOLD_KINDS", &kinds.display().to_string())]);
    let api = system.api(&[]).await;
    eventually(SOON, "a worker is there", async || {
        (api.get("/api/v1/workers").await.json["workers"][0]["alive"] == true).then_some(())
    })
    .await;
    let url = api.url("");
    for way in [&[][..], &["--api", &url]] {
        for (words, said) in [
            (&["--kind", "count"][..], ""),
            (&["--kind", "cuont"], "warning: no living worker serves kind cuont; the job waits until one does\n"),
            (
                &["--kind", "count", "--queue", "reports"],
                "warning: no living worker serves queue reports; the job waits until one does\n",
            ),
        ] {
            // The API looks at the workers once a second.
            let submit = [&["jobs", "submit"], words, way].concat();
            let output = system.command(&submit, &[]).await;
            assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), said), "{submit:?}");
            if !said.is_empty() {
                let shown = ok(&system, &[&["jobs", "show", output.stdout.trim()], way].concat()).await;
                assert!(shown.contains("queued; no living worker serves"), "{shown}");
            }
        }
    }
    drop((worker, api));
    system.finish().await;
}

#[tokio::test]
async fn the_first_or_last_characters_of_an_id_stand_for_it_where_they_are_of_one_job() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    let url = api.url("");
    for way in [&[][..], &["--api", &url]] {
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(ok(&system, &[&["jobs", "submit", "--kind", "a"], way].concat()).await.trim().to_owned());
        }
        let short = &ids[0][24..];
        for (command, part) in [("show", ids[0].as_str()), ("history", "submit")] {
            let said = ok(&system, &[&["jobs", command, short], way].concat()).await;
            assert!(said.contains(part), "{command}: {said}");
        }
        // UUIDv7: ids of the same minute begin alike.
        let output = fails(&system, 1, &[&["jobs", "rm", &ids[0][..4]], way].concat(), "write more of the id").await;
        assert!(ids.iter().all(|id| output.stderr.contains(id)), "{output:?}");
        let cancelled = ok(&system, &[&["jobs", "cancel", short, &ids[0]], way].concat()).await;
        assert_eq!(cancelled, format!("{}  cancelled\n", ids[0]), "the same job is cancelled once");
        fails(&system, 1, &[&["jobs", "watch", short], way].concat(), "cancelled").await;
        fails(&system, 1, &[&["jobs", "items", short], way].concat(), "has no items").await;
        ok(&system, &[&["jobs", "retry", short], way].concat()).await;
        fails(&system, 1, &[&["jobs", "show", "zzzz"], way].concat(), "there is no job zzzz").await;
    }
    drop(api);
    system.finish().await;
}

#[tokio::test]
async fn a_key_means_the_same_over_http_and_the_command_line() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    let submit =
        ["jobs", "submit", "--kind", "count", "--payload", "{\"n\":1}", "--idempotency-key", "k", "--delay", "1h"];
    let id = ok(&system, &submit).await;
    let http = client().build().unwrap();
    let body = serde_json::json!({"kind": "count", "payload": {"n": 1}, "delay_ms": 3_600_000});
    let answer = http.post(api.url("/api/v1/jobs")).header("Idempotency-Key", "k").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap()["id"], id.trim());
    let other = [&submit[..], &["--max-attempts", "2"]].concat();
    fails(&system, 1, &other, "with another request").await;
    drop(api);
    system.finish().await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_what_would_be_right() {
    let system = System::start(&[]).await;
    for (arguments, said) in [
        (&["jobs", "submit", "--kind", "No"][..], "1 to 64 of a-z"),
        (&["jobs", "submit", "--kind", "a", "--payload", "{"], "--payload: not valid JSON"),
        (&["jobs", "submit", "--kind", "a", "--payload", "@/nowhere"], "/nowhere"),
        (&["jobs", "submit", "--kind", "a", "--delay", "5"], "as in 500ms, 5s"),
        (
            &["jobs", "submit", "--kind", "a", "--delay", "5s", "--run-at", "2030-01-01T00:00:00Z"],
            "cannot be used with",
        ),
        (&["jobs", "submit", "--kind", "a", "--run-at", "tomorrow"], "RFC 3339"),
        (&["jobs", "submit", "--kind", "a", "--max-attempts", "0"], "1..=1000"),
        (&["jobs", "submit", "--kind", "a", "--timeout", "0s"], "1ms to 7d"),
        (&["jobs", "submit", "--kind", "a", "--idempotency-key", "ä"], "printable ASCII"),
        (&["jobs", "ls", "--state", "asleep"], "write one of waiting"),
        (&["jobs", "ls", "--limit", "0"], "1..=1000"),
        (&["jobs", "ls", "--cursor", "x"], "--cursor: this cursor is not from"),
        (&["jobs", "show", "a/b"], "1 to 64 of A-Z"),
        (&["jobs", "cancel"], "<ID>"),
        (&["queues", "pause", "A"], "1 to 64 of a-z"),
    ] {
        fails(&system, 2, arguments, said).await;
    }
    fails(&system, 1, &["queues", "show", "none"], "there is no queue none").await;
    fails(&system, 1, &["jobs", "ls", "--redis-url", "redis://u:secret@127.0.0.1:1"], "redis://127.0.0.1:1").await;
    assert!(json(&system, &["jobs", "ls"]).await["jobs"].as_array().unwrap().is_empty(), "nothing was changed");
    system.finish().await;
}

#[tokio::test]
async fn a_queue_is_paused_shown_and_resumed() {
    let system = System::start(&[("LEASEHOLD_PARTITIONS", "4")]).await;
    for n in 0..6 {
        ok(&system, &["jobs", "submit", "--kind", "count", "--payload", &n.to_string()]).await;
    }
    ok(&system, &["queues", "pause", "default"]).await;
    let queue = json(&system, &["queues", "show", "default"]).await;
    assert_eq!((&queue["queued"], &queue["paused"], &queue["served"]), (&6.into(), &true.into(), &false.into()));
    let depths = queue["partitions"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap());
    assert_eq!((depths.len(), depths.sum::<u64>()), (4, 6));
    assert!(ok(&system, &["queues", "ls"]).await.contains("paused"));
    ok(&system, &["queues", "resume", "default"]).await;
    assert_eq!(json(&system, &["queues", "ls"]).await["queues"][0]["paused"], false);
    assert_eq!(json(&system, &["workers", "ls"]).await["workers"], serde_json::json!([]));
    system.finish().await;
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let system = System::start(&[]).await;
    // More than a pipe holds.
    let payload = format!("\"{}\"", "x".repeat(90_000));
    for _ in 0..4 {
        ok(&system, &["jobs", "submit", "--kind", "long", "--payload", &payload]).await;
    }
    let script = format!("set -o pipefail; {} jobs ls -o json | head -c 10", leasehold());
    let url = system.redis().url();
    let process = Process::start(Path::new("bash"), &["-c", &script], &[("LEASEHOLD_REDIS_URL", &url)]);
    assert!(process.wait_exit(UP_LIMIT).await.success());
    assert_eq!((process.stdout().as_str(), process.stderr().as_str()), ("{\n  \"jobs\"", ""));
    system.finish().await;
}

#[tokio::test]
async fn the_settings_are_shown_with_where_they_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leasehold.toml");
    std::fs::write(&file, "lease_ms = 5000\n[worker]\nconcurrency = 3\n").unwrap();
    let file = file.display().to_string();
    let environment = [("LEASEHOLD_API__LISTEN", "127.0.0.1:9999"), ("LEASEHOLD_LEASE_MS", "6000")];
    let arguments = ["config", "--config", &file, "--redis-url", "redis://u:secret@h:1", "-o", "json"];
    let output = run("leasehold", &arguments, &environment, SOON).await;
    assert!(output.status.code() == Some(0) && !output.stdout.contains("secret"), "{output:?}");
    let settings: Value = serde_json::from_str(&output.stdout).unwrap();
    let of = |key: &str| {
        let settings = settings["settings"].as_array().unwrap();
        let setting = settings.iter().find(|setting| setting["key"] == key).unwrap();
        (setting["value"].clone(), setting["from"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("redis_url"), ("redis://h:1".into(), "flag".into()));
    assert_eq!(of("api.listen"), ("127.0.0.1:9999".into(), "LEASEHOLD_API__LISTEN".into()));
    assert_eq!(of("lease_ms"), (6_000.into(), "LEASEHOLD_LEASE_MS".into()));
    assert_eq!(of("worker.concurrency"), (3.into(), file));
    assert_eq!(of("max_crashes"), (3.into(), "default".into()));
}

#[tokio::test]
async fn what_is_no_single_redis_or_refuses_the_password_is_named() {
    let system = System::start(&[]).await;
    for (url, advice) in [
        ("redis+sentinel://h:1", "names no master after the sentinels; write redis+sentinel://"),
        ("redis://a:1,b:2", "for Redis Cluster write redis+cluster://"),
    ] {
        fails(&system, 1, &["jobs", "ls", "--redis-url", url], advice).await;
    }
    let protected = leasehold_tests::RedisServer::start().await;
    protected.command::<String>(&["CONFIG", "SET", "requirepass", "right"]).await;
    let wrong = protected.url().replace("redis://", "redis://:wrong@");
    let refused = fails(&system, 1, &["doctor", "--redis-url", &wrong], "the password in redis_url was refused").await;
    assert!(!refused.stderr.contains("wrong") && !refused.stderr.contains("no Redis answers"), "{refused:?}");
    let environment = [("REDIS_URL", "redis://elsewhere:1")];
    let output = run("leasehold", &["config"], &environment, SOON).await;
    assert_eq!(output.stderr, "warning: REDIS_URL is set but not used; set LEASEHOLD_REDIS_URL\n");
    fails(&system, 1, &["queues", "pause", "nonesuch"], "--create pauses one that has never been used").await;
    assert!(json(&system, &["queues", "ls"]).await["queues"].as_array().unwrap().is_empty());
    ok(&system, &["queues", "pause", "--create", "nonesuch"]).await;
    system.finish().await;
}

#[tokio::test]
async fn each_shell_gets_its_completions() {
    let system = System::start(&[]).await;
    for shell in ["bash", "zsh", "fish"] {
        let script = ok(&system, &["completions", shell]).await;
        assert!(script.contains("prune") && script.contains("token-file"), "{shell}: {script}");
    }
    fails(&system, 2, &["completions", "cmd"], "possible values: bash").await;
    system.finish().await;
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_and_mends_it() {
    let system = System::start(&[("LEASEHOLD_LEASE_MS", "1000")]).await;
    let id = ok(&system, &["jobs", "submit", "--kind", "count"]).await;
    let healthy = json(&system, &["doctor"]).await;
    assert_eq!((&healthy["healthy"], &healthy["problems"]), (&true.into(), &serde_json::json!([])));
    assert!(healthy["notes"][0].as_str().unwrap().contains("no living worker serves it"), "{healthy}");
    system.redis().command::<i64>(&["DEL", "lh:{0}:queue:default"]).await;
    system.redis().command::<String>(&["SET", "lh:{0}:retrying", "garbage"]).await;
    let output = system.command(&["doctor"], &[]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        output.stdout.contains(id.trim()) && output.stdout.contains("the job is queued but is not in any list"),
        "{output:?}"
    );
    let mended = json(&system, &["doctor", "--repair"]).await;
    assert_eq!((&mended["healthy"], mended["repaired"].as_array().unwrap().len()), (&true.into(), 3), "{mended}");
    let listed = json(&system, &["jobs", "ls", "--state", "queued"]).await;
    assert_eq!(listed["jobs"][0]["id"], id.trim());
    system.redis().command::<String>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let output = system.command(&["doctor"], &[]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.contains("maxmemory-policy noeviction"), "{output:?}");
    system.finish().await;
}

/// The ids of the processes that run in a folder.
fn processes_in(folder: &Path) -> Vec<String> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let is_in = |pid: &String| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    pids.filter(is_in).collect()
}

/// Starts `leasehold up` in a folder of its own, on a free port; waits until it is up.
async fn up() -> (Process, String) {
    let port = leasehold_tests::Port::reserve();
    let listen = port.address().to_string();
    let process = Process::ours("leasehold", &["up", "--data", "data", "--listen", &listen], &[]);
    eventually(UP_LIMIT, "it is up", async || {
        assert!(process.is_running(), "{}", process.stderr());
        process.stdout().contains("Try, in another terminal").then_some(())
    })
    .await;
    (process, format!("http://{listen}"))
}

async fn workers(base: &str) -> Vec<Value> {
    let answer = client().build().unwrap().get(format!("{base}/api/v1/workers")).send().await.unwrap();
    let workers: Value = answer.json().await.unwrap();
    workers["workers"].as_array().unwrap().iter().filter(|w| w["alive"] == true).cloned().collect()
}

#[tokio::test]
async fn up_starts_again_what_dies_keeps_its_jobs_and_stops_in_order() {
    let (process, base) = up().await;
    let first = workers(&base).await;
    assert_eq!(first.len(), 2);
    let killed = first[0]["pid"].as_i64().unwrap() as i32;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(killed), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually(UP_LIMIT, "another worker is there", async || {
        workers(&base).await.iter().any(|w| !first.iter().any(|f| f["pid"] == w["pid"])).then_some(())
    })
    .await;
    assert!(process.stdout().contains("ended (SIGKILL); starting it again"), "{}", process.stdout());
    assert_eq!(processes_in(process.folder()).len(), 5, "itself, Redis, the API and two workers");
    process.sigterm();
    assert_eq!(process.wait_exit(UP_LIMIT).await.code(), Some(0));
    assert!(process.stdout().ends_with("stopped; nothing is left running\n"), "{}", process.stdout());
    assert_eq!(processes_in(process.folder()), Vec::<String>::new());
    assert!(client().build().unwrap().get(format!("{base}/livez")).send().await.is_err());
    assert!(process.stderr().is_empty(), "{}", process.stderr());
}

#[tokio::test]
async fn what_up_started_dies_with_it() {
    let (process, _) = up().await;
    assert_eq!(processes_in(process.folder()).len(), 5);
    process.kill9();
    eventually(UP_LIMIT, "all are gone", async || processes_in(process.folder()).is_empty().then_some(())).await;
}

/// An environment that would lead anything that reads it astray.
fn hostile(folder: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("TMPDIR", folder.display().to_string()),
        ("LEASEHOLD_REDIS_URL", "redis://127.0.0.1:1".into()),
        ("LEASEHOLD_PARTITIONS", "none".into()),
        ("LEASEHOLD_API__LISTEN", "0.0.0.0:1".into()),
        ("LEASEHOLD_NO__SUCH", "1".into()),
        ("HTTP_PROXY", "http://127.0.0.1:1".into()),
        ("http_proxy", "http://127.0.0.1:1".into()),
    ]
}

fn borrowed<'a>(environment: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    environment.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[tokio::test]
async fn the_demo_loses_nothing_and_leaves_nothing_whatever_the_environment_says() {
    let folder = tempfile::tempdir().unwrap();
    let environment = hostile(folder.path());
    let output = run("leasehold", &["demo"], &borrowed(&environment), DEMO_LIMIT).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for said in ["kill -9 worker-", "kill -9 Redis", "Redis is back", "Nothing lost", "broken-report.pdf"] {
        assert!(output.stdout.contains(said), "{said}: {output:?}");
    }
    assert!(!output.stdout.contains('✗') && output.stderr.is_empty(), "{output:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(processes_in(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let environment = hostile(folder.path());
    let demo = Process::ours("leasehold", &["demo"], &borrowed(&environment));
    eventually(DEMO_LIMIT, "it is in the middle", async || demo.stdout().contains("kill -9").then_some(())).await;
    let running = processes_in(folder.path());
    assert!(running.len() >= 3, "Redis, the API, the worker that lives and perhaps its command: {running:?}");
    demo.sigint();
    assert_eq!(demo.wait_exit(UP_LIMIT).await.code(), Some(1));
    assert!(demo.stderr().contains("the demo was stopped"), "{}", demo.stderr());
    // The kernel kills a worker's command when the worker has died, which may be a moment after the demo's end.
    eventually(UP_LIMIT, "no process is left", async || {
        let left = processes_in(folder.path());
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
