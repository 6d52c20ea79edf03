//! Leasehold's worker: claims jobs, runs their handlers, settles them, and sweeps.
//!
//! Reading order:
//! - [`Worker`] is what a program builds. `run` connects and starts the roles; `running` is the state they share.
//! - `claim` claims jobs for free slots, with blocking pops (`claim/pops`) and weighted queues (`claim/budget`).
//! - `attempt` runs and settles one job. `attempt/context` is what its handler sees, `attempt/report` sends its progress and
//!   checkpoints, `attempt/files` reads and writes its files.
//! - `lease` renews the leases in hand (`lease/leases`), audits the claimed list (`lease/audit`) and drains the worker at its
//!   end (`lease/drain`), on a thread that handlers cannot block.
//! - `sweeper` does the work that belongs to no worker in particular: promote, reclaim, recover, prune, orphaned files.
//! - `handler` is the [`Handler`] trait and the registry; `kinds` has the commands of the kinds file and the built-in kinds;
//!   `fetch` downloads URLs for them, and `reader` reads documents in processes of their own.
//!
//! How to write a handler, with examples, is the page `docs/rust-handlers.md`.
mod attempt;
mod claim;
mod error;
mod event;
mod failure;
#[cfg(feature = "web")]
mod fetch;
#[doc(hidden)]
pub mod fuzz;
mod handler;
pub mod kinds;
mod lease;
mod metrics;
mod outage;
mod panics;
mod probe;
mod reader;
mod roles;
mod run;
mod running;
mod shutdown;
mod slots;
mod stop;
mod sweeper;

use std::pin::Pin;

use leasehold::{Config, Kind, Kinds};
use serde::de::DeserializeOwned;

pub use attempt::context::Context;
pub use error::{CheckpointError, Error};
pub use failure::{Done, Failure};
pub use handler::Handler;
pub use kinds::become_reader;
pub use shutdown::Shutdown;
pub use stop::StopReason;

use handler::Registry;

#[doc = include_str!("../../docs/rust-handlers.md")]
#[cfg(doctest)]
struct RustHandlers;

/// A worker that has not been started: its configuration, the kinds file, and the handlers of a Rust program.
pub struct Worker {
    config: Config,
    kinds: Kinds,
    registry: Registry,
    fault: Option<String>,
}

impl Worker {
    /// A worker that serves the commands of the kinds file and the built-in kinds. `kinds` are those at the start:
    /// while the worker runs it reads the file that `config` names, if any, again whenever that changes.
    pub fn new(config: Config, kinds: Kinds) -> Self {
        Self { config, kinds, registry: Registry::default(), fault: None }
    }

    /// Adds a handler for a kind. The kind's settings in the kinds file (queue, attempts, back-off, …) apply to it. An
    /// invalid name, or a kind that already has a handler, makes [`Worker::run`] fail.
    pub fn handler<P, H>(mut self, kind: &str, handler: H) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        H: Handler<P>,
    {
        let added = Kind::parse(kind)
            .map_err(|e| e.to_string())
            .and_then(|kind| self.registry.add(kind, handler, &self.config.limits));
        self.fault = self.fault.or(added.err());
        self
    }

    /// Runs until `shutdown`, on the runtime that polls this future; by then all jobs are settled or released. Waits
    /// for Redis at the start, and continues after any later outage.
    ///
    /// # Errors
    /// [`Error`]: an unusable configuration, or a shutdown that left jobs to be reclaimed.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        if let Some(fault) = self.fault {
            return Err(error::config(fault));
        }
        // Boxed: otherwise users hit the type-length limit.
        let running: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> =
            Box::pin(run::run(self.config, self.kinds, self.registry, shutdown));
        running.await
    }
}
