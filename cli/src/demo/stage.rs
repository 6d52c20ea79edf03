//! The demo's private system: a Redis, an API and two workers in a temporary folder, and the means to hurt them.
use std::path::Path;
use std::time::Duration;

use leasehold::files::folder::url_of;
use leasehold::{Config, Store, WorkerId};
use nix::sys::signal::Signal;

use super::narrator::Narrator;
use crate::failure::{Failure, complain};
use crate::local::child::{Child, Program};
use crate::local::port::Port;
use crate::local::redis_server::RedisServer;
use crate::local::system::{self, Plan};

/// A short lease, so that a dead worker's job is taken over soon.
const LEASE_MS: u64 = 2_000;
/// How often the workers sweep, ms.
const SWEEP_MS: u64 = 500;
/// Jobs a worker runs at once.
const SLOTS: usize = 2;
/// How long a process may take to stop.
const GRACE: Duration = Duration::from_secs(10);

pub(super) struct Stage {
    /// The API's address.
    pub base: String,
    /// A backend to Redis for the check of its keys.
    pub store: Store,
    config: Config,
    redis: RedisServer,
    redis_child: Option<Child>,
    api: (Program, Option<Child>),
    workers: Vec<Worker>,
    _port: Port,
}

struct Worker {
    program: Program,
    id: String,
    child: Option<Child>,
}

impl Stage {
    /// Starts everything.
    pub(super) async fn set(folder: &Path, narrator: &mut Narrator) -> Result<Self, Failure> {
        let redis = RedisServer::prepare(&folder.join("redis"), folder.join("redis.log"), Port::reserve()?).await?;
        let config = Config { redis_url: redis.url(), lease_ms: LEASE_MS, ..Config::default() };
        let mut redis_child = redis.program.start()?;
        let store = system::redis_ready(&redis.program, &mut redis_child, &config).await?;
        narrator.say(format!("Redis {} at {}, append-only file, appendfsync always", redis.version, redis.url()));
        let port = Port::reserve()?;
        let plan = plan(folder, &config, port.number())?;
        let api = plan.program("api", "leasehold-api")?;
        let mut api_child = api.start()?;
        let mut workers = Vec::new();
        for number in 1..=2 {
            let program = plan.program(&format!("worker-{number}"), "leasehold-worker")?;
            let child = program.start()?;
            workers.push(Worker { program, id: String::new(), child: Some(child) });
        }
        let base = format!("http://127.0.0.1:{}", port.number());
        system::api_ready(&api, &mut api_child, &base).await?;
        narrator.say(format!("API at {base}"));
        for worker in &mut workers {
            let child = worker.child.as_mut().expect("it was started above");
            worker.id = system::worker_ready(&worker.program, child, &store).await?;
        }
        let pids: Vec<String> = workers.iter().map(Worker::introduced).collect();
        narrator.say(format!("{}: {SLOTS} slots each, leases of {} s", pids.join(", "), LEASE_MS / 1_000));
        let api = (api, Some(api_child));
        Ok(Self { base, store, config, redis, redis_child: Some(redis_child), api, workers, _port: port })
    }

    /// The name of a worker on this stage.
    pub(super) fn name<'a>(&'a self, id: &'a WorkerId) -> &'a str {
        let known = self.workers.iter().find(|worker| worker.id == id.as_str());
        known.map_or(id.as_str(), |worker| worker.program.name.as_str())
    }

    fn worker(&mut self, id: &WorkerId) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.id == id.as_str())
    }

    fn signal(&mut self, id: &WorkerId, signal: Signal) {
        if let Some(child) = self.worker(id).and_then(|worker| worker.child.as_mut()) {
            child.signal(signal);
        }
    }

    /// Stops a worker with SIGSTOP.
    pub(super) fn pause(&mut self, id: &WorkerId) {
        self.signal(id, Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(super) fn resume(&mut self, id: &WorkerId) {
        self.signal(id, Signal::SIGCONT);
    }

    /// Kills a worker with -9; returns its name.
    pub(super) async fn kill_worker(&mut self, id: &WorkerId) -> Result<String, Failure> {
        let unknown = || Failure::Failed(format!("worker {id} is none of the demo's"));
        let worker = self.worker(id).ok_or_else(unknown)?;
        if let Some(mut child) = worker.child.take() {
            child.kill().await?;
        }
        Ok(worker.program.name.clone())
    }

    /// Kills Redis with -9.
    pub(super) async fn kill_redis(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.redis_child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Starts Redis again on the same files.
    pub(super) async fn restart_redis(&mut self) -> Result<(), Failure> {
        let mut child = self.redis.program.start()?;
        system::redis_ready(&self.redis.program, &mut child, &self.config).await?;
        self.redis_child = Some(child);
        Ok(())
    }

    /// Stops the API, then the workers.
    pub(super) async fn close(&mut self) {
        let workers = self.workers.iter_mut().map(|worker| worker.child.take());
        for child in std::iter::once(self.api.1.take()).chain(workers).flatten() {
            if let Some(complaint) = child.stop(GRACE).await {
                complain(complaint);
            }
        }
    }

    /// Stops Redis.
    pub(super) async fn stop_redis(&mut self) {
        let stopped = match self.redis_child.take() {
            Some(child) => child.stop(GRACE).await,
            None => None,
        };
        if let Some(complaint) = stopped {
            complain(complaint);
        }
    }

    /// The failure, after the ends of the logs that go with the demo's folder.
    pub(super) fn with_logs(&self, failure: Failure) -> Failure {
        let workers = self.workers.iter().map(|worker| &worker.program);
        for program in [&self.redis.program, &self.api.0].into_iter().chain(workers) {
            complain(format_args!("the end of the log of {}:\n{}", program.name, program.log_tail()));
        }
        failure
    }
}

impl Worker {
    fn introduced(&self) -> String {
        format!("{} (pid {})", self.program.name, self.child.as_ref().map_or(0, Child::pid))
    }
}

/// What API and workers are started with.
fn plan(folder: &Path, config: &Config, port: u16) -> Result<Plan, Failure> {
    let kinds = system::kinds(folder)?;
    let documents = system::documents().unwrap_or_default();
    let environment = [
        ("LEASEHOLD_REDIS_URL", config.redis_url.clone()),
        ("LEASEHOLD_API__LISTEN", format!("127.0.0.1:{port}")),
        ("LEASEHOLD_KINDS", kinds.display().to_string()),
        ("LEASEHOLD_STORAGE_URL", url_of(&folder.join("files"))),
        ("LEASEHOLD_DOCUMENT_ROOT", documents.display().to_string()),
        ("LEASEHOLD_LEASE_MS", config.lease_ms.to_string()),
        ("LEASEHOLD_WORKER__CONCURRENCY", SLOTS.to_string()),
        ("LEASEHOLD_WORKER__SWEEP_MS", SWEEP_MS.to_string()),
        // What the command of a killed worker leaves goes with the demo.
        ("TMPDIR", folder.display().to_string()),
    ];
    Ok(Plan {
        environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
        arguments: Vec::new(),
        private: true,
        folder: Some(folder.to_owned()),
        logs: folder.to_owned(),
    })
}
