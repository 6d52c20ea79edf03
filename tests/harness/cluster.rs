//! A Redis Cluster on loopback: three masters, each with a replica.

use std::time::Duration;

use crate::port::Port;
use crate::redis::RedisServer;
use crate::wait::eventually;

/// How long the nodes may take to agree.
const LIMIT: Duration = Duration::from_secs(40);
/// The slots of a cluster.
const SLOTS: u32 = 16_384;

/// Six nodes; the first three were made masters.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    /// The ports of the nodes' bus.
    _buses: Vec<Port>,
}

impl RedisCluster {
    /// Starts the nodes with `settings`, joins them, and waits until every slot has a master with a replica.
    ///
    /// # Panics
    /// When that takes longer than 40 s.
    pub async fn start(settings: &[(&str, &str)]) -> RedisCluster {
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            let (port, bus) = (Port::reserve(), Port::reserve());
            let number = bus.number().to_string();
            let mut all = vec![
                ("cluster-enabled", "yes"),
                ("cluster-port", number.as_str()),
                ("cluster-node-timeout", "2000"),
                ("cluster-require-full-coverage", "no"),
                ("repl-diskless-sync-delay", "0"),
            ];
            all.extend_from_slice(settings);
            nodes.push(RedisServer::start_rewritable(port, &all).await);
            buses.push(bus);
        }
        let (port, bus) = (nodes[0].port().to_string(), buses[0].number().to_string());
        for (at, node) in (0_u32..).zip(&nodes) {
            if at > 0 {
                let () = node.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
            }
            if at < 3 {
                let (first, last) = (SLOTS * at / 3, SLOTS * (at + 1) / 3 - 1);
                let () = node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
            }
        }
        let cluster = RedisCluster { nodes, _buses: buses };
        for replica in 3..6 {
            let id = cluster.id(replica - 3).await;
            eventually(LIMIT, "a node is a replica", async || {
                cluster.nodes[replica].try_command::<()>(&["CLUSTER", "REPLICATE", &id]).await
            })
            .await;
        }
        cluster.settle().await;
        cluster
    }

    /// The `redis_url` of the cluster, with the first three nodes.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes[..3].iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The nodes.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The id of a node.
    pub async fn id(&self, node: usize) -> String {
        self.nodes[node].command(&["CLUSTER", "MYID"]).await
    }

    /// Waits until all living nodes agree that every slot is served, and each replica is in sync.
    pub async fn settle(&self) {
        eventually(LIMIT, "the cluster is complete and its replicas are in sync", async || {
            let mut masters = 0;
            for node in &self.nodes {
                let info: String = node.try_command(&["CLUSTER", "INFO"]).await.map_err(|e| e.to_string())?;
                let complete = ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:6"];
                if let Some(lacking) = complete.iter().find(|line| !info.contains(**line)) {
                    return Err(format!("{}: not {lacking}", node.port()));
                }
                let role: String = node.try_command(&["INFO", "replication"]).await.map_err(|e| e.to_string())?;
                let is_master = role.contains("role:master");
                masters += usize::from(is_master);
                let in_sync = if is_master { "state=online" } else { "master_link_status:up" };
                if !role.contains(in_sync) {
                    return Err(format!("{}: not {in_sync}", node.port()));
                }
            }
            if masters == 3 { Ok(()) } else { Err(format!("{masters} masters")) }
        })
        .await;
    }

    /// Which of the nodes has a slot, as `asked` sees it.
    pub async fn node_of(&self, asked: usize, slot: u16) -> usize {
        let ranges: Vec<redis::Value> = self.nodes[asked].command(&["CLUSTER", "SLOTS"]).await;
        for range in ranges {
            let redis::Value::Array(range) = range else { continue };
            let number = |value: &redis::Value| redis::from_redis_value_ref::<u16>(value).unwrap_or(u16::MAX);
            if let redis::Value::Array(master) = &range[2]
                && (number(&range[0])..=number(&range[1])).contains(&slot)
            {
                let port = number(&master[1]);
                return self.nodes.iter().position(|node| node.port() == port).expect("it is one of the nodes");
            }
        }
        panic!("slot {slot} has no node");
    }

    /// Moves a slot with its keys to another master, a key at a time with `pause` in between. Returns how many keys.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize, pause: Duration) -> usize {
        let (number, from_id, to_id) = (slot.to_string(), self.id(from).await, self.id(to).await);
        let () = self.nodes[to].command(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &from_id]).await;
        let () = self.nodes[from].command(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &to_id]).await;
        let (mut moved, port) = (0, self.nodes[to].port().to_string());
        loop {
            let keys: Vec<String> = self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &number, "10"]).await;
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let () = self.nodes[from].command(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await;
                moved += 1;
                tokio::time::sleep(pause).await;
            }
        }
        for node in [to, from] {
            let () = self.nodes[node].command(&["CLUSTER", "SETSLOT", &number, "NODE", &to_id]).await;
        }
        moved
    }
}
