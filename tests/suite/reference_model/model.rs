//! What the Store is to do, without Redis: jobs by id, and time.
use std::collections::{BTreeMap, BTreeSet};

use leasehold::store::{Held, Outcome, Settle, Settled};
use leasehold::{Job, JobId, State};

use crate::clocked_store::{complete, fail, json, release};

/// How a claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Complete,
    Skip,
    Retry(u64),
    Fail,
    Release,
    ReleaseLater(u64),
}

impl Ending {
    pub fn settle(self, held: Held) -> Settle {
        match self {
            Ending::Complete => complete(&held),
            Ending::Skip => Settle {
                held,
                outcome: Outcome::Complete { result: json("null"), skipped: Some("none".into()), files: Vec::new() },
            },
            Ending::Retry(ms) => fail(&held, Some(ms)),
            Ending::Fail => fail(&held, None),
            Ending::Release => release(&held),
            Ending::ReleaseLater(ms) => Settle { held, outcome: Outcome::Release { delay_ms: Some(ms) } },
        }
    }
}

/// Whether an operator's call does something.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Refused,
}

/// What is compared after each call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    state: State,
    failures: u32,
    crashes: u32,
    flagged: bool,
    holder: Option<(u64, String)>,
    /// Total, succeeded, failed, skipped, cancelled.
    items: Option<[u64; 5]>,
}

pub fn view(job: &Job) -> View {
    let holder = (job.state == State::Running).then(|| (job.token.unwrap(), job.worker.as_ref().unwrap().to_string()));
    View {
        state: job.state,
        failures: job.attempt - 1,
        crashes: job.crashes,
        flagged: job.cancel_requested,
        holder,
        items: job.items.map(|i| [i.total, i.succeeded, i.failed, i.skipped, i.cancelled]),
    }
}

#[derive(Debug, Clone)]
struct Entry {
    view: View,
    limited: bool,
    due: i64,
    lease_end: i64,
    token: u64,
    skipped: bool,
    parent: Option<JobId>,
    items: Vec<JobId>,
    sealed: bool,
    open_until: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cascade {
    Cancel,
    Retry,
    Remove,
}

/// The whole system.
pub struct Model {
    pub now: i64,
    pub paused: bool,
    lease: i64,
    gap_max: i64,
    stamp: Option<i64>,
    /// From, until, and when the first of a row of gaps was seen.
    grace: Option<(i64, i64, i64)>,
    jobs: BTreeMap<JobId, Entry>,
    cascades: BTreeMap<JobId, Cascade>,
    gone: BTreeSet<JobId>,
}

const MAX_ATTEMPTS: u32 = 3;
const MAX_CRASHES: u32 = 3;

impl Model {
    pub fn new(now: i64, lease: i64) -> Self {
        Self {
            now,
            paused: false,
            lease,
            gap_max: lease / 3,
            stamp: None,
            grace: None,
            jobs: BTreeMap::new(),
            cascades: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }

    fn entry(&mut self, id: &JobId, state: State) -> &mut Entry {
        let view = View { state, failures: 0, crashes: 0, flagged: false, holder: None, items: None };
        let entry = Entry {
            view,
            limited: false,
            due: 0,
            lease_end: 0,
            token: 0,
            skipped: false,
            parent: None,
            items: Vec::new(),
            sealed: false,
            open_until: i64::MAX,
        };
        self.jobs.entry(id.clone()).or_insert(entry)
    }

    pub fn submit(&mut self, id: &JobId, limited: bool, delay: i64) {
        let due = self.now + delay;
        let entry = self.entry(id, if delay > 0 { State::Scheduled } else { State::Queued });
        (entry.limited, entry.due) = (limited, due);
    }

    pub fn batch(&mut self, id: &JobId, _open: bool) {
        let until = self.now + 3_600_000;
        let entry = self.entry(id, State::Waiting);
        (entry.view.items, entry.open_until) = (Some([0; 5]), until);
    }

    pub fn append(&mut self, parent: &JobId, ids: &[JobId], last: bool) {
        for id in ids {
            self.entry(id, State::Queued).parent = Some(parent.clone());
        }
        let until = self.now + 3_600_000;
        let entry = self.jobs.get_mut(parent).unwrap();
        entry.items.extend(ids.iter().cloned());
        entry.view.items.as_mut().unwrap()[0] += ids.len() as u64;
        entry.open_until = if last { i64::MAX } else { until };
        entry.sealed |= last;
        self.finish(parent);
    }

    /// A job that comes from another store.
    pub fn import(&mut self, id: &JobId, state: State, skipped: bool) {
        self.gone.remove(id);
        self.entry(id, state).skipped = skipped;
    }

    /// A batch that comes from another store, whole; it ends as it had ended once all its items have.
    pub fn import_batch(&mut self, parent: &JobId, items: &[(JobId, State, bool)], ended: State) {
        self.gone.remove(parent);
        self.batch(parent, false);
        for (id, state, skipped) in items {
            self.import(id, *state, *skipped);
            self.jobs.get_mut(id).unwrap().parent = Some(parent.clone());
        }
        let entry = self.jobs.get_mut(parent).unwrap();
        entry.items = items.iter().map(|(id, ..)| id.clone()).collect();
        (entry.sealed, entry.open_until) = (true, i64::MAX);
        self.recount(parent);
        self.finish(parent);
        let entry = self.jobs.get_mut(parent).unwrap();
        if entry.view.state.is_final() {
            entry.view.state = ended;
        }
    }

    pub fn claim(&mut self, held: &Held, worker: &str, attempts: u32, crashes: u32) {
        assert!(!self.paused, "nothing is claimed from a paused queue");
        let narrow = self.jobs.values().filter(|j| j.limited && j.view.state == State::Running).count();
        let newest = self.jobs.values().map(|j| j.token).max().unwrap_or(0);
        let (lease_end, partitioned_newest) = (self.now + self.lease, newest);
        let entry = self.jobs.get_mut(&held.id).expect("only what was submitted is claimed");
        assert_eq!(entry.view.state, State::Queued, "only what is queued is claimed");
        assert!(!entry.limited || narrow < 2, "max_running holds");
        assert!(held.token > entry.token, "a token is larger with every claim ({partitioned_newest})");
        // A test asks for more retries than a worker would; what is shown stops at the last attempt.
        assert_eq!((attempts.min(MAX_ATTEMPTS - 1), crashes), (entry.view.failures, entry.view.crashes));
        entry.view.state = State::Running;
        entry.view.holder = Some((held.token, worker.to_owned()));
        (entry.token, entry.lease_end) = (held.token, lease_end);
    }

    /// What a worker with free slots ought to have been given.
    pub fn claimable(&self) -> Vec<JobId> {
        let narrow = self.jobs.values().filter(|j| j.limited && j.view.state == State::Running).count();
        let can = |j: &Entry| j.view.state == State::Queued && !self.paused && (!j.limited || narrow < 2);
        self.jobs.iter().filter(|(_, j)| can(j)).map(|(id, _)| id.clone()).collect()
    }

    pub fn settle(&mut self, id: &JobId, ending: Ending) -> Settled {
        let flagged = self.jobs[id].view.flagged;
        let now = self.now;
        let entry = self.jobs.get_mut(id).unwrap();
        let state = match ending {
            Ending::Complete | Ending::Skip => State::Completed,
            _ if flagged => State::Cancelled,
            Ending::Retry(ms) => {
                entry.due = now + ms as i64;
                State::Retrying
            }
            Ending::Fail => State::Failed,
            Ending::Release => State::Queued,
            Ending::ReleaseLater(ms) => {
                entry.due = now + ms as i64;
                State::Retrying
            }
        };
        if !flagged && matches!(ending, Ending::Retry(_)) {
            entry.view.failures = (entry.view.failures + 1).min(MAX_ATTEMPTS - 1);
        }
        entry.skipped = ending == Ending::Skip;
        self.leave(id, state);
        Settled::To(state)
    }

    /// A running job goes to another state.
    fn leave(&mut self, id: &JobId, state: State) {
        let entry = self.jobs.get_mut(id).unwrap();
        (entry.view.state, entry.view.holder, entry.view.flagged) = (state, None, false);
        if state.is_final() {
            self.ended(id);
        }
    }

    fn ended(&mut self, id: &JobId) {
        if let Some(parent) = self.jobs[id].parent.clone() {
            self.recount(&parent);
            self.finish(&parent);
        }
    }

    fn recount(&mut self, parent: &JobId) {
        let Some(entry) = self.jobs.get(parent) else { return };
        let mut counts = [entry.items.len() as u64, 0, 0, 0, 0];
        for item in entry.items.iter().filter_map(|id| self.jobs.get(id)) {
            match item.view.state {
                State::Completed if item.skipped => counts[3] += 1,
                State::Completed => counts[1] += 1,
                State::Failed => counts[2] += 1,
                State::Cancelled => counts[4] += 1,
                _ => {}
            }
        }
        self.jobs.get_mut(parent).unwrap().view.items = Some(counts);
    }

    fn finish(&mut self, parent: &JobId) {
        let entry = &self.jobs[parent];
        let counts = entry.view.items.unwrap();
        let ended: u64 = counts[1..].iter().sum();
        let done = entry.view.state == State::Waiting && entry.sealed && ended == counts[0];
        if done && !self.cascades.contains_key(parent) {
            let state = if entry.view.flagged { State::Cancelled } else { State::Completed };
            let entry = self.jobs.get_mut(parent).unwrap();
            (entry.view.state, entry.view.flagged) = (state, false);
        }
    }

    pub fn renew(&mut self, held: &[Held]) {
        for held in held {
            let entry = self.jobs.get_mut(&held.id).unwrap();
            entry.lease_end = self.now + self.lease;
        }
    }

    pub fn stamp(&mut self) {
        if let Some(last) = self.stamp.filter(|last| self.now - last > self.gap_max) {
            let (from, began) = match self.grace {
                Some((from, until, began)) if last < until && self.now - began <= 10 * self.lease => {
                    (from.min(last), began)
                }
                _ => (last, self.now),
            };
            self.grace = Some((from, self.now + self.lease, began));
        }
        self.stamp = Some(self.now);
    }

    pub fn sweep(&mut self) {
        self.stamp();
        let unsealed: Vec<JobId> =
            self.jobs.iter().filter(|(_, j)| j.open_until <= self.now).map(|(id, _)| id.clone()).collect();
        let now = self.now;
        for entry in self.jobs.values_mut() {
            if matches!(entry.view.state, State::Scheduled | State::Retrying) && entry.due <= now {
                entry.view.state = State::Queued;
            }
        }
        let cutoff = match self.grace {
            Some((from, until, _)) if now < until => now.min(from),
            _ => now,
        };
        let lost = |j: &Entry| j.view.state == State::Running && j.lease_end <= cutoff;
        let ids: Vec<JobId> = self.jobs.iter().filter(|(_, j)| lost(j)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.reclaim(&id);
        }
        for id in unsealed {
            self.cancel(&id);
        }
    }

    fn reclaim(&mut self, id: &JobId) {
        let entry = self.jobs.get_mut(id).unwrap();
        let state = if entry.view.flagged {
            State::Cancelled
        } else {
            entry.view.crashes += 1;
            if entry.view.crashes >= MAX_CRASHES { State::Failed } else { State::Queued }
        };
        entry.skipped = false;
        self.leave(id, state);
    }

    fn cascade(&mut self, parent: &JobId, cascade: Cascade) {
        for id in self.jobs[parent].items.clone() {
            let state = self.jobs[&id].view.state;
            match cascade {
                Cascade::Cancel => drop(self.cancel(&id)),
                Cascade::Retry if matches!(state, State::Failed | State::Cancelled) => self.requeue(&id),
                Cascade::Retry => {}
                Cascade::Remove => self.drop_job(&id),
            }
        }
        self.cascades.remove(parent);
        if cascade == Cascade::Remove { self.drop_job(parent) } else { self.finish(parent) }
    }

    fn drop_job(&mut self, id: &JobId) {
        self.jobs.remove(id);
        self.gone.insert(id.clone());
    }

    fn requeue(&mut self, id: &JobId) {
        let entry = self.jobs.get_mut(id).unwrap();
        (entry.view.state, entry.view.failures, entry.view.crashes) = (State::Queued, 0, 0);
        if let Some(parent) = entry.parent.clone() {
            self.recount(&parent);
        }
    }

    pub fn cancel(&mut self, id: &JobId) -> Answer {
        let entry = self.jobs.get_mut(id).unwrap();
        match entry.view.state {
            State::Completed | State::Failed => return Answer::Refused,
            State::Cancelled => {}
            State::Running => entry.view.flagged = true,
            State::Waiting => {
                // A second cancel walks the items again, unless the first is still on its way.
                if !entry.view.flagged || !self.cascades.contains_key(id) {
                    (entry.view.flagged, entry.sealed, entry.open_until) = (true, true, i64::MAX);
                    self.cascades.insert(id.clone(), Cascade::Cancel);
                    self.cascade(id, Cascade::Cancel);
                }
            }
            _ => {
                entry.view.state = State::Cancelled;
                self.ended(id);
            }
        }
        Answer::Done
    }

    pub fn retry(&mut self, id: &JobId) -> Answer {
        let entry = self.jobs[id].clone();
        if self.cascades.contains_key(id) && entry.view.state.is_final() {
            return Answer::Refused;
        }
        if let Some(counts) = entry.view.items {
            let open = counts[2] + counts[4] > 0;
            if !entry.view.state.is_final() || (entry.view.state == State::Completed && !open) {
                return Answer::Refused;
            }
            self.jobs.get_mut(id).unwrap().view.state = State::Waiting;
            if open {
                self.cascades.insert(id.clone(), Cascade::Retry);
                self.cascade(id, Cascade::Retry);
            }
            self.finish(id);
            return Answer::Done;
        }
        if !matches!(entry.view.state, State::Failed | State::Cancelled) {
            return Answer::Refused;
        }
        if let Some(parent) = &entry.parent {
            let parent = &self.jobs[parent].view;
            if parent.flagged || parent.state != State::Waiting {
                return Answer::Refused;
            }
        }
        self.requeue(id);
        Answer::Done
    }

    pub fn remove(&mut self, id: &JobId) -> Answer {
        let entry = &self.jobs[id];
        if entry.parent.is_some() || !entry.view.state.is_final() {
            return Answer::Refused;
        }
        if entry.items.is_empty() {
            self.drop_job(id);
        } else {
            // The few items of a batch are one step, which the verb takes itself.
            self.cascades.insert(id.clone(), Cascade::Remove);
            self.cascade(id, Cascade::Remove);
        }
        Answer::Done
    }

    pub fn view(&self, id: &JobId) -> View {
        self.jobs[id].view.clone()
    }

    pub fn state(&self, id: &JobId) -> State {
        self.jobs[id].view.state
    }

    pub fn ids(&self) -> Vec<JobId> {
        self.jobs.keys().cloned().collect()
    }

    pub fn gone(&self) -> &BTreeSet<JobId> {
        &self.gone
    }

    pub fn contains(&self, id: &JobId) -> bool {
        self.jobs.contains_key(id)
    }

    pub fn parents(&self) -> Vec<JobId> {
        self.jobs.iter().filter(|(_, j)| j.view.items.is_some()).map(|(id, _)| id.clone()).collect()
    }

    pub fn running(&self) -> Vec<JobId> {
        self.jobs.iter().filter(|(_, j)| j.view.state == State::Running).map(|(id, _)| id.clone()).collect()
    }

    pub fn items_of(&self, parent: &JobId) -> usize {
        self.jobs[parent].items.len()
    }

    pub fn is_sealed(&self, parent: &JobId) -> bool {
        self.jobs[parent].sealed
    }

    pub fn holder(&self, id: &JobId) -> ((JobId, u64), String) {
        let (token, worker) = self.jobs[id].view.holder.clone().unwrap();
        ((id.clone(), token), worker)
    }

    pub fn held_by(&self, worker: &str) -> Vec<(JobId, u64)> {
        let held = |(id, j): (&JobId, &Entry)| {
            let (token, holder) = j.view.holder.clone()?;
            (holder == worker).then(|| (id.clone(), token))
        };
        self.jobs.iter().filter_map(held).collect()
    }

    pub fn claimed_since(&self, held: &Held) -> bool {
        self.jobs[&held.id].token != held.token
    }
}
