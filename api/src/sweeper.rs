//! The sweep while no worker runs: jobs that fall due and leases that expire become visible, so that an autoscaler
//! which has scaled the workers to zero starts one.
//!
//! Each partition's clock has the time of the last sweep or renewal of any worker or API. The API sweeps a partition
//! when that is a few intervals ago; so several replicas share the work, and while a worker lives there is none.
use std::sync::Arc;
use std::time::Duration;

use leasehold::store::SweepRequest;
use leasehold::{Config, Error, Kinds, Store};
use tokio_util::sync::CancellationToken;

/// Intervals without a worker's sweep before the API sweeps.
const INTERVALS: u64 = 3;
/// The pause between two sweeps of a backlog, so that other clients of Redis are served too.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);

/// Sweeps what no worker sweeps, until `stopping`.
pub async fn run(store: Store, config: Config, kinds: impl Fn() -> Arc<Kinds>, stopping: CancellationToken) {
    let store = store.impatient();
    let mut pause = Duration::from_millis(config.worker.sweep_ms);
    let mut probe = 0;
    while let Some(()) = stopping.run_until_cancelled(tokio::time::sleep(pause)).await {
        probe = (probe + 1) % store.partitions();
        match sweep(&store, &config, &kinds, probe).await {
            Ok(next) => pause = next,
            Err(e) => tracing::debug!("sweeping in place of a worker: {e}"),
        }
    }
}

/// Returns the pause before the next look.
async fn sweep(store: &Store, config: &Config, kinds: &impl Fn() -> Arc<Kinds>, probe: u16) -> Result<Duration, Error> {
    let (every, max_crashes) = (config.worker.sweep_ms, config.max_crashes);
    let lease_ms = store.published().await?.lease_ms.unwrap_or(config.lease_ms);
    let request = SweepRequest { lease_ms, max_crashes, interval_ms: 0 };
    // A worker renews every half of what the clock takes for an outage, after which no lease would be reclaimed for a
    // while. Silence and pause together are shorter than that: a busy machine adds to both.
    let gap_ms = request.gap_max_ms();
    let (silence_ms, pause_ms) = ((INTERVALS * every).min(gap_ms * 3 / 5), every.min(gap_ms / 6));
    let mut more = false;
    for partition in store.silent_partitions(probe, silence_ms).await? {
        // In a cluster its node may be away: the others are swept nevertheless.
        let Ok(swept) = store.sweep(partition, &request).await else { continue };
        more |= swept.more;
        if swept.tick_in.is_some_and(|wait| wait.is_zero()) {
            // It keeps no other partition from being swept.
            if let Err(e) = store.tick(partition, &kinds()).await {
                tracing::debug!("submitting the jobs of schedules in place of a worker: {e}");
            }
        }
        for id in &swept.reclaimed {
            tracing::info!(job = %id, "reclaimed: its worker let the lease expire");
        }
    }
    let pause = Duration::from_millis(pause_ms.max(1));
    Ok(if more { pause.min(BACKLOG_PAUSE) } else { pause })
}
