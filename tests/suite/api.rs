//! HTTP: the real `leasehold-api` on a real Redis.
mod crowd;
mod durability;
mod events;
mod foreign;
mod hostile;
mod idempotency;
mod jobs;
mod landing;
mod outage;
mod refused;
mod start_stop;
mod tokens;

use std::time::Duration;

use crate::clocked_store::claim_of;
use leasehold::store::{ClaimRequest, Outcome, RenewRequest, Settle, WorkerInfo};
use leasehold::{Config, Kind, QueueName, Store, Timestamp, WorkerId};
use leasehold_tests::{Answer, Api, System};
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take that should be quick.
const LIMIT: Duration = Duration::from_secs(20);

/// A system with one API that is ready.
async fn start(environment: &[(&str, &str)]) -> (System, Api) {
    let system = System::start(&[]).await;
    let api = system.api(environment).await;
    api.wait_ready().await;
    (system, api)
}

/// POST without a body.
async fn ask(api: &Api, path: &str) -> Answer {
    leasehold_tests::api::answer(api.request(Method::POST, path)).await
}

/// POST of a JSON text as it stands, with further headers.
async fn send(api: &Api, path: &str, headers: &[(&str, &str)], text: impl Into<String>) -> Answer {
    let mut request = api.request(Method::POST, path).header("content-type", "application/json").body(text.into());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    leasehold_tests::api::answer(request).await
}

/// The id of a job that an answer shows.
fn id(answer: &Answer) -> String {
    answer.json["id"].as_str().unwrap_or_else(|| panic!("no job: {}", answer.text)).to_owned()
}

/// Asserts that an answer is a problem of that status and code, and returns it.
#[track_caller]
fn problem<'a>(answer: &'a Answer, status: u16, code: &str) -> &'a Value {
    let seen = (answer.status, answer.json["code"].as_str(), answer.json["status"].as_u64());
    assert_eq!(seen, (status, Some(code), Some(u64::from(status))), "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    for member in ["type", "title", "detail"] {
        assert!(answer.json[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {}", answer.text);
    }
    &answer.json
}

/// A worker of the test's own: it claims and settles when told to.
struct Hand {
    store: Store,
    worker: WorkerId,
}

impl Hand {
    async fn of(system: &System) -> Hand {
        let config = Config { redis_url: system.redis().url(), ..Config::default() };
        let store = Store::connect(&config).await.unwrap();
        let hand = Hand { store, worker: WorkerId::parse("hand").unwrap() };
        hand.register("echo").await;
        hand
    }

    /// Says that it serves a kind.
    async fn register(&self, kind: &str) {
        let info = WorkerInfo {
            id: self.worker.clone(),
            host: "here".into(),
            pid: 1,
            version: "0".into(),
            started_at: Timestamp(0),
            queues: vec![QueueName::parse("default").unwrap()],
            kinds: vec![Kind::parse(kind).unwrap()],
            slots: 8,
            lease_ms: 30_000,
            kinds_digest: None,
            running: Default::default(),
        };
        for partition in 0..self.store.partitions() {
            let request = RenewRequest { info: &info, lease_ms: 30_000, seen: 0, held: &[] };
            self.store.renew(partition, &request).await.unwrap();
        }
    }

    /// Claims one job of kind `echo` from `default`; what it returns ends it.
    async fn claim(&self) -> leasehold::store::Held {
        let queues = [(QueueName::parse("default").unwrap(), 1)];
        let kinds = [(Kind::parse("echo").unwrap(), 0)];
        let claim = claim_of(&self.worker, 1);
        let request = ClaimRequest { lease_ms: 30_000, queues: &queues, kinds: &kinds, ..claim };
        self.store.claim(0, &request).await.unwrap().jobs.pop().expect("a job was queued").held
    }

    /// Completes a claimed job.
    async fn complete(&self, held: leasehold::store::Held) {
        let outcome = Outcome::Complete { result: leasehold::Json::null(), skipped: None, files: Vec::new() };
        self.store.settle(&self.worker, Settle { held, outcome }).await.unwrap();
    }
}

/// A connection below HTTP.
async fn connect(api: &Api) -> TcpStream {
    let url = api.url("");
    TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Sends bytes and returns all that comes back until the connection ends or `limit` has passed.
async fn exchange(stream: &mut TcpStream, bytes: &[u8], limit: Duration) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}
