//! What the private Redis reports about itself: CPU time, commands, memory.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError};

use crate::failure::Failure;

/// How long a reply may take: a disk may be slow to sync.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that reads the counters of a Redis.
#[derive(Clone)]
pub(super) struct Meter {
    connection: MultiplexedConnection,
    client: Client,
}

/// The counters at one time.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// When it was taken.
    pub at: Instant,
    /// CPU time of the server, user and system, µs.
    pub cpu_us: f64,
    /// Commands run, those inside scripts included.
    pub commands: f64,
    /// Memory in use without the buffers of clients and of the append-only file, bytes.
    pub memory: f64,
    /// The version of the server.
    pub version: String,
}

/// Turns an error of the measuring connection into a failure.
pub(super) fn fault(error: RedisError) -> Failure {
    Failure::Failed(format!("the private Redis: {error}"))
}

/// A client of the server at `url`, with TCP_NODELAY as the Store has it.
pub(super) fn client(url: &str) -> Result<Client, Failure> {
    let info = url.into_connection_info().map_err(fault)?;
    Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true))).map_err(fault)
}

/// A connection that many can use at once.
pub(super) async fn connect(client: &Client) -> Result<MultiplexedConnection, Failure> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(fault)
}

impl Meter {
    /// Connects to the server at `url`.
    pub(super) async fn open(url: &str) -> Result<Self, Failure> {
        let client = client(url)?;
        Ok(Self { connection: connect(&client).await?, client })
    }

    /// The connection, for commands of the measurement.
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// The client, for further connections.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Reads the counters.
    pub(super) async fn read(&self) -> Result<Snapshot, Failure> {
        let mut connection = self.connection.clone();
        let text: String = redis::cmd("INFO").arg("everything").query_async(&mut connection).await.map_err(fault)?;
        let lines: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
        let value = |name: &str| lines.get(name).and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        let calls = |line: &str| {
            let calls = line.split(',').find_map(|field| field.strip_prefix("calls="));
            calls.and_then(|calls| calls.parse::<f64>().ok()).unwrap_or(0.0)
        };
        let commands = lines.iter().filter(|(name, _)| name.starts_with("cmdstat_"));
        Ok(Snapshot {
            at: Instant::now(),
            cpu_us: (value("used_cpu_user") + value("used_cpu_sys")) * 1e6,
            commands: commands.map(|(_, line)| calls(line)).sum(),
            memory: value("used_memory") - value("mem_aof_buffer") - value("mem_clients_normal"),
            version: lines.get("redis_version").unwrap_or(&"unknown").trim().to_owned(),
        })
    }
}
