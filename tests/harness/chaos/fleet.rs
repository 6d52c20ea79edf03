//! Everything that load and faults are about: Redis, API replicas, workers, and a proxy before each.
use std::fs;
use std::future::Future;
use std::time::Duration;

use leasehold::store::PruneQuery;
use leasehold::{Config, Kind, Store};
use tokio::time::Instant;

use super::evidence::all_jobs;
use super::faults::Struck;
use super::load::{Load, Submit};
use super::work::{self, Journal};
use crate::{Api, Process, Proxy, RedisServer, System, Worker, eventually};

/// The lease of a run, ms.
pub const LEASE_MS: u64 = 2_000;
/// How long a graceful end may take.
const END: Duration = Duration::from_secs(30);

/// How many processes there are, and what they are told.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The partitions of the key space.
    pub partitions: u16,
    /// The API replicas.
    pub apis: usize,
    /// The workers.
    pub workers: usize,
    /// Variables for all processes, over those of the run itself.
    pub environment: Vec<(String, String)>,
    /// Variables for the workers alone.
    pub worker_environment: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { partitions: 1, apis: 2, workers: 3, environment: Vec::new(), worker_environment: Vec::new() }
    }
}

/// Everything that can be struck.
pub struct Fleet {
    /// Redis, and the folder of the journal.
    pub system: System,
    /// The API replicas.
    pub apis: Vec<Api>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// The proxy between each API and Redis.
    pub api_links: Vec<Proxy>,
    /// The proxy between each worker and Redis.
    pub worker_links: Vec<Proxy>,
}

/// What clients and faults left behind.
#[derive(Debug)]
pub struct Past {
    pub(super) submits: Vec<Submit>,
    pub(super) struck: Vec<Struck>,
    pub(super) healed_at: Instant,
    pub(super) begun_at: Instant,
    /// The machine's uptime when the load began, s.
    pub(super) booted: f64,
}

impl Fleet {
    /// Starts a fleet on a Redis with the settings we ship, and waits until its APIs are ready.
    pub async fn start(setup: &Setup) -> Fleet {
        Fleet::on(RedisServer::start().await, setup).await
    }

    /// The same on a Redis started otherwise.
    pub async fn on(redis: RedisServer, setup: &Setup) -> Fleet {
        let (partitions, lease) = (setup.partitions.to_string(), LEASE_MS.to_string());
        let mut all = vec![
            ("LEASEHOLD_PARTITIONS", partitions.as_str()),
            ("LEASEHOLD_LEASE_MS", &lease),
            // No job is at fault here, and one may well see several of its workers die.
            ("LEASEHOLD_MAX_CRASHES", "100"),
            // Without a line for each attempt that fails as it was asked to.
            ("LEASEHOLD_LOG__FILTER", "info,leasehold_worker::attempt=warn"),
        ];
        all.extend(setup.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let system = System::with_redis(redis, &all);
        let kinds = work::write(system.folder());
        let (apis, workers, api_links, worker_links) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut fleet = Fleet { system, apis, workers, api_links, worker_links };
        for number in 0..setup.apis + setup.workers {
            let proxy = Proxy::start(fleet.system.redis().port()).await;
            let url = proxy.url();
            let environment = [("LEASEHOLD_KINDS", kinds.as_str()), ("LEASEHOLD_REDIS_URL", &url)];
            if number < setup.apis {
                fleet.apis.push(fleet.system.api(&environment).await);
                fleet.api_links.push(proxy);
            } else {
                let more = setup.worker_environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let environment: Vec<_> = environment.into_iter().chain(more).collect();
                fleet.workers.push(fleet.system.worker(&environment));
                fleet.worker_links.push(proxy);
            }
        }
        for api in &fleet.apis {
            api.wait_ready().await;
        }
        fleet
    }

    /// Load and faults at once, until `length` has passed, the faults have ended and the last submit is answered.
    pub async fn endure(&self, seed: u64, length: Duration, faults: impl Future<Output = Vec<Struck>>) -> Past {
        let (begun_at, booted) = (Instant::now(), work::uptime());
        let journal = Journal::of(self.system.folder());
        let load = Load::new(self.apis.iter().map(|api| api.url("")).collect(), begun_at, length);
        let faults = async {
            let struck = faults.await;
            (struck, Instant::now())
        };
        let ((struck, healed_at), submits) = tokio::join!(faults, load.run(seed, &journal));
        Past { submits, struck, healed_at, begun_at, booted }
    }

    /// Waits until all jobs are final, at most twice `limit`, to distinguish what comes late from what is stuck; how
    /// long after the end of the last fault that was. `None`: they never were.
    pub async fn recover(&self, past: &Past, limit: Duration) -> Option<Duration> {
        let end = Instant::now().max(past.healed_at) + 2 * limit;
        while Instant::now() < end {
            let jobs = all_jobs(&self.apis[0]).await;
            if jobs.is_some_and(|jobs| jobs.iter().all(|job| job.state.is_final())) {
                return Some(past.healed_at.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// The doctor's verdict, the files, and the end of all processes; what is wrong.
    ///
    /// # Panics
    /// When files or processes are left behind, or an invariant does not hold.
    pub async fn end(self) -> Vec<String> {
        let doctor = self.system.command(&["doctor"], &[]).await;
        let mut wrong = Vec::new();
        if !doctor.status.success() {
            wrong.push(format!("the doctor says: {}{}", doctor.stdout, doctor.stderr));
        }
        self.files().await;
        self.workers.iter().for_each(|worker| worker.sigterm());
        self.apis.iter().for_each(|api| api.sigterm());
        for process in self.processes() {
            let status = process.wait_exit(END).await;
            if !status.success() {
                wrong.push(format!("{} ended with {status}", process.name()));
            }
        }
        let folder = self.system.folder().to_string_lossy().into_owned();
        eventually(END, "no command is left behind", async || {
            let left = work::processes_that_name(&folder);
            left.is_empty().then_some(()).ok_or(left)
        })
        .await;
        self.system.finish().await;
        wrong
    }

    /// Ends it without any check, after violations have been found.
    pub fn abandon(self) {
        self.system.abandon();
    }

    /// All processes but Redis.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.workers.iter().map(|worker| &**worker).chain(self.apis.iter().map(|api| &**api))
    }

    /// The walk leaves the files that jobs have, no other; with the jobs they go.
    async fn files(&self) {
        let storage_url = Some(format!("file://{}/storage", self.system.folder().display()));
        let config = Config { redis_url: self.system.redis().url(), storage_url, ..Config::default() };
        let store = Store::connect(&config).await.expect("Redis is back");
        store.sweep_files(Duration::ZERO).await.expect("the walk comes to its end");
        let left = store.check_files(Duration::ZERO).await.expect("the walk comes to its end");
        assert_eq!(left, []);
        let kind = Kind::parse(work::KIND).ok();
        let pruned = store.prune(&PruneQuery { kind, ..PruneQuery::default() }).await.expect("Redis is back");
        assert!(!pruned.more);
        let Some(folder) = store.files().and_then(|files| files.root().map(ToOwned::to_owned)) else { return };
        eventually(END, "no file is left", async || {
            let left = fs::read_dir(&folder).map_err(|error| vec![error.to_string()])?;
            let left = left.flatten().filter(|entry| entry.path().is_dir());
            let left: Vec<_> = left.map(|entry| entry.file_name().display().to_string()).collect();
            left.is_empty().then_some(()).ok_or(left)
        })
        .await;
    }
}
