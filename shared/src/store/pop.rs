//! Pop: the blocking wait for an id in a queue, which a claim then leases.
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;

use super::Store;
use super::wire::fault::classify;
use super::wire::{Node, Wire, keys};
use crate::{Error, JobId, QueueName, Result, WorkerId, limits};

/// How much longer than requested a pop may take before its connection is dropped.
const POP_MARGIN: Duration = Duration::from_secs(2);

/// An id that a pop moved to the worker's claimed list and that is not leased yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The list it came from.
    pub queue: QueueName,
    /// The job.
    pub id: JobId,
}

/// A connection that blocks in BRPOPLPUSH. After an error, or when a wait is abandoned, it must be dropped whole: only
/// then does the server forget the pop.
pub struct Popper {
    connection: MultiplexedConnection,
    id: i64,
    node: Arc<Node>,
    wire: Arc<Wire>,
}

impl Store {
    /// A connection for blocking pops.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn popper(&self) -> Result<Popper> {
        let (mut connection, node) = self.inner.wire.connections().dedicated().await?;
        let asking = redis::cmd("CLIENT").arg("ID").to_owned();
        let id = tokio::time::timeout(POP_MARGIN, asking.query_async(&mut connection)).await;
        let id = id.map_err(|_| Error::Unavailable("no answer to CLIENT ID".into()))?.map_err(|e| classify(&e))?;
        Ok(Popper { connection, id, node, wire: self.inner.wire.clone() })
    }

    /// Ends the waits of those poppers at once; each returns `None`.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn unblock(&self, poppers: &[i64]) -> Result<()> {
        let mut pipeline = redis::pipe();
        for id in poppers {
            pipeline.cmd("CLIENT").arg("UNBLOCK").arg(*id);
        }
        if poppers.is_empty() { Ok(()) } else { self.inner.wire.pipe(&pipeline).await.map(drop) }
    }
}

impl Popper {
    /// The connection's id, for [`Store::unblock`].
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Waits up to `wait` (at most [`limits::POP_MS_MAX`]) for an id in the queue's own list, and moves it to the
    /// worker's claimed list. The result is a reservation: only a claim leases it.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`]: an id may have been moved; the audit finds it. [`Error::Full`]: Redis refuses the pop
    /// because it is out of memory; the claim script still works.
    pub async fn reserve(
        &mut self,
        partition: u16,
        queue: &QueueName,
        worker: &WorkerId,
        wait: Duration,
    ) -> Result<Option<Reservation>> {
        let popped = self.pop(partition, queue, worker, wait).await;
        self.wire.connections().metrics().answered("pop", &popped);
        popped
    }

    async fn pop(
        &mut self,
        partition: u16,
        queue: &QueueName,
        worker: &WorkerId,
        wait: Duration,
    ) -> Result<Option<Reservation>> {
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(limits::POP_MS_MAX));
        let mut pop = redis::cmd("BRPOPLPUSH");
        pop.arg(keys::queue(partition, queue)).arg(keys::claimed(partition, worker)).arg(wait.as_secs_f64());
        let popping = pop.query_async::<Option<String>>(&mut self.connection);
        let popped = tokio::time::timeout(wait + POP_MARGIN, popping).await;
        let popped = popped.unwrap_or_else(|_| Err((redis::ErrorKind::Io, "a pop did not come back").into()));
        let popped = popped.inspect_err(|e| self.wire.connections().failed(&self.node, e));
        let Some(id) = popped.map_err(|e| classify(&e))? else { return Ok(None) };
        match JobId::parse(&id) {
            Ok(id) => Ok(Some(Reservation { queue: queue.clone(), id })),
            Err(e) => Err(Error::Corrupt { key: keys::queue(partition, queue), reason: e.to_string() }),
        }
    }
}
