//! The slots of a worker: how many jobs run, and how many more may.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use leasehold::limits;
use tokio::sync::Notify;

/// Counts the slots. Only the claim loop takes them; any task may free one.
pub(crate) struct Slots {
    total: usize,
    taken: AtomicUsize,
    suspects: AtomicUsize,
    lingering: AtomicUsize,
    freed: Notify,
    /// By partition: a freed slot may allow jobs to run that were held back there (a kind at its limit, a suspect).
    look_again: Vec<AtomicBool>,
}

impl Slots {
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            taken: AtomicUsize::new(0),
            suspects: AtomicUsize::new(0),
            lingering: AtomicUsize::new(0),
            freed: Notify::new(),
            look_again: (0..limits::PARTITIONS_MAX).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn free(&self) -> usize {
        self.total.saturating_sub(self.taken.load(Ordering::Acquire))
    }

    /// Running suspects: jobs that were running when a worker crashed.
    pub fn suspects(&self) -> usize {
        self.suspects.load(Ordering::Acquire)
    }

    /// Slots of attempts that have ended after a request to stop, but still keep the slot through a clone of the
    /// context.
    pub fn lingering(&self) -> usize {
        self.lingering.load(Ordering::Acquire)
    }

    /// Waits for a slot to be freed since the last call returned.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Whether a claim from `partition` may now return held-back jobs; resets the flag.
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
    /// The attempt has ended after a request to stop, but something it started still keeps the slot.
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
        let slots = Slots::new(2);
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
