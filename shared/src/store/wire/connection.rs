//! The connections: to which server a call goes, and one attempt of a script or a pipeline.
use std::sync::Arc;
use std::time::Instant;

use deadpool_redis::Connection;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::{RedisError, Value};

use super::address;
use super::fault::{describe, doubts_master, ends_connection, refusal};
use super::keys;
use super::metrics::Metrics;
use super::node::Node;
use super::scripts::Script;
use super::sentinel::Sentinels;
use crate::redis_url::RedisUrl;
use crate::{Config, Error, Result};

pub(crate) struct Connections {
    topology: Topology,
    /// What `redis_url` names, without user and password, for messages.
    address: String,
    /// Counts each attempt, so it is below the repetition of calls.
    metrics: Metrics,
}

/// How the server of a call is found.
enum Topology {
    /// There is one.
    Server(Arc<Node>),
    /// The sentinels name it.
    Sentinel(Box<Sentinels>),
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
            RedisUrl::Cluster(_) => return Err(Error::Config("redis_url: clusters are not supported yet".into())),
        };
        Ok(Self { topology, address: address::address(config)?, metrics })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The server that has the key space now.
    pub(crate) async fn node(&self) -> Result<Arc<Node>> {
        match &self.topology {
            Topology::Server(node) => Ok(Arc::clone(node)),
            Topology::Sentinel(sentinels) => sentinels.node().await,
        }
    }

    /// Every server that has a part of the key space now.
    pub(crate) async fn masters(&self) -> Result<Vec<Arc<Node>>> {
        Ok(vec![self.node().await?])
    }

    /// Whether the servers may change, so that messages must name them.
    pub(crate) fn changes(&self) -> bool {
        !matches!(self.topology, Topology::Server(_))
    }

    /// Draws the conclusions from a call to `node` that failed.
    pub(crate) fn failed(&self, node: &Arc<Node>, error: &RedisError) {
        if let Topology::Sentinel(sentinels) = &self.topology
            && doubts_master(error)
        {
            node.drop_idle();
            sentinels.doubt(node);
        }
    }

    /// Draws the conclusions from a connection to `node` that could not be made.
    fn unreachable(&self, node: &Arc<Node>, error: Error) -> Error {
        let Topology::Sentinel(sentinels) = &self.topology else { return error };
        sentinels.doubt(node);
        match error {
            Error::Unavailable(reason) => Error::Unavailable(sentinels.explain(node, &reason)),
            other => other,
        }
    }

    /// A connection outside the pool without a response timeout, and its server.
    pub(crate) async fn dedicated(&self) -> Result<(MultiplexedConnection, Arc<Node>)> {
        let node = self.node().await?;
        let connection = node.dedicated().await.map_err(|e| self.unreachable(&node, e))?;
        Ok((connection, node))
    }

    /// A connection for subscriptions.
    pub(crate) async fn subscriber(&self) -> Result<PubSub> {
        let node = self.node().await?;
        node.subscriber().await.map_err(|e| self.unreachable(&node, e))
    }

    /// Runs a script once; loads it when Redis does not know it (nothing has run then).
    pub(crate) async fn eval(&self, script: &Script, partition: u16, now: &str, args: &[Vec<u8>]) -> Result<Value> {
        let prefix = keys::prefix(partition);
        let command = |name: &str, body: &str| {
            let mut command = redis::cmd(name);
            command.arg(body).arg(1).arg(&prefix).arg(now).arg(args);
            command
        };
        let begun = Instant::now();
        let reply = match self.get().await {
            Ok((node, mut connection)) => {
                let mut reply = command("EVALSHA", &script.sha).query_async(&mut *connection).await;
                if matches!(&reply, Err(e) if e.code() == Some("NOSCRIPT")) {
                    reply = command("EVAL", &script.text).query_async(&mut *connection).await;
                }
                self.release(&node, connection, reply.as_ref().err());
                reply.map_err(|e| describe(&e, script.name))
            }
            Err(e) => Err(e),
        };
        self.metrics.called(script.name, begun.elapsed(), &reply);
        reply
    }

    /// Runs plain commands in one round trip; each that Redis refused has its error in its place.
    pub(crate) async fn pipe(&self, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
        self.pipe_to(&self.node().await?, pipeline).await
    }

    /// [`Connections::pipe`] to a certain server.
    pub(crate) async fn pipe_to(&self, node: &Arc<Node>, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
        let begun = Instant::now();
        let reply = match self.connect(node).await {
            Ok(mut connection) => {
                let reply = connection.req_packed_commands(pipeline, 0, pipeline.len()).await;
                let refusal = reply.as_ref().ok().and_then(|replies| refusal(replies));
                self.release(node, connection, refusal.as_ref().or(reply.as_ref().err()));
                reply.map_err(|e| describe(&e, "pipeline"))
            }
            Err(e) => Err(e),
        };
        self.metrics.called("pipeline", begun.elapsed(), &reply);
        reply
    }

    async fn get(&self) -> Result<(Arc<Node>, Connection)> {
        let node = self.node().await?;
        let connection = self.connect(&node).await?;
        Ok((node, connection))
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
