//! The sweep, in every worker: promotes, reclaims, recovers, prunes. Any number of sweepers is safe; one is enough.
use std::sync::Arc;
use std::time::Duration;

use leasehold::store::SweepRequest;

use crate::event::Event;
use crate::outage::is_outage;
use crate::running::Running;

/// The pause between two sweeps of a backlog, so that others have their turn at Redis.
const BREATH: Duration = Duration::from_millis(20);

/// Sweeps every partition each `worker.sweep_ms`, until the worker is gone.
pub(crate) async fn run(running: Arc<Running>) {
    let every = Duration::from_millis(running.config.worker.sweep_ms);
    let mut pause = every;
    loop {
        // Jitter spreads the sweeps of many workers. A backlog is gone on with after a breath, not an interval.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
        pause = if sweep(&running).await { every.min(BREATH) } else { every };
    }
}

/// Walks each `files.walk_ms`, until the worker is gone.
pub(crate) async fn sweep_files(running: Arc<Running>) {
    if running.store.files().is_none() {
        return;
    }
    let files = &running.config.files;
    let (every, older_than) = (Duration::from_millis(files.walk_ms), Duration::from_millis(files.orphan_ms));
    loop {
        // Jitter spreads the walks of many workers.
        tokio::time::sleep(every.mul_f64(rand::random_range(0.5..1.5))).await;
        match running.store.sweep_files(older_than).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "the walk of the file store deleted folders of no job"),
            Err(e) if is_outage(&e) => running.redis.failed("walking the file store", &e),
            Err(e) => tracing::warn!("the file store was not walked to its end: {e}"),
        }
    }
}

/// One sweep of every partition; wakes the claim loop where it queued something. Whether a bound stopped it.
async fn sweep(running: &Running) -> bool {
    let request = SweepRequest { lease_ms: running.config.lease_ms, max_crashes: running.config.max_crashes };
    let mut more = false;
    for partition in 0..running.store.partitions() {
        let swept = match running.store.sweep(partition, &request).await {
            Ok(swept) => swept,
            Err(e) => {
                running.redis.failed("sweeping", &e);
                continue;
            }
        };
        running.redis.answered();
        more |= swept.more;
        running.metrics.swept(&swept);
        for id in &swept.reclaimed {
            tracing::info!(job = %id, "taken back: its worker let the lease run out");
        }
        if swept.queued_any() {
            running.tell_claimer(Event::Look(partition));
        }
    }
    more
}
