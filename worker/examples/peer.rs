//! Leasehold as `make bench-peers` runs it: the public client and the worker library, with a handler that does nothing.
#[path = "../../bench/protocol.rs"]
mod protocol;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use leasehold::{Config, Draft, Json, Kind, Kinds, NewJob, State, Store};
use leasehold_worker::{Context, Done, Failure, Shutdown, Worker};
use serde_json::{Value, json};

/// Jobs in a bulk call, and callers at once: the same for every peer.
const BULK: u64 = 1_000;
const CALLERS: u64 = 64;

async fn work(_: Context, _: Value) -> Result<Done<()>, Failure> {
    protocol::executed();
    Ok(().into())
}

/// Makes the jobs, each from the value of its payload, as a program has it.
struct Jobs {
    kind: Kind,
    kinds: Kinds,
    payload: Value,
}

impl Jobs {
    fn next(&self) -> NewJob {
        Draft::new(self.kind.clone(), Json::of(&self.payload).expect("JSON")).into_job(&self.kinds)
    }
}

async fn enqueue(store: Store, jobs: Jobs, how: &str, count: u64) {
    let begun = Instant::now();
    match how {
        "one" => {
            for _ in 0..count {
                store.submit(jobs.next()).await.expect("submitted");
            }
        }
        "concurrent" => {
            let (jobs, taken) = (Arc::new(jobs), Arc::new(AtomicU64::new(0)));
            let callers = (0..CALLERS).map(|_| {
                let (store, jobs, taken) = (store.clone(), jobs.clone(), taken.clone());
                tokio::spawn(async move {
                    while taken.fetch_add(1, Relaxed) < count {
                        store.submit(jobs.next()).await.expect("submitted");
                    }
                })
            });
            for caller in callers.collect::<Vec<_>>() {
                caller.await.expect("all submitted");
            }
        }
        "bulk" => {
            for begin in (0..count).step_by(BULK as usize) {
                let chunk = (begin..count.min(begin + BULK)).map(|_| jobs.next()).collect();
                for submitted in store.submit_many(chunk).await.expect("submitted") {
                    submitted.expect("accepted");
                }
            }
        }
        other => panic!("enqueue {other}: one, concurrent or bulk"),
    }
    protocol::say(&json!({ "jobs": count, "seconds": begun.elapsed().as_secs_f64() }));
}

/// On the runtime's threads, as a program's tasks are, not on the one that waits for its end.
#[tokio::main]
async fn main() {
    tokio::spawn(run()).await.expect("no panic");
}

async fn run() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let versions = format!("Leasehold {}", env!("CARGO_PKG_VERSION"));
    let slots = if let ["drain", slots] = words[..] { slots } else { "8" };
    let flags = [
        ("redis_url", protocol::given("PEER_REDIS_URL")),
        ("worker.concurrency", slots.to_owned()),
        ("log.filter", "warn".to_owned()),
    ];
    let config = Config::load(None, &flags).expect("settings");
    leasehold::log::init(&config.log).expect("a log");
    let kind = Kind::parse("bench").expect("a name");
    let payload = serde_json::from_str(&protocol::given("PEER_PAYLOAD")).expect("JSON");
    let jobs = Jobs { kind, kinds: Kinds::default(), payload };
    let store = Store::connect(&config).await.expect("Redis");
    let shutdown = Shutdown::new();
    let worker = Worker::new(config, Kinds::default()).handler("bench", work).run(shutdown.clone());
    match words[..] {
        ["enqueue", how, count] => {
            for _ in 0..number(&protocol::given("PEER_WARM_UP")) {
                store.submit(jobs.next()).await.expect("submitted");
            }
            protocol::ready(&versions).await;
            enqueue(store, jobs, how, number(count)).await;
        }
        ["drain", _] => {
            protocol::ready(&versions).await;
            let worker = tokio::spawn(worker);
            protocol::report_until_stop().await;
            shutdown.begin();
            worker.await.expect("no panic").expect("an orderly end");
            protocol::report_end();
        }
        ["latency", samples] => {
            let worker = tokio::spawn(worker);
            protocol::ready(&versions).await;
            let submit = || async {
                store.submit(jobs.next()).await.expect("submitted");
            };
            protocol::latency(number(samples), submit).await;
            shutdown.begin();
            worker.await.expect("no panic").expect("an orderly end");
        }
        ["kept"] => {
            let totals = store.totals().await.expect("totals");
            protocol::say(&json!({ "kept": totals.get(&State::Completed).copied().unwrap_or(0) }));
        }
        _ => panic!("usage: enqueue one|concurrent|bulk JOBS, drain SLOTS, latency SAMPLES, or kept"),
    }
}
