//! Audio analysis (004).
use super::*;

const FIELDS: [&str; 8] = ["job_id", "status", "progress", "created_at", "updated_at", "filename", "result", "error"];

#[tokio::test]
async fn a_recording_is_followed_to_its_end_and_deleted() {
    let five = Five::start(&[]).await;
    let submitted = upload(&five.api, "file", "test.wav", b"RIFF").await;
    let id = taken(&submitted);
    assert_eq!((submitted.status, &submitted.json), (200, &json!({"job_id": id, "status": "pending"})));
    let path = format!("/api/status/{id}");
    let pending = five.api.get(&path).await;
    has(&pending.json, &FIELDS);
    assert_eq!((&pending.json["filename"], &pending.json["result"]), (&json!("test.wav"), &Value::Null));
    assert!(pending.text.contains("\"progress\":0.0,"), "{}", pending.text);
    is_time(&pending.json["created_at"], 0);
    let _worker = five.worker();
    let half = five.until(&path, |body| body["progress"] == 0.5).await;
    assert_eq!(half["status"], "processing");
    five.open_gate();
    let done = five.has_status(&path, "completed").await;
    assert_eq!((&done["progress"], &done["result"]), (&json!(1.0), &json!({"duration_seconds": 4.5})));
    assert_eq!(five.api.get("/api/jobs").await.json, json!({"jobs": [done], "total": 1}));
    let deleted = five.api.delete(&format!("/api/jobs/{id}")).await;
    assert_eq!((deleted.status, deleted.json), (200, json!({"deleted": 1})));
    refused(&five.api.get(&path).await, &path, 404, "Job not found");
    let again = format!("/api/jobs/{id}");
    refused(&five.api.delete(&again).await, &again, 404, "Job not found");
    assert_eq!(
        std::fs::read_dir(five.system.folder().join("storage"))
            .unwrap()
            .filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".leasehold"))
            .count(),
        0
    );
    five.system.finish().await;
}

#[tokio::test]
async fn a_recording_that_waits_or_runs_is_stopped_and_deleted() {
    let five = Five::start(&[]).await;
    let id = taken(&upload(&five.api, "file", "waits.wav", b"RIFF").await);
    assert_eq!(five.api.delete(&format!("/api/jobs/{id}")).await.json, json!({"deleted": 1}));
    let _worker = five.worker();
    let id = taken(&upload(&five.api, "file", "runs.wav", b"RIFF").await);
    five.has_status(&format!("/api/status/{id}"), "processing").await;
    assert_eq!(five.api.delete(&format!("/api/jobs/{id}")).await.json, json!({"deleted": 1}));
    assert_eq!(five.api.get("/api/jobs").await.json, json!({"jobs": [], "total": 0}));
    five.system.finish().await;
}

#[tokio::test]
async fn a_clean_up_deletes_what_ended_long_enough_ago() {
    let five = Five::start(&[]).await;
    five.open_gate();
    let _worker = five.worker();
    for _ in 0..3 {
        let id = taken(&upload(&five.api, "file", "a.wav", b"RIFF").await);
        five.has_status(&format!("/api/status/{id}"), "completed").await;
    }
    let other = taken(&five.api.post("/api/suggestions", &json!({"text": "a"})).await);
    five.has_status(&format!("/api/job-status/{other}"), "completed").await;
    let path = "/api/jobs/cleanup";
    for bad in [
        "",
        "?days=",
        "?days=-1",
        "?days=seven",
        "?days=1.5",
        "?days=7&days=8",
        "?days=99999999999999999999",
        "?dyas=7",
    ] {
        refused(&five.api.delete(&format!("{path}{bad}")).await, path, 400, "days");
    }
    assert_eq!(five.api.delete(&format!("{path}?days=7")).await.json, json!({"deleted": 0}));
    assert_eq!(five.api.delete(&format!("{path}?days=9007199254740992")).await.json, json!({"deleted": 0}));
    assert_eq!(five.api.get("/api/jobs").await.json["total"], 3);
    assert_eq!(five.api.delete(&format!("{path}?days=0")).await.json, json!({"deleted": 3}));
    assert_eq!(five.api.get("/api/jobs").await.json["total"], 0);
    assert_eq!(five.api.get(&format!("/api/job-status/{other}")).await.status, 200);
    five.system.finish().await;
}

#[tokio::test]
async fn an_upload_that_is_none_is_refused_and_leaves_nothing() {
    let five = Five::start(&[("LEASEHOLD_LIMITS__UPLOAD_BYTES", "300000")]).await;
    let path = "/api/analyze";
    let form = |form: Form| answer(five.api.request(Method::POST, path).multipart(form));
    let file = || Part::bytes(b"RIFF".as_slice()).file_name("a.wav");
    refused(&answer(five.api.request(Method::POST, path)).await, path, 400, "no file");
    refused(&five.api.post(path, &json!({"file": "a"})).await, path, 400, "no file");
    refused(&form(Form::new()).await, path, 400, "the upload ended before its last boundary");
    refused(&form(Form::new().text("file", "a.wav")).await, path, 400, "no filename");
    refused(&form(Form::new().part("file", Part::bytes(b"".as_slice()).file_name(""))).await, path, 400, "no filename");
    refused(&form(Form::new().part("audio", file())).await, path, 400, "unknown part \"audio\"");
    refused(&form(Form::new().part("file", file()).part("file", file())).await, path, 400, "a second part");
    let named = Form::new().part("file", Part::bytes(b"RIFF".as_slice()).file_name("../a.wav"));
    refused(&form(named).await, path, 400, "without /");
    let large = Form::new().part("file", Part::bytes(vec![0_u8; 400_000]).file_name("a.wav"));
    refused(&form(large).await, path, 413, "larger than 300000 bytes");
    assert_eq!(five.api.get("/api/jobs").await.text, r#"{"jobs":[],"total":0}"#);
    let sent = async |key: &str, bytes: &'static [u8]| {
        let form = Form::new().part("file", Part::bytes(bytes).file_name("a.wav"));
        answer(five.api.request(Method::POST, path).header("idempotency-key", key).multipart(form)).await
    };
    let first = taken(&sent("k", b"one").await);
    assert_eq!(taken(&sent("k", b"one").await), first);
    refused(&sent("k", b"two").await, path, 422, "Idempotency-Key");
    let kinds = five.system.folder().join("audio-only.toml");
    std::fs::write(&kinds, "[kinds.analyze-audio]\n").unwrap();
    let kinds = kinds.display().to_string();
    let bare = Api::start(&five.system.redis().url(), &[("LEASEHOLD_KINDS", &kinds)]).await;
    bare.wait_ready().await;
    let without = answer(bare.request(Method::POST, path).multipart(Form::new().part("file", file()))).await;
    refused(&without, path, 422, "LEASEHOLD_STORAGE_URL");
    five.system.finish().await;
}

#[tokio::test]
async fn an_imported_recording_reads_as_it_stood() {
    let five = Five::start(&[]).await;
    let old = json!({"job_id": "abc123", "status": "cancelled", "progress": 0.25, "created_at": "2024-01-01T12:00:00",
        "updated_at": "2024-01-01T12:00:09.123456", "filename": "test.wav", "result": null, "error": null});
    let id = five.import("abc123", "analyze-audio", None, &old).await;
    let pending = five.api.get("/api/status/abc123").await.json;
    let seen = ["status", "filename", "created_at"].map(|name| pending[name].as_str().unwrap());
    assert_eq!(seen, ["pending", "test.wav", "2024-01-01T12:00:00"]);
    assert_eq!(pending["progress"], 0.0);
    five.store.cancel(&[id]).await.unwrap()[0].as_ref().unwrap();
    assert_eq!(five.api.get("/api/status/abc123").await.json, old);
    five.system.finish().await;
}
