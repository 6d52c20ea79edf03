//! A worker with Rust handlers that misbehave, for the suite: `leasehold-test-worker`, configured as any worker.
use std::time::{Duration, Instant};

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

/// Waits until it is told to stop, and says why it was.
async fn waits(context: Context, _: serde_json::Value) -> Result<Done<String>, Failure> {
    let reason = context.cancelled().await;
    Err(Failure::new(format!("{reason:?}")))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), leasehold_worker::Error> {
    let config = leasehold::Config::load(None, &[])?;
    leasehold::log::init(&config.log)?;
    let kinds = config.load_kinds()?;
    let worker = Worker::new(config, kinds).handler("hog", hog).handler("panics", panics).handler("waits", waits);
    worker.run(Shutdown::on_signals()?).await
}
