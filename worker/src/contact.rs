//! Whether Redis answers, as all roles of a worker see it: one line in the log when it goes, one when it is back.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leasehold::Error;

/// The state of contact with Redis.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    away: AtomicBool,
    since: Mutex<Option<Instant>>,
}

impl Contact {
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
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// A call was answered.
    pub fn works(&self) {
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

/// Whether trying again later may help.
pub(crate) fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Unavailable(_) | Error::OutcomeUnknown(_) | Error::Full(_))
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
