//! A job's record, and the state machine.

/// Where a job stands. The states of the design, and `Absent` before its submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Absent,
    Scheduled,
    Queued,
    Running,
    Retrying,
    Completed,
    Failed,
    Cancelled,
}

impl Place {
    /// Whether only an operator moves it on.
    pub fn is_final(self) -> bool {
        matches!(self, Place::Completed | Place::Failed | Place::Cancelled)
    }
}

/// The right to run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    pub worker: u8,
    pub token: u8,
    /// It has run out although its holder lives (a pause, a lost network).
    pub expired: bool,
    /// A witness: something happened that accounts for one more claim.
    pub excused: bool,
}

/// What a settle is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    Now(Place),
    Stale,
}

/// A job's record. `claims`, `may_claim` and `may_start` are no fields of Redis: they witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job {
    pub place: Place,
    pub flagged: bool,
    pub acknowledged: bool,
    pub token: u8,
    pub lease: Option<Lease>,
    pub attempts: u8,
    pub crashes: u8,
    /// The last settle that counted: its token and its answer, until the next claim.
    pub settled: Option<(u8, Answer)>,
    /// How often it was claimed.
    pub claims: u8,
    /// Claims that have a cause and were not made yet.
    pub may_claim: u8,
    /// Starts of a handler that have a cause and were not made yet.
    pub may_start: u8,
}

impl Job {
    /// Not submitted yet: one claim and one start have a cause.
    pub fn new() -> Self {
        Self {
            place: Place::Absent,
            flagged: false,
            acknowledged: false,
            token: 0,
            lease: None,
            attempts: 0,
            crashes: 0,
            settled: None,
            claims: 0,
            may_claim: 1,
            may_start: 1,
        }
    }
}

/// What a handler may end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Complete,
    Fail,
    Release,
}

/// What moves a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Submit,
    Promote,
    Claim,
    Settle(Verdict),
    Reclaim,
    Cancel,
    Retry,
}

impl Verb {
    /// The state machine of the design, section 3.
    pub fn moves(self, from: Place, to: Place) -> bool {
        use Place::*;
        match self {
            Verb::Submit => from == Absent && matches!(to, Scheduled | Queued),
            Verb::Promote => matches!(from, Scheduled | Retrying) && to == Queued,
            Verb::Claim => from == Queued && to == Running,
            Verb::Settle(Verdict::Complete) => from == Running && to == Completed,
            Verb::Settle(Verdict::Fail) => from == Running && matches!(to, Retrying | Failed | Cancelled),
            Verb::Settle(Verdict::Release) => from == Running && matches!(to, Queued | Cancelled),
            Verb::Reclaim => from == Running && matches!(to, Queued | Failed | Cancelled),
            Verb::Cancel => matches!(from, Scheduled | Queued | Retrying) && to == Cancelled,
            Verb::Retry => matches!(from, Failed | Cancelled) && to == Queued,
        }
    }
}
