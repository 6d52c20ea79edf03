//! All limits. The fields of [`Limits`] can be configured (`[limits]`); the constants cannot, because
//! scripts, keys or other processes rely on them.
use serde::{Deserialize, Serialize};

/// Fewest partitions in a Redis Cluster, where each is a single slot.
pub const CLUSTER_PARTITIONS_MIN: u16 = 16;
/// Partitions of a key space; each is swept every second, by one of the workers.
pub const PARTITIONS_MAX: u16 = 256;
/// Jobs in one script call: about 20 ms of Redis at most.
pub const BATCH_MAX: usize = 1_000;
/// Bytes of payload or results in one script call.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// Items in one call of the API.
pub const ITEMS_PER_CALL_MAX: usize = 10_000;
/// Items in the submit of a batch; further items are sent in parts.
pub const ITEMS_PER_SUBMIT_MAX: usize = 100_000;
/// Bytes of request bodies that one API process holds at once, not counting bodies up to [`BODY_FREE_BYTES`]: with what
/// is made of them it fits a process of 256 MB. At least one body of `limits.bulk_body_bytes` always fits.
pub const BODIES_BYTES_MAX: usize = 64 << 20;
/// Bytes of events that one API process holds at once for clients that have not received them.
pub const EVENTS_BYTES_MAX: usize = 32 << 20;
/// Bytes a second that the sender of a body must reach in the time that is spent waiting for it.
pub const BODY_BYTES_PER_S_MIN: u64 = 1_024;
/// Time for which the rest of a body is discarded once its request has been answered, ms.
pub const DRAIN_MS: u64 = 2_000;
/// Bytes of a body that are not counted, so that small requests are always accepted.
pub const BODY_FREE_BYTES: usize = 16 << 10;
/// Kinds, and queues, in a partition.
pub const NAMES_MAX: usize = 1_000;
/// Schedules in a partition.
pub const SCHEDULES_MAX: usize = 1_000;
/// The shortest and the longest interval of a schedule, ms.
pub const EVERY_MS_MIN: u64 = 1_000;
/// See [`EVERY_MS_MIN`]: ten years.
pub const EVERY_MS_MAX: u64 = 3_650 * 86_400_000;
/// Ticks of a schedule that are done at once, the last ones.
pub const TICKS_MAX: usize = 100;
/// Kinds of which one sweep of a partition looks whether the retention of jobs has passed, chosen at random each time.
pub const KINDS_WINDOW: usize = 20;
/// Ids that one claim examines beyond its free slots: cancelled and parked ids count.
pub const CLAIM_SCAN: usize = 200;
/// Ids that one look at the queues examines to find out how many jobs may start, spread over the partitions; further
/// ids are counted as such jobs.
pub const DEMAND_SCAN: usize = 800;
/// Ids that it examines at least in each partition.
pub const DEMAND_SCAN_MIN: usize = 200;
/// Lists of queues that one look at the queues visits in a call, and a few more: about 5 ms of Redis.
pub const QUEUE_LISTS: usize = 2_000;
/// How long a queue counts as served with a kind after its last worker with both, ms: 30 days.
pub const SERVED_MS: u64 = 2_592_000_000;
/// Entries of a claimed list that a renewal reads: slots and stray reservations.
pub const CLAIMED_MAX: usize = 2_000;
/// Slots of a worker.
pub const SLOTS_MAX: usize = 1_000;
/// Jobs one step of a sweep moves.
pub const SWEEP_BATCH: usize = 500;
/// Steps of one type in one sweep, so that a backlog does not delay the others.
pub const SWEEP_STEPS: usize = 20;
/// Items that one call of a cascade visits.
pub const CASCADE_BATCH: usize = 500;
/// Cascades of one sort that one sweep continues, several small ones in a call.
pub const CASCADES_MAX: usize = 200;
/// Calls with which a cancel, retry or removal of batches begins; the sweep makes the others.
pub const FIRST_STEPS: usize = 4;
/// How long a cascade may take before the doctor reports it, ms.
pub const CASCADE_MS_MAX: i64 = 600_000;
/// Dead workers that one sweep examines.
pub const DEAD_WINDOW: usize = 1_000;
/// Jobs that one step of a manual prune examines.
pub const PRUNE_BATCH: usize = 500;
/// How long after the submit of a job that has been removed since its id is remembered, ms, so that the repetition of a
/// submit whose reply was lost does not run it again: more than `redis.outage_ms` and `redis.response_ms` by default.
pub const RESENT_MS: u64 = 15_000;
/// Entries kept of a job's history, the newest.
pub const HISTORY_MAX: usize = 1_000;
/// The longest back-off, ms: a day.
pub const BACKOFF_MS_MAX: u64 = 86_400_000;
/// The longest delay of a submit, ms: ten years.
pub const DELAY_MS_MAX: u64 = 315_360_000_000;
/// The shortest lease, ms: a renewal has a sixth of it.
pub const LEASE_MS_MIN: u64 = 1_000;
/// The longest lease, ms: an hour.
pub const LEASE_MS_MAX: u64 = 3_600_000;
/// The longest block of a pop, ms: a worker behind a network partition that blocked first would receive a job before a
/// healthy one.
pub const POP_MS_MAX: u64 = 2_000;
/// Time from the last part of an unsealed parent until it is cancelled, ms.
pub const OPEN_MS: u64 = 3_600_000;
/// Time after which a worker that was not seen and holds nothing is forgotten, ms.
pub const WORKER_FORGET_MS: u64 = 3_600_000;
/// How long an Idempotency-Key is kept, ms.
pub const IDEMPOTENCY_MS: u64 = 86_400_000;
/// Bytes of an Idempotency-Key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Attempts of a job.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// The longest timeout of a job, ms: a week.
pub const TIMEOUT_MS_MAX: u64 = 604_800_000;
/// Delay after a worker releases a job with an unknown record version, ms.
pub const UNKNOWN_VERSION_DELAY_MS: u64 = 5_000;
/// Delay after an attempt that failed because the file store did, ms; no attempt is charged.
pub const SYSTEM_FAULT_DELAY_MS: u64 = 10_000;
/// The largest token of a lease, in µs of Redis's clock: the year 2255. Beyond 2^53, numbers in Lua are not exact.
pub const TOKEN_MAX: u64 = 9_000_000_000_000_000;
/// Replicas of Redis that a submit may wait for.
pub const REPLICAS_MAX: u8 = 10;
/// The version of a job's record that this code writes. It reads this one and all before it; a worker releases a job of
/// a later one, uncharged. The cargo feature `next-record` raises it, for the test of a rolling upgrade.
pub const RECORD_VERSION: u32 = if cfg!(feature = "next-record") { 2 } else { 1 };
/// The layout of the keys that this code writes and reads. 0.1 had layout 1, and did not record it.
pub const LAYOUT: i64 = 2;
/// Bytes of an error or progress message; the rest is cut off.
pub const MESSAGE_BYTES_MAX: usize = 4_096;
/// Bytes of progress and checkpoints in one call: a link of 1 Mbit/s transfers them well within `redis.response_ms`.
pub const REPORT_BYTES_MAX: usize = 256 << 10;
/// Bytes of pending progress messages of one job; the oldest are dropped first.
pub const PROGRESS_BYTES_MAX: usize = 256 << 10;
/// Ids that a listing by `state=queued`, or with a filter, examines for a page.
pub const LIST_SCAN: usize = 10_000;
/// Ids that one call of a listing reads from several sets to merge them.
pub const LIST_MERGE: usize = 5_000;
/// How long a record that was set aside is kept once an operator has accepted it, ms: 30 days.
pub const QUARANTINE_MS: u64 = 2_592_000_000;
/// Jobs in a page of a listing.
pub const PAGE_MAX: usize = 1_000;
/// Bytes of payloads and results in a page; the job that exceeds it is the last.
pub const PAGE_BYTES_MAX: usize = 16 << 20;
/// Input files of a job, and output files of an attempt: their list is stored in the job's record.
pub const FILES_MAX: usize = 100;
/// Bytes of a file's name: the file system's 255, less the suffix of a file being written.
pub const FILE_NAME_BYTES_MAX: usize = 200;
/// Bytes of a file's content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 200;
/// Bytes of a file that are buffered before they are written.
pub const FILE_PART_BYTES: usize = 256 << 10;
/// Bytes of a part of a file in a bucket, buffered like the above. Object stores take at least 5 MiB, and the same for
/// all parts but the last.
pub const BUCKET_PART_BYTES: usize = 8 << 20;
/// Parts of a file in a bucket: S3's limit, so that a file may have 80 GiB.
pub const BUCKET_PARTS_MAX: usize = 10_000;
/// Bytes of an upload between two parts: the headers of a part, and the text before the first part.
pub const PART_HEAD_BYTES_MAX: usize = 512 << 10;
/// Folders that one step of the file sweep examines.
pub const FILE_WALK_BATCH: usize = 100;
/// Jobs in a page of a stream.
pub const STREAM_JOBS: u64 = 200;
/// Bytes of payloads and results that a page of a stream aims at.
pub const STREAM_BYTES: usize = 1 << 20;
/// Bytes of a document that a job fetches, on the wire and unpacked: it is held in memory.
pub const FETCH_BYTES_MAX: u64 = 20 << 20;
/// Time to fetch one document, ms, redirects included.
pub const FETCH_MS_MAX: u64 = 60_000;
/// Time to connect for a fetch, ms.
pub const FETCH_CONNECT_MS: u64 = 10_000;
/// Time without a byte in a fetch, ms.
pub const FETCH_IDLE_MS: u64 = 15_000;
/// Redirects that a fetch follows, as many as the strictest browsers.
pub const FETCH_REDIRECTS_MAX: usize = 10;
/// Bytes of a URL to fetch: not all servers accept longer ones.
pub const URL_BYTES_MAX: usize = 2_000;
/// Documents that one gap analysis reads besides the first: their URLs and statements are stored in its checkpoint.
pub const PAPERS_MAX: usize = 50;
/// Tokens in the API's file: each request is compared with all of them.
pub const TOKENS_MAX: usize = 1_000;
/// Watchers of jobs (`Prefer: wait`, event streams) in one process.
pub const WATCHERS_MAX: usize = 10_000;

/// Limits that an operator may set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of the body of a bulk or items request.
    pub bulk_body_bytes: usize,
    /// Bytes of an upload, and of the output files of an attempt.
    pub upload_bytes: u64,
    /// Time for an upload, ms.
    pub upload_ms: u64,
    /// Bytes of a body beyond its limit that are still read and discarded, so that the client receives the response.
    pub drain_bytes: usize,
    /// Bytes of a payload, as compact JSON.
    pub payload_bytes: usize,
    /// Bytes of a result, as compact JSON.
    pub result_bytes: usize,
    /// Bytes of a checkpoint, as compact JSON.
    pub checkpoint_bytes: usize,
    /// Nested arrays and objects in a JSON text.
    pub json_depth: usize,
    /// Time for a request once its body is read, ms, not counting `Prefer: wait`.
    pub request_ms: u64,
    /// Idleness in reading a body, ms.
    pub idle_ms: u64,
    /// The longest `Prefer: wait`, s.
    pub wait_s: u64,
    /// Connections an API replica serves at once.
    pub connections: usize,
    /// Of these, how many one client address may have; `None`: seven eighths.
    pub client_connections: Option<usize>,
}

impl Limits {
    /// Connections that one client may have of `connections`.
    pub fn of_a_client(&self, connections: usize) -> usize {
        self.client_connections.unwrap_or(connections - connections / 8).clamp(1, connections.max(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 4 << 20,
            bulk_body_bytes: 64 << 20,
            upload_bytes: 1 << 30,
            upload_ms: 3_600_000,
            drain_bytes: 128 << 20,
            payload_bytes: 256 << 10,
            result_bytes: 256 << 10,
            checkpoint_bytes: 64 << 10,
            json_depth: 64,
            request_ms: 30_000,
            idle_ms: 30_000,
            wait_s: 60,
            connections: 10_000,
            client_connections: None,
        }
    }
}
