//! Redis Sentinel: which server is the master now.
//!
//! A sentinel is asked at the first call, every few seconds, and whenever a call fails in a way that a failover would
//! explain. Of several answers the one with the highest configuration epoch counts, and none with a lower one than
//! the last is believed, so a sentinel that has missed a failover leads nobody back. Every new connection asks the
//! server itself for its role. Without a sentinel that answers, the last known master is used.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::aio::ConnectionLike;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisError, RedisResult, Value};

use super::address;
use super::metrics::Metrics;
use super::node::Node;
use super::reply::{array, text};
use crate::redis_url::Hosts;
use crate::{Config, Error, Result};

/// How often a sentinel is asked while all is well.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// For how long calls use the known master while another call asks.
const BELIEVE: Duration = Duration::from_secs(2);
/// How long a sentinel may take to answer; less if `redis.connect_ms` is.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The sentinels of a master.
pub(crate) struct Sentinels {
    /// The master's name.
    master: String,
    /// The sentinels, for messages: `host:port,host:port`.
    names: String,
    /// Each sentinel. The one that answered last comes first.
    sentinels: Mutex<Vec<ConnectionInfo>>,
    /// How a master is reached, whatever its address.
    like: ConnectionInfo,
    config: Config,
    metrics: Metrics,
    known: Mutex<Known>,
    /// One call asks, for all.
    asking: tokio::sync::Mutex<()>,
    /// No sentinel answered last time; logged once.
    silent: AtomicBool,
}

/// The master as last named.
#[derive(Clone, Default)]
struct Known {
    /// `None` before the first answer.
    node: Option<Arc<Node>>,
    /// Its host and port.
    place: (String, u16),
    /// The configuration epoch of the answer.
    epoch: u64,
    /// When it was named last.
    named_at: Option<Instant>,
    /// A call failed in a way that a failover would explain.
    doubted: bool,
}

impl Known {
    /// The node, if it was named within `age` and is not doubted.
    fn within(&self, age: Duration) -> Option<Arc<Node>> {
        let is_recent = self.named_at.is_some_and(|at| at.elapsed() < age);
        self.node.clone().filter(|_| is_recent && !self.doubted)
    }
}

/// A sentinel's answer.
struct Named {
    place: (String, u16),
    epoch: u64,
}

impl Sentinels {
    /// Prepares the questions; none is asked yet.
    ///
    /// # Errors
    /// [`Error::Config`] when an address cannot be used.
    pub fn open(config: &Config, hosts: &Hosts, master: String, metrics: Metrics) -> Result<Self> {
        let (host, port) = &hosts.hosts[0];
        let like = address::info(config, &hosts.server(host, *port))?;
        let sentinel = |(host, port): &(String, u16)| address::sentinel(config, &like, host, *port);
        Ok(Self {
            master,
            names: hosts.list(),
            sentinels: Mutex::new(hosts.hosts.iter().map(sentinel).collect()),
            like,
            config: config.clone(),
            metrics,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            silent: AtomicBool::new(false),
        })
    }

    /// The master.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no sentinel has ever answered; [`Error::Config`] when those that answer do not know
    /// the master, or are no sentinels, or refuse the password.
    pub async fn node(&self) -> Result<Arc<Node>> {
        let known = self.known().clone();
        if let Some(node) = known.within(ASK_EVERY) {
            return Ok(node);
        }
        let _asking = match self.asking.try_lock() {
            Ok(guard) => guard,
            Err(_) => match known.within(BELIEVE) {
                Some(node) => return Ok(node),
                None => self.asking.lock().await,
            },
        };
        // Another call may have asked in the meantime.
        let known = self.known().clone();
        if let Some(node) = known.within(ASK_EVERY) {
            return Ok(node);
        }
        let answer = if known.doubted || known.node.is_none() { self.ask_all().await } else { self.ask_one().await };
        match (answer, known.node) {
            (Ok(named), _) => {
                self.silent.store(false, Ordering::Relaxed);
                self.adopt(named)
            }
            // The master may work nevertheless.
            (Err(e), Some(node)) => {
                if !self.silent.swap(true, Ordering::Relaxed) {
                    tracing::warn!("staying with the master {} at {}: {e}", self.master, node.address());
                }
                let mut known = self.known();
                (known.named_at, known.doubted) = (Some(Instant::now()), false);
                Ok(node)
            }
            (Err(e), None) => Err(e),
        }
    }

    /// A call to `node` failed in a way that a failover would explain.
    pub fn doubt(&self, node: &Arc<Node>) {
        let mut known = self.known();
        if known.node.as_ref().is_some_and(|current| Arc::ptr_eq(current, node)) {
            known.doubted = true;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("lock not poisoned")
    }

    fn sentinels(&self) -> MutexGuard<'_, Vec<ConnectionInfo>> {
        self.sentinels.lock().expect("lock not poisoned")
    }

    fn adopt(&self, named: Named) -> Result<Arc<Node>> {
        let mut known = self.known();
        (known.named_at, known.doubted) = (Some(Instant::now()), false);
        if let Some(node) = &known.node
            && (known.place == named.place || named.epoch < known.epoch)
        {
            let node = Arc::clone(node);
            known.epoch = known.epoch.max(named.epoch);
            return Ok(node);
        }
        let (host, port) = &named.place;
        let info = address::another(&self.like, host, *port);
        let node = Arc::new(Node::open(info, &self.config.redis, true, &self.metrics)?);
        if let Some(old) = known.node.replace(Arc::clone(&node)) {
            tracing::warn!("the master {} is {} now; it was {}", self.master, node.address(), old.address());
            old.drop_idle();
        } else {
            tracing::debug!("the master {} is {}", self.master, node.address());
        }
        (known.place, known.epoch) = (named.place, named.epoch);
        Ok(node)
    }

    /// Asks in turn until a sentinel names the master.
    async fn ask_one(&self) -> Result<Named> {
        let sentinels = self.sentinels().clone();
        let mut answers = Vec::new();
        for (at, sentinel) in sentinels.iter().enumerate() {
            let answer = self.ask(sentinel).await;
            if matches!(answer, Ok(Some(_))) {
                self.sentinels().swap(0, at);
                answers = vec![answer];
                break;
            }
            answers.push(answer);
        }
        self.judge(answers)
    }

    /// Asks all at once.
    async fn ask_all(&self) -> Result<Named> {
        let sentinels = self.sentinels().clone();
        self.judge(join_all(sentinels.iter().map(|sentinel| self.ask(sentinel))).await)
    }

    async fn ask(&self, sentinel: &ConnectionInfo) -> RedisResult<Option<Named>> {
        let within = ANSWER_WITHIN.min(Duration::from_millis(self.config.redis.connect_ms));
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(Some(within)).set_response_timeout(Some(within));
        let client = redis::Client::open(sentinel.clone())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        let mut pipeline = redis::pipe();
        // The first names the new master as soon as it is promoted, the second has the epoch.
        pipeline.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        pipeline.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        let replies = connection.req_packed_commands(&pipeline, 0, 2).await?;
        let [place, master] = replies.as_slice() else { return Ok(None) };
        if let Value::ServerError(e) = place {
            return Err(e.clone().into());
        }
        let [host, port] = array(place) else { return Ok(None) };
        let Ok(port) = text(port).parse() else { return Ok(None) };
        let mut fields = array(master).chunks_exact(2);
        let epoch =
            fields.find(|field| text(&field[0]) == "config-epoch").and_then(|field| text(&field[1]).parse().ok());
        Ok(Some(Named { place: (text(host), port), epoch: epoch.unwrap_or(0) }))
    }

    /// The answer with the highest epoch, or what all the answers come to.
    fn judge(&self, answers: Vec<RedisResult<Option<Named>>>) -> Result<Named> {
        let (mut named, mut strangers, mut failures) = (None::<Named>, 0, Vec::new());
        for answer in answers {
            match answer {
                Ok(Some(one)) if named.as_ref().is_none_or(|best| best.epoch < one.epoch) => named = Some(one),
                Ok(Some(_)) => {}
                Ok(None) => strangers += 1,
                Err(e) => failures.push(e),
            }
        }
        if let Some(named) = named {
            return Ok(named);
        }
        let (master, names) = (&self.master, &self.names);
        if strangers > 0 && failures.is_empty() {
            let (host, port) =
                names.split(',').next().and_then(|name| name.rsplit_once(':')).unwrap_or((names, "26379"));
            return Err(Error::Config(format!(
                "redis_url: the sentinels at {names} know no master {master:?}; to see those they know, run: \
                 redis-cli -h {host} -p {port} SENTINEL MASTERS"
            )));
        }
        let refused = failures.iter().find_map(refused_by);
        if let Some(advice) = refused.filter(|_| strangers == 0 && failures.iter().all(|e| refused_by(e).is_some())) {
            return Err(Error::Config(format!("redis_url: the sentinels at {names}: {advice}")));
        }
        let mut reasons: Vec<String> = failures.iter().map(ToString::to_string).collect();
        reasons.dedup();
        Err(Error::Unavailable(format!(
            "no sentinel at {names} names the master {master:?}: {}{}",
            reasons.join("; "),
            if strangers > 0 { format!("; {strangers} of them do not know it") } else { String::new() },
        )))
    }

    /// What to say when the master that the sentinels name does not answer.
    pub fn explain(&self, node: &Node, reason: &str) -> String {
        let (master, names, address) = (&self.master, &self.names, node.address());
        format!(
            "the master {master:?}, which is {address} by the sentinels at {names}, does not answer: {reason} (a \
             failover may be under way; if not, this machine must be able to reach {address})"
        )
    }
}

/// What to write when a server answers but refuses the question.
fn refused_by(error: &RedisError) -> Option<String> {
    let reason = error.to_string();
    match error.code() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => {
            Some(format!("{reason}; write their password in redis.sentinel_password"))
        }
        _ if reason.to_lowercase().contains("authentication failed") => {
            Some(format!("{reason}; write their password in redis.sentinel_password"))
        }
        Some("ERR") if reason.to_lowercase().contains("unknown command") => {
            Some("a server there is not a sentinel; for a single server write redis://host:port".to_owned())
        }
        _ => None,
    }
}
