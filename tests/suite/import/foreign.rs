//! Old stores as Python, SQLite and JavaScript write them: times of every form, NaN, and what has ended there.
use std::fs;
use std::path::{Path, PathBuf};

use leasehold_tests::System;
use rusqlite::Connection;
use serde_json::json;

use super::{finish, import, job, kinds_file, named};

/// Writes files below the system's folder, and returns that folder.
fn store(system: &System, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = system.folder().join(name);
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[tokio::test]
async fn times_of_a_table_are_shown_whatever_wrote_them() {
    let kinds = kinds_file("analyze-audio");
    let system = System::start(&[("LEASEHOLD_KINDS", named(&kinds))]).await;
    let path = system.folder().join("jobs.db");
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch("CREATE TABLE jobs (job_id, status, progress, filename, result, error, created_at, updated_at)")
        .unwrap();
    let times = [
        ("sqlite", json!("2024-05-01 12:00:09"), "2024-05-01T12:00:09"),
        ("zone", json!("2024-05-01T12:00:09+00:00"), "2024-05-01T12:00:09"),
        ("micros", json!("2024-05-01T12:00:09.654321"), "2024-05-01T12:00:09.654321"),
        ("unix", json!(1_714_564_809.5), "2024-05-01T12:00:09.500000"),
        ("text", json!("1714564809"), "2024-05-01T12:00:09"),
        ("javascript", json!("2024-05-01T12:00:09.000Z"), "2024-05-01T12:00:09"),
        ("ms", json!(1_714_564_809_000_i64), "2024-05-01T12:00:09"),
        ("fraction", json!("2024-05-01 12:00:09.123"), "2024-05-01T12:00:09.123000"),
    ];
    for (id, time, _) in &times {
        let row =
            format!("INSERT INTO jobs VALUES ('{id}', 'completed', 1.0, 'a.wav', '{{\"a\": NaN}}', NULL, ?1, ?1)");
        match time {
            serde_json::Value::String(text) => database.execute(&row, [text]),
            time => database.execute(&row, [time.as_f64().unwrap()]),
        }
        .unwrap();
    }
    drop(database);
    assert_eq!(import(&system, "audio", &[&path]).await.counts(), (times.len() as u64, 0, 0));
    let api = system.api(&[]).await;
    for (id, _, shown) in &times {
        let record = api.get(&format!("/api/status/{id}")).await.json;
        assert_eq!((&record["created_at"], &record["updated_at"]), (&json!(shown), &json!(shown)), "{id}: {record}");
        assert_eq!(record["result"], json!({"a": null}), "{record}");
    }
    // The clean-up goes by the time that is shown: all of them ended in 2024.
    let far = api.delete("/api/jobs/cleanup?days=100000").await;
    assert_eq!(far.json, json!({"deleted": 0}), "{}", far.text);
    let all = api.delete("/api/jobs/cleanup?days=7").await;
    assert_eq!(all.json, json!({"deleted": times.len()}), "{}", all.text);
    finish(system).await;
}

#[tokio::test]
async fn durations_come_from_the_times_of_the_old_store() {
    let kinds = kinds_file("process-files");
    let system = System::start(&[("LEASEHOLD_KINDS", named(&kinds))]).await;
    let lines = r#"{"filename": "a.pdf", "success": true, "error": null, "timestamp": "2025-01-01T10:00:01"}
{"filename": "b.pdf", "success": true, "error": null, "timestamp": "2025-01-01T10:00:03"}
"#;
    let folder = store(&system, "files", &[("job_results/job_bbbb0001_results.jsonl", lines)]);
    assert_eq!(import(&system, "files", &[&folder]).await.counts().0, 1);
    let api = system.api(&[]).await;
    let listed = api.get("/jobs").await.json;
    assert_eq!(listed["jobs"][0]["processing_time"], json!(2.0), "{listed}");
    let kept = job(&system, "bbbb0001").await;
    assert_eq!(kept["finished_at"], "2025-01-01T10:00:03.000Z", "{kept}");
    drop(api);
    finish(system).await;

    let kinds = kinds_file("screenshots");
    let system = System::start(&[("LEASEHOLD_KINDS", named(&kinds))]).await;
    let batch = |id: &str, more: &str| {
        format!(
            r#"{{"job_id": "{id}", "status": "completed",
            "items": {{"x": {{"id": "x", "status": "success", "result": {{"url": "u1"}}}}}}, "created_at": 1703123456.0, "completed_at": 1703123460.5{more}}}"#
        )
    };
    let folder = store(
        &system,
        "screens",
        &[
            ("jobs/batch-1001.json", &batch("batch-1001", r#", "total_processing_time": null"#)),
            (
                "jobs/batch-1002.json",
                &batch("batch-1002", r#", "total_processing_time": NaN, "config": "the default""#),
            ),
            // Its service died before it wrote the status.
            ("jobs/batch-1003.json", &batch("batch-1003", "").replace("\"completed\"", "\"processing\"")),
        ],
    );
    assert_eq!(import(&system, "screenshots", &[&folder]).await.counts(), (3, 0, 0));
    let api = system.api(&[]).await;
    for id in ["batch-1001", "batch-1002", "batch-1003"] {
        let shown = api.get(&format!("/batch/screenshots/{id}/results")).await.json;
        assert_eq!((&shown["status"], &shown["total_processing_time"]), (&json!("completed"), &json!(4.5)), "{shown}");
    }
    drop(api);
    finish(system).await;
}

#[tokio::test]
async fn a_job_that_had_ended_is_never_run_again() {
    let system = System::start(&[]).await;
    let id = |n: u32| format!("00000000-0000-4000-8000-{n:012}");
    let begun = r#"{"timestamp": "2024-03-01T10:00:00", "event": "created", "text": "words"}"#;
    let log = |n: u32, last: &str| (format!("jobs/{}/events.log", id(n)), format!("{begun}\n{last}\n"));
    let files = [
        log(
            32,
            r#"{"timestamp": "2024-03-01T10:00:05", "event": "done", "result": {"a": NaN, "b": "NaN, \"Infinity"}}"#,
        ),
        log(33, r#"{"timestamp": "2024-03-01T10:00:05", "status": "comp"#),
        log(34, r#"{"timestamp": "2024-03-01T10:00:05", "progress": -Infinity, "status": "failed"}"#),
        log(35, r#"{"timestamp": "2024-03-01T10:00:05", "event": "started"}"#),
        (format!("jobs/{}.json", id(36)), r#"{"status": "running", "text": "words", "result": {"n": 1}}"#.to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let folder = store(&system, "status", &files);
    let said = import(&system, "job-status", &[&folder]).await;
    assert_eq!(said.counts(), (5, 0, 0), "{:#}", said.report);
    let done = job(&system, &id(32)).await;
    assert_eq!((&done["state"], &done["result"]), (&json!("completed"), &json!({"a": null, "b": "NaN, \"Infinity"})));
    assert_eq!(done["finished_at"], "2024-03-01T10:00:05.000Z");
    for (n, state) in [(33, "failed"), (34, "failed"), (35, "queued"), (36, "completed")] {
        assert_eq!(job(&system, &id(n)).await["state"], state, "{n}");
    }
    assert!(job(&system, &id(33)).await["error"]["message"].as_str().unwrap().contains("it may have ended"));
    // What its request says no longer matters.
    let old = r#"{"job_id": "271945c6", "status": "completed", "request": {"url": 5, "max_papers": 0},
        "created_at": "2024-01-01T12:00:00", "started_at": null, "completed_at": "2024-01-01 12:00:30"}"#;
    let folder = store(&system, "gaps", &[("gap_analysis_jobs/job_271945c6.json", old)]);
    assert_eq!(import(&system, "gap-analysis", &[Path::new(&folder)]).await.counts(), (1, 0, 0));
    assert_eq!(job(&system, "271945c6").await["finished_at"], "2024-01-01T12:00:30.000Z");
    finish(system).await;
}
