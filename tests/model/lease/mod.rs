//! The lease protocol: two jobs, three names of workers with two slots each, and a few faults.
//!
//! Time stands for itself only here: a lease that nobody renews may be reclaimed at any moment, and
//! one that a live worker renews runs out by a fault alone. The clock is in [`clock`](crate::clock).
//! A queue is a bag, so priorities, parked and suspect lists are all within what is explored.

mod actions;
mod job;
mod properties;
mod protocol;
mod scripts;
mod state;
mod sweep;
mod twins;
mod worker;

pub use twins::{ENDLESS, TWINS};

/// Failed attempts that end a job.
const ATTEMPTS_MAX: u8 = 2;
/// Crashes that end a job.
const CRASHES_MAX: u8 = 2;

/// What a step witnesses and a state cannot show.
mod broken {
    /// A write under an older claim than the last took effect.
    pub const STALE: u8 = 1;
    /// A job moved as the state machine does not allow.
    pub const MOVE: u8 = 2;
    /// The same token got another answer.
    pub const ANSWER: u8 = 4;
    /// A job was claimed again for no reason.
    pub const CAUSE: u8 = 8;
    /// A handler was started once more than faults and failures account for.
    pub const EXECUTION: u8 = 16;
    /// A lease was renewed that no live handler runs under.
    pub const UNHELD: u8 = 32;
}
