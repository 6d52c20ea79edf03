//! Goal 5: how long an idle system takes from a submit to the start of the handler.
use std::time::{Duration, Instant};

use leasehold::{JobId, State, Store};

use super::Bench;
use super::drain::consistent;
use super::figure::percentile;
use super::report::Row;
use super::site::{Fsync, Site};
use super::work::{self, LATENCY, now_us};
use crate::failure::Failure;

/// Slots of the worker, as the default has it.
const SLOTS: usize = 8;
/// Jobs that start before anything is timed.
const WARM_UP: usize = 50;
/// How long a job is left alone before each look whether it has ended, so that looking does not delay its start.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The shortest pause before the next job, and by how much the pauses differ, so that they follow no rhythm.
const PAUSE: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(7));
/// How long a job may take to end.
const LIMIT: Duration = Duration::from_secs(60);

/// Goal 5; what the peers do is measured elsewhere.
pub(super) async fn start(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for fsync in [Fsync::Everysec, Fsync::Always] {
        let site = Site::start(&bench.ground, fsync, 1).await?;
        let worker = site.worker(SLOTS).await?;
        starts(&site.store, WARM_UP.min(bench.ground.size.starts())).await?;
        let (mut middle, mut high) = (Vec::new(), Vec::new());
        for _ in 0..bench.ground.size.rounds() {
            let times = starts(&site.store, bench.ground.size.starts()).await?;
            middle.push(percentile(&times, 50.0));
            high.push(percentile(&times, 99.0));
        }
        worker.stop().await?;
        consistent(&site.store).await?;
        site.close().await?;
        rows.push(Row::new(format!("submit to start when idle, p50, {}", fsync.as_str()), "µs", middle));
        rows.push(Row::new(format!("submit to start when idle, p99, {}", fsync.as_str()), "µs", high));
    }
    Ok(rows)
}

/// Submits jobs, each once the one before has ended; from each submit to the start of its handler, µs.
async fn starts(store: &Store, jobs: usize) -> Result<Vec<f64>, Failure> {
    let mut times = Vec::with_capacity(jobs);
    for number in 0..jobs {
        let pause = PAUSE.1.mul_f64((number * 7 % 10) as f64 / 10.0);
        tokio::time::sleep(PAUSE.0 + pause).await;
        let payload = format!("{{\"sent_us\":{}}}", now_us());
        let id = store.submit(work::job(LATENCY, &payload)).await?.id;
        times.push(result(store, &id).await?);
    }
    Ok(times)
}

/// Waits until the job has completed; its result.
async fn result(store: &Store, id: &JobId) -> Result<f64, Failure> {
    let end = Instant::now() + LIMIT;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let job = store.get(id).await?;
        let number = job.as_ref().and_then(|job| job.result.as_ref()?.to::<f64>().ok());
        if let Some(number) = number {
            return Ok(number);
        }
        if Instant::now() >= end || job.as_ref().is_none_or(|job| job.state.is_final() && job.state != State::Completed)
        {
            let state = job.map_or("gone".to_owned(), |job| job.state.to_string());
            return Err(Failure::Failed(format!("job {id} did not complete: it is {state}")));
        }
    }
}
