//! A private Redis server for one test, started with the settings we ship.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisError, RedisResult, Value};
use tempfile::TempDir;

use crate::port::Port;
use crate::process::Process;
use crate::wait::eventually;

/// The variable that names another server than the `redis-server` in `PATH`.
pub const SERVER_VARIABLE: &str = "LEASEHOLD_REDIS_SERVER";

/// How long a server may take to start and load its files.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a single look at a starting server may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// How long a command of a test may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long a server may take to shut down when asked.
const EXIT_LIMIT: Duration = Duration::from_secs(30);

/// A private Redis server: its own free port, its own folder, the project's `redis.conf`.
///
/// Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    port: Port,
    /// The folder of a copy of the settings, which the server may rewrite.
    _settings: Option<TempDir>,
}

impl RedisServer {
    /// Starts a server with the settings we ship and waits until it answers.
    pub async fn start() -> RedisServer {
        RedisServer::start_with(&[], &[]).await
    }

    /// Starts a server with other settings (`("appendfsync", "everysec")`) or another environment
    /// (`("LD_PRELOAD", …)`), and waits until it answers.
    ///
    /// # Panics
    /// When there is no server to start, or it does not answer within a minute.
    pub async fn start_with(settings: &[(&str, &str)], environment: &[(&str, &str)]) -> RedisServer {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../redis.conf");
        let port = Port::reserve();
        RedisServer::start_on(port, &config, None, settings, environment).await
    }

    /// Starts a server with a copy of the settings that it may rewrite, as a sentinel makes it do.
    pub async fn start_rewritable(port: Port, settings: &[(&str, &str)]) -> RedisServer {
        let folder =
            tempfile::Builder::new().prefix("leasehold-test-").tempdir().expect("a temporary folder can be made");
        let (own, ours) =
            (folder.path().join("redis.conf"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../redis.conf"));
        std::fs::copy(ours, &own).expect("the settings can be copied");
        RedisServer::start_on(port, &own, Some(folder), settings, &[]).await
    }

    async fn start_on(
        port: Port,
        config: &Path,
        folder: Option<TempDir>,
        settings: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> RedisServer {
        let number = port.number().to_string();
        let mut arguments = vec![config.display().to_string()];
        for (name, value) in [("port", number.as_str())].iter().chain(settings) {
            arguments.push(format!("--{name}"));
            arguments.push((*value).to_owned());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let process = Process::start(&server_program(), &arguments, environment);
        let server = RedisServer { process, port, _settings: folder };
        server.wait_ready().await;
        server
    }

    /// Its address, for `LEASEHOLD_REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.port.address())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its process, for signals, its log, and its folder, where `appendonlydir` is.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// SIGKILL; returns when it is gone. Its files stay.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// SIGTERM: asks it to shut down, and waits until it has.
    pub async fn terminate(&self) -> ExitStatus {
        self.process.sigterm();
        self.process.wait_exit(EXIT_LIMIT).await
    }

    /// SIGSTOP: it freezes, its connections stay open.
    pub fn sigstop(&self) {
        self.process.sigstop();
    }

    /// SIGCONT: it goes on.
    pub fn sigcont(&self) {
        self.process.sigcont();
    }

    /// Starts it again on the same port and folder (killing it first when it still runs), and waits
    /// until it has loaded its files and answers.
    pub async fn restart(&self) {
        self.process.restart();
        self.wait_ready().await;
    }

    /// Waits until it answers and has loaded its files.
    ///
    /// # Panics
    /// When it ends instead, or does not answer within a minute.
    pub async fn wait_ready(&self) {
        eventually(START_LIMIT, "Redis answers", async || {
            if let Some(status) = self.process.exit_status() {
                panic!("Redis ended instead of starting: {status}");
            }
            let mut connection = self.connect(LOOK_LIMIT).await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await
        })
        .await;
    }

    /// A connection of its own, on which a command may take up to a minute.
    ///
    /// # Panics
    /// When the server is away.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.connect(COMMAND_LIMIT).await.expect("the test has Redis running here")
    }

    /// Runs a command, as redis-cli does, on a new connection.
    ///
    /// # Panics
    /// When the server is away or refuses it: [`RedisServer::try_command`] returns that.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).await.unwrap_or_else(|error| panic!("{}: {error}", words.join(" ")))
    }

    /// Runs a command, as redis-cli does, on a new connection.
    ///
    /// # Errors
    /// What Redis answers, or that it is away.
    pub async fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut connection = self.connect(COMMAND_LIMIT).await?;
        let (name, arguments) = words.split_first().expect("a command has a name");
        let value: Value = redis::cmd(name).arg(arguments).query_async(&mut connection).await?;
        T::from_redis_value(value).map_err(RedisError::from)
    }

    async fn connect(&self, limit: Duration) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(Some(limit));
        Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// The server's program.
pub(crate) fn server_program() -> PathBuf {
    if let Some(path) = env::var_os(SERVER_VARIABLE) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{SERVER_VARIABLE}={} is no file", path.display());
        return path;
    }
    let folders: OsString = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).map(|folder| folder.join("redis-server")).find(|path| path.is_file()).unwrap_or_else(
        || {
            panic!(
                "no redis-server in PATH: run `make test`, which installs it, or name one with \
                 {SERVER_VARIABLE}"
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn with_always_an_answered_write_survives_kill9() {
        let redis = RedisServer::start().await;
        let () = redis.command(&["SET", "word", "kept"]).await;
        redis.kill9();
        assert!(redis.try_command::<String>(&["GET", "word"]).await.is_err());
        redis.restart().await;
        assert_eq!(redis.command::<String>(&["GET", "word"]).await, "kept");
    }

    #[tokio::test]
    async fn a_terminated_server_comes_back_with_its_data() {
        let redis = RedisServer::start_with(&[("appendfsync", "everysec")], &[]).await;
        let () = redis.command(&["SET", "word", "kept"]).await;
        assert!(redis.terminate().await.success());
        redis.restart().await;
        assert_eq!(redis.command::<String>(&["GET", "word"]).await, "kept");
    }

    #[tokio::test]
    async fn the_shipped_settings_are_the_ones_we_promise() {
        let redis = RedisServer::start().await;
        for (name, value) in [
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("no-appendfsync-on-rewrite", "no"),
            ("aof-load-truncated", "yes"),
            ("maxmemory-policy", "noeviction"),
            ("tcp-keepalive", "15"),
            ("timeout", "0"),
            ("maxmemory-clients", "0"),
            ("hash-max-listpack-value", "1024"),
            ("save", ""),
            ("bind", "127.0.0.1"),
        ] {
            let answer: Vec<String> = redis.command(&["CONFIG", "GET", name]).await;
            assert_eq!(answer, [name, value]);
        }
    }

    #[tokio::test]
    async fn a_stopped_server_answers_again_when_continued() {
        let redis = RedisServer::start().await;
        redis.sigstop();
        assert!(redis.process().is_running());
        redis.sigcont();
        assert_eq!(redis.command::<String>(&["PING"]).await, "PONG");
    }
}
