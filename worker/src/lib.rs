//! Leasehold's worker: claims jobs, runs their handlers, settles them, and sweeps.
//!
//! Reading order: [`Worker`] is what a program builds; `run` starts its roles. A job's way is `claim` (with `pops` and
//! `budget`) → `slot` (take in, run, settle) with `holds`, `lease` and `audit` keeping it held. `sweeper` and `end` are for the
//! others' jobs and for the worker's own end, `files` for what an attempt reads and leaves, `orphans` for what deaths left,
//! `fetch` for what a client has it fetch.
//! What runs is a [`Handler`] or a command of the kinds file (`kinds`).
//!
//! How to write a handler, with examples, is the page `docs/rust-handlers.md`.
mod attempt;
mod claim;
mod error;
mod event;
mod failure;
#[cfg(feature = "web")]
mod fetch;
mod handler;
pub mod kinds;
mod lease;
mod metrics;
mod outage;
mod panics;
mod probe;
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
pub use shutdown::Shutdown;
pub use stop::StopReason;

use handler::Registry;

#[doc = include_str!("../../docs/rust-handlers.md")]
#[cfg(doctest)]
struct RustHandlers;

/// A worker to be: its configuration, the kinds file, and the handlers of a Rust program.
pub struct Worker {
    config: Config,
    kinds: Kinds,
    registry: Registry,
    fault: Option<String>,
}

impl Worker {
    /// A worker that serves the commands of the kinds file and the built-in kinds.
    pub fn new(config: Config, kinds: Kinds) -> Self {
        Self { config, kinds, registry: Registry::default(), fault: None }
    }

    /// Adds a handler for a kind. What the kinds file says of that kind (queue, attempts, back-off, …) holds for it. A name
    /// that is none, or a kind that has a handler already, is an error of [`Worker::run`].
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

    /// Runs until `shutdown`, in the runtime that polls this; then all jobs are settled or given back. Waits for Redis at the
    /// start, and rides out any outage later.
    ///
    /// # Errors
    /// [`Error`]: a configuration that cannot be used, or an end that left jobs to be reclaimed.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), Error> {
        if let Some(fault) = self.fault {
            return Err(error::config(fault));
        }
        kinds::register(&mut self.registry, &self.kinds, &self.config)?;
        // Erased: the roles nest deeper than a user's crate would be willing to look.
        let running: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> =
            Box::pin(run::run(self.config, self.kinds, self.registry, shutdown));
        running.await
    }
}
