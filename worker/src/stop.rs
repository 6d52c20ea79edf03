//! The request to a running handler to stop, with its reason.
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How long a command has between SIGTERM and SIGKILL.
pub(crate) const COMMAND_GRACE: Duration = Duration::from_secs(5);
/// How long the handler of a command has to end: long enough for the SIGKILL and for reading the remaining output.
pub(crate) const COMMAND_HANDLER_GRACE: Duration = Duration::from_secs(6);
/// How long a Rust handler has to end after a request to stop; then its future is dropped.
pub(crate) const HANDLER_GRACE: Duration = Duration::from_secs(2);
/// How long after a request to stop the lease of a handler that does not end is still renewed.
pub(crate) const LEASE_GRACE: Duration = Duration::from_secs(8);

/// Why a handler should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The job's cancel was requested.
    Cancel,
    /// It has reached its timeout.
    Timeout,
    /// The worker is shutting down and its grace period is over: the job returns to its queue.
    Shutdown,
    /// The lease has expired or another worker has it: nothing the handler still does is recorded.
    Lost,
}

/// The stop request of one running job.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    requested: Mutex<Option<(StopReason, Instant)>>,
}

impl Stop {
    /// Requests a stop. The first reason is kept, except that a lost lease replaces it.
    pub fn request(&self, reason: StopReason) {
        let mut requested = self.requested.lock().expect("lock not poisoned");
        match &mut *requested {
            Some((first, _)) if reason == StopReason::Lost => *first = StopReason::Lost,
            Some(_) => {}
            None => *requested = Some((reason, Instant::now())),
        }
        drop(requested);
        self.token.cancel();
    }

    pub fn reason(&self) -> Option<StopReason> {
        self.requested.lock().expect("lock not poisoned").map(|(reason, _)| reason)
    }

    pub fn requested_at(&self) -> Option<Instant> {
        self.requested.lock().expect("lock not poisoned").map(|(_, at)| at)
    }

    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stands_unless_the_lease_is_lost() {
        let stop = Stop::default();
        assert_eq!(stop.reason(), None);
        stop.request(StopReason::Timeout);
        stop.request(StopReason::Cancel);
        assert_eq!(stop.reason(), Some(StopReason::Timeout));
        stop.request(StopReason::Lost);
        assert_eq!(stop.reason(), Some(StopReason::Lost));
        assert!(stop.token().is_cancelled());
    }
}
