//! The private system of a measurement: a Redis with the shipped settings, and programs beside it.
use std::path::PathBuf;
use std::time::Duration;

use leasehold::{Config, Store};

use super::meter::Meter;
use super::size::Size;
use crate::failure::Failure;
use crate::local::child::{Child, Program};
use crate::local::port::Port;
use crate::local::redis_server::RedisServer;
use crate::local::system::{self, Plan};

/// How long a program may take to stop.
const GRACE: Duration = Duration::from_secs(30);

/// When Redis syncs its append-only file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fsync {
    /// Each second.
    Everysec,
    /// Before each reply.
    Always,
}

impl Fsync {
    /// The setting `appendfsync`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Fsync::Everysec => "everysec",
            Fsync::Always => "always",
        }
    }
}

/// What all measurements share.
pub(super) struct Ground {
    /// Holds the data of the servers and the logs; removed at the end.
    pub folder: PathBuf,
    /// How much is measured.
    pub size: Size,
}

/// A private Redis, and the Store on it.
pub(super) struct Site {
    /// The public Store.
    pub store: Store,
    /// The counters of the server.
    pub meter: Meter,
    folder: PathBuf,
    server: RedisServer,
    child: Child,
}

/// A program on a [`Site`].
pub(super) struct Running {
    program: Program,
    child: Child,
}

impl Site {
    /// Starts a Redis with an empty folder.
    pub(super) async fn start(ground: &Ground, fsync: Fsync, partitions: u16) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("site-").tempdir_in(&ground.folder)?.keep();
        let mut server =
            RedisServer::prepare(&folder.join("redis"), folder.join("redis.log"), Port::reserve()?).await?;
        // A rewrite of the file would fall into some runs and not into others.
        let more = ["--appendfsync", fsync.as_str(), "--auto-aof-rewrite-percentage", "0"];
        server.program.arguments.extend(more.map(str::to_owned));
        let config = Config { redis_url: server.url(), partitions: Some(partitions), ..Config::default() };
        let mut child = server.program.start()?;
        let store = system::redis_ready(&server.program, &mut child, &config).await?;
        let meter = Meter::open(&server.url()).await?;
        Ok(Self { store, meter, folder, server, child })
    }

    /// The address of its Redis.
    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// Starts a program of this project, with these settings on top of where Redis is.
    pub(super) fn run(&self, binary: &str, settings: &[(&str, String)]) -> Result<Running, Failure> {
        self.launch(binary, binary, Vec::new(), settings)
    }

    fn launch(
        &self,
        name: &str,
        binary: &str,
        arguments: Vec<String>,
        settings: &[(&str, String)],
    ) -> Result<Running, Failure> {
        let fixed = [("LEASEHOLD_REDIS_URL", self.url()), ("TMPDIR", self.folder.display().to_string())];
        let environment = fixed.iter().chain(settings).map(|(key, value)| ((*key).to_owned(), value.clone()));
        let plan = Plan {
            environment: environment.collect(),
            arguments,
            private: true,
            folder: Some(self.folder.clone()),
            logs: self.folder.clone(),
        };
        let program = plan.program(name, binary)?;
        Ok(Running { child: program.start()?, program })
    }

    /// Starts this program in one of its hidden roles.
    pub(super) fn run_role(&self, role: &[&str], settings: &[(&str, String)]) -> Result<Running, Failure> {
        let arguments = std::iter::once("bench-role").chain(role.iter().copied()).map(str::to_owned).collect();
        self.launch(role[0], "leasehold", arguments, settings)
    }

    /// Starts a worker whose handlers do nothing, and waits for it.
    pub(super) async fn worker(&self, slots: usize) -> Result<Running, Failure> {
        let mut worker = self.run_role(&["worker"], &[("LEASEHOLD_WORKER__CONCURRENCY", slots.to_string())])?;
        worker.await_worker(&self.store).await?;
        Ok(worker)
    }

    /// Kills Redis, and removes its data.
    pub(super) async fn close(mut self) -> Result<(), Failure> {
        self.child.kill().await?;
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

impl Running {
    /// Waits until a worker has registered.
    pub(super) async fn await_worker(&mut self, store: &Store) -> Result<(), Failure> {
        system::worker_ready(&self.program, &mut self.child, store).await.map(drop)
    }

    /// Waits until an API at `base` is ready.
    pub(super) async fn await_api(&mut self, base: &str) -> Result<(), Failure> {
        system::api_ready(&self.program, &mut self.child, base).await
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Stops it in order; returns what it wrote.
    pub(super) async fn stop(self) -> Result<String, Failure> {
        match self.child.stop(GRACE).await {
            Some(complaint) => Err(Failure::Failed(complaint)),
            None => Ok(std::fs::read_to_string(&self.program.log)?),
        }
    }
}
