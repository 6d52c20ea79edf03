//! What strikes whom and when: drawn from the seed alone, before anything runs.
use std::fmt;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use super::fleet::{Fleet, Setup};
use crate::proxy::Shape;
use crate::{Process, Proxy, Way as Direction};

/// Between two faults, ms.
const PAUSE_MS: RangeInclusive<u64> = 400..=1_600;

/// Whom a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// An API replica, by its number.
    Api(usize),
    /// A worker, by its number.
    Worker(usize),
    /// All workers.
    Workers,
    /// Redis.
    Redis,
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// kill -9; it is started again when the fault ends.
    Kill,
    /// SIGTERM; it is started again when the fault ends.
    Terminate,
    /// SIGSTOP, and SIGCONT at the end.
    Stop,
    /// Its connections to Redis are reset.
    Cut,
    /// Its connections to Redis stay open and carry nothing; new ones work.
    HalfOpen,
    /// Replies of Redis do not arrive, on any connection.
    NoReplies,
    /// Everything between it and Redis takes 50 to 500 ms longer.
    Slow,
    /// `BGREWRITEAOF`, again and again.
    Rewrite,
    /// `SCRIPT FLUSH`, again and again.
    FlushScripts,
    /// `CLIENT KILL TYPE normal`, again and again.
    KillClients,
    /// A script that does not end.
    Busy,
    /// `maxmemory` below what is used.
    Full,
    /// `maxclients` reached, after all connections were killed.
    MaxClients,
}

/// A fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Since the begin.
    pub at: Duration,
    /// The row of the matrix.
    pub row: u8,
    /// What it does.
    pub way: Way,
    /// To whom.
    pub target: Target,
    /// How long it lasts.
    pub lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}: {:?} {:?} for {} ms", self.row, self.way, self.target, self.lasts.as_millis())
    }
}

/// A fault that was injected.
#[derive(Debug, Clone)]
pub struct Struck {
    /// What it was.
    pub fault: Fault,
    /// The workers that it hit, by process id.
    pub workers: Vec<u32>,
    /// When it began, since the begin.
    pub at: Duration,
    /// When it ended and its target was back, since the begin.
    pub back_at: Duration,
}

/// The rows that a seed draws from: the row, what it does, how long, ms.
const DRAWN: [(u8, Way, RangeInclusive<u64>); 19] = [
    (1, Way::Kill, 0..=0),
    (2, Way::Kill, 0..=0),
    (2, Way::Kill, 0..=1_000),
    (4, Way::Kill, 0..=1_000),
    (5, Way::Kill, 200..=1_500),
    (7, Way::Terminate, 200..=1_500),
    (9, Way::Stop, 2_500..=5_000),
    (10, Way::Stop, 500..=4_000),
    (11, Way::Stop, 500..=3_000),
    (12, Way::Cut, 0..=0),
    (13, Way::HalfOpen, 0..=0),
    (15, Way::NoReplies, 500..=4_000),
    (17, Way::Slow, 1_000..=4_000),
    (25, Way::Full, 500..=2_000),
    (28, Way::Rewrite, 500..=2_000),
    (35, Way::FlushScripts, 500..=2_000),
    (36, Way::Busy, 500..=2_500),
    (44, Way::KillClients, 200..=1_000),
    (45, Way::MaxClients, 500..=2_000),
];

/// Every row is injected once a round, each round in an order of its own.
pub fn schedule(seed: u64, length: Duration, setup: &Setup) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut faults, mut round) = (Vec::new(), Vec::new());
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_millis(random.random_range(PAUSE_MS));
        if at >= length {
            return faults;
        }
        if round.is_empty() {
            round.extend(DRAWN);
            round.shuffle(&mut random);
        }
        let (row, way, lasts) = round.pop().expect("a round has rows");
        let (api, worker) = (random.random_range(0..setup.apis), random.random_range(0..setup.workers));
        let is_api = random.random_ratio(1, 2);
        let target = match row {
            1 | 11 => Target::Api(api),
            2 | 9 => Target::Worker(worker),
            4 => Target::Workers,
            12 | 13 | 15 | 17 if is_api => Target::Api(api),
            12 | 13 | 15 | 17 => Target::Worker(worker),
            _ => Target::Redis,
        };
        let lasts = Duration::from_millis(random.random_range(lasts));
        faults.push(Fault { at, row, way, target, lasts });
    }
}

impl Way {
    fn is_of_the_network(self) -> bool {
        matches!(self, Way::Cut | Way::HalfOpen | Way::NoReplies | Way::Slow)
    }
}

impl Fault {
    /// Whether the two cannot be in force at once: they need the same process, or the same link.
    fn excludes(&self, other: &Fault) -> bool {
        let is_worker = |target| matches!(target, Target::Worker(_) | Target::Workers);
        let overlaps = self.target == other.target
            || is_worker(self.target) && other.target == Target::Workers
            || self.target == Target::Workers && is_worker(other.target);
        overlaps && self.way.is_of_the_network() == other.way.is_of_the_network()
    }
}

/// Injects by the schedule, and sees everything back.
///
/// # Panics
/// When a process has ended by itself, or does not come back.
pub async fn strike(fleet: &Fleet, schedule: &[Fault], begun_at: Instant) -> Vec<Struck> {
    let (mut ending, mut standing, mut struck) = (FuturesUnordered::new(), Vec::<Fault>::new(), Vec::new());
    for fault in schedule {
        let mut due = pin!(sleep_until(begun_at + fault.at));
        loop {
            tokio::select! {
                biased;
                Some(over @ Struck { .. }) = ending.next() => {
                    standing.retain(|other| *other != over.fault);
                    struck.push(over);
                }
                // What is still away cannot be struck; what is not can, whatever else is in force.
                () = &mut due, if !standing.iter().any(|other| fault.excludes(other)) => break,
            }
        }
        standing.push(*fault);
        ending.push(fleet.inject(*fault, begun_at));
    }
    struck.extend(ending.collect::<Vec<_>>().await);
    struck.sort_by_key(|struck| struck.at);
    struck
}

impl Fleet {
    /// Injects one fault and ends it after its time.
    ///
    /// # Panics
    /// When its target has ended by itself, or does not come back.
    pub async fn inject(&self, fault: Fault, begun_at: Instant) -> Struck {
        let processes = self.targets(fault.target);
        let strikes_process = matches!(fault.way, Way::Kill | Way::Terminate | Way::Stop);
        // A link may be broken while its process is away.
        for process in processes.iter().filter(|_| strikes_process) {
            if let Some(status) = process.exit_status() {
                panic!("{} ended by itself: {status}", process.name());
            }
        }
        let (at, is_worker) = (begun_at.elapsed(), matches!(fault.target, Target::Worker(_) | Target::Workers));
        let workers = if is_worker { processes.iter().map(|process| process.pid()).collect() } else { Vec::new() };
        println!("{:>7} ms: {fault}", at.as_millis());
        match fault.way {
            Way::Kill | Way::Terminate => {
                for process in &processes {
                    match fault.way {
                        Way::Kill => process.kill9(),
                        _ => process.sigterm(),
                    }
                }
                for process in &processes {
                    process.wait_exit(Duration::from_secs(60)).await;
                }
                sleep(fault.lasts).await;
                self.restart(fault.target).await;
            }
            Way::Stop => {
                processes.iter().for_each(|process| process.sigstop());
                sleep(fault.lasts).await;
                processes.iter().for_each(|process| process.sigcont());
            }
            Way::Cut | Way::HalfOpen | Way::NoReplies | Way::Slow => self.break_links(fault).await,
            _ => self.trouble_redis(fault).await,
        }
        Struck { fault, workers, at, back_at: begun_at.elapsed() }
    }

    async fn break_links(&self, fault: Fault) {
        let links = self.links(fault.target);
        let shape = Shape {
            delay: Duration::from_millis(50),
            jitter: Duration::from_millis(450),
            bytes_per_second: 125_000,
            ..Shape::default()
        };
        for link in &links {
            match fault.way {
                Way::Cut => link.cut(),
                Way::HalfOpen => link.black_hole(Direction::Both),
                Way::NoReplies => link.partition(Direction::Replies),
                _ => link.shape(shape),
            }
        }
        sleep(fault.lasts).await;
        if !matches!(fault.way, Way::Cut | Way::HalfOpen) {
            for link in &links {
                link.heal().await;
            }
        }
    }

    async fn trouble_redis(&self, fault: Fault) {
        let redis = self.system.redis();
        // A connection from before the fault: there may be no other in it.
        let mut connection = redis.connection().await;
        let mut tell = async |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command.query_async::<redis::Value>(&mut connection).await
        };
        let end = Instant::now() + fault.lasts;
        match fault.way {
            Way::Rewrite | Way::FlushScripts | Way::KillClients => {
                let words: &[&str] = match fault.way {
                    Way::Rewrite => &["BGREWRITEAOF"],
                    Way::FlushScripts => &["SCRIPT", "FLUSH"],
                    _ => &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
                };
                while Instant::now() < end {
                    // A rewrite that is still going on refuses the next.
                    drop(tell(words).await);
                    sleep(Duration::from_millis(100)).await;
                }
            }
            Way::Busy => {
                tell(&["CONFIG", "SET", "busy-reply-threshold", "200"]).await.unwrap();
                let mut own = redis.connection().await;
                let mut script = redis::cmd("EVAL");
                script.arg("while true do end").arg(0);
                let runs = script.query_async::<redis::Value>(&mut own);
                let kill = async {
                    sleep(fault.lasts).await;
                    // It may not be busy yet, or its end may not have been seen.
                    while tell(&["SCRIPT", "KILL"]).await.is_err() {
                        sleep(Duration::from_millis(50)).await;
                    }
                };
                drop(tokio::join!(runs, kill));
            }
            Way::Full => {
                tell(&["CONFIG", "SET", "maxmemory", "1000000"]).await.unwrap();
                sleep(fault.lasts).await;
                tell(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
            }
            _ => {
                tell(&["CONFIG", "SET", "maxclients", "2"]).await.unwrap();
                tell(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await.unwrap();
                sleep(fault.lasts).await;
                tell(&["CONFIG", "SET", "maxclients", "10000"]).await.unwrap();
            }
        }
    }

    fn targets(&self, target: Target) -> Vec<&Process> {
        match target {
            Target::Api(n) => vec![&self.apis[n]],
            Target::Worker(n) => vec![&self.workers[n]],
            Target::Workers => self.workers.iter().map(|worker| &**worker).collect(),
            Target::Redis => vec![self.system.redis().process()],
        }
    }

    /// The proxies between a target and Redis; of Redis: all.
    pub fn links(&self, target: Target) -> Vec<&Proxy> {
        match target {
            Target::Api(n) => vec![&self.api_links[n]],
            Target::Worker(n) => vec![&self.worker_links[n]],
            Target::Workers => self.worker_links.iter().collect(),
            Target::Redis => self.api_links.iter().chain(&self.worker_links).collect(),
        }
    }

    async fn restart(&self, target: Target) {
        match target {
            Target::Api(n) => self.apis[n].restart().await,
            Target::Worker(n) => self.workers[n].restart(),
            Target::Workers => self.workers.iter().for_each(|worker| worker.restart()),
            Target::Redis => self.system.redis().restart().await,
        }
    }
}

#[test]
fn one_seed_has_one_schedule() {
    let setup = Setup::default();
    let minute = schedule(7, Duration::from_secs(60), &setup);
    assert_eq!(minute, schedule(7, Duration::from_secs(60), &setup));
    assert_ne!(minute, schedule(8, Duration::from_secs(60), &setup));
    let short = schedule(7, Duration::from_secs(20), &setup);
    assert_eq!(short, minute[..short.len()], "a longer run begins as the shorter one");
    for (row, ..) in DRAWN {
        assert!(minute.iter().any(|fault| fault.row == row), "row {row}");
    }
}
