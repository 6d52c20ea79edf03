//! The sweep, in every worker: promotes, reclaims, recovers, prunes. Any number of sweepers is safe; one is enough.
use std::sync::Arc;
use std::time::Duration;

use leasehold::store::SweepRequest;

use crate::claim::Event;
use crate::run::Running;

/// Sweeps every partition each `worker.sweep_ms`, until the worker is gone.
pub(crate) async fn run(running: Arc<Running>) {
    let every = Duration::from_millis(running.config.worker.sweep_ms);
    loop {
        // Jitter spreads the sweeps of many workers.
        tokio::time::sleep(every.mul_f64(rand::random_range(0.8..1.2))).await;
        sweep(&running).await;
    }
}

/// One sweep of every partition; wakes the claim loop where it queued something.
async fn sweep(running: &Running) {
    let request = SweepRequest { lease_ms: running.config.lease_ms, max_crashes: running.config.max_crashes };
    for partition in 0..running.store.partitions() {
        let swept = match running.store.sweep(partition, &request).await {
            Ok(swept) => swept,
            Err(e) => {
                running.contact.failed("sweeping", &e);
                continue;
            }
        };
        running.contact.works();
        for id in &swept.reclaimed {
            tracing::info!(job = %id, "taken back: its worker let the lease run out");
        }
        if swept.queued_any() {
            running.tell_claimer(Event::Look(partition));
        }
    }
}
