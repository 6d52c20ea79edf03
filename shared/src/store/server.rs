//! The Redis server: whether its version and settings are suitable, and whether it accepts writes now.
mod settings;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redis::Value;

use self::settings::{EVICTS, settings_faults};
use super::Store;
use super::wire::fault::{ACL_ADVICE, CLUSTER_ADVICE};
use super::wire::permissions::REQUIRED;
use super::wire::reply::{array, text};
use super::wire::{Node, Wire, keys};
use crate::config::RedisDurability;
use crate::{Error, Result};

/// How often the settings of the masters are checked again, by processes that look every 5 s.
const AGAIN: Duration = Duration::from_secs(8);

/// Whether Redis is able to serve requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answers and accepts writes.
    Ready,
    /// It answers, but refuses new jobs because it is out of memory.
    Full,
}

/// A problem with Redis's version or settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFault {
    /// What is wrong, and what to write instead.
    pub problem: String,
    /// Jobs would be lost: API and workers refuse to start.
    pub fatal: bool,
}

impl ServerFault {
    fn fatal(problem: String) -> Self {
        Self { problem, fatal: true }
    }

    fn warning(problem: String) -> Self {
        Self { problem, fatal: false }
    }
}

impl Store {
    /// `redis.durability`: what keeps the jobs when Redis restarts.
    pub fn durability(&self) -> RedisDurability {
        self.inner.wire.durability()
    }

    /// The problems with Redis's version and settings, worst first.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn server_faults(&self) -> Result<Vec<ServerFault>> {
        let mut faults: Vec<_> =
            faults_of_masters(&self.inner.wire).await?.into_iter().flat_map(|(_, faults)| faults).collect();
        faults.sort_by_key(|fault| !fault.fatal);
        Ok(faults)
    }

    /// Checks the settings of the masters again, every 8 s, and at once when another has taken over, and logs what
    /// has become wrong with them. While a fault would lose jobs, submits are refused, as a start would be; what is
    /// there runs on.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn check_masters(&self) -> Result<()> {
        let (wire, checked) = (&self.inner.wire, &self.inner.checked);
        let masters = wire.connections().masters().await?;
        let known = masters.iter().all(|node| checked.masters().contains_key(node.address()));
        if known && masters.len() == checked.masters().len() && !checked.is_due() {
            return Ok(());
        }
        let masters: BTreeMap<String, Vec<ServerFault>> = faults_of_masters(wire).await?.into_iter().collect();
        let before = checked.learn(masters.clone());
        let problems =
            |of: &BTreeMap<String, Vec<ServerFault>>| -> Vec<ServerFault> { of.values().flatten().cloned().collect() };
        let (before, now) = (problems(&before), problems(&masters));
        for fault in now.iter().filter(|fault| !before.contains(fault)) {
            if fault.fatal {
                tracing::error!("no new jobs are accepted: {}", fault.problem);
            } else {
                tracing::warn!("{}", fault.problem);
            }
        }
        for fault in before.iter().filter(|fault| fault.fatal && !now.contains(fault)) {
            tracing::info!("new jobs are accepted again; this is no longer so: {}", fault.problem);
        }
        wire.connections().metrics().unfit(checked.is_unfit());
        Ok(())
    }

    /// What [`Store::check_masters`] last found that would have kept this process from starting.
    pub fn fatal_faults(&self) -> Vec<String> {
        let masters = self.inner.checked.masters();
        masters.values().flatten().filter(|fault| fault.fatal).map(|fault| fault.problem.clone()).collect()
    }

    /// Refuses new jobs while Redis would lose them.
    ///
    /// # Errors
    /// [`Error::Config`]: nothing was done.
    pub(super) fn refuse_if_unfit(&self) -> Result<()> {
        match self.inner.checked.is_unfit() {
            false => Ok(()),
            true => Err(Error::Config(format!("no new jobs are accepted: {}", self.fatal_faults().join("; ")))),
        }
    }

    /// Whether Redis answers and accepts writes now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::OutcomeUnknown`] when it does not.
    pub async fn standing(&self) -> Result<Standing> {
        let (wire, mut full, mut answered, mut failure) = (&self.inner.wire, false, false, None);
        let connections = wire.connections();
        for node in connections.masters().await? {
            let mut pipeline = redis::pipe();
            pipeline.cmd("INFO").arg("memory");
            // A write without effect is refused like any other when the disk fails or Redis is a replica.
            if !connections.is_cluster() {
                pipeline.cmd("HDEL").arg(keys::META).arg("ready");
            }
            let replies = connections.pipe_to(&node, &pipeline).await;
            match replies.and_then(|mut replies| Ok((replies.remove(0), connections.accept(replies)?))) {
                Ok((memory, _)) => {
                    // A Redis that denies INFO reports a full memory at the first submit.
                    let memory = text(&memory);
                    let field = |name: &str| info_field(&memory, name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
                    full |= field("maxmemory") > 0 && field("used_memory") >= field("maxmemory");
                    answered = true;
                }
                Err(e) => failure = Some(e),
            }
        }
        // A cluster without one of its nodes serves the partitions of the others.
        if let Some(failure) = failure.filter(|_| !answered) {
            return Err(failure);
        }
        Ok(if full { Standing::Full } else { Standing::Ready })
    }
}

/// The masters whose version and settings were checked, with what was wrong with each.
#[derive(Default)]
pub(super) struct Checked {
    masters: Mutex<BTreeMap<String, Vec<ServerFault>>>,
    at: Mutex<Option<Instant>>,
    unfit: AtomicBool,
}

impl Checked {
    fn masters(&self) -> MutexGuard<'_, BTreeMap<String, Vec<ServerFault>>> {
        self.masters.lock().expect("lock not poisoned")
    }

    fn is_due(&self) -> bool {
        self.at.lock().expect("lock not poisoned").is_none_or(|at| at.elapsed() >= AGAIN)
    }

    fn is_unfit(&self) -> bool {
        self.unfit.load(Ordering::Relaxed)
    }

    /// Replaces what is known; returns what was.
    fn learn(&self, masters: BTreeMap<String, Vec<ServerFault>>) -> BTreeMap<String, Vec<ServerFault>> {
        *self.at.lock().expect("lock not poisoned") = Some(Instant::now());
        self.unfit.store(masters.values().flatten().any(|fault| fault.fatal), Ordering::Relaxed);
        std::mem::replace(&mut *self.masters(), masters)
    }
}

/// Refuses a Redis that would lose jobs, and warns about one that may.
pub(super) async fn check(wire: &Wire) -> Result<Checked> {
    let mut checked = BTreeMap::new();
    for (address, faults) in faults_of_masters(wire).await? {
        for fault in &faults {
            if fault.fatal {
                return Err(Error::Config(fault.problem.clone()));
            }
            tracing::warn!("{}", fault.problem);
        }
        checked.insert(address, faults);
    }
    let known = Checked::default();
    known.learn(checked);
    Ok(known)
}

/// Each master by its address, with its problems, worst first.
async fn faults_of_masters(wire: &Wire) -> Result<Vec<(String, Vec<ServerFault>)>> {
    wire.patiently(|| look_at_masters(wire)).await
}

async fn look_at_masters(wire: &Wire) -> Result<Vec<(String, Vec<ServerFault>)>> {
    let mut masters = Vec::new();
    for node in wire.connections().masters().await? {
        let mut faults = faults_of(wire, &node).await?;
        if wire.connections().changes() {
            faults.iter_mut().for_each(|fault| fault.problem = format!("{}: {}", node.address(), fault.problem));
        }
        masters.push((node.address().to_owned(), faults));
    }
    Ok(masters)
}

async fn ask(wire: &Wire, node: &Arc<Node>, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
    wire.connections().accept(wire.connections().pipe_to(node, pipeline).await?)
}

async fn faults_of(wire: &Wire, node: &Arc<Node>) -> Result<Vec<ServerFault>> {
    let mut faults = Vec::new();
    let managed = wire.durability() == RedisDurability::Managed;
    if managed {
        faults.push(ServerFault::warning(
            "redis.durability is managed: nothing checks that Redis keeps its data over a restart or a failover".into(),
        ));
    }
    let Some([server, persistence, memory]) = info(wire, node).await? else {
        let problem = "Redis denies INFO, so its version, its AOF and its eviction policy were not checked";
        faults.push(unchecked(managed, problem, "allow it with the ACL rule +info"));
        faults.extend(settings_faults(wire, node).await?);
        return Ok(faults);
    };
    if let Some(problem) = misnamed(wire.connections().changes(), &server) {
        return Ok(vec![ServerFault::fatal(problem)]);
    }
    if info_field(&persistence, "loading") == Some("1") {
        return Err(Error::Unavailable("Redis is loading its files".into()));
    }
    faults.extend(lacking(wire, node).await?);
    let version = info_field(&server, "valkey_version").or(info_field(&server, "redis_version"));
    match version.map(|v| (v, v.split('.').next().and_then(|v| v.parse::<u32>().ok()))) {
        Some((_, Some(7..))) => {}
        Some((version, _)) => {
            faults.push(ServerFault::fatal(format!("Redis {version} is too old; Leasehold needs 7.0 or later")));
        }
        None => faults.push(ServerFault::warning("Redis does not report its version; Leasehold needs 7.0".into())),
    }
    match info_field(&persistence, "aof_enabled") {
        Some("0") => {
            let advice = "set `appendonly yes` in redis.conf, or run: redis-cli CONFIG SET appendonly yes";
            faults.push(unchecked(managed, "Redis keeps nothing over a restart (its AOF is off)", advice));
        }
        Some(_) => {}
        None => {
            let advice = "allow INFO persistence";
            faults.push(unchecked(managed, "Redis does not report whether its AOF is on", advice));
        }
    }
    let settings = settings_faults(wire, node).await?;
    let policy = info_field(&memory, "maxmemory_policy").unwrap_or("noeviction");
    // CONFIG may be denied.
    if policy != "noeviction" && !settings.iter().any(|fault| fault.fatal) {
        faults.push(ServerFault::fatal(format!("Redis has `maxmemory-policy {policy}`: {EVICTS}")));
    }
    faults.extend(settings);
    if info_field(&persistence, "aof_last_write_status").is_some_and(|status| status != "ok") {
        let advice = "its log says why; usually the disk is full";
        faults.push(ServerFault::warning(format!(
            "Redis cannot write its AOF, and takes no writes until it can; {advice}"
        )));
    }
    faults.sort_by_key(|fault| !fault.fatal);
    Ok(faults)
}

/// The commands, keys and channels that the user is not allowed.
async fn lacking(wire: &Wire, node: &Arc<Node>) -> Result<Option<ServerFault>> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("EVAL").arg(&*REQUIRED).arg(0);
    let lacking: Vec<String> = array(&ask(wire, node, &pipeline).await?[0]).iter().map(text).collect();
    let some = lacking.iter().take(5).map(|what| format!("`{what}`")).collect::<Vec<_>>().join(", ");
    let problem = format!("the user of redis_url may not run {some}; {ACL_ADVICE}");
    Ok((!lacking.is_empty()).then(|| ServerFault::fatal(problem)))
}

/// What INFO reports of the server, its persistence and its memory; `None` when Redis denies INFO.
async fn info(wire: &Wire, node: &Arc<Node>) -> Result<Option<[String; 3]>> {
    let mut pipeline = redis::pipe();
    for section in ["server", "persistence", "memory"] {
        pipeline.cmd("INFO").arg(section);
    }
    let read = match ask(wire, node, &pipeline).await {
        Ok(replies) => Some([0, 1, 2].map(|at| text(&replies[at]))),
        Err(e @ (Error::Unavailable(_) | Error::OutcomeUnknown(_))) => return Err(e),
        Err(_) => None,
    };
    // A cluster's node that is named as a server answers with MOVED, which would hide what to write instead.
    let is_one = read.as_ref().is_none_or(|[server, ..]| misnamed(wire.connections().changes(), server).is_none());
    if is_one && !wire.connections().is_cluster() {
        // While Redis loads its files, INFO reports that its AOF is off. A read is refused then, and the call waits.
        let mut probe = redis::pipe();
        probe.cmd("EXISTS").arg(keys::META);
        ask(wire, node, &probe).await?;
    }
    Ok(read)
}

/// A fault that a managed Redis may have: the provider is relied on.
fn unchecked(managed: bool, problem: &str, advice: &str) -> ServerFault {
    if managed {
        return ServerFault::warning(format!("{problem}; its provider must keep the data"));
    }
    let setting = "for a managed Redis whose provider keeps the data, set redis.durability = \"managed\" \
                   (LEASEHOLD_REDIS__DURABILITY=managed)";
    ServerFault::fatal(format!("{problem}; {advice}; {setting}"))
}

/// What to write when `redis_url` names a server of another sort.
fn misnamed(by_others: bool, server: &str) -> Option<String> {
    let mode = info_field(server, "redis_mode").or(info_field(server, "server_mode"));
    match mode {
        Some("cluster") if !by_others => Some(format!("redis_url names one node of a Redis Cluster; {CLUSTER_ADVICE}")),
        Some("sentinel") => {
            Some("redis_url names a sentinel; write redis+sentinel://host:port/name-of-the-master".to_owned())
        }
        _ => None,
    }
}

fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
