//! The corpus of the fuzzers, replayed: `tests/fuzz/<target>` has what each parser of foreign bytes is tried with,
//! finds included.
//!
//! With `LEASEHOLD_FUZZ_SECONDS` each target is then given mutations of its corpus for that long; `make fuzz` sets
//! it. An input that fails is written to the temporary folder and named.
use std::env;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use leasehold::store::ListQuery;
use leasehold::{Config, JobId, Store};
use leasehold_tests::fuzz::{TARGETS, corpus, mutated};
use leasehold_tests::{Api, System, api, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;

const SECONDS_VARIABLE: &str = "LEASEHOLD_FUZZ_SECONDS";
/// What one input may take; a document has 60 s of its own.
const INPUT_LIMIT: Duration = Duration::from_secs(90);

/// The corpus of a target, then mutations of it for as long as asked.
struct Inputs {
    corpus: Vec<(PathBuf, Vec<u8>)>,
    next: usize,
    random: StdRng,
    end: Instant,
    name: &'static str,
}

impl Inputs {
    fn of(name: &'static str) -> Inputs {
        let seconds = env::var(SECONDS_VARIABLE).map_or(0, |text| text.trim().parse().expect("a number of seconds"));
        let end = Instant::now() + Duration::from_secs(seconds);
        Inputs { corpus: corpus(name), next: 0, random: StdRng::seed_from_u64(seed()), end, name }
    }

    /// Writes an input down, so that it can become part of the corpus.
    fn keep(&self, bytes: &[u8]) -> PathBuf {
        let prefix = format!("leasehold-find-{}-", self.name);
        let mut file = tempfile::Builder::new().prefix(&prefix).tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.keep().unwrap().1
    }
}

impl Iterator for Inputs {
    type Item = (PathBuf, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next += 1;
        if let Some(input) = self.corpus.get(self.next - 1) {
            return Some(input.clone());
        }
        (Instant::now() < self.end).then(|| ("a mutation".into(), mutated(&self.corpus, &mut self.random)))
    }
}

#[test]
fn no_parser_panics_or_hangs_on_its_corpus() {
    for (name, target) in TARGETS {
        let mut inputs = Inputs::of(name);
        let mut count = 0;
        while let Some((path, bytes)) = inputs.next() {
            let begun = Instant::now();
            let ended = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
            let took = begun.elapsed();
            if ended.is_err() || took > INPUT_LIMIT {
                panic!(
                    "{name}: {} took {took:?}, panicked: {}; it is {:?}",
                    path.display(),
                    ended.is_err(),
                    inputs.keep(&bytes)
                );
            }
            count += 1;
        }
        println!("{name}: {count} inputs");
    }
}

/// A status that an API may answer to anything a client sends.
fn is_an_answer(status: u16) -> bool {
    matches!(status, 200 | 202 | 400 | 404 | 405 | 408 | 409 | 411 | 413 | 415 | 422 | 429 | 431)
}

/// Sends each input as `request` makes it, and expects an answer that the client can act on.
async fn ask(name: &'static str, api: &Api, request: impl Fn(&Api, &[u8], usize) -> reqwest::RequestBuilder) {
    let mut inputs = Inputs::of(name);
    let mut count = 0;
    while let Some((path, bytes)) = inputs.next() {
        let answer = api::answer(request(api, &bytes, count)).await;
        if !is_an_answer(answer.status) || answer.status >= 400 && answer.json["code"].as_str().is_none() {
            panic!(
                "{name}: {} is answered {}: {}; it is {:?}",
                path.display(),
                answer.status,
                answer.text,
                inputs.keep(&bytes)
            );
        }
        count += 1;
    }
    println!("{name}: {count} inputs");
}

#[tokio::test]
async fn every_body_upload_and_cursor_has_an_answer() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    api.wait_ready().await;
    ask("submit", &api, |api, bytes, count| {
        // Bodies of the corpus that are no bulk go where they mean something.
        let is_bulk = if bytes.starts_with(b"{\"kind\"") { false } else { count % 2 == 1 };
        let path = if is_bulk { "/api/v1/jobs/bulk" } else { "/api/v1/jobs" };
        api.request(Method::POST, path).header("content-type", "application/json").body(bytes.to_vec())
    })
    .await;
    ask("upload", &api, |api, bytes, _| {
        let kind = "multipart/form-data; boundary=x";
        api.request(Method::POST, "/api/v1/jobs").header("content-type", kind).body(bytes.to_vec())
    })
    .await;
    ask("cursor", &api, |api, bytes, _| {
        // As many as fit into a head that is read.
        let cursor: String = bytes.iter().take(2_000).map(|byte| format!("%{byte:02x}")).collect();
        api.request(Method::GET, &format!("/api/v1/jobs?cursor={cursor}"))
    })
    .await;
    assert!(api.is_running() && !api.stderr().contains("panicked"), "{}", api.stderr());
    system.finish().await;
}

/// The fields of a job's hash that a hand, or another program, may have written.
const FIELDS: [&str; 22] = [
    "v",
    "kind",
    "queue",
    "priority",
    "payload",
    "state",
    "attempts",
    "max_attempts",
    "crashes",
    "token",
    "created_at",
    "scheduled_at",
    "started_at",
    "finished_at",
    "updated_at",
    "percent",
    "parent",
    "result",
    "error",
    "items_total",
    "imported",
    "timeout_ms",
];

#[tokio::test]
async fn no_damaged_record_stops_a_read() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    api.wait_ready().await;
    let store = Store::connect(&Config { redis_url: system.redis().url(), ..Config::default() }).await.unwrap();
    let (inputs, mut random) = (Inputs::of("record"), StdRng::seed_from_u64(seed()));
    let mut connection = system.redis().connection().await;
    for (path, bytes) in inputs {
        let answer = api.post("/api/v1/jobs", &serde_json::json!({"kind": "echo"})).await;
        let id = JobId::parse(answer.json["id"].as_str().unwrap()).unwrap();
        let key = format!("lh:{{0}}:job:{id}");
        let chosen = random.random_range(0..FIELDS.len());
        let fields = if path.is_absolute() { &FIELDS[..] } else { &FIELDS[chosen..=chosen] };
        for field in fields {
            let mut command = redis::cmd("HSET");
            command.arg(&key).arg(field).arg(&bytes).query_async::<i64>(&mut connection).await.unwrap();
            // What cannot be read is an error that names it, or left out; never the end of the process.
            drop(store.get(&id).await);
            drop(store.list(&ListQuery { limit: 5, ..ListQuery::default() }).await);
            let read = api.get(&format!("/api/v1/jobs/{id}")).await;
            assert!(matches!(read.status, 200 | 404 | 500), "{field} is {}: {}", path.display(), read.text);
            assert!(read.status != 500 || read.json["code"] == "corrupt_record", "{field}: {}", read.text);
        }
        redis::cmd("DEL").arg(&key).query_async::<i64>(&mut connection).await.unwrap();
    }
    assert!(api.is_running() && !api.stderr().contains("panicked"), "{}", api.stderr());
    // The ids of the removed jobs remain in lists and sets, which the doctor repairs.
    for _ in 0..4 {
        drop(system.command(&["doctor", "--repair"], &[]).await);
    }
    system.finish().await;
}
