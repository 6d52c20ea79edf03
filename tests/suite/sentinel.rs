//! Redis Sentinel: failovers under load, and what is said about sentinels that cannot help.
//!
//! `LEASEHOLD_FAILOVER_SECONDS=<seconds>` runs failovers, one every 20 s, for that long.
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leasehold::{Config, JobId, State, Store};
use leasehold_tests::{Api, RedisServer, SentinelGroup, Worker, check_invariants, eventually, run};
use serde_json::json;

const LEASE_MS: u64 = 2_000;
/// From the promotion to the first job that is submitted and completed after it.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// All that was accepted must be final so long after the last failover.
const RECOVERY: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(20);
const WORKERS: usize = 2;

const KINDS: &str = "[kinds.nap]\ncommand = [\"sleep\", \"0.05\"]\nmax_attempts = 3\n";

/// A way to lose the master.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// `SENTINEL FAILOVER`: the old master becomes a replica.
    Ordered,
    /// kill -9; it is started again afterwards.
    Killed,
    /// It stops answering, with its connections open, and goes on as a master when it is no longer one.
    Frozen,
}

struct Fleet {
    group: SentinelGroup,
    api: Api,
    workers: Vec<Worker>,
    store: Store,
    /// Accepted while the replica was in sync, and later.
    in_sync: Mutex<BTreeSet<JobId>>,
    accepted: Mutex<BTreeSet<JobId>>,
    /// Accepted once a replica had them.
    replicated: Mutex<BTreeSet<JobId>>,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn start() -> Fleet {
        let (group, folder) = (SentinelGroup::start().await, tempfile::tempdir().unwrap());
        let kinds = folder.path().join("kinds.toml");
        std::fs::write(&kinds, KINDS).unwrap();
        let (url, kinds, lease) = (group.url(), kinds.display().to_string(), LEASE_MS.to_string());
        let environment =
            [("LEASEHOLD_KINDS", kinds.as_str()), ("LEASEHOLD_LEASE_MS", &lease), ("LEASEHOLD_MAX_CRASHES", "100")];
        let api = Api::start(&url, &environment).await;
        let workers = (0..WORKERS).map(|_| Worker::start(&url, &environment)).collect();
        api.wait_ready().await;
        let store = Store::connect(&Config { redis_url: url, ..Config::default() }).await.unwrap();
        let (in_sync, accepted, replicated) = (Mutex::default(), Mutex::default(), Mutex::default());
        Fleet { group, api, workers, store, in_sync, accepted, replicated, _folder: folder }
    }

    /// Submits one job; its id when it was accepted.
    async fn submit(&self) -> Option<JobId> {
        self.submit_with("replicas:0").await
    }

    async fn submit_with(&self, durability: &str) -> Option<JobId> {
        let job = json!({"kind": "nap", "payload": 0, "durability": durability});
        let answer = self.api.request(reqwest::Method::POST, "/api/v1/jobs").json(&job);
        let answer = answer.send().await.ok()?;
        let accepted = answer.status().is_success();
        let job: serde_json::Value = answer.json().await.ok()?;
        let id = JobId::parse(job["id"].as_str()?).ok().filter(|_| accepted)?;
        self.accepted.lock().unwrap().insert(id.clone());
        Some(id)
    }

    /// A steady load, until `over`; half of it waits for a replica.
    async fn load(&self, over: &AtomicBool) {
        let plain = async {
            while !over.load(Ordering::Relaxed) {
                tokio::join!(self.submit(), tokio::time::sleep(Duration::from_millis(100)));
            }
        };
        let replicated = async {
            while !over.load(Ordering::Relaxed) {
                let pause = tokio::time::sleep(Duration::from_millis(100));
                let (id, ()) = tokio::join!(self.submit_with("replicas:1"), pause);
                self.replicated.lock().unwrap().extend(id);
            }
        };
        tokio::join!(plain, replicated);
    }

    async fn job(&self, id: &JobId) -> Option<leasehold::Job> {
        self.store.get(id).await.ok().flatten()
    }

    /// Loses the master, waits until work is done again, and brings the old master back as the replica.
    async fn fail_over(&self, way: Way) {
        self.group.settle().await;
        let before = self.accepted.lock().unwrap().clone();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let accepted = self.accepted.lock().unwrap().clone();
        assert!(self.group.sync().await, "the replica is in sync");
        // What was accepted since the last failover settled; in one, an acknowledged job may be lost.
        self.in_sync.lock().unwrap().extend(accepted.difference(&before).cloned());
        let old = self.group.master().await;
        let begun = Instant::now();
        match way {
            Way::Ordered => {
                let ordered = self.group.ask::<String>(0, &["SENTINEL", "FAILOVER", "mymaster"]).await;
                assert_eq!(ordered.unwrap(), "OK");
            }
            Way::Killed => self.group.servers()[old].kill9(),
            Way::Frozen => self.group.servers()[old].sigstop(),
        }
        self.group.promoted(1 - old).await;
        let promoted = Instant::now();
        let mut waiting: Vec<JobId> = Vec::new();
        let mut completed_by = BTreeSet::new();
        let mut first = None;
        eventually(BACK_WITHIN, "every worker completes a job after the promotion", async || {
            waiting.extend(self.submit().await);
            for id in &waiting {
                let Some(job) = self.job(id).await.filter(|job| job.state == State::Completed) else { continue };
                first.get_or_insert_with(|| promoted.elapsed());
                completed_by.extend(job.worker);
            }
            completed_by.len() == WORKERS
        })
        .await;
        println!(
            "{way:?}: promoted after {} ms; first job completed {} ms later, every worker at work {} ms later",
            promoted.duration_since(begun).as_millis(),
            first.unwrap().as_millis(),
            promoted.elapsed().as_millis()
        );
        match way {
            Way::Ordered => {}
            Way::Killed => self.group.servers()[old].restart().await,
            Way::Frozen => self.group.servers()[old].sigcont(),
        }
    }

    /// All that was accepted is final; what was accepted in sync is completed.
    async fn finish(self) {
        let accepted = self.accepted.lock().unwrap().clone();
        let (mut lost, mut tokens) = (BTreeSet::new(), BTreeSet::new());
        eventually(RECOVERY, "every job is completed, or lost with the old master", async || {
            (lost, tokens) = (BTreeSet::new(), BTreeSet::new());
            for id in &accepted {
                match self.store.get(id).await.map_err(|e| e.to_string())? {
                    None => drop(lost.insert(id.clone())),
                    Some(job) if job.state == State::Completed => {
                        assert!(tokens.insert(job.token), "two jobs were settled with the token {:?}", job.token);
                    }
                    Some(job) => return Err(format!("{id} is {:?}", job.state)),
                }
            }
            Ok(())
        })
        .await;
        let in_sync = self.in_sync.lock().unwrap().clone();
        let replicated = self.replicated.lock().unwrap().clone();
        let (all, synced, waited) = (accepted.len(), in_sync.len(), replicated.len());
        println!("{all} accepted, {synced} of them in sync, {waited} once a replica had them, {} lost", lost.len());
        assert!(lost.is_disjoint(&in_sync), "accepted in sync and lost: {:?}", lost.intersection(&in_sync));
        assert!(lost.is_disjoint(&replicated), "a replica had it: {:?}", lost.intersection(&replicated));
        assert!(in_sync.len() > 50 && replicated.len() > 20);
        for worker in &self.workers {
            assert!(worker.is_running());
            let said = worker.stderr();
            assert!(said.contains("the master mymaster is 127.0.0.1:"), "{said}");
            assert!(!said.to_lowercase().contains("panicked") && !said.contains("holds something"), "{said}");
        }
        check_invariants(&self.group.url(), LEASE_MS).await;
        self.workers.iter().for_each(|worker| worker.sigterm());
        self.api.sigterm();
        for process in self.workers.iter().map(|worker| &**worker).chain([&*self.api]) {
            assert!(process.wait_exit(SOON).await.success());
        }
    }
}

#[tokio::test]
async fn every_job_in_sync_completes_whatever_way_the_master_is_lost() {
    let fleet = Fleet::start().await;
    let over = AtomicBool::new(false);
    let failovers = async {
        for way in [Way::Ordered, Way::Killed, Way::Frozen] {
            fleet.fail_over(way).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(fleet.load(&over), failovers);
    fleet.finish().await;
}

#[tokio::test]
async fn failovers_every_twenty_seconds_for_as_long_as_asked() {
    let Ok(seconds) = std::env::var("LEASEHOLD_FAILOVER_SECONDS") else { return };
    let end = Instant::now() + Duration::from_secs(seconds.trim().parse().expect("a number of seconds"));
    let fleet = Fleet::start().await;
    let over = AtomicBool::new(false);
    let failovers = async {
        for way in [Way::Killed, Way::Ordered, Way::Frozen].into_iter().cycle() {
            if Instant::now() >= end {
                break;
            }
            let pause = tokio::time::sleep(Duration::from_secs(20));
            tokio::join!(fleet.fail_over(way), pause);
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(fleet.load(&over), failovers);
    fleet.finish().await;
}

#[tokio::test]
async fn sentinels_that_cannot_help_are_named_with_what_to_do() {
    let group = SentinelGroup::start().await;
    let jobs = async |url: &str| {
        let environment = [("LEASEHOLD_REDIS_URL", url), ("LEASEHOLD_REDIS__OUTAGE_MS", "500")];
        let output = run("leasehold", &["jobs", "ls"], &environment, SOON).await;
        (output.status.code(), output.stderr)
    };
    let (code, said) = jobs(&group.url()).await;
    assert_eq!(code, Some(0), "{said}");
    let (hosts, port) = (group.hosts(), leasehold_tests::Port::reserve());
    let (code, said) = jobs(&format!("redis+sentinel://{hosts}/other")).await;
    assert!(
        code == Some(1) && said.contains("know no master \"other\"") && said.contains("SENTINEL MASTERS"),
        "{said}"
    );
    let nobody = port.address();
    let (code, said) = jobs(&format!("redis+sentinel://{nobody}/mymaster")).await;
    assert!(code == Some(1) && said.contains(&format!("no sentinel at {nobody} names")), "{said}");
    // One that answers is enough.
    let (code, said) = jobs(&format!("redis+sentinel://{nobody},{hosts}/mymaster")).await;
    assert_eq!(code, Some(0), "{said}");
    let plain = RedisServer::start().await;
    let (code, said) = jobs(&format!("redis+sentinel://127.0.0.1:{}/mymaster", plain.port())).await;
    assert!(code == Some(1) && said.contains("is not a sentinel"), "{said}");
    let first = hosts.split(',').next().unwrap();
    let (code, said) = jobs(&format!("redis://{first}")).await;
    assert!(code == Some(1) && said.contains("redis_url names a sentinel"), "{said}");
    // A master that is gone without a replica to replace it.
    let master = group.master().await;
    group.servers()[1 - master].kill9();
    group.servers()[master].kill9();
    let (code, said) = jobs(&group.url()).await;
    assert!(code == Some(1) && said.contains("does not answer") && said.contains("by the sentinels at"), "{said}");
}
