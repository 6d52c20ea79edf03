//! Gap analysis (000).
use leasehold_tests::api::answer;
use reqwest::Method;

use super::*;

const JOBS: &str = "/api/v1/gap-analysis/jobs";
const FIELDS: [&str; 9] = [
    "job_id",
    "request",
    "status",
    "created_at",
    "progress_message",
    "result_file",
    "started_at",
    "completed_at",
    "error_message",
];

async fn submit(five: &Five, url: &str) -> String {
    taken(&five.api.post(JOBS, &json!({"url": url})).await)
}

async fn cancel(five: &Five, id: &str) -> Answer {
    answer(five.api.request(Method::POST, &format!("{JOBS}/{id}/cancel"))).await
}

#[tokio::test]
async fn an_analysis_is_followed_to_its_result() {
    let five = Five::start(&[]).await;
    let submitted = five.api.post(JOBS, &json!({"url": "https://example.org/a.pdf", "max_papers": 3})).await;
    assert_eq!(submitted.status, 202);
    has(&submitted.json, &FIELDS);
    let id = taken(&submitted);
    let path = format!("{JOBS}/{id}");
    let queued = five.api.get(&path).await.json;
    assert_eq!(queued, submitted.json);
    let request = json!({"url": "https://example.org/a.pdf", "max_papers": 3, "validation_threshold": 2});
    assert_eq!((&queued["request"], &queued["status"]), (&request, &json!("pending")));
    assert_eq!(queued["progress_message"], "Job queued for processing");
    for field in ["result_file", "started_at", "completed_at", "error_message"] {
        assert_eq!(queued[field], Value::Null, "{field}");
    }
    is_time(&queued["created_at"], 0);
    let result = format!("{path}/result");
    refused(&five.api.get(&result).await, &result, 409, "only a completed one");
    refused(&five.api.delete(&path).await, &path, 409, "cancel it first");
    let _worker = five.worker();
    let running = five.until(&path, |body| body["progress_message"] == "fetching").await;
    assert_eq!(running["status"], "running");
    is_time(&running["started_at"], 0);
    five.open_gate();
    let done = five.has_status(&path, "completed").await;
    is_time(&done["completed_at"], 0);
    let name = format!("gap_analysis_{id}_20260101T000000.json");
    assert_eq!(done["result_file"], name);
    let result = five.api.get(&result).await;
    assert_eq!((result.status, result.text.trim()), (200, r#"{"gaps": [], "documents": [1.50]}"#));
    assert_eq!(result.headers["content-type"], "application/json");
    assert_eq!(five.api.get(&format!("/api/v1/jobs/{id}/files/{name}")).await.text, result.text);
    refused(&cancel(&five, &id).await, &format!("{path}/cancel"), 409, "not ended");
    assert_eq!(five.api.delete(&path).await.status, 204);
    refused(&five.api.get(&path).await, &path, 404, "Job not found");
    five.system.finish().await;
}

#[tokio::test]
async fn analyses_are_listed_newest_first_cancelled_and_fail_with_their_reason() {
    let five = Five::start(&[]).await;
    assert_eq!(five.api.get(JOBS).await.text, r#"{"jobs":[],"total":0}"#);
    let mut ids = Vec::new();
    for n in 0..250 {
        ids.push(submit(&five, &format!("https://example.org/{n}")).await);
    }
    let list = five.api.get(JOBS).await.json;
    let listed: Vec<&str> = list["jobs"].as_array().unwrap().iter().filter_map(|job| job["job_id"].as_str()).collect();
    assert_eq!((list["total"].as_u64(), listed.len()), (Some(250), 250));
    assert_eq!(listed, ids.iter().rev().map(String::as_str).collect::<Vec<_>>());
    let cancelled = cancel(&five, &ids[0]).await;
    assert_eq!((cancelled.status, &cancelled.json["status"]), (200, &json!("cancelled")));
    is_time(&cancelled.json["completed_at"], 0);
    for id in &ids[2..] {
        assert_eq!(cancel(&five, id).await.status, 200);
    }
    let _worker = five.worker();
    let path = format!("{JOBS}/{}", ids[1]);
    five.has_status(&path, "running").await;
    let asked = cancel(&five, &ids[1]).await;
    assert_eq!(asked.status, 200, "{}", asked.text);
    five.has_status(&path, "cancelled").await;
    let failing = submit(&five, "https://example.org/spoilt").await;
    let failed = five.has_status(&format!("{JOBS}/{failing}"), "failed").await;
    assert!(failed["error_message"].as_str().unwrap().contains("it is spoilt"), "{failed}");
    let result = format!("{JOBS}/{failing}/result");
    refused(&five.api.get(&result).await, &result, 409, "is failed");
    five.system.finish().await;
}

#[tokio::test]
async fn a_request_that_is_wrong_is_refused_by_field() {
    let five = Five::start(&[]).await;
    for (body, said) in [
        (json!({}), "/url: required"),
        (json!({"url": "ftp://example.org/a"}), "/url: \"ftp://example.org/a\" is not an http or https URL"),
        (json!({"url": "https://"}), "/url"),
        (json!({"url": 5}), "expected a string"),
        (json!({"url": "https://a", "max_papers": 0}), "/max_papers"),
        (json!({"url": "https://a", "max_papers": "three"}), "/max_papers: expected a number"),
        (json!({"url": "https://a", "validation_threshold": 0}), "/validation_threshold"),
        (json!({"url": "https://a", "validation_threshold": 1.5}), "/validation_threshold"),
    ] {
        refused(&five.api.post(JOBS, &body).await, JOBS, 400, said);
    }
    let body = json!({"url": "https://a"});
    let first = taken(&keyed(&five.api, JOBS, "k", &body).await);
    // What a request leaves out is what it would have said.
    let same = json!({"validation_threshold": 2, "url": "https://a", "max_papers": 10});
    assert_eq!(taken(&keyed(&five.api, JOBS, "k", &same).await), first);
    refused(&keyed(&five.api, JOBS, "k", &json!({"url": "https://b"})).await, JOBS, 422, "Idempotency-Key");
    five.system.finish().await;
}

#[tokio::test]
async fn an_imported_analysis_reads_as_it_stood() {
    let five = Five::start(&[]).await;
    let old = json!({"job_id": "old-1", "request": {"url": "https://arxiv.org/pdf/1", "max_papers": 10, "validation_threshold": 2},
        "status": "completed", "created_at": "2024-01-01T12:00:00", "progress_message": "Analysis completed",
        "result_file": "gap_analysis_old-1_x.json", "started_at": "2024-01-01T12:01:00",
        "completed_at": "2024-01-01T12:05:00", "error_message": null});
    let id = five.import("old-1", "gap-analysis", None, &old).await;
    let path = format!("{JOBS}/old-1");
    let queued = five.api.get(&path).await.json;
    assert_eq!((&queued["status"], &queued["created_at"]), (&json!("pending"), &old["created_at"]));
    assert_eq!((&queued["started_at"], &queued["result_file"]), (&Value::Null, &Value::Null));
    five.open_gate();
    let _worker = five.worker();
    five.ended_there(&id).await;
    assert_eq!(five.api.get(&path).await.json, old);
    let result = format!("{path}/result");
    refused(&five.api.get(&result).await, &result, 404, "gap_analysis_old-1_x.json");
    five.system.finish().await;
}
