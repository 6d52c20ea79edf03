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
    refused(&form(Form::new().part("audio", file())).await, path, 400, "no file; the last part is \"audio\"");
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

/// The forms that FastAPI with python-multipart takes: parts as they are sent, and the filename of the record.
#[tokio::test]
async fn a_form_is_taken_as_its_old_framework_took_it() {
    let five = Five::start(&[]).await;
    let part = |header: &str, body: &str| format!("--X\r\n{header}\r\nContent-Type: audio/wav\r\n\r\n{body}\r\n");
    let file = part("Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"", "RIFF");
    let field = "--X\r\nContent-Disposition: form-data; name=\"user_id\"\r\n\r\n7\r\n";
    let other = part("Content-Disposition: form-data; name=\"cover\"; filename=\"a.png\"", "PNG");
    let second = part("Content-Disposition: form-data; name=\"file\"; filename=\"b.wav\"", "RIFX");
    let named = |name: &str| part(&format!("Content-Disposition: form-data; name=\"file\"; {name}"), "RIFF");
    let multipart = "multipart/form-data; boundary=X";
    for (sort, parts, filename, stored) in [
        (multipart, file.clone(), "a.wav", "a.wav"),
        (multipart, named("filename*=utf-8''%D1%84.wav"), "ф.wav", "ф.wav"),
        (multipart, named("filename=\"/storage/rec/a.wav\""), "/storage/rec/a.wav", "a.wav"),
        (multipart, named("filename=\"C:\\rec\\a.wav\""), "a.wav", "a.wav"),
        (multipart, named("filename=\"../..\""), "../..", "upload"),
        (multipart, named("filename=\"\u{202e}a.wav\""), "\u{202e}a.wav", "upload.wav"),
        (
            multipart,
            part("cOnTeNt-DiSpOsItIoN: Form-Data; Name=\"file\"; FileName=\"a.wav\"", "RIFF"),
            "a.wav",
            "a.wav",
        ),
        (multipart, part("Content-Disposition: form-data; name=file; filename=a.wav", "RIFF"), "a.wav", "a.wav"),
        (multipart, format!("{file}{field}"), "a.wav", "a.wav"),
        (multipart, format!("{field}{other}{file}{other}"), "a.wav", "a.wav"),
        (multipart, format!("{file}{second}"), "b.wav", "b.wav"),
        ("Multipart/Form-Data; Boundary=X", file.clone(), "a.wav", "a.wav"),
        ("multipart/form-data; charset=utf-8; boundary=\"X\"", file.clone(), "a.wav", "a.wav"),
    ] {
        let request = five.api.request(Method::POST, "/api/analyze").header("content-type", sort);
        let sent = answer(request.body(format!("{parts}--X--\r\n"))).await;
        let id = taken(&sent);
        assert_eq!(sent.status, 200, "{sort} {parts}: {}", sent.text);
        assert_eq!(five.api.get(&format!("/api/status/{id}")).await.json["filename"], filename, "{parts}");
        let files = five.api.get(&format!("/api/v1/jobs/{id}/files")).await.json;
        assert_eq!(files["files"].as_array().map(Vec::len), Some(1), "{parts}: {files}");
        assert_eq!(files["files"][0]["name"], stored, "{parts}");
    }
    five.system.finish().await;
}
