//! Clients that mean no good: slow, idle, huge, many.
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leasehold_tests::Api;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{LIMIT, connect, exchange, problem, send, start};

/// Time that a client may be idle here.
const IDLE: (&str, &str) = ("LEASEHOLD_LIMITS__IDLE_MS", "500");

/// What the process holds in memory, MiB.
fn resident_mib(api: &Api) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", api.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn head(path: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_and_the_client_sees_it() {
    let (system, api) = start(&[]).await;
    let body = vec![b'x'; 20 << 20];
    // This client sends everything before it reads.
    let mut stream = connect(&api).await;
    let mut request = head("/api/v1/jobs", body.len(), "connection: close\r\n").into_bytes();
    request.extend(&body);
    let answer = exchange(&mut stream, &request, LIMIT).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("\"body_too_large\"") && answer.contains("4194304 bytes"), "{answer}");
    // The same without a length: it is only found out on the way.
    let mut stream = connect(&api).await;
    let mut request =
        b"POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
                        transfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for chunk in body.chunks(1 << 20) {
        request.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let answer = exchange(&mut stream, &request, LIMIT).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // A bulk may be larger, and a route that reads no body drops it.
    let bulk = send(&api, "/api/v1/jobs/bulk", &[], " ".repeat(20 << 20) + "{\"jobs\": []}").await;
    assert_eq!(bulk.status, 200, "{}", bulk.text);
    problem(&send(&api, "/nowhere", &[], "x".repeat(20 << 20)).await, 404, "no_such_route");
    assert!(resident_mib(&api) < 200, "{} MiB", resident_mib(&api));
    system.finish().await;
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_spared_the_body() {
    let (system, api) = start(&[]).await;
    let mut stream = connect(&api).await;
    let begun = Instant::now();
    let answer =
        exchange(&mut stream, head("/api/v1/jobs", 1 << 30, "expect: 100-continue\r\n").as_bytes(), LIMIT).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(begun.elapsed() < LIMIT, "the connection ends with the answer");
    system.finish().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_answered_408() {
    let (system, api) = start(&[IDLE]).await;
    let mut stream = connect(&api).await;
    let request = head("/api/v1/jobs", 100, "") + "{\"kind\":";
    let answer = exchange(&mut stream, request.as_bytes(), LIMIT).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"body_timeout\""), "{answer}");
    system.finish().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    let (system, api) = start(&[IDLE]).await;
    let mut slow = connect(&api).await;
    let answer = exchange(&mut slow, b"GET /livez HTTP/1.1\r\nx-slow: ", LIMIT).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut silent = connect(&api).await;
    let begun = Instant::now();
    assert_eq!(exchange(&mut silent, b"", LIMIT).await, "");
    assert!(begun.elapsed() < LIMIT, "it was closed");
    system.finish().await;
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let (system, api) = start(&[("LEASEHOLD_LIMITS__CONNECTIONS", "50")]).await;
    let mut crowd: Vec<TcpStream> = Vec::new();
    for at in 0..200 {
        let mut stream = connect(&api).await;
        // Some say nothing, some begin and stop.
        if at % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nx-").await.unwrap();
        }
        crowd.push(stream);
    }
    let begun = Instant::now();
    for _ in 0..10 {
        // A connection each: a client that comes back must find room too.
        let mut stream = connect(&api).await;
        let answer =
            exchange(&mut stream, b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", LIMIT).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    system.finish().await;
}

#[tokio::test]
async fn a_crowd_of_idle_connections_costs_little_memory() {
    let (system, api) = start(&[]).await;
    let crowd: Vec<TcpStream> = join_all((0..400).map(|_| connect(&api))).await;
    let before = resident_mib(&api);
    let submits = join_all((0..100).map(|n| {
        let api = &api;
        async move { api.post("/api/v1/jobs", &json!({"kind": "echo", "payload": n})).await }
    }));
    assert!(submits.await.iter().all(|answer| answer.status == 202));
    assert!(resident_mib(&api) < 100, "{before} MiB, then {} MiB", resident_mib(&api));
    drop(crowd);
    system.finish().await;
}

#[tokio::test]
async fn running_out_of_files_is_survived() {
    let (system, api) = start(&[]).await;
    let used = std::fs::read_dir(format!("/proc/{}/fd", api.pid())).unwrap().count();
    let limit = |files: usize| {
        let (pid, nofile) = (api.pid().to_string(), format!("--nofile={files}:"));
        std::process::Command::new("prlimit").args(["--pid", &pid, &nofile]).status().unwrap()
    };
    assert!(limit(used + 10).success());
    let crowd: Vec<TcpStream> = join_all((0..50).map(|_| connect(&api))).await;
    for _ in 0..10 {
        let mut stream = connect(&api).await;
        let answer =
            exchange(&mut stream, b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", LIMIT).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    drop(crowd);
    assert!(limit(used + 1_000).success());
    assert_eq!(api.get("/readyz").await.status, 200);
    system.finish().await;
}

#[tokio::test]
async fn large_bodies_at_once_are_bounded_in_memory() {
    let (system, api) = start(&[]).await;
    // 60 clients hold 15 MiB each half-way: far more than may be held at once.
    let part = " ".repeat(15 << 20);
    let mut crowd = join_all((0..60).map(|_| async {
        let mut stream = connect(&api).await;
        let request = head("/api/v1/jobs/bulk", 60 << 20, "") + &part;
        // Those that find no room are answered 503, and what they go on sending is dropped.
        let _ = tokio::time::timeout(LIMIT, stream.write_all(request.as_bytes())).await;
        stream
    }))
    .await;
    let resident = resident_mib(&api);
    assert!(resident < 220, "{resident} MiB");
    println!("60 bodies half read: {resident} MiB");
    assert_eq!(api.post("/api/v1/jobs", &json!({"kind": "echo"})).await.status, 202, "small requests get through");
    let last = crowd.last_mut().unwrap();
    let answer = exchange(last, b"", Duration::from_millis(200)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
    system.finish().await;
}

#[tokio::test]
async fn a_page_of_large_jobs_is_cut_short_and_goes_on() {
    let (system, api) = start(&[]).await;
    let job = json!({"kind": "echo", "payload": "x".repeat(250_000)});
    for _ in 0..4 {
        let bulk = api.post("/api/v1/jobs/bulk", &json!({"jobs": vec![job.clone(); 50]})).await;
        assert_eq!(bulk.status, 200);
    }
    let (mut seen, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let page = api.get(&format!("/api/v1/jobs?limit=1000{cursor}")).await;
        assert!(page.text.len() < 20 << 20, "{} bytes", page.text.len());
        let ids = page.json["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        let Some(next) = page.json["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 200);
    system.finish().await;
}
