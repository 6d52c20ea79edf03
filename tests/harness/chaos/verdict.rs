//! The verdict: what must hold after a run, whatever was killed.
use std::collections::{HashMap, HashSet};
use std::fmt;

use leasehold::{Job, State};
use serde_json::Value;

use super::evidence::Evidence;
use super::faults::{Struck, Way};
use super::fleet::LEASE_MS;
use super::load::{Heard, Step, Submit};
use super::work::Run;

/// Something that must not be.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    /// The job, if it is about one.
    pub job: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.job.as_deref().unwrap_or("all"), self.what)
    }
}

#[derive(Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, job: impl Into<Option<String>>, what: impl Into<String>) {
        self.0.push(Violation { job: job.into(), what: what.into() });
    }
}

/// What a row of the matrix has in figures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Jobs that clients know of.
    pub acknowledged: usize,
    /// The most runs that one job had which neither failed as it was asked to nor was cancelled.
    pub executions: usize,
    /// Acknowledged jobs that are gone.
    pub lost: usize,
    /// Acknowledged jobs that are not final.
    pub stuck: usize,
}

impl Evidence {
    /// The run in the matrix's figures.
    pub fn figures(&self) -> Figures {
        let there: HashSet<&str> = self.jobs.iter().map(|job| job.id.as_str()).collect();
        let known: HashSet<&str> = self.submits.iter().filter_map(Submit::id).collect();
        let changed: HashSet<&str> =
            self.submits.iter().filter(|submit| !submit.steps.is_empty()).filter_map(Submit::id).collect();
        let asked: HashSet<&str> = self.running_jobs().filter(|job| fails(job)).map(|job| job.id.as_str()).collect();
        let mut runs: HashMap<&str, usize> = HashMap::new();
        for run in self.runs.iter().map(|run| run.job.as_str()) {
            *runs.entry(run).or_default() += usize::from(!changed.contains(run) && !asked.contains(run));
        }
        Figures {
            acknowledged: known.len(),
            executions: runs.into_values().max().unwrap_or(0),
            lost: known.difference(&there).count(),
            stuck: self.jobs.iter().filter(|job| !job.state.is_final()).count(),
        }
    }

    /// Everything that must not be; empty: the run passed.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Violations::default();
        self.submits.iter().for_each(|submit| answers(submit, &mut found));
        self.one_job_a_key(&mut found);
        self.tokens(&mut found);
        let mut runs: HashMap<&str, Vec<&Run>> = HashMap::new();
        self.runs.iter().for_each(|run| runs.entry(&run.job).or_default().push(run));
        let submits = self.submits.iter().filter_map(|submit| Some((submit.id()?, submit)));
        let submits: HashMap<&str, &Submit> = submits.collect();
        for job in self.running_jobs() {
            let (mut runs, id) = (runs.remove(job.id.as_str()).unwrap_or_default(), job.id.as_str());
            runs.retain(|run| !self.began_too_late(run, job));
            let submit = submits.get(id);
            if submit.is_none_or(|submit| submit.steps.is_empty()) {
                ended_once(job, &runs, &mut found);
                self.executions(job, &runs, &mut found);
            } else if let Some(submit) = submit {
                ended_as_asked(job, submit, &runs, &mut found);
            }
        }
        for (job, runs) in runs {
            found.add(job.to_owned(), format!("it ran {} times, and nobody knows it", runs.len()));
        }
        found.0
    }

    /// What must not be although Redis may have lost the tail of what it acknowledged: a job that nobody submitted,
    /// one that is not final or whose result is another's, a token that was given twice. Lost jobs are counted in the
    /// figures.
    pub fn violations_after_a_rollback(&self) -> Vec<Violation> {
        let mut found = Violations::default();
        let tries = self.submits.iter().flat_map(|submit| &submit.tries);
        let known: HashSet<&str> = tries
            .filter_map(|(.., heard)| match heard {
                Heard::Made(id) | Heard::Known(id) => Some(id.as_str()),
                _ => None,
            })
            .collect();
        for job in self.jobs.iter().filter(|job| !known.contains(job.id.as_str())) {
            found.add(job.id.to_string(), "no client knows it");
        }
        for job in self.running_jobs() {
            let number = |json: &str| serde_json::from_str::<Value>(json).unwrap_or_default()["number"].clone();
            let result = job.result.as_ref().map(|json| number(json.as_str()));
            match job.state {
                State::Cancelled => {}
                State::Completed if result == Some(number(job.payload.as_str())) => {}
                state => found.add(job.id.to_string(), format!("it is {state:?} with the result {result:?}")),
            }
        }
        self.tokens(&mut found);
        found.0
    }

    /// Accepted and gone: none. There and never accepted: none. So a key has one job.
    fn one_job_a_key(&self, found: &mut Violations) {
        let mut listed: HashMap<&str, &Job> = HashMap::new();
        for job in &self.jobs {
            if listed.insert(job.id.as_str(), job).is_some() {
                found.add(job.id.to_string(), "it is listed twice");
            }
        }
        let mut keys: HashMap<&str, &str> = HashMap::new();
        for submit in &self.submits {
            let Some(id) = submit.id() else { continue };
            if let Some(other) = keys.insert(id, &submit.key) {
                found.add(id.to_owned(), format!("it answers to two keys, {other} and {}", submit.key));
            }
            match listed.remove(id) {
                Some(job) => {
                    self.as_submitted(submit, job, found);
                    self.file_is_there(submit, job, found);
                }
                None => found.add(id.to_owned(), format!("{} was acknowledged, and is gone", submit.key)),
            }
        }
        for id in listed.into_keys() {
            found.add(id.to_owned(), "no client knows it: a second job of some key");
        }
    }

    fn as_submitted(&self, submit: &Submit, job: &Job, found: &mut Violations) {
        let payload = |job: &Job| serde_json::from_str::<Value>(job.payload.as_str()).unwrap_or_default();
        let mut made = match job.items {
            None => vec![payload(job)],
            Some(_) => self.items.get(job.id.as_str()).into_iter().flatten().map(payload).collect(),
        };
        for wanted in submit.payloads() {
            match made.iter().position(|payload| payload == wanted) {
                Some(at) => drop(made.swap_remove(at)),
                None => found.add(job.id.to_string(), format!("its payload {wanted} is lost")),
            }
        }
        if !made.is_empty() {
            found.add(job.id.to_string(), format!("it has what nobody submitted: {made:?}"));
        }
        let Some(items) = &job.items else { return };
        let total = submit.payloads().len() as u64;
        if job.state != State::Completed || (items.total, items.succeeded) != (total, total) || items.open {
            found.add(job.id.to_string(), format!("a batch of {total} that ended {:?} with {items:?}", job.state));
        }
    }

    /// The run that completed it had the file, and what it left is what can be fetched.
    fn file_is_there(&self, submit: &Submit, job: &Job, found: &mut Violations) {
        let Some(file) = submit.file.as_ref().filter(|_| job.state == State::Completed) else { return };
        let (wanted, left) = (format!("{file} {}", job.token.unwrap_or_default()), &self.outputs[job.id.as_str()]);
        if *left != wanted {
            let end: String = left.chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect();
            found.add(job.id.to_string(), format!("its file is not what its last run left: …{end}"));
        }
    }

    /// No token is given twice in a partition, and a job's tokens grow.
    fn tokens(&self, found: &mut Violations) {
        let (mut given, mut last) = (HashMap::new(), HashMap::new());
        let of: HashMap<&str, &Job> = self.running_jobs().map(|job| (job.id.as_str(), job)).collect();
        for run in &self.runs {
            if of.get(run.job.as_str()).is_some_and(|job| self.began_too_late(run, job)) {
                continue;
            }
            if let Some(other) = given.insert((self.partitions[&run.job], run.token), &run.job) {
                found.add(run.job.clone(), format!("token {} was given twice, the other time to {other}", run.token));
            }
            if let Some(before) = last.insert(&run.job, run.token).filter(|before| *before >= run.token) {
                found.add(run.job.clone(), format!("token {} came after token {before}", run.token));
            }
        }
    }

    /// Whether a fault explains that the run was not the last: its worker was killed, or was out of contact meanwhile.
    fn is_excused(&self, run: &Run) -> bool {
        let after = (2 * LEASE_MS) as f64 / 1_000.0;
        let overlaps = |struck: &Struck| {
            let (at, back_at) = (self.booted + struck.at.as_secs_f64(), self.booted + struck.back_at.as_secs_f64());
            // A run that has just ended may not have been settled yet.
            run.begun <= back_at + after && run.ended + after >= at
        };
        let hits = |struck: &Struck| struck.workers.contains(&run.worker_pid);
        self.struck.iter().any(|struck| hits(struck) && (struck.fault.way == Way::Kill || overlaps(struck)))
    }

    /// Whether the worker was stopped between its claim and the begin of the handler, so that the run began under a
    /// lease that another had already taken.
    fn began_too_late(&self, run: &Run, job: &Job) -> bool {
        let is_overtaken = |other: &Run| other.job == run.job && other.token > run.token && other.begun < run.begun;
        let stops = |struck: &Struck| struck.fault.way != Way::Kill && struck.workers.contains(&run.worker_pid);
        job.token != Some(run.token)
            && self.struck.iter().any(stops)
            && self.is_excused(run)
            && self.runs.iter().any(is_overtaken)
    }

    /// A run that was not the last is explained by a fault, or failed as its payload asked.
    fn executions(&self, job: &Job, runs: &[&Run], found: &mut Violations) {
        let (_, superseded) = runs.split_last().map_or((None, &[][..]), |(last, rest)| (Some(last), rest));
        let mut failures = 0;
        for run in superseded.iter().filter(|run| !self.is_excused(run)) {
            match run.code {
                Some(75) => failures += 1,
                _ => found.add(job.id.to_string(), format!("it ran again, though nothing befell {run:?}")),
            }
        }
        let asked = usize::from(fails(job));
        if failures > asked {
            found.add(job.id.to_string(), format!("it failed {failures} times, and was asked to fail {asked} times"));
        }
        let hit = superseded.iter().filter(|run| self.is_excused(run)).count();
        let faults: usize = self.struck.iter().map(|struck| struck.workers.len()).sum();
        if job.crashes as usize > faults || (hit == 0 && runs.len() > 1 + asked) {
            found.add(
                job.id.to_string(),
                format!("{} crashes are counted, {hit} of its workers were struck", job.crashes),
            );
        }
    }
}

fn fails(job: &Job) -> bool {
    job.payload.as_str().contains("\"fails\":true")
}

/// Each try was answered truthfully, and all alike.
fn answers(submit: &Submit, found: &mut Violations) {
    let Some(id) = submit.id() else {
        found.add(None, format!("{} was never answered: {:?}", submit.key, submit.tries));
        return;
    };
    let (mut maybe_done, mut done) = (false, false);
    for (.., heard) in &submit.tries {
        match heard {
            Heard::Made(other) | Heard::Known(other) if other != id => {
                found.add(id.to_owned(), format!("{} was answered with {other} too", submit.key));
            }
            Heard::Made(_) if done => found.add(id.to_owned(), "it was made a second time"),
            Heard::Known(_) if !maybe_done => {
                found.add(id.to_owned(), "it was there though nothing was said to be done")
            }
            Heard::Made(_) | Heard::Known(_) => (maybe_done, done) = (true, true),
            Heard::Unknown(_) => maybe_done = true,
            Heard::NotDone(_) => {}
            Heard::Odd(what) => found.add(id.to_owned(), format!("{} was answered {what}", submit.key)),
        }
    }
}

/// It completed, by the run whose token it bears, and no other run's result was taken.
fn ended_once(job: &Job, runs: &[&Run], found: &mut Violations) {
    let id = || job.id.to_string();
    if job.state != State::Completed {
        found.add(id(), format!("it was acknowledged, and is {:?}", job.state));
        return;
    }
    let payload: Value = serde_json::from_str(job.payload.as_str()).unwrap_or_default();
    let result =
        job.result.as_ref().map_or(Value::Null, |json| serde_json::from_str(json.as_str()).unwrap_or_default());
    if result["number"] != payload["number"] || result["token"].as_u64() != job.token {
        found.add(id(), format!("token {:?} completed it, but its result is {result}", job.token));
    }
    match runs.last() {
        Some(last) if Some(last.token) == job.token && last.code == Some(0) => {}
        last => found.add(id(), format!("token {:?} completed it, but its last run was {last:?}", job.token)),
    }
    let attempt = 1 + u32::from(fails(job));
    if job.attempt != attempt || runs.last().is_some_and(|run| run.attempt != attempt) {
        found.add(id(), format!("it completed in attempt {}, not in {attempt}", job.attempt));
    }
}

/// A job that its client cancelled, and perhaps retried, ended as the client was answered; by its last run, if it
/// completed.
fn ended_as_asked(job: &Job, submit: &Submit, runs: &[&Run], found: &mut Violations) {
    let ends = submit.ends();
    if !ends.contains(&job.state) {
        found
            .add(job.id.to_string(), format!("it is {:?}, and should be {ends:?} after {:?}", job.state, submit.steps));
    }
    for step in &submit.steps {
        if let Step::Odd(what) = step {
            found.add(job.id.to_string(), format!("a cancel or a retry was answered {what}"));
        }
    }
    if job.state == State::Completed && runs.last().is_none_or(|last| Some(last.token) != job.token) {
        found.add(
            job.id.to_string(),
            format!("token {:?} completed it, but its last run was {:?}", job.token, runs.last()),
        );
    }
}
