//! How much is measured: in a whole run, in a quick one, and in the tests.

/// How much a run measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// Everything as the goals state it.
    Whole,
    /// Less of everything, in under three minutes.
    Quick,
    /// Too little to mean anything: for tests.
    Tiny,
}

impl Size {
    fn of<T>(self, whole: T, quick: T, tiny: T) -> T {
        match self {
            Size::Whole => whole,
            Size::Quick => quick,
            Size::Tiny => tiny,
        }
    }

    /// Rounds of each comparison.
    pub(super) fn rounds(self) -> usize {
        self.of(5, 3, 1)
    }

    /// Jobs of a drain.
    pub(super) fn drain(self) -> usize {
        self.of(40_000, 12_000, 200)
    }

    /// Jobs whose whole life is measured: three quarters of a power of two, so that Redis's table of keys is as full in
    /// each size.
    pub(super) fn life(self) -> usize {
        self.of(48_000, 24_000, 192)
    }

    /// Jobs submitted in bulk or concurrently, and one by one.
    pub(super) fn enqueue(self) -> (usize, usize) {
        self.of((50_000, 10_000), (20_000, 3_000), (200, 20))
    }

    /// Jobs whose start is timed in a round.
    pub(super) fn starts(self) -> usize {
        self.of(1_000, 300, 5)
    }

    /// How long an idle worker is watched, s.
    pub(super) fn idle_s(self) -> f64 {
        self.of(30.0, 6.0, 3.0)
    }

    /// Jobs that are queued and jobs that have finished when a full Redis is measured.
    pub(super) fn backlog(self) -> (usize, usize) {
        self.of((1_000_000, 5_000_000), (50_000, 250_000), (400, 400))
    }

    /// How long HTTP requests are sent in a round, s.
    pub(super) fn http_s(self) -> f64 {
        self.of(5.0, 1.2, 0.2)
    }

    /// Jobs that one caller creates and deletes in a round.
    pub(super) fn callers(self) -> usize {
        self.of(3_000, 800, 20)
    }

    /// How long processes are under load, s.
    pub(super) fn load_s(self) -> f64 {
        self.of(60.0, 8.0, 1.0)
    }

    /// Commands of a batch.
    pub(super) fn commands(self) -> usize {
        self.of(1_000, 1_000, 10)
    }
}
