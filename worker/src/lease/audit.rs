//! The audit of a worker's claimed list, as a pure state machine: which entries are not running here, and when they may
//! be released.
//!
//! An entry is an id with the token of its lease, or no token for a reservation. A lost reply leaves a stray entry;
//! every claim and settle in flight causes one for a moment. Hence two checks: the first marks an entry, the second
//! releases it, and only once every call that was open at the first (and may have claimed the entry) has been answered.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use leasehold::JobId;

/// An id in the claimed list, with the token of its lease; `None`: a reservation.
pub(crate) type Entry = (JobId, Option<u64>);

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
    /// Entries found unheld, each with the newest call at that time.
    marks: HashMap<Entry, u64>,
    /// Leases released, and when: if a claim still returns one, its job must not be started.
    released: HashMap<Entry, Instant>,
}

impl Audit {
    /// Checks the claimed list that a renewal returned; returns the entries to release now. `patience` is the maximum
    /// age of a call whose jobs would still be started.
    pub fn check(
        &mut self,
        listed: &[Entry],
        held: impl Fn(&Entry) -> bool,
        calls: &Calls,
        now: Instant,
        patience: Duration,
    ) -> Vec<Entry> {
        let oldest_open = calls.oldest_open(now.checked_sub(patience));
        let seen: HashSet<&Entry> = listed.iter().collect();
        self.marks.retain(|entry, _| seen.contains(entry));
        self.released.retain(|_, at| now.duration_since(*at) < 4 * patience);
        let mut due = Vec::new();
        for entry in seen {
            if held(entry) {
                self.marks.remove(entry);
                continue;
            }
            match self.marks.get(entry) {
                Some(newest) if oldest_open.is_none_or(|open| open > *newest) => due.push(entry.clone()),
                Some(_) => {}
                None => drop(self.marks.insert(entry.clone(), calls.newest)),
            }
        }
        let leases = due.iter().filter(|(_, token)| token.is_some());
        self.released.extend(leases.map(|entry| (entry.clone(), now)));
        due
    }

    /// Whether entries are marked.
    pub fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Whether this lease was released.
    pub fn was_released(&self, entry: &Entry) -> bool {
        self.released.contains_key(entry)
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
        fn check(&mut self, listed: &[&Entry], held: &[&Entry]) -> Vec<Entry> {
            self.now += Duration::from_secs(5);
            let listed: Vec<Entry> = listed.iter().map(|entry| (*entry).clone()).collect();
            self.audit.check(&listed, |entry| held.contains(&entry), &self.calls, self.now, PATIENCE)
        }

        fn call(&mut self) -> u64 {
            self.calls.begin(self.now)
        }
    }

    fn entry(id: &str, token: impl Into<Option<u64>>) -> Entry {
        (JobId::parse(id).unwrap(), token.into())
    }

    #[test]
    fn an_unheld_entry_is_marked_and_released_when_found_again() {
        let mut bench = Bench::new();
        let stray = entry("a", 7);
        assert_eq!(bench.check(&[&stray], &[]), []);
        assert!(bench.audit.has_marks());
        assert_eq!(bench.check(&[&stray], &[]).len(), 1);
        assert!(bench.audit.was_released(&stray) && !bench.audit.was_released(&entry("a", 8)));
        // The call that released it was lost: once more.
        assert_eq!(bench.check(&[&stray], &[]), [stray]);
        assert_eq!(bench.check(&[], &[]), []);
        assert!(!bench.audit.has_marks());
    }

    #[test]
    fn a_held_entry_is_never_released() {
        let mut bench = Bench::new();
        let job = entry("a", 7);
        for _ in 0..3 {
            assert_eq!(bench.check(&[&job], &[&job]), []);
        }
        assert!(!bench.audit.has_marks());
    }

    #[test]
    fn a_mark_is_of_one_token() {
        let mut bench = Bench::new();
        assert_eq!(bench.check(&[&entry("a", None)], &[]), []);
        assert_eq!(bench.check(&[&entry("a", 7)], &[]), []);
        assert_eq!(bench.check(&[&entry("a", 8)], &[]), []);
        assert_eq!(bench.check(&[&entry("a", 8)], &[]), [entry("a", 8)]);
    }

    #[test]
    fn an_entry_waits_for_the_calls_that_may_have_brought_it() {
        let mut bench = Bench::new();
        let stray = entry("a", None);
        let call = bench.call();
        assert_eq!(bench.check(&[&stray], &[]), []);
        assert_eq!(bench.check(&[&stray], &[]), []);
        bench.calls.end(call);
        // A later call cannot have claimed an entry that was listed before it.
        bench.call();
        assert_eq!(bench.check(&[&stray], &[]), [stray]);
    }

    #[test]
    fn a_call_that_is_too_old_to_bring_a_job_is_not_waited_for() {
        let mut bench = Bench::new();
        let stray = entry("a", 7);
        bench.call();
        for _ in 0..3 {
            assert_eq!(bench.check(&[&stray], &[]), []);
        }
        assert_eq!(bench.check(&[&stray], &[]), [stray]);
    }

    #[test]
    fn an_entry_that_went_away_is_marked_again() {
        let mut bench = Bench::new();
        let stray = entry("a", None);
        assert_eq!(bench.check(&[&stray], &[]), []);
        assert_eq!(bench.check(&[], &[]), []);
        assert_eq!(bench.check(&[&stray], &[]), []);
    }
}
