//! Every bound in one place. The fields of [`Limits`] can be configured (`[limits]`); the constants cannot, since
//! scripts, keys or other processes rely on them.
use serde::{Deserialize, Serialize};

/// Partitions a key space may have: a sweep each, every second.
pub const PARTITIONS_MAX: u16 = 256;
/// Jobs in one script call: about 20 ms of Redis at most.
pub const BATCH_MAX: usize = 1_000;
/// Bytes of payload or results in one script call.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// Items in one call of the API.
pub const ITEMS_PER_CALL_MAX: usize = 10_000;
/// Items that may come with the submit of their batch; more come in parts.
pub const ITEMS_PER_SUBMIT_MAX: usize = 100_000;
/// Bytes of request bodies that one API process holds at once, those up to [`BODY_FREE_BYTES`] aside.
pub const BODIES_BYTES_MAX: usize = 256 << 20;
/// Bytes of a body that are not counted, so that small requests always get through.
pub const BODY_FREE_BYTES: usize = 16 << 10;
/// Kinds, and queues, a partition may know.
pub const NAMES_MAX: usize = 1_000;
/// Ids one claim looks at before it answers, beyond its free slots: cancelled and parked ones cost a look each.
pub const CLAIM_SCAN: usize = 200;
/// Entries of a claimed list that a renewal looks at: slots and strays.
pub const CLAIMED_MAX: usize = 2_000;
/// Slots a worker may have.
pub const SLOTS_MAX: usize = 1_000;
/// Jobs one step of a sweep moves.
pub const SWEEP_BATCH: usize = 500;
/// Steps of one sort that one sweep takes, so that no backlog keeps the others waiting.
pub const SWEEP_STEPS: usize = 20;
/// Items one step of a cascade visits.
pub const CASCADE_BATCH: usize = 500;
/// Dead workers that one sweep looks at.
pub const DEAD_WINDOW: usize = 1_000;
/// Jobs one step of a prune by hand looks at.
pub const PRUNE_BATCH: usize = 500;
/// Entries kept of a job's history, newest.
pub const HISTORY_MAX: usize = 1_000;
/// The longest back-off, ms: a day.
pub const BACKOFF_MS_MAX: u64 = 86_400_000;
/// The longest delay of a submit, ms: ten years.
pub const DELAY_MS_MAX: u64 = 315_360_000_000;
/// The shortest lease, ms: a sixth of it is what a renewal has time for.
pub const LEASE_MS_MIN: u64 = 1_000;
/// The longest lease, ms: an hour.
pub const LEASE_MS_MAX: u64 = 3_600_000;
/// The longest block of a pop, ms: a partitioned worker that blocked first takes a job from a healthy one.
pub const POP_MS_MAX: u64 = 2_000;
/// An unsealed parent is cancelled so long after its last part, ms.
pub const OPEN_MS: u64 = 3_600_000;
/// A worker that was not seen for so long, ms, and holds nothing is forgotten.
pub const WORKER_FORGET_MS: u64 = 3_600_000;
/// How long an Idempotency-Key is kept, ms.
pub const IDEMPOTENCY_MS: u64 = 86_400_000;
/// Bytes of an Idempotency-Key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Attempts a job may be given.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// The longest run a job may be given, ms: a week.
pub const TIMEOUT_MS_MAX: u64 = 604_800_000;
/// How long a released job of a record version that the worker does not know waits, ms.
pub const UNKNOWN_VERSION_DELAY_MS: u64 = 5_000;
/// The version of a job's record that this code writes and reads.
pub const RECORD_VERSION: u32 = 1;
/// Bytes of an error's or a progress message; the rest is cut.
pub const MESSAGE_BYTES_MAX: usize = 4_096;
/// Bytes of progress and checkpoints in one call: what a link of 1 Mbit/s carries well within `redis.response_ms`.
pub const REPORT_BYTES_MAX: usize = 256 << 10;
/// Bytes of progress messages that one job may have waiting for Redis; the oldest go first.
pub const PROGRESS_BYTES_MAX: usize = 256 << 10;
/// Ids a listing by `state=queued`, or with a filter, looks at for a page.
pub const LIST_SCAN: usize = 10_000;
/// How long a record that was set aside is kept once an operator has accepted it, ms: 30 days.
pub const QUARANTINE_MS: u64 = 2_592_000_000;
/// Jobs in a page of a listing.
pub const PAGE_MAX: usize = 1_000;
/// Bytes of payloads and results in a page; the job that passes it is the last.
pub const PAGE_BYTES_MAX: usize = 16 << 20;
/// Files a job may be given, and files an attempt may leave: their list stands in the job's record.
pub const FILES_MAX: usize = 100;
/// Bytes of a file's name: a folder takes 255, less what a file that is being written is called.
pub const FILE_NAME_BYTES_MAX: usize = 200;
/// Bytes of a file's content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 200;
/// Bytes of a file that are gathered before they are written.
pub const FILE_PART_BYTES: usize = 256 << 10;
/// Bytes of an upload between one part and the next: a part's head, and what stands before the first.
pub const PART_HEAD_BYTES_MAX: usize = 512 << 10;
/// Folders of the file store that one step of its walk looks at.
pub const FILE_WALK_BATCH: usize = 100;
/// Jobs in a page of a stream.
pub const STREAM_JOBS: u64 = 200;
/// Bytes of payloads and results that a page of a stream aims at.
pub const STREAM_BYTES: usize = 1 << 20;
/// Bytes of a document that a job fetches, on the wire and unpacked: it is held in memory.
pub const FETCH_BYTES_MAX: u64 = 20 << 20;
/// Time to fetch one document, ms, redirects and all.
pub const FETCH_MS_MAX: u64 = 60_000;
/// Time to connect for a fetch, ms.
pub const FETCH_CONNECT_MS: u64 = 10_000;
/// Time without a byte in a fetch, ms.
pub const FETCH_IDLE_MS: u64 = 15_000;
/// Redirects that a fetch follows: as many as browsers do at least.
pub const FETCH_REDIRECTS_MAX: usize = 10;
/// Bytes of a URL that is fetched: longer ones are not safe with all servers.
pub const URL_BYTES_MAX: usize = 2_000;
/// Documents that one gap analysis reads besides the first: their URLs and statements stand in its checkpoint.
pub const PAPERS_MAX: usize = 50;
/// Tokens in the API's file: each request is compared with all of them.
pub const TOKENS_MAX: usize = 1_000;
/// Watchers of jobs (`Prefer: wait`, event streams) in one process.
pub const WATCHERS_MAX: usize = 10_000;

/// Bounds an operator may set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of the body of a bulk or items request.
    pub bulk_body_bytes: usize,
    /// Bytes of an upload, and of the files that an attempt leaves.
    pub upload_bytes: u64,
    /// Time for an upload, ms.
    pub upload_ms: u64,
    /// Bytes of a body over its limit that are still read and dropped, so that the client sees the answer.
    pub drain_bytes: usize,
    /// Bytes of a payload, as compact JSON.
    pub payload_bytes: usize,
    /// Bytes of a result, as compact JSON.
    pub result_bytes: usize,
    /// Bytes of a checkpoint, as compact JSON.
    pub checkpoint_bytes: usize,
    /// Nested arrays and objects in a JSON text.
    pub json_depth: usize,
    /// Time for a request once its body is read, ms; an asked wait is not counted.
    pub request_ms: u64,
    /// Idleness in reading a body, ms.
    pub idle_ms: u64,
    /// The longest `Prefer: wait`, s.
    pub wait_s: u64,
    /// Connections an API replica serves at once.
    pub connections: usize,
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
        }
    }
}
