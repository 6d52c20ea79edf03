//! The programs that only a measurement starts: a worker whose handlers do nothing, and the bare route that the API is
//! compared with.
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold::{Config, log};
use leasehold_worker::{Context, Done, Failure as JobFailure, Shutdown, Worker};
use serde::Deserialize;

use super::route;
use super::work::{LATENCY, NOOP, now_us};
use crate::failure::Failure;

/// How many jobs have run.
static RAN: AtomicU64 = AtomicU64::new(0);

/// A role.
#[derive(clap::Subcommand)]
pub(crate) enum Role {
    /// A worker whose handlers do nothing.
    Worker,
    /// An HTTP server with one Redis call a request.
    Route(route::Arguments),
}

/// A job whose start is timed.
#[derive(Deserialize)]
struct Timed {
    /// When it was submitted, µs since 1970.
    sent_us: f64,
}

/// Plays the role until a signal.
pub(crate) fn play(role: &Role) -> ExitCode {
    let played = match role {
        Role::Worker => work(),
        Role::Route(arguments) => route::serve(arguments),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn noop(_: Context, _: serde::de::IgnoredAny) -> Result<Done<serde_json::Value>, JobFailure> {
    RAN.fetch_add(1, Ordering::Relaxed);
    Ok(Done::Result(serde_json::json!({"ok": true})))
}

async fn latency(_: Context, timed: Timed) -> Result<Done<f64>, JobFailure> {
    let latency = now_us() - timed.sent_us;
    RAN.fetch_add(1, Ordering::Relaxed);
    Ok(Done::Result(latency))
}

fn work() -> Result<(), Failure> {
    let config = Config::load(None, &[])?;
    log::init(&config.log)?;
    let kinds = config.load_kinds()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shutdown = Shutdown::on_signals()?;
    let worker = Worker::new(config, kinds).handler(NOOP, noop).handler(LATENCY, latency);
    let result = runtime.block_on(worker.run(shutdown));
    runtime.shutdown_background();
    crate::print::line(format_args!("ran {}", RAN.load(Ordering::Relaxed)))?;
    result.map_err(|e| Failure::Failed(e.to_string()))
}
