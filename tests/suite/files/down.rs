//! Files as they are fetched, and what attempts leave.
use leasehold_tests::Worker;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

async fn get_with(api: &Api, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request =
        headers.iter().fold(api.request(Method::GET, path), |request, (name, value)| request.header(*name, *value));
    answer(request).await
}

#[tokio::test]
async fn a_file_is_fetched_in_part_and_not_again() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let id = submit(&api, "part", &[("a\u{e4}.html", b"0123456789"), ("empty", b"")]).await;
    let path = format!("/api/v1/jobs/{id}/files/a%C3%A4.html");
    let whole = api.get(&path).await;
    assert_eq!((whole.status, whole.text.as_str()), (200, "0123456789"));
    for (name, value) in [
        ("content-type", "text/html"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("content-disposition", "attachment; filename=\"a_.html\"; filename*=UTF-8''a%C3%A4.html"),
    ] {
        assert_eq!(whole.headers[name], value, "{name}");
    }
    let etag = whole.headers["etag"].to_str().unwrap().to_owned();
    for (range, part, content_range) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=3-", "3456789", "bytes 3-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=8-100", "89", "bytes 8-9/10"),
    ] {
        let got = get_with(&api, &path, &[("range", range), ("if-range", &etag)]).await;
        assert_eq!((got.status, got.text.as_str()), (206, part), "{range}");
        assert_eq!(got.headers["content-range"], content_range);
        assert_eq!(got.headers["content-length"], part.len().to_string());
    }
    for headers in [[("range", "bytes=0-1,3-4")], [("range", "bytes=5-1")], [("range", "lines=1-2")]] {
        assert_eq!(get_with(&api, &path, &headers).await.text, "0123456789", "{headers:?}");
    }
    let changed = get_with(&api, &path, &[("range", "bytes=0-0"), ("if-range", "\"other\"")]).await;
    assert_eq!((changed.status, changed.text.as_str()), (200, "0123456789"));
    let beyond = get_with(&api, &path, &[("range", "bytes=10-")]).await;
    problem(&beyond, 416, "range_beyond", "10 bytes");
    assert_eq!(beyond.headers["content-range"], "bytes */10");
    for known in [etag.as_str(), &format!("\"x\", W/{etag}"), "*"] {
        let got = get_with(&api, &path, &[("if-none-match", known)]).await;
        assert_eq!((got.status, got.text.as_str()), (304, ""), "{known}");
        assert_eq!(got.headers["etag"], etag);
    }
    assert_eq!(get_with(&api, &path, &[("if-none-match", "\"x\"")]).await.status, 200);
    let head = answer(api.request(Method::HEAD, &path)).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(
        (head.headers["content-length"].to_str().unwrap(), &head.headers["etag"]),
        ("10", &whole.headers["etag"])
    );
    let empty = format!("/api/v1/jobs/{id}/files/empty");
    assert_eq!(api.get(&empty).await.headers["content-length"], "0");
    assert_eq!(get_with(&api, &empty, &[("range", "bytes=0-")]).await.status, 416);
    ground.finish().await;
}

#[tokio::test]
async fn what_is_no_file_of_the_job_is_not_found() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let id = submit(&api, "part", &[("a.txt", b"abc")]).await;
    std::fs::write(ground.root().join(id.as_str()).join("in/stray"), "secret").unwrap();
    for name in ["none", "stray", "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "in%2Fa.txt", "a.txt%00", "A.TXT"] {
        problem(&api.get(&format!("/api/v1/jobs/{id}/files/{name}")).await, 404, "no_such_file", "no file");
    }
    let files = format!("/api/v1/jobs/{id}/files/a.txt");
    problem(&api.get(&format!("{files}?direction=out")).await, 404, "no_such_file", "a.txt");
    problem(&api.get(&format!("{files}?direction=up")).await, 400, "invalid_request", "write in or out");
    problem(&api.get(&format!("{files}?x=1")).await, 400, "invalid_request", "known are direction");
    assert_eq!(api.get(&format!("/api/v1/jobs/{id}/files/%FF")).await.status, 400);
    std::fs::remove_file(ground.root().join(id.as_str()).join("in/a.txt")).unwrap();
    problem(&api.get(&files).await, 404, "no_such_file", "a.txt");
    std::fs::write(ground.root().join(id.as_str()).join("in/a.txt"), "abc").unwrap();
    ground.finish().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_given_up() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[("LEASEHOLD_LIMITS__IDLE_MS", "1000")]).await;
    let bytes = 60 << 20;
    let id = submit(&api, "part", &[("big", &vec![7; bytes])]).await;
    let mut stream = TcpStream::connect(api.url("").strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("GET /api/v1/jobs/{id}/files/big HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let open = || {
        std::fs::read_dir(format!("/proc/{}/fd", api.pid()))
            .unwrap()
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("in/big")))
    };
    eventually(SOON, "the file is being sent", async || open()).await;
    eventually(SOON, "it is not sent any more", async || !open()).await;
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got).await;
    assert!(got.len() < bytes, "it was cut off");
    ground.finish().await;
}

#[tokio::test]
async fn an_attempt_that_fails_or_skips_leaves_nothing() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let _worker = ground.system.worker(&[("LEASEHOLD_LIMITS__UPLOAD_BYTES", "1000000")]);
    for (kind, state, said) in [
        ("fails", State::Failed, "exit code 1"),
        ("skips", State::Completed, ""),
        ("folder", State::Failed, "out/sub is a folder, a link or a device"),
        ("link", State::Failed, "out/passwd is a folder, a link or a device"),
        ("pipe", State::Failed, "out/fifo is a folder, a link or a device"),
        ("many", State::Failed, "more than 100 files"),
        ("large", State::Failed, "larger than the remaining 1000000 bytes"),
    ] {
        let submitted = api.post("/api/v1/jobs", &json!({ "kind": kind })).await;
        let job = ground.ended(&id_of(&submitted, 202)).await;
        assert_eq!(job.state, state, "{kind}: {:?}", job.error);
        let message = job.error.map(|error| error.message).unwrap_or_default();
        assert!(message.contains(said), "{kind}: {message}");
        assert_eq!(job.attempt, 1, "{kind}: no use in trying again");
        let files = api.get(&format!("/api/v1/jobs/{}/files", job.id)).await;
        assert_eq!(listed(&files), [], "{kind}");
    }
    eventually(SOON, "no file is left", async || !ground.left().iter().any(|path| path.contains("/out/"))).await;
    ground.finish().await;
}

#[tokio::test]
async fn an_attempt_cannot_spoil_what_the_next_is_given() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let _worker = ground.system.worker(&[]);
    let id = submit(&api, "spoils", &[("a.txt", b"good ")]).await;
    assert_eq!(ground.ended(&id).await.state, State::Failed);
    assert_eq!(std::fs::read_to_string(ground.kinds.path().join("read")).unwrap(), "good good ");
    ground.finish().await;
}

#[tokio::test]
async fn a_worker_without_a_file_store_fails_the_attempt_and_says_what_to_set() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let with = submit(&api, "part", &[("a.txt", b"abc")]).await;
    let without = id_of(&api.post("/api/v1/jobs", &json!({"kind": "note", "max_attempts": 1})).await, 202);
    let kinds = ground.kinds.path().join("kinds.toml").display().to_string();
    let url = ground.system.redis().url();
    let environment = [("LEASEHOLD_KINDS", kinds.as_str()), ("LEASEHOLD_LEASE_MS", LEASE_MS)];
    let bare = Worker::start(&url, &environment);
    let job = ground.ended(&without).await;
    assert!(job.error.unwrap().message.contains("set storage_url"));
    let tried =
        async || ground.store.get(&with).await.unwrap().unwrap().error.filter(|e| e.message.contains("storage_url"));
    eventually(SOON, "its attempt fails", tried).await;
    drop(bare);
    assert_eq!(api.post(&format!("/api/v1/jobs/{with}/cancel"), &json!({})).await.status, 200);
    ground.finish().await;
}

#[tokio::test]
async fn a_batchs_then_has_the_files_of_the_batch() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let job: Part<'_> = ("name=\"job\"", None, b"{\"kind\": \"note\", \"items\": [1, 2], \"then\": \"shout\"}");
    let id = id_of(&upload(&api, None, &[job, ("name=\"a.txt\"", None, b"abc")]).await, 202);
    let _worker = ground.system.worker(&[]);
    ground.completed(&id).await;
    assert_eq!(api.get(&format!("/api/v1/jobs/{id}/files/a.txt")).await.text, "ABC");
    let items = api.get(&format!("/api/v1/jobs/{id}/items")).await;
    for item in items.json["jobs"].as_array().unwrap() {
        let files = api.get(&format!("/api/v1/jobs/{}/files", item["id"].as_str().unwrap())).await;
        assert_eq!(listed(&files)[0].0, "note.txt");
    }
    assert_eq!(api.delete(&format!("/api/v1/jobs/{id}")).await.status, 204);
    ground.nothing_is_left().await;
    ground.finish().await;
}

#[tokio::test]
async fn a_rust_handler_reads_and_leaves_files() {
    let ground = Ground::start(&[("LEASEHOLD_KINDS", "/dev/null")]).await;
    let api = ground.api(&[]).await;
    let id = submit(&api, "backwards", &[("a.txt", b"abc")]).await;
    let url = ground.system.redis().url();
    let storage = format!("file://{}", ground.root().display());
    let environment = [("LEASEHOLD_REDIS_URL", url.as_str()), ("LEASEHOLD_STORAGE_URL", &storage)];
    let _worker = leasehold_tests::Process::ours("leasehold-test-worker", &[], &environment);
    let job = ground.completed(&id).await;
    assert_eq!(job.result.unwrap().as_str(), "3");
    assert_eq!(api.get(&format!("/api/v1/jobs/{id}/files/a.txt")).await.text, "cba");
    ground.finish().await;
}
