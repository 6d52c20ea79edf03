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

    /// The number of the claim to send, and when it was first sent. Until it is answered, `unanswered` must stay set if
    /// one of its copies may have run.
    pub fn next_claim(&mut self) -> (u64, Instant) {
        if let Some(sent) = self.unanswered {
            return (self.number, sent);
        }
        self.number += 1;
        (self.number, Instant::now())
    }

    /// Notes that the claim that was first sent at `sent` failed, and perhaps ran. A copy that did not run says nothing
    /// about the one before.
    pub fn claim_failed(&mut self, sent: Instant, may_have_run: bool) {
        if may_have_run {
            self.unanswered = Some(sent);
        }
    }

    pub fn look_by(&mut self, by: Instant) {
        self.look_at = Some(self.look_at.map_or(by, |at| at.min(by)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_keeps_its_number_until_it_is_answered() {
        let mut share = Partition::new();
        let (first, sent) = share.next_claim();
        share.claim_failed(sent, false);
        let (second, sent) = share.next_claim();
        assert!(second > first, "the first has not run");
        share.claim_failed(sent, true);
        assert_eq!(share.next_claim(), (second, sent));
        share.claim_failed(sent, false);
        assert_eq!(share.next_claim(), (second, sent), "that its copy has not run says nothing about the claim itself");
        share.unanswered = None;
        assert!(share.next_claim().0 > second);
    }
}
