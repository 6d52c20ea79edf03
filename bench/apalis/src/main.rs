//! apalis with apalis-redis as `make bench-peers` runs it, with its locks (its default) or without.
#[path = "../../protocol.rs"]
mod protocol;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_redis::{Config, RedisStorage};
use redis::aio::ConnectionManager;
use serde_json::{Value, json};

/// Jobs in a bulk call, and callers at once: the same for every peer.
const BULK: u64 = 1_000;
const CALLERS: u64 = 64;
const QUEUE: &str = "bench";
/// apalis-redis 1.0 polls: its wake-up by pub/sub is not sent for jobs that were pushed.
const POLL: Duration = Duration::from_millis(10);

/// The version of a crate, by the lock file.
fn version(name: &str) -> String {
    let of_crate =
        include_str!("../Cargo.lock").split("[[package]]").find(|part| part.contains(&format!("name = \"{name}\"\n")));
    let version = of_crate.and_then(|part| part.split("version = \"").nth(1)).and_then(|rest| rest.split('"').next());
    format!("{name} {}", version.unwrap_or("of an unknown version"))
}

async fn work(_: Value) -> Result<(), BoxDynError> {
    protocol::executed();
    Ok(())
}

async fn enqueue(storage: RedisStorage<Value>, payload: Value, how: &str, count: u64) {
    let begun = Instant::now();
    match how {
        "one" => {
            let mut storage = storage;
            for _ in 0..count {
                storage.push(payload.clone()).await.expect("pushed");
            }
        }
        "concurrent" => {
            let taken = Arc::new(AtomicU64::new(0));
            let callers = (0..CALLERS).map(|_| {
                let (mut storage, payload, taken) = (storage.clone(), payload.clone(), taken.clone());
                tokio::spawn(async move {
                    while taken.fetch_add(1, Relaxed) < count {
                        storage.push(payload.clone()).await.expect("pushed");
                    }
                })
            });
            for caller in callers.collect::<Vec<_>>() {
                caller.await.expect("all pushed");
            }
        }
        "bulk" => {
            let mut storage = storage;
            for begin in (0..count).step_by(BULK as usize) {
                let chunk = (begin..count.min(begin + BULK)).map(|_| payload.clone()).collect();
                storage.push_bulk(chunk).await.expect("pushed");
            }
        }
        other => panic!("enqueue {other}: one, concurrent or bulk"),
    }
    protocol::say(&json!({ "jobs": count, "seconds": begun.elapsed().as_secs_f64() }));
}

/// Moves the backlog to where a worker fetches from, a thousand at a time: the worker would move all of it in one
/// script, which fails with 8,000 or more waiting.
async fn move_backlog(connection: &mut ConnectionManager) {
    let script = redis::Script::new(
        "local ids = redis.call('zrange', KEYS[1], 0, 999)
         if #ids == 0 then return 0 end
         redis.call('zrem', KEYS[1], unpack(ids))
         redis.call('rpush', KEYS[2], unpack(ids))
         return #ids",
    );
    let (scheduled, active) = (format!("{QUEUE}:scheduled"), format!("{QUEUE}:active"));
    while script.key(&scheduled).key(&active).invoke_async::<u64>(connection).await.expect("moved") > 0 {}
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    let locks = words.first() != Some(&"without-locks");
    if !locks {
        words.remove(0);
    }
    let versions = format!("{}, {}", version("apalis"), version("apalis-redis"));
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let payload: Value = serde_json::from_str(&protocol::given("PEER_PAYLOAD")).expect("JSON");
    let mut connection = apalis_redis::connect(protocol::given("PEER_REDIS_URL")).await.expect("Redis");
    let batch = if let ["drain", batch] = words[..] { number(batch) as usize } else { 10 };
    let config = Config::default().queue(QUEUE).batch_size(batch).lock_tasks(locks);
    let mut storage = RedisStorage::<Value>::new(connection.clone()).with_config(config);
    let context = WorkerContext::new(&format!("worker-{}", std::process::id()));
    let worker = WorkerBuilder::new(context.clone()).backend(storage.clone().poll_with_interval(POLL)).build(work);
    match words[..] {
        ["enqueue", how, count] => {
            for _ in 0..number(&protocol::given("PEER_WARM_UP")) {
                storage.push(payload.clone()).await.expect("pushed");
            }
            protocol::ready(&versions).await;
            enqueue(storage, payload, how, number(count)).await;
        }
        ["drain", _] => {
            move_backlog(&mut connection).await;
            protocol::ready(&versions).await;
            let worker = tokio::spawn(worker.run());
            protocol::report_until_stop().await;
            context.stop().expect("running");
            worker.await.expect("no panic").expect("an orderly end");
            protocol::report_end();
        }
        ["latency", samples] => {
            let worker = tokio::spawn(worker.run());
            protocol::ready(&versions).await;
            let submit = || {
                let (mut storage, payload) = (storage.clone(), payload.clone());
                async move { storage.push(payload).await.expect("pushed") }
            };
            protocol::latency(number(samples), submit).await;
            context.stop().expect("running");
            worker.await.expect("no panic").expect("an orderly end");
        }
        ["kept"] => {
            let kept: u64 =
                redis::cmd("SCARD").arg(format!("{QUEUE}:done")).query_async(&mut connection).await.expect("a count");
            protocol::say(&json!({ "kept": kept }));
        }
        _ => panic!("usage: [without-locks] enqueue one|concurrent|bulk JOBS, drain BATCH, latency SAMPLES, or kept"),
    }
}
