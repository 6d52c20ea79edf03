//! Errors of a worker, and of saving a checkpoint.
use leasehold::json::InvalidJson;

/// Why [`Worker::run`](crate::Worker::run) failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is invalid, or this Redis is not suitable for storing jobs.
    #[error(transparent)]
    Store(#[from] leasehold::Error),
    /// A system resource is missing, such as a thread.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// In every slot a handler ignores the request to stop: the process must be restarted.
    #[error("all {0} slots are occupied by handlers that do not stop when requested; restart the worker")]
    Stuck(usize),
    /// A role of the worker has panicked. This is a bug in Leasehold; the process must be restarted.
    #[error("a part of the worker has panicked (see its log); restart the worker")]
    Panicked,
    /// The worker ended with this many jobs neither settled nor released; they are reclaimed when their leases expire.
    #[error("{0} jobs could not be released; they are reclaimed when their leases expire")]
    Abandoned(usize),
}

/// Why a checkpoint was not saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be written as JSON.
    #[error("the checkpoint cannot be written as JSON: {0}")]
    NotJson(String),
    /// It exceeds a limit.
    #[error("the checkpoint is refused: {0} (limits.checkpoint_bytes, limits.json_depth)")]
    OverLimit(InvalidJson),
    /// The lease has expired or another worker has it: the handler should stop.
    #[error("the job's lease is lost")]
    Lost,
    /// The job's record cannot be written.
    #[error("the checkpoint cannot be saved: {0}")]
    Refused(String),
}

pub(crate) fn config(reason: impl Into<String>) -> Error {
    Error::Store(leasehold::Error::Config(reason.into()))
}
