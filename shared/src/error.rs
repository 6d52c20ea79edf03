//! Errors of a Store call, classified by what the caller can do about them.
use crate::schedule::InvalidTiming;
use crate::{JobId, QueueName, ScheduleName, State};

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a Store call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Redis is unreachable, loading, or refuses writes; nothing was done. Try again.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// The call was sent and no reply came: it may have been executed. Repeat it only if it is idempotent.
    #[error("no reply from Redis, so the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// The call was executed, and fewer replicas than requested have acknowledged it. Repeating it waits again.
    #[error("stored, but only {acknowledged} of {requested} replicas of Redis acknowledged it within {within_ms} ms")]
    TooFewReplicas {
        /// Replicas that have acknowledged it.
        acknowledged: u64,
        /// Replicas that were requested.
        requested: u8,
        /// How long they were waited for, ms.
        within_ms: u64,
    },
    /// Redis has reached its `maxmemory`: new jobs are refused until memory is freed.
    #[error("Redis is out of memory and accepts no new jobs: {0}")]
    Full(String),
    /// The call was refused; nothing was changed.
    #[error("{0}")]
    Refused(Refusal),
    /// A key is unreadable.
    #[error("unreadable record at {key}: {reason}")]
    Corrupt {
        /// The key.
        key: String,
        /// The reason.
        reason: String,
    },
    /// Invalid configuration; says what to write instead.
    #[error("{0}")]
    Config(String),
}

/// The reason for which a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such job.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The Idempotency-Key was used with a different request.
    #[error("this Idempotency-Key was used for job {0} with another request; use a new key for a new request")]
    KeyConflict(JobId),
    /// The job of this Idempotency-Key has been removed.
    #[error("job {0}, submitted with this Idempotency-Key, has been removed")]
    KeyGone(JobId),
    /// No such queue.
    #[error("there is no queue {0}")]
    NoQueue(QueueName),
    /// The queue is used, so it cannot be removed.
    #[error("queue {queue} is in use: {reason}")]
    QueueInUse {
        /// Which.
        queue: QueueName,
        /// By what, and what to do.
        reason: String,
    },
    /// The limit on kinds or queues is reached.
    #[error("the limit of {max} {what}s is reached; use an existing {what}")]
    TooManyNames {
        /// `kind` or `queue`.
        what: String,
        /// The limit.
        max: usize,
    },
    /// No such schedule.
    #[error("schedule {0} does not exist")]
    NoSchedule(ScheduleName),
    /// The schedule is declared in the kinds file, which alone can change it.
    #[error("schedule {0} is declared in the kinds file; change it there")]
    DeclaredInFile(ScheduleName),
    /// The limit on schedules is reached.
    #[error("the limit of {0} schedules in a partition is reached; remove some")]
    TooManySchedules(usize),
    /// A schedule without a tick to come.
    #[error("{0}")]
    Timing(InvalidTiming),
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
    /// Items were sent for a job that is not a batch.
    #[error("job {0} is not a batch, so items cannot be added to it")]
    NotABatch(JobId),
    /// Items were sent to a sealed parent.
    #[error("the batch is sealed with {0} items; no more can be added")]
    Sealed(u64),
    /// An item would get the id of another job: the ids of imported jobs were chosen by their old store.
    #[error("an item of the batch would get the id {0}, which another job has; remove that job first")]
    Taken(JobId),
    /// A part was sent out of order.
    #[error("the batch has {0} items, so the next part must begin there (`first`), and the last must reach its end")]
    Gap(u64),
}

impl Error {
    /// The same error for a call of which an earlier part may have been executed: what says that nothing was done
    /// becomes `OutcomeUnknown`.
    pub(crate) fn after_a_change(self) -> Self {
        match self {
            Error::Unavailable(reason) | Error::Full(reason) | Error::Config(reason) => Error::OutcomeUnknown(reason),
            other => other,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::Refused(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_after_a_change_says_that_nothing_was_done() {
        for error in [Error::Unavailable("r".into()), Error::Full("r".into()), Error::Config("r".into())] {
            assert_eq!(error.after_a_change(), Error::OutcomeUnknown("r".into()));
        }
    }
}
