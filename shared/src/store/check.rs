//! The consistency check: walks a partition's keys and holds the design's invariants against them.
//!
//! Tests run it when all is quiet, and nothing may be found. `leasehold doctor` runs it on a live system, where a walk
//! sees different moments: there a finding counts when it is seen twice.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use redis::Value;

use super::inspect::{array, number, text};
use super::{Args, Repeat, Store, keys, scripts};
use crate::{JobId, Kind, Result, State};

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    /// Where.
    pub partition: u16,
    /// The job or key it is about.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// How it can be mended, if it can.
    pub repair: Option<Repair>,
}

/// Puts a job's id where its record says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repair {
    id: JobId,
    listed: bool,
    indexed: Option<Kind>,
}

/// What one walk saw of a partition.
#[derive(Default)]
struct Seen {
    jobs: HashMap<JobId, Record>,
    ranked: BTreeMap<String, HashMap<JobId, f64>>,
    running: HashMap<JobId, (u64, String, Option<String>)>,
    claimed: HashMap<String, Vec<JobId>>,
    listed: HashSet<JobId>,
    permits: BTreeSet<(String, JobId)>,
    cancelling: HashSet<JobId>,
    cascades: HashSet<JobId>,
    tokens: u64,
    findings: Vec<Finding>,
}

/// The fields of a job that the invariants speak of.
#[derive(Default)]
struct Record {
    state: Option<State>,
    kind: Option<Kind>,
    parent: Option<JobId>,
    token: u64,
    total: Option<u64>,
    counts: [u64; 4],
    sealed: bool,
    skipped: bool,
}

const RECORD_FIELDS: [&str; 12] = [
    "state",
    "kind",
    "parent",
    "token",
    "items_total",
    "items_succeeded",
    "items_failed",
    "items_skipped",
    "items_cancelled",
    "sealed",
    "skipped",
    "queue",
];

/// Sorted sets of jobs, and the state each stands for.
const PLACES: [(&str, State); 7] = [
    ("leases", State::Running),
    ("scheduled", State::Scheduled),
    ("retrying", State::Retrying),
    ("waiting", State::Waiting),
    ("completed", State::Completed),
    ("failed", State::Failed),
    ("cancelled", State::Cancelled),
];

impl Store {
    /// Walks every partition. Its cost grows with the number of jobs; it reads in small steps.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn check(&self) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for partition in 0..self.partitions() {
            let mut seen = self.walk(partition).await?;
            let mut judge = Judge { partition, seen: &seen, findings: Vec::new() };
            judge.jobs();
            judge.places();
            judge.holders();
            judge.parents();
            let found = judge.findings;
            findings.append(&mut seen.findings);
            findings.extend(found);
        }
        findings.sort();
        findings.dedup();
        Ok(findings)
    }

    /// Mends one finding. Safe when it has mended itself.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn repair(&self, finding: &Finding) -> Result<()> {
        let Some(repair) = &finding.repair else { return Ok(()) };
        let kind = repair.indexed.as_ref().map_or("", Kind::as_str);
        let args = Args::default().text(repair.id.as_str()).number(u8::from(repair.listed)).text(kind);
        self.inner.run(&scripts::REPAIR, finding.partition, &args, Repeat::Safe).await.map(drop)
    }

    /// After `leases` or `running` was set aside: gives each running record a lease, and drops leases without one.
    pub(super) async fn mend_leases(&self, partition: u16) -> Result<()> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HKEYS").arg(keys::fixed(partition, "running"));
        pipeline.cmd("ZRANGE").arg(keys::fixed(partition, "leases")).arg(0).arg(-1);
        let replies = self.inner.pipe(&pipeline).await?;
        let sides: Vec<BTreeSet<JobId>> =
            replies.iter().map(|r| array(r).iter().filter_map(|v| JobId::parse(&text(v)).ok()).collect()).collect();
        for id in sides[0].symmetric_difference(&sides[1]) {
            let args = Args::default().text(id.as_str()).number(0).text("");
            self.inner.run(&scripts::REPAIR, partition, &args, Repeat::Safe).await?;
        }
        Ok(())
    }

    async fn walk(&self, partition: u16) -> Result<Seen> {
        let mut seen = Seen::default();
        let (mut cursor, mut names) = ("0".to_owned(), BTreeSet::new());
        loop {
            let mut pipeline = redis::pipe();
            pipeline
                .cmd("SCAN")
                .arg(&cursor)
                .arg("MATCH")
                .arg(format!("lh:\\{{{partition}\\}}:*"))
                .arg("COUNT")
                .arg(1_000);
            let replies = self.inner.pipe(&pipeline).await?;
            let reply = array(&replies[0]);
            names.extend(array(&reply[1]).iter().map(text));
            cursor = text(&reply[0]);
            if cursor == "0" {
                break;
            }
        }
        let head = keys::prefix(partition).len() + 1;
        let names: Vec<&str> = names.iter().map(|name| &name[head..]).collect();
        for chunk in names.chunks(500) {
            self.read_keys(partition, chunk, &mut seen).await?;
        }
        Ok(seen)
    }

    async fn read_keys(&self, partition: u16, names: &[&str], seen: &mut Seen) -> Result<()> {
        let mut pipeline = redis::pipe();
        let mut asked = Vec::new();
        for name in names {
            let key = keys::fixed(partition, name);
            let (sort, _) = name.split_once(':').unwrap_or((name, ""));
            match sort {
                "job" => pipeline.cmd("HMGET").arg(&key).arg(&RECORD_FIELDS),
                "queue" | "claimed" => pipeline.cmd("LRANGE").arg(&key).arg(0).arg(-1),
                "parked" if name.matches(':').count() == 2 => pipeline.cmd("LRANGE").arg(&key).arg(0).arg(-1),
                "permits" | "cancelling" => pipeline.cmd("SMEMBERS").arg(&key),
                "running" | "cascades" | "quarantine" => pipeline.cmd("HGETALL").arg(&key),
                "tokens" => pipeline.cmd("GET").arg(&key),
                "kind" | "open" | "expiry" => pipeline.cmd("ZRANGE").arg(&key).arg(0).arg(-1).arg("WITHSCORES"),
                place if PLACES.iter().any(|(p, _)| *p == place) => {
                    pipeline.cmd("ZRANGE").arg(&key).arg(0).arg(-1).arg("WITHSCORES")
                }
                "history" | "idempotency" | "parked" | "worker" | "workers" | "clock" | "kinds" | "queues"
                | "paused" | "retention" | "quarantined" => continue,
                _ => {
                    seen.findings.push(Finding {
                        partition,
                        subject: key,
                        problem: "no key of Leasehold's has this name".into(),
                        repair: None,
                    });
                    continue;
                }
            };
            asked.push((*name, sort));
        }
        if asked.is_empty() {
            return Ok(());
        }
        let replies = self.inner.pipe_leniently(&pipeline).await?;
        for ((name, sort), reply) in asked.into_iter().zip(&replies) {
            seen.take(partition, name, sort, reply);
        }
        Ok(())
    }
}

impl Seen {
    fn take(&mut self, partition: u16, name: &str, sort: &str, reply: &Value) {
        let rest = name.split_once(':').map_or("", |(_, rest)| rest);
        let ids = |values: &[Value]| values.iter().filter_map(|v| JobId::parse(&text(v)).ok()).collect::<Vec<_>>();
        let entries =
            || array(reply).chunks_exact(2).filter_map(|e| Some((JobId::parse(&text(&e[0])).ok()?, text(&e[1]))));
        if let Value::ServerError(e) = reply {
            let problem = format!("it cannot be read: {}", e.details().unwrap_or("wrong type"));
            self.findings.push(Finding { partition, subject: keys::fixed(partition, name), problem, repair: None });
            return;
        }
        match sort {
            "job" => {
                if let Ok(id) = JobId::parse(rest) {
                    self.jobs.insert(id, record(array(reply)));
                }
            }
            "queue" | "parked" => self.listed.extend(ids(array(reply))),
            "claimed" => drop(self.claimed.insert(rest.to_owned(), ids(array(reply)))),
            "permits" => self.permits.extend(ids(array(reply)).into_iter().map(|id| (rest.to_owned(), id))),
            "cancelling" => self.cancelling.extend(ids(array(reply))),
            "cascades" => self.cascades.extend(entries().map(|(id, _)| id)),
            "running" => self.running.extend(entries().filter_map(|(id, record)| {
                let mut words = record.split(' ').map(str::to_owned);
                Some((id, (words.next()?.parse().ok()?, words.next()?, words.nth(1))))
            })),
            "tokens" => self.tokens = number(reply).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            "quarantine" => {
                for entry in array(reply).chunks_exact(2) {
                    let problem = format!("it was set aside: {}", text(&entry[1]));
                    self.findings.push(Finding { partition, subject: text(&entry[0]), problem, repair: None });
                }
            }
            _ => drop(
                self.ranked.insert(name.to_owned(), entries().map(|(id, s)| (id, s.parse().unwrap_or(0.0))).collect()),
            ),
        }
    }

    fn in_place(&self, place: &str, id: &JobId) -> bool {
        self.ranked.get(place).is_some_and(|members| members.contains_key(id))
    }
}

fn record(fields: &[Value]) -> Record {
    let field = |at: usize| fields.get(at).map(text).filter(|t| !t.is_empty());
    let count = |at: usize| field(at).and_then(|t| t.parse().ok());
    Record {
        state: field(0).and_then(|t| State::parse(&t)),
        kind: field(11).and_then(|_| field(1)).and_then(|t| Kind::parse(&t).ok()),
        parent: field(2).and_then(|t| JobId::parse(&t).ok()),
        token: count(3).unwrap_or(0),
        total: count(4),
        counts: [5, 6, 7, 8].map(|at| count(at).unwrap_or(0)),
        sealed: field(9).is_some(),
        skipped: field(10).is_some(),
    }
}

struct Judge<'a> {
    partition: u16,
    seen: &'a Seen,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn find(&mut self, id: &JobId, problem: impl Into<String>) {
        let repair = Repair { id: id.clone(), listed: self.seen.listed.contains(id), indexed: None };
        self.push(id.to_string(), problem, Some(repair));
    }

    fn push(&mut self, subject: String, problem: impl Into<String>, repair: Option<Repair>) {
        self.findings.push(Finding { partition: self.partition, subject, problem: problem.into(), repair });
    }

    /// Invariants 1 and 4: a job is where its state says, and in no other state's place.
    fn jobs(&mut self) {
        for (id, job) in &self.seen.jobs {
            let Some(kind) = &job.kind else {
                self.push(id.to_string(), "its record has no kind or no queue", None);
                continue;
            };
            let runs = self.seen.running.contains_key(id);
            let state = job.state.unwrap_or(if runs { State::Running } else { State::Queued });
            for (place, of) in PLACES {
                match (self.seen.in_place(place, id), of == state) {
                    (true, false) => self.find(id, format!("it is {state}, and stands in `{place}`")),
                    (false, true) => self.find(id, format!("it is {state}, and does not stand in `{place}`")),
                    _ => {}
                }
            }
            let reserved = self.seen.claimed.values().any(|ids| ids.contains(id));
            if state == State::Queued && !self.seen.listed.contains(id) && !reserved {
                self.find(id, "it is queued, and stands in no list");
            }
            if job.token > self.seen.tokens {
                self.push(id.to_string(), "its token is larger than any that was given", None);
            }
            if job.parent.is_none() {
                if !self.seen.in_place(&keys::kind_suffix(kind), id) {
                    self.find(id, format!("it is not listed under its kind {kind}"));
                }
                let expires = self.seen.in_place("expiry", id) || self.seen.cascades.contains(id);
                if state.is_final() && !expires {
                    self.find(id, "it has ended, and would never be pruned");
                }
            }
        }
    }

    /// Whatever stands for a job stands for one that is there.
    fn places(&mut self) {
        for (place, members) in &self.seen.ranked {
            let indexed = place.strip_prefix("kind:").and_then(|k| Kind::parse(k).ok());
            for id in members.keys().filter(|id| !self.seen.jobs.contains_key(id)) {
                let repair = Repair { id: id.clone(), listed: true, indexed: indexed.clone() };
                self.push(id.to_string(), format!("it stands in `{place}`, and there is no such job"), Some(repair));
            }
            if place == "expiry" {
                for id in members.keys() {
                    let living = |j: &Record| !j.state.is_some_and(State::is_final);
                    if self.seen.jobs.get(id).is_some_and(living) {
                        self.find(id, "it has not ended, and would be pruned");
                    }
                }
            }
        }
        for id in &self.seen.cancelling {
            let waits = self.seen.jobs.get(id).is_some_and(|j| j.state == Some(State::Waiting));
            if !waits && !self.seen.running.contains_key(id) {
                self.find(id, "it is flagged for a cancel, and neither runs nor waits for items");
            }
        }
    }

    /// Invariants 2 and 3: running, leased and held are one; a token is given once.
    fn holders(&mut self) {
        let mut tokens = HashSet::new();
        for (id, (token, worker, permit)) in &self.seen.running {
            if !tokens.insert(token) || *token > self.seen.tokens {
                self.push(id.to_string(), format!("token {token} was given twice"), None);
            }
            if !self.seen.claimed.get(worker).is_some_and(|ids| ids.contains(id)) {
                self.find(id, format!("{worker} runs it, and does not have it in its claimed list"));
            }
            if !self.seen.jobs.contains_key(id) {
                self.find(id, "it runs, and there is no such job");
            }
            if permit.as_ref().is_some_and(|kind| !self.seen.permits.contains(&(kind.clone(), id.clone()))) {
                self.find(id, "it runs, and has no permit of its kind");
            }
        }
        for (kind, id) in &self.seen.permits {
            if !self.seen.running.get(id).is_some_and(|(_, _, permit)| permit.as_ref() == Some(kind)) {
                self.push(id.to_string(), format!("it holds a permit of {kind}, and does not run"), None);
            }
        }
        for (worker, ids) in &self.seen.claimed {
            for id in ids {
                if !self.seen.running.get(id).is_some_and(|(_, holder, _)| holder == worker) {
                    self.push(id.to_string(), format!("{worker} reserved it, and nobody leased it"), None);
                }
            }
        }
    }

    /// Invariant 4 for batches: a parent's counts are those of its items, and none is stuck.
    fn parents(&mut self) {
        let mut items: HashMap<&JobId, ([u64; 4], u64)> = HashMap::new();
        for (id, job) in &self.seen.jobs {
            let Some(parent) = &job.parent else { continue };
            if !self.seen.jobs.contains_key(parent) {
                self.push(id.to_string(), format!("its parent {parent} is gone"), None);
            }
            let (counts, total) = items.entry(parent).or_default();
            *total += 1;
            match job.state {
                Some(State::Completed) if job.skipped => counts[2] += 1,
                Some(State::Completed) => counts[0] += 1,
                Some(State::Failed) => counts[1] += 1,
                Some(State::Cancelled) => counts[3] += 1,
                _ => {}
            }
        }
        for (id, job) in self.seen.jobs.iter().filter(|(id, j)| j.total.is_some() && !self.seen.cascades.contains(id)) {
            let (counts, total) = items.get(id).copied().unwrap_or_default();
            let ended: u64 = counts.iter().sum();
            if job.total != Some(total) || job.counts != counts {
                let problem =
                    format!("it counts {:?} of {:?} items, and there are {counts:?} of {total}", job.counts, job.total);
                self.push(id.to_string(), problem, None);
            }
            if job.state == Some(State::Waiting) && job.sealed && ended == total {
                self.push(id.to_string(), "its items have all ended, and it still waits", None);
            }
            if job.state.is_some_and(State::is_final) && ended < total {
                self.push(id.to_string(), "it has ended, and not all its items have", None);
            }
        }
    }
}
