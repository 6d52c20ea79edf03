//! What the lease protocol's state is: Redis's half, the workers' half, and what is on its way.

use super::broken;
use super::job::{Job, Place, Verb, Verdict};

/// Jobs in the model.
pub const JOBS: usize = 2;
/// Names of workers: two that stand at the start, and one for the next start.
pub const NAMES: usize = 3;
/// What one worker runs at once.
pub const SLOTS: usize = 2;

/// A claim that was given: its token, and the number of the claim for the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant {
    pub token: u8,
    pub claim: u8,
}

/// The claim call a worker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    None,
    /// BRPOPLPUSH moved this id; the claim script has not run yet.
    Moved(u8),
    /// The claim script has run, the reply is on its way.
    Claimed([Option<Grant>; JOBS]),
    /// The claim script has run, and its reply is lost: the claim is sent again.
    Unanswered([Option<Grant>; JOBS]),
}

/// A job that a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hold {
    pub job: u8,
    pub token: u8,
    pub claim: u8,
    /// The verdict of a settle that was sent and got no answer.
    pub sent: Option<Verdict>,
}

/// What the audit remembers of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    None,
    /// Seen once; `waits` while a claim call that was unanswered then still is.
    Seen {
        waits: bool,
    },
    GivenBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Life {
    Unborn,
    Alive,
    Dead,
}

/// A worker's memory, but for `registered`, which is its entry in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker {
    pub life: Life,
    pub registered: bool,
    /// A pop that outlives its dead worker in the server.
    pub armed: bool,
    pub call: Call,
    pub holds: [Option<Hold>; SLOTS],
    pub marks: [Mark; JOBS],
    /// The recovery on its way.
    pub back: Option<u8>,
    /// The renewal's reply on its way: which ids are reserved.
    pub found: Option<[bool; JOBS]>,
}

/// A settle call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Settle {
    pub worker: u8,
    pub job: u8,
    pub token: u8,
    pub claim: u8,
    pub verdict: Verdict,
}

/// A call that its sender has given up, and that Redis will run all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Late {
    Settle(Settle),
    Claim { worker: u8, job: u8 },
}

impl Late {
    fn sender(self) -> usize {
        match self {
            Late::Settle(Settle { worker, .. }) | Late::Claim { worker, .. } => usize::from(worker),
        }
    }

    fn renamed(self, name: [u8; NAMES]) -> Self {
        let worker = name[self.sender()];
        match self {
            Late::Settle(call) => Late::Settle(Settle { worker, ..call }),
            Late::Claim { job, .. } => Late::Claim { worker, job },
        }
    }
}

/// What a sweeper without its guards has read and not yet written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Read {
    Expired(u8),
    Due(u8),
}

/// The whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    pub jobs: [Job; JOBS],
    /// Copies of each id in the queue. Any of them may be popped next.
    pub queue: [u8; JOBS],
    /// Copies of each id in `claimed:<worker>`.
    pub claimed: [[u8; JOBS]; NAMES],
    pub workers: [Worker; NAMES],
    pub late: Option<Late>,
    pub read: Option<Read>,
    pub faults: u8,
    /// Bits of [`broken`](super::broken).
    pub broken: u8,
}

impl State {
    /// Nothing submitted, all workers but the last alive.
    pub fn new(faults: u8, registered: bool) -> Self {
        let mut workers = [Worker::new(Life::Alive, registered); NAMES];
        workers[NAMES - 1] = Worker::new(Life::Unborn, false);
        Self {
            jobs: [Job::new(); JOBS],
            queue: [0; JOBS],
            claimed: [[0; JOBS]; NAMES],
            workers,
            late: None,
            read: None,
            faults,
            broken: 0,
        }
    }

    /// The token under which this worker has this job on lease; 0 when it has not.
    pub fn leased(&self, worker: usize, job: usize) -> u8 {
        self.jobs[job].lease.filter(|lease| usize::from(lease.worker) == worker).map_or(0, |lease| lease.token)
    }

    /// Whether this worker has this job on lease under this token.
    pub fn is_holder(&self, worker: usize, job: usize, token: u8) -> bool {
        token != 0 && self.leased(worker, job) == token
    }

    /// The same state with its workers in a fixed order: which name is whose makes no difference.
    pub fn folded(&self) -> Self {
        let mut order: [usize; NAMES] = std::array::from_fn(|worker| worker);
        order.sort_by_key(|&worker| {
            let tokens: [u8; JOBS] = std::array::from_fn(|job| self.leased(worker, job));
            (self.workers[worker], self.claimed[worker], tokens, self.late.is_some_and(|late| late.sender() == worker))
        });
        let mut name = [0; NAMES];
        for (new, &old) in order.iter().enumerate() {
            name[old] = new as u8;
        }
        let mut folded = Self {
            workers: order.map(|worker| self.workers[worker]),
            claimed: order.map(|worker| self.claimed[worker]),
            late: self.late.map(|late| late.renamed(name)),
            ..*self
        };
        for lease in folded.jobs.iter_mut().filter_map(|job| job.lease.as_mut()) {
            lease.worker = name[usize::from(lease.worker)];
        }
        folded
    }

    /// Witnesses that the lease's end accounts for one more claim, and one more start if it `started`.
    pub fn excuse(&mut self, job: usize, started: bool) {
        let job = &mut self.jobs[job];
        if let Some(lease) = job.lease.as_mut().filter(|lease| !lease.excused) {
            lease.excused = true;
            job.may_claim += 1;
            job.may_start += u8::from(started);
        }
    }

    /// Witnesses that something happened which must not.
    pub fn witness(&mut self, bit: u8, happened: bool) {
        self.broken |= if happened { bit } else { 0 };
    }

    /// Moves a job, and witnesses a move that the state machine does not know.
    pub fn move_to(&mut self, job: usize, verb: Verb, place: Place) {
        let job = &mut self.jobs[job];
        let known = verb.moves(job.place, place);
        job.place = place;
        if place.is_final() {
            job.may_claim = 0;
        }
        self.witness(broken::MOVE, !known);
    }
}
