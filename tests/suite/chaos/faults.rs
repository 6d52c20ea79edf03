//! Who is killed when: drawn from the seed alone, before anything runs.
use std::ops::RangeInclusive;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use leasehold_tests::Process;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use super::{APIS, Fleet, WORKERS};

/// Between two faults, ms.
const PAUSE_MS: RangeInclusive<u64> = 1_000..=3_000;
/// How long Redis stays away, ms; the others are started again at once.
const REDIS_AWAY_MS: RangeInclusive<u64> = 200..=1_500;
/// Between a kill of Redis and that of another while it is away, ms.
const MEANWHILE_MS: RangeInclusive<u64> = 50..=190;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Api(usize),
    Worker(usize),
    Redis,
}

/// A kill -9 to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Since the begin.
    pub at: Duration,
    pub target: Target,
    /// How long it stays dead.
    pub away: Duration,
}

/// A kill -9 that was done.
#[derive(Debug)]
pub struct Struck {
    pub fault: Fault,
    /// Whom it hit.
    pub pid: u32,
    /// When it was done, and when its target was back, since the begin.
    pub at: Duration,
    pub back_at: Duration,
}

/// Everything is hit once a round, each round in an order of its own; what follows Redis, half of the time while it is
/// away.
pub fn schedule(seed: u64, length: Duration) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut faults, mut round): (Vec<Fault>, Vec<Target>) = (Vec::new(), Vec::new());
    let mut at = Duration::ZERO;
    loop {
        let meanwhile = faults.last().is_some_and(|fault| fault.target == Target::Redis) && random.random_ratio(1, 2);
        at += Duration::from_millis(random.random_range(if meanwhile { MEANWHILE_MS } else { PAUSE_MS }));
        if at >= length {
            return faults;
        }
        if round.is_empty() {
            round.extend((0..APIS).map(Target::Api).chain((0..WORKERS).map(Target::Worker)).chain([Target::Redis]));
            round.shuffle(&mut random);
        }
        let target = round.pop().expect("a round has targets");
        let away = if target == Target::Redis { random.random_range(REDIS_AWAY_MS) } else { 0 };
        faults.push(Fault { at, target, away: Duration::from_millis(away) });
    }
}

/// Kills by the schedule, and sees everything back.
pub async fn strike(fleet: &Fleet, schedule: &[Fault], begun_at: Instant) -> Vec<Struck> {
    let (mut returning, mut away, mut struck) = (FuturesUnordered::new(), Vec::new(), Vec::new());
    for fault in schedule {
        let mut due = pin!(sleep_until(begun_at + fault.at));
        loop {
            tokio::select! {
                biased;
                Some(back @ Struck { .. }) = returning.next() => {
                    away.retain(|target| *target != back.fault.target);
                    struck.push(back);
                }
                // What is still away cannot be killed; what is not can, whoever else is away.
                () = &mut due, if !away.contains(&fault.target) => break,
            }
        }
        let (process, at) = (fleet.process(fault.target), begun_at.elapsed());
        if let Some(status) = process.exit_status() {
            panic!("{} ended by itself: {status}", process.name());
        }
        let pid = process.pid();
        process.kill9();
        println!("{:>7} ms: killed {:?}, pid {pid}, for {} ms", at.as_millis(), fault.target, fault.away.as_millis());
        away.push(fault.target);
        returning.push(async move {
            sleep(fault.away).await;
            fleet.restart(fault.target).await;
            Struck { fault: *fault, pid, at, back_at: begun_at.elapsed() }
        });
    }
    struck.extend(returning.collect::<Vec<_>>().await);
    struck.sort_by_key(|struck| struck.at);
    struck
}

impl Fleet {
    fn process(&self, target: Target) -> &Process {
        match target {
            Target::Api(n) => &self.apis[n],
            Target::Worker(n) => &self.workers[n],
            Target::Redis => self.system.redis().process(),
        }
    }

    async fn restart(&self, target: Target) {
        match target {
            Target::Api(n) => self.apis[n].restart().await,
            Target::Worker(n) => self.workers[n].restart(),
            Target::Redis => self.system.redis().restart().await,
        }
    }
}

#[test]
fn one_seed_has_one_schedule() {
    let minute = schedule(7, Duration::from_secs(60));
    assert_eq!(minute, schedule(7, Duration::from_secs(60)));
    assert_ne!(minute, schedule(8, Duration::from_secs(60)));
    let short = schedule(7, Duration::from_secs(20));
    assert_eq!(short, minute[..short.len()], "a longer run begins as the shorter one");
    for target in (0..APIS).map(Target::Api).chain((0..WORKERS).map(Target::Worker)).chain([Target::Redis]) {
        assert!(minute.iter().filter(|fault| fault.target == target).count() >= 2, "{target:?}");
    }
}
