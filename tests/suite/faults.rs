//! The fault matrix: each row is a test with its number in its name, or names the tests that hold it (`table`).
//!
//! A trial is a fleet under load, the fault, the heal, and the verdict of the chaos run: no acknowledged job lost,
//! none stuck, none settled twice, no run that no fault explains, the doctor content. What takes long, or wants root,
//! is left to `make faults`, which also writes the table of docs/faults.md.
mod aof;
mod clock;
mod disk;

mod handlers;
mod namespace;
mod network;
mod processes;
mod server;
mod table;

use std::time::Duration;

use leasehold_tests::chaos::{Evidence, Fault, Fleet, Setup, Struck, Target, Way};
use leasehold_tests::{Api, RedisServer, Shim, eventually, seed};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

pub use table::record;

/// How many fleets may be under load at once.
pub const ROOM_FOR: u32 = 2;
pub static ROOM: Semaphore = Semaphore::const_new(ROOM_FOR as usize);

/// What a machine that stalls may take longer than a row's bound says.
const STALL: Duration = Duration::from_secs(30);
/// How soon a probe has to say what is wrong.
pub const TRUTH: Duration = Duration::from_secs(10);

/// A row that is tried under load.
pub struct Row {
    pub number: u8,
    pub fault: &'static str,
    pub injected: &'static str,
    /// How long the load goes on at least, s.
    pub load_s: u64,
    /// Within what all must be final after the heal, s.
    pub recovery_s: u64,
    pub setup: Setup,
}

impl Default for Row {
    fn default() -> Row {
        let setup = Setup { apis: 1, workers: 2, ..Setup::default() };
        Row { number: 0, fault: "", injected: "", load_s: 4, recovery_s: 10, setup }
    }
}

impl Row {
    /// The trial on a Redis with the settings we ship.
    pub async fn try_on_redis(self, faults: impl AsyncFnOnce(&Fleet, Instant) -> Vec<Struck>) -> Evidence {
        self.try_with(&[], None, faults).await
    }

    /// The trial on a Redis with other settings, and with a shim if there is one.
    pub async fn try_with(
        self,
        settings: &[(&str, &str)],
        shim: Option<&Shim>,
        faults: impl AsyncFnOnce(&Fleet, Instant) -> Vec<Struck>,
    ) -> Evidence {
        let (evidence, violations) = self.measure(settings, shim, faults).await;
        assert!(violations.is_empty(), "{violations:#?}");
        evidence
    }

    /// The trial without a verdict on lost jobs: what was found, and what is wrong.
    pub async fn measure(
        self,
        settings: &[(&str, &str)],
        shim: Option<&Shim>,
        faults: impl AsyncFnOnce(&Fleet, Instant) -> Vec<Struck>,
    ) -> (Evidence, Vec<String>) {
        let _room = ROOM.acquire().await.unwrap();
        let environment = shim.map(Shim::environment).unwrap_or_default();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let environment = if shim.is_some() { environment } else { Vec::new() };
        let redis = RedisServer::start_with(settings, &environment).await;
        let fleet = Fleet::on(redis, &self.setup).await;
        let begun_at = Instant::now();
        // The first jobs run before anything strikes.
        let faults = async {
            sleep(Duration::from_secs(1)).await;
            faults(&fleet, begun_at).await
        };
        let past = fleet.endure(seed(), Duration::from_secs(self.load_s), faults).await;
        let limit = Duration::from_secs(self.recovery_s) + STALL;
        let recovered = fleet.recover(&past, limit).await;
        let evidence = Evidence::gather(&fleet, past).await;
        println!("row {}: {}", self.number, evidence.summary(recovered));
        record(&self, &evidence.figures(), recovered);
        let violations = evidence.violations();
        let mut wrong: Vec<String> = violations.iter().map(ToString::to_string).collect();
        if !violations.is_empty() {
            println!("{}", evidence.report(&fleet, &violations).await);
        }
        match recovered {
            Some(took) if took <= limit => wrong.extend(fleet.end().await),
            other => {
                wrong.push(format!("all final after {other:?}, not within {limit:?}"));
                fleet.abandon();
            }
        }
        (evidence, wrong)
    }
}

/// The same fault so many times in a row, with a second between them.
pub async fn times(
    fleet: &Fleet,
    begun_at: Instant,
    count: usize,
    mut fault: impl FnMut(usize) -> (Way, Target, u64),
) -> Vec<Struck> {
    let mut struck = Vec::new();
    for number in 0..count {
        if number > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        let (way, target, ms) = fault(number);
        let fault = Fault { at: begun_at.elapsed(), row: 0, way, target, lasts: Duration::from_millis(ms) };
        struck.push(fleet.inject(fault, begun_at).await);
    }
    struck
}

/// Waits until `/readyz` answers with this status, and a body with these words.
pub async fn says(api: &Api, status: u16, words: &str) {
    eventually(TRUTH + STALL, &format!("/readyz answers {status} with {words}"), async || {
        let answer = api.get("/readyz").await;
        (answer.status == status && answer.text.contains(words)).then_some(()).ok_or(answer.text)
    })
    .await;
}
