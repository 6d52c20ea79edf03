//! Renew, recover, leave: how a worker renews its leases, recovers reservations that it does not run, and deregisters.
use futures_util::future::join_all;
use redis::Value;

use super::Store;
use super::claim::Held;
use super::status::WorkerInfo;
use super::wire::reply::{array, number, text};
use super::wire::{Args, Repeat, scripts};
use crate::{JobId, Json, Result, Timestamp, WorkerId, limits};

/// One heartbeat in one partition.
#[derive(Debug, Clone)]
pub struct RenewRequest<'a> {
    /// The worker's description of itself.
    pub info: &'a WorkerInfo,
    /// The duration of the leases from now, ms.
    pub lease_ms: u64,
    /// The highest token of this partition that it has seen; 0: none. The counter is raised to it.
    pub seen: u64,
    /// The leases of its running handlers in this partition.
    pub held: &'a [Held],
}

/// The status of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Renewed.
    Renewed,
    /// Renewed, and the job is flagged for cancellation.
    Cancel,
    /// Lost or ended: the handler must stop and settle nothing.
    Stale,
    /// The job no longer exists: as for a lost lease.
    Missing,
}

/// The reply to a heartbeat.
#[derive(Debug, Clone)]
pub struct Renewed {
    /// For each of `held`, in order.
    pub answers: Vec<Renewal>,
    /// The worker's reservations, for the audit.
    pub reserved: Vec<JobId>,
    /// Redis's time.
    pub at: Timestamp,
}

/// A gap in the clock's stamps longer than this, ms, means that Redis or everybody was away, and endangers leases of
/// this length (`clock.lua` computes the same). Stamps come every sixth of a lease from each worker's renewals. It must
/// be well below a lease: with half of one, two gaps in a row hide an outage in which live workers could not renew (found
/// by the model of the clock in `tests/model`).
pub(super) fn gap_max_ms(lease_ms: u64) -> u64 {
    lease_ms / 3
}

impl Store {
    /// One heartbeat: renews the leases, registers the worker, and returns its reservations for the audit.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn renew(&self, partition: u16, request: &RenewRequest<'_>) -> Result<Renewed> {
        let info = Json::of(request.info).expect("a worker's info is plain JSON");
        let mut args = Args::default()
            .text(request.info.id.as_str())
            .number(request.lease_ms)
            .text(info.as_str())
            .number(request.seen)
            .count(request.held.len());
        for held in request.held {
            args = args.text(held.id.as_str()).number(held.token);
        }
        let reply = self.inner.wire.run(&scripts::RENEW, partition, &args, Repeat::Safe).await?;
        let reply = array(&reply);
        let answers = array(reply.get(1).unwrap_or(&Value::Nil)).iter().map(|v| match text(v).as_str() {
            "renewed" => Renewal::Renewed,
            "cancel" => Renewal::Cancel,
            "stale" => Renewal::Stale,
            _ => Renewal::Missing,
        });
        let reserved = array(reply.get(2).unwrap_or(&Value::Nil)).iter();
        let reserved = reserved.filter_map(|id| JobId::parse(&text(id)).ok());
        let at = Timestamp(reply.first().and_then(number).unwrap_or(0));
        Ok(Renewed { answers: answers.collect(), reserved: reserved.collect(), at })
    }

    /// Moves reservations of this worker back to the front of their queues. Returns how many.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn recover(&self, partition: u16, worker: &WorkerId, ids: &[JobId]) -> Result<usize> {
        let args = Args::default().text(worker.as_str()).text("audit").count(ids.len()).number(0);
        let args = args.texts(ids.iter().map(JobId::as_str));
        let reply = self.inner.wire.run(&scripts::RECOVER, partition, &args, Repeat::Safe).await?;
        Ok(array(&reply).first().and_then(number).and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
    }

    /// Removes a worker that has settled everything from the list of workers, in every partition.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn leave(&self, worker: &WorkerId) -> Result<()> {
        let args = Args::default().text(worker.as_str()).text("leave").count(limits::CLAIMED_MAX).number(0);
        let each = (0..self.partitions()).map(|p| self.inner.wire.run(&scripts::RECOVER, p, &args, Repeat::Safe));
        // An error in one partition must not stop the others.
        join_all(each).await.into_iter().try_for_each(|left| left.map(drop))
    }
}
