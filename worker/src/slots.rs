//! The slots of a worker: how many are free, and who must know when one becomes so.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the slots. Only the claim loop takes; anybody gives back.
pub(crate) struct Slots {
    total: usize,
    taken: AtomicUsize,
    suspects: AtomicUsize,
    lingering: AtomicUsize,
    freed: Notify,
    /// By partition: what was freed may let run what was held back there (a kind at its limit, a suspect).
    look_again: Vec<AtomicBool>,
}

impl Slots {
    pub fn new(total: usize, partitions: u16) -> Arc<Self> {
        Arc::new(Self {
            total,
            taken: AtomicUsize::new(0),
            suspects: AtomicUsize::new(0),
            lingering: AtomicUsize::new(0),
            freed: Notify::new(),
            look_again: (0..partitions).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn free(&self) -> usize {
        self.total.saturating_sub(self.taken.load(Ordering::Acquire))
    }

    /// Suspects that run: jobs that have lost a worker.
    pub fn suspects(&self) -> usize {
        self.suspects.load(Ordering::Acquire)
    }

    /// Slots of attempts that were told to stop and have ended, but left something behind that keeps the slot.
    pub fn lingering(&self) -> usize {
        self.lingering.load(Ordering::Acquire)
    }

    /// Returns when a slot has become free since the last return.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Whether a claim from `partition` may bring more than before; asked once.
    pub fn look_again(&self, partition: u16) -> bool {
        self.look_again[usize::from(partition)].swap(false, Ordering::AcqRel)
    }

    /// Takes a slot. `limited`: its kind has a `max_running`.
    pub fn take(self: &Arc<Self>, partition: u16, suspect: bool, limited: bool) -> Slot {
        self.taken.fetch_add(1, Ordering::AcqRel);
        self.suspects.fetch_add(usize::from(suspect), Ordering::AcqRel);
        Slot { slots: Arc::clone(self), partition, suspect, limited, lingers: AtomicBool::new(false) }
    }
}

/// A taken slot; dropping it frees it.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    partition: u16,
    suspect: bool,
    limited: bool,
    lingers: AtomicBool,
}

impl Slot {
    /// Its attempt was told to stop and has ended; what still keeps the slot is no longer wanted.
    pub fn linger(&self) {
        if !self.lingers.swap(true, Ordering::AcqRel) {
            self.slots.lingering.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = &self.slots;
        if self.suspect || self.limited {
            slots.look_again[usize::from(self.partition)].store(true, Ordering::Release);
        }
        slots.suspects.fetch_sub(usize::from(self.suspect), Ordering::AcqRel);
        slots.lingering.fetch_sub(usize::from(self.lingers.load(Ordering::Acquire)), Ordering::AcqRel);
        slots.taken.fetch_sub(1, Ordering::AcqRel);
        slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slot_is_free_again_when_it_is_dropped() {
        let slots = Slots::new(2, 1);
        let (plain, suspect) = (slots.take(0, false, false), slots.take(0, true, false));
        assert_eq!((slots.free(), slots.suspects()), (0, 1));
        drop(plain);
        slots.freed().await;
        assert!(!slots.look_again(0));
        suspect.linger();
        suspect.linger();
        assert_eq!(slots.lingering(), 1);
        drop(suspect);
        assert_eq!(slots.lingering(), 0);
        assert!(slots.look_again(0) && !slots.look_again(0));
        assert_eq!((slots.free(), slots.suspects()), (2, 0));
    }
}
