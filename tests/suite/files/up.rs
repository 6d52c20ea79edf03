//! Uploads, whole and broken.
use leasehold_tests::Api;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const JOB: Part<'static> = ("name=\"job\"", Some("application/json"), b"{\"kind\": \"part\"}");

fn host(api: &Api) -> String {
    api.url("").strip_prefix("http://").unwrap().to_owned()
}

/// Sends a head and a body below HTTP, and returns the connection.
async fn send_raw(api: &Api, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(host(api)).await.unwrap();
    let head = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; \
         boundary={BOUNDARY}\r\n{headers}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    eventually(SOON, end, async || {
        let mut buffer = [0; 4096];
        let got = stream.read(&mut buffer).await.unwrap_or(0);
        answer.extend_from_slice(&buffer[..got]);
        String::from_utf8_lossy(&answer).contains(end)
    })
    .await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn files_go_up_are_worked_on_come_down_and_go_with_their_job() {
    for partitions in ["1", "4"] {
        let ground = Ground::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let api = ground.api(&[]).await;
        let (text, content) = ("name=\"f\"; filename=\"größe-水.txt\"", "abc grün".as_bytes());
        let parts: &[Part<'_>] = &[
            ("name=\"job\"; filename=\"job.json\"", None, b"{\"kind\": \"shout\", \"payload\": {\"n\": 1}}"),
            (text, Some("text/x-odd; charset=utf-8"), content),
            ("name=\"no file name.csv\"", None, b"a,b\r\n--\r\n"),
            ("name=\"f\"; filename=\"empty\"", None, b""),
        ];
        let id = id_of(&upload(&api, None, parts).await, 202);
        let path = format!("/api/v1/jobs/{id}");
        let input = [
            ("empty".to_owned(), 0, "application/octet-stream".to_owned(), "in".to_owned()),
            ("größe-水.txt".into(), content.len() as u64, "text/x-odd; charset=utf-8".into(), "in".into()),
            ("no file name.csv".into(), 9, "text/csv".into(), "in".into()),
        ];
        assert_eq!(listed(&api.get(&format!("{path}/files")).await), input);
        let _worker = ground.system.worker(&[]);
        ground.completed(&id).await;
        let all = listed(&api.get(&format!("{path}/files")).await);
        assert_eq!(all.len(), 6, "{all:?}");
        assert_eq!(all[1].1, content.len() as u64);
        assert_eq!((all[1].2.as_str(), all[1].3.as_str()), ("text/plain", "out"));
        assert_eq!(all[3..], input);
        let name = "gr%C3%B6%C3%9Fe-%E6%B0%B4.txt";
        let out = api.get(&format!("{path}/files/{name}")).await;
        assert_eq!((out.status, out.text.as_str()), (200, "ABC GRüN"));
        let given = api.get(&format!("{path}/files/{name}?direction=in")).await;
        assert_eq!((given.status, given.text.as_str()), (200, "abc grün"));
        assert_eq!(given.headers["content-type"], "text/x-odd; charset=utf-8");
        assert_eq!(api.get(&format!("{path}/files/no%20file%20name.csv")).await.text, "A,B\r\n--\r\n");
        assert_eq!(api.get(&format!("{path}/files/empty")).await.text, "");
        assert_eq!(api.delete(&path).await.status, 204);
        assert_eq!(ground.left(), Vec::<String>::new());
        problem(&api.get(&format!("{path}/files")).await, 404, "no_such_job", "no job");
        problem(&api.get(&format!("{path}/files/empty")).await, 404, "no_such_job", "no job");
        ground.finish().await;
    }
}

#[tokio::test]
async fn a_submit_that_is_wrong_leaves_nothing() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let file: Part<'_> = ("name=\"f\"; filename=\"a.txt\"", None, b"abc");
    for (name, said) in [
        ("../../etc/passwd", "without /"),
        ("a/b", "without /"),
        ("C:\\\\x", "without /"),
        ("..", "folder"),
        (".", "folder"),
        ("", "empty"),
        ("a\tb", "control"),
        (&"x".repeat(201), "longer"),
    ] {
        let head = format!("name=\"f\"; filename=\"{name}\"");
        problem(&upload(&api, None, &[JOB, file, (&head, None, b"x")]).await, 400, "invalid_request", said);
    }
    let parts: &[(&[Part<'_>], u16, &str, &str)] = &[
        (&[], 400, "invalid_request", "no part `job`"),
        (&[file, JOB], 400, "invalid_request", "first part is \"f\""),
        (&[file], 400, "invalid_request", "first part, named `job`"),
        (&[JOB, file, JOB], 400, "invalid_request", "`job` is given twice"),
        (&[JOB, file, file], 400, "invalid_request", "two parts have this name"),
        (&[("name=\"job\"", None, b"{"), file], 400, "invalid_json", "EOF"),
        (&[("name=\"job\"", None, b"{}"), file], 400, "invalid_request", "/kind"),
        (&[("name=\"job\"", None, b"\xff"), file], 400, "invalid_json", "UTF-8"),
        (&[JOB, ("x=\"y\"", None, b"abc")], 400, "invalid_request", "empty"),
    ];
    for (parts, status, code, said) in parts {
        problem(&upload(&api, None, parts).await, *status, code, said);
    }
    let heads: Vec<String> = (0..101).map(|n| format!("name=\"{n}\"")).collect();
    let many: Vec<Part<'_>> =
        std::iter::once(JOB).chain(heads.iter().map(|head| (head.as_str(), None, &b"x"[..]))).collect();
    problem(&upload(&api, None, &many).await, 400, "invalid_request", "100 files");
    let content_type = "multipart/form-data";
    let bare = api.request(Method::POST, "/api/v1/jobs").header("content-type", content_type).body("x");
    problem(&answer(bare).await, 400, "invalid_request", "boundary");
    // What begins no part is not gathered up for ever.
    let flood = format!("content-length: {}", 4 << 20);
    let mut stream = send_raw(&api, &flood, &vec![b'x'; 4 << 20]).await;
    assert!(read_until(&mut stream, "\r\n\r\n{").await.contains("no part begins within"));
    assert_eq!(ground.left(), Vec::<String>::new());
    assert_eq!(api.get("/api/v1/jobs").await.json["jobs"], json!([]));
    ground.finish().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let whole = body(&[JOB, ("name=\"a\"", None, b"whole"), ("name=\"b\"", None, &[b'x'; 700_000])]);
    for headers in [format!("content-length: {}", whole.len()), "transfer-encoding: chunked".to_owned()] {
        let sent = &whole[..whole.len() - 100_000];
        let sent = match headers.starts_with("transfer") {
            true => [format!("{:x}\r\n", sent.len()).as_bytes(), sent, b"\r\n"].concat(),
            false => sent.to_vec(),
        };
        let stream = send_raw(&api, &headers, &sent).await;
        eventually(SOON, "something is written", async || ground.left().iter().any(|path| path.ends_with("/in/a")))
            .await;
        drop(stream);
        ground.nothing_is_left().await;
    }
    // One that ends in order, but before its last boundary.
    let cut = &whole[..whole.len() - 20];
    let mut stream = send_raw(&api, &format!("content-length: {}", cut.len()), cut).await;
    assert!(read_until(&mut stream, "\r\n\r\n{").await.contains("ended before its last boundary"));
    assert_eq!(ground.left(), Vec::<String>::new());
    let quick = ground.api(&[("LEASEHOLD_LIMITS__IDLE_MS", "300")]).await;
    let mut stream = send_raw(&quick, &format!("content-length: {}", whole.len()), &whole[..500_000]).await;
    assert!(read_until(&mut stream, "\r\n\r\n{").await.starts_with("HTTP/1.1 408"));
    assert_eq!(ground.left(), Vec::<String>::new());
    ground.finish().await;
}

#[tokio::test]
async fn an_upload_over_its_limit_is_refused_and_leaves_nothing() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[("LEASEHOLD_LIMITS__UPLOAD_BYTES", "300000")]).await;
    let large = vec![b'x'; 3_000_000];
    let parts: &[Part<'_>] = &[JOB, ("name=\"a\"", None, &large)];
    problem(&upload(&api, None, parts).await, 413, "body_too_large", "300000 bytes");
    // One that does not say how much it is.
    let content = body(parts);
    let mut chunked = format!("{:x}\r\n", content.len()).into_bytes();
    chunked.extend_from_slice(&content);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let mut stream = send_raw(&api, "transfer-encoding: chunked", &chunked).await;
    let answer = read_until(&mut stream, "\r\n\r\n{").await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("300000 bytes"), "{answer}");
    assert_eq!(ground.left(), Vec::<String>::new());
    // A client that waits to be let in hears it before it sends.
    let mut stream = send_raw(&api, "content-length: 3000000\r\nexpect: 100-continue", b"").await;
    assert!(read_until(&mut stream, "\r\n\r\n{").await.starts_with("HTTP/1.1 413"));
    let small = body(&[JOB, ("name=\"a\"", None, b"x")]);
    let mut stream = send_raw(&api, &format!("content-length: {}\r\nexpect: 100-continue", small.len()), b"").await;
    read_until(&mut stream, "100 Continue\r\n\r\n").await;
    stream.write_all(&small).await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n{").await.starts_with("HTTP/1.1 202"));
    ground.finish().await;
}

#[tokio::test]
async fn the_same_upload_with_the_same_key_is_one_job() {
    for partitions in ["1", "4"] {
        let ground = Ground::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let api = ground.api(&[]).await;
        let (a, b): (Part<'_>, Part<'_>) = (("name=\"a\"", None, b"one"), ("name=\"b\"", None, b"two"));
        let id = id_of(&upload(&api, Some("k"), &[JOB, a, b]).await, 202);
        let left = ground.left();
        assert_eq!(left.len(), 4, "{left:?}");
        assert_eq!(id_of(&upload(&api, Some("k"), &[JOB, b, a]).await, 200), id);
        let others: &[&[Part<'_>]] = &[
            &[JOB, a],
            &[JOB],
            &[JOB, a, ("name=\"b\"", None, b"TWO")],
            &[JOB, a, ("name=\"c\"", None, b"two")],
            &[("name=\"job\"", None, b"{\"kind\": \"part\", \"payload\": 1}"), a, b],
        ];
        for other in others {
            problem(&upload(&api, Some("k"), other).await, 422, "idempotency_conflict", "another request");
        }
        assert_eq!(ground.left(), left, "what a replay and a conflict brought is gone");
        let _worker = ground.system.worker(&[]);
        ground.completed(&id).await;
        assert_eq!(api.delete(&format!("/api/v1/jobs/{id}")).await.status, 204);
        assert_eq!(upload(&api, Some("k"), &[JOB, a, b]).await.status, 410);
        assert_eq!(ground.left(), Vec::<String>::new());
        ground.finish().await;
    }
}

#[tokio::test]
async fn an_api_without_a_file_store_says_so() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let bare = Api::start(&ground.system.redis().url(), &[]).await;
    bare.wait_ready().await;
    let file: Part<'_> = ("name=\"a\"", None, b"x");
    problem(&upload(&bare, None, &[JOB, file]).await, 422, "no_file_store", "LEASEHOLD_STORAGE_URL");
    id_of(&upload(&bare, None, &[JOB]).await, 202);
    let id = id_of(&upload(&api, None, &[JOB, file]).await, 202);
    assert_eq!(listed(&bare.get(&format!("/api/v1/jobs/{id}/files")).await).len(), 1);
    problem(&bare.get(&format!("/api/v1/jobs/{id}/files/a")).await, 422, "no_file_store", "LEASEHOLD_STORAGE_URL");
    ground.finish().await;
}

#[tokio::test]
async fn a_large_file_goes_up_through_and_down_with_flat_memory() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 300;
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let head = body(&[JOB]);
    let head = &head[..head.len() - BOUNDARY.len() - 6];
    let head =
        [head, format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"big\"\r\n\r\n").as_bytes()].concat();
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    let length = format!("content-length: {}", head.len() + PIECE * PIECES + end.len());
    let mut stream = send_raw(&api, &length, &head).await;
    for n in 0..PIECES {
        stream.write_all(&vec![n as u8; PIECE]).await.unwrap();
    }
    stream.write_all(end.as_bytes()).await.unwrap();
    let accepted = read_until(&mut stream, "\"lease_expires_at\"").await;
    assert!(accepted.starts_with("HTTP/1.1 202"), "{accepted}");
    let id = accepted.split("location: /api/v1/jobs/").nth(1).unwrap().split("\r\n").next().unwrap();
    let id = JobId::parse(id).unwrap();
    let worker = ground.system.worker(&[]);
    ground.completed(&id).await;
    let got = api.request(Method::GET, &format!("/api/v1/jobs/{id}/files/big")).send().await.unwrap();
    assert_eq!(got.content_length(), Some((PIECE * PIECES) as u64));
    let (mut got, mut at) = (got, 0);
    while let Some(bytes) = got.chunk().await.unwrap() {
        assert_eq!(bytes[0], (at / PIECE) as u8, "at byte {at}");
        at += bytes.len();
    }
    assert_eq!(at, PIECE * PIECES);
    for (what, peak) in [("API", api.peak_bytes()), ("worker", worker.peak_bytes())] {
        assert!(peak < 100 << 20, "the {what} had {} MiB", peak >> 20);
    }
    ground.finish().await;
}

#[tokio::test]
async fn an_upload_that_an_unfit_redis_refuses_leaves_nothing() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let () = ground.system.redis().command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    eventually(SOON, "it is noticed", async || api.get("/readyz").await.status == 503).await;
    let parts: &[Part<'_>] = &[("name=\"job\"", None, b"{\"kind\": \"part\"}"), ("name=\"a\"", None, b"x")];
    problem(&upload(&api, None, parts).await, 503, "redis_unavailable", "maxmemory-policy");
    ground.nothing_is_left().await;
    let () = ground.system.redis().command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    ground.finish().await;
}
