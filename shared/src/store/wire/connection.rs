//! The connections: a pool whose members are dropped at their first failure, and one attempt of a script or a pipeline.
//!
//! A response timeout or a network error closes the connection: a half-open connection
//! is never used twice. Keepalive and TCP_USER_TIMEOUT detect peers that disappear between calls.
use std::time::{Duration, Instant};

use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::{TcpSettings, socket2};
use redis::{AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo, RedisError, Value};

use super::keys;
use super::metrics::Metrics;
use super::scripts::Script;
use crate::{Config, Error, Result};

/// Time without traffic after which a peer is probed, and for which data may stay unacknowledged.
const SILENCE: Duration = Duration::from_secs(5);

pub(crate) struct Connections {
    /// Serves every script and pipeline. Its connections have a response timeout.
    pool: Pool,
    /// Opens connections outside the pool, for blocking pops and subscriptions: these must not time out on a response,
    /// nor keep calls waiting for a connection.
    client: redis::Client,
    /// `redis.connect_ms`, for connections outside the pool.
    connect: Duration,
    /// How long replicas are waited for: half of `redis.response_ms`, so that the reply arrives in time.
    wait: Duration,
    /// Without user and password, for messages.
    address: String,
    /// Counts each attempt, so it is below the repetition of calls.
    metrics: Metrics,
}

impl Connections {
    pub(crate) fn open(config: &Config, metrics: Metrics) -> Result<Self> {
        let info = connection_info(config)?;
        let address = format!("{}", info.addr());
        let connect = Duration::from_millis(config.redis.connect_ms);
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect))
            .set_response_timeout(Some(Duration::from_millis(config.redis.response_ms)));
        let fault = |e: RedisError| Error::Config(format!("redis_url: {e}"));
        let client = redis::Client::open(info.clone()).map_err(fault)?;
        let manager = Manager::new_with_config(info, settings).map_err(fault)?;
        let pool = Pool::builder(manager)
            .max_size(config.redis.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_millis(config.redis.response_ms)))
            .create_timeout(Some(connect))
            .recycle_timeout(Some(Duration::from_millis(config.redis.response_ms)))
            .build()
            .map_err(|e| Error::Config(format!("redis: {e}")))?;
        metrics.watch_pool(&pool);
        let wait = Duration::from_millis(config.redis.response_ms.div_ceil(2));
        Ok(Self { pool, client, connect, wait, address, metrics })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A connection outside the pool without a response timeout.
    pub(crate) async fn dedicated(&self) -> Result<MultiplexedConnection> {
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.connect)).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&settings).await;
        connection.map_err(|e| Error::Unavailable(e.to_string()))
    }

    /// A connection for subscriptions.
    pub(crate) async fn subscriber(&self) -> Result<redis::aio::PubSub> {
        let connecting = tokio::time::timeout(self.connect, self.client.get_async_pubsub());
        let connection = connecting.await.map_err(|_| Error::Unavailable("connecting took too long".into()))?;
        connection.map_err(|e| Error::Unavailable(e.to_string()))
    }

    /// Runs a script once; loads it when Redis does not know it (nothing has run then). With `replicas` above 0, waits
    /// on the same connection until so many replicas have acknowledged what Redis has written so far.
    pub(crate) async fn eval(
        &self,
        script: &Script,
        prefix: &str,
        now: &str,
        args: &[Vec<u8>],
        replicas: u8,
    ) -> Result<Value> {
        let command = |name: &str, body: &str| {
            let mut command = redis::cmd(name);
            command.arg(body).arg(1).arg(prefix).arg(now).arg(args);
            command
        };
        let begun = Instant::now();
        let reply = match self.get().await {
            Ok(mut connection) => {
                let mut reply = command("EVALSHA", &script.sha).query_async(&mut *connection).await;
                if matches!(&reply, Err(e) if e.code() == Some("NOSCRIPT")) {
                    reply = command("EVAL", &script.text).query_async(&mut *connection).await;
                }
                // Only on this connection: a failover ends it, while another might reach a server without the write.
                let acknowledged = match replicas {
                    1.. if reply.is_ok() => acknowledged(&mut connection, prefix, replicas, self.wait).await,
                    _ => Ok(()),
                };
                if matches!(acknowledged, Err(Error::OutcomeUnknown(_))) {
                    drop(Connection::take(connection));
                    acknowledged.and_then(|()| reply.map_err(|e| describe(e, script.name)))
                } else {
                    self.done(connection, reply, script.name).and_then(|reply| acknowledged.map(|()| reply))
                }
            }
            Err(e) => Err(e),
        };
        self.metrics.called(script.name, begun.elapsed(), &reply);
        reply
    }

    /// Runs plain commands in one round trip; each that Redis refused has its error in its place.
    pub(crate) async fn pipe(&self, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
        let begun = Instant::now();
        let reply = match self.get().await {
            Ok(mut connection) => {
                let reply = connection.req_packed_commands(pipeline, 0, pipeline.len()).await;
                self.done(connection, reply, "pipeline")
            }
            Err(e) => Err(e),
        };
        self.metrics.called("pipeline", begun.elapsed(), &reply);
        reply
    }

    async fn get(&self) -> Result<Connection> {
        self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(e) if e.to_string().to_lowercase().contains("authentication failed") => {
                Error::Config(format!("the password in redis_url was refused by Redis at {}", self.address))
            }
            PoolError::Backend(e) => match classify(&e) {
                // An operator must fix these.
                Error::Config(reason) => Error::Config(reason),
                // Nothing was sent yet, so nothing was executed, and no key is at fault.
                _ => Error::Unavailable(e.to_string()),
            },
            other => Error::Unavailable(format!("no connection: {other}")),
        })
    }

    fn done<T>(&self, connection: Connection, reply: redis::RedisResult<T>, verb: &str) -> Result<T> {
        if let Err(e) = &reply
            && (e.is_io_error() || e.is_timeout() || e.is_unrecoverable_error())
        {
            drop(Connection::take(connection));
        }
        reply.map_err(|e| describe(e, verb))
    }
}

/// Waits until `replicas` replicas have acknowledged everything that the server has written so far.
async fn acknowledged(connection: &mut Connection, prefix: &str, replicas: u8, wait: Duration) -> Result<()> {
    let within_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let mut pipeline = redis::pipe();
    // WAIT is about this connection's last write. A repeated submit writes nothing, and its job was written on another.
    pipeline.cmd("SET").arg(keys::replicated(prefix)).arg(1).arg("PX").arg(within_ms).ignore();
    pipeline.cmd("WAIT").arg(replicas).arg(within_ms);
    match pipeline.query_async::<(u64,)>(&mut **connection).await.map(|(count,)| count) {
        Ok(count) if count >= u64::from(replicas) => Ok(()),
        Ok(acknowledged) => Err(Error::TooFewReplicas { acknowledged, requested: replicas, within_ms }),
        // The script has run, whatever the error is.
        Err(e) => Err(Error::OutcomeUnknown(format!("waiting for replicas: {e}"))),
    }
}

/// The address of the configured Redis, without user and password: [`Store::address`](crate::Store::address) without a
/// `Store`.
///
/// # Errors
/// [`Error::Config`] when it cannot be read.
pub fn address(config: &Config) -> Result<String> {
    Ok(connection_info(config)?.addr().to_string())
}

/// The address with the settings of all connections.
fn connection_info(config: &Config) -> Result<ConnectionInfo> {
    let advice = "write redis://[user:password@]host:port[/db], or rediss:// for TLS";
    let fault = |e: RedisError| Error::Config(format!("redis_url: {e}; {advice}"));
    let mut info = config.redis_url.as_str().into_connection_info().map_err(fault)?;
    if let Some(path) = &config.redis.ca_file {
        let pem = std::fs::read(path).map_err(|e| Error::Config(format!("redis.ca_file {}: {e}", path.display())))?;
        let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(pem) };
        let client = redis::Client::build_with_tls(info, certificates).map_err(fault)?;
        info = client.get_connection_info().clone();
    }
    let keepalive = socket2::TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE).with_retries(2);
    Ok(info
        .set_tcp_settings(TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(SILENCE)))
}

/// Classifies a Redis error.
pub(crate) fn classify(error: &RedisError) -> Error {
    let reason = error.to_string();
    match error.code() {
        Some("OOM") => return Error::Full(reason),
        // Errors before execution: loading, a slow script, no disk, a replica, too many clients.
        Some(
            "LOADING" | "BUSY" | "MISCONF" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "NOREPLICAS",
        ) => {
            return Error::Unavailable(reason);
        }
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => {
            return Error::Config(format!("Redis refuses this user: {reason}; give user and password in redis_url"));
        }
        _ => {}
    }
    if reason.contains("max number of clients") || error.is_connection_refusal() {
        return Error::Unavailable(reason);
    }
    if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error() {
        return Error::OutcomeUnknown(reason);
    }
    Error::Corrupt { key: String::new(), reason }
}

fn describe(error: RedisError, script: &str) -> Error {
    match classify(&error) {
        Error::Corrupt { reason, .. } => Error::Corrupt { key: format!("(seen by {script})"), reason },
        other => other,
    }
}
