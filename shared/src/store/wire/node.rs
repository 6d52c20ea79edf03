//! One Redis server: a pool whose members are dropped at their first failure, and connections outside the pool.
//!
//! A response timeout or a network error closes the connection: a half-open connection
//! is never used twice. Keepalive and TCP_USER_TIMEOUT detect peers that disappear between calls.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{Hook, HookError, PoolError, QueueMode};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ConnectionInfo, ProtocolVersion, PushInfo, RedisError, Value};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::fault::classify;
use super::metrics::Metrics;
use super::pool::{Connection, Link, Opener, Pool};
use super::reply::{array, text};
use crate::config::RedisConfig;
use crate::{Error, Result};

/// How long a server may take to refuse a connection.
const REFUSAL_WITHIN: Duration = Duration::from_millis(300);

/// A server and the connections to it.
pub(crate) struct Node {
    /// `host:port`, for messages and to recognise it.
    address: String,
    /// Serves every script and pipeline. Its connections have a response timeout.
    pool: Pool,
    /// Opens connections outside the pool, for blocking pops and subscriptions: these must not time out on a response,
    /// nor keep calls waiting for a connection.
    client: redis::Client,
    /// `redis.connect_ms`, for connections outside the pool.
    connect: Duration,
    /// `redis.response_ms`.
    response: Duration,
    /// Every new connection is asked whether the server is a master.
    must_be_master: bool,
    /// In a cluster: it does not answer.
    away: AtomicBool,
    /// When it was last tried again.
    tried_at: Mutex<Option<Instant>>,
}

impl Node {
    /// Prepares the connections; none is made yet.
    ///
    /// # Errors
    /// [`Error::Config`] when the address cannot be used.
    pub fn open(info: ConnectionInfo, config: &RedisConfig, must_be_master: bool, metrics: &Metrics) -> Result<Self> {
        let address = info.addr().to_string();
        let (connect, response) = (Duration::from_millis(config.connect_ms), Duration::from_millis(config.response_ms));
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(Some(connect)).set_response_timeout(Some(response));
        let fault = |e: RedisError| Error::Config(format!("redis_url: {e}"));
        let client = redis::Client::open(info).map_err(fault)?;
        let mut pool = Pool::builder(Opener::new(client.clone(), settings))
            .max_size(config.connections)
            // The one that was used last: it need not be asked whether it still works.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(response))
            .create_timeout(Some(connect))
            .recycle_timeout(Some(response));
        if must_be_master {
            pool = pool.post_create(Hook::async_fn(|link: &mut Link, _| {
                Box::pin(async move { confirm_master(link).await.map_err(HookError::message) })
            }));
        }
        let pool = pool.build().map_err(|e| Error::Config(format!("redis: {e}")))?;
        metrics.watch_pool(&pool);
        let (away, tried_at) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { address, pool, client, connect, response, must_be_master, away, tried_at })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection from the pool.
    pub async fn get(&self) -> Result<Connection> {
        // Each of the pool's idle connections may take as long to fail when the server hangs.
        let got = tokio::time::timeout(self.response + self.connect, self.pool.get()).await;
        let late = |_| {
            self.drop_idle();
            Error::Unavailable(format!("no connection to {} in time", self.address))
        };
        let got = got.map_err(late)?;
        if let Err(PoolError::Backend(e)) = &got
            && !e.is_connection_refusal()
            && !e.is_timeout()
            && let Some(said) = self.refusal().await
        {
            return Err(Error::Unavailable(said));
        }
        got.map_err(|e| match e {
            PoolError::Backend(e) if e.to_string().to_lowercase().contains("authentication failed") => {
                Error::Config(format!("the password in redis_url was refused by Redis at {}", self.address))
            }
            PoolError::Backend(e) => match classify(&e) {
                // An operator must fix these.
                Error::Config(reason) => Error::Config(reason),
                // Nothing was sent yet, so nothing was executed, and no key is at fault.
                _ => Error::Unavailable(e.to_string()),
            },
            PoolError::PostCreateHook(HookError::Message(reason)) => {
                Error::Unavailable(format!("{}: {reason}", self.address))
            }
            other => Error::Unavailable(format!("no connection: {other}")),
        })
    }

    /// What the server says to a new connection when it accepts no more: it closes it, and what the client has sent may
    /// get its error first.
    async fn refusal(&self) -> Option<String> {
        let asking = async {
            let (mut stream, mut said) = (TcpStream::connect(&self.address).await.ok()?, [0; 200]);
            let length = stream.read(&mut said).await.ok()?;
            Some(String::from_utf8_lossy(&said[..length]).trim().to_owned())
        };
        let said = tokio::time::timeout(REFUSAL_WITHIN, asking).await.ok()??;
        said.contains("max number of clients").then(|| {
            let advice = "raise its `maxclients`, or lower redis.connections of the clients";
            format!("Redis at {} accepts no more connections ({said}); {advice}", self.address)
        })
    }

    /// Whether it does not answer, as [`Node::set_away`] has it.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Notes whether it answers.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Release);
    }

    /// Whether it is time to try it again, `pause` after the last time; counts as tried if so.
    pub fn begin_try(&self, pause: Duration) -> bool {
        let mut tried_at = self.tried_at.lock().expect("lock not poisoned");
        let is_time = tried_at.is_none_or(|at| at.elapsed() >= pause);
        if is_time {
            *tried_at = Some(Instant::now());
        }
        is_time
    }

    /// Whether it answers on a new connection.
    pub async fn answers(&self) -> bool {
        let asking = async {
            let mut connection = self.dedicated().await.ok()?;
            redis::cmd("PING").query_async::<Value>(&mut connection).await.ok()
        };
        matches!(tokio::time::timeout(self.response, asking).await, Ok(Some(_)))
    }

    /// Closes the idle connections: they may be half-open like the one that failed.
    pub fn drop_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    /// A connection outside the pool without a response timeout.
    pub async fn dedicated(&self) -> Result<MultiplexedConnection> {
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.connect)).set_response_timeout(None);
        self.open_dedicated(&self.client, settings).await
    }

    async fn open_dedicated(
        &self,
        client: &redis::Client,
        settings: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection> {
        let connection = client.get_multiplexed_async_connection_with_config(&settings).await;
        let mut connection = connection.map_err(|e| Error::Unavailable(format!("{}: {e}", self.address)))?;
        if self.must_be_master {
            let confirmed = tokio::time::timeout(self.response, confirm_master(&mut connection)).await;
            confirmed
                .unwrap_or_else(|_| Err("no answer to ROLE".to_owned()))
                .map_err(|reason| Error::Unavailable(format!("{}: {reason}", self.address)))?;
        }
        Ok(connection)
    }

    /// A connection for subscriptions to the channels of slots, and what it receives.
    pub async fn slot_subscriber(&self) -> Result<(MultiplexedConnection, UnboundedReceiver<PushInfo>)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let info = self.client.get_connection_info();
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.clone().set_redis_settings(redis));
        let client = client.map_err(|e| Error::Config(format!("redis_url: {e}")))?;
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect))
            .set_response_timeout(Some(self.response))
            .set_push_sender(sender);
        Ok((self.open_dedicated(&client, settings).await?, receiver))
    }

    /// A connection for subscriptions.
    pub async fn subscriber(&self) -> Result<PubSub> {
        let connecting = tokio::time::timeout(self.connect, self.client.get_async_pubsub());
        let connection = connecting.await.map_err(|_| Error::Unavailable("connecting took too long".into()))?;
        connection.map_err(|e| Error::Unavailable(e.to_string()))
    }
}

/// Asks a server whether it is a master: a sentinel may name one that has just become a replica.
async fn confirm_master(connection: &mut MultiplexedConnection) -> Result<(), String> {
    match redis::cmd("ROLE").query_async::<Value>(connection).await {
        Ok(role) => match array(&role).first().map(text).as_deref() {
            Some("master") => Ok(()),
            role => Err(format!("it is a {} now, not the master", role.unwrap_or("replica"))),
        },
        // Without the right to ask, a write shows it.
        Err(e) if e.code() == Some("NOPERM") => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}
