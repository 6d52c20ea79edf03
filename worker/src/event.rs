//! What the other roles report to the claim loop.
use leasehold::store::{Popper, Reservation};
use leasehold::{Error, QueueName};

use crate::lease::leases::Call;

/// What the claim loop is told.
pub(crate) enum Event {
    /// A pop came back.
    Popped(Popped),
    /// There may be work in this partition.
    Look(u16),
    /// A queue was resumed.
    Resumed(QueueName),
    /// A queue was paused.
    Paused(QueueName),
}

/// How a pop came back.
pub(crate) struct Popped {
    /// The list's place.
    pub list: usize,
    pub answer: Result<Option<Reservation>, Error>,
    /// The call it is part of, to be ended once what it brought is held.
    pub call: Call,
    /// Its connection, unless it failed.
    pub popper: Option<Popper>,
}
