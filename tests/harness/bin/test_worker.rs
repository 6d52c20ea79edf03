//! A worker with Rust handlers that misbehave, for the suite: `leasehold-test-worker`, configured as any worker.
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use leasehold_worker::{Context, Done, Failure, Shutdown, Worker};

#[derive(serde::Deserialize)]
struct Hog {
    /// How long to hold the thread, ms.
    ms: u64,
    /// A file to append a line to at the start.
    journal: std::path::PathBuf,
}

/// Computes without ever yielding, as a handler with a bug does.
async fn hog(context: Context, payload: Hog) -> Result<Done<u64>, Failure> {
    use std::io::Write;
    let mut journal = std::fs::OpenOptions::new().append(true).create(true).open(&payload.journal)?;
    journal.write_all(format!("begin {} {}\n", context.job_id(), context.token()).as_bytes())?;
    let begun = Instant::now();
    let mut sum = 0_u64;
    while begun.elapsed() < Duration::from_millis(payload.ms) {
        sum = std::hint::black_box(sum.wrapping_add(1));
    }
    Ok(Done::Result(sum))
}

/// Always panics.
async fn panics(_: Context, message: String) -> Result<Done<()>, Failure> {
    panic!("{message}")
}

/// Takes its worker along.
async fn aborts(_: Context, _: serde_json::Value) -> Result<Done<()>, Failure> {
    std::process::abort()
}

/// Allocates until there is no memory, which ends the process.
async fn allocates(_: Context, _: serde_json::Value) -> Result<Done<usize>, Failure> {
    let mut held = Vec::new();
    loop {
        held.push(Vec::<u8>::with_capacity(64 << 20));
        if std::hint::black_box(&held).len() > 1 << 20 {
            return Ok(Done::Result(held.len()));
        }
    }
}

/// Waits until it is told to stop, and says why it was.
async fn waits(context: Context, _: serde_json::Value) -> Result<Done<String>, Failure> {
    let reason = context.cancelled().await;
    Err(Failure::new(format!("{reason:?}")))
}

/// Doubles a number; has nothing to do for 0, and refuses what ends in 7.
async fn doubles(_: Context, number: u64) -> Result<Done<u64>, Failure> {
    match number {
        0 => Ok(Done::Skipped("nothing to double".into())),
        _ if number % 10 == 7 => Err(Failure::fatal("it ends in 7")),
        _ => Ok((2 * number).into()),
    }
}

/// Sums what the items of its batch have made.
async fn sums(context: Context, _: serde_json::Value) -> Result<Done<serde_json::Value>, Failure> {
    let (mut sum, mut seen, mut items) = (0, 0_u64, context.items());
    while let Some(item) = items.try_next().await? {
        seen += 1;
        sum += item.result.and_then(|result| result.as_str().parse::<u64>().ok()).unwrap_or(0);
    }
    let counts = context.batch().ok_or_else(|| Failure::fatal("it is no batch"))?;
    Ok(serde_json::json!({ "sum": sum, "seen": seen, "failed": counts.failed }).into())
}

/// Leaves each of its files backwards, and returns how many bytes that were.
async fn backwards(context: Context, _: serde_json::Value) -> Result<Done<usize>, Failure> {
    use tokio::io::AsyncReadExt;
    let mut total = 0;
    for file in context.files() {
        let mut content = Vec::new();
        context.open_file(&file.name).await?.read_to_end(&mut content).await?;
        content.reverse();
        total += content.len();
        context.write_file(&file.name, content.as_slice()).await?;
    }
    Ok(Done::Result(total))
}

/// Leaves a thread behind that never ends and keeps the context, and so the slot.
async fn leaks(context: Context, _: serde_json::Value) -> Result<Done<()>, Failure> {
    let kept = tokio::task::spawn_blocking(move || {
        let _context = context;
        loop {
            std::thread::park();
        }
    });
    kept.await?
}

fn main() {
    leasehold_worker::become_reader();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let ended = runtime.block_on(run());
    if let Err(e) = &ended {
        leasehold::log::say(e);
    }
    // Not by returning: that would wait for what handlers have left behind.
    std::process::exit(i32::from(ended.is_err()))
}

async fn run() -> Result<(), leasehold_worker::Error> {
    let config = leasehold::Config::load(None, &[])?;
    leasehold::log::init(&config.log)?;
    let kinds = config.load_kinds()?;
    let worker = Worker::new(config, kinds).handler("hog", hog).handler("panics", panics).handler("waits", waits);
    let worker = worker.handler("doubles", doubles).handler("sums", sums).handler("backwards", backwards);
    let worker = worker.handler("leaks", leaks).handler("aborts", aborts).handler("allocates", allocates);
    worker.run(Shutdown::on_signals()?).await
}
