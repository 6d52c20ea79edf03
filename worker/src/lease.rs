//! The lease thread: renews the leases of this worker, audits its reservations, passes cancels to the handlers, and
//! drains the worker at its end.
//!
//! It has a separate thread, runtime and connections, so that a handler that blocks every thread of the worker's
//! runtime neither costs other jobs their leases nor prevents an orderly shutdown.
mod audit;
mod drain;
pub(crate) mod leases;

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold::store::{Held, Hint, RenewRequest, WorkerInfo};
use leasehold::{Config, JobId, Store};
use tokio::sync::{RwLock, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::error::Error;
use crate::event::Event;
use crate::outage::Backoff;
use crate::roles;
use crate::running::Running;

/// The delay before the second check of an audit after an outage.
const AUDIT_AGAIN: Duration = Duration::from_secs(1);

/// The most connections of the thread.
const LEASE_CONNECTIONS: usize = 5;

/// Starts the thread. The receiver gets how the worker ended; it is closed without a value if `running.gone` comes
/// first.
pub(crate) fn spawn(running: Arc<Running>, info: WorkerInfo) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
    let store = running.store.apart(&lease_thread_config(&running.config))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, ended) = oneshot::channel();
    let life = async move {
        let (mut roles, beats) = (JoinSet::new(), Arc::new(RwLock::new(())));
        roles.spawn(heartbeats(Arc::clone(&running), store.clone(), info.clone(), Arc::clone(&beats)));
        roles.spawn(receive_hints(Arc::clone(&running), store.clone()));
        tokio::select! {
            result = drain::drain(&running, &store, &info, &beats) => drop(sender.send(result)),
            // Without this role there are no renewals, or no cancels.
            () = roles::panicked(&mut roles) => drop(sender.send(Err(Error::Panicked))),
            () = running.gone.cancelled() => {}
        }
    };
    std::thread::Builder::new().name("leases".into()).spawn(move || runtime.block_on(life))?;
    Ok(ended)
}

/// The Store does not retry renewals, since the next one serves as well; and a renewal must not wait for long.
fn lease_thread_config(config: &Config) -> Config {
    let mut own = config.clone();
    own.redis.outage_ms = 0;
    own.redis.response_ms = own.redis.response_ms.min((config.lease_ms / 3).max(1_000));
    own.redis.connections = LEASE_CONNECTIONS;
    own
}

/// A heartbeat for each partition, also for those that are added. Each renewal holds a read lock of `beats`.
async fn heartbeats(running: Arc<Running>, store: Store, info: WorkerInfo, beats: Arc<RwLock<()>>) {
    let (mut beating, mut hearts) = (0, JoinSet::new());
    loop {
        let partitions = store.partitions();
        for partition in beating..partitions {
            hearts.spawn(heartbeat(Arc::clone(&running), store.clone(), info.clone(), partition, Arc::clone(&beats)));
        }
        beating = partitions;
        tokio::select! {
            () = roles::panicked(&mut hearts) => panic!("a heartbeat panicked"),
            _ = store.more_partitions(beating) => {}
        }
    }
}

/// One partition's heartbeat: every sixth of a lease.
async fn heartbeat(running: Arc<Running>, store: Store, mut info: WorkerInfo, partition: u16, beats: Arc<RwLock<()>>) {
    let every = running.leases.lease_time() / 6;
    let mut backoff = Backoff::new(Duration::from_millis(100), every.min(Duration::from_secs(1)));
    let (mut next, mut hurried, mut failing) = (Instant::now(), false, false);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(next.into()) => {}
            () = running.leases.renewal_requested(partition) => hurried = true,
        }
        let beat = beats.read().await;
        let sent = Instant::now();
        let renewed = renew(&running, &store, &mut info, partition).await;
        drop(beat);
        match renewed {
            Ok(stray) => {
                running.redis.answered_in(Some(partition));
                running.metrics.renewed(Some(sent.duration_since(last)), running.leases.lease_time());
                last = sent;
                backoff.reset();
                recover_strays(&running, &store, partition, stray).await;
                // After an outage, audit again soon, until no entry is marked.
                hurried = failing || (hurried && running.leases.has_marks(partition));
                failing = false;
                next = sent + if hurried { every.min(AUDIT_AGAIN) } else { every };
            }
            Err(e) => {
                running.redis.failed_in(Some(partition), "renewing leases", &e);
                running.metrics.renewed(None, running.leases.lease_time());
                failing = true;
                next = Instant::now() + backoff.delay();
            }
        }
    }
}

async fn renew(
    running: &Running,
    store: &Store,
    info: &mut WorkerInfo,
    partition: u16,
) -> Result<Vec<JobId>, leasehold::Error> {
    info.running = running.leases.running();
    running.work().describe(info);
    let (sent, named) = (Instant::now(), running.leases.to_renew(partition));
    let (lease_ms, seen) = (running.config.lease_ms, running.leases.highest_token(partition));
    let renewed = store.renew(partition, &RenewRequest { info, lease_ms, seen, held: &named }).await?;
    let was_fresh = running.leases.is_fresh(partition);
    let stray = running.leases.renewed(partition, sent, &named, &renewed);
    if !was_fresh {
        running.tell_claimer(Event::Look(partition));
    }
    Ok(stray)
}

/// Recovers reservations that nobody here will claim. If that fails, the next renewal finds them again.
async fn recover_strays(running: &Running, store: &Store, partition: u16, stray: Vec<JobId>) {
    if stray.is_empty() {
        return;
    }
    for id in &stray {
        tracing::info!(job = %id, "recovered: reserved by this worker, and its pop was not answered");
    }
    match store.recover(partition, &running.worker, &stray).await {
        Ok(recovered) => drop(running.metrics.recovered.inc_by(recovered as u64)),
        Err(e) => running.redis.failed("recovering reservations", &e),
    }
}

/// Passes on cancels and pauses between the renewals.
async fn receive_hints(running: Arc<Running>, store: Store) {
    loop {
        let mut hints = store.hints();
        loop {
            match hints.recv().await {
                Ok(Hint::Cancel { worker, partition, id, token }) if worker == running.worker => {
                    running.leases.cancel(partition, &Held { partition, id, token });
                }
                Ok(Hint::Cancel { .. }) => {}
                Ok(Hint::Resume(queue)) => running.tell_claimer(Event::Resumed(queue)),
                Ok(Hint::Pause(queue)) => running.tell_claimer(Event::Paused(queue)),
                // The renewals report what was missed.
                Ok(Hint::Reconnected) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                    (0..store.partitions()).for_each(|partition| running.leases.request_renewal(partition));
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
            }
        }
        sleep(AUDIT_AGAIN).await;
    }
}
