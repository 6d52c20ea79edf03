//! Leasehold's core: the job and its state machine, and [`Store`], the only door to Redis.
//!
//! Reading order:
//! 1. The domain is pure, without clock or I/O: [`names`], [`time`] and [`json`] are its values, [`job`] and [`lifecycle`] the job
//!    and its state machine, [`retry`] the delay of the next attempt, [`canonical`] the digests by which requests are compared,
//!    [`draft`] what makes a request a job, [`schedule`] when the jobs of a schedule are due, [`limits`] every bound,
//!    and [`error`] what a caller can act on.
//! 2. [`config`], [`kinds`] and [`tokens`] read what operators write.
//! 3. [`files`] stores the files of jobs, and [`store`] everything else.
//! 4. [`init`], [`secrets`], [`log`], [`metrics`] and [`server`] are what every process needs.
//!
//! The API and the worker are thin shells over [`Store`]; neither spells a Redis key.
pub mod canonical;
pub mod config;
pub mod draft;
pub mod duration;
pub mod error;
pub mod files;
pub mod followed;
pub mod init;
pub mod job;
pub mod json;
pub mod kinds;
pub mod lifecycle;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod names;
mod redis_url;
pub mod retry;
pub mod schedule;
pub mod secrets;
pub mod server;
pub mod store;
pub mod time;
pub mod tokens;

pub use config::Config;
pub use draft::Draft;
pub use error::{Error, Refusal, Result};
pub use files::{FileEntry, FileError, FileStore};
pub use job::{Job, JobError, NewJob};
pub use json::Json;
pub use kinds::{KindConfig, Kinds};
pub use lifecycle::State;
pub use limits::Limits;
pub use names::{JobId, Kind, QueueName, ScheduleName, WorkerId};
pub use schedule::Schedule;
pub use store::Store;
pub use time::Timestamp;
