//! What can go wrong between a caller and Redis, in the terms of what the caller can do about it.
use crate::{JobId, State};

/// Shorthand of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a Store call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Redis is away, or loading, or refuses writes; nothing was done. Try again.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// The call went out and no answer came: it may have been done. Only what is safe to repeat may be repeated.
    #[error("Redis did not answer, so the outcome is not known: {0}")]
    OutcomeUnknown(String),
    /// Redis is over its `maxmemory`: new jobs are refused until work has drained.
    #[error("Redis is out of memory and takes no new jobs: {0}")]
    Full(String),
    /// The call was understood and refused; nothing was changed.
    #[error("{0}")]
    Refused(Refusal),
    /// A key cannot be read.
    #[error("Redis holds something that is no record of Leasehold's at {key}: {reason}")]
    Corrupt {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What an operator wrote cannot be used; says what to write instead.
    #[error("{0}")]
    Config(String),
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such job.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The Idempotency-Key was used with another request.
    #[error("this Idempotency-Key was used for job {0} with another request; use a new key for a new request")]
    KeyConflict(JobId),
    /// The job of this Idempotency-Key has been removed.
    #[error("job {0}, which this Idempotency-Key submitted, has been removed")]
    KeyGone(JobId),
    /// The bound on kinds or queues is reached.
    #[error("there are already {max} {what}s, and this would be another; use a known {what}")]
    TooManyNames {
        /// `kind` or `queue`.
        what: String,
        /// The bound.
        max: usize,
    },
    /// The verb does not apply in this state.
    #[error("the job is {state}; {advice}")]
    WrongState {
        /// The state it is in.
        state: State,
        /// When the verb applies.
        advice: String,
    },
    /// An item cannot be retried once its parent is final.
    #[error("the job is an item of a finished batch; retry its parent {0}")]
    RetryParent(JobId),
    /// An item of a parent that is being cancelled cannot be retried.
    #[error("the job is an item of batch {0}, which is being cancelled")]
    ParentCancelled(JobId),
    /// Items are removed with their parent only.
    #[error("the job is an item; it is removed with its parent {0}")]
    RemoveParent(JobId),
    /// Items were sent for a job that is no batch.
    #[error("job {0} is no batch, so it takes no items")]
    NotABatch(JobId),
    /// Items were sent to a sealed parent.
    #[error("the batch is sealed with {0} items and takes no more")]
    Sealed(u64),
    /// An item would get an id that another job has: imported ids are whatever their old store gave them.
    #[error("an item of the batch would be called {0}, and there is another job of that id; remove that job first")]
    Taken(JobId),
    /// A part was sent out of turn.
    #[error("the batch has {0} items, so the next part must begin there (`first`), and the last must reach its end")]
    Gap(u64),
}

impl Error {
    /// The same of a call of which an earlier part may have been done: then nobody may say that nothing was.
    pub(crate) fn after_a_change(self) -> Self {
        match self {
            Error::Unavailable(reason) | Error::Full(reason) => Error::OutcomeUnknown(reason),
            other => other,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::Refused(refusal)
    }
}
