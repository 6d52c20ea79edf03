//! Whether Redis answers, as all roles of a worker see it: one line in the log when it goes, one when it is back.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leasehold::Error;

/// The state of redis with Redis.
#[derive(Debug, Default)]
pub(crate) struct RedisStatus {
    away: AtomicBool,
    since: Mutex<Option<Instant>>,
}

impl RedisStatus {
    /// A call failed. An outage is told once; anything else is a fault of its own, told each time.
    pub fn failed(&self, role: &str, error: &Error) {
        if !is_outage(error) {
            tracing::error!("{role}: {error}");
            return;
        }
        let mut since = self.since.lock().expect("nobody panics with it");
        let is_new = since.is_none();
        if is_new {
            *since = Some(Instant::now());
            self.away.store(true, Ordering::Relaxed);
        }
        drop(since);
        if is_new {
            tracing::warn!("{role}: {error}; handlers run on, and all goes on when Redis is back");
        }
    }

    /// Whether the last that was heard of Redis is that it is away.
    pub fn is_down(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// A call was answered.
    pub fn answered(&self) {
        if !self.away.load(Ordering::Relaxed) {
            return;
        }
        let mut since = self.since.lock().expect("nobody panics with it");
        let ended = since.take();
        if ended.is_some() {
            self.away.store(false, Ordering::Relaxed);
        }
        drop(since);
        if let Some(since) = ended {
            tracing::info!("Redis answers again after {} ms", since.elapsed().as_millis());
        }
    }
}

/// Whether trying again later may help. A Redis that refuses this worker's password has been given another; the worker will be
/// restarted, or the password put back.
pub(crate) fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Unavailable(_) | Error::OutcomeUnknown(_) | Error::Full(_) | Error::Config(_))
}

/// For how long a call has met nothing but refusals that are no outage.
#[derive(Debug, Default)]
pub(crate) struct RefusalTimer {
    since: Option<Instant>,
}

impl RefusalTimer {
    /// Takes in how a try ended at `now`.
    pub fn refused_for(&mut self, now: Instant, error: &Error) -> Duration {
        if is_outage(error) {
            self.since = None;
            return Duration::ZERO;
        }
        now.duration_since(*self.since.get_or_insert(now))
    }
}

/// Delays between tries: doubled from try to try, with jitter, so that workers that lost Redis together do not come back
/// together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, first, most }
    }

    /// The delay before the next try.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.most);
        delay
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_timed_from_the_first_after_an_outage() {
        let (mut refused, start) = (RefusalTimer::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (away, bad) =
            (Error::Unavailable(String::new()), Error::Corrupt { key: String::new(), reason: String::new() });
        assert_eq!(refused.refused_for(at(0), &bad), Duration::ZERO);
        assert_eq!(refused.refused_for(at(5), &bad), Duration::from_secs(5));
        assert_eq!(refused.refused_for(at(60), &away), Duration::ZERO);
        assert_eq!(refused.refused_for(at(99), &bad), Duration::ZERO);
        assert_eq!(refused.refused_for(at(100), &bad), Duration::from_secs(1));
    }
}
