//! The chaos run: four clients submit over HTTP, plain jobs, batches, and jobs with files, while API replicas, workers
//! and Redis are killed with -9 in turn.
//!
//! What happens follows from the seed, which is printed: with `LEASEHOLD_TEST_SEED=<seed>` the same processes are
//! killed at the same times. `LEASEHOLD_CHAOS_SECONDS=<seconds>` sets how long the faults go on, 20 by default; a
//! longer run begins as the shorter one of the same seed. The two runs, on one and on four partitions, wait for each
//! other.
mod evidence;
mod faults;
mod load;
mod spoilt;
mod verdict;
mod work;

use std::env;
use std::time::Duration;

use leasehold::store::PruneQuery;
use leasehold::{Config, Kind, Store};
use leasehold_tests::{Api, System, Worker, eventually, seed};
use tokio::sync::Mutex;
use tokio::time::Instant;

use evidence::{Evidence, all_jobs};
use faults::{Struck, strike};
use load::{Load, Submit};

/// The variable that sets how long the faults go on.
const SECONDS_VARIABLE: &str = "LEASEHOLD_CHAOS_SECONDS";
const SECONDS: u64 = 20;
const LEASE_MS: u64 = 2_000;
const APIS: usize = 2;
const WORKERS: usize = 3;
/// All must be final so long after the last process is back.
const RECOVERY: Duration = Duration::from_millis(LEASE_MS + 10_000);
/// How long a graceful end may take.
const END: Duration = Duration::from_secs(30);

/// One run at a time: each wants the machine for itself.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Everything that can be killed.
struct Fleet {
    system: System,
    apis: Vec<Api>,
    workers: Vec<Worker>,
}

/// What clients and faults left behind.
struct Past {
    submits: Vec<Submit>,
    struck: Vec<Struck>,
    healed_at: Instant,
    begun_at: Instant,
}

#[tokio::test]
async fn every_acknowledged_job_ends_once_whatever_is_killed_on_one_partition() {
    chaos("1").await;
}

#[tokio::test]
async fn every_acknowledged_job_ends_once_whatever_is_killed_on_four_partitions() {
    chaos("4").await;
}

async fn chaos(partitions: &str) {
    let _alone = ALONE.lock().await;
    let (seed, length) = (seed(), length());
    let fleet = Fleet::start(partitions).await;
    let past = fleet.endure(seed, length).await;
    let recovered = fleet.recover(&past).await;
    let evidence = Evidence::gather(&fleet, past).await;
    println!("{partitions} partition(s): {}", evidence.summary(recovered));
    let violations = evidence.violations();
    assert!(violations.is_empty(), "{}", evidence.report(&fleet, &violations).await);
    assert!(
        recovered.is_some_and(|took| took <= RECOVERY),
        "all is final, but only {recovered:?} after the last fault"
    );
    fleet.end().await;
}

fn length() -> Duration {
    let seconds = env::var(SECONDS_VARIABLE).ok().map(|text| text.trim().parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(SECONDS))
}

impl Fleet {
    async fn start(partitions: &str) -> Fleet {
        let lease = LEASE_MS.to_string();
        let system = System::start(&[
            ("LEASEHOLD_PARTITIONS", partitions),
            ("LEASEHOLD_LEASE_MS", &lease),
            // No job is at fault here, and one may well see several of its workers die.
            ("LEASEHOLD_MAX_CRASHES", "100"),
            // Without a line for each attempt that fails as it was asked to.
            ("LEASEHOLD_LOG__FILTER", "info,leasehold_worker::attempt=warn"),
        ])
        .await;
        let kinds = work::write(system.folder());
        let environment = [("LEASEHOLD_KINDS", kinds.as_str())];
        let mut fleet = Fleet { system, apis: Vec::new(), workers: Vec::new() };
        for _ in 0..APIS {
            fleet.apis.push(fleet.system.api(&environment).await);
        }
        fleet.workers.extend((0..WORKERS).map(|_| fleet.system.worker(&environment)));
        for api in &fleet.apis {
            api.wait_ready().await;
        }
        fleet
    }

    /// Load and faults at once, until the last submit is answered and the last process is back.
    async fn endure(&self, seed: u64, length: Duration) -> Past {
        let begun_at = Instant::now();
        let journal = work::Journal::of(self.system.folder());
        let load = Load::new(self.apis.iter().map(|api| api.url("")).collect(), begun_at, length);
        let faults = async {
            let struck = strike(self, &faults::schedule(seed, length), begun_at).await;
            (struck, Instant::now())
        };
        let ((struck, healed_at), submits) = tokio::join!(faults, load.run(seed, &journal));
        Past { submits, struck, healed_at, begun_at }
    }

    /// Waits until all jobs are final; how long after the last process was back that was. `None`: they never were.
    async fn recover(&self, past: &Past) -> Option<Duration> {
        // Twice the time that is allowed, to tell what comes late from what is stuck.
        let end = past.healed_at + 2 * RECOVERY;
        while Instant::now() < end {
            let jobs = all_jobs(&self.apis[0]).await;
            if jobs.iter().all(|job| job.state.is_final()) {
                return Some(past.healed_at.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// The walk leaves the files that jobs have, no other; with the jobs they go.
    async fn files(&self) {
        let storage_url = Some(format!("file://{}/storage", self.system.folder().display()));
        let config = Config { redis_url: self.system.redis().url(), storage_url, ..Config::default() };
        let store = Store::connect(&config).await.unwrap();
        store.sweep_files(Duration::ZERO).await.unwrap();
        assert_eq!(store.check_files(Duration::ZERO).await.unwrap(), []);
        let pruned = store.prune(&PruneQuery { kind: Kind::parse(work::KIND).ok(), ..PruneQuery::default() }).await;
        assert!(!pruned.unwrap().more);
        let folder = store.files().unwrap().root().unwrap().to_owned();
        eventually(END, "no file is left", async || {
            let left = std::fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.path().is_dir());
            let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
            left.is_empty().then_some(()).ok_or(left)
        })
        .await;
    }

    /// The doctor is content, the processes end when asked to, and nothing that they started is left.
    async fn end(self) {
        let doctor = self.system.command(&["doctor"], &[]).await;
        assert!(doctor.status.success(), "the doctor says: {}{}", doctor.stdout, doctor.stderr);
        self.files().await;
        self.workers.iter().for_each(|worker| worker.sigterm());
        self.apis.iter().for_each(|api| api.sigterm());
        for process in self.workers.iter().map(|worker| &**worker).chain(self.apis.iter().map(|api| &**api)) {
            let status = process.wait_exit(END).await;
            assert!(status.success(), "{} ended with {status}", process.name());
        }
        let folder = self.system.folder().to_string_lossy().into_owned();
        eventually(END, "no command is left behind", async || {
            let left = work::processes_that_name(&folder);
            left.is_empty().then_some(()).ok_or(left)
        })
        .await;
        self.system.finish().await;
    }
}
