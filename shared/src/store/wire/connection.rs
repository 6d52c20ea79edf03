//! The connections: to which server a call goes, and one attempt of a script or a pipeline.
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::{PushInfo, RedisError, Value};
use tokio::sync::mpsc::UnboundedReceiver;

use super::address;
use super::args::Args;
use super::cluster::Cluster;
use super::fault::{classify, doubts_master, ends_connection, refusal};
use super::keys::{self, Home};
use super::metrics::Metrics;
use super::node::Node;
use super::pool::Connection;
use super::scripts::Script;
use super::sentinel::Sentinels;
use crate::redis_url::RedisUrl;
use crate::{Config, Error, Result};

/// How often a call follows a move at once.
const REDIRECTIONS_MAX: usize = 5;

pub(crate) struct Connections {
    topology: Topology,
    /// What `redis_url` names, without user and password, for messages.
    address: String,
    /// Counts each attempt, so it is below the repetition of calls.
    metrics: Metrics,
    /// How long replicas are waited for: half of `redis.response_ms`, so that the reply arrives in time.
    wait: Duration,
}

/// How the server of a call is found.
enum Topology {
    /// There is one.
    Server(Arc<Node>),
    /// The sentinels name it.
    Sentinel(Box<Sentinels>),
    /// Each has some of the slots.
    Cluster(Cluster),
}

impl Connections {
    pub(crate) fn open(config: &Config, metrics: Metrics) -> Result<Self> {
        let topology = match RedisUrl::parse(&config.redis_url).map_err(Error::Config)? {
            RedisUrl::Server => {
                let info = address::info(config, &config.redis_url)?;
                Topology::Server(Arc::new(Node::open(info, &config.redis, false, &metrics)?))
            }
            RedisUrl::Sentinel(hosts, master) => {
                Topology::Sentinel(Box::new(Sentinels::open(config, &hosts, master, metrics.clone())?))
            }
            RedisUrl::Cluster(hosts) => Topology::Cluster(Cluster::open(config, hosts, metrics.clone())?),
        };
        let wait = Duration::from_millis(config.redis.response_ms.div_ceil(2));
        Ok(Self { topology, address: address::address(config)?, metrics, wait })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The server that has the keys of `home` now.
    pub(crate) async fn node(&self, home: Home) -> Result<Arc<Node>> {
        match &self.topology {
            Topology::Server(node) => Ok(Arc::clone(node)),
            Topology::Sentinel(sentinels) => sentinels.node().await,
            Topology::Cluster(cluster) => cluster.node(home.slot()).await,
        }
    }

    /// Whether there is a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// Whether a cluster's node of this partition is known not to answer.
    pub(crate) fn is_away(&self, partition: u16) -> bool {
        match &self.topology {
            Topology::Cluster(cluster) => cluster.is_away(Home::Partition(partition).slot()),
            _ => false,
        }
    }

    /// Every server that has a part of the key space now.
    pub(crate) async fn masters(&self) -> Result<Vec<Arc<Node>>> {
        match &self.topology {
            Topology::Cluster(cluster) => cluster.masters().await,
            _ => Ok(vec![self.node(Home::Meta).await?]),
        }
    }

    /// Whether the servers may change, so that messages must name them.
    pub(crate) fn changes(&self) -> bool {
        !matches!(self.topology, Topology::Server(_))
    }

    /// Draws the conclusions from a call to `node` that failed.
    pub(crate) fn failed(&self, node: &Arc<Node>, error: &RedisError) {
        if error.is_timeout() {
            node.drop_idle();
        }
        match &self.topology {
            Topology::Sentinel(sentinels) if doubts_master(error) => {
                node.drop_idle();
                sentinels.doubt(node);
            }
            Topology::Cluster(cluster) if error.is_timeout() => cluster.lost(node),
            Topology::Cluster(cluster) if doubts_master(error) || error.is_cluster_error() => {
                cluster.redirected(error);
            }
            _ => {}
        }
    }

    /// What an error means here.
    pub(crate) fn classify(&self, error: &RedisError) -> Error {
        match error.code() {
            // Nothing has run; the next attempt goes to the right node.
            Some("MOVED") if self.is_cluster() => Error::Unavailable(error.to_string()),
            Some("ASK" | "TRYAGAIN") => Error::Unavailable(format!("the slot of a partition is being moved: {error}")),
            _ => classify(error),
        }
    }

    /// The replies, unless one of them is a refusal that is not about the type of a key.
    pub(crate) fn accept(&self, replies: Vec<Value>) -> Result<Vec<Value>> {
        refusal(&replies).map_or(Ok(replies), |error| Err(self.classify(&error)))
    }

    /// [`Connections::classify`], with the script that met it.
    fn describe(&self, error: &RedisError, script: &str) -> Error {
        match self.classify(error) {
            Error::Corrupt { reason, .. } => Error::Corrupt { key: format!("(seen by {script})"), reason },
            other => other,
        }
    }

    /// Draws the conclusions from a connection to `node` that could not be made.
    fn unreachable(&self, node: &Arc<Node>, error: Error) -> Error {
        match (&self.topology, error) {
            (Topology::Sentinel(sentinels), Error::Unavailable(reason)) => {
                sentinels.doubt(node);
                Error::Unavailable(sentinels.explain(node, &reason))
            }
            (Topology::Cluster(cluster), Error::Unavailable(reason)) => {
                cluster.lost(node);
                Error::Unavailable(format!("the node {} of the cluster does not answer: {reason}", node.address()))
            }
            (_, error) => error,
        }
    }

    /// A connection outside the pool without a response timeout, and its server.
    pub(crate) async fn dedicated(&self, home: Home) -> Result<(MultiplexedConnection, Arc<Node>)> {
        let node = self.node(home).await?;
        let connection = node.dedicated().await.map_err(|e| self.unreachable(&node, e))?;
        Ok((connection, node))
    }

    /// Whether a connection to `node` serves this partition now.
    pub(crate) async fn is_at(&self, node: &Arc<Node>, partition: u16) -> bool {
        match &self.topology {
            Topology::Server(_) => true,
            _ => self.node(Home::Partition(partition)).await.is_ok_and(|now| Arc::ptr_eq(&now, node)),
        }
    }

    /// A connection for subscriptions; not in a cluster.
    pub(crate) async fn subscriber(&self) -> Result<PubSub> {
        let node = self.node(Home::Meta).await?;
        node.subscriber().await.map_err(|e| self.unreachable(&node, e))
    }

    /// A connection for subscriptions to channels of slots that a cluster's node has, and what it receives.
    pub(crate) async fn slot_subscriber(
        &self,
        node: &Arc<Node>,
    ) -> Result<(MultiplexedConnection, UnboundedReceiver<PushInfo>)> {
        node.slot_subscriber().await.map_err(|e| self.unreachable(node, e))
    }

    /// Completes when the slots of a cluster have other nodes than at the time of this call; never without one.
    pub(crate) fn moves(&self) -> impl Future<Output = ()> + Send + use<> {
        let changes = match &self.topology {
            Topology::Cluster(cluster) => Some(cluster.changes()),
            _ => None,
        };
        async move {
            match changes {
                Some(mut changes) => drop(changes.changed().await),
                None => std::future::pending().await,
            }
        }
    }

    /// Runs a script once; loads it when Redis does not know it (nothing has run then). With `replicas` above 0, waits
    /// on the same connection until so many replicas have acknowledged what Redis has written so far.
    pub(crate) async fn eval(
        &self,
        script: &Script,
        partition: u16,
        now: &str,
        args: &Args,
        entries: &[Args],
        replicas: u8,
    ) -> Result<Value> {
        let begun = Instant::now();
        let reply = self.eval_redirected(script, partition, now, args, entries, replicas).await;
        self.metrics.called(script.name, begun.elapsed(), &reply);
        reply
    }

    async fn eval_redirected(
        &self,
        script: &Script,
        partition: u16,
        now: &str,
        args: &Args,
        entries: &[Args],
        replicas: u8,
    ) -> Result<Value> {
        let prefix = keys::prefix(partition);
        let command = |name: &str, body: &str| {
            let mut command = redis::cmd(name);
            command.arg(body).arg(1).arg(&prefix).arg(now);
            for arg in args.iter().chain(entries.iter().flat_map(Args::iter)) {
                command.arg(arg);
            }
            command
        };
        let (text, sha) = match &self.topology {
            Topology::Cluster(_) => (&script.sharded.0, &script.sharded.1),
            _ => (&script.text, &script.sha),
        };
        let mut redirections = 0;
        loop {
            let node = self.node(Home::Partition(partition)).await?;
            let mut connection = self.connect(&node).await?;
            let mut reply = command("EVALSHA", sha).query_async(&mut **connection).await;
            if matches!(&reply, Err(e) if e.code() == Some("NOSCRIPT")) {
                reply = command("EVAL", text).query_async(&mut **connection).await;
            }
            // Only on this connection: a failover ends it, while another might reach a server without the write.
            let acknowledged = match replicas {
                1.. if reply.is_ok() => acknowledged(&mut connection, &prefix, replicas, self.wait).await,
                _ => Ok(()),
            };
            match acknowledged {
                Err(Error::OutcomeUnknown(_)) => drop(Connection::take(connection)),
                _ => self.release(&node, connection, reply.as_ref().err()),
            }
            acknowledged?;
            match reply {
                Err(e) if e.code() == Some("MOVED") && self.is_cluster() && redirections < REDIRECTIONS_MAX => {
                    redirections += 1;
                }
                reply => return reply.map_err(|e| self.describe(&e, script.name)),
            }
        }
    }

    /// Runs plain commands in one round trip; each that Redis refused has its error in its place.
    pub(crate) async fn pipe(&self, home: Home, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
        self.pipe_to(&self.node(home).await?, pipeline).await
    }

    /// [`Connections::pipe`] of commands with several homes, in one round trip to each server, all at once.
    pub(crate) async fn pipe_each(&self, commands: &[(Home, redis::Cmd)]) -> Result<Vec<Value>> {
        let mut shares: Vec<(Arc<Node>, redis::Pipeline, Vec<usize>)> = Vec::new();
        for (at, (home, command)) in commands.iter().enumerate() {
            let node = self.node(*home).await?;
            let known = shares.iter().position(|(known, _, _)| Arc::ptr_eq(known, &node));
            let share = known.unwrap_or_else(|| {
                shares.push((node, redis::pipe(), Vec::new()));
                shares.len() - 1
            });
            shares[share].1.add_command(command.clone());
            shares[share].2.push(at);
        }
        let calls = shares.iter().map(|(node, pipeline, _)| self.pipe_to(node, pipeline));
        let mut replies = vec![Value::Nil; commands.len()];
        for ((_, _, places), answers) in shares.iter().zip(try_join_all(calls).await?) {
            places.iter().zip(answers).for_each(|(at, answer)| replies[*at] = answer);
        }
        Ok(replies)
    }

    /// [`Connections::pipe`] to a certain server.
    pub(crate) async fn pipe_to(&self, node: &Arc<Node>, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
        let begun = Instant::now();
        let reply = match self.connect(node).await {
            Ok(mut connection) => {
                let reply = connection.req_packed_commands(pipeline, 0, pipeline.len()).await;
                let refusal = reply.as_ref().ok().and_then(|replies| refusal(replies));
                self.release(node, connection, refusal.as_ref().or(reply.as_ref().err()));
                reply.map_err(|e| self.describe(&e, "pipeline"))
            }
            Err(e) => Err(e),
        };
        self.metrics.called("pipeline", begun.elapsed(), &reply);
        reply
    }

    async fn connect(&self, node: &Arc<Node>) -> Result<Connection> {
        node.get().await.map_err(|e| self.unreachable(node, e))
    }

    /// Returns a connection to its pool, unless an error forbids it.
    fn release(&self, node: &Arc<Node>, connection: Connection, error: Option<&RedisError>) {
        let Some(error) = error else { return };
        if ends_connection(error) {
            drop(Connection::take(connection));
        }
        self.failed(node, error);
    }
}

/// Waits until `replicas` replicas have acknowledged everything that the server has written so far.
async fn acknowledged(connection: &mut Connection, prefix: &str, replicas: u8, wait: Duration) -> Result<()> {
    let within_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let mut pipeline = redis::pipe();
    // WAIT is about this connection's last write. A repeated submit writes nothing, and its job was written on another.
    pipeline.cmd("SET").arg(keys::replicated(prefix)).arg(1).arg("PX").arg(within_ms).ignore();
    pipeline.cmd("WAIT").arg(replicas).arg(within_ms);
    match pipeline.query_async::<(u64,)>(&mut ***connection).await.map(|(count,)| count) {
        Ok(count) if count >= u64::from(replicas) => Ok(()),
        Ok(acknowledged) => Err(Error::TooFewReplicas { acknowledged, requested: replicas, within_ms }),
        // The script has run, whatever the error is.
        Err(e) => Err(Error::OutcomeUnknown(format!("waiting for replicas: {e}"))),
    }
}
