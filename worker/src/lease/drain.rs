//! The end of a worker: it waits for its handlers, stops those that outlast the grace period, releases their jobs, and
//! deregisters. Runs on the lease thread, which no handler can block.
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leasehold::Store;
use leasehold::store::{RenewRequest, Settle, WorkerInfo};
use tokio::sync::RwLock;
use tokio::time::{sleep, timeout, timeout_at};

use super::leases::release;
use crate::error::Error;
use crate::running::Running;
use crate::stop::{COMMAND_HANDLER_GRACE, LEASE_GRACE, StopReason};

/// How long a hurried shutdown waits for handlers to be dropped and their jobs released.
const HURRIED: Duration = Duration::from_millis(1_200);
/// The timeout of each of the last calls, and the one in a hurried shutdown.
const LAST_CALLS: Duration = Duration::from_secs(3);
const HURRIED_CALLS: Duration = Duration::from_millis(250);
/// How long Redis may still run a pop or claim that its sender abandoned.
const LATE_CALL: Duration = Duration::from_secs(60);

/// Returns when the worker has ended: after a shutdown, or because every slot is stuck.
pub(crate) async fn drain(
    running: &Running,
    store: &Store,
    info: &WorkerInfo,
    beats: &RwLock<()>,
) -> Result<(), Error> {
    tokio::select! {
        () = running.shutdown.begun.cancelled() => {}
        () = all_stuck(running) => return Err(Error::Stuck(running.slots.total())),
    }
    let grace = Instant::now() + Duration::from_millis(running.config.worker.grace_ms);
    let in_time = async {
        running.claims_over.cancelled().await;
        running.tasks.wait().await;
    };
    tokio::select! {
        _ = timeout_at(grace.into(), in_time) => {}
        () = running.shutdown.hurried.cancelled() => {}
        () = all_stuck(running) => {}
    }
    running.leases.stop_all(StopReason::Shutdown);
    let last = async { timeout(COMMAND_HANDLER_GRACE + Duration::from_secs(1), running.tasks.wait()).await };
    tokio::select! {
        _ = last => {}
        () = async { running.shutdown.hurried.cancelled().await; sleep(HURRIED).await } => {}
        () = all_stuck(running) => {}
    }
    finish(running, store, info, beats).await
}

/// Releases the jobs of handlers that still run, and deregisters.
async fn finish(running: &Running, store: &Store, info: &WorkerInfo, beats: &RwLock<()>) -> Result<(), Error> {
    let within = if running.shutdown.hurried.is_cancelled() { HURRIED_CALLS } else { LAST_CALLS };
    let unended: Vec<Settle> = running.leases.unfinished().into_iter().map(release).collect();
    let mut left = running.leases.count();
    if !unended.is_empty()
        && let Ok(Ok(_)) = timeout(within, store.settle_many(&running.worker, &unended)).await
    {
        // Some may have ended between the two calls above.
        left = left.saturating_sub(unended.len());
    }
    // A pop that ran after the worker deregistered would move an id into a list that is never audited.
    let alone = running.claims_over.is_cancelled() && !running.leases.lost_a_call_within(LATE_CALL);
    // Nor must a renewal that is under way register it again; one that hangs must not keep it from leaving.
    let last = async {
        let _no_renewal = timeout(within / 2, beats.write()).await;
        match alone && left == 0 {
            true => store.leave(&running.worker).await,
            false => recover_reservations(running, store, info).await,
        }
    };
    drop(timeout(within, last).await);
    if left == 0 { Ok(()) } else { Err(Error::Abandoned(left)) }
}

/// Returns reservations that will not be claimed any more to their queues.
async fn recover_reservations(running: &Running, store: &Store, info: &WorkerInfo) -> Result<(), leasehold::Error> {
    let lease_ms = running.config.lease_ms;
    let each = (0..store.partitions()).map(async |partition| {
        let seen = running.leases.highest_token(partition);
        let renewed = store.renew(partition, &RenewRequest { info, lease_ms, seen, held: &[] }).await?;
        if !renewed.reserved.is_empty() {
            store.recover(partition, &running.worker, &renewed.reserved).await?;
        }
        Ok(())
    });
    join_all(each).await.into_iter().collect()
}

/// Enforces the handlers' deadlines. Returns when every slot has a handler that does not stop, or has been kept for
/// [`LEASE_GRACE`] by something that a handler left running.
async fn all_stuck(running: &Running) {
    let every = (running.leases.lease_time() / 20).clamp(Duration::from_millis(10), Duration::from_millis(250));
    let mut since = None;
    loop {
        let (unresponsive, total) = (running.leases.enforce_deadlines(), running.slots.total());
        let all = unresponsive + running.slots.lingering() >= total;
        since = all.then(|| since.unwrap_or_else(Instant::now));
        if unresponsive >= total || since.is_some_and(|since| since.elapsed() > LEASE_GRACE) {
            return;
        }
        sleep(every).await;
    }
}
