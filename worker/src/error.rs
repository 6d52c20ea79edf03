//! Why a worker, or the saving of a checkpoint, failed.
use leasehold::json::InvalidJson;

/// Why [`Worker::run`](crate::Worker::run) failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What an operator wrote cannot be used, or Redis is not fit to keep jobs.
    #[error(transparent)]
    Store(#[from] leasehold::Error),
    /// The system gave no thread.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// Handlers that were told to stop run on in every slot: only a new process can work again.
    #[error("all {0} slots are held by handlers that were told to stop and do not; start the worker again")]
    Stuck(usize),
    /// A part of the worker has panicked, which is a bug of Leasehold's: only a new process can work again.
    #[error("a part of the worker has panicked; its log says where. Start it again")]
    Panicked,
    /// The worker ended without Redis's answer for so many jobs; they are reclaimed when their leases run out.
    #[error("{0} jobs could not be given back; they are reclaimed when their leases run out")]
    Abandoned(usize),
}

/// Why a checkpoint was not saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be written as JSON.
    #[error("the checkpoint is no JSON: {0}")]
    NotJson(String),
    /// It is over a limit.
    #[error("the checkpoint is refused: {0} (limits.checkpoint_bytes, limits.json_depth)")]
    OverLimit(InvalidJson),
    /// The lease is somebody else's, or gone: the handler is to stop.
    #[error("the job's lease is lost")]
    Lost,
    /// The job's record cannot be written.
    #[error("the checkpoint cannot be saved: {0}")]
    Refused(String),
}

pub(crate) fn config(reason: impl Into<String>) -> Error {
    Error::Store(leasehold::Error::Config(reason.into()))
}
