//! Redis outages: whether Redis answers, which errors are worth a retry, and the delays between retries.
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leasehold::Error;

/// Whether Redis answers, as seen by all roles of a worker. Logs one line when an outage begins and one when it ends.
/// In a cluster a part of the partitions can be away, and the outage ends when each of them has answered.
#[derive(Debug, Default)]
pub(crate) struct RedisStatus {
    away: AtomicBool,
    /// What does not answer, a partition or (`None`) Redis as a whole, and since when.
    since: Mutex<BTreeMap<Option<u16>, Instant>>,
}

impl RedisStatus {
    /// A call failed. An outage is logged once; any other error is logged each time.
    pub fn failed(&self, role: &str, error: &Error) {
        self.failed_in(None, role, error);
    }

    /// [`RedisStatus::failed`] for a call in a partition.
    pub fn failed_in(&self, partition: Option<u16>, role: &str, error: &Error) {
        if !is_outage(error) {
            tracing::error!("{role}: {error}");
            return;
        }
        let mut since = self.since.lock().expect("lock not poisoned");
        let is_new = since.is_empty();
        since.entry(partition).or_insert_with(Instant::now);
        self.away.store(true, Ordering::Relaxed);
        drop(since);
        if is_new {
            tracing::warn!("{role}: {error}; running handlers continue, and work resumes when Redis is back");
        }
    }

    /// Whether Redis is unavailable, by the last call.
    pub fn is_down(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// A call was answered.
    pub fn answered(&self) {
        self.answered_in(None);
    }

    /// [`RedisStatus::answered`] for a call in a partition.
    pub fn answered_in(&self, partition: Option<u16>) {
        if !self.away.load(Ordering::Relaxed) {
            return;
        }
        let mut since = self.since.lock().expect("lock not poisoned");
        let began = since.values().min().copied();
        // An answer from a partition is one from Redis too.
        since.remove(&None);
        since.remove(&partition);
        let ended = began.filter(|_| since.is_empty());
        if ended.is_some() {
            self.away.store(false, Ordering::Relaxed);
        }
        drop(since);
        if let Some(since) = ended {
            tracing::info!("Redis answers again after {} ms", since.elapsed().as_millis());
        }
    }
}

/// Whether a retry may help. A refused password (`Config`) is included: it was changed in Redis, and either the worker
/// will be restarted with the new one or the old one restored.
pub(crate) fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Unavailable(_) | Error::OutcomeUnknown(_) | Error::Full(_) | Error::Config(_))
}

/// Measures how long a call has failed with errors other than an outage.
#[derive(Debug, Default)]
pub(crate) struct RefusalTimer {
    since: Option<Instant>,
}

impl RefusalTimer {
    /// Records an error at `now`. Returns the time since the first of an unbroken run of refusals; zero for an outage.
    pub fn refused_for(&mut self, now: Instant, error: &Error) -> Duration {
        if is_outage(error) {
            self.since = None;
            return Duration::ZERO;
        }
        now.duration_since(*self.since.get_or_insert(now))
    }
}

/// Limits how often a condition that lasts is logged: at once, then every `every`.
#[derive(Debug)]
pub(crate) struct Reminder {
    every: Duration,
    last: Option<Instant>,
}

impl Reminder {
    pub fn new(every: Duration) -> Self {
        Self { every, last: None }
    }

    /// Whether to log at `now`; counts as logged if so.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now.duration_since(last) >= self.every);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

/// Delays between retries: doubled each time, with jitter, so that workers that lost Redis together do not all return
/// at once.
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

    /// The delay before the next retry.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.most);
        delay
    }

    /// Starts again from the first delay, after a success.
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

    #[test]
    fn a_reminder_is_due_at_once_and_then_at_its_interval() {
        let (mut reminder, start) = (Reminder::new(Duration::from_secs(30)), Instant::now());
        let due = [0, 1, 29, 30, 31, 59, 75, 104, 105].map(|s| reminder.is_due(start + Duration::from_secs(s)));
        assert_eq!(due, [true, false, false, true, false, false, true, false, true]);
    }
}
