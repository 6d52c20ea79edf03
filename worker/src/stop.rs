//! How a running handler is told to stop, and why.
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How long a command has between SIGTERM and SIGKILL.
pub(crate) const COMMAND_GRACE: Duration = Duration::from_secs(5);
/// How long the handler of a command has: the kill, and what is read after it, must come before its future is dropped.
pub(crate) const COMMAND_HANDLER_GRACE: Duration = Duration::from_secs(6);
/// How long a Rust handler has to end after it was told to; then its future is dropped.
pub(crate) const HANDLER_GRACE: Duration = Duration::from_secs(2);
/// How long the lease of a handler that even a drop does not end is still renewed.
pub(crate) const LEASE_GRACE: Duration = Duration::from_secs(8);

/// Why a handler is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The job's cancel was asked.
    Cancel,
    /// It has run longer than it may.
    Timeout,
    /// The worker ends, and its grace is over: the job goes back to its queue.
    Shutdown,
    /// The lease is somebody else's, or gone: whatever the handler still does is not recorded.
    Lost,
}

/// One running job's request to stop.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    asked: Mutex<Option<(StopReason, Instant)>>,
}

impl Stop {
    /// Asks; the first reason stands, but a lost lease overrules it.
    pub fn request(&self, reason: StopReason) {
        let mut asked = self.asked.lock().expect("nobody panics with it");
        match &mut *asked {
            Some((stands, _)) if reason == StopReason::Lost => *stands = StopReason::Lost,
            Some(_) => {}
            None => *asked = Some((reason, Instant::now())),
        }
        drop(asked);
        self.token.cancel();
    }

    pub fn reason(&self) -> Option<StopReason> {
        self.asked.lock().expect("nobody panics with it").map(|(reason, _)| reason)
    }

    pub fn requested_at(&self) -> Option<Instant> {
        self.asked.lock().expect("nobody panics with it").map(|(_, at)| at)
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
