//! Reading: whole jobs, pages of them, queues and workers.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use serde::{Deserialize, Serialize};

use super::{Args, Repeat, Store, keys, scripts};
use crate::job::{Items, Priority, Progress, cut};
use crate::{Error, Job, JobId, Json, Kind, QueueName, Result, State, Timestamp, WorkerId, canonical, limits};

/// Jobs of a page that are read at once, so that large ones are never all in memory.
const LIST_READ: usize = 100;
/// Bytes that a cursor keeps of a member of a sorted set: of what is no id, enough to go on behind it.
const MEMBER_BYTES: usize = 128;

/// Which jobs, and where to go on.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only in this state.
    pub state: Option<State>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only in this queue.
    pub queue: Option<QueueName>,
    /// The items of this job.
    pub parent: Option<JobId>,
    /// Jobs in a page, 1 to [`limits::PAGE_MAX`].
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

/// A page of jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page {
    /// The jobs, in the listing's order.
    pub jobs: Vec<Job>,
    /// For the next page; absent when this was the last.
    pub next_cursor: Option<String>,
}

/// Where a page ended; good for the same query only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cursor(Position);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Position {
    /// After a member of a sorted set.
    #[serde(rename = "r")]
    Ranked(String, String),
    /// After so many ids of a list, from the end that is taken first; lists are numbered in the order of their names.
    #[serde(rename = "l")]
    Listed(u16, String, i64),
    /// From that item on.
    #[serde(rename = "n")]
    Numbered(u64),
}

impl Cursor {
    /// Whether it can be one of ours: it comes from a client.
    fn is_sound(&self) -> bool {
        match &self.0 {
            Position::Ranked(score, id) => score.parse::<f64>().is_ok_and(f64::is_finite) && id.len() <= MEMBER_BYTES,
            Position::Listed(_, _, offset) => (0..1 << 53).contains(offset),
            Position::Numbered(from) => *from < 1 << 53,
        }
    }
}

impl ListQuery {
    /// Reads a cursor that [`Store::list`] gave for this same query.
    ///
    /// # Errors
    /// A sentence, for a cursor from elsewhere.
    pub fn with_cursor(mut self, text: &str) -> Result<Self, String> {
        let foreign = || "this cursor is not from a page of the same listing; leave it out to begin anew".to_owned();
        let (digest, hex) = text.split_once('.').ok_or_else(foreign)?;
        if digest != self.digest() || hex.len() % 2 == 1 || !hex.is_ascii() || hex.len() > 1_000 {
            return Err(foreign());
        }
        let bytes: Option<Vec<u8>> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect();
        let cursor: Option<Cursor> = bytes.and_then(|b| serde_json::from_slice(&b).ok());
        self.cursor = Some(cursor.filter(Cursor::is_sound).ok_or_else(foreign)?);
        Ok(self)
    }

    fn digest(&self) -> String {
        let part = |text: Option<&str>| text.unwrap_or("*").to_owned();
        let parts = [
            part(self.state.map(State::as_str)),
            part(self.kind.as_ref().map(Kind::as_str)),
            part(self.queue.as_ref().map(QueueName::as_str)),
            part(self.parent.as_ref().map(JobId::as_str)),
        ];
        canonical::request_digest(parts.iter().map(String::as_str))[..8].to_owned()
    }

    fn print(&self, position: &Position) -> String {
        let json = serde_json::to_string(position).expect("a position is plain JSON");
        let hex: String = json.bytes().map(|b| format!("{b:02x}")).collect();
        format!("{}.{hex}", self.digest())
    }

    fn takes(&self, job: &Job) -> bool {
        self.state.is_none_or(|s| s == job.state)
            && self.kind.as_ref().is_none_or(|k| *k == job.kind)
            && self.queue.as_ref().is_none_or(|q| *q == job.queue)
            && (self.state.is_some() || self.parent.is_some() || job.parent.is_none())
    }
}

/// A queue as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Its name.
    pub name: QueueName,
    /// Ids in its lists, parked ones too: an upper bound of what is queued.
    pub queued: u64,
    /// How long the oldest has existed, ms; null when none waits.
    pub oldest_wait_ms: Option<u64>,
    /// Jobs that live workers report to run from it.
    pub running: u64,
    /// No claims are made from it.
    pub paused: bool,
    /// A live worker takes from it.
    pub served: bool,
    /// Ids in its lists, by partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<u64>,
}

/// What a worker says of itself with each renewal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// New with every start.
    pub id: WorkerId,
    /// Where it runs.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// The queues it takes from.
    pub queues: Vec<QueueName>,
    /// The kinds it serves.
    pub kinds: Vec<Kind>,
    /// Jobs it can run at once.
    pub slots: usize,
    /// Its lease, ms: so long after its last renewal it counts as gone.
    pub lease_ms: u64,
    /// Jobs it runs, by queue, over all partitions.
    pub running: BTreeMap<QueueName, u64>,
}

/// A worker as an operator sees it, and as `GET /api/v1/workers` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// New with every start.
    pub id: WorkerId,
    /// Where it runs.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// It renewed within its lease.
    pub alive: bool,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// Its last renewal.
    pub seen_at: Timestamp,
    /// The queues it takes from.
    pub queues: Vec<QueueName>,
    /// The kinds it serves.
    pub kinds: Vec<Kind>,
    /// Jobs it can run at once.
    pub slots: usize,
    /// Its lease, ms; not shown, 0 over HTTP.
    #[serde(skip)]
    pub lease_ms: u64,
    /// What it holds.
    pub running: Vec<JobId>,
    /// How many of each queue it runs, as it said itself; not shown.
    #[serde(skip)]
    running_of: BTreeMap<QueueName, u64>,
}

impl WorkerStatus {
    /// A worker that holds nothing, by what it said of itself.
    fn new(info: WorkerInfo, seen_at: Timestamp, alive: bool) -> Self {
        let WorkerInfo { id, host, pid, version, started_at, queues, kinds, slots, lease_ms, running: running_of } =
            info;
        let running = Vec::new();
        Self { id, host, pid, version, alive, started_at, seen_at, queues, kinds, slots, lease_ms, running, running_of }
    }
}

impl Store {
    /// One job, as it is now.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its record cannot be read; those of any call.
    pub async fn get(&self, id: &JobId) -> Result<Option<Job>> {
        Ok(self.get_many(std::slice::from_ref(id)).await?.pop().flatten())
    }

    /// Many jobs, each in its place; `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_many(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>> {
        self.read_many(ids, Repeat::Safe).await?.into_iter().collect()
    }

    /// [`Store::get_many`], with the error of each record that cannot be read in its place.
    pub(super) async fn read_many(&self, ids: &[JobId], repeat: Repeat) -> Result<Vec<Result<Option<Job>>>> {
        let mut jobs: Vec<Result<Option<Job>>> = ids.iter().map(|_| Ok(None)).collect();
        for (partition, share) in self.by_partition(ids, |id| id) {
            for chunk in share.chunks(50) {
                let args = Args::default().texts(chunk.iter().map(|(_, id)| id.as_str()));
                let reply = self.inner.run(&scripts::GET, partition, &args, repeat).await?;
                for ((at, id), value) in chunk.iter().zip(array(&reply)) {
                    jobs[*at] =
                        job(id, value).map_err(|reason| Error::Corrupt { key: keys::job(partition, id), reason });
                }
            }
        }
        Ok(jobs)
    }

    /// A page of jobs. Exact by state and without one; a filter by kind or queue on top of a state, and `queued`, are
    /// bounded scans: such a page may be short and still have a cursor. So may one of large jobs
    /// ([`limits::PAGE_BYTES_MAX`]).
    ///
    /// # Errors
    /// Those of any call.
    pub async fn list(&self, query: &ListQuery) -> Result<Page> {
        let limit = query.limit.clamp(1, limits::PAGE_MAX);
        let mut position = query.cursor.clone().map(|c| c.0);
        let (mut jobs, mut seen, mut scanned, mut bytes) = (Vec::new(), HashSet::new(), 0, 0);
        loop {
            let ids = self.next_ids(query, position.as_ref(), limit + 1).await?;
            let last = ids.len() <= limit;
            scanned += ids.len();
            for part in ids.chunks(LIST_READ) {
                let known: Vec<JobId> = part.iter().filter_map(|(id, _)| id.clone()).collect();
                let mut read = self.read_many(&known, Repeat::Safe).await?.into_iter();
                for (id, at) in part {
                    // One bad record must not hide the others; `doctor` reports it.
                    let job = id.as_ref().and_then(|_| read.next()).unwrap_or(Ok(None)).unwrap_or_else(|e| {
                        tracing::warn!("left out of a listing: {e}");
                        None
                    });
                    let Some(job) = job.filter(|j| query.takes(j)) else {
                        position = Some(at.clone());
                        continue;
                    };
                    if jobs.len() == limit || bytes >= limits::PAGE_BYTES_MAX {
                        // One more is known to follow.
                        return Ok(Page { jobs, next_cursor: position.map(|p| query.print(&p)) });
                    }
                    position = Some(at.clone());
                    bytes += job.weight();
                    if seen.insert(job.id.clone()) {
                        jobs.push(job);
                    }
                }
            }
            if last {
                return Ok(Page { jobs, next_cursor: None });
            }
            if scanned >= limits::LIST_SCAN {
                return Ok(Page { jobs, next_cursor: position.map(|p| query.print(&p)) });
            }
        }
    }

    /// The next ids and where each stands; `None` for what is no id but was put where one belongs.
    async fn next_ids(
        &self,
        query: &ListQuery,
        after: Option<&Position>,
        n: usize,
    ) -> Result<Vec<(Option<JobId>, Position)>> {
        if let Some(parent) = &query.parent {
            let total = self.get(parent).await?.and_then(|j| j.items).map_or(0, |i| i.total);
            let from = if let Some(Position::Numbered(from)) = after { *from } else { 0 };
            let numbers = from..total.min(from + n as u64);
            return Ok(numbers.map(|k| (Some(self.item_id(parent, k)), Position::Numbered(k + 1))).collect());
        }
        if query.state == Some(State::Queued) {
            return self.queued_ids(query, after, n).await;
        }
        let (suffixes, newest) = match query.state {
            Some(state) => (vec![state_suffix(state).to_owned()], state.is_final() || state == State::Waiting),
            None => {
                let kinds =
                    if let Some(kind) = &query.kind { vec![kind.to_string()] } else { self.names("kinds").await? };
                (kinds.into_iter().filter_map(|k| Kind::parse(&k).ok()).map(|k| keys::kind_suffix(&k)).collect(), true)
            }
        };
        let sets: Vec<(u16, String)> =
            (0..self.partitions()).flat_map(|p| suffixes.iter().map(move |s| (p, s.clone()))).collect();
        let order = if newest { "newest" } else { "soonest" };
        let (score, id) =
            if let Some(Position::Ranked(score, id)) = after { (score.as_str(), id.as_str()) } else { ("", "") };
        let pages = sets.into_iter().map(|(partition, suffix)| async move {
            let args = Args::default().text(suffix).texts([order, score, id]).count(n);
            let reply = self.inner.run(&scripts::LIST, partition, &args, Repeat::Safe).await?;
            let ranked = array(&reply).chunks_exact(2).map(|e| (text(&e[1]), text(&e[0]))).collect::<Vec<_>>();
            Ok::<_, Error>(ranked)
        });
        let mut ranked: Vec<(String, String)> = stream::iter(pages).buffered(8).try_concat().await?;
        let value = |score: &str| score.parse::<f64>().unwrap_or(0.0);
        ranked.sort_by(|(s, i), (t, j)| {
            let ordering = value(s).total_cmp(&value(t)).then_with(|| i.cmp(j));
            if newest { ordering.reverse() } else { ordering }
        });
        let ids = ranked.into_iter().take(n);
        Ok(ids
            .map(|(score, id)| (JobId::parse(&id).ok(), Position::Ranked(score, cut(&id, MEMBER_BYTES).to_owned())))
            .collect())
    }

    async fn queued_ids(
        &self,
        query: &ListQuery,
        after: Option<&Position>,
        n: usize,
    ) -> Result<Vec<(Option<JobId>, Position)>> {
        let (at_partition, at_list, mut offset) = match after {
            Some(Position::Listed(partition, list, offset)) => (*partition, list.clone(), *offset),
            _ => (0, String::new(), 0),
        };
        let mut ids = Vec::new();
        for partition in at_partition..self.partitions() {
            for list in self.lists_of(partition, query.queue.as_ref()).await? {
                if partition == at_partition && list < at_list {
                    continue;
                }
                let from = if partition == at_partition && list == at_list { offset } else { 0 };
                let want = i64::try_from(n - ids.len()).expect("a page is short");
                let mut pipeline = redis::pipe();
                pipeline.cmd("LRANGE").arg(keys::fixed(partition, &list)).arg(-from - want).arg(-from - 1);
                let replies = self.inner.pipe_leniently(&pipeline).await?;
                offset = from;
                for member in array(&replies[0]).iter().rev() {
                    offset += 1;
                    ids.push((JobId::parse(&text(member)).ok(), Position::Listed(partition, list.clone(), offset)));
                }
                if ids.len() >= n {
                    return Ok(ids);
                }
            }
        }
        Ok(ids)
    }

    /// What follows the prefix in the names of a partition's lists, sorted.
    async fn lists_of(&self, partition: u16, queue: Option<&QueueName>) -> Result<BTreeSet<String>> {
        let args = Args::default().text(queue.map_or("", QueueName::as_str));
        let reply = self.inner.run(&scripts::QUEUES, partition, &args, Repeat::Safe).await?;
        let mut lists = BTreeSet::new();
        for entry in array(&reply).iter().skip(1).map(array) {
            let name = text(&entry[0]);
            lists.extend(["", ":high", ":low", ":suspect"].map(|sort| format!("queue:{name}{sort}")));
            lists.extend(entry.iter().skip(4).map(|kind| format!("parked:{name}:{}", text(kind))));
        }
        Ok(lists)
    }

    /// The members of a set of names, over all partitions.
    pub(super) async fn names(&self, set: &str) -> Result<Vec<String>> {
        let mut pipeline = redis::pipe();
        for partition in 0..self.partitions() {
            pipeline.cmd("SMEMBERS").arg(keys::fixed(partition, set));
        }
        let replies = self.inner.pipe_leniently(&pipeline).await?;
        let names: BTreeSet<String> = replies.iter().flat_map(|r| array(r).iter().map(text)).collect();
        Ok(names.into_iter().collect())
    }

    /// All queues, or one that has been used, or that a worker serves or an operator paused.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn queues(&self, only: Option<&QueueName>) -> Result<Vec<QueueStatus>> {
        let workers = self.workers().await?;
        let mut queues: BTreeMap<QueueName, QueueStatus> = BTreeMap::new();
        let blank = |name: &QueueName| QueueStatus {
            name: name.clone(),
            queued: 0,
            oldest_wait_ms: None,
            running: 0,
            paused: false,
            served: false,
            partitions: vec![0; usize::from(self.partitions())],
        };
        for partition in 0..self.partitions() {
            let args = Args::default().text(only.map_or("", QueueName::as_str));
            let reply = self.inner.run(&scripts::QUEUES, partition, &args, Repeat::Safe).await?;
            let now = array(&reply).first().and_then(number).unwrap_or(0);
            for entry in array(&reply).iter().skip(1).map(array) {
                let Ok(name) = QueueName::parse(&text(&entry[0])) else { continue };
                let queue = queues.entry(name.clone()).or_insert_with(|| blank(&name));
                let depth = number(&entry[1]).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                queue.queued += depth;
                queue.partitions[usize::from(partition)] = depth;
                let wait = number(&entry[2]).map(|created| u64::try_from(now - created).unwrap_or(0));
                queue.oldest_wait_ms = queue.oldest_wait_ms.max(wait);
                queue.paused |= number(&entry[3]) == Some(1);
            }
        }
        for worker in workers.iter().filter(|w| w.alive) {
            for name in worker.queues.iter().filter(|q| only.is_none_or(|o| o == *q)) {
                let queue = queues.entry(name.clone()).or_insert_with(|| blank(name));
                queue.served = true;
                queue.running += worker.running_of.get(name).copied().unwrap_or(0);
            }
        }
        let known = if only.is_some() { self.names("queues").await? } else { Vec::new() };
        let named =
            |q: &QueueStatus| only.is_none() || q.served || q.paused || known.iter().any(|n| n == q.name.as_str());
        Ok(queues.into_values().filter(|q| named(q)).collect())
    }

    /// Who is alive, or was within the hour, by id.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn workers(&self) -> Result<Vec<WorkerStatus>> {
        let mut workers: BTreeMap<WorkerId, WorkerStatus> = BTreeMap::new();
        for partition in 0..self.partitions() {
            let mut pipeline = redis::pipe();
            pipeline
                .cmd("ZREVRANGE")
                .arg(keys::fixed(partition, "workers"))
                .arg(0)
                .arg(limits::PAGE_MAX - 1)
                .cmd("TIME");
            let replies = self.inner.pipe_leniently(&pipeline).await?;
            let now = array(&replies[1]).first().and_then(number).unwrap_or(0) * 1_000;
            let ids: Vec<WorkerId> = array(&replies[0]).iter().filter_map(|v| WorkerId::parse(&text(v)).ok()).collect();
            let mut pipeline = redis::pipe();
            for id in &ids {
                pipeline.cmd("HMGET").arg(keys::worker(partition, id)).arg("info").arg("seen_at");
                pipeline.cmd("LRANGE").arg(keys::claimed(partition, id)).arg(0).arg(limits::CLAIMED_MAX - 1);
            }
            let replies = if ids.is_empty() { Vec::new() } else { self.inner.pipe_leniently(&pipeline).await? };
            for (id, reply) in ids.into_iter().zip(replies.chunks_exact(2)) {
                // One that cannot be read is left out; `doctor` reports it.
                let [info, seen_at] = array(&reply[0]) else { continue };
                let Ok(info) = serde_json::from_str::<WorkerInfo>(&text(info)) else { continue };
                let seen_at = Timestamp(number(seen_at).unwrap_or(0));
                let alive = now - seen_at.0 < i64::try_from(info.lease_ms).unwrap_or(i64::MAX);
                let held = array(&reply[1]).iter().filter_map(|v| JobId::parse(&text(v)).ok());
                let worker = workers.entry(id).or_insert_with(|| WorkerStatus::new(info, seen_at, alive));
                worker.alive &= alive;
                worker.seen_at = worker.seen_at.max(seen_at);
                worker.running.extend(held);
            }
        }
        Ok(workers.into_values().collect())
    }

    /// The kinds that live workers serve.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn served_kinds(&self) -> Result<HashSet<Kind>> {
        let workers = self.workers().await?;
        Ok(workers.into_iter().filter(|w| w.alive).flat_map(|w| w.kinds).collect())
    }
}

fn state_suffix(state: State) -> &'static str {
    if state == State::Running { "leases" } else { state.as_str() }
}

/// Puts a job together from what `get.lua` saw of it.
fn job(id: &JobId, reply: &Value) -> Result<Option<Job>, String> {
    let reply = array(reply);
    if reply.is_empty() {
        return Ok(None);
    }
    if reply.len() == 2 {
        return Err("it is no hash".into());
    }
    let fields: HashMap<String, String> = reply[4..].chunks_exact(2).map(|p| (text(&p[0]), text(&p[1]))).collect();
    let field = |name: &str| fields.get(name).map(String::as_str);
    let need = |name: &str| field(name).ok_or_else(|| format!("field {name} is missing"));
    let count = |name: &str| field(name).and_then(|v| v.parse::<u64>().ok());
    let small = |name: &str| count(name).and_then(|n| u32::try_from(n).ok());
    let time = |name: &str| field(name).and_then(|v| v.parse().ok()).map(Timestamp);
    let score = |at: usize| text(&reply[at]).parse::<f64>().ok().map(|ms| Timestamp(ms as i64));
    let record = text(&reply[0]);
    let record: Vec<&str> = record.split(' ').collect();
    let running = record.len() >= 3;
    let stored = match field("state") {
        Some(word) => Some(State::parse(word).ok_or_else(|| format!("state {word:?} is none"))?),
        None => None,
    };
    let state = stored.unwrap_or(if running { State::Running } else { State::Queued });
    let max_attempts = small("max_attempts").unwrap_or(1);
    let (failures, error) = (small("attempts").unwrap_or(0), field("error").map(stored_error));
    // A job that failed for good is at the attempt that failed; one that lost its worker, at the one it lost.
    let by_attempt = state == State::Failed && error.as_ref().is_some_and(|e| e.code != crate::job::ErrorCode::Crashed);
    let attempt = if by_attempt { failures.max(1) } else { failures.saturating_add(1).min(max_attempts) };
    let created_at = time("created_at").ok_or("field created_at is missing")?;
    let started_at = if running { record[2].parse().ok().map(Timestamp) } else { time("started_at") };
    let finished_at = time("finished_at");
    let updated = [Some(created_at), started_at, time("updated_at"), finished_at];
    let due = if state == State::Retrying { score(2) } else { time("scheduled_at") };
    let items = items_of(field);
    Ok(Some(Job {
        id: id.clone(),
        kind: Kind::parse(need("kind")?).map_err(|e| e.to_string())?,
        queue: QueueName::parse(need("queue")?).map_err(|e| e.to_string())?,
        state,
        priority: field("priority").and_then(Priority::parse).unwrap_or_default(),
        payload: Json::stored(need("payload")?.to_owned()),
        attempt,
        max_attempts,
        crashes: small("crashes").unwrap_or(0),
        token: if running { record[0].parse().ok() } else { count("token") },
        worker: WorkerId::parse(if running { record[1] } else { field("worker").unwrap_or_default() }).ok(),
        cancel_requested: number(&reply[3]) == Some(1),
        progress: (field("percent").is_some() || field("message").is_some()).then(|| Progress {
            percent: field("percent").and_then(|v| v.parse().ok()),
            message: field("message").map(str::to_owned),
        }),
        result: field("result").map(|v| Json::stored(v.to_owned())),
        skipped: field("skipped").map(str::to_owned),
        error,
        parent: field("parent").and_then(|v| JobId::parse(v).ok()),
        items,
        created_at,
        scheduled_at: due,
        started_at,
        updated_at: updated.into_iter().flatten().max().unwrap_or(created_at),
        finished_at,
        lease_expires_at: if running { score(1) } else { None },
        served: None,
        imported: field("imported").map(|v| Json::stored(v.to_owned())),
    }))
}

/// A parent's counts, as its record has them; `None` when it is no parent.
pub(super) fn items_of<'a>(field: impl Fn(&str) -> Option<&'a str>) -> Option<Items> {
    let count = |name: &str| field(name).and_then(|v| v.parse().ok());
    count("items_total").map(|total| Items {
        total,
        succeeded: count("items_succeeded").unwrap_or(0),
        failed: count("items_failed").unwrap_or(0),
        skipped: count("items_skipped").unwrap_or(0),
        cancelled: count("items_cancelled").unwrap_or(0),
        open: field("sealed").is_none(),
    })
}

/// An error as it was stored; a damaged one is shown as text rather than hiding the job.
fn stored_error(text: &str) -> crate::JobError {
    serde_json::from_str(text).unwrap_or_else(|_| crate::JobError {
        code: crate::job::ErrorCode::Failed,
        message: text.to_owned(),
        at: Timestamp(0),
    })
}

/// The elements of a reply that is an array; none for any other.
pub(super) fn array(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        _ => &[],
    }
}

/// A reply as text; empty for nil.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Int(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Okay => "OK".into(),
        _ => String::new(),
    }
}

/// A reply as a whole number.
pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        other => text(other).parse().ok(),
    }
}
