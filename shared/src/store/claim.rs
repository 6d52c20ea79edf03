//! Claim: how a worker acquires jobs. `pop` waits for their ids, `renew` keeps their leases.
use redis::Value;

use super::Store;
use super::pop::Reservation;
use super::record::{files_of, items_of};
use super::wire::reply::{array, number, str_of, text};
use super::wire::{Args, Repeat, scripts};
use crate::files::FileEntry;
use crate::job::Items;
use crate::{Error, JobId, Json, Kind, QueueName, Result, Timestamp, WorkerId, limits};

/// The proof of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// Its partition.
    pub partition: u16,
    /// The job.
    pub id: JobId,
    /// The token of its claim: Redis's time in µs, or more; at most [`limits::TOKEN_MAX`].
    pub token: u64,
}

/// A worker's request for jobs of one partition.
#[derive(Debug, Clone)]
pub struct ClaimRequest<'a> {
    /// The claiming worker.
    pub worker: &'a WorkerId,
    /// The number of this claim among the worker's claims in the partition. A claim with the number of the one before
    /// gets the same jobs: so it can be sent again when its reply was lost.
    pub number: u64,
    /// The duration of the leases, ms.
    pub lease_ms: u64,
    /// Free slots: the maximum number of jobs returned.
    pub slots: usize,
    /// How many of them may be suspects (jobs that have lost a worker).
    pub suspects: usize,
    /// The highest token of this partition that it has seen; 0: none. The tokens of the claim are larger.
    pub seen: u64,
    /// The reservations of its pops.
    pub reservations: &'a [Reservation],
    /// The queues in the order to claim from, each with its share of the slots; unused shares go to any queue.
    pub queues: &'a [(QueueName, usize)],
    /// The kinds it serves, each with its `max_running`; 0 is no limit.
    pub kinds: &'a [(Kind, u32)],
}

/// A claimed job, with everything that a handler needs.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// The job and its token.
    pub held: Held,
    /// The kind whose handler is to run: a parent's `then`, or the job's own.
    pub kind: Kind,
    /// The queue it came from.
    pub queue: QueueName,
    /// The input of its handler.
    pub payload: Json,
    /// Failed attempts so far.
    pub attempts: u32,
    /// Maximum attempts.
    pub max_attempts: u32,
    /// Workers it has lost: above 0 the job is a suspect.
    pub crashes: u32,
    /// Maximum run time, ms, when its submit named one.
    pub timeout_ms: Option<u64>,
    /// The checkpoint of the last attempt.
    pub checkpoint: Option<Json>,
    /// The tick of the schedule that submitted it.
    pub scheduled_for: Option<Timestamp>,
    /// Its batch, for an item.
    pub parent: Option<JobId>,
    /// Counts of its items, for a batch that runs its `then`.
    pub items: Option<Items>,
    /// The files that came with its submit.
    pub files: Vec<FileEntry>,
    /// It has never been claimed before, so no earlier attempt has left anything.
    pub is_first: bool,
    /// Time from due to this claim, ms, by Redis's clock; only for a first claim, and not for a parent, which
    /// waited for its items.
    pub waited_ms: Option<u64>,
    /// The version of its record; beyond [`limits::RECORD_VERSION`] the job must be released.
    pub version: u32,
    /// Its partition.
    pub partition: u16,
}

/// The reply to a claim.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The jobs that the worker now holds.
    pub jobs: Vec<ClaimedJob>,
    /// Paused queues, from which nothing must be claimed until they are resumed.
    pub paused: Vec<QueueName>,
    /// The limit on examined ids was reached before the slots were full: claim again.
    pub more: bool,
}

impl Store {
    /// Leases what the pops reserved and as many more as there are free slots. On an unknown outcome the caller must
    /// send it again with the same number until it is answered: only the answer names the jobs that it may have
    /// leased. It may do so with fewer slots, if the answer was too large for a slow link: the others are released.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn claim(&self, partition: u16, request: &ClaimRequest<'_>) -> Result<Claimed> {
        let scan = request.slots + request.reservations.len() + limits::CLAIM_SCAN;
        let mut args = Args::default()
            .text(request.worker.as_str())
            .number(request.number)
            .number(request.lease_ms)
            .count(request.slots)
            .count(request.suspects)
            .count(scan)
            .number(request.seen)
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
        let reply = self.inner.wire.run(&scripts::CLAIM, partition, &args, Repeat::Never).await?;
        let reply = array(&reply);
        let now = reply.get(2).and_then(number).unwrap_or(0);
        // An unreadable job is left until its lease expires; the others run.
        let read =
            |v| claimed_job(partition, now, v).inspect_err(|e| tracing::warn!("cannot start a claimed job: {e}")).ok();
        let jobs = reply.iter().skip(3).filter_map(read).collect();
        let paused = array(reply.first().unwrap_or(&Value::Nil));
        let paused = paused.iter().filter_map(|v| QueueName::parse(&text(v)).ok()).collect();
        Ok(Claimed { jobs, paused, more: reply.get(1).and_then(number) == Some(1) })
    }
}

fn claimed_job(partition: u16, now: i64, reply: &Value) -> Result<ClaimedJob> {
    let (fields, proof) = array(reply).split_at(array(reply).len().saturating_sub(3));
    let word = |at: usize| proof.get(at).map(text).unwrap_or_default();
    let corrupt = |reason: String| Error::Corrupt { key: format!("job {} in partition {partition}", word(0)), reason };
    // A handful of fields: searching them in a row is faster than to build a map.
    let fields: Vec<(&str, &str)> =
        fields.chunks_exact(2).filter_map(|pair| Some((str_of(&pair[0])?, str_of(&pair[1])?))).collect();
    let field = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let count = |name: &str| field(name).and_then(|v| v.parse().ok());
    let due = ["scheduled_at", "created_at"].into_iter().find_map(|name| field(name)?.parse::<i64>().ok());
    let is_first = ["token", "crashes", "items_total"].into_iter().all(|name| field(name).is_none());
    let waited_ms = due.filter(|_| is_first).map(|due| u64::try_from(now - due).unwrap_or(0));
    Ok(ClaimedJob {
        held: Held {
            partition,
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
        scheduled_for: field("scheduled_for").and_then(|v| v.parse().ok()).map(Timestamp),
        parent: field("parent").and_then(|v| JobId::parse(v).ok()),
        items: items_of(field),
        files: field("files").map_or_else(Vec::new, files_of),
        is_first: field("token").is_none(),
        waited_ms,
        version: field("version").map_or(1, |version| version.parse().unwrap_or(u32::MAX)),
        partition,
    })
}
