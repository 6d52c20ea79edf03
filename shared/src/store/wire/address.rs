//! The addresses of servers, with the settings that all connections have.
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError};

use crate::redis_url::{Hosts, RedisUrl};
use crate::{Config, Error, Result};

/// Time without traffic after which a peer is probed, and for which data may stay unacknowledged.
const SILENCE: Duration = Duration::from_secs(5);

/// Where Redis is: [`Store::address`](crate::Store::address) without a `Store`. Without user and password.
///
/// # Errors
/// [`Error::Config`] when it cannot be read.
pub fn address(config: &Config) -> Result<String> {
    let scheme = |hosts: &Hosts| if hosts.tls { "rediss" } else { "redis" };
    Ok(match RedisUrl::parse(&config.redis_url).map_err(Error::Config)? {
        RedisUrl::Server => info(config, &config.redis_url)?.addr().to_string(),
        RedisUrl::Sentinel(hosts, master) => format!("{}+sentinel://{}/{master}", scheme(&hosts), hosts.list()),
        RedisUrl::Cluster(hosts) => format!("{}+cluster://{}", scheme(&hosts), hosts.list()),
    })
}

/// The address of one server with the settings of all connections.
///
/// # Errors
/// [`Error::Config`] says what to write.
pub(crate) fn info(config: &Config, url: &str) -> Result<ConnectionInfo> {
    let advice = "write redis://[user:password@]host:port[/db], or rediss:// for TLS";
    let fault = |e: RedisError| Error::Config(format!("redis_url: {e}; {advice}"));
    let mut info = url.into_connection_info().map_err(fault)?;
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

/// Another server, reached like `like`: with its credentials, database and certificates.
pub(crate) fn another(like: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let address = match like.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    };
    like.clone().set_addr(address)
}

/// A sentinel: it has no databases, and a password other than the master's or none.
pub(crate) fn sentinel(config: &Config, like: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let password = config.redis.sentinel_password.as_deref();
    let settings = RedisConnectionInfo::default();
    let settings = if let Some(password) = password { settings.set_password(password) } else { settings };
    let mut info = another(like, host, port).set_redis_settings(settings);
    if config.redis.sentinel_tls == Some(false) {
        info = info.set_addr(ConnectionAddr::Tcp(host.to_owned(), port));
    }
    info
}
