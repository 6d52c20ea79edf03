//! A Store on a Redis of its own, with a clock that the test sets.
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use leasehold::job::{Due, Durability, ErrorCode, Idempotency, JobError, NewBatch, Priority};
use leasehold::store::{ClaimRequest, Claimed, ClaimedJob, Held, Outcome, RenewRequest, Renewed, Settle, Settled};
use leasehold::store::{SweepRequest, Swept, WorkerInfo};
use leasehold::{Config, Job, JobId, Json, Kind, NewJob, QueueName, State, Store, Timestamp, WorkerId};
use leasehold_tests::RedisServer;

/// The lease of every test, ms.
pub const LEASE: u64 = 30_000;
/// The sweep interval of every test, ms.
pub const SWEEP: u64 = 1_000;
/// Where the test's clock begins, ms.
const BEGIN: i64 = 1_800_000_000_000;

pub struct Ground {
    pub redis: RedisServer,
    pub store: Store,
    clock: Arc<AtomicI64>,
    /// The highest token that each worker has seen, by worker and partition.
    seen: Mutex<HashMap<(String, u16), u64>>,
}

/// Runs a test on one partition and on four.
macro_rules! on_ground {
    ($(async fn $name:ident($ground:ident: &Ground) $body:block)*) => {
        $(mod $name {
            use super::*;
            async fn test($ground: &Ground) $body
            #[tokio::test]
            async fn one_partition() {
                let ground = Ground::new(1).await;
                test(&ground).await;
                ground.end().await;
            }
            #[tokio::test]
            async fn four_partitions() {
                let ground = Ground::new(4).await;
                test(&ground).await;
                ground.end().await;
            }
        })*
    };
}
pub(crate) use on_ground;

pub fn kind(name: &str) -> Kind {
    Kind::parse(name).unwrap()
}

pub fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

pub fn worker(name: &str) -> WorkerId {
    WorkerId::parse(name).unwrap()
}

pub fn json(text: &str) -> Json {
    Json::parse(text, 64, 1 << 20).unwrap()
}

/// The number of a claim that is no repetition.
fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// A plain job of kind `work` in queue `default`.
pub fn job() -> NewJob {
    NewJob {
        kind: kind("work"),
        queue: queue("default"),
        priority: Priority::Normal,
        payload: json("{\"n\":1}"),
        due: Due::Now,
        max_attempts: 3,
        timeout_ms: None,
        idempotency: None,
        durability: Durability::default(),
        limited: false,
        batch: None,
        uploaded: None,
    }
}

/// A batch of `n` items.
pub fn batch(n: usize) -> NewJob {
    let items = (0..n).map(|k| json(&k.to_string())).collect();
    NewJob { batch: Some(NewBatch { items, open: false, then: None }), ..job() }
}

pub fn keyed(key: &str, digest: &str) -> NewJob {
    NewJob { idempotency: Some(Idempotency { key: key.into(), digest: digest.into() }), ..job() }
}

pub fn complete(held: &Held) -> Settle {
    Settle {
        held: held.clone(),
        outcome: Outcome::Complete { result: json("{\"ok\":true}"), skipped: None, files: Vec::new() },
    }
}

pub fn fail(held: &Held, retry_ms: Option<u64>) -> Settle {
    let error = JobError { code: ErrorCode::Failed, message: "no".into(), at: Timestamp(BEGIN) };
    Settle { held: held.clone(), outcome: Outcome::Fail { error, retry_ms } }
}

pub fn release(held: &Held) -> Settle {
    Settle { held: held.clone(), outcome: Outcome::Release { delay_ms: None } }
}

impl Ground {
    pub async fn new(partitions: u16) -> Self {
        Self::on(RedisServer::start().await, partitions).await
    }

    /// On a server that is empty.
    pub async fn on(redis: RedisServer, partitions: u16) -> Self {
        let clock = Arc::new(AtomicI64::new(BEGIN));
        let config = Config { redis_url: redis.url(), partitions: Some(partitions), ..Config::default() };
        let store = Store::connect_with(&config, Some(clock.clone())).await.unwrap();
        Self { redis, store, clock, seen: Mutex::default() }
    }

    /// The store of another process.
    pub async fn another(&self) -> Store {
        let config = Config { redis_url: self.redis.url(), ..Config::default() };
        Store::connect_with(&config, Some(self.clock.clone())).await.unwrap()
    }

    /// The walk over the keys finds nothing.
    pub async fn end(self) {
        assert_eq!(self.store.check().await.unwrap(), []);
    }

    /// A store over the same keys and clock, at another address.
    pub async fn store_at(&self, redis_url: String) -> leasehold::Result<Store> {
        let config = Config { redis_url, ..Config::default() };
        Store::connect_with(&config, Some(self.clock.clone())).await
    }

    pub fn now(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Lets time pass as if somebody had swept all along, without the sweeps.
    pub async fn elapse(&self, ms: i64) {
        self.advance(ms);
        for partition in 0..self.store.partitions() {
            let (key, now) = (format!("lh:{{{partition}}}:clock"), self.now().to_string());
            let () = self.redis.command(&["HSET", &key, "stamp", &now]).await;
        }
    }

    pub fn advance(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    pub async fn submit(&self, job: NewJob) -> JobId {
        self.store.submit(job).await.unwrap().id
    }

    pub async fn get(&self, id: &JobId) -> Job {
        self.store.get(id).await.unwrap().expect("the job is there")
    }

    pub async fn state(&self, id: &JobId) -> State {
        self.get(id).await.state
    }

    /// Registers a worker in every partition and renews what it holds.
    pub async fn renew(&self, name: &str, held: &[Held]) -> Vec<Renewed> {
        self.renew_for(name, held, LEASE).await
    }

    /// [`Ground::renew`] with leases of this length, ms.
    pub async fn renew_for(&self, name: &str, held: &[Held], lease_ms: u64) -> Vec<Renewed> {
        let info = WorkerInfo {
            id: worker(name),
            host: "host".into(),
            pid: 1,
            version: "0".into(),
            started_at: Timestamp(BEGIN),
            queues: vec![queue("default")],
            kinds: vec![kind("work")],
            slots: 8,
            lease_ms,
            kinds_digest: None,
            running: Default::default(),
        };
        let mut answers = Vec::new();
        for partition in 0..self.store.partitions() {
            let here: Vec<Held> = held.iter().filter(|h| h.partition == partition).cloned().collect();
            let seen = self.seen(name, partition);
            let request = RenewRequest { info: &info, lease_ms, seen, held: &here };
            let renewed = self.store.renew(partition, &request).await.unwrap();
            answers.push(renewed);
        }
        answers
    }

    /// Claims up to `slots` jobs of kind `work` for `name`, over all partitions.
    pub async fn claim(&self, name: &str, slots: usize) -> Vec<ClaimedJob> {
        self.claim_kinds(name, slots, &[("work", 0)]).await
    }

    pub async fn claim_kinds(&self, name: &str, slots: usize, kinds: &[(&str, u32)]) -> Vec<ClaimedJob> {
        let kinds: Vec<_> = kinds.iter().map(|(k, limit)| (kind(k), *limit)).collect();
        let mut jobs = Vec::new();
        for partition in 0..self.store.partitions() {
            let claimed = self.claim_in(partition, name, slots - jobs.len(), &kinds).await;
            jobs.extend(claimed.jobs);
        }
        jobs
    }

    pub async fn claim_in(&self, partition: u16, name: &str, slots: usize, kinds: &[(Kind, u32)]) -> Claimed {
        let (name, queues) = (worker(name), [(queue("default"), slots)]);
        let seen = self.seen(name.as_str(), partition);
        let request = ClaimRequest { seen, queues: &queues, kinds, ..claim_of(&name, slots) };
        let claimed = self.store.claim(partition, &request).await.unwrap();
        self.saw(name.as_str(), partition, claimed.jobs.iter().map(|job| job.held.token));
        claimed
    }

    fn seen(&self, name: &str, partition: u16) -> u64 {
        self.seen.lock().unwrap().get(&(name.to_owned(), partition)).copied().unwrap_or(0)
    }

    fn saw(&self, name: &str, partition: u16, tokens: impl Iterator<Item = u64>) {
        let mut seen = self.seen.lock().unwrap();
        let highest = seen.entry((name.to_owned(), partition)).or_default();
        *highest = tokens.fold(*highest, u64::max);
    }

    pub async fn claim_one(&self, name: &str) -> ClaimedJob {
        self.claim(name, 1).await.pop().expect("a job was there to claim")
    }

    pub async fn settle(&self, name: &str, settle: Settle) -> Settled {
        self.store.settle(&worker(name), settle).await.unwrap()
    }

    pub async fn sweep(&self) -> Vec<Swept> {
        self.sweep_for(LEASE).await
    }

    /// A sweep by a worker with leases of this length, ms.
    pub async fn sweep_for(&self, lease_ms: u64) -> Vec<Swept> {
        let request = SweepRequest { lease_ms, max_crashes: 3, interval_ms: 0 };
        let mut swept = Vec::new();
        for partition in 0..self.store.partitions() {
            swept.push(self.store.sweep(partition, &request).await.unwrap());
        }
        swept
    }

    /// Lets time pass with somebody sweeping each second, so that the clock shows no gap.
    pub async fn pass(&self, ms: i64) {
        let end = self.now() + ms;
        while self.now() < end {
            self.advance((SWEEP as i64).min(end - self.now()));
            self.sweep().await;
        }
    }

    pub async fn length(&self, partition: u16, suffix: &str) -> usize {
        self.redis.command(&["LLEN", &format!("lh:{{{partition}}}:{suffix}")]).await
    }
}

/// A claim with the next number, so far of no queue and no kind.
pub fn claim_of(worker: &WorkerId, slots: usize) -> ClaimRequest<'_> {
    ClaimRequest {
        worker,
        number: next_number(),
        lease_ms: LEASE,
        slots,
        suspects: 1,
        seen: 0,
        reservations: &[],
        queues: &[],
        kinds: &[],
    }
}
