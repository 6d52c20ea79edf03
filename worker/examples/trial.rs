//! Scratch.
#![allow(clippy::unwrap_used)]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use leasehold::job::{Due, Priority};
use leasehold::{Config, Json, Kind, Kinds, NewJob, QueueName, Store, State};
use leasehold_worker::{Context, Done, Failure, Shutdown, Worker};

fn job(kind: &str, payload: &str) -> NewJob {
    NewJob { kind: Kind::parse(kind).unwrap(), queue: QueueName::parse(&std::env::var("Q").unwrap_or("default".into())).unwrap(), priority: Priority::parse(&std::env::var("PRIO").unwrap_or("normal".into())).unwrap(),
        payload: Json::parse(payload, 64, 1<<20).unwrap(), due: Due::Now, max_attempts: std::env::var("ATT").map(|a| a.parse().unwrap()).unwrap_or(5), timeout_ms: std::env::var("TMO").ok().map(|a| a.parse().unwrap()), idempotency: None, limited: std::env::var("LIM").is_ok(), batch: None }
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let config = Config { redis_url: std::env::var("R").unwrap_or("redis://127.0.0.1:7911".into()), partitions: std::env::var("N").ok().map(|n| n.parse().unwrap()),
      lease_ms: std::env::var("L").map(|n| n.parse().unwrap()).unwrap_or(30000), ..Config::default() };
    leasehold::log::init(&leasehold::config::LogConfig { filter: std::env::var("LOG").unwrap_or("info".into()), ..Default::default() }).unwrap();
    let store = Store::connect(&config).await.unwrap();
    match args[0].as_str() {
        "submit" => {
            let n: usize = args[2].parse().unwrap();
            let payload = args.get(3).map(String::as_str).unwrap_or("{}");
            let mut left = n;
            while left > 0 {
                let k = left.min(1000);
                let jobs = (0..k).map(|_| job(&args[1], payload)).collect();
                let got = store.submit_many(jobs).await.unwrap();
                if n <= 3 { for g in got { println!("{}", g.unwrap().id); } }
                left -= k;
            }
        }
        "get" => println!("{}", serde_json::to_string_pretty(&store.get(&leasehold::JobId::parse(&args[1]).unwrap()).await.unwrap()).unwrap()),
        "history" => println!("{:#?}", store.history(&leasehold::JobId::parse(&args[1]).unwrap()).await.unwrap()),
        "cancel" => println!("{:?}", store.cancel(&[leasehold::JobId::parse(&args[1]).unwrap()]).await),
        "pause" => println!("{:?}", store.pause(&QueueName::parse(&args[1]).unwrap(), true).await),
        "resume" => println!("{:?}", store.pause(&QueueName::parse(&args[1]).unwrap(), false).await),
        "check" => {
            let f = store.check().await.unwrap();
            println!("{} findings", f.len());
            for f in f.iter().take(20) { println!("{f:?}"); }
            std::process::exit(i32::from(!f.is_empty()));
        }
        "workers" => for w in store.workers().await.unwrap() { println!("{} alive={} running={} kinds={:?} info={:?}", w.info.id, w.alive, w.running.len(), w.info.kinds, w.info.running) },
        "lat" => latency(config, store).await,
        "drain" => drain(config, store, args[1].parse().unwrap(), args[2].parse().unwrap()).await,
        "lib" => lib(config, store).await,
        x => panic!("{x}"),
    }
}

async fn latency(mut config: Config, store: Store) {
    config.worker.concurrency = 8;
    let started: Arc<AtomicU64> = Arc::default();
    let base = Instant::now();
    let s = Arc::clone(&started);
    let handler = move |_c: Context, _p: serde_json::Value| { let s = Arc::clone(&s); async move { s.store(base.elapsed().as_nanos() as u64, Ordering::SeqCst); Ok::<_, Failure>(Done::Result(1)) } };
    let shutdown = Shutdown::new();
    let running = tokio::spawn(Worker::new(config, Kinds::default()).handler("noop", handler).run(shutdown.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut all = Vec::new();
    for _ in 0..300 {
        started.store(0, Ordering::SeqCst);
        let t = base.elapsed().as_nanos() as u64;
        store.submit(job("noop", "{}")).await.unwrap();
        let after = base.elapsed().as_nanos() as u64;
        while started.load(Ordering::SeqCst) == 0 { tokio::time::sleep(Duration::from_micros(100)).await; }
        let s = started.load(Ordering::SeqCst);
        all.push(((s - t) / 1000, s.saturating_sub(after) / 1000));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    all.sort();
    println!("submit sent -> handler start us: p50 {} p99 {} max {}", all[150].0, all[297].0, all[299].0);
    all.sort_by_key(|a| a.1);
    println!("submit answered -> handler start us: p50 {} p99 {}", all[150].1, all[297].1);
    shutdown.begin();
    let t = Instant::now();
    println!("{:?} ended in {:?}", running.await, t.elapsed());
}

async fn drain(mut config: Config, store: Store, n: usize, slots: usize) {
    let mut left = n;
    let t = Instant::now();
    while left > 0 { let k = left.min(1000); store.submit_many((0..k).map(|_| job("noop", "{\"a\":1}")).collect()).await.unwrap(); left -= k; }
    println!("submitted {n} in {:?}", t.elapsed());
    config.worker.concurrency = slots;
    let done: Arc<AtomicU64> = Arc::default();
    let d = Arc::clone(&done);
    let handler = move |_c: Context, _p: serde_json::Value| { d.fetch_add(1, Ordering::SeqCst); async move { Ok::<_, Failure>(Done::Result(1)) } };
    let shutdown = Shutdown::new();
    let t = Instant::now();
    let running = tokio::spawn(Worker::new(config, Kinds::default()).handler("noop", handler).run(shutdown.clone()));
    while (done.load(Ordering::SeqCst) as usize) < n { tokio::time::sleep(Duration::from_millis(5)).await; }
    println!("drained {n} in {:?}: {:.0}/s", t.elapsed(), n as f64 / t.elapsed().as_secs_f64());
    shutdown.begin();
    println!("{:?}", running.await);
    println!("{:?}", store.check().await.unwrap().len());
}

/// A worker with handlers of every sort.
async fn lib(mut config: Config, _store: Store) {
    config.worker.concurrency = std::env::var("C").map(|c| c.parse().unwrap()).unwrap_or(4);
    config.worker.grace_ms = 1000;
    if let Ok(k) = std::env::var("KINDS") { config.kinds = Some(k.into()); }
    if let Ok(q) = std::env::var("QUEUES") { config.worker.queues = q; }
    let kinds = config.load_kinds().unwrap();
    async fn sleep(c: Context, ms: u64) -> Result<Done<String>, Failure> {
        println!("start {} token {} attempt {}", c.job_id(), c.token(), c.attempt());
        let t = Instant::now();
        tokio::select! { () = tokio::time::sleep(Duration::from_millis(ms)) => {}, () = c.cancelled() => { println!("cancelled {} after {:?}: {:?}", c.job_id(), t.elapsed(), c.stop_reason()); return Err(Failure::new("stopped")) } }
        println!("end {}", c.job_id());
        Ok("slept".to_owned().into())
    }
    async fn deaf(c: Context, ms: u64) -> Result<Done<String>, Failure> { println!("start {}", c.job_id()); tokio::time::sleep(Duration::from_millis(ms)).await; println!("end {}", c.job_id()); Ok("slept".to_owned().into()) }
    async fn hog(c: Context, ms: u64) -> Result<Done<String>, Failure> { println!("start {}", c.job_id()); let t = Instant::now(); while t.elapsed().as_millis() < u128::from(ms) {} println!("end {} {:?}", c.job_id(), c.stop_reason()); Ok("hogged".to_owned().into()) }
    async fn boom(_c: Context, _m: serde_json::Value) -> Result<Done<String>, Failure> { panic!("boom") }
    async fn fail(_c: Context, how: String) -> Result<Done<String>, Failure> { match how.as_str() { "fatal" => Err(Failure::fatal("no")), "in" => Err(Failure::retry_in(Duration::from_millis(1500), "later")), "skip" => Ok(Done::Skipped("why".into())), "big" => Ok("x".repeat(300_000).into()), _ => Err(Failure::new("oops")) } }
    async fn steps(c: Context, n: u64) -> Result<Done<u64>, Failure> {
        let from: u64 = c.checkpoint()?.unwrap_or(0);
        println!("from {from}");
        for k in from..n { c.progress(k as f64 * 100.0 / n as f64, if k % 2 == 0 { "even" } else { "odd" }); tokio::time::sleep(Duration::from_millis(100)).await; c.save_checkpoint(&(k + 1)).await?; }
        Ok(n.into())
    }
    async fn abort(_c: Context, _m: serde_json::Value) -> Result<Done<String>, Failure> { std::process::abort() }
    let shutdown = Shutdown::on_signals().unwrap();
    let r = Worker::new(config, kinds).handler("sleep", sleep).handler("deaf", deaf).handler("hog", hog).handler("boom", boom).handler("fail", fail).handler("steps", steps).handler("abort", abort).run(shutdown).await;
    println!("run: {r:?}");
    let _ = State::ALL;
    std::process::exit(i32::from(r.is_err()));
}
