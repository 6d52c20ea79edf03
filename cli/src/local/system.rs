//! The processes of a whole system: Redis, an API, and workers.
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold::{Config, Store};

use crate::failure::Failure;
use crate::local::child::{Child, Program, ending};

/// How long a process may take to be ready; a Redis with much data needs time to load it.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The pause between two polls.
const LOOK_EVERY: Duration = Duration::from_millis(30);
/// The kinds file of a binary without the project beside it.
const KINDS: &str = "[kinds.process-files]\n";
/// Where the project keeps its sample documents, and the kinds of its examples.
const DOCUMENTS: &str = "examples/process-files/documents";
const EXAMPLE_KINDS: &str = "examples/kinds.toml";

/// What API and workers are started with.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Their variables.
    pub environment: Vec<(String, String)>,
    /// Their arguments.
    pub arguments: Vec<String>,
    /// They inherit no LEASEHOLD_ variable.
    pub private: bool,
    /// Where they run.
    pub folder: Option<PathBuf>,
    /// Where their logs go.
    pub logs: PathBuf,
}

impl Plan {
    /// The program of that name, from the folder of this one.
    pub(crate) fn program(&self, name: &str, binary: &str) -> Result<Program, Failure> {
        let here = std::env::current_exe().and_then(std::fs::canonicalize)?;
        let path = here.with_file_name(binary);
        if !path.is_file() {
            let folder = path.parent().unwrap_or(Path::new(".")).display();
            return Err(Failure::Failed(format!(
                "{binary} is not in {folder}; run: cargo build --release --workspace"
            )));
        }
        Ok(Program {
            name: name.into(),
            path,
            arguments: self.arguments.clone(),
            environment: self.environment.clone(),
            private: self.private,
            folder: self.folder.clone(),
            log: self.logs.join(format!("{name}.log")),
        })
    }
}

/// The sample documents of the project.
pub(crate) fn documents() -> Option<PathBuf> {
    of_the_project(DOCUMENTS)
}

/// The kinds file of the project's examples; without it a small one, written to `folder`.
pub(crate) fn kinds(folder: &Path) -> std::io::Result<PathBuf> {
    if let Some(path) = of_the_project(EXAMPLE_KINDS) {
        return Ok(path);
    }
    let path = folder.join("kinds.toml");
    std::fs::write(&path, KINDS)?;
    Ok(path)
}

/// A path in the project that contains this program, the current folder, or the sources it was built from.
fn of_the_project(name: &str) -> Option<PathBuf> {
    let built = Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let places = [std::env::current_exe().and_then(std::fs::canonicalize).ok(), std::env::current_dir().ok(), built];
    let folders = places.iter().flatten().flat_map(|place| place.ancestors());
    folders.map(|folder| folder.join(name)).find(|path| path.exists())
}

/// Waits until a Redis that was started answers and has passed the checks.
pub(crate) async fn redis_ready(program: &Program, child: &mut Child, config: &Config) -> Result<Store, Failure> {
    let config =
        Config { redis: leasehold::config::RedisConfig { outage_ms: 0, ..config.redis.clone() }, ..config.clone() };
    let store = ready(program, child, async || match Store::connect(&config).await {
        Ok(store) => Ok(Some(store)),
        Err(leasehold::Error::Unavailable(_) | leasehold::Error::OutcomeUnknown(_)) => Ok(None),
        Err(e) => Err(e.into()),
    });
    store.await
}

/// Waits until an API that was started says it is ready.
pub(crate) async fn api_ready(program: &Program, child: &mut Child, base: &str) -> Result<(), Failure> {
    let client = client()?;
    ready(program, child, async || {
        let answer = client.get(format!("{base}/readyz")).send().await;
        Ok(answer.is_ok_and(|answer| answer.status().is_success()).then_some(()))
    })
    .await
}

/// Waits until a worker that was started has registered; returns what it calls itself.
pub(crate) async fn worker_ready(program: &Program, child: &mut Child, store: &Store) -> Result<String, Failure> {
    let pid = child.pid();
    ready(program, child, async || {
        let workers = store.workers().await?;
        Ok(workers.into_iter().find(|w| w.pid == pid && w.alive).map(|w| w.id.to_string()))
    })
    .await
}

/// An HTTP client for loopback, without the proxies of the environment.
pub(crate) fn client() -> Result<reqwest::Client, Failure> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build();
    client.map_err(|e| Failure::Failed(format!("HTTP client: {e}")))
}

/// Polls until there is a result, the process has ended, or the time limit is reached.
async fn ready<T>(
    program: &Program,
    child: &mut Child,
    mut look: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let end = tokio::time::Instant::now() + READY_LIMIT;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        let reason = match child.ended() {
            Some(status) => format!("ended while it started ({})", ending(status)),
            None if tokio::time::Instant::now() >= end => format!("was not ready within {} s", READY_LIMIT.as_secs()),
            None => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        let log = program.log_tail();
        return Err(Failure::Failed(format!("{} {reason}; the end of its log:\n{log}", program.name)));
    }
}
