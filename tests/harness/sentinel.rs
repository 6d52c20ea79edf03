//! A master, its replica and three sentinels, all on loopback.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Process;
use crate::redis::{RedisServer, server_program};
use crate::wait::eventually;

/// The name of the master.
pub const MASTER: &str = "mymaster";
/// How long the servers may take to agree.
const LIMIT: Duration = Duration::from_secs(30);

/// Two servers, one of which is the master, and three sentinels that agree on it.
#[derive(Debug)]
pub struct SentinelGroup {
    servers: Vec<RedisServer>,
    sentinels: Vec<(Process, Port)>,
    _folder: TempDir,
}

impl SentinelGroup {
    /// Starts them and waits until the replica is in sync and each sentinel knows the others.
    ///
    /// # Panics
    /// When that takes longer than half a minute.
    pub async fn start() -> SentinelGroup {
        let mut servers = Vec::new();
        for _ in 0..2 {
            servers.push(RedisServer::start_rewritable(Port::reserve(), &[]).await);
        }
        let master = servers[0].port().to_string();
        let () = servers[1].command(&["REPLICAOF", "127.0.0.1", &master]).await;
        let folder =
            tempfile::Builder::new().prefix("leasehold-test-").tempdir().expect("a temporary folder can be made");
        let sentinel = |number: usize| {
            let (port, file) = (Port::reserve(), folder.path().join(format!("sentinel-{number}.conf")));
            let text = format!(
                "bind 127.0.0.1\nport {}\nsentinel announce-ip 127.0.0.1\n\
                 sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 5000\n",
                port.number()
            );
            fs::write(&file, text).expect("a file can be made in a temporary folder");
            (Process::start(&server_program(), &[&file.display().to_string(), "--sentinel"], &[]), port)
        };
        let sentinels = (0..3).map(sentinel).collect();
        let group = SentinelGroup { servers, sentinels, _folder: folder };
        group.settle().await;
        group
    }

    /// The `redis_url` of the group.
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/{MASTER}", self.hosts())
    }

    /// The addresses of the sentinels, separated by commas.
    pub fn hosts(&self) -> String {
        self.sentinels.iter().map(|(_, port)| port.address().to_string()).collect::<Vec<_>>().join(",")
    }

    /// The servers; either may be the master.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The process of a sentinel.
    pub fn sentinel(&self, number: usize) -> &Process {
        &self.sentinels[number].0
    }

    /// Which of the servers the sentinels name now, by most of their answers.
    pub async fn master(&self) -> usize {
        let mut votes = [0, 0];
        for number in 0..3 {
            let place: Option<(String, u16)> =
                self.ask(number, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await.unwrap_or(None);
            let named = place.and_then(|(_, port)| self.servers.iter().position(|server| server.port() == port));
            votes[named.unwrap_or(0)] += usize::from(named.is_some());
        }
        usize::from(votes[1] > votes[0])
    }

    /// A command to a sentinel.
    ///
    /// # Errors
    /// What it answers, or that it is away.
    pub async fn ask<T: redis::FromRedisValue>(&self, number: usize, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://{}", self.sentinels[number].1.address()))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let (name, arguments) = words.split_first().expect("a command has a name");
        redis::cmd(name).arg(arguments).query_async(&mut connection).await
    }

    /// Waits until the replica is in sync with the master, and every sentinel knows it and the other two sentinels.
    pub async fn settle(&self) {
        eventually(LIMIT, "the replica is in sync and the sentinels know each other", async || {
            let master = self.master().await;
            let role: String = self.servers[master].try_command(&["INFO", "replication"]).await.ok()?;
            let link: String = self.servers[1 - master].try_command(&["INFO", "replication"]).await.ok()?;
            let is_in_sync = role.contains("state=online") && link.contains("master_link_status:up");
            for number in 0..3 {
                let known: Vec<String> = self.ask(number, &["SENTINEL", "MASTER", MASTER]).await.ok()?;
                let field = |name: &str| known.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
                let is_known = field("num-other-sentinels")? == "2" && field("num-slaves")? == "1";
                let is_calm = field("flags")? == "master";
                if !is_known || !is_calm {
                    return None;
                }
            }
            is_in_sync.then_some(())
        })
        .await;
    }

    /// Writes to the master and waits until the replica has that, and with it everything written before.
    pub async fn sync(&self) -> bool {
        let mut connection = self.servers[self.master().await].connection().await;
        let written = redis::cmd("SET").arg("in-sync").arg(1).query_async::<()>(&mut connection).await;
        let replicas = redis::cmd("WAIT").arg(1).arg(2_000).query_async::<i64>(&mut connection).await;
        written.is_ok() && replicas.is_ok_and(|replicas| replicas == 1)
    }

    /// Waits until `server` is a master by its own account.
    pub async fn promoted(&self, server: usize) {
        eventually(LIMIT, "the replica is promoted", async || {
            let role: String = self.servers[server].try_command(&["INFO", "replication"]).await.unwrap_or_default();
            role.contains("role:master")
        })
        .await;
    }
}
