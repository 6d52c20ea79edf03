//! How long calls are repeated during an outage, and the pauses between their attempts.
use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, Result};

/// Whether a call with an unknown outcome may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Idempotent.
    Safe,
    /// Not idempotent: a single attempt.
    Never,
}

tokio::task_local! {
    /// How long the calls of one request may still ride out outages.
    static LEFT: Cell<Duration>;
}

/// Runs a request whose calls ride out outages for at most this time together, and not each of them.
pub async fn within_one_outage<F: Future>(outage: Duration, request: F) -> F::Output {
    LEFT.scope(Cell::new(outage), request).await
}

/// How long a call may ride out an outage.
pub(super) fn patience_of(outage: Duration) -> Duration {
    LEFT.try_with(|left| left.get().min(outage)).unwrap_or(outage)
}

/// Counts time that a call of this request has spent in an outage.
pub(super) fn spend(time: Duration) {
    // Nothing to count outside of a request.
    let _ = LEFT.try_with(|left| left.set(left.get().saturating_sub(time)));
}

/// Whether an error may pass, so that a repetition may help.
pub(super) fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Unavailable(_) | Error::OutcomeUnknown(_))
}

/// The pauses between attempts in an outage: they grow, with jitter, so that clients that lost Redis together do not
/// return together.
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(10))
    }
}

impl Pause {
    /// The longest that the next one may be.
    pub(super) fn most(&self) -> Duration {
        self.0
    }

    pub(super) async fn sleep(&mut self) {
        tokio::time::sleep(self.0.mul_f64(rand::random_range(0.5..1.0))).await;
        self.0 = (self.0 * 2).min(Duration::from_millis(500));
    }
}

/// The state of a repeated call.
pub(super) struct Patience {
    begun: Instant,
    /// When the outage has lasted too long.
    end: Instant,
    pause: Pause,
    repeat: Repeat,
    /// An attempt has failed.
    failing: bool,
    /// An attempt may have been executed, so a later refusal does not mean that nothing happened.
    unknown: bool,
}

impl Patience {
    pub(super) fn new(outage: Duration, repeat: Repeat) -> Self {
        let begun = Instant::now();
        let (end, pause) = (begun + patience_of(outage), Pause::default());
        Self { begun, end, pause, repeat, failing: false, unknown: false }
    }

    /// Makes an attempt. A repeated one ends with the patience.
    pub(super) async fn attempt<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.failing {
            return attempt.await;
        }
        let late = || Error::OutcomeUnknown("no answer before the end of redis.outage_ms".into());
        tokio::time::timeout_at(self.end, attempt).await.unwrap_or_else(|_| Err(late()))
    }

    /// A part of the call has been answered, so there is no outage, or no longer.
    pub(super) fn renew(&mut self, outage: Duration) {
        if self.failing {
            self.begun = Instant::now();
            (self.end, self.failing) = (self.begun + patience_of(outage), false);
        }
    }

    /// A part of the call has been executed.
    pub(super) fn progressed(&mut self, outage: Duration) {
        self.renew(outage);
        self.unknown = true;
    }

    /// Waits before the next attempt; returns the error when there is none.
    pub(super) async fn bear(&mut self, error: Error) -> Result<()> {
        self.failing = true;
        self.unknown |= matches!(error, Error::OutcomeUnknown(_));
        let is_over = self.repeat == Repeat::Never || Instant::now() + self.pause.most() >= self.end;
        if !is_passing(&error) || is_over {
            // An earlier attempt may have been executed, whatever the last error is.
            return Err(if self.unknown { error.after_a_change() } else { error });
        }
        self.pause.sleep().await;
        Ok(())
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        if self.failing {
            spend(self.begun.elapsed());
        }
    }
}
