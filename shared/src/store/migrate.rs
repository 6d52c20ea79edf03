//! The step of the ended jobs from layout 1: they are moved to where this version lists them.
use super::Store;
use super::wire::reply::number;
use super::wire::{Args, Repeat, scripts};
use crate::{Result, limits};

impl Store {
    /// Moves the ended jobs of layout 1, in bounded calls. Returns how many entries were moved or dropped. When it is
    /// broken off, the next call moves the rest.
    ///
    /// # Errors
    /// Those of any call.
    pub(super) async fn move_ended(&self) -> Result<u64> {
        let args = Args::default().count(limits::SWEEP_BATCH);
        let mut moved = 0;
        for partition in 0..self.partitions() {
            loop {
                let reply = self.inner.wire.run(&scripts::MIGRATE, partition, &args, Repeat::Safe).await?;
                match number(&reply).and_then(|n| u64::try_from(n).ok()).unwrap_or(0) {
                    0 => break,
                    step => moved += step,
                }
            }
        }
        Ok(moved)
    }
}
