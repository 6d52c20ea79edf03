//! The pool of connections to one server.
use std::time::Duration;

use deadpool::managed::{self, RecycleResult};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, Value};

/// A pooled connection that was used within this time is taken without a round trip to ask whether it still works: one
/// that fails is dropped, and its call is repeated if that is safe.
const ASK_AFTER: Duration = Duration::from_millis(2);

/// Connections to one server.
pub(crate) type Pool = managed::Pool<Opener>;
/// A connection from a pool; it goes back there when it is dropped.
pub(crate) type Connection = managed::Object<Opener>;

/// Opens a pool's connections, and decides which of them can be used again.
pub(crate) struct Opener {
    client: redis::Client,
    settings: AsyncConnectionConfig,
}

impl Opener {
    pub(crate) fn new(client: redis::Client, settings: AsyncConnectionConfig) -> Self {
        Self { client, settings }
    }
}

impl managed::Manager for Opener {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, RedisError> {
        self.client.get_multiplexed_async_connection_with_config(&self.settings).await
    }

    async fn recycle(
        &self,
        connection: &mut MultiplexedConnection,
        used: &managed::Metrics,
    ) -> RecycleResult<RedisError> {
        if used.last_used() >= ASK_AFTER {
            redis::cmd("PING").query_async::<Value>(connection).await?;
        }
        Ok(())
    }
}
