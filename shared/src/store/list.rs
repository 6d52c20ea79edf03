//! Listing jobs: pages by state, kind, queue or batch, and the cursors between them.
use std::collections::{BTreeSet, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::Store;
use super::wire::reply::{array, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use crate::job::cut;
use crate::{Error, Job, JobId, Kind, QueueName, Result, State, canonical, limits};

/// Jobs of a page that are read at once, so that large ones are never all in memory.
const LIST_READ: usize = 100;
/// Bytes that a cursor keeps of a member of a sorted set; enough to continue after a member that is not an id.
const MEMBER_BYTES: usize = 128;

/// A listing: the filters, and where to continue.
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
    /// Where the previous page ended.
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

/// Where a page ended; valid for the same query only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cursor(Position);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Position {
    /// After a member of a sorted set.
    #[serde(rename = "r")]
    Ranked(String, String),
    /// After this many ids of a list, from the end that is claimed first; lists are numbered in the order of their
    /// names.
    #[serde(rename = "l")]
    Listed(u16, String, i64),
    /// From that item on.
    #[serde(rename = "n")]
    Numbered(u64),
}

impl Cursor {
    /// Whether it is well-formed: it comes from a client.
    fn is_sound(&self) -> bool {
        match &self.0 {
            Position::Ranked(score, id) => score.parse::<f64>().is_ok_and(f64::is_finite) && id.len() <= MEMBER_BYTES,
            Position::Listed(_, _, offset) => (0..1 << 53).contains(offset),
            Position::Numbered(from) => *from < 1 << 53,
        }
    }
}

impl ListQuery {
    /// Reads a cursor that [`Store::list`] returned for the same query.
    ///
    /// # Errors
    /// A sentence, for a cursor of a different query.
    pub fn with_cursor(mut self, text: &str) -> Result<Self, String> {
        let foreign = || "this cursor is not from a page of the same listing; leave it out to start again".to_owned();
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

impl Store {
    /// A page of jobs. Exact by state, by kind, and by kind and a final state. `queued`, and a filter by queue, or by
    /// kind and another state, are bounded scans: such a page may be short and still have a cursor, as may a page of
    /// large jobs ([`limits::PAGE_BYTES_MAX`]).
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
                        tracing::warn!("a listing omits a job: {e}");
                        None
                    });
                    let Some(job) = job.filter(|j| query.takes(j)) else {
                        position = Some(at.clone());
                        continue;
                    };
                    if jobs.len() == limit || bytes >= limits::PAGE_BYTES_MAX {
                        // At least one more follows.
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

    /// The next ids and their positions; `None` for a member that is not an id.
    async fn next_ids(
        &self,
        query: &ListQuery,
        after: Option<&Position>,
        n: usize,
    ) -> Result<Vec<(Option<JobId>, Position)>> {
        if let Some(parent) = &query.parent {
            let Some(job) = self.get(parent).await? else { return Ok(Vec::new()) };
            let total = job.items.map_or(0, |items| items.total);
            let from = if let Some(Position::Numbered(from)) = after { *from } else { 0 };
            let ids = self.item_ids(parent, job.partition, from..total.min(from + n as u64));
            return Ok((from + 1..).zip(ids).map(|(next, id)| (Some(id), Position::Numbered(next))).collect());
        }
        if query.state == Some(State::Queued) {
            return self.queued_ids(query, after, n).await;
        }
        let (suffixes, newest) = self.sets(query).await?;
        let order = if newest { "newest" } else { "soonest" };
        let (score, id) =
            if let Some(Position::Ranked(score, id)) = after { (score.as_str(), id.as_str()) } else { ("", "") };
        // The script merges sets, few enough for a short call.
        let parts: Vec<Args> = suffixes
            .chunks((limits::LIST_MERGE / n).max(1))
            .map(|part| Args::default().texts([order, score, id]).count(n).texts(part))
            .collect();
        let calls: Vec<(u16, Args)> =
            (0..self.partitions()).flat_map(|p| parts.iter().map(move |part| (p, part.clone()))).collect();
        let pages = calls.into_iter().map(|(partition, args)| async move {
            let reply = self.inner.wire.run(&scripts::LIST, partition, &args, Repeat::Safe).await?;
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

    /// The sorted sets, in each partition, that hold the jobs of a query, and whether the newest come first.
    async fn sets(&self, query: &ListQuery) -> Result<(Vec<String>, bool)> {
        if let Some(state) = query.state.filter(|state| !state.is_final()) {
            let suffix = if state == State::Running { "leases" } else { state.as_str() };
            return Ok((vec![suffix.to_owned()], state == State::Waiting));
        }
        let kinds = match &query.kind {
            Some(kind) => vec![kind.clone()],
            None => self.names("kinds").await?.iter().filter_map(|kind| Kind::parse(kind).ok()).collect(),
        };
        let sets_of = |kind: &Kind| match query.state {
            Some(state) => keys::ENDED.iter().map(|place| keys::ended_suffix(place, kind, state)).collect(),
            None => vec![keys::kind_suffix(kind)],
        };
        Ok((kinds.iter().flat_map(sets_of).collect(), true))
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
                let replies = self.inner.wire.pipe_leniently(Home::Partition(partition), &pipeline).await?;
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
        let entries = self.queues_in(partition, queue, 0).await?;
        let mut lists = BTreeSet::new();
        for entry in entries.iter().map(|(_, entry)| array(entry)) {
            let name = text(&entry[0]);
            lists.extend(["", ":high", ":low", ":suspect"].map(|sort| format!("queue:{name}{sort}")));
            lists.extend(entry.iter().skip(5).map(|kind| format!("parked:{name}:{}", text(kind))));
        }
        Ok(lists)
    }

    /// A job of this queue in this state, which is not `queued`. The cost grows with the number of jobs in that state.
    pub(super) async fn find_in_queue(&self, queue: &QueueName, state: State) -> Result<Option<JobId>> {
        let query = ListQuery { state: Some(state), ..ListQuery::default() };
        let mut position = None;
        loop {
            let ids = self.next_ids(&query, position.as_ref(), limits::PAGE_MAX).await?;
            let Some((_, last)) = ids.last() else { return Ok(None) };
            position = Some(last.clone());
            let ids: Vec<JobId> = ids.into_iter().filter_map(|(id, _)| id).collect();
            let places = self.places(&ids).await?;
            let command = |(id, partition): (&JobId, u16)| {
                (Home::Partition(partition), redis::cmd("HGET").arg(keys::job(partition, id)).arg("queue").to_owned())
            };
            let commands: Vec<_> = ids.iter().zip(places).map(command).collect();
            let queues = self.inner.wire.pipe_each_leniently(&commands).await?;
            let mut found = ids.into_iter().zip(&queues).filter(|(_, of)| text(of) == queue.as_str());
            if let Some((id, _)) = found.next() {
                return Ok(Some(id));
            }
        }
    }

    /// The members of a set of names, over all partitions.
    pub(super) async fn names(&self, set: &str) -> Result<Vec<String>> {
        let members = |p: u16| (Home::Partition(p), redis::cmd("SMEMBERS").arg(keys::fixed(p, set)).to_owned());
        let commands: Vec<_> = (0..self.partitions()).map(members).collect();
        let replies = self.inner.wire.pipe_each_leniently(&commands).await?;
        let names: BTreeSet<String> = replies.iter().flat_map(|r| array(r).iter().map(text)).collect();
        Ok(names.into_iter().collect())
    }
}
