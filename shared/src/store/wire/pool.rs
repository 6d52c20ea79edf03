//! The pool of connections to one server.
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::managed::{self, RecycleError, RecycleResult};
use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2};
use redis::{AsyncConnectionConfig, ConnectionAddr, RedisError, Value};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// A pooled connection that was used within this time, and has not been closed, is taken without a round trip to ask
/// whether it still works. Only a server that disappears without a word goes unnoticed for so long: that a connection
/// has been closed is known as soon as the kernel knows it.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// The same for a connection with TLS, of which it is not known whether it has been closed.
const ASK_AFTER_TLS: Duration = Duration::from_millis(2);

/// Connections to one server.
pub(crate) type Pool = managed::Pool<Opener>;
/// A connection from a pool; it goes back there when it is dropped.
pub(crate) type Connection = managed::Object<Opener>;

/// A pooled connection.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    /// `None` if redis keeps them to itself.
    parts: Option<Parts>,
}

/// What tells whether a connection has been closed.
struct Parts {
    /// Moves its bytes, and ends with it.
    driver: AbortOnDropHandle<()>,
    /// Its socket, to look at.
    socket: socket2::Socket,
}

impl Parts {
    fn is_closed(&self) -> bool {
        let ended = || match self.socket.peek(&mut [MaybeUninit::uninit()]) {
            Ok(bytes) => bytes == 0,
            Err(e) => e.kind() != ErrorKind::WouldBlock,
        };
        self.driver.is_finished() || ended()
    }
}

impl Deref for Link {
    type Target = MultiplexedConnection;

    fn deref(&self) -> &MultiplexedConnection {
        &self.connection
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut MultiplexedConnection {
        &mut self.connection
    }
}

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
    type Type = Link;
    type Error = RedisError;

    async fn create(&self) -> Result<Link, RedisError> {
        let info = self.client.get_connection_info();
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            let connection = self.client.get_multiplexed_async_connection_with_config(&self.settings).await?;
            return Ok(Link { connection, parts: None });
        };
        // All addresses of the host at once, as redis does it: one of them may not answer.
        let addresses = tokio::net::lookup_host((host.as_str(), *port)).await?;
        let tries: Vec<_> = addresses.map(|address| Box::pin(TcpStream::connect(address))).collect();
        if tries.is_empty() {
            return Err(std::io::Error::new(ErrorKind::NotFound, format!("{host} has no address")).into());
        }
        let stream = with_settings(select_ok(tries).await?.0, info.tcp_settings())?;
        let socket = socket2::SockRef::from(&stream).try_clone()?;
        let opened = MultiplexedConnection::new_with_config(info.redis_settings(), stream, self.settings.clone());
        let (connection, driver) = opened.await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        Ok(Link { connection, parts: Some(Parts { driver, socket }) })
    }

    async fn recycle(&self, link: &mut Link, used: &managed::Metrics) -> RecycleResult<RedisError> {
        let ask_after = if link.parts.is_some() { ASK_AFTER } else { ASK_AFTER_TLS };
        if link.parts.as_ref().is_some_and(Parts::is_closed) {
            return Err(RecycleError::message("it has been closed"));
        }
        if used.last_used() >= ask_after {
            redis::cmd("PING").query_async::<Value>(&mut **link).await?;
        }
        Ok(())
    }
}

/// Applies the settings that redis applies to the connections that it opens itself.
fn with_settings(stream: TcpStream, settings: &TcpSettings) -> std::io::Result<TcpStream> {
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_nodelay(settings.nodelay())?;
    if let Some(keepalive) = settings.keepalive() {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(settings.user_timeout())?;
    Ok(stream)
}
