//! Verifies the invariants of ARCHITECTURE.md against what was read.
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::seen::{PLACES, Record, Running, Seen};
use crate::limits::CASCADE_MS_MAX;
use crate::store::finding::{Finding, Repair};
use crate::store::wire::keys;
use crate::{JobId, Kind, State};

/// The findings of a partition.
pub(super) fn judge(partition: u16, mut seen: Seen) -> Vec<Finding> {
    seen.count_parked();
    let findings = std::mem::take(&mut seen.findings);
    let mut judge = Judge { partition, seen: &seen, findings };
    judge.jobs();
    judge.places();
    judge.holders();
    judge.reservations();
    judge.tokens();
    judge.parents();
    judge.cascades();
    judge.findings
}

/// An index of jobs of one kind.
struct Index {
    kind: Kind,
    /// Of those that have ended in this state; `None`: of all.
    state: Option<State>,
    /// Of items of batches.
    items: bool,
}

impl Index {
    fn of(place: &str) -> Option<Self> {
        let (sort, rest) = place.split_once(':')?;
        let (kind, state) = match rest.split_once(':') {
            Some((kind, state)) if keys::ENDED.contains(&sort) => (kind, Some(State::parse(state)?)),
            None if sort == "kind" => (rest, None),
            _ => return None,
        };
        Some(Self { kind: Kind::parse(kind).ok()?, state, items: sort == "items" })
    }

    fn takes(&self, job: &Record) -> bool {
        *job.kind == self.kind
            && job.parent.is_some() == self.items
            && (self.state.is_none() || self.state == job.state)
    }
}

struct Judge<'a> {
    partition: u16,
    seen: &'a Seen,
    findings: Vec<Finding>,
}

impl<'a> Judge<'a> {
    /// A finding that is repaired by moving the job's id to where it belongs.
    fn find(&mut self, id: &JobId, problem: impl Into<String>) {
        self.find_under(id, problem, BTreeSet::new(), BTreeSet::new());
    }

    fn find_under(
        &mut self,
        id: &JobId,
        problem: impl Into<String>,
        kinds: BTreeSet<String>,
        workers: BTreeSet<String>,
    ) {
        let repair = Repair::Place { id: id.clone(), listed: self.seen.listed.contains(id), kinds, workers };
        self.push(id.to_string(), problem, Some(repair));
    }

    fn push(&mut self, subject: String, problem: impl Into<String>, repair: Option<Repair>) {
        self.findings.push(Finding { partition: self.partition, subject, problem: problem.into(), repair });
    }

    /// The running record of a job.
    fn holder(&self, id: &JobId) -> Option<&'a Running> {
        self.seen.running.get(id).and_then(Option::as_ref)
    }

    /// Invariants 1 and 4: a job is where its state says, and in no other state's place.
    fn jobs(&mut self) {
        let seen = self.seen;
        let reserved: HashSet<&JobId> = seen.claimed.values().flatten().map(|id| &**id).collect();
        for (id, job) in &seen.jobs {
            let runs = self.holder(id).is_some();
            let state = job.state.unwrap_or(if runs { State::Running } else { State::Queued });
            for (place, of) in PLACES {
                match (seen.in_place(place, id), of == state) {
                    (true, false) => self.find(id, format!("the job is {state} but is in `{place}`")),
                    (false, true) => self.find(id, format!("the job is {state} but is not in `{place}`")),
                    _ => {}
                }
            }
            if runs && job.state.is_some() {
                self.find(id, format!("the job is {state} but has a running record"));
            }
            if state == State::Queued && !seen.listed.contains(id) && !reserved.contains(&**id) {
                self.find(id, "the job is queued but is not in any list");
            }
            let in_queue = state == State::Queued;
            if !seen.kinds.contains(job.kind.as_str()) || in_queue && !seen.queues.contains(job.queue.as_str()) {
                self.find(id, "its kind or its queue is not registered, so listings omit it");
            }
            if job.parent.is_none() {
                self.top_level(id, job, state);
            }
            if state.is_final() {
                self.ended(id, job, state);
            }
        }
    }

    fn top_level(&mut self, id: &JobId, job: &Record, state: State) {
        if !self.seen.in_place(&keys::kind_suffix(&job.kind), id) {
            self.find(id, format!("the job is missing from the index of its kind {}", job.kind));
        }
        let unsealed = state == State::Waiting && !job.sealed;
        match (unsealed, self.seen.in_place("open", id)) {
            (true, false) => self.find(id, "the batch is open but is not in `open`, so it would wait forever"),
            (false, true) => self.find(id, "the batch is sealed but is in `open`"),
            _ => {}
        }
    }

    /// An ended job is listed by its end, once, unless it is being removed.
    fn ended(&mut self, id: &JobId, job: &Record, state: State) {
        let [finished, imported, items] = keys::ENDED.map(|place| keys::ended_suffix(place, &job.kind, state));
        let is_in = |place: &str| self.seen.in_place(place, id);
        let (here, before) = (is_in(&finished), is_in(&imported));
        if job.parent.is_some() {
            if !is_in(&items) {
                self.find(id, format!("the job is {state} but is not in `{items}`"));
            }
        } else if here && before {
            self.find(id, format!("the job is in `{finished}` and in `{imported}`"));
        } else if before != is_in("expiry") {
            let (place, other) = if before { (&*imported, "expiry") } else { ("expiry", &*imported) };
            self.find(id, format!("the job is in `{place}` but is not in `{other}`"));
        } else if !here && !before && !self.seen.cascades.contains_key(id) {
            self.find(id, format!("the job is {state} but is not in `{finished}`, so it would never be pruned"));
        }
    }

    /// Every id in an index or a list belongs to an existing job.
    fn places(&mut self) {
        let seen = self.seen;
        for (place, members) in &seen.ranked {
            let index = Index::of(place);
            let kinds: BTreeSet<String> = index.iter().map(|index| index.kind.to_string()).collect();
            for id in members.iter().filter(|id| seen.missing(id)) {
                let problem = format!("the id is in `{place}` but there is no such job");
                self.find_under(id, problem, kinds.clone(), BTreeSet::new());
            }
            let ended = |id: &JobId| seen.jobs.get(id).is_some_and(|job| job.state.is_some_and(State::is_final));
            for id in members.iter().filter(|id| place == "expiry" && !seen.missing(id) && !ended(id)) {
                self.find(id, "the job has not ended but is in `expiry`, so it would be pruned");
            }
            let Some(index) = index else { continue };
            for id in members {
                if seen.jobs.get(id).is_some_and(|job| !index.takes(job)) {
                    let problem = format!("the job is in `{place}`, where it does not belong");
                    self.find_under(id, problem, kinds.clone(), BTreeSet::new());
                }
            }
        }
        for id in seen.histories.iter().filter(|id| seen.missing(id)) {
            self.find(id, "there is a history but no such job");
        }
        for name in seen.schedules.symmetric_difference(&seen.ticking) {
            let problem = "the schedule is not in `schedules`, or only there, so it has no jobs; write it again";
            self.push(format!("schedule:{name}"), problem, None);
        }
        for id in &seen.cancelling {
            let waits = seen.jobs.get(id).is_some_and(|j| j.state == Some(State::Waiting));
            if !waits && self.holder(id).is_none() {
                self.find(id, "the job is flagged for cancellation but is neither running nor waiting for items");
            }
        }
    }

    /// Invariant 2: a job is running if and only if it is leased. `jobs` compares the records with the leases.
    fn holders(&mut self) {
        let seen = self.seen;
        for (id, running) in &seen.running {
            let Some(running) = running else {
                self.find(id, "its running record cannot be read");
                continue;
            };
            if seen.missing(id) {
                self.find(id, "the id has a running record but there is no such job");
            }
            if running.permit.as_ref().is_some_and(|kind| !seen.permits.contains(&(kind.clone(), Arc::clone(id)))) {
                self.find(id, "the job is running without a permit of its kind");
            }
        }
        for (kind, id) in &seen.permits {
            if self.holder(id).is_none_or(|running| running.permit.as_ref() != Some(kind)) {
                let problem = format!("the job holds a permit of kind {kind} but is not running");
                self.find_under(id, problem, BTreeSet::from([kind.clone()]), BTreeSet::new());
            }
        }
    }

    /// A reservation must be short-lived.
    fn reservations(&mut self) {
        for (worker, ids) in &self.seen.claimed {
            for id in ids {
                let problem = format!("worker {worker} has reserved the job but does not run it");
                self.find_under(id, problem, BTreeSet::new(), BTreeSet::from([worker.clone()]));
            }
        }
    }

    /// Invariant 3: a token is issued once, so the counter is at least as high as every known token.
    fn tokens(&mut self) {
        let mut given = HashMap::new();
        for (id, running) in self.seen.running.iter().filter_map(|(id, r)| Some((id, r.as_ref()?))) {
            if let Some(other) = given.insert(running.token, id) {
                self.push(
                    id.to_string(),
                    format!("this job and job {other} run with the same token {}", running.token),
                    None,
                );
            }
        }
        let highest = given.keys().copied().chain(self.seen.jobs.values().map(|job| job.token)).max().unwrap_or(0);
        if highest > self.seen.tokens {
            let problem = format!("the counter is {} but token {highest} was issued", self.seen.tokens);
            self.push(keys::fixed(self.partition, "tokens"), problem, Some(Repair::Tokens(highest)));
        }
    }

    /// Invariant 4 for batches: a parent's counts match its items, and no parent is stuck.
    fn parents(&mut self) {
        let seen = self.seen;
        let mut items: HashMap<&JobId, ([u64; 4], u64)> = HashMap::new();
        for (id, job) in &seen.jobs {
            let Some(parent) = &job.parent else { continue };
            if seen.missing(parent) {
                self.find(id, format!("its batch {parent} does not exist"));
            }
            let (counted, total) = items.entry(&**parent).or_default();
            *total += 1;
            match job.state {
                Some(State::Completed) if job.skipped => counted[2] += 1,
                Some(State::Completed) => counted[0] += 1,
                Some(State::Failed) => counted[1] += 1,
                Some(State::Cancelled) => counted[3] += 1,
                _ => {}
            }
        }
        for (id, job) in &seen.jobs {
            if let (Some(stored), false) = (job.counts.as_deref().copied(), seen.cascades.contains_key(id)) {
                let (counted, there) = items.get(&**id).copied().unwrap_or_default();
                self.parent(id, job, stored, counted, there);
            }
        }
    }

    /// Cascades are excused while they are under way, so one that does not end must be reported.
    fn cascades(&mut self) {
        for key in ["cascades", "removals"] {
            let late = |(of, since): &(&str, i64)| *of == key && self.seen.now.saturating_sub(*since) > CASCADE_MS_MAX;
            if !self.seen.cascades.values().any(late) {
                continue;
            }
            let what = if key == "removals" { "removals" } else { "cancels and retries" };
            let minutes = CASCADE_MS_MAX / 60_000;
            let key = keys::fixed(self.partition, key);
            let problem = format!(
                "{what} of batches have been under way for more than {minutes} minutes: no worker is alive to continue \
                 them, or the workers do not keep up; `redis-cli HLEN '{key}'` counts them"
            );
            self.push(key, problem, None);
        }
    }

    fn parent(&mut self, id: &JobId, job: &Record, stored: [u64; 5], mut counted: [u64; 4], there: u64) {
        let gone = stored[0].saturating_sub(there);
        // A missing item can neither succeed nor run.
        counted[1] += gone;
        if there > stored[0] {
            self.push(id.to_string(), format!("it counts {} items but there are {there}", stored[0]), None);
        }
        if stored[1..] != counted {
            let problem = format!(
                "it counts {:?} items succeeded, failed, skipped and cancelled, and there are {counted:?}, {gone} of \
                 them gone",
                &stored[1..]
            );
            self.push(id.to_string(), problem, Some(Repair::Counts { id: id.clone(), stored, counted }));
        }
        let ended: u64 = counted.iter().sum();
        if job.state == Some(State::Waiting) && job.sealed && ended == stored[0] {
            self.find(id, "all its items have ended but it is still waiting");
        }
        if job.state.is_some_and(State::is_final) && ended < stored[0] {
            self.push(id.to_string(), "it has ended but not all its items have", None);
        }
    }
}
