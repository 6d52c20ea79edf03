//! A whole system under load and faults, and the verdict on what it did.
//!
//! A [`Fleet`] is a Redis, API replicas and workers, each behind a [`crate::Proxy`] of its own. [`Fleet::endure`]
//! submits jobs over HTTP (`load`) while something strikes (`faults`): the schedule that a seed draws, or the one
//! fault of a row of the matrix. The handlers are shell scripts that write each begin and end to a journal outside
//! Redis (`work`). Then all is healed and drained, and `evidence` and `verdict` compare the clients' notes, the
//! journal and the jobs.
//!
//! `leasehold-chaos` and the suite call [`run`]; the rows of the fault matrix use the fleet directly.
// What the rows call only after a fleet has been started: a panic is the message.
#![allow(clippy::unwrap_used)]

pub mod evidence;
pub mod faults;
pub mod fleet;
mod load;
#[cfg(test)]
mod spoilt;
pub mod verdict;
mod work;

use std::time::Duration;

use tokio::time::Instant;

pub use evidence::Evidence;
pub use faults::{Fault, Struck, Target, Way};
pub use fleet::{Fleet, LEASE_MS, Past, Setup};
pub use verdict::Violation;

/// All must be final within this time after the last fault has ended: a lease and the 30 s of row 54.
pub const RECOVERY: Duration = Duration::from_millis(LEASE_MS + 30_000);

/// Runs load and the faults that the seed draws for `length`, heals, drains, and prints what happened. Returns what
/// must not be; empty: the run passed.
///
/// # Panics
/// When a process ends by itself, does not come back, or cannot be started.
pub async fn run(setup: &Setup, seed: u64, length: Duration) -> Vec<String> {
    let fleet = Fleet::start(setup).await;
    let schedule = faults::schedule(seed, length, setup);
    let begun_at = Instant::now();
    let past = fleet.endure(seed, length, faults::strike(&fleet, &schedule, begun_at)).await;
    let recovered = fleet.recover(&past, RECOVERY).await;
    let evidence = Evidence::gather(&fleet, past).await;
    println!("{} partition(s): {}", setup.partitions, evidence.summary(recovered));
    let violations = evidence.violations();
    let mut found: Vec<String> = violations.iter().map(ToString::to_string).collect();
    if !violations.is_empty() {
        println!("{}", evidence.report(&fleet, &violations).await);
    }
    match recovered {
        Some(took) if took > RECOVERY => found.push(format!("all is final, but only {took:?} after the last fault")),
        None => found.push(format!("not all is final {:?} after the last fault", 2 * RECOVERY)),
        Some(_) => {}
    }
    if found.is_empty() {
        found.extend(fleet.end().await);
    } else {
        fleet.abandon();
    }
    found
}
