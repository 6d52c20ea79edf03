//! Clients that take what others need: connections, memory, and tries at a token.
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leasehold::tokens::{Scope, mint};
use leasehold_tests::api::answer;
use leasehold_tests::{Api, System, eventually};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{LIMIT, connect, exchange, problem, start};

const GET: &str = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// A connection from another address of loopback.
async fn connect_from(api: &Api, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    socket.connect(api.url("").strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap()
}

/// A system whose API takes one token, and the token.
async fn guarded(environment: &[(&str, &str)]) -> (System, Api, String) {
    let (token, line) = mint("ci", Scope::Admin).unwrap();
    let system = System::start(&[]).await;
    let file = system.folder().join("tokens");
    std::fs::write(&file, line).unwrap();
    let path = file.display().to_string();
    let mut variables = vec![("LEASEHOLD_API__TOKENS", path.as_str())];
    variables.extend_from_slice(environment);
    let api = system.api(&variables).await;
    api.wait_ready().await;
    (system, api, token)
}

/// The value of a metric.
async fn metric(api: &Api, token: &str, sample: &str) -> f64 {
    let text = answer(api.request(Method::GET, "/metrics").bearer_auth(token)).await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("leasehold_{sample} ")));
    line.unwrap_or_else(|| panic!("no {sample}")).parse().unwrap()
}

/// Begins a submit with a large body, and sends one byte of it.
async fn drip(api: &Api) -> TcpStream {
    let mut stream = connect(api).await;
    let head = "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 4000000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_refused_body_that_drips_is_closed_and_counted() {
    let (system, api, token) = guarded(&[]).await;
    let mut stream = drip(&api).await;
    let begun = Instant::now();
    let mut answer = Vec::new();
    // A byte now and then would keep it open for days.
    loop {
        let mut buffer = [0; 4_096];
        match tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(read)) => answer.extend(&buffer[..read]),
            Err(_) if stream.write_all(b" ").await.is_err() => break,
            Err(_) => {}
        }
        assert!(begun.elapsed() < LIMIT, "it is still open");
    }
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 401"));
    assert!(metric(&api, &token, "http_connections_cut_total{reason=\"slow_body\"}").await >= 1.0);
    assert!(api.stderr().contains("refused bodies did not end in time"));
    system.finish().await;
}

#[tokio::test]
async fn a_body_slower_than_the_minimal_rate_is_given_up() {
    let (system, api) = start(&[("LEASEHOLD_LIMITS__IDLE_MS", "1500")]).await;
    let mut stream = drip(&api).await;
    let begun = Instant::now();
    let mut head = [0; 12];
    loop {
        match tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut head)).await {
            Ok(read) => break assert_eq!(read.unwrap(), 12),
            Err(_) => drop(stream.write_all(b" ").await),
        }
        assert!(begun.elapsed() < LIMIT, "it is still read");
    }
    assert_eq!(&head, b"HTTP/1.1 408");
    system.finish().await;
}

#[tokio::test]
async fn probes_are_answered_and_others_served_while_one_client_holds_all_it_may() {
    let limits = [("LEASEHOLD_LIMITS__CONNECTIONS", "40"), ("LEASEHOLD_LIMITS__CLIENT_CONNECTIONS", "30")];
    let (system, api) = start(&limits).await;
    let mut crowd = join_all((0..60).map(|_| drip(&api))).await;
    // One of which the head has not been read yet is idle, and closed for another: it takes a few more.
    let refused = eventually(LIMIT, "it holds all it may", async || {
        crowd.push(drip(&api).await);
        let answer = exchange(&mut connect(&api).await, format!("GET /api/v1/jobs {GET}").as_bytes(), LIMIT).await;
        answer.starts_with("HTTP/1.1 503").then_some(answer)
    })
    .await;
    assert!(refused.contains("\"busy\""), "{refused}");
    assert!(refused.to_lowercase().contains("retry-after: 1"), "{refused}");
    // Its further connections are answered so.
    for path in ["/livez", "/readyz", "/metrics"] {
        for _ in 0..5 {
            let answer = exchange(&mut connect(&api).await, format!("GET {path} {GET}").as_bytes(), LIMIT).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
    }
    // Another client has room.
    let mut other = connect_from(&api, "127.0.0.2").await;
    let served = exchange(&mut other, format!("GET /api/v1/jobs {GET}").as_bytes(), LIMIT).await;
    assert!(served.starts_with("HTTP/1.1 200"), "{served}");
    // Each waits a moment for a place first.
    eventually(LIMIT, "the others are counted", async || {
        metric(&api, "", "http_connections_cut_total{reason=\"client_limit\"}").await >= 30.0
    })
    .await;
    assert!(api.stderr().contains("limits.client_connections is reached"));
    drop(crowd);
    eventually(LIMIT, "its places are free again", async || {
        api.request(Method::GET, "/api/v1/jobs").send().await.is_ok_and(|response| response.status() == 200)
    })
    .await;
    system.finish().await;
}

#[tokio::test]
async fn probes_are_answered_when_all_places_are_taken() {
    let (system, api) =
        start(&[("LEASEHOLD_LIMITS__CONNECTIONS", "4"), ("LEASEHOLD_LIMITS__CLIENT_CONNECTIONS", "4")]).await;
    let crowd = join_all((0..100).map(|_| drip(&api))).await;
    // Those that wait to be accepted say nothing.
    let silent = join_all((0..100).map(|_| connect(&api))).await;
    for _ in 0..10 {
        let answer = exchange(&mut connect(&api).await, format!("GET /livez {GET}").as_bytes(), LIMIT).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    drop((crowd, silent));
    system.finish().await;
}

#[tokio::test]
async fn wrong_tokens_are_counted_logged_seldom_and_slowed_and_right_ones_are_not() {
    let (system, api, token) = guarded(&[]).await;
    let wrong = async || answer(api.request(Method::GET, "/api/v1/jobs").bearer_auth("lh_wrong")).await;
    let answers = join_all((0..200).map(|_| wrong())).await;
    let limited = answers.iter().filter(|answer| answer.status == 429).collect::<Vec<_>>();
    assert!(answers.iter().all(|answer| [401, 429].contains(&answer.status)));
    assert!(limited.len() >= 100, "{}", limited.len());
    problem(limited[0], 429, "too_many_wrong_tokens");
    assert_eq!(limited[0].headers["retry-after"], "2");
    let begun = Instant::now();
    let right = answer(api.request(Method::GET, "/api/v1/jobs").bearer_auth(&token)).await;
    assert_eq!(right.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let counted = metric(&api, &token, "http_tokens_refused_total{reason=\"unknown\"}").await
        + metric(&api, &token, "http_tokens_refused_total{reason=\"too_many\"}").await;
    assert!((counted - 200.0).abs() < 0.5, "{counted}");
    let lines = api.stderr().lines().filter(|line| line.contains("had wrong tokens")).count();
    assert!((1..=5).contains(&lines), "{lines} lines");
    system.finish().await;
}
