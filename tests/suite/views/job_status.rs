//! Job status (002).
use super::*;

const FIELDS: [&str; 5] = ["job_id", "status", "created_at", "updated_at", "progress"];

#[tokio::test]
async fn a_job_is_polled_to_its_end() {
    let five = Five::start(&[]).await;
    let submitted = five.api.post("/api/suggestions", &json!({"text": "It was done."})).await;
    let id = taken(&submitted);
    assert_eq!((submitted.status, &submitted.json), (202, &json!({"job_id": id, "status": "queued"})));
    let path = format!("/api/job-status/{id}");
    let queued = five.api.get(&path).await;
    has(&queued.json, &FIELDS);
    assert_eq!((&queued.json["progress"].to_string()[..], &queued.json["status"]), ("0", &json!("queued")));
    is_time(&queued.json["created_at"], 0);
    is_time(&queued.json["updated_at"], 0);
    let _worker = five.worker();
    let running = five.until(&path, |body| body["progress"] == 75.5).await;
    has(&running, &FIELDS);
    assert_eq!(running["status"], "running");
    five.open_gate();
    let done = five.has_status(&path, "completed").await;
    has(&done, &[&FIELDS[..], &["result"]].concat());
    assert_eq!(done["progress"].to_string(), "100");
    assert_eq!(done["result"], json!({"suggestions": [{"id": "1", "text": "Test suggestion"}]}));
    let id = taken(&five.api.post("/api/suggestions", &json!({"text": "spoilt"})).await);
    let failed = five.has_status(&format!("/api/job-status/{id}"), "failed").await;
    has(&failed, &[&FIELDS[..], &["error_message"]].concat());
    assert!(failed["error_message"].as_str().unwrap().contains("it is spoilt"), "{failed}");
    five.system.finish().await;
}

#[tokio::test]
async fn a_job_is_watched_to_its_end() {
    let five = Five::start(&[]).await;
    let id = taken(&five.api.post("/api/suggestions", &json!({"text": "It was done."})).await);
    let path = format!("/api/job-status/{id}/stream");
    let _worker = five.worker();
    let watching = five.api.get(&path);
    let running = async {
        five.has_status(&format!("/api/job-status/{id}"), "running").await;
        five.open_gate();
    };
    let (watched, ()) = tokio::join!(watching, running);
    assert_eq!((watched.status, &watched.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let events: Vec<&str> = watched.text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert!(events.len() > 1 && events[..events.len() - 1].iter().all(|event| *event == "job"), "{events:?}");
    assert_eq!(events.last(), Some(&"end"));
    let data: Vec<Value> =
        watched.text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    assert_eq!(data.last(), Some(&five.api.get(&format!("/api/job-status/{id}")).await.json));
    has(&data[0], &FIELDS);
    five.system.finish().await;
}

#[tokio::test]
async fn an_id_that_is_none_or_unknown_is_told_and_logged_as_what_it_is() {
    let five = Five::start(&[("LEASEHOLD_LOG__FORMAT", "json")]).await;
    for end in ["", "/stream"] {
        for bad in ["not-a-uuid", "271945c6", "%ff", "{12345678-1234-1234-1234-123456789abc}"] {
            let path = format!("/api/job-status/{bad}{end}");
            let answer = five.api.get(&path).await;
            let sent = path.replace('{', "%7B").replace('}', "%7D");
            refused(&answer, &sent, 400, "Invalid job_id format (must be UUID)");
            assert_eq!(answer.json["error"], "Invalid job_id format (must be UUID)");
        }
        let path = format!("/api/job-status/00000000-0000-0000-0000-000000000000{end}");
        refused(&five.api.get(&path).await, &path, 404, "Job not found");
    }
    let log = format!("{}{}", five.api.stdout(), five.api.stderr());
    let level = |said: &str| {
        let line = log.lines().find(|line| line.contains(said)).unwrap_or_else(|| panic!("{said}: {log}"));
        serde_json::from_str::<Value>(line).unwrap()["level"].as_str().unwrap().to_uppercase()
    };
    assert_eq!((level("job not found (404)"), level("job id is not a UUID (400)")), ("INFO".into(), "WARN".into()));
    assert!(!log.contains("ERROR"), "{log}");
    five.system.finish().await;
}

#[tokio::test]
async fn a_text_that_is_none_is_refused_and_the_same_one_is_one_job() {
    let five = Five::start(&[("LEASEHOLD_LIMITS__PAYLOAD_BYTES", "1000")]).await;
    for (body, status, said) in [
        (json!({}), 400, "/text: required"),
        (json!({"text": null}), 400, "/text: required"),
        (json!({"text": 5}), 400, "/text: expected a string, got a number"),
        (json!({"text": "x".repeat(1_000)}), 413, "at most 1000"),
    ] {
        refused(&five.api.post("/api/suggestions", &body).await, "/api/suggestions", status, said);
    }
    let text = json!({"text": "a"});
    let first = taken(&keyed(&five.api, "/api/suggestions", "k", &text).await);
    assert_eq!(taken(&keyed(&five.api, "/api/suggestions", "k", &text).await), first);
    let other = keyed(&five.api, "/api/suggestions", "k", &json!({"text": "b"})).await;
    refused(&other, "/api/suggestions", 422, "Idempotency-Key");
    five.system.finish().await;
}

#[tokio::test]
async fn an_imported_job_reads_as_it_stood() {
    let five = Five::start(&[]).await;
    let id = "12345678-1234-1234-1234-123456789abc";
    let old = json!({"job_id": id, "status": "completed", "created_at": "2025-01-01T00:00:00",
        "updated_at": "2025-01-01T00:01:00", "result": {"suggestions": [{"id": "1", "text": "Old suggestion"}]}});
    let job = five.import(id, "suggestions", None, &old).await;
    five.open_gate();
    let _worker = five.worker();
    five.ended_there(&job).await;
    let mut wanted = old.clone();
    wanted["progress"] = json!(100);
    assert_eq!(five.api.get(&format!("/api/job-status/{id}")).await.json, wanted);
    five.system.finish().await;
}
