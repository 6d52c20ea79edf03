//! Redis Cluster: a dead node, a slot that moves, a hot queue, and what is said about the wrong address.
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leasehold::{Config, JobId, State, Store};
use leasehold_tests::{Api, RedisCluster, RedisServer, Worker, check_invariants, eventually, run};
use serde_json::json;

const LEASE_MS: u64 = 3_000;
const WORKERS: usize = 2;
const SOON: Duration = Duration::from_secs(20);
/// All that was accepted must be final so long after the last fault.
const RECOVERY: Duration = Duration::from_secs(60);
/// No partition whose node lives may be without a completed job for longer.
const PAUSE_MAX: Duration = Duration::from_secs(5);

const KINDS: &str = "[kinds.nap]\ncommand = [\"sleep\", \"0.02\"]\nmax_attempts = 3\n";

struct Fleet {
    cluster: RedisCluster,
    api: Api,
    workers: Vec<Worker>,
    store: Store,
    accepted: Mutex<BTreeSet<JobId>>,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn start() -> Fleet {
        let (cluster, folder) = (RedisCluster::start(&[]).await, tempfile::tempdir().unwrap());
        let kinds = folder.path().join("kinds.toml");
        std::fs::write(&kinds, KINDS).unwrap();
        let (url, kinds, lease) = (cluster.url(), kinds.display().to_string(), LEASE_MS.to_string());
        let environment =
            [("LEASEHOLD_KINDS", kinds.as_str()), ("LEASEHOLD_LEASE_MS", &lease), ("LEASEHOLD_MAX_CRASHES", "100")];
        let api = Api::start(&url, &environment).await;
        api.wait_ready().await;
        let workers = (0..WORKERS).map(|_| Worker::start(&url, &environment)).collect();
        let store = Store::connect(&Config { redis_url: url, ..Config::default() }).await.unwrap();
        assert_eq!(store.partitions(), 64, "the default of a new key space in a cluster");
        Fleet { cluster, api, workers, store, accepted: Mutex::default(), _folder: folder }
    }

    async fn submit(&self) -> Option<JobId> {
        let answer =
            self.api.request(reqwest::Method::POST, "/api/v1/jobs").json(&json!({"kind": "nap", "payload": 0}));
        let answer = answer.send().await.ok()?;
        let accepted = answer.status().is_success();
        let job: serde_json::Value = answer.json().await.ok()?;
        let id = JobId::parse(job["id"].as_str()?).ok().filter(|_| accepted)?;
        self.accepted.lock().unwrap().insert(id.clone());
        Some(id)
    }

    /// Twelve clients, until `over`: those whose call meets a dead node wait for a while.
    async fn load(&self, over: &AtomicBool) {
        let client = async || {
            while !over.load(Ordering::Relaxed) {
                tokio::join!(self.submit(), tokio::time::sleep(Duration::from_millis(300)));
            }
        };
        futures_util::future::join_all((0..12).map(|_| client())).await;
    }

    /// Waits until `count` more jobs of partitions for which `counts` is true are completed. Returns how long.
    async fn completes(&self, count: usize, counts: impl Fn(u16) -> bool, limit: Duration) -> Duration {
        let (begun, before) = (Instant::now(), self.accepted.lock().unwrap().clone());
        eventually(limit, "jobs are completed", async || {
            let new: Vec<JobId> = self.accepted.lock().unwrap().difference(&before).cloned().collect();
            let mut completed = 0;
            for id in new.iter().filter(|id| counts(self.store.partition_of(id))) {
                let job = tokio::time::timeout(Duration::from_secs(1), self.store.get(id)).await;
                completed += usize::from(matches!(job, Ok(Ok(Some(job))) if job.state == State::Completed));
            }
            completed >= count
        })
        .await;
        begun.elapsed()
    }

    async fn finish(self, lossless: bool) {
        let accepted = self.accepted.lock().unwrap().clone();
        let mut lost = 0;
        eventually(RECOVERY, "every accepted job is completed", async || {
            lost = 0;
            for id in &accepted {
                match self.store.get(id).await.map_err(|e| e.to_string())? {
                    Some(job) if job.state == State::Completed => {}
                    None if !lossless => lost += 1,
                    job => return Err(format!("{id} in {}: {:?}", self.store.partition_of(id), job.map(|j| j.state))),
                }
            }
            Ok(())
        })
        .await;
        println!("{} accepted and completed, {lost} lost with the node", accepted.len() - lost);
        assert!(lost <= accepted.len() / 100, "{lost} of {} lost", accepted.len());
        check_invariants(&self.cluster.url(), 60_000).await;
        self.workers.iter().for_each(|worker| worker.sigterm());
        self.api.sigterm();
        for process in self.workers.iter().map(|worker| &**worker).chain([&*self.api]) {
            assert!(process.wait_exit(SOON).await.success());
        }
    }
}

/// The slot of a partition.
async fn slot_of(cluster: &RedisCluster, partition: u16) -> u16 {
    cluster.nodes()[0].command(&["CLUSTER", "KEYSLOT", &format!("lh:{{{partition}}}")]).await
}

#[tokio::test]
async fn a_dead_node_stops_its_partitions_only_and_a_slot_moves_under_load() {
    let fleet = Fleet::start().await;
    let (cluster, over) = (&fleet.cluster, AtomicBool::new(false));
    let faults = async {
        let all = fleet.completes(40, |_| true, SOON).await;
        println!("the first 40 jobs took {} ms", all.as_millis());
        // A partition with work moves to another node.
        let slot = slot_of(cluster, 5).await;
        let from = cluster.node_of(0, slot).await;
        let to = (from + 1) % 3;
        let begun = Instant::now();
        let moved = cluster.move_slot(slot, from, to, Duration::from_millis(20)).await;
        let moving = begun.elapsed();
        let after = fleet.completes(1, |partition| partition == 5, SOON).await;
        println!("{moved} keys moved in {} ms; a job after {} ms", moving.as_millis(), after.as_millis());
        assert!(moved > 3);
        // A node dies. The partitions of the others go on, and its own once its replica is promoted.
        let mut dead = BTreeSet::new();
        for partition in 0..64 {
            if cluster.node_of(to, slot_of(cluster, partition).await).await == from {
                dead.insert(partition);
            }
        }
        cluster.nodes()[from].kill9();
        for _ in 0..3 {
            let others = fleet.completes(10, |partition| !dead.contains(&partition), PAUSE_MAX).await;
            println!("10 jobs in the other partitions after {} ms", others.as_millis());
        }
        let own = fleet.completes(5, |partition| dead.contains(&partition), SOON).await;
        println!("5 jobs in the {} partitions of the dead node after {} ms more", dead.len(), own.as_millis());
        cluster.nodes()[from].restart().await;
        cluster.settle().await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(fleet.load(&over), faults);
    fleet.finish(false).await;
}

#[tokio::test]
async fn one_hot_queue_spreads_over_all_nodes() {
    let fleet = Fleet::start().await;
    let calls = async |node: usize| {
        let stats: String = fleet.cluster.nodes()[node].command(&["INFO", "commandstats"]).await;
        let count = |name: &str| {
            let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
            line.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        count("hset") + count("rpush") + count("lpush")
    };
    let mut before = Vec::new();
    for node in 0..3 {
        before.push(calls(node).await);
    }
    let jobs: Vec<_> = (0..500).map(|n| json!({"kind": "nap", "payload": n})).collect();
    let mut submitted = 0;
    for _ in 0..2 {
        let answer = fleet.api.post("/api/v1/jobs/bulk", &json!({"jobs": jobs})).await;
        assert!(answer.status < 300, "{}", answer.text);
        submitted += jobs.len();
    }
    let kind = leasehold::Kind::parse("nap").unwrap();
    eventually(RECOVERY, "the queue is empty", async || {
        let queues = fleet.store.queues(None).await.ok()?;
        let counts = fleet.store.counts(&kind, false).await.ok()?;
        let depth: u64 = queues.iter().map(|queue| queue.queued).sum();
        (depth == 0 && counts.running == 0 && counts.total == submitted as u64).then_some(())
    })
    .await;
    let mut work = Vec::new();
    for (node, before) in before.into_iter().enumerate() {
        work.push(calls(node).await - before);
    }
    let mean = work.iter().sum::<u64>() as f64 / 3.0;
    println!("commands of jobs by node: {work:?}");
    assert!(work.iter().all(|n| (*n as f64 - mean).abs() <= 0.15 * mean), "{work:?}");
    fleet.finish(true).await;
}

#[tokio::test]
async fn an_address_of_another_sort_is_named_with_the_right_one() {
    let cluster = RedisCluster::start(&[]).await;
    let plain = RedisServer::start().await;
    let jobs = async |url: &str, partitions: &str| {
        let mut environment = vec![("LEASEHOLD_REDIS_URL", url), ("LEASEHOLD_REDIS__OUTAGE_MS", "500")];
        environment.extend(Some(("LEASEHOLD_PARTITIONS", partitions)).filter(|_| !partitions.is_empty()));
        let output = run("leasehold", &["jobs", "ls"], &environment, SOON).await;
        (output.status.code(), output.stderr)
    };
    let (code, said) = jobs(&cluster.url(), "4").await;
    assert!(code == Some(1) && said.contains("write partitions = 64"), "{said}");
    let (code, said) = jobs(&cluster.url(), "").await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = jobs(&cluster.nodes()[0].url(), "").await;
    assert!(code == Some(1) && said.contains("write redis+cluster://"), "{said}");
    let (code, said) = jobs(&format!("redis+cluster://127.0.0.1:{}", plain.port()), "").await;
    assert!(code == Some(1) && said.contains("is not a node of a cluster"), "{said}");
    let () = cluster.nodes()[1].command(&["CLUSTER", "DELSLOTS", "6000"]).await;
    eventually(SOON, "the slot is uncovered", async || {
        let (code, said) = jobs(&format!("redis+cluster://127.0.0.1:{}", cluster.nodes()[1].port()), "").await;
        (code == Some(1) && said.contains("slots have no node")).then_some(()).ok_or(said)
    })
    .await;
}
