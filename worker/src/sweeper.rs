//! The sweeps, in every worker: of Redis (promote, reclaim, recover, prune), and of orphaned files in the file store.
//! Any number of sweepers is safe; one is enough.
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use leasehold::store::SweepRequest;

use crate::event::Event;
use crate::outage::is_outage;
use crate::running::Running;

/// The pause between two sweeps of a backlog, so that other clients of Redis are served too.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);
/// Partitions swept at once.
const AT_ONCE: usize = 8;

/// Sweeps every partition every `worker.sweep_ms`, until the worker has ended.
pub(crate) async fn run(running: Arc<Running>) {
    let every = Duration::from_millis(running.config.worker.sweep_ms);
    let mut pause = every;
    loop {
        // Jitter spreads the sweeps of many workers. With a backlog, sweep again after a short pause.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
        pause = if sweep(&running).await { every.min(BACKLOG_PAUSE) } else { every };
    }
}

/// Deletes orphaned files every `files.walk_ms`, slowly and in small steps, until the worker has ended.
pub(crate) async fn sweep_files(running: Arc<Running>) {
    if running.store.files().is_none() {
        return;
    }
    let files = &running.config.files;
    let (every, older_than) = (Duration::from_millis(files.walk_ms), Duration::from_millis(files.orphan_ms));
    loop {
        // Jitter spreads the sweeps of many workers.
        tokio::time::sleep(every.mul_f64(rand::random_range(0.5..1.5))).await;
        match running.store.sweep_files(older_than).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "the file sweep deleted folders that belong to no job"),
            Err(e) if is_outage(&e) => running.redis.failed("sweeping the file store", &e),
            Err(e) => tracing::warn!("the file sweep was incomplete: {e}"),
        }
    }
}

/// Sweeps every partition once; wakes the claim loop where jobs were queued. Returns whether more is left to do.
async fn sweep(running: &Running) -> bool {
    let request = SweepRequest { lease_ms: running.config.lease_ms, max_crashes: running.config.max_crashes };
    let mut more = false;
    // A partition that does not answer is swept again soon anyway, and keeps no other waiting.
    let (store, request) = (running.store.impatient(), &request);
    let sweeps = (0..store.partitions()).map(|partition| {
        let store = store.clone();
        async move { (partition, store.sweep(partition, request).await) }
    });
    let mut sweeps = stream::iter(sweeps).buffer_unordered(AT_ONCE);
    while let Some((partition, swept)) = sweeps.next().await {
        let swept = match swept {
            Ok(swept) => swept,
            Err(e) => {
                running.redis.failed_in(Some(partition), "sweeping", &e);
                continue;
            }
        };
        running.redis.answered_in(Some(partition));
        more |= swept.more;
        running.metrics.swept(&swept);
        for id in &swept.reclaimed {
            tracing::info!(job = %id, "reclaimed: its worker let the lease expire");
        }
        if swept.queued_any() {
            running.tell_claimer(Event::Look(partition));
        }
    }
    more
}
