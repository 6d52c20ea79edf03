//! What the state of a parent and its items is.

/// Items of the parent. The first part brings the first, the last part the others.
pub const ITEMS: usize = 2;

/// Where a parent or an item stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Absent,
    Waiting,
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl Place {
    pub fn is_final(self) -> bool {
        matches!(self, Place::Completed | Place::Failed | Place::Cancelled)
    }
}

/// How many items are open, and how the others ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    pub open: i8,
    pub succeeded: i8,
    pub failed: i8,
    pub cancelled: i8,
}

impl Counts {
    /// The count that an item in this place is in.
    pub fn of(&mut self, place: Place) -> &mut i8 {
        match place {
            Place::Completed => &mut self.succeeded,
            Place::Failed => &mut self.failed,
            Place::Cancelled => &mut self.cancelled,
            _ => &mut self.open,
        }
    }
}

/// A cancel or retry of all items, and the next of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cascade {
    Cancel(usize),
    Retry(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parent {
    pub place: Place,
    pub sealed: bool,
    pub flagged: bool,
    pub counts: Counts,
    /// Its entry in `cascades`.
    pub cascade: Option<Cascade>,
    /// A witness: it was cancelled while its items lived.
    pub refused: bool,
}

/// How a handler ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Complete,
    Fail,
}

/// A handler: its token, and the verdict it has sent without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handler {
    pub token: u8,
    pub sent: Option<Verdict>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    pub place: Place,
    pub flagged: bool,
    pub crashed: bool,
    pub token: u8,
    /// The token of the settle that counted last.
    pub settled: u8,
    /// The handler that holds the lease, and one that has lost it.
    pub handlers: [Option<Handler>; 2],
}

/// Who sends the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    Sends {
        part: usize,
    },
    Done,
    /// It died before the last part.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub parent: Parent,
    pub items: [Item; ITEMS],
    pub client: Client,
    pub faults: u8,
    /// A final state was left by another verb than retry.
    pub broken: bool,
}

impl State {
    /// Nothing submitted.
    pub fn new(faults: u8) -> Self {
        let parent = Parent {
            place: Place::Absent,
            sealed: false,
            flagged: false,
            counts: Counts::default(),
            cascade: None,
            refused: false,
        };
        let item =
            Item { place: Place::Absent, flagged: false, crashed: false, token: 0, settled: 0, handlers: [None; 2] };
        Self { parent, items: [item; ITEMS], client: Client::Sends { part: 0 }, faults, broken: false }
    }

    /// The items that have come and have not ended.
    pub fn living(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| matches!(item.place, Place::Queued | Place::Running))
    }
}
