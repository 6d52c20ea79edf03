//! A program as process 1 of a container: here of a PID namespace, which only root may make.
use std::fs;
use std::path::Path;
use std::time::Duration;

use leasehold_tests::{Process, System, binary, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);
const UNSHARE: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];
/// Leaves a process in another group behind, which ends a moment after the command.
const KINDS: &str = r#"
[kinds.leaves]
command = ["sh", "-c", "setsid sleep 0.5 & echo '{\"result\": 1}'"]
[kinds.fails]
command = ["sh", "-c", "exit 65"]
"#;

/// Whether this machine lets the test make a PID namespace; prints why not.
async fn can_unshare() -> bool {
    let tried = tokio::process::Command::new("unshare").args(UNSHARE).arg("true").output().await;
    let reason = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(e) => e.to_string(),
    };
    println!("SKIPPED: this machine does not let the test make a PID namespace: {}", reason.trim());
    false
}

/// Starts one of our programs as process 1 of a namespace.
fn start(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
    let program = binary::path(program).display().to_string();
    let arguments = [&UNSHARE, [program.as_str()].as_slice(), arguments].concat();
    Process::start(Path::new("unshare"), &arguments, environment)
}

/// The children of a process, by its id outside the namespace, each with its name and its state.
fn children(pid: i32) -> Vec<(i32, String, char)> {
    let ids = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let ids = ids.split_whitespace().map(|id| id.parse::<i32>().unwrap());
    let named = ids.filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        Some((id, head.split_once('(')?.1.to_owned(), tail.chars().next()?))
    });
    named.collect()
}

/// Process 1 of the namespace and the program in it, once both run.
async fn processes(unshare: &Process) -> (i32, i32) {
    eventually(SOON, "process 1 has a child", async || {
        let first = children(unshare.pid().cast_signed()).first()?.0;
        Some((first, children(first).first()?.0))
    })
    .await
}

#[tokio::test]
async fn a_worker_as_process_1_reaps_orphans_and_keeps_the_statuses_of_its_commands() {
    if !can_unshare().await {
        return;
    }
    let system = System::start(&[]).await;
    let kinds = system.folder().join("kinds.toml");
    fs::write(&kinds, KINDS).unwrap();
    let (url, kinds) = (system.redis().url(), kinds.display().to_string());
    let environment = [("LEASEHOLD_REDIS_URL", url.as_str()), ("LEASEHOLD_KINDS", &kinds)];
    let worker = start("leasehold-worker", &[], &environment);
    let (first, _) = processes(&worker).await;
    let api = system.api(&[]).await;
    for (kind, wanted) in [("leaves", "completed"), ("fails", "failed"), ("leaves", "completed")] {
        let id = api.post("/api/v1/jobs", &json!({ "kind": kind, "payload": {} })).await.json["id"].clone();
        let path = format!("/api/v1/jobs/{}", id.as_str().unwrap());
        let state = async || api.get(&path).await.json["state"].as_str().map(ToOwned::to_owned);
        let ended = async || state().await.filter(|state| ["completed", "failed"].contains(&state.as_str()));
        assert_eq!(eventually(SOON, "the job ends", ended).await, wanted, "{kind}");
    }
    let adopted = || children(first).into_iter().filter(|(_, name, _)| name == "sleep").collect::<Vec<_>>();
    eventually(SOON, "process 1 has waited for the orphans", async || {
        if adopted().is_empty() { Ok(()) } else { Err(adopted()) }
    })
    .await;
    kill(Pid::from_raw(first), Signal::SIGTERM).unwrap();
    assert_eq!(worker.wait_exit(SOON).await.code(), Some(0), "the signal was forwarded");
    assert!(worker.stderr().contains("stopped") || worker.stderr().contains("ended"), "{}", worker.stderr());
    system.finish().await;
}

#[tokio::test]
async fn process_1_exits_as_its_program_does() {
    if !can_unshare().await {
        return;
    }
    let refused = start("leasehold-api", &[], &[("LEASEHOLD_LEASE_MS", "5")]);
    assert_eq!(refused.wait_exit(SOON).await.code(), Some(1));
    let usage = start("leasehold", &["jobs", "shwo"], &[]);
    assert_eq!(usage.wait_exit(SOON).await.code(), Some(2));
    let api = start("leasehold-api", &[], &[("LEASEHOLD_API__LISTEN", "127.0.0.1:0")]);
    let (_, program) = processes(&api).await;
    kill(Pid::from_raw(program), Signal::SIGKILL).unwrap();
    assert_eq!(api.wait_exit(SOON).await.code(), Some(128 + 9));
}
