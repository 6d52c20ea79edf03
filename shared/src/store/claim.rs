//! Claim, renew, recover: how a worker comes to hold a job, and keeps it.
use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use redis::aio::MultiplexedConnection;

use super::link::sort_error;
use super::list::{array, items_of, number, text};
use super::{Args, Metrics, Repeat, Store, WorkerInfo, keys, scripts};
use crate::files::FileEntry;
use crate::job::Items;
use crate::{Error, JobId, Json, Kind, QueueName, Result, Timestamp, WorkerId, limits};

/// The proof of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// The job.
    pub id: JobId,
    /// The token its claim was given.
    pub token: u64,
}

/// An id that a pop moved into the worker's claimed list and no script has leased yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The list it came from.
    pub queue: QueueName,
    /// The job.
    pub id: JobId,
}

/// What a worker can take from one partition now.
#[derive(Debug, Clone)]
pub struct ClaimRequest<'a> {
    /// Who claims.
    pub worker: &'a WorkerId,
    /// How long the leases run, ms.
    pub lease_ms: u64,
    /// Free slots: at most so many jobs come back.
    pub slots: usize,
    /// How many of them may be suspects (jobs that have lost a worker).
    pub suspects: usize,
    /// What its pops have brought.
    pub reservations: &'a [Reservation],
    /// The queues in the order to take from, each with its share of the slots; what a share leaves goes to any.
    pub queues: &'a [(QueueName, usize)],
    /// The kinds it serves, each with its `max_running`; 0 is no limit.
    pub kinds: &'a [(Kind, u32)],
}

/// A job that is now this worker's, with all that a handler needs.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// The job and its token.
    pub held: Held,
    /// The kind whose handler is to run: a parent's `then`, or the job's own.
    pub kind: Kind,
    /// The queue it came from.
    pub queue: QueueName,
    /// For its handler.
    pub payload: Json,
    /// Failed attempts so far.
    pub attempts: u32,
    /// Attempts it is given.
    pub max_attempts: u32,
    /// Workers it has lost: above 0 it is a suspect.
    pub crashes: u32,
    /// Longest run, ms, when its submit named one.
    pub timeout_ms: Option<u64>,
    /// What the last attempt saved.
    pub checkpoint: Option<Json>,
    /// Its batch, for an item.
    pub parent: Option<JobId>,
    /// Counts of its items, for a batch that runs its `then`.
    pub items: Option<Items>,
    /// The files that came with its submit.
    pub files: Vec<FileEntry>,
    /// How long it waited from when it was due, ms, by Redis's clock; only of a first claim, and not of a parent, which
    /// waited for its items.
    pub waited_ms: Option<u64>,
    /// The version of its record; other than [`limits::RECORD_VERSION`] it is to be released.
    pub version: u32,
    /// The partition it lives in.
    pub partition: u16,
}

/// A claim's answer.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// What the worker holds now.
    pub jobs: Vec<ClaimedJob>,
    /// Queues from which nothing is to be taken until they are resumed.
    pub paused: Vec<QueueName>,
    /// The bound on looking was reached before the slots were full: claim again.
    pub more: bool,
}

/// One heartbeat in one partition.
#[derive(Debug, Clone)]
pub struct RenewRequest<'a> {
    /// What the worker says of itself.
    pub info: &'a WorkerInfo,
    /// How long the leases run from now, ms.
    pub lease_ms: u64,
    /// What its live handlers run here.
    pub held: &'a [Held],
}

/// What the holder must know of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It runs on.
    Renewed,
    /// It runs on, and a cancel is asked.
    Cancel,
    /// Somebody else's, or ended: the handler is to stop and settle nothing.
    Stale,
    /// The job is gone: the same.
    Missing,
}

/// A heartbeat's answer.
#[derive(Debug, Clone)]
pub struct Renewed {
    /// For each of `held`, in order.
    pub answers: Vec<Renewal>,
    /// The worker's claimed list, each id with the token of its lease or none: for the audit.
    pub claimed: Vec<(JobId, Option<u64>)>,
    /// Redis's time.
    pub at: Timestamp,
}

/// A gap in the clock's stamps longer than this, ms, means that Redis or everybody was away. Stamps come every sixth of a
/// lease from each worker's renewals. It must be well below a lease: with half of one, two gaps in a row hide an outage in
/// which live workers could not renew (found by the model of the clock in `tests/model`).
pub(super) fn gap_max_ms(lease_ms: u64) -> u64 {
    lease_ms / 3
}

impl Store {
    /// Leases what the pops reserved and as many more as there are free slots. Never repeated: on an unknown outcome the
    /// audit recovers what it may have taken.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn claim(&self, partition: u16, request: &ClaimRequest<'_>) -> Result<Claimed> {
        let scan = request.slots + request.reservations.len() + limits::CLAIM_SCAN;
        let mut args = Args::default()
            .text(request.worker.as_str())
            .number(request.lease_ms)
            .count(request.slots)
            .count(request.suspects)
            .count(scan)
            .count(request.reservations.len());
        for r in request.reservations {
            args = args.text(r.queue.as_str()).text(r.id.as_str());
        }
        args = args.count(request.queues.len());
        for (queue, budget) in request.queues {
            args = args.text(queue.as_str()).count(*budget);
        }
        args = args.count(request.kinds.len());
        for (kind, max_running) in request.kinds {
            args = args.text(kind.as_str()).number(*max_running);
        }
        let reply = self.inner.run(&scripts::CLAIM, partition, &args, Repeat::Never).await?;
        let reply = array(&reply);
        let now = reply.get(2).and_then(number).unwrap_or(0);
        // One that cannot be read is left to its lease's end; the others run.
        let read = |v| {
            claimed_job(partition, now, v).inspect_err(|e| tracing::warn!("a claimed job is not started: {e}")).ok()
        };
        let jobs = reply.iter().skip(3).filter_map(read).collect();
        let paused = array(reply.first().unwrap_or(&Value::Nil));
        let paused = paused.iter().filter_map(|v| QueueName::parse(&text(v)).ok()).collect();
        Ok(Claimed { jobs, paused, more: reply.get(1).and_then(number) == Some(1) })
    }

    /// One heartbeat: renews what is held, registers the worker, and brings the claimed list for the audit.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn renew(&self, partition: u16, request: &RenewRequest<'_>) -> Result<Renewed> {
        let info = Json::of(request.info).expect("a worker's info is plain JSON");
        let mut args = Args::default()
            .text(request.info.id.as_str())
            .number(request.lease_ms)
            .number(gap_max_ms(request.lease_ms))
            .text(info.as_str())
            .count(request.held.len());
        for held in request.held {
            args = args.text(held.id.as_str()).number(held.token);
        }
        let reply = self.inner.run(&scripts::RENEW, partition, &args, Repeat::Safe).await?;
        let reply = array(&reply);
        let answers = array(reply.get(1).unwrap_or(&Value::Nil)).iter().map(|v| match text(v).as_str() {
            "renewed" => Renewal::Renewed,
            "cancel" => Renewal::Cancel,
            "stale" => Renewal::Stale,
            _ => Renewal::Missing,
        });
        let claimed = array(reply.get(2).unwrap_or(&Value::Nil)).iter().filter_map(|entry| {
            let entry = array(entry);
            Some((JobId::parse(&text(entry.first()?)).ok()?, text(entry.get(1)?).parse().ok()))
        });
        let at = Timestamp(reply.first().and_then(number).unwrap_or(0));
        Ok(Renewed { answers: answers.collect(), claimed: claimed.collect(), at })
    }

    /// Puts reservations of this worker's that nobody leased back to the front of their queues. Returns how many.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn recover(&self, partition: u16, worker: &WorkerId, ids: &[JobId]) -> Result<usize> {
        let args = Args::default().text(worker.as_str()).text("audit").count(ids.len()).number(0).number(0);
        let args = args.texts(ids.iter().map(JobId::as_str));
        let reply = self.inner.run(&scripts::RECOVER, partition, &args, Repeat::Safe).await?;
        Ok(array(&reply).first().and_then(number).and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
    }

    /// Takes a worker that has settled everything off the list of workers, in every partition.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn leave(&self, worker: &WorkerId) -> Result<()> {
        let args = Args::default().text(worker.as_str()).text("leave").count(limits::CLAIMED_MAX).number(0).number(0);
        let each = (0..self.partitions()).map(|p| self.inner.run(&scripts::RECOVER, p, &args, Repeat::Safe));
        // None keeps the others from being left.
        join_all(each).await.into_iter().try_for_each(|left| left.map(drop))
    }

    /// A connection for blocking pops.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn popper(&self) -> Result<Popper> {
        let mut connection = self.inner.link.dedicated().await?;
        let asking = redis::cmd("CLIENT").arg("ID").to_owned();
        let id = tokio::time::timeout(POP_MARGIN, asking.query_async(&mut connection)).await;
        let id = id.map_err(|_| Error::Unavailable("no answer to CLIENT ID".into()))?.map_err(|e| sort_error(&e))?;
        Ok(Popper { connection, id, metrics: self.inner.link.metrics().clone() })
    }

    /// Ends the waits of those poppers at once; each returns `None`.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn unblock(&self, poppers: &[i64]) -> Result<()> {
        let mut pipeline = redis::pipe();
        for id in poppers {
            pipeline.cmd("CLIENT").arg("UNBLOCK").arg(*id);
        }
        if poppers.is_empty() { Ok(()) } else { self.inner.pipe(&pipeline).await.map(drop) }
    }
}

/// How much longer than asked a pop may take before its connection is dropped.
const POP_MARGIN: Duration = Duration::from_secs(2);

/// A connection that blocks in BRPOPLPUSH. After an error, or when a wait is abandoned, it must be dropped whole: only
/// then does the server forget the pop.
pub struct Popper {
    connection: MultiplexedConnection,
    id: i64,
    metrics: Metrics,
}

impl Popper {
    /// The connection's id, for [`Store::unblock`].
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Waits up to `wait` (at most [`limits::POP_MS_MAX`]) for an id in the queue's own list, and moves it to the
    /// worker's claimed list. What comes back is a reservation: only a claim leases it.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`]: an id may have been moved; the audit finds it. [`Error::Full`]: Redis refuses the pop
    /// for want of memory, the claim script still works.
    pub async fn reserve(
        &mut self,
        partition: u16,
        queue: &QueueName,
        worker: &WorkerId,
        wait: Duration,
    ) -> Result<Option<Reservation>> {
        let popped = self.pop(partition, queue, worker, wait).await;
        self.metrics.answered("pop", &popped);
        popped
    }

    async fn pop(
        &mut self,
        partition: u16,
        queue: &QueueName,
        worker: &WorkerId,
        wait: Duration,
    ) -> Result<Option<Reservation>> {
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(limits::POP_MS_MAX));
        let mut pop = redis::cmd("BRPOPLPUSH");
        pop.arg(keys::queue(partition, queue)).arg(keys::claimed(partition, worker)).arg(wait.as_secs_f64());
        let popping = pop.query_async::<Option<String>>(&mut self.connection);
        let popped = tokio::time::timeout(wait + POP_MARGIN, popping).await;
        let popped = popped.map_err(|_| Error::OutcomeUnknown("a pop did not come back".into()))?;
        let Some(id) = popped.map_err(|e| sort_error(&e))? else { return Ok(None) };
        match JobId::parse(&id) {
            Ok(id) => Ok(Some(Reservation { queue: queue.clone(), id })),
            Err(e) => Err(Error::Corrupt { key: keys::queue(partition, queue), reason: e.to_string() }),
        }
    }
}

fn claimed_job(partition: u16, now: i64, reply: &Value) -> Result<ClaimedJob> {
    let reply = array(reply);
    let word = |at: usize| reply.get(at).map(text).unwrap_or_default();
    let corrupt = |reason: String| Error::Corrupt { key: format!("job {} in partition {partition}", word(0)), reason };
    let fields: HashMap<String, String> =
        reply[3.min(reply.len())..].chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
    let field = |name: &str| fields.get(name).map(String::as_str);
    let count = |name: &str| field(name).and_then(|v| v.parse().ok());
    let due = ["scheduled_at", "created_at"].into_iter().find_map(|name| field(name)?.parse::<i64>().ok());
    let is_first = ["token", "crashes", "items_total"].into_iter().all(|name| field(name).is_none());
    let waited_ms = due.filter(|_| is_first).map(|due| u64::try_from(now - due).unwrap_or(0));
    Ok(ClaimedJob {
        held: Held {
            id: JobId::parse(&word(0)).map_err(|e| corrupt(e.to_string()))?,
            token: word(1).parse().map_err(|_| corrupt("no token".into()))?,
        },
        kind: Kind::parse(&word(2)).map_err(|e| corrupt(e.to_string()))?,
        queue: QueueName::parse(field("queue").unwrap_or_default()).map_err(|e| corrupt(e.to_string()))?,
        payload: Json::stored(field("payload").unwrap_or("null").to_owned()),
        attempts: count("attempts").unwrap_or(0),
        max_attempts: count("max_attempts").unwrap_or(1),
        crashes: count("crashes").unwrap_or(0),
        timeout_ms: field("timeout_ms").and_then(|v| v.parse().ok()),
        checkpoint: field("checkpoint").map(|v| Json::stored(v.to_owned())),
        parent: field("parent").and_then(|v| JobId::parse(v).ok()),
        items: items_of(field),
        files: field("files").map_or_else(Vec::new, super::files::entries),
        waited_ms,
        version: count("version").unwrap_or(0),
        partition,
    })
}
