//! The sweeps, in every worker: of Redis, and of orphaned files in the file store. Any number of sweepers is safe; one
//! is enough.
//!
//! Redis is swept in two loops: promote, reclaim and recover in one, the rest in the other, so that a backlog of jobs
//! to remove delays no living job.
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use leasehold::store::{SweepPart, SweepRequest, Swept};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::event::Event;
use crate::outage::is_outage;
use crate::running::Running;

/// The pause between two sweeps of a backlog, so that other clients of Redis are served too.
const BACKLOG_PAUSE: Duration = Duration::from_millis(20);

/// Partitions that one worker sweeps at once, by each of the loops.
const SWEEPS_AT_ONCE: u32 = 8;
/// The longest pause between two looks at a partition that others sweep, in intervals.
const PAUSE_MAX: u32 = 30;

/// Sweeps the partitions, each every `worker.sweep_ms`, until the worker has ended. Workers share them: each partition
/// is left to whoever swept it last, and the others look more and more rarely whether that one still does.
pub(crate) async fn run(running: Arc<Running>) {
    let (short, long) = (Semaphore::new(SWEEPS_AT_ONCE as usize), Semaphore::new(SWEEPS_AT_ONCE as usize));
    // Concurrently, since a partition may be slow or out of reach.
    let (mut swept, mut sweeps) = (0, FuturesUnordered::new());
    loop {
        let partitions = running.store.partitions();
        sweeps.extend((swept..partitions).map(|partition| {
            let (running, short, long, due) = (&running, &short, &long, Notify::new());
            async move {
                tokio::join!(sweep_short(running, partition, short, &due), sweep_long(running, partition, long, &due))
            }
        }));
        swept = partitions;
        tokio::select! {
            _ = sweeps.next() => {}
            _ = running.store.more_partitions(swept) => {}
        }
    }
}

async fn sweep_short(running: &Running, partition: u16, permits: &Semaphore, long_due: &Notify) {
    let every = Duration::from_millis(running.config.worker.sweep_ms);
    let (mut pause, mut intervals, mut backlog, mut tick_at) = (every, 1, false, None);
    loop {
        // Jitter spreads the sweeps of many workers and partitions.
        let next = Instant::now() + pause.mul_f64(rand::random_range(0.8..1.2));
        while let Some(at) = tick_at.filter(|at| *at < next) {
            tokio::time::sleep_until(at).await;
            tick_at = tick(running, partition, permits).await;
        }
        tokio::time::sleep_until(next).await;
        let Some(swept) = sweep(running, partition, SweepPart::Short, backlog, permits).await else {
            (pause, backlog) = (every, false);
            continue;
        };
        tick_at = swept.tick_in.map(|wait| Instant::now() + wait);
        if swept.long_due {
            long_due.notify_one();
        }
        // With more workers each looks less often; together they notice within two intervals or so.
        let rarest = u32::try_from(swept.workers / 2).unwrap_or(PAUSE_MAX).clamp(2, PAUSE_MAX);
        intervals = if swept.fresh { (intervals + 1).min(rarest) } else { 1 };
        backlog = swept.more;
        pause = if backlog { every.min(BACKLOG_PAUSE) } else { every * intervals };
    }
}

/// Does the ticks of schedules that are due. Every worker tries it, so that none is late when a worker dies. Returns
/// when the next tick is due.
async fn tick(running: &Running, partition: u16, permits: &Semaphore) -> Option<Instant> {
    let _permit = permits.acquire().await.expect("never closed");
    match running.store.impatient().tick(partition, &running.work().kinds).await {
        Ok(ticked) => {
            running.redis.answered_in(Some(partition));
            if !ticked.submitted.is_empty() {
                running.tell_claimer(Event::Look(partition));
            }
            ticked.next_in.map(|wait| Instant::now() + wait)
        }
        // The next sweep says when the next tick is due.
        Err(e) => {
            running.redis.failed_in(Some(partition), "submitting the jobs of schedules", &e);
            None
        }
    }
}

/// Sweeps the long part when the short one has found work for it, and rarely in any case.
async fn sweep_long(running: &Running, partition: u16, permits: &Semaphore, due: &Notify) {
    let every = Duration::from_millis(running.config.worker.sweep_ms);
    let mut backlog = false;
    loop {
        if backlog {
            tokio::time::sleep(every.min(BACKLOG_PAUSE)).await;
        } else {
            let rarely = (every * PAUSE_MAX).mul_f64(rand::random_range(0.8..1.2));
            drop(tokio::time::timeout(rarely, due.notified()).await);
        }
        let swept = sweep(running, partition, SweepPart::Long, backlog, permits).await;
        backlog = swept.is_some_and(|swept| swept.more);
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

/// Sweeps a part of a partition once, unless another has just swept it; with a backlog in any case. Wakes the claim loop
/// if jobs were queued. `None`: it failed.
async fn sweep(
    running: &Running,
    partition: u16,
    part: SweepPart,
    backlog: bool,
    permits: &Semaphore,
) -> Option<Swept> {
    // One at a time while the worker ends: the calls that end it need connections.
    let ending = running.shutdown.begun.is_cancelled();
    let needed = if ending { SWEEPS_AT_ONCE } else { 1 };
    let _permit = permits.acquire_many(needed).await.expect("never closed");
    let config = &running.config;
    let interval_ms = if backlog { 0 } else { config.worker.sweep_ms };
    let request = SweepRequest { lease_ms: config.lease_ms, max_crashes: config.max_crashes, interval_ms };
    // A partition that does not answer is swept again soon anyway, and keeps no other waiting.
    let swept = match running.store.impatient().sweep_part(partition, &request, part).await {
        Ok(swept) => swept,
        Err(e) => {
            running.redis.failed_in(Some(partition), "sweeping", &e);
            return None;
        }
    };
    running.redis.answered_in(Some(partition));
    running.metrics.swept(&swept);
    for id in &swept.reclaimed {
        tracing::info!(job = %id, "reclaimed: its worker let the lease expire");
    }
    if swept.queued_any() {
        running.tell_claimer(Event::Look(partition));
    }
    Some(swept)
}
