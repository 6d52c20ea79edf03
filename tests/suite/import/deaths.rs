//! Deaths in the middle of an import: the same command again completes it, exactly.
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use leasehold::store::script_sha;
use leasehold_tests::proxy::script;
use leasehold_tests::{Process, Proxy, System, eventually};
use serde_json::json;

use super::{finish, import, items, job};
use crate::steered_command::SOON;

/// What an import may need at most.
const MEMORY_MAX_KB: u64 = 80 << 10;
const LONG: Duration = Duration::from_secs(120);

/// Begins an import over a proxy.
fn begin(system: &System, url: &str, from: &str, path: &str) -> Process {
    let storage = format!("file://{}/storage", system.folder().display());
    let environment = [("LEASEHOLD_REDIS_URL", url), ("LEASEHOLD_STORAGE_URL", storage.as_str())];
    Process::ours("leasehold", &["import", "--from", from, "-o", "json", path], &environment)
}

fn results(system: &System, lines: usize) -> PathBuf {
    let folder = system.folder().join("job_results");
    fs::create_dir(&folder).unwrap();
    let text: String =
        (0..lines).map(|n| format!("{}\n", json!({"filename": n.to_string(), "success": n % 3 != 0}))).collect();
    fs::write(folder.join("job_long_results.jsonl"), text).unwrap();
    folder
}

#[tokio::test]
async fn an_import_that_is_killed_anywhere_is_completed_by_the_same_again() {
    for partitions in ["1", "4"] {
        let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        // The number of partitions is agreed before.
        system.command(&["jobs", "ls"], &[]).await;
        let folder = results(&system, 4_500);
        let path = folder.to_str().unwrap();
        for (name, nth) in [("submit", 1), ("items", 1), ("items", 3), ("items", 5)] {
            let proxy = Proxy::start(system.redis().port()).await;
            let held = proxy.hold(script(script_sha(name).unwrap()), nth);
            let doomed = begin(&system, &proxy.url(), "files", path);
            // What was done before has passed over what is in, so a later call may never be made.
            eventually(SOON, "it is in the middle, or done", async || held.has_fired() || !doomed.is_running()).await;
            doomed.kill9();
        }
        import(&system, "files", &[&folder]).await;
        let batch = job(&system, "long").await;
        let counts =
            json!({"total": 4_500, "succeeded": 3_000, "failed": 1_500, "skipped": 0, "cancelled": 0, "open": false});
        assert_eq!((&batch["state"], &batch["items"]), (&json!("completed"), &counts));
        let all = items(&system, "long").await;
        let in_order = all.iter().enumerate().all(|(n, item)| item["payload"]["file"].as_str() == Some(&n.to_string()));
        assert!(all.len() == 4_500 && in_order);
        assert_eq!(import(&system, "files", &[&folder]).await.counts(), (0, 1, 0));
        finish(system).await;
    }
}

#[tokio::test]
async fn an_import_rides_out_the_death_of_redis() {
    let system = System::start(&[]).await;
    let folder = results(&system, 9_500);
    let proxy = Proxy::start(system.redis().port()).await;
    let held = proxy.hold(script(script_sha("items").unwrap()), 4);
    let process = begin(&system, &proxy.url(), "files", folder.to_str().unwrap());
    held.fired().await;
    system.redis().kill9();
    held.release();
    system.redis().restart().await;
    process.wait_exit(LONG).await;
    import(&system, "files", &[&folder]).await;
    let batch = job(&system, "long").await;
    assert_eq!(
        (&batch["state"], &batch["items"]["total"]),
        (&json!("completed"), &json!(9_500)),
        "{}",
        process.stderr()
    );
    assert_eq!((&batch["items"]["succeeded"], &batch["items"]["failed"]), (&json!(6_333), &json!(3_167)));
    finish(system).await;
}

#[tokio::test]
async fn a_redis_that_stays_away_is_told_and_the_report_stands() {
    let system = System::start(&[]).await;
    let folder = results(&system, 9_500);
    let proxy = Proxy::start(system.redis().port()).await;
    let held = proxy.hold(script(script_sha("items").unwrap()), 3);
    let process = begin(&system, &proxy.url(), "files", folder.to_str().unwrap());
    held.fired().await;
    drop(proxy);
    assert_eq!(process.wait_exit(LONG).await.code(), Some(1));
    assert!(process.stderr().contains("the same command continues with the rest"), "{}", process.stderr());
    let report: serde_json::Value = serde_json::from_str(&process.stdout()).unwrap();
    assert_eq!(report["skipped"], json!([]));
    import(&system, "files", &[&folder]).await;
    assert_eq!(job(&system, "long").await["items"]["total"], 9_500);
    finish(system).await;
}

#[tokio::test]
async fn a_batch_that_was_given_up_half_way_is_reported_with_the_way_out() {
    let system = System::start(&[]).await;
    let folder = results(&system, 1_500);
    let proxy = Proxy::start(system.redis().port()).await;
    let held = proxy.hold(script(script_sha("items").unwrap()), 2);
    let doomed = begin(&system, &proxy.url(), "files", folder.to_str().unwrap());
    held.fired().await;
    doomed.kill9();
    // As the sweep does an hour after the last part.
    assert!(system.command(&["jobs", "cancel", "long"], &[]).await.status.success());
    let worker = system.worker(&[("LEASEHOLD_WORKER__QUEUES", "nothing")]);
    eventually(SOON, "it is cancelled", async || job(&system, "long").await["state"] == "cancelled").await;
    worker.kill9();
    let said = import(&system, "files", &[&folder]).await;
    assert_eq!(said.counts(), (0, 0, 1));
    assert!(said.why("job_long_results.jsonl").contains("jobs rm long"), "{}", said.report);
    assert!(system.command(&["jobs", "rm", "long"], &[]).await.status.success());
    let worker = system.worker(&[("LEASEHOLD_WORKER__QUEUES", "nothing")]);
    eventually(SOON, "it is gone", async || !system.command(&["jobs", "show", "long"], &[]).await.status.success())
        .await;
    drop(worker);
    assert_eq!(import(&system, "files", &[&folder]).await.counts(), (1, 0, 0));
    assert_eq!(job(&system, "long").await["state"], "completed");
    finish(system).await;
}

#[tokio::test]
async fn many_thousand_jobs_come_along_in_little_memory() {
    let system = System::start(&[]).await;
    let folder = system.folder().join("jobs");
    fs::create_dir(&folder).unwrap();
    let result = "x".repeat(1_000);
    for n in 0..20_000 {
        let record = json!({"job_id": format!("job-{n}"), "status": "completed", "result": {"text": result}});
        fs::write(folder.join(format!("job-{n}.json")), record.to_string()).unwrap();
    }
    let proxy = Proxy::start(system.redis().port()).await;
    let held = proxy.hold(script(script_sha("submit").unwrap()), 20);
    let process = begin(&system, &proxy.url(), "job-status", folder.to_str().unwrap());
    tokio::time::timeout(LONG, held.fired()).await.unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MEMORY_MAX_KB, "it took {peak} kB");
    held.release();
    assert_eq!(process.wait_exit(LONG).await.code(), Some(0), "{}", process.stderr());
    let report: serde_json::Value = serde_json::from_str(&process.stdout()).unwrap();
    assert_eq!(report["imported"], 20_000);
    assert_eq!(import(&system, "job-status", &[&folder]).await.counts(), (0, 20_000, 0));
    system.finish().await;
}
