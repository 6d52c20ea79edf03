//! The audit of a worker's reservations, as a pure state machine: which of them nobody here will claim, and when they
//! may be recovered.
//!
//! A pop whose reply was lost leaves a reservation; every pop that has returned has one until its claim. Hence two
//! checks: the first marks a reservation, the second recovers it, and only once every call that was open at the first
//! (a pop that may have made it, or a claim that may lease it) has been answered.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use leasehold::JobId;

/// The pops and claims of one partition that have not been answered.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    newest: u64,
    open: BTreeMap<u64, Instant>,
}

impl Calls {
    /// Records a call that may return jobs, before it is sent.
    pub fn begin(&mut self, now: Instant) -> u64 {
        self.newest += 1;
        self.open.insert(self.newest, now);
        self.newest
    }

    /// Records that a call was answered and its jobs are held, or that it was abandoned.
    pub fn end(&mut self, call: u64) {
        self.open.remove(&call);
    }

    /// The oldest open call that began at `since` or later; jobs that an older one still returns are not started.
    fn oldest_open(&self, since: Option<Instant>) -> Option<u64> {
        let live = |(_, began): &(&u64, &Instant)| since.is_none_or(|since| **began >= since);
        self.open.iter().find(live).map(|(call, _)| *call)
    }
}

/// The state of the audit of one partition between two checks.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// Reservations that were found, each with the newest call at that time.
    marks: HashMap<JobId, u64>,
}

impl Audit {
    /// Checks the reservations that a renewal returned; returns those to recover now. `patience` is the maximum age of
    /// a call whose jobs would still be started.
    pub fn check(&mut self, reserved: &[JobId], calls: &Calls, now: Instant, patience: Duration) -> Vec<JobId> {
        let oldest_open = calls.oldest_open(now.checked_sub(patience));
        let seen: HashSet<&JobId> = reserved.iter().collect();
        self.marks.retain(|id, _| seen.contains(id));
        let mut due = Vec::new();
        for id in seen {
            match self.marks.get(id) {
                Some(newest) if oldest_open.is_none_or(|open| open > *newest) => due.push(id.clone()),
                Some(_) => {}
                None => drop(self.marks.insert(id.clone(), calls.newest)),
            }
        }
        due
    }

    /// Whether reservations are marked.
    pub fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    struct Bench {
        audit: Audit,
        calls: Calls,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { audit: Audit::default(), calls: Calls::default(), now: Instant::now() }
        }

        /// A check five seconds after the last.
        fn check(&mut self, reserved: &[&JobId]) -> Vec<JobId> {
            self.now += Duration::from_secs(5);
            let reserved: Vec<JobId> = reserved.iter().map(|id| (*id).clone()).collect();
            self.audit.check(&reserved, &self.calls, self.now, PATIENCE)
        }

        fn call(&mut self) -> u64 {
            self.calls.begin(self.now)
        }
    }

    fn id(text: &str) -> JobId {
        JobId::parse(text).unwrap()
    }

    #[test]
    fn a_reservation_is_marked_and_recovered_when_found_again() {
        let mut bench = Bench::new();
        let stray = id("a");
        assert_eq!(bench.check(&[&stray]), []);
        assert!(bench.audit.has_marks());
        assert_eq!(bench.check(&[&stray]).len(), 1);
        // The call that recovered it was lost: once more.
        assert_eq!(bench.check(&[&stray]), [stray]);
        assert_eq!(bench.check(&[]), []);
        assert!(!bench.audit.has_marks());
    }

    #[test]
    fn a_reservation_waits_for_the_calls_that_may_have_brought_it() {
        let mut bench = Bench::new();
        let stray = id("a");
        let call = bench.call();
        assert_eq!(bench.check(&[&stray]), []);
        assert_eq!(bench.check(&[&stray]), []);
        bench.calls.end(call);
        // A later call cannot have reserved what was there before it.
        bench.call();
        assert_eq!(bench.check(&[&stray]), [stray]);
    }

    #[test]
    fn a_call_that_is_too_old_to_bring_a_job_is_not_waited_for() {
        let mut bench = Bench::new();
        let stray = id("a");
        bench.call();
        for _ in 0..3 {
            assert_eq!(bench.check(&[&stray]), []);
        }
        assert_eq!(bench.check(&[&stray]), [stray]);
    }

    #[test]
    fn a_reservation_that_went_away_is_marked_again() {
        let mut bench = Bench::new();
        let stray = id("a");
        assert_eq!(bench.check(&[&stray]), []);
        assert_eq!(bench.check(&[]), []);
        assert_eq!(bench.check(&[&stray]), []);
    }
}
