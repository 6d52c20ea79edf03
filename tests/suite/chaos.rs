//! The chaos run, shortly: `leasehold-chaos` runs the same for as long as asked.
//!
//! What happens follows from the seed, which is printed: with `LEASEHOLD_TEST_SEED=<seed>` the same faults are
//! injected at the same times. `LEASEHOLD_CHAOS_SECONDS=<seconds>` sets how long the faults go on, 20 by default; a
//! longer run begins as the shorter one of the same seed.
use std::env;
use std::time::Duration;

use leasehold_tests::chaos::{Setup, run};
use leasehold_tests::seed;

use crate::faults::{ROOM, ROOM_FOR};

/// The variable that sets how long the faults go on.
const SECONDS_VARIABLE: &str = "LEASEHOLD_CHAOS_SECONDS";
const SECONDS: u64 = 20;

#[tokio::test]
async fn row_54_every_acknowledged_job_ends_once_whatever_is_struck_on_one_partition() {
    chaos(1).await;
}

#[tokio::test]
async fn row_54_every_acknowledged_job_ends_once_whatever_is_struck_on_four_partitions() {
    chaos(4).await;
}

async fn chaos(partitions: u16) {
    let _alone = ROOM.acquire_many(ROOM_FOR).await.unwrap();
    let seconds = env::var(SECONDS_VARIABLE).ok().map(|text| text.trim().parse().expect("a number of seconds"));
    let setup = Setup { partitions, ..Setup::default() };
    let violations = run(&setup, seed(), Duration::from_secs(seconds.unwrap_or(SECONDS))).await;
    assert!(violations.is_empty(), "{violations:#?}");
}
