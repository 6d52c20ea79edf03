//! The Redis server: whether its version and settings are suitable, and whether it accepts writes now.
use redis::Value;

use super::Store;
use super::wire::connection::classify;
use super::wire::reply::{array, text};
use super::wire::{Wire, keys};
use crate::config::RedisDurability;
use crate::{Error, Result};

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
        server_faults(&self.inner.wire).await
    }

    /// Whether Redis answers and accepts writes now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::OutcomeUnknown`] when it does not.
    pub async fn standing(&self) -> Result<Standing> {
        let mut pipeline = redis::pipe();
        // A write without effect is refused like any other when the disk fails or Redis is a replica.
        pipeline.cmd("HDEL").arg(keys::META).arg("ready").cmd("INFO").arg("memory");
        let replies = self.inner.wire.connections().pipe(&pipeline).await?.into_iter();
        let mut replies = replies.map(|v| v.extract_error().map_err(|e| classify(&e)));
        replies.next().unwrap_or(Ok(Value::Nil))?;
        // A Redis that denies INFO reports a full memory at the first submit.
        let memory = replies.next().and_then(Result::ok).as_ref().map(text).unwrap_or_default();
        let field = |name: &str| info_field(&memory, name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        let full = field("maxmemory") > 0 && field("used_memory") >= field("maxmemory");
        Ok(if full { Standing::Full } else { Standing::Ready })
    }
}

/// Refuses a Redis that would lose jobs, and warns about one that may.
pub(super) async fn check(wire: &Wire) -> Result<()> {
    for fault in server_faults(wire).await? {
        if fault.fatal {
            return Err(Error::Config(fault.problem));
        }
        tracing::warn!("{}", fault.problem);
    }
    Ok(())
}

async fn server_faults(wire: &Wire) -> Result<Vec<ServerFault>> {
    let mut faults = Vec::new();
    let managed = wire.durability() == RedisDurability::Managed;
    if managed {
        faults.push(ServerFault::warning(
            "redis.durability is managed: nothing checks that Redis keeps its data over a restart or a failover".into(),
        ));
    }
    let Some([server, persistence, memory]) = info(wire).await? else {
        let problem = "Redis denies INFO, so its version, its AOF and its eviction policy were not checked";
        faults.push(unchecked(managed, problem, "allow it with the ACL rule +info"));
        faults.extend(settings_faults(wire).await?);
        return Ok(faults);
    };
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
    let settings = settings_faults(wire).await?;
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

/// What INFO reports of the server, its persistence and its memory; `None` when Redis denies INFO.
async fn info(wire: &Wire) -> Result<Option<[String; 3]>> {
    let mut probe = redis::pipe();
    // While Redis loads its files, INFO reports that its AOF is off. A read is refused then, and the call waits.
    probe.cmd("EXISTS").arg(keys::META);
    let mut pipeline = probe.clone();
    for section in ["server", "persistence", "memory"] {
        pipeline.cmd("INFO").arg(section);
    }
    match wire.pipe(&pipeline).await {
        Ok(replies) => Ok(Some([1, 2, 3].map(|at| text(&replies[at])))),
        Err(e @ (Error::Unavailable(_) | Error::OutcomeUnknown(_))) => Err(e),
        // Either command may have been refused.
        Err(_) => wire.pipe(&probe).await.map(|_| None),
    }
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

const EVICTS: &str = "Redis would evict jobs; set `maxmemory-policy noeviction`";

/// A setting of Redis that Leasehold relies on.
struct Setting {
    name: &'static str,
    fit: fn(&str) -> bool,
    advice: &'static str,
    fatal: bool,
}

const SETTINGS: &[Setting] = &[
    Setting { name: "maxmemory-policy", fit: |v| v == "noeviction", advice: EVICTS, fatal: true },
    Setting {
        name: "appendfsync",
        fit: |v| v == "always",
        advice: "a crash of Redis's machine, or a slow disk and a kill -9, can lose the last second or two of acknowledged \
                 jobs; set `appendfsync always` to lose none",
        fatal: false,
    },
    Setting {
        name: "no-appendfsync-on-rewrite",
        fit: |v| v == "no",
        advice: "acknowledged jobs are not on disk while the AOF is rewritten; set it to no",
        fatal: false,
    },
    Setting {
        name: "timeout",
        fit: |v| v == "0",
        advice: "idle connections are closed; set `timeout 0`",
        fatal: false,
    },
    Setting {
        name: "maxmemory-clients",
        fit: |v| v == "0",
        advice: "with blocking pops it has crashed servers; set `maxmemory-clients 0`",
        fatal: false,
    },
    Setting {
        name: "tcp-keepalive",
        fit: |v| (1..=60).contains(&v.parse().unwrap_or(0)),
        advice: "a vanished worker's pop stays armed too long; set `tcp-keepalive 15`",
        fatal: false,
    },
    Setting {
        name: "hash-max-listpack-value",
        fit: |v| v.parse().unwrap_or(0) >= 512,
        advice: "a usual payload doubles a job's memory; set `hash-max-listpack-value 1024`",
        fatal: false,
    },
];

async fn settings_faults(wire: &Wire) -> Result<Vec<ServerFault>> {
    let mut pipeline = redis::pipe();
    for setting in SETTINGS {
        pipeline.cmd("CONFIG").arg("GET").arg(setting.name);
    }
    let replies = match wire.pipe(&pipeline).await {
        Ok(replies) => replies,
        Err(Error::Unavailable(reason) | Error::OutcomeUnknown(reason)) => return Err(Error::Unavailable(reason)),
        Err(e) => {
            let advice = "allow it with the ACL rule +config|get, or verify them yourself";
            return Ok(vec![ServerFault::warning(format!(
                "Redis denies CONFIG GET, so its settings were not checked; {advice} ({e})"
            ))]);
        }
    };
    let mut faults = Vec::new();
    for (setting, reply) in SETTINGS.iter().zip(&replies) {
        let value = array(reply).get(1).map(text).unwrap_or_default();
        if value.is_empty() || (setting.fit)(&value) {
            continue;
        }
        let problem = format!("Redis has `{} {value}`: {}", setting.name, setting.advice);
        faults.push(ServerFault { problem, fatal: setting.fatal });
    }
    Ok(faults)
}

fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
