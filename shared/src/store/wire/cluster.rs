//! Redis Cluster: which node has a slot.
//!
//! The map of slots is read from any node that answers, at the first call, whenever a node redirects a call or does
//! not answer, and again until that ends. A node that does not answer is tried in the background, and calls to it
//! fail at once meanwhile: its partitions wait, the others never do.
//!
//! A slot that is being moved has its keys on two nodes, and a script needs all keys of a partition. So no call
//! follows `ASK`: the old node runs no script from the begin of the move on (the key that a script names never
//! exists), the new one none before its end, and the partition waits for it as in an outage.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisError, RedisResult, Value};
use tokio::sync::watch;

use super::address;
use super::metrics::Metrics;
use super::node::Node;
use super::reply::{array, number, text};
use crate::redis_url::{Hosts, joined};
use crate::{Config, Error, Result};

/// The slots of a cluster.
const SLOTS: usize = 16_384;
/// The least time between two readings of the map.
const READ_PAUSE: Duration = Duration::from_millis(100);
/// The least time between two tries of a node that does not answer.
const TRY_PAUSE: Duration = Duration::from_millis(200);
/// How long a node may take to show the map; less if `redis.connect_ms` is.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A cluster. Clones share state.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Shared>);

struct Shared {
    /// The nodes of `redis_url`.
    hosts: Hosts,
    /// How a node is reached, whatever its address.
    like: ConnectionInfo,
    config: Config,
    metrics: Metrics,
    map: Mutex<Map>,
    /// One task reads the map, for all calls.
    reading: tokio::sync::Mutex<()>,
    /// Incremented when a slot has another node than before.
    changes: watch::Sender<u64>,
}

/// The nodes and their slots, as last read.
struct Map {
    nodes: HashMap<(String, u16), Arc<Node>>,
    /// The node of each slot.
    slots: Vec<Option<Arc<Node>>>,
    /// The highest epoch of an answer; an answer with a lower one comes from a node that has missed something.
    epoch: u64,
    /// When it was last tried to read it.
    tried_at: Option<Instant>,
    /// It may be out of date.
    stale: bool,
}

/// A range of slots, its last included, and where its master is.
struct Range {
    first: usize,
    last: usize,
    place: (String, u16),
}

impl Cluster {
    /// Prepares the connections; none is made yet.
    ///
    /// # Errors
    /// [`Error::Config`] when an address cannot be used.
    pub fn open(config: &Config, hosts: Hosts, metrics: Metrics) -> Result<Self> {
        let (host, port) = &hosts.hosts[0];
        let like = address::info(config, &hosts.server(host, *port))?;
        let map = Map { nodes: HashMap::new(), slots: vec![None; SLOTS], epoch: 0, tried_at: None, stale: true };
        let (map, changes) = (Mutex::new(map), watch::Sender::new(0));
        let reading = tokio::sync::Mutex::default();
        Ok(Self(Arc::new(Shared { hosts, like, config: config.clone(), metrics, map, reading, changes })))
    }

    /// The node of a slot.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no node answers, or none has the slot; [`Error::Config`] when those that answer are
    /// not nodes of a cluster, or refuse the password.
    pub async fn node(&self, slot: u16) -> Result<Arc<Node>> {
        let (found, is_stale) = self.look(slot);
        if let Some(node) = found {
            if is_stale {
                self.read_in_background();
            }
            if node.is_away() {
                self.try_in_background(&node);
                return Err(Error::Unavailable(format!("the node {} of the cluster does not answer", node.address())));
            }
            return Ok(node);
        }
        self.0.read(false).await?;
        let none = || format!("no node of the cluster has slot {slot}; run: redis-cli --cluster check");
        self.look(slot).0.ok_or_else(|| Error::Unavailable(none()))
    }

    /// Each node that has slots, once the whole map is known.
    ///
    /// # Errors
    /// [`Error::Config`] when slots have no node; [`Cluster::node`]'s.
    pub async fn masters(&self) -> Result<Vec<Arc<Node>>> {
        if self.0.map().slots.iter().any(Option::is_none) {
            self.0.read(true).await?;
        }
        let map = self.0.map();
        let uncovered = map.slots.iter().filter(|node| node.is_none()).count();
        if uncovered > 0 {
            return Err(Error::Config(format!(
                "{uncovered} of the cluster's {SLOTS} slots have no node, so not every partition can be served; run: \
                 redis-cli --cluster fix {}",
                self.0.hosts.list().split(',').next().unwrap_or_default()
            )));
        }
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for node in map.slots.iter().flatten() {
            if !masters.iter().any(|known| Arc::ptr_eq(known, node)) {
                masters.push(Arc::clone(node));
            }
        }
        Ok(masters)
    }

    /// Follows a redirection (`MOVED`); for any other error the map is read again.
    pub fn redirected(&self, error: &RedisError) {
        let moved = error.redirect_node().filter(|_| error.code() == Some("MOVED"));
        let place = moved.and_then(|(place, slot)| {
            let (host, port) = place.rsplit_once(':')?;
            let host = host.trim_matches(['[', ']']);
            Some(((host.to_owned(), port.parse::<u16>().ok()?), usize::from(slot))).filter(|_| !host.is_empty())
        });
        if let Some((place, slot)) = place
            && let Ok(node) = self.0.known(&place)
            && slot < SLOTS
        {
            self.0.map().slots[slot] = Some(node);
            self.0.changes.send_modify(|changes| *changes += 1);
        }
        self.0.map().stale = true;
        self.read_in_background();
    }

    /// A node does not answer: calls to it fail at once, until it does.
    pub fn lost(&self, node: &Arc<Node>) {
        node.set_away(true);
        node.drop_idle();
        self.0.map().stale = true;
        self.read_in_background();
        self.try_in_background(node);
    }

    /// Whether the node of a slot is known not to answer.
    pub fn is_away(&self, slot: u16) -> bool {
        let Some(node) = self.look(slot).0.filter(|node| node.is_away()) else { return false };
        // Nobody else may ask for it meanwhile.
        self.read_in_background();
        self.try_in_background(&node);
        true
    }

    /// Follows changes of the map.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn look(&self, slot: u16) -> (Option<Arc<Node>>, bool) {
        let map = self.0.map();
        (map.slots.get(usize::from(slot)).cloned().flatten(), map.stale)
    }

    fn read_in_background(&self) {
        let shared = Arc::clone(&self.0);
        if shared.reading.try_lock().is_ok() && shared.map().tried_at.is_none_or(|at| at.elapsed() >= READ_PAUSE) {
            tokio::spawn(async move { drop(shared.read(true).await) });
        }
    }

    fn try_in_background(&self, node: &Arc<Node>) {
        if node.begin_try(TRY_PAUSE) {
            let (node, cluster) = (Arc::clone(node), self.clone());
            tokio::spawn(async move {
                if node.answers().await {
                    node.set_away(false);
                }
                // It may have been replaced.
                cluster.0.map().stale = true;
            });
        }
    }
}

impl Shared {
    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().expect("lock not poisoned")
    }

    /// The node at this place.
    fn known(&self, place: &(String, u16)) -> Result<Arc<Node>> {
        if let Some(node) = self.map().nodes.get(place) {
            return Ok(Arc::clone(node));
        }
        let info = address::another(&self.like, &place.0, place.1);
        let node = Arc::new(Node::open(info, &self.config.redis, false, &self.metrics)?);
        Ok(Arc::clone(self.map().nodes.entry(place.clone()).or_insert(node)))
    }

    /// Reads the map from the first node that answers; `again`: even if another task has just done so.
    async fn read(&self, again: bool) -> Result<()> {
        let _reading = self.reading.lock().await;
        if !again && self.map().slots.iter().all(Option::is_some) {
            return Ok(());
        }
        let (mut places, lost) = {
            let mut map = self.map();
            map.tried_at = Some(Instant::now());
            let places = |away: bool| {
                let nodes = map.nodes.iter().filter(move |(_, node)| node.is_away() == away);
                nodes.map(|(place, _)| place.clone()).collect::<Vec<_>>()
            };
            (places(false), places(true))
        };
        let turn = rand::random_range(0..places.len().max(1));
        places.rotate_left(turn);
        places.extend(self.hosts.hosts.iter().filter(|place| !lost.contains(place)).cloned());
        places.extend(lost);
        let (mut failures, mut refused) = (Vec::new(), Vec::new());
        for (at, place) in places.iter().enumerate() {
            if places[..at].contains(place) {
                continue;
            }
            match self.ask(place).await {
                Ok((epoch, ranges)) if epoch >= self.map().epoch && !ranges.is_empty() => {
                    return self.adopt(epoch, &ranges);
                }
                Ok(_) => failures.push(format!("{} has no slots to show", joined(&place.0, place.1))),
                Err(e) => {
                    refused.extend(refused_by(&e));
                    failures.push(e.to_string());
                }
            }
        }
        failures.dedup();
        let (names, reasons) = (self.hosts.list(), failures.join("; "));
        match refused.pop().filter(|_| refused.len() + 1 == failures.len()) {
            Some(advice) => Err(Error::Config(format!("redis_url: {names}: {advice}"))),
            None => Err(Error::Unavailable(format!("no node of the cluster at {names} answers: {reasons}"))),
        }
    }

    fn adopt(&self, epoch: u64, ranges: &[Range]) -> Result<()> {
        let mut slots: Vec<Option<Arc<Node>>> = vec![None; SLOTS];
        for range in ranges {
            let node = self.known(&range.place)?;
            slots[range.first..=range.last].fill(Some(node));
        }
        let mut map = self.map();
        let same = |(old, new): (&Option<Arc<Node>>, &Option<Arc<Node>>)| match (old, new) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        let is_same = map.slots.iter().zip(&slots).all(same);
        map.nodes.retain(|_, node| slots.iter().flatten().any(|master| Arc::ptr_eq(master, node)));
        let is_away = map.nodes.values().any(|node| node.is_away());
        (map.slots, map.epoch, map.stale) = (slots, epoch, is_away);
        drop(map);
        if !is_same {
            tracing::debug!(epoch, "the cluster's slots have moved");
            self.changes.send_modify(|changes| *changes += 1);
        }
        Ok(())
    }

    /// The cluster's epoch and its slots, as one node sees them.
    async fn ask(&self, place: &(String, u16)) -> RedisResult<(u64, Vec<Range>)> {
        let within = ANSWER_WITHIN.min(Duration::from_millis(self.config.redis.connect_ms));
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(Some(within)).set_response_timeout(Some(within));
        let client = redis::Client::open(address::another(&self.like, &place.0, place.1))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
        let replies = connection.req_packed_commands(&pipeline, 0, 2).await?;
        let [info, slots] = replies.as_slice() else { return Ok((0, Vec::new())) };
        if let Some(Value::ServerError(e)) = replies.iter().find(|reply| matches!(reply, Value::ServerError(_))) {
            return Err(e.clone().into());
        }
        let info = text(info);
        let epoch = info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:"));
        let epoch = epoch.and_then(|epoch| epoch.trim().parse().ok()).unwrap_or(0);
        Ok((epoch, array(slots).iter().filter_map(|entry| range(array(entry), &place.0)).collect()))
    }
}

/// An entry of CLUSTER SLOTS: first, last, master, replicas. A node that does not know its own host has none in it.
fn range(entry: &[Value], asked: &str) -> Option<Range> {
    let [first, last, master, ..] = entry else { return None };
    let (first, last) = (usize::try_from(number(first)?).ok()?, usize::try_from(number(last)?).ok()?);
    let [host, port, ..] = array(master) else { return None };
    let host = Some(text(host)).filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.to_owned());
    let port = u16::try_from(number(port)?).ok()?;
    (first <= last && last < SLOTS).then_some(Range { first, last, place: (host, port) })
}

/// What to write when a server answers but refuses the question.
fn refused_by(error: &RedisError) -> Option<String> {
    let reason = error.to_string();
    let lower = reason.to_lowercase();
    if lower.contains("cluster support disabled") || lower.contains("unknown command") {
        return Some(
            "a server there is not a node of a cluster; for a single server write redis://host:port".to_owned(),
        );
    }
    let is_refused = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    let is_refused = is_refused || lower.contains("authentication failed");
    is_refused.then(|| format!("{reason}; give user and password in redis_url"))
}
