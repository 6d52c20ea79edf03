//! What the claim loop knows of one partition.
use std::time::{Duration, Instant};

use leasehold::limits;
use leasehold::store::Reservation;

use crate::lease::leases::Call;
use crate::outage::Backoff;

/// The claim loop's state of one partition.
pub(super) struct Partition {
    /// The claim script should be called.
    pub due: bool,
    /// Its lists should be looked at, to see whether it is due: cheaper than a claim, which an idle worker with many
    /// partitions would call for each of them.
    pub look: bool,
    /// When they should be looked at at the latest.
    pub look_at: Option<Instant>,
    /// The earliest time of the next call, after a failed one.
    pub not_before: Instant,
    /// Spaces out the calls after failures: in a cluster another partition's server may work.
    pub backoff: Backoff,
    /// The most jobs to ask for: fewer after a claim whose reply did not arrive in time, as over a slow link.
    pub most: usize,
    /// Reservations made by pops, each with the call that ends once it is leased.
    pub reserved: Vec<(Reservation, Call)>,
    /// The number of the last claim.
    pub number: u64,
    /// When that claim was first sent, if it has not been answered: it may have leased jobs, so it is sent again.
    pub unanswered: Option<Instant>,
}

impl Partition {
    pub fn new() -> Self {
        Self {
            due: true,
            look: false,
            look_at: None,
            not_before: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
            most: limits::SLOTS_MAX,
            reserved: Vec::new(),
            number: 0,
            unanswered: None,
        }
    }

    /// The number of the claim to send, and when it was first sent.
    pub fn next_claim(&mut self) -> (u64, Instant) {
        let sent = self.unanswered.take();
        self.number += u64::from(sent.is_none());
        (self.number, sent.unwrap_or_else(Instant::now))
    }

    pub fn look_by(&mut self, by: Instant) {
        self.look_at = Some(self.look_at.map_or(by, |at| at.min(by)));
    }
}
