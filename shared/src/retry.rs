//! Whether and when a failed attempt is retried. Pure: the caller supplies the random number.
use serde::{Deserialize, Serialize};

use crate::limits;

/// Exponential back-off with equal jitter: half of the delay is fixed, half is random, so that jobs that failed
/// together are not retried together ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// Delay after the first failed attempt, ms; 0 retries at once.
    pub first_ms: u64,
    /// The factor for each further failure, at least 1.
    pub factor: f64,
    /// The longest delay, ms; at most [`limits::BACKOFF_MS_MAX`].
    pub max_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first_ms: 1_000, factor: 2.0, max_ms: 600_000 }
    }
}

impl Backoff {
    /// The delay, ms, after `failed` failed attempts (1, 2, …); `dice` is drawn evenly from 0..1.
    pub fn delay_ms(&self, failed: u32, dice: f64) -> u64 {
        if self.first_ms == 0 {
            return 0; // The power below may be infinite.
        }
        let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
        let full = (self.first_ms as f64 * self.factor.powi(exponent)).min(self.max_ms as f64);
        (full / 2.0 + full / 2.0 * dice) as u64
    }
}

/// The retry that a failed handler requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// By policy: retry after the back-off, while attempts are left.
    Policy,
    /// Do not retry.
    Never,
    /// Retry after this many ms, while attempts are left.
    In(u64),
}

/// Decides on a failed attempt: `Some(ms)` until the next one, or `None` when this was the last. `attempts` counts the
/// failed ones before this.
pub fn decide(wish: Wish, attempts: u32, max_attempts: u32, backoff: &Backoff, dice: f64) -> Option<u64> {
    let failed = attempts.saturating_add(1);
    if wish == Wish::Never || failed >= max_attempts {
        return None;
    }
    let ms = match wish {
        Wish::In(ms) => ms,
        _ => backoff.delay_ms(failed, dice),
    };
    Some(ms.min(limits::BACKOFF_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_grows_by_its_factor_up_to_its_bound() {
        let backoff = Backoff { first_ms: 1_000, factor: 3.0, max_ms: 10_000 };
        assert_eq!(
            [1, 2, 3, 4, 4_000_000_000].map(|n| backoff.delay_ms(n, 1.0)),
            [1_000, 3_000, 9_000, 10_000, 10_000]
        );
        assert_eq!(backoff.delay_ms(2, 0.0), 1_500);
        let at_once = Backoff { first_ms: 0, factor: 10.0, max_ms: 10_000 };
        assert_eq!([1, 2, 400, u32::MAX].map(|n| at_once.delay_ms(n, 1.0)), [0; 4]);
    }

    #[test]
    fn the_last_attempt_is_the_last() {
        let backoff = Backoff::default();
        assert!(decide(Wish::Policy, 3, 5, &backoff, 0.5).is_some());
        assert_eq!(decide(Wish::Policy, 4, 5, &backoff, 0.5), None);
        assert_eq!(decide(Wish::In(7), 4, 5, &backoff, 0.5), None);
        assert_eq!(decide(Wish::Never, 0, 5, &backoff, 0.5), None);
        assert_eq!(decide(Wish::In(7), 0, 5, &backoff, 0.5), Some(7));
        assert_eq!(decide(Wish::In(u64::MAX), 0, 5, &backoff, 0.5), Some(limits::BACKOFF_MS_MAX));
    }
}
