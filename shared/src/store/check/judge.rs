//! Holds the design's invariants against what a walk saw.
use std::collections::{BTreeSet, HashMap, HashSet};

use super::seen::{PLACES, Record, Running, Seen};
use crate::store::finding::{Finding, Repair};
use crate::store::wire::keys;
use crate::{JobId, Kind, State};

/// What is wrong in a partition.
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
    judge.findings
}

struct Judge<'a> {
    partition: u16,
    seen: &'a Seen,
    findings: Vec<Finding>,
}

impl<'a> Judge<'a> {
    /// A finding that is repaired by putting the job's id where it belongs.
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

    /// The record of whoever runs a job.
    fn holder(&self, id: &JobId) -> Option<&'a Running> {
        self.seen.running.get(id).and_then(Option::as_ref)
    }

    /// Invariants 1 and 4: a job is where its state says, and in no other state's place.
    fn jobs(&mut self) {
        let seen = self.seen;
        let reserved: HashSet<&JobId> = seen.claimed.values().flatten().collect();
        for (id, job) in &seen.jobs {
            let runs = self.holder(id).is_some();
            let state = job.state.unwrap_or(if runs { State::Running } else { State::Queued });
            for (place, of) in PLACES {
                match (seen.in_place(place, id), of == state) {
                    (true, false) => self.find(id, format!("it is {state}, and stands in `{place}`")),
                    (false, true) => self.find(id, format!("it is {state}, and does not stand in `{place}`")),
                    _ => {}
                }
            }
            if runs && job.state.is_some() {
                self.find(id, format!("it is {state}, and has a running record"));
            }
            if state == State::Queued && !seen.listed.contains(id) && !reserved.contains(id) {
                self.find(id, "it is queued, and stands in no list");
            }
            if !seen.kinds.contains(job.kind.as_str()) || !seen.queues.contains(job.queue.as_str()) {
                self.find(id, "its kind or its queue is not registered, so listings pass it over");
            }
            if job.parent.is_none() {
                self.top_level(id, job, state);
            }
        }
    }

    fn top_level(&mut self, id: &JobId, job: &Record, state: State) {
        if !self.seen.in_place(&keys::kind_suffix(&job.kind), id) {
            self.find(id, format!("it is not listed under its kind {}", job.kind));
        }
        let finished = keys::finished_suffix(&job.kind);
        for place in ["expiry", finished.as_str()] {
            let prunable = self.seen.in_place(place, id);
            if state.is_final() && !prunable && !self.seen.cascades.contains(id) {
                self.find(id, format!("it has ended, and does not stand in `{place}`, so it would never be pruned"));
            }
            if !state.is_final() && prunable {
                self.find(id, format!("it has not ended, and stands in `{place}`, so it would be pruned"));
            }
        }
        let unsealed = state == State::Waiting && !job.sealed;
        match (unsealed, self.seen.in_place("open", id)) {
            (true, false) => self.find(id, "it waits for more items, and does not stand in `open`: it would for ever"),
            (false, true) => self.find(id, "it takes no more items, and stands in `open`"),
            _ => {}
        }
    }

    /// Whatever stands for a job stands for one that is there.
    fn places(&mut self) {
        let seen = self.seen;
        for (place, members) in &seen.ranked {
            let index = ["kind:", "finished:"].iter().find_map(|sort| place.strip_prefix(sort));
            let index = index.and_then(|k| Kind::parse(k).ok());
            let kinds: BTreeSet<String> = index.iter().map(Kind::to_string).collect();
            for id in members.iter().filter(|id| seen.missing(id)) {
                let problem = format!("it stands in `{place}`, and there is no such job");
                self.find_under(id, problem, kinds.clone(), BTreeSet::new());
            }
            let Some(index) = index else { continue };
            for id in members {
                if seen.jobs.get(id).is_some_and(|job| job.parent.is_some() || job.kind != index) {
                    let problem = format!("it is listed under kind {index}, where it does not belong");
                    self.find_under(id, problem, kinds.clone(), BTreeSet::new());
                }
            }
        }
        for id in seen.histories.iter().filter(|id| seen.missing(id)) {
            self.find(id, "it has a history, and there is no such job");
        }
        for id in &seen.cancelling {
            let waits = seen.jobs.get(id).is_some_and(|j| j.state == Some(State::Waiting));
            if !waits && self.holder(id).is_none() {
                self.find(id, "it is flagged for a cancel, and neither runs nor waits for items");
            }
        }
    }

    /// Invariant 2: running, leased and held are one.
    fn holders(&mut self) {
        let seen = self.seen;
        for (id, running) in &seen.running {
            let Some(running) = running else {
                self.find(id, "its running record cannot be read");
                continue;
            };
            let worker = &running.worker;
            if !seen.claimed.get(worker).is_some_and(|ids| ids.contains(id)) {
                self.find(id, format!("{worker} runs it, and does not have it in its claimed list"));
            }
            if seen.missing(id) {
                self.find(id, "it runs, and there is no such job");
            }
            if running.permit.as_ref().is_some_and(|kind| !seen.permits.contains(&(kind.clone(), id.clone()))) {
                self.find(id, "it runs, and has no permit of its kind");
            }
        }
        for (kind, id) in &seen.permits {
            if self.holder(id).is_none_or(|running| running.permit.as_ref() != Some(kind)) {
                let problem = format!("it holds a permit of kind {kind}, and does not run");
                self.find_under(id, problem, BTreeSet::from([kind.clone()]), BTreeSet::new());
            }
        }
    }

    /// An id in a claimed list without a lease is short-lived.
    fn reservations(&mut self) {
        for (worker, ids) in &self.seen.claimed {
            for id in ids {
                if self.holder(id).is_none_or(|running| running.worker != *worker) {
                    let problem = format!("{worker} reserved it, and does not run it");
                    self.find_under(id, problem, BTreeSet::new(), BTreeSet::from([worker.clone()]));
                }
            }
        }
    }

    /// Invariant 3: a token is given once, so the counter stands above all that are known.
    fn tokens(&mut self) {
        let mut given = HashMap::new();
        for (id, running) in self.seen.running.iter().filter_map(|(id, r)| Some((id, r.as_ref()?))) {
            if let Some(other) = given.insert(running.token, id) {
                self.push(
                    id.to_string(),
                    format!("it and job {other} run with the same token {}", running.token),
                    None,
                );
            }
        }
        let highest = given.keys().copied().chain(self.seen.jobs.values().map(|job| job.token)).max().unwrap_or(0);
        if highest > self.seen.tokens {
            let problem = format!("the counter stands at {}, and token {highest} was given", self.seen.tokens);
            self.push(keys::fixed(self.partition, "tokens"), problem, Some(Repair::Tokens(highest)));
        }
    }

    /// Invariant 4 for batches: a parent's counts are those of its items, and none is stuck.
    fn parents(&mut self) {
        let seen = self.seen;
        let mut items: HashMap<&JobId, ([u64; 4], u64)> = HashMap::new();
        for (id, job) in &seen.jobs {
            let Some(parent) = &job.parent else { continue };
            if seen.missing(parent) {
                self.find(id, format!("its batch {parent} is gone"));
            }
            let (counted, total) = items.entry(parent).or_default();
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
            if let (Some(stored), false) = (job.counts, seen.cascades.contains(id)) {
                let (counted, there) = items.get(id).copied().unwrap_or_default();
                self.parent(id, job, stored, counted, there);
            }
        }
    }

    fn parent(&mut self, id: &JobId, job: &Record, stored: [u64; 5], mut counted: [u64; 4], there: u64) {
        let gone = stored[0].saturating_sub(there);
        // What is gone can neither succeed nor run.
        counted[1] += gone;
        if there > stored[0] {
            self.push(id.to_string(), format!("it counts {} items, and there are {there}", stored[0]), None);
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
            self.find(id, "its items have all ended, and it still waits");
        }
        if job.state.is_some_and(State::is_final) && ended < stored[0] {
            self.push(id.to_string(), "it has ended, and not all its items have", None);
        }
    }
}
