//! Job status: files and logs of events, and what has its text running as a command.
use std::fs;

use leasehold_tests::{System, eventually};
use serde_json::json;

use super::{finish, import, job, round, shipped};
use crate::steered_command::SOON;

const KINDS: &str = r#"
[kinds.suggestions]
command = ["sh", "-c", "read -r line; echo \"{\\\"result\\\": $line}\""]
max_attempts = 2
"#;

#[tokio::test]
async fn jobs_come_along_from_files_and_logs_and_run() {
    for partitions in ["1", "4"] {
        let kinds = tempfile::NamedTempFile::new().unwrap();
        fs::write(kinds.path(), KINDS).unwrap();
        let kinds = kinds.path().to_str().unwrap();
        let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions), ("LEASEHOLD_KINDS", kinds)]).await;
        let old = shipped(&system, "job-status");
        let said = round(&system, "job-status", &[&old]).await;
        assert_eq!(said.counts(), (3, 0, 1));
        assert!(said.why("b7b7b7b7-0000-4000-8000-00000000000b.json").contains("one of queued, running"));
        assert!(said.notes().contains("line 4"), "{}", said.notes());
        let done = job(&system, "12345678-1234-1234-1234-123456789abc").await;
        assert_eq!(done["result"], json!({"suggestions": [{"id": "1", "text": "Test suggestion"}]}));
        let logged = job(&system, "6f1c2f0e-52a4-4c3e-9a53-0d2b7f4a9c11").await;
        assert_eq!(
            (&logged["state"], &logged["error"]["message"]),
            (&json!("failed"), &json!("The model did not answer"))
        );
        let record = json!({
            "job_id": "6f1c2f0e-52a4-4c3e-9a53-0d2b7f4a9c11", "status": "failed", "progress": 40,
            "error_message": "The model did not answer", "created_at": "2025-01-02T10:00:00", "updated_at": "2025-01-02T10:00:09",
        });
        assert_eq!(logged["imported"], record);

        let queued = job(&system, "a0b1c2d3-0000-4000-8000-00000000000a").await;
        assert_eq!((&queued["state"], &queued["max_attempts"]), (&json!("queued"), &json!(2)));
        let worker = system.worker(&[]);
        eventually(SOON, "the job runs", async || {
            let ran = job(&system, "a0b1c2d3-0000-4000-8000-00000000000a").await;
            (ran["state"] == "completed" && ran["result"] == queued["payload"]).then_some(()).ok_or(ran.to_string())
        })
        .await;
        drop(worker);
        assert_eq!(import(&system, "job-status", &[&old]).await.counts(), (0, 3, 1));
        finish(system).await;
    }
}

#[tokio::test]
async fn the_last_value_of_a_field_wins_and_a_job_is_taken_once() {
    let system = System::start(&[]).await;
    let old = system.folder().join("jobs");
    for (id, lines) in [
        (
            "wins",
            "{\"timestamp\": \"2025-01-01T00:00:00\", \"event\": \"created\", \"progress\": 5}\n{\"status\": \"running\"}\n{\"progress\": 75.5}\n",
        ),
        ("ends", "{\"status\": \"running\"}\noops\n{\"event\": \"completed\", \"result\": {\"n\": 1}}"),
        ("both", "{\"status\": \"failed\"}\n"),
        ("nothing", "{\"progress\": 5}\n"),
        ("garbage", "\0\0\0\n\u{1}"),
    ] {
        fs::create_dir_all(old.join(id)).unwrap();
        fs::write(old.join(id).join("events.log"), lines).unwrap();
    }
    fs::create_dir(old.join("hollow")).unwrap();
    fs::write(old.join("both.json"), "{\"status\": \"completed\"}").unwrap();
    fs::write(old.join("copy of both.json"), "{\"job_id\": \"both\", \"status\": \"failed\"}").unwrap();
    fs::write(old.join("first.json"), "{\"job_id\": \"twice\", \"status\": \"completed\"}").unwrap();
    fs::write(old.join("second.json"), "{\"job_id\": \"twice\", \"status\": \"completed\"}").unwrap();
    let said = import(&system, "job-status", &[&old]).await;
    assert_eq!(said.counts(), (4, 0, 6), "{:#}", said.report);
    assert!(said.why("nothing/events.log").contains("\"status\" is missing"));
    assert!(said.why("hollow").contains("has no events.log"));
    assert!(said.why("both").contains("both.json, which is used"));
    assert!(said.why("copy of both.json").contains("which is used"));
    let wins = job(&system, "wins").await;
    assert_eq!((&wins["state"], &wins["imported"]["progress"]), (&json!("failed"), &json!(75.5)));
    assert!(wins["error"]["message"].as_str().unwrap().contains("has not kept its text"), "{wins}");
    assert_eq!(job(&system, "ends").await["result"], json!({"n": 1}));
    assert_eq!(job(&system, "both").await["state"], "completed");
    finish(system).await;
}
