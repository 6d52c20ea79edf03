//! How many jobs there are, without looking at any.
use super::list::number;
use super::{Store, keys};
use crate::{Kind, Result};

/// How many jobs of a kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All that are no items, ended ones too.
    pub total: u64,
    /// Those that run; of a kind without `max_running`, those of every kind.
    pub running: u64,
}

impl Store {
    /// Counts the jobs of a kind; `limited`: it has a `max_running`.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn counts(&self, kind: &Kind, limited: bool) -> Result<Counts> {
        let mut pipeline = redis::pipe();
        for partition in 0..self.partitions() {
            pipeline.cmd("ZCARD").arg(keys::fixed(partition, &keys::kind_suffix(kind)));
            if limited {
                pipeline.cmd("SCARD").arg(keys::fixed(partition, &format!("permits:{kind}")));
            } else {
                pipeline.cmd("ZCARD").arg(keys::fixed(partition, "leases"));
            }
        }
        let replies = self.inner.pipe_leniently(&pipeline).await?;
        let count = |at: usize| {
            let of_each = replies.iter().skip(at).step_by(2).filter_map(number);
            of_each.filter_map(|n| u64::try_from(n).ok()).sum()
        };
        Ok(Counts { total: count(0), running: count(1) })
    }
}
