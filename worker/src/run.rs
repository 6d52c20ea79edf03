//! Runs one worker: connects, starts its roles, and waits for its end.
use std::pin::pin;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use leasehold::followed::Followed;
use leasehold::store::{Agreement, WorkerInfo};
use leasehold::{Config, Kinds, Store, Timestamp, WorkerId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::report::Reporter;
use crate::claim::Claimer;
use crate::error::{self, Error};
use crate::event::Event;
use crate::handler::Registry;
use crate::lease::leases::Leases;
use crate::metrics::Metrics;
use crate::outage::{Backoff, RedisStatus, Reminder, is_outage};
use crate::probe::Probe;
use crate::running::{Running, Turned, Work};
use crate::shutdown::Shutdown;
use crate::slots::Slots;
use crate::{lease, roles, sweeper};

/// How often registering the kinds is retried, and how often to check whether Redis was emptied.
const REGISTER_EVERY: Duration = Duration::from_secs(5);
/// How often the queues and kinds that it serves are recorded.
const SERVED_EVERY: Duration = Duration::from_secs(3_600);
/// How often a worker that has not reached Redis since its start logs that it is waiting.
const REMIND_EVERY: Duration = Duration::from_secs(30);

/// Runs a worker to its end.
pub(crate) async fn run(config: Config, kinds: Kinds, registry: Registry, shutdown: Shutdown) -> Result<(), Error> {
    let queues = config.worker.weighted_queues().map_err(error::config)?;
    let work = Work::new(kinds, &registry, &config)?;
    let file = config.kinds_file()?;
    let metrics = Arc::new(Metrics::new());
    let (probe, _port) = Probe::open(&config, Arc::clone(&metrics), shutdown.clone()).await?;
    let Some(store) = Box::pin(connect(&config, &work.kinds, &metrics, &shutdown)).await? else { return Ok(()) };
    let host = hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (worker, redis) = (worker_id(&host), Arc::new(RedisStatus::default()));
    let (reporter, reporting) = Reporter::new(store.clone(), worker.clone(), Arc::clone(&redis));
    let (events, inbox) = mpsc::unbounded_channel();
    let running = Arc::new(Running {
        leases: Leases::new(Duration::from_millis(config.lease_ms)),
        slots: Slots::new(config.worker.concurrency),
        tasks: TaskTracker::new(),
        claims_over: CancellationToken::new(),
        gone: CancellationToken::new(),
        store,
        worker,
        config,
        work: RwLock::new(Arc::new(work)),
        turned: Turned::new(),
        needs_files: Mutex::default(),
        queues,
        reporter,
        redis,
        metrics,
        shutdown,
        events,
    });
    let _gone = running.gone.clone().drop_guard();
    probe.introduce(&running)?;
    let info = worker_info(&running, host);
    let ended = lease::spawn(Arc::clone(&running), info.clone())?;
    tracing::info!(worker = %running.worker, "running on Redis at {}", running.store.address());
    let mut roles = JoinSet::new();
    roles::start(&running.gone, &mut roles, sweeper::run(Arc::clone(&running)));
    roles::start(&running.gone, &mut roles, sweeper::sweep_files(Arc::clone(&running)));
    roles::start(&running.gone, &mut roles, watch_files(Arc::clone(&running)));
    roles::start(&running.gone, &mut roles, register(Arc::clone(&running), info));
    roles::start(&running.gone, &mut roles, follow_kinds(Arc::clone(&running), registry, file));
    roles::start(&running.gone, &mut roles, reporting);
    roles::start(&running.gone, &mut roles, claim(Arc::clone(&running), inbox));
    let mut ended =
        pin!(async { ended.await.map_err(|_| std::io::Error::other("the lease thread ended unexpectedly"))? });
    let result = tokio::select! {
        result = &mut ended => result,
        () = roles::panicked(&mut roles) => {
            // A worker that lacks a role is useless: drain, and release what does not finish.
            running.shutdown.begin();
            running.tasks.close();
            ended.await.and(Err(Error::Panicked))
        }
    };
    tracing::info!(worker = %running.worker, "ended");
    result
}

async fn claim(running: Arc<Running>, events: mpsc::UnboundedReceiver<Event>) {
    if running.work().served.is_empty() {
        tracing::warn!("this worker serves no kind, so it only sweeps; name kinds in a kinds file (LEASEHOLD_KINDS)");
    }
    Claimer::new(Arc::clone(&running), events).run().await;
    running.tasks.close();
    running.claims_over.cancel();
}

/// Tries the file store from time to time.
async fn watch_files(running: Arc<Running>) {
    let changed = |fails: bool| {
        running.metrics.files_fail(fails);
        if !fails {
            running.look_everywhere();
        }
    };
    match running.store.files() {
        Some(files) => files.watch(changed).await,
        None => std::future::pending().await,
    }
}

/// Applies each new version of the kinds file. One that this worker cannot serve is logged, and the previous one stays
/// in force.
async fn follow_kinds(running: Arc<Running>, program: Registry, file: Option<Followed<Kinds>>) {
    let Some(file) = file else { return std::future::pending().await };
    let apply = |kinds: Arc<Kinds>| match Work::new((*kinds).clone(), &program, &running.config) {
        Ok(work) => running.set_work(work),
        Err(e) => tracing::error!("the new kinds file cannot be served, so the previous version stays in force: {e}"),
    };
    // It may have changed between the reading of the program and that of the follower.
    if *file.now() != running.work().kinds {
        apply(file.now());
    }
    file.follow(None, apply).await;
}

/// Publishes the settings and registers the kinds in Redis: at the start, whenever the kinds file has changed or Redis
/// has been emptied, and from time to time. Logs when another process has published other settings.
async fn register(running: Arc<Running>, mut info: WorkerInfo) {
    let (mut registered, mut is_logged) = (None, false);
    let mut agreement = Agreement::new(&running.work().kinds, running.config.lease_ms);
    let mut again_at = Instant::now();
    loop {
        let work = running.work();
        let check = async {
            let emptied_at = running.store.emptied_at().await?;
            let partitions = running.store.partitions();
            let is_same =
                |(at, of, n): &(_, Arc<Work>, u16)| *at == emptied_at && Arc::ptr_eq(of, &work) && *n == partitions;
            let is_new = !registered.as_ref().is_some_and(is_same);
            if is_new {
                running.store.register_kinds(&work.kinds).await?;
                running.store.publish_lease(running.config.lease_ms).await?;
                agreement.set_kinds(&work.kinds);
            }
            if is_new || again_at <= Instant::now() {
                work.describe(&mut info);
                running.store.remember_served(&info).await?;
                again_at = Instant::now() + SERVED_EVERY;
            }
            let differences = agreement.check(&running.store).await?;
            running.metrics.differ(differences);
            running.store.check_masters().await?;
            Ok((emptied_at, partitions))
        };
        match check.await {
            Ok((emptied_at, partitions)) => registered = Some((emptied_at, work, partitions)),
            // Other roles log an outage.
            Err(e) if !is_outage(&e) && !std::mem::replace(&mut is_logged, true) => {
                running.redis.failed("registering the kinds", &e);
            }
            Err(_) => {}
        }
        tokio::time::sleep(REGISTER_EVERY).await;
    }
}

/// Connects, waiting for Redis as long as it takes; logs at once that it waits, and again every [`REMIND_EVERY`].
/// `None`: the shutdown came first.
async fn connect(
    config: &Config,
    kinds: &Kinds,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<Option<Store>, Error> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let (address, mut reminder) = (leasehold::store::address(config)?, Reminder::new(REMIND_EVERY));
    // This loop retries instead of the Store, which would report an outage only after `redis.outage_ms`.
    let mut impatient = config.clone();
    impatient.redis.outage_ms = 0;
    let connecting = async {
        loop {
            match Store::connect_counted(&impatient, metrics.store()).await {
                Ok(store) => {
                    let store = store.apart(config)?;
                    // Work does not depend on this: `register` retries a failure.
                    drop(store.register_kinds(kinds).await);
                    return Ok(Some(store));
                }
                Err(e) if is_outage(&e) && !matches!(e, leasehold::Error::Config(_)) => {
                    if reminder.is_due(Instant::now()) {
                        tracing::warn!("waiting for Redis at {address}: {e}");
                    }
                }
                Err(e) => return Err(e.into()),
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    };
    tokio::select! {
        connected = connecting => connected,
        () = shutdown.begun.cancelled() => Ok(None),
    }
}

/// A unique id: the host name and 12 random hex digits.
fn worker_id(host: &str) -> WorkerId {
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).take(40).collect();
    let host = if host.is_empty() { "worker" } else { &host };
    let number: u64 = rand::random();
    WorkerId::parse(&format!("{host}-{:012x}", number >> 16)).expect("only characters allowed in worker ids")
}

fn worker_info(running: &Running, host: String) -> WorkerInfo {
    let mut info = WorkerInfo {
        id: running.worker.clone(),
        host,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        started_at: Timestamp(chrono::Utc::now().timestamp_millis()),
        queues: running.queues.iter().map(|(queue, _)| queue.clone()).collect(),
        kinds: Vec::new(),
        slots: running.slots.total(),
        lease_ms: running.config.lease_ms,
        kinds_digest: None,
        running: Default::default(),
    };
    running.work().describe(&mut info);
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_named_after_its_host_and_never_the_same() {
        for host in ["web-1.example.org", "", "ä", &"x".repeat(300)] {
            let (one, other) = (worker_id(host), worker_id(host));
            assert_ne!(one, other);
        }
        assert!(worker_id("web-1.example.org").as_str().starts_with("web-1exampleorg-"));
    }
}
