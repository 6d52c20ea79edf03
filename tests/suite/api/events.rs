//! A job's events: `GET /api/v1/jobs/{id}/events`.
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leasehold::{Config, JobId, Store};
use leasehold_tests::{Api, System, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Hand, LIMIT, id, problem, start};
use crate::steered_command::{Work, submit};

/// A client's stream.
struct Stream {
    response: reqwest::Response,
    text: String,
}

/// An event as it came.
#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Stream {
    async fn open(api: &Api, job: &str) -> Stream {
        Self::open_after(api, job, None).await
    }

    async fn open_after(api: &Api, job: &str, last: Option<&str>) -> Stream {
        let mut request = api.request(Method::GET, &format!("/api/v1/jobs/{job}/events"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.expect("the API answers");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        Stream { response, text: String::new() }
    }

    /// The next block that is no comment; `None` when the stream has ended.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if block.lines().any(|line| !line.starts_with(':')) {
                    return Some(block);
                }
                continue;
            }
            let chunk = tokio::time::timeout(LIMIT, self.response.chunk()).await.expect("an event, or the end");
            self.text += std::str::from_utf8(&chunk.expect("the stream is whole")?).unwrap();
        }
    }

    async fn next(&mut self) -> Option<Event> {
        let block = self.block().await?;
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("{name}: {block}")).to_owned()
        };
        let data = serde_json::from_str(&field("data")).unwrap();
        Some(Event { name: field("event"), id: field("id"), data })
    }

    /// The next event, which must be that one; the job it shows.
    async fn expect(&mut self, name: &str, state: &str) -> Value {
        let event = self.next().await.expect("the stream goes on");
        assert_eq!((event.name.as_str(), event.data["state"].as_str()), (name, Some(state)), "{event:?}");
        event.data
    }

    async fn expect_close(&mut self) {
        let block = self.block().await;
        assert!(block.is_none(), "{block:?}");
    }
}

async fn echo(api: &Api) -> String {
    id(&api.post("/api/v1/jobs", &json!({"kind": "echo"})).await)
}

async fn subscriptions(system: &System) -> usize {
    let list: String = system.redis().command(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    list.lines().count()
}

#[tokio::test]
async fn each_change_is_told_in_order_and_the_end_closes_the_stream() {
    let (system, api) = start(&[]).await;
    let hand = Hand::of(&system).await;
    let job = echo(&api).await;
    let mut stream = Stream::open(&api, &job).await;
    let first = stream.expect("job", "queued").await;
    assert_eq!((&first["id"], &first["served"]), (&json!(job), &json!(true)), "the job as a GET shows it");
    let held = hand.claim().await;
    stream.expect("job", "running").await;
    hand.complete(held).await;
    let ended = stream.expect("end", "completed").await;
    stream.expect_close().await;
    assert_eq!(ended, api.get(&format!("/api/v1/jobs/{job}")).await.json);
    system.finish().await;
}

#[tokio::test]
async fn who_comes_late_or_again_gets_the_job_and_its_end_at_once() {
    let (system, api) = start(&[]).await;
    let job = echo(&api).await;
    assert_eq!(super::ask(&api, &format!("/api/v1/jobs/{job}/cancel")).await.status, 200);
    let mut last = None;
    for _ in 0..2 {
        let mut stream = Stream::open_after(&api, &job, last.as_deref()).await;
        stream.expect("job", "cancelled").await;
        let end = stream.next().await.unwrap();
        assert_eq!((end.name.as_str(), end.data["state"].as_str()), ("end", Some("cancelled")));
        stream.expect_close().await;
        last = Some(end.id);
    }
    let mut stream = Stream::open_after(&api, &job, Some("from another world")).await;
    stream.expect("job", "cancelled").await;
    system.finish().await;
}

#[tokio::test]
async fn there_are_no_events_of_a_job_that_is_not_there() {
    let (system, api) = start(&[]).await;
    problem(&api.get("/api/v1/jobs/nobody/events").await, 404, "no_such_job");
    problem(&api.get("/api/v1/jobs/no.id/events").await, 400, "invalid_request");
    problem(&api.get("/api/v1/jobs/nobody/events?since=1").await, 400, "invalid_request");
    problem(&api.post("/api/v1/jobs/nobody/events", &Value::Null).await, 405, "method_not_allowed");
    system.finish().await;
}

#[tokio::test]
async fn the_end_comes_though_the_subscription_was_cut_and_its_message_lost() {
    let (system, api) = start(&[]).await;
    let hand = Hand::of(&system).await;
    let job = echo(&api).await;
    let mut stream = Stream::open(&api, &job).await;
    stream.expect("job", "queued").await;
    let held = hand.claim().await;
    stream.expect("job", "running").await;
    let killed: usize = system.redis().command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert_eq!(killed, 1);
    hand.complete(held).await;
    stream.expect("end", "completed").await;
    system.finish().await;
}

#[tokio::test]
async fn a_change_that_no_message_told_is_read_within_seconds() {
    let (system, api) = start(&[]).await;
    let job = echo(&api).await;
    let mut stream = Stream::open(&api, &job).await;
    stream.expect("job", "queued").await;
    let () = system.redis().command(&["HSET", &format!("lh:{{0}}:job:{job}"), "percent", "40"]).await;
    let begun = Instant::now();
    let seen = stream.expect("job", "queued").await;
    assert_eq!(seen["progress"]["percent"], json!(40.0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    system.finish().await;
}

#[tokio::test]
async fn a_stream_outlives_redis() {
    let (system, api) = start(&[("LEASEHOLD_REDIS__OUTAGE_MS", "500")]).await;
    let job = echo(&api).await;
    let mut stream = Stream::open(&api, &job).await;
    stream.expect("job", "queued").await;
    system.redis().kill9();
    let refused = api.get(&format!("/api/v1/jobs/{job}/events")).await;
    problem(&refused, 503, "redis_unavailable");
    system.redis().restart().await;
    let hand = Hand::of(&system).await;
    let held = hand.claim().await;
    stream.expect("job", "running").await;
    hand.complete(held).await;
    stream.expect("end", "completed").await;
    system.finish().await;
}

#[tokio::test]
async fn a_thousand_watchers_cost_one_subscription_and_one_read() {
    let (system, api) = start(&[]).await;
    let hand = Hand::of(&system).await;
    let job = echo(&api).await;
    let mut streams = join_all((0..1_000).map(|_| Stream::open(&api, &job))).await;
    join_all(streams.iter_mut().map(|stream| stream.expect("job", "queued"))).await;
    assert_eq!(subscriptions(&system).await, 1);
    let held = hand.claim().await;
    let reads = async || {
        let stats: String = system.redis().command(&["INFO", "commandstats"]).await;
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
        calls.unwrap().parse::<u32>().unwrap()
    };
    let before = reads().await;
    hand.complete(held).await;
    join_all(streams.iter_mut().map(async |stream| {
        while stream.next().await.expect("the end comes").name != "end" {}
        stream.expect_close().await;
    }))
    .await;
    let calls = reads().await - before;
    assert!(calls < 20, "{calls} scripts for a settle and what 1,000 watchers saw of it");
    system.finish().await;
}

#[tokio::test]
async fn a_parent_shows_how_its_items_end() {
    let (system, api) = start(&[]).await;
    let hand = Hand::of(&system).await;
    let batch = json!({"kind": "echo", "items": [1, 2, 3], "items_open": true});
    let parent = id(&api.post("/api/v1/jobs", &batch).await);
    let mut stream = Stream::open(&api, &parent).await;
    let counts = |job: &Value| (job["items"]["total"].as_u64().unwrap(), job["items"]["succeeded"].as_u64().unwrap());
    assert_eq!(counts(&stream.expect("job", "waiting").await), (3, 0));
    let begun = Instant::now();
    let held = hand.claim().await;
    hand.complete(held).await;
    assert_eq!(counts(&stream.expect("job", "waiting").await), (3, 1));
    let part = json!({"first": 3, "items": [4]});
    assert_eq!(api.post(&format!("/api/v1/jobs/{parent}/items"), &part).await.status, 200);
    assert_eq!(counts(&stream.expect("job", "waiting").await), (4, 1));
    for done in 2..=4 {
        let held = hand.claim().await;
        hand.complete(held).await;
        assert_eq!(counts(&stream.expect("job", "waiting").await), (4, done));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "by messages, not by the reading every 5 s");
    let last = json!({"first": 4, "items": [], "last": true});
    assert_eq!(api.post(&format!("/api/v1/jobs/{parent}/items"), &last).await.status, 200);
    assert_eq!(counts(&stream.expect("end", "completed").await), (4, 4));
    stream.expect_close().await;
    system.finish().await;
}

#[tokio::test]
async fn a_job_that_is_removed_unseen_is_gone() {
    let (system, api) = start(&[]).await;
    let config = Config { redis_url: system.redis().url(), ..Config::default() };
    let store = Store::connect(&config).await.unwrap();
    let job = echo(&api).await;
    let mut stream = Stream::open(&api, &job).await;
    stream.expect("job", "queued").await;
    api.sigstop();
    let ids = [JobId::parse(&job).unwrap()];
    store.cancel(&ids).await.unwrap();
    store.remove(&ids).await.unwrap();
    api.sigcont();
    assert_eq!(stream.block().await.unwrap(), format!("event: gone\ndata: {{\"id\":\"{job}\"}}"));
    stream.expect_close().await;
    system.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_makes_room_for_another() {
    let (system, api) = start(&[("LEASEHOLD_LIMITS__CONNECTIONS", "8")]).await;
    let job = echo(&api).await;
    let mut streams = join_all((0..6).map(|_| Stream::open(&api, &job))).await;
    let path = format!("/api/v1/jobs/{job}/events");
    problem(&api.get(&path).await, 503, "busy");
    assert_eq!(api.get("/livez").await.status, 200, "what is left of the connections is for others");
    streams.pop();
    eventually(LIMIT, "there is room again", async || {
        api.request(Method::GET, &path).send().await.is_ok_and(|response| response.status() == 200)
    })
    .await;
    system.finish().await;
}

/// A client that has asked for the events of a job, reads the head of the answer, and nothing more.
async fn stalled(api: &Api, job: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let address = api.url("").strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!("GET /api/v1/jobs/{job}/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

fn open_files(api: &Api) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", api.pid())).unwrap().count()
}

fn memory_kib(api: &Api) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", api.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn who_does_not_read_is_dropped_and_keeps_nobody_waiting() {
    let (system, api) = start(&[("LEASEHOLD_LIMITS__IDLE_MS", "2000")]).await;
    let large = json!({"kind": "echo", "payload": "x".repeat(200_000)});
    let job = id(&api.post("/api/v1/jobs", &large).await);
    let mut reader = Stream::open(&api, &job).await;
    reader.expect("job", "queued").await;
    let (files, memory) = (open_files(&api), memory_kib(&api));
    let stalled = join_all((0..200).map(|_| stalled(&api, &job))).await;
    assert!(open_files(&api) >= files + 200);
    let begun = Instant::now();
    let mut percent = 0;
    while open_files(&api) > files + 2 {
        percent += 1;
        let percent = percent.to_string();
        let () = system.redis().command(&["HSET", &format!("lh:{{0}}:job:{job}"), "percent", &percent]).await;
        let () = system.redis().command(&["PUBLISH", "lh:{0}:changes", &format!("progress {job}")]).await;
        reader.expect("job", "queued").await;
        let grown = memory_kib(&api).saturating_sub(memory);
        assert!(grown < 200 << 10, "{grown} KiB for 200 clients that do not read");
        assert!(begun.elapsed() < Duration::from_secs(30), "{} files are open", open_files(&api));
    }
    drop(stalled);
    system.finish().await;
}

#[tokio::test]
async fn sigterm_ends_streams_at_once_stalled_ones_too() {
    let (system, api) = start(&[]).await;
    let large = json!({"kind": "echo", "payload": "x".repeat(200_000)});
    let job = id(&api.post("/api/v1/jobs", &large).await);
    let mut streams = join_all((0..20).map(|_| Stream::open(&api, &job))).await;
    join_all(streams.iter_mut().map(|stream| stream.expect("job", "queued"))).await;
    let stalled = join_all((0..20).map(|_| stalled(&api, &job))).await;
    let begun = Instant::now();
    api.sigterm();
    assert!(api.wait_exit(LIMIT).await.success());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    for stream in &mut streams {
        assert!(stream.block().await.unwrap().ends_with("retry: 1000"), "a client is told to come again");
        stream.expect_close().await;
    }
    drop(stalled);
    system.finish().await;
}

#[tokio::test]
async fn four_partitions_are_heard() {
    let work = Work::start(&[("LEASEHOLD_PARTITIONS", "4")]).await;
    let api = work.system.api(&[]).await;
    let mut jobs = Vec::new();
    for _ in 0..12 {
        jobs.push(submit(&api, "step").await);
    }
    let partitions: std::collections::HashSet<u16> = jobs.iter().map(|job| work.store.partition_of(job)).collect();
    assert!(partitions.len() > 1);
    let mut streams = join_all(jobs.iter().map(|job| Stream::open(&api, job.as_str()))).await;
    join_all(streams.iter_mut().map(|stream| stream.expect("job", "queued"))).await;
    let _worker = work.system.worker(&[("LEASEHOLD_WORKER__CONCURRENCY", "12")]);
    for (stream, job) in streams.iter_mut().zip(&jobs) {
        stream.expect("job", "running").await;
        work.begun(job, 1).await;
    }
    work.open_gate();
    for stream in &mut streams {
        stream.expect("end", "completed").await;
        stream.expect_close().await;
    }
    work.system.finish().await;
}
