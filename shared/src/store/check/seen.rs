//! What a check has read of a partition.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use redis::Value;

use crate::job::Priority;
use crate::store::finding::{Finding, Repair};
use crate::store::wire::keys;
use crate::store::wire::reply::{array, number, text};
use crate::{JobId, Kind, QueueName, ScheduleName, State, WorkerId};

/// The required type of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    List,
    Set,
    Hash,
    Ranked,
    Text,
}

impl Sort {
    /// Its name in the reply of Redis's TYPE.
    pub(super) fn must_be(self) -> &'static str {
        match self {
            Sort::List => "list",
            Sort::Set => "set",
            Sort::Hash => "hash",
            Sort::Ranked => "zset",
            Sort::Text => "string",
        }
    }

    /// The command that reads its members in steps.
    pub(super) fn scan(self) -> &'static str {
        match self {
            Sort::Hash => "HSCAN",
            Sort::Ranked => "ZSCAN",
            _ => "SSCAN",
        }
    }
}

/// Sorted sets of jobs that have not ended, and the state each represents.
pub(super) const PLACES: [(&str, State); 4] = [
    ("leases", State::Running),
    ("scheduled", State::Scheduled),
    ("retrying", State::Retrying),
    ("waiting", State::Waiting),
];

/// The fields of a job that the invariants use.
pub(super) const RECORD_FIELDS: [&str; 18] = [
    "state",
    "kind",
    "queue",
    "priority",
    "created_at",
    "parent",
    "sealed",
    "skipped",
    "item",
    "token",
    "attempts",
    "crashes",
    "crashes_total",
    "items_total",
    "items_succeeded",
    "items_failed",
    "items_skipped",
    "items_cancelled",
];

/// The part of a job's record that the invariants use.
pub(super) struct Record {
    pub state: Option<State>,
    pub kind: Arc<Kind>,
    pub queue: Arc<QueueName>,
    pub parent: Option<Id>,
    pub token: u64,
    /// For a parent: total, succeeded, failed, skipped and cancelled.
    pub counts: Option<Box<[u64; 5]>>,
    pub sealed: bool,
    pub skipped: bool,
}

/// An id, kept once however many places have it: there may be millions of jobs.
pub(super) type Id = Arc<JobId>;

/// Ids and names, each kept once.
#[derive(Default)]
struct Names {
    ids: HashSet<Id>,
    kinds: HashSet<Arc<Kind>>,
    queues: HashSet<Arc<QueueName>>,
}

impl Names {
    fn id(&mut self, text: &str) -> Option<Id> {
        Some(once(&mut self.ids, JobId::parse(text).ok()?))
    }
}

/// The kept value that equals this one.
fn once<T: Eq + Hash>(kept: &mut HashSet<Arc<T>>, value: T) -> Arc<T> {
    if let Some(kept) = kept.get(&value) {
        return Arc::clone(kept);
    }
    let value = Arc::new(value);
    kept.insert(Arc::clone(&value));
    value
}

/// A job's running record.
pub(super) struct Running {
    pub token: u64,
    pub permit: Option<String>,
}

/// Everything read of a partition.
#[derive(Default)]
pub(super) struct Seen {
    pub partition: u16,
    pub jobs: HashMap<Id, Record>,
    /// Jobs with an unreadable record.
    pub damaged: HashSet<Id>,
    pub ranked: BTreeMap<String, HashSet<Id>>,
    /// Running records by job; `None` when the record cannot be read.
    pub running: HashMap<Id, Option<Running>>,
    pub claimed: BTreeMap<String, HashSet<Id>>,
    /// Ids in the lists from which jobs are claimed.
    pub listed: HashSet<Id>,
    pub permits: BTreeSet<(String, Id)>,
    pub cancelling: HashSet<Id>,
    /// Batches with a cascade under way, by the key, and since when, ms.
    pub cascades: HashMap<Id, (&'static str, i64)>,
    /// Redis's time, ms.
    pub now: i64,
    pub histories: HashSet<Id>,
    pub kinds: HashSet<String>,
    pub queues: HashSet<String>,
    /// The names of schedules.
    pub schedules: HashSet<String>,
    /// Those in the index by which their ticks are found.
    pub ticking: HashSet<String>,
    pub tokens: u64,
    pub findings: Vec<Finding>,
    /// Parked lists, and the kinds under which claims find them.
    parked: Vec<(String, HashSet<Id>)>,
    known_parked: HashSet<String>,
    names: Names,
}

impl Seen {
    pub(super) fn new(partition: u16) -> Self {
        Self { partition, ..Self::default() }
    }

    pub(super) fn in_place(&self, place: &str, id: &JobId) -> bool {
        self.ranked.get(place).is_some_and(|members| members.contains(id))
    }

    /// Whether a job is unknown. A job with a damaged record is known: that is reported once.
    pub(super) fn missing(&self, id: &JobId) -> bool {
        !self.jobs.contains_key(id) && !self.damaged.contains(id)
    }

    /// The type of the key with this name; `None` when its content is not checked.
    pub(super) fn sort_of(&mut self, name: &str) -> Option<Sort> {
        let (sort, rest) = name.split_once(':').unwrap_or((name, ""));
        let is_queue = |text: &str| QueueName::parse(text).is_ok();
        let is_kind = |text: &str| Kind::parse(text).is_ok();
        let is_final = |word: &str| State::parse(word).is_some_and(State::is_final);
        match (sort, rest.split_once(':')) {
            ("queue", None) if is_queue(rest) => Some(Sort::List),
            ("queue", Some((queue, "high" | "low" | "suspect"))) if is_queue(queue) => Some(Sort::List),
            ("parked", Some((queue, kind))) if is_queue(queue) && is_kind(kind) => Some(Sort::List),
            ("parked", None) if is_queue(rest) => Some(Sort::Set),
            ("claimed", None) if WorkerId::parse(rest).is_ok() => Some(Sort::List),
            ("permits", None) if is_kind(rest) => Some(Sort::Set),
            ("kind", None) if is_kind(rest) => Some(Sort::Ranked),
            (place, Some((kind, state))) if keys::ENDED.contains(&place) && is_kind(kind) && is_final(state) => {
                Some(Sort::Ranked)
            }
            ("history", None) => {
                self.histories.extend(self.names.id(rest));
                None
            }
            ("schedule", None) if ScheduleName::parse(rest).is_ok() => {
                self.schedules.insert(rest.to_owned());
                Some(Sort::Hash)
            }
            ("worker", None) if WorkerId::parse(rest).is_ok() => Some(Sort::Hash),
            ("cache", Some((kind, digest))) if is_kind(kind) && !digest.is_empty() => None,
            ("idempotency" | "quarantined" | "gone", _) => None,
            (place, None) if rest.is_empty() => match place {
                "open" | "expiry" | "workers" | "schedules" => Some(Sort::Ranked),
                "cancelling" | "kinds" | "queues" | "paused" | "reserved" | "due" => Some(Sort::Set),
                "running" | "cascades" | "removals" | "aside" | "quarantine" | "clock" | "retention" | "published"
                | "served" => Some(Sort::Hash),
                "tokens" => Some(Sort::Text),
                "replicated" | "partitions" => None,
                place if PLACES.iter().any(|(p, _)| *p == place) => Some(Sort::Ranked),
                _ => self.foreign(name),
            },
            _ => self.foreign(name),
        }
    }

    fn foreign(&mut self, name: &str) -> Option<Sort> {
        self.find(keys::fixed(self.partition, name), "this is not a key of Leasehold", None);
        None
    }

    fn find(&mut self, subject: String, problem: impl Into<String>, repair: Option<Repair>) {
        self.findings.push(Finding { partition: self.partition, subject, problem: problem.into(), repair });
    }

    /// Reports a key of the wrong type.
    pub(super) fn unreadable(&mut self, key: String, must_be: &'static str, reason: String) {
        let problem = format!("unreadable key, expected a {must_be}: {reason}");
        let reason = "WRONGTYPE".to_owned();
        self.find(key.clone(), problem, Some(Repair::Aside { key, must_be, reason }));
    }

    /// Adds members of a key; for a hash or sorted set, each with its value. A large key comes in several parts.
    pub(super) fn take(&mut self, name: &str, members: Vec<String>) {
        let (sort, rest) = name.split_once(':').unwrap_or((name, ""));
        let names = &mut self.names;
        let mut ids = || members.iter().filter_map(|id| names.id(id)).collect::<Vec<Id>>();
        match sort {
            "queue" => return self.listed.extend(ids()),
            "parked" if rest.contains(':') => return self.parked.push((rest.to_owned(), ids().into_iter().collect())),
            "claimed" => return self.claimed.entry(rest.to_owned()).or_default().extend(ids()),
            "permits" => return self.permits.extend(ids().into_iter().map(|id| (rest.to_owned(), id))),
            "cancelling" => return self.cancelling.extend(ids()),
            _ => {}
        }
        let entries = members.chunks_exact(2).filter_map(|e| Some((names.id(&e[0])?, e[1].as_str())));
        match sort {
            "parked" => self.known_parked.extend(members.iter().map(|kind| format!("{rest}:{kind}"))),
            "kinds" => self.kinds.extend(members),
            "queues" => self.queues.extend(members),
            "schedules" => self.ticking.extend(members.chunks_exact(2).map(|entry| entry[0].clone())),
            "cascades" => self.cascades.extend(entries.map(|(id, step)| (id, ("cascades", since(step))))),
            "removals" => self.cascades.extend(entries.map(|(id, step)| (id, ("removals", since(step))))),
            "running" => self.running.extend(entries.map(|(id, record)| (id, running(record)))),
            "tokens" => self.take_tokens(&members.concat()),
            "quarantine" => {
                for entry in members.chunks_exact(2) {
                    let reason = entry[1].split_once(' ').map_or(entry[1].as_str(), |(_, reason)| reason);
                    let accept = Some(Repair::Accept(entry[0].clone()));
                    self.find(
                        entry[0].clone(),
                        format!("the key was unreadable and has been set aside: {reason}"),
                        accept,
                    );
                }
            }
            "schedule" | "worker" | "workers" | "paused" | "clock" | "retention" | "published" | "served" | "aside"
            | "reserved" | "due" => {}
            _ => self.ranked.entry(name.to_owned()).or_default().extend(entries.map(|(id, _)| id)),
        }
    }

    fn take_tokens(&mut self, value: &str) {
        match value.parse() {
            Ok(tokens) => self.tokens = tokens,
            Err(_) => {
                let key = keys::fixed(self.partition, "tokens");
                self.find(key, format!("the token counter is {value:?}, which is not a number"), None);
            }
        }
    }

    /// Adds a job's record: the reply of an HMGET of [`RECORD_FIELDS`] and the length of its payload.
    pub(super) fn take_job(&mut self, name: &str, fields: &Value, payload: &Value) {
        let key = keys::fixed(self.partition, name);
        let Some(id) = self.names.id(name.trim_start_matches("job:")) else {
            self.foreign(name);
            return;
        };
        if let Value::ServerError(e) = fields {
            self.damaged.insert(id);
            return self.unreadable(key, Sort::Hash.must_be(), e.details().unwrap_or("of another type").to_owned());
        }
        let payload = number(payload).unwrap_or(0);
        match record(array(fields), payload, &mut self.names) {
            Ok(record) => drop(self.jobs.insert(id, record)),
            // It existed when the names were read, and has been removed since.
            Err(_) if payload == 0 && array(fields).iter().all(|v| *v == Value::Nil) => {}
            Err(reason) => {
                self.damaged.insert(id);
                let repair = Repair::Aside { key: key.clone(), must_be: "", reason: reason.clone() };
                self.find(key, format!("unreadable job record: {reason}"), Some(repair));
            }
        }
    }

    /// Lists that claims do not read are ignored.
    pub(super) fn count_parked(&mut self) {
        for (list, ids) in std::mem::take(&mut self.parked) {
            if self.known_parked.contains(&list) {
                self.listed.extend(ids);
            }
        }
    }
}

/// Since when a cascade is under way, ms, by its step `<verb> <next item> <since>`; it is not in one of 0.1.
fn since(step: &str) -> i64 {
    step.split(' ').nth(2).and_then(|since| since.parse().ok()).unwrap_or(i64::MAX)
}

/// Reads a running record: `<token> <worker> <started_at> [<kind>]`.
fn running(record: &str) -> Option<Running> {
    let mut words = record.split(' ');
    let token = words.next()?.parse().ok()?;
    words.next().filter(|worker| !worker.is_empty())?;
    let _started: u64 = words.next()?.parse().ok()?;
    // Kind, batch, permit, and whether it was claimed before; 0.1 wrote only the permit.
    let words: Vec<&str> = words.collect();
    let permit = words.get(2).or(words.first()).filter(|kind| **kind != "-").map(|kind| (*kind).to_owned());
    Some(Running { token, permit })
}

/// Reads what the invariants need; the error when a field is missing or invalid.
fn record(fields: &[Value], payload: i64, names: &mut Names) -> Result<Record, String> {
    let field = |name: &str| {
        let at = RECORD_FIELDS.iter().position(|f| *f == name).expect("a field that is read");
        fields.get(at).filter(|v| **v != Value::Nil).map(text)
    };
    let need = |name: &str| field(name).ok_or_else(|| format!("{name} is missing"));
    let count = |name: &str| match field(name) {
        None => Ok(0),
        Some(text) => text.parse::<u64>().map_err(|_| format!("{name} is {text:?}, which is not a number")),
    };
    let wrong = |name: &str, text: &str| format!("{name} is {text:?}, which is not valid");
    let state = field("state").map(|word| State::parse(&word).ok_or_else(|| wrong("state", &word))).transpose()?;
    if let Some(priority) = field("priority") {
        Priority::parse(&priority).ok_or_else(|| wrong("priority", &priority))?;
    }
    if payload == 0 {
        return Err("payload is missing".into());
    }
    need("created_at").and_then(|_| count("created_at"))?;
    for name in ["attempts", "crashes", "crashes_total"] {
        count(name)?;
    }
    let counts = match field("items_total") {
        None => None,
        Some(_) => Some(Box::new([
            count("items_total")?,
            count("items_succeeded")?,
            count("items_failed")?,
            count("items_skipped")?,
            count("items_cancelled")?,
        ])),
    };
    Ok(Record {
        state,
        kind: once(&mut names.kinds, Kind::parse(&need("kind")?).map_err(|e| e.to_string())?),
        queue: once(&mut names.queues, QueueName::parse(&need("queue")?).map_err(|e| e.to_string())?),
        parent: field("parent").and_then(|text| names.id(&text)),
        token: count("token")?,
        counts,
        sealed: field("sealed").is_some(),
        skipped: field("skipped").is_some(),
    })
}
