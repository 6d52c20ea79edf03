//! File batches (001).
use leasehold_tests::api::answer;
use reqwest::Method;
use serde_json::{Value, json};

use super::*;

const SUMMARY: [&str; 10] = [
    "job_id",
    "status",
    "progress_percentage",
    "total_files",
    "successful_files",
    "failed_files",
    "skipped_files",
    "processing_time",
    "start_time",
    "end_time",
];

async fn summary(five: &Five, id: &str) -> Value {
    let jobs = five.api.get("/jobs").await.json["jobs"].take();
    jobs.as_array().unwrap().iter().find(|job| job["job_id"] == id).unwrap().clone()
}

/// The lines of a download.
async fn lines(five: &Five, id: &str) -> Vec<Value> {
    let got = five.api.get(&format!("/job_results/{id}/download")).await;
    assert_eq!((got.status, &got.headers["content-type"]), (200, &"application/x-ndjson".parse().unwrap()));
    assert_eq!(got.headers["content-disposition"], format!("attachment; filename=\"job_{id}_results.jsonl\""));
    got.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_batch_is_shown_from_its_submit_to_its_end() {
    let five = Five::start(&[]).await;
    let files = json!({"files": ["night-shift.txt", "../Cargo.toml", "", "night-shift.txt", "no/such.pdf"]});
    let submitted = five.api.post("/jobs", &files).await;
    assert_eq!(submitted.status, 202);
    let id = taken(&submitted);
    assert_eq!(submitted.json, json!({"job_id": id, "status": "Pending", "total_files": 5}));
    let path = format!("/job_results/{id}");
    let begun = five.api.get(&path).await.json;
    let none = json!({"job_id": id, "status": "Pending", "total_files": 5, "successful_files": 0, "failed_files": 0, "results": []});
    assert_eq!(begun, none);
    let waiting = summary(&five, &id).await;
    has(&waiting, &SUMMARY);
    assert_eq!((&waiting["progress_percentage"], &waiting["end_time"]), (&json!(0), &Value::Null));
    is_time(&waiting["start_time"], 6);
    let _worker = five.worker();
    let ended = five.has_status(&path, "Completed").await;
    has(&ended, &["job_id", "status", "total_files", "successful_files", "failed_files", "results"]);
    let results = ended["results"].as_array().unwrap();
    assert_eq!((&ended["successful_files"], &ended["failed_files"], results.len()), (&json!(1), &json!(2), 3));
    for (result, name) in results.iter().zip(["night-shift.txt", "../Cargo.toml", "no/such.pdf"]) {
        has(result, &["filename", "success", "error", "timestamp"]);
        let is_good = name == "night-shift.txt";
        let error = if is_good { Value::Null } else { "File not found".into() };
        assert_eq!(
            (&result["filename"], &result["success"], &result["error"]),
            (&name.into(), &is_good.into(), &error)
        );
        is_time(&result["timestamp"], 6);
    }
    let done = summary(&five, &id).await;
    let counts = ["progress_percentage", "total_files", "skipped_files"].map(|name| done[name].to_string());
    assert_eq!(counts, ["100", "5", "2"]);
    assert!(done["processing_time"].as_f64().is_some_and(|seconds| seconds > 0.0), "{done}");
    is_time(&done["end_time"], 6);
    let lines = lines(&five, &id).await;
    assert_eq!((&lines[0], &lines[1..]), (&done, results.as_slice()));
    five.system.finish().await;
}

#[tokio::test]
async fn a_batch_whose_files_all_failed_is_completed_and_one_that_runs_is_processing() {
    let five = Five::start(&[]).await;
    let _worker = five.worker();
    let id = taken(&five.api.post("/jobs", &json!({"files": ["a", "b", "c"]})).await);
    let failed = five.has_status(&format!("/job_results/{id}"), "Completed").await;
    assert_eq!((&failed["successful_files"], &failed["failed_files"]), (&json!(0), &json!(3)));
    // Of this kind's items one runs: the batch has begun, though nothing has ended.
    let pages = json!({"items": [{"id": "a", "url": "http://a"}, {"id": "b", "url": "http://b"}]});
    let id = taken(&five.api.post("/batch/screenshots", &pages).await);
    let begun = five.has_status(&format!("/batch/screenshots/{id}"), "processing").await;
    assert_eq!((&begun["pending"], &begun["total"]), (&json!(2), &json!(2)));
    five.open_gate();
    five.has_status(&format!("/batch/screenshots/{id}"), "completed").await;
    five.system.finish().await;
}

#[tokio::test]
async fn a_list_of_files_that_is_wrong_changes_nothing() {
    let five = Five::start(&[("LEASEHOLD_LIMITS__PAYLOAD_BYTES", "1000")]).await;
    let long = "x".repeat(2_000);
    for (body, status, said) in [
        (json!({}), 400, "/files: required"),
        (json!({"files": []}), 400, "/files: required"),
        (json!({"files": null}), 400, "/files: required"),
        (json!({"files": "a.txt"}), 400, "expected an array"),
        (json!({"files": ["a", 5]}), 400, "/files/1: expected a string, got a number"),
        (json!({"files": ["a", null]}), 400, "/files/1"),
        (json!({"files": ["a", ["b"]]}), 400, "/files/1: expected a string, got an array"),
        (json!([]), 400, "expected an object"),
        (json!({"files": ["a", long]}), 413, "/files/1"),
    ] {
        refused(&five.api.post("/jobs", &body).await, "/jobs", status, said);
    }
    let text = five.api.request(Method::POST, "/jobs").header("content-type", "text/plain").body("a");
    refused(&answer(text).await, "/jobs", 415, "application/json");
    assert_eq!(five.api.get("/jobs").await.text, "{\"jobs\":[]}");
    five.system.finish().await;
}

#[tokio::test]
async fn the_same_submit_is_one_batch() {
    let five = Five::start(&[]).await;
    let files = json!({"files": ["a", "a"]});
    let first = taken(&keyed(&five.api, "/jobs", "k", &files).await);
    assert_eq!(taken(&keyed(&five.api, "/jobs", "k", &files).await), first);
    refused(&keyed(&five.api, "/jobs", "k", &json!({"files": ["b"]})).await, "/jobs", 422, "Idempotency-Key");
    let cancelled = answer(five.api.request(Method::POST, &format!("/api/v1/jobs/{first}/cancel"))).await;
    assert!(cancelled.status < 300, "{}", cancelled.text);
    // Its sweeps take the items.
    let _worker = five.worker();
    five.has_status(&format!("/job_results/{first}"), "Cancelled").await;
    five.api.delete(&format!("/api/v1/jobs/{first}")).await;
    let parent = leasehold::JobId::parse(&first).unwrap();
    eventually(SOON, "the batch is gone", async || five.store.get(&parent).await.is_ok_and(|job| job.is_none())).await;
    refused(&keyed(&five.api, "/jobs", "k", &files).await, "/jobs", 410, "has been removed");
    five.system.finish().await;
}

#[tokio::test]
async fn an_imported_batch_reads_as_it_stood() {
    let five = Five::start(&[]).await;
    let old = json!({"job_id": "271945c6", "status": "Completed", "progress_percentage": 100, "total_files": 1,
        "successful_files": 0, "failed_files": 1, "skipped_files": 0, "processing_time": 0.000319,
        "start_time": "2025-09-16T20:44:07.533700", "end_time": "2025-09-16T20:44:07.534019"});
    let item = json!({"file": "docs/NIST.SP.800-207.pdf"});
    let id = five.import("271945c6", "process-files", Some(&[item]), &old).await;
    let item = five.store.item_id(&id, five.store.partition_of(&id), 0);
    let result = json!({"filename": "docs/NIST.SP.800-207.pdf", "success": false, "error": "File not found",
        "timestamp": "2025-09-16T20:44:07.533904"});
    five.give_old(&item, &result).await;
    assert_eq!(summary(&five, "271945c6").await["status"], "Pending");
    let worker = five.worker();
    five.ended_there(&item).await;
    five.ended_there(&id).await;
    assert_eq!(summary(&five, "271945c6").await, old);
    assert_eq!(lines(&five, "271945c6").await, [old, result]);
    // Without its results the old counts are all that is known.
    let bare = json!({"status": "Completed", "total_files": 9, "successful_files": 7, "failed_files": 2});
    five.import("bare", "process-files", Some(&[]), &bare).await;
    let bare = summary(&five, "bare").await;
    assert_eq!(
        (&bare["total_files"], &bare["successful_files"], &bare["skipped_files"]),
        (&json!(9), &json!(7), &json!(0))
    );
    drop(worker);
    five.system.finish().await;
}

#[tokio::test]
async fn a_large_batch_is_read_and_downloaded_in_little_memory() {
    const FILES: usize = 20_000;
    let five = Five::start(&[]).await;
    let names: Vec<String> = (0..FILES).map(|n| format!("no/such/document-{n}.pdf")).collect();
    let submitted = five.api.post("/jobs", &json!({"files": names})).await;
    assert_eq!(submitted.json["total_files"], FILES);
    let id = taken(&submitted);
    let _worker = five.system.worker(&[("LEASEHOLD_WORKER__CONCURRENCY", "200")]);
    eventually(4 * SOON, "all files are looked at", async || summary(&five, &id).await["status"] == "Completed").await;
    // One that has not held the submit.
    let reader = five.system.api(&[]).await;
    reader.wait_ready().await;
    let before = reader.peak_bytes();
    let mut got = reader.request(Method::GET, &format!("/job_results/{id}/download")).send().await.unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = got.chunk().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), FILES + 1);
    let results: Value =
        reader.request(Method::GET, &format!("/job_results/{id}")).send().await.unwrap().json().await.unwrap();
    let results = results["results"].as_array().unwrap();
    assert_eq!((results.len(), &results[FILES - 1]["filename"]), (FILES, &json!(names[FILES - 1])));
    let grown = reader.peak_bytes() - before;
    assert!(grown < 12 << 20, "reading {} KiB took {} KiB of memory", text.len() >> 10, grown >> 10);
    five.system.finish().await;
}
