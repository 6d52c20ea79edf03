//! Pop: the blocking wait for an id in a queue, which a claim then leases.
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use redis::aio::MultiplexedConnection;

use super::Store;
use super::wire::fault::classify;
use super::wire::reply::number;
use super::wire::{Home, Node, Wire, keys};
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
    id: PopperId,
    wire: Arc<Wire>,
}

/// Names the connection of a popper, for [`Store::unblock`].
#[derive(Clone)]
pub struct PopperId {
    /// Its server, for ids are given by each server.
    node: Arc<Node>,
    client: i64,
}

impl Store {
    /// A connection for blocking pops in a partition, and in others for which [`Store::serves`] says so.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn popper(&self, partition: u16) -> Result<Popper> {
        let (mut connection, node) = self.inner.wire.connections().dedicated(Home::Partition(partition)).await?;
        let asking = redis::cmd("CLIENT").arg("ID").to_owned();
        let id = tokio::time::timeout(POP_MARGIN, asking.query_async(&mut connection)).await;
        let client = id.map_err(|_| Error::Unavailable("no answer to CLIENT ID".into()))?.map_err(|e| classify(&e))?;
        Ok(Popper { connection, id: PopperId { node, client }, wire: self.inner.wire.clone() })
    }

    /// Whether a popper's connection leads to the server of this partition.
    pub async fn serves(&self, popper: &Popper, partition: u16) -> bool {
        self.inner.wire.connections().is_at(&popper.id.node, partition).await
    }

    /// Whether any id waits in one of the queues, for each partition; an error for one whose server does not answer. A
    /// cheap look at lists that no pop watches, and a single attempt. The ids may be of jobs that cannot be claimed, such
    /// as those of other kinds.
    pub async fn waiting(&self, partitions: &[u16], queues: &[(QueueName, u32)]) -> Vec<Result<bool>> {
        let command = |partition: &u16| {
            let keys = queues.iter().flat_map(|(queue, _)| keys::waiting(*partition, queue));
            (Home::Partition(*partition), redis::cmd("EXISTS").arg(keys.collect::<Vec<_>>()).to_owned())
        };
        let exists = |reply: Value| reply.extract_error().map_err(|e| classify(&e)).map(|v| number(&v) > Some(0));
        let (commands, connections) =
            (partitions.iter().map(command).collect::<Vec<_>>(), self.inner.wire.connections());
        match connections.pipe_each(&commands).await {
            Ok(replies) => replies.into_iter().map(exists).collect(),
            Err(e) if !connections.is_cluster() => partitions.iter().map(|_| Err(e.clone())).collect(),
            // One node may be away.
            Err(_) => {
                let each = commands.chunks(1).map(|of_one| connections.pipe_each(of_one));
                let replies = join_all(each).await;
                replies.into_iter().map(|reply| reply.and_then(|mut replies| exists(replies.remove(0)))).collect()
            }
        }
    }

    /// Ends the waits of those poppers at once; each returns `None`.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn unblock(&self, poppers: &[PopperId]) -> Result<()> {
        let connections = self.inner.wire.connections();
        let mut nodes: Vec<&Arc<Node>> = Vec::new();
        for popper in poppers {
            if !nodes.iter().any(|node| Arc::ptr_eq(node, &popper.node)) {
                nodes.push(&popper.node);
            }
        }
        let unblock = |node: &Arc<Node>| {
            let mut pipeline = redis::pipe();
            for popper in poppers.iter().filter(|popper| Arc::ptr_eq(node, &popper.node)) {
                pipeline.cmd("CLIENT").arg("UNBLOCK").arg(popper.client);
            }
            pipeline
        };
        let calls = nodes.into_iter().map(|node| {
            let (pipeline, node) = (unblock(node), Arc::clone(node));
            async move { connections.accept(connections.pipe_to(&node, &pipeline).await?).map(drop) }
        });
        join_all(calls).await.into_iter().collect()
    }
}

impl Popper {
    /// The connection's id, for [`Store::unblock`].
    pub fn id(&self) -> PopperId {
        self.id.clone()
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
        let popped = popped.inspect_err(|e| self.wire.connections().failed(&self.id.node, e));
        let Some(id) = popped.map_err(|e| self.wire.connections().classify(&e))? else { return Ok(None) };
        match JobId::parse(&id) {
            Ok(id) => Ok(Some(Reservation { queue: queue.clone(), id })),
            Err(e) => Err(Error::Corrupt { key: keys::queue(partition, queue), reason: e.to_string() }),
        }
    }
}
