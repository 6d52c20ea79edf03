//! The rules of the protocol by name. A twin of a model lacks some of them.

/// A rule that a model can do without, in the order of [`GUARDS`] and then [`RULES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    OnceSubmit,
    NumberedItems,
    UnsealedItems,
    ReservedClaim,
    QueuedClaim,
    NumberedClaim,
    FreshTokenClaim,
    OutrunClaim,
    SeenClaim,
    SeenRenew,
    HolderRenew,
    HolderReport,
    HolderSettle,
    SettledSettle,
    FlaggedSettle,
    QueuedRecover,
    EmptyRecover,
    GoneRecover,
    ExpiredReclaim,
    FlaggedReclaim,
    StampedReclaim,
    CutReclaim,
    GraceClock,
    GapClock,
    OldestClock,
    DuePromote,
    LivingCancel,
    SealingCancel,
    OpenCancel,
    StandingCascade,
    EndedRetry,
    ParentRetry,
    CountedFinish,
    RevivedFinish,
    SealedFinish,
    CascadedFinish,
    FlaggedFinish,
    RevisedTick,
    UnmovedTick,
    DueTick,
    OnceTick,
    Registered,
    Named,
    Audited,
    Unanswered,
    Heard,
    Prompt,
}

/// The guards that stand in a script: name, script.
pub const GUARDS: &[(&str, &str)] = &[
    ("once", "submit"),
    ("numbered", "items"),
    ("unsealed", "items"),
    ("reserved", "claim"),
    ("queued", "claim"),
    ("numbered", "claim"),
    ("fresh-token", "claim"),
    ("outrun", "claim"),
    ("seen", "claim"),
    ("seen", "renew"),
    ("holder", "renew"),
    ("holder", "report"),
    ("holder", "settle"),
    ("settled", "settle"),
    ("flagged", "settle"),
    ("queued", "recover"),
    ("empty", "recover"),
    ("gone", "recover"),
    ("expired", "reclaim"),
    ("flagged", "reclaim"),
    ("stamped", "reclaim"),
    ("cut", "reclaim"),
    ("grace", "clock"),
    ("gap", "clock"),
    ("oldest", "clock"),
    ("due", "promote"),
    ("living", "cancel_one"),
    ("sealing", "cancel_one"),
    ("open", "cancel"),
    ("standing", "cascade"),
    ("ended", "retry_one"),
    ("parent", "retry_one"),
    ("counted", "finish"),
    ("revived", "finish"),
    ("sealed", "finish"),
    ("cascaded", "finish"),
    ("flagged", "finish"),
    ("revised", "tick"),
    ("unmoved", "tick"),
    ("due", "tick"),
    ("once", "tick"),
];

/// The rules that the worker keeps; no script can.
pub const RULES: &[&str] = &["registered", "named", "audited", "unanswered", "heard", "prompt"];

/// The guards that hold in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guards(u64);

impl Guards {
    /// Every guard.
    pub const ALL: Self = Self(u64::MAX);

    /// Every guard but these.
    pub fn without(missing: &[Guard]) -> Self {
        Self(missing.iter().fold(u64::MAX, |all, &guard| all & !(1 << guard as u64)))
    }

    /// Whether this guard holds.
    pub fn on(self, guard: Guard) -> bool {
        self.0 & (1 << guard as u64) != 0
    }
}

impl Guard {
    /// Its name as a script's comment says it, and the script; `worker` for a worker's rule.
    pub fn name(self) -> (&'static str, &'static str) {
        let place = self as usize;
        match GUARDS.get(place) {
            Some(&row) => row,
            None => (RULES[place - GUARDS.len()], "worker"),
        }
    }
}
