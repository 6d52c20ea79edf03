//! Events that other roles send to the claim loop.
use leasehold::store::{Popper, Reservation};
use leasehold::{Error, QueueName};

use crate::lease::leases::Call;

/// A reason for the claim loop to act.
pub(crate) enum Event {
    /// A pop has returned.
    Popped(Popped),
    /// There may be work in this partition.
    Look(u16),
    /// A queue was resumed.
    Resumed(QueueName),
    /// A queue was paused.
    Paused(QueueName),
}

/// A pop that has returned.
pub(crate) struct Popped {
    /// Index of the list that it waited on.
    pub list: usize,
    pub answer: Result<Option<Reservation>, Error>,
    /// The call it belongs to; ends when the job it brought is leased.
    pub call: Call,
    /// Its connection, unless it failed.
    pub popper: Option<Popper>,
}
