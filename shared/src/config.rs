//! Configuration: one schema for all binaries, from `leasehold.toml`, then the environment, then flags.
//!
//! Every variable begins with `LEASEHOLD_`, and `__` separates levels: `LEASEHOLD_API__LISTEN` is `listen` in `[api]`.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::files::location::Location;
use crate::followed::Followed;
use crate::redis_url::{self, RedisUrl};
use crate::{Error, Kinds, Limits, QueueName, limits};

pub use crate::log::{LogConfig, LogFormat};

/// Every setting. A field's comment is its documentation; a test compares the table in docs/settings.md with [`KEYS`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where Redis is: `redis://host:port`; `redis+sentinel://host,host/master`; `rediss` for TLS.
    pub redis_url: String,
    /// A file with the password of Redis, in place of one in `redis_url`; read at start.
    pub redis_password_file: Option<PathBuf>,
    /// Partitions of the key space, 1 to 256. Fixed at the first start; if unset, the existing number is used.
    pub partitions: Option<u16>,
    /// The lease: how long a worker may be silent before its jobs are reclaimed, ms, 1000 to 3600000.
    pub lease_ms: u64,
    /// The number of lost workers after which a job fails, at least 1.
    pub max_crashes: u32,
    /// The kinds file.
    pub kinds: Option<PathBuf>,
    /// Where jobs' files are, the same for API and workers: `file:///…` for a folder, or `s3://bucket/prefix`,
    /// `gs://bucket/prefix`, `az://container/prefix`; unset: jobs cannot have files.
    pub storage_url: Option<String>,
    /// The folder that the kind `process-files` may read.
    pub document_root: Option<PathBuf>,
    /// How the programs log.
    pub log: LogConfig,
    /// The file store.
    pub files: FilesConfig,
    /// Rules for URLs that jobs fetch.
    pub fetch: FetchConfig,
    /// Connections to Redis.
    pub redis: RedisConfig,
    /// The API.
    pub api: ApiConfig,
    /// The worker.
    pub worker: WorkerConfig,
    /// Limits.
    pub limits: Limits,
}

/// The file store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesConfig {
    /// Minimum age of orphaned files before they are deleted, ms, at least 1000.
    pub orphan_ms: u64,
    /// Interval between a worker's sweeps of the file store, ms, at least 100.
    pub walk_ms: u64,
}

/// Rules for URLs that jobs fetch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FetchConfig {
    /// Allow `gap-analysis` and `screenshots` to fetch from loopback, private and other non-public addresses.
    pub allow_private: bool,
}

/// Connections to Redis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// Connections in a process's pool, at least 1.
    pub connections: usize,
    /// How long to wait for a connection, ms.
    pub connect_ms: u64,
    /// How long to wait for a reply, ms; then the connection is closed.
    pub response_ms: u64,
    /// How long a call is retried during an outage before it fails, ms.
    pub outage_ms: u64,
    /// PEM file with the certificate authority of a `rediss://` server; unset trusts the public ones.
    pub ca_file: Option<PathBuf>,
    /// The password of the sentinels; unset: they have none. That of Redis itself is in `redis_url`.
    pub sentinel_password: Option<String>,
    /// A file with the password of the sentinels, in place of `redis.sentinel_password`; read at start.
    pub sentinel_password_file: Option<PathBuf>,
    /// Whether the sentinels take TLS; unset: as Redis itself does, by `redis_url`.
    pub sentinel_tls: Option<bool>,
    /// What keeps the jobs when Redis restarts.
    pub durability: RedisDurability,
}

/// What keeps the jobs when Redis restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum RedisDurability {
    /// Its append-only file: a Redis without one is refused.
    #[default]
    Aof,
    /// Whatever its provider does, which Leasehold cannot check.
    Managed,
}

impl TryFrom<String> for RedisDurability {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "aof" => Ok(Self::Aof),
            "managed" => Ok(Self::Managed),
            _ => Err(format!("redis.durability is {word:?}; write aof or managed")),
        }
    }
}

/// The API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// The address to listen on; other than loopback only with `api.tokens`.
    pub listen: String,
    /// The token file, one line `name scope sha256` each; without one every client has full access, from loopback only.
    pub tokens: Option<PathBuf>,
    /// Names, without ports, that the header Host may have beside those of loopback when there are no tokens.
    #[serde(deserialize_with = "hosts")]
    pub hosts: Vec<String>,
    /// Refuse submits of kinds that are not in the kinds file.
    pub known_kinds_only: bool,
}

/// A list, or a text with commas, as variables have it.
fn hosts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        List(Vec<String>),
        Text(String),
    }
    let given = match Given::deserialize(deserializer)? {
        Given::List(hosts) => hosts,
        Given::Text(text) => text.split(',').map(str::to_owned).collect(),
    };
    let hosts = given.into_iter().map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    hosts
        .map(|host| {
            let is_name = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            let is_address = host.parse::<std::net::IpAddr>().is_ok();
            let advice = "write names without scheme, port and wildcard, such as jobs.example, separated by commas";
            let fault = || serde::de::Error::custom(format!("api.hosts has {host:?}; {advice}"));
            if is_name || is_address { Ok(host.clone()) } else { Err(fault()) }
        })
        .collect()
}

/// The worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// The queues to serve, `name:weight,…`; a weight (default 1) is the share of slots when all queues have work.
    pub queues: String,
    /// Maximum jobs running at once, 1 to 1000.
    pub concurrency: usize,
    /// How long running jobs may continue after SIGTERM, ms; then they are released.
    pub grace_ms: u64,
    /// The loopback address that serves `/livez`, `/readyz` and `/metrics`, such as 127.0.0.1:9090; unset: not served.
    pub listen: Option<String>,
    /// Interval between sweeps, ms, at least 50.
    pub sweep_ms: u64,
    /// The user that commands run as, `name`, `uid` or `uid:gid`, if the worker runs as root; unset: the worker's.
    pub command_user: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            redis_url: "redis://127.0.0.1:6379".into(),
            redis_password_file: None,
            partitions: None,
            lease_ms: 30_000,
            max_crashes: 3,
            kinds: None,
            storage_url: None,
            document_root: None,
            log: LogConfig::default(),
            files: FilesConfig::default(),
            fetch: FetchConfig::default(),
            redis: RedisConfig::default(),
            api: ApiConfig::default(),
            worker: WorkerConfig::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for FilesConfig {
    fn default() -> Self {
        Self { orphan_ms: 86_400_000, walk_ms: 3_600_000 }
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            connections: 16,
            connect_ms: 2_000,
            response_ms: 3_000,
            outage_ms: 8_000,
            ca_file: None,
            durability: RedisDurability::Aof,
            sentinel_password: None,
            sentinel_password_file: None,
            sentinel_tls: None,
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8080".into(), tokens: None, hosts: Vec::new(), known_kinds_only: false }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            queues: "default".into(),
            concurrency: 8,
            grace_ms: 20_000,
            listen: None,
            sweep_ms: 1_000,
            command_user: None,
        }
    }
}

/// Every key that a file, a variable (`LEASEHOLD_` and `__` for each dot) or a flag may set.
pub const KEYS: &[&str] = &[
    "redis_url",
    "redis_password_file",
    "partitions",
    "lease_ms",
    "max_crashes",
    "kinds",
    "storage_url",
    "document_root",
    "log.filter",
    "log.format",
    "files.orphan_ms",
    "files.walk_ms",
    "fetch.allow_private",
    "redis.connections",
    "redis.connect_ms",
    "redis.response_ms",
    "redis.outage_ms",
    "redis.ca_file",
    "redis.durability",
    "redis.sentinel_password",
    "redis.sentinel_password_file",
    "redis.sentinel_tls",
    "api.listen",
    "api.tokens",
    "api.hosts",
    "api.known_kinds_only",
    "worker.queues",
    "worker.concurrency",
    "worker.grace_ms",
    "worker.listen",
    "worker.sweep_ms",
    "worker.command_user",
    "limits.body_bytes",
    "limits.bulk_body_bytes",
    "limits.upload_bytes",
    "limits.upload_ms",
    "limits.drain_bytes",
    "limits.payload_bytes",
    "limits.result_bytes",
    "limits.checkpoint_bytes",
    "limits.json_depth",
    "limits.request_ms",
    "limits.idle_ms",
    "limits.wait_s",
    "limits.connections",
    "limits.client_connections",
];

/// Variables that are not settings: those passed to a command (a worker started by a command must accept them), the
/// server program that `make`, the tests and `leasehold up` start, and the API that the command line uses.
const OTHER_VARIABLES: [&str; 10] = [
    "LEASEHOLD_JOB_ID",
    "LEASEHOLD_TOKEN",
    "LEASEHOLD_ATTEMPT",
    "LEASEHOLD_CHECKPOINT",
    "LEASEHOLD_ITEMS",
    "LEASEHOLD_SCRATCH",
    "LEASEHOLD_REDIS_SERVER",
    "LEASEHOLD_API_URL",
    "LEASEHOLD_API_TOKEN",
    "LEASEHOLD_API_TOKEN_FILE",
];

/// A setting in effect.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its value; null when it is unset.
    pub value: serde_json::Value,
    /// Its source: `flag`, the variable, the file, or `default`.
    pub from: String,
}

impl Config {
    /// Reads `file` (or `leasehold.toml`, if it exists), the environment, and `flags` (key and value), in this order.
    ///
    /// # Errors
    /// [`Error::Config`] names the key or variable and what to write instead.
    pub fn load(file: Option<&std::path::Path>, flags: &[(&str, String)]) -> Result<Self, Error> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .filter(|(name, _)| name.starts_with("LEASEHOLD_"))
            .collect();
        let config = Self::from_sources(file, environment, flags)?;
        if config.redis_url == Self::default().redis_url
            && std::env::var_os("LEASEHOLD_REDIS_URL").is_none()
            && std::env::var_os("REDIS_URL").is_some_and(|url| !url.is_empty())
        {
            crate::log::say("warning: REDIS_URL is set but not used; set LEASEHOLD_REDIS_URL");
        }
        Ok(config)
    }

    /// Every setting as [`Config::load`] reads it, with its source.
    ///
    /// # Errors
    /// [`Config::load`]'s.
    pub fn settings(file: Option<&std::path::Path>, flags: &[(&str, String)]) -> Result<Vec<Setting>, Error> {
        let config = Self::load(file, flags)?;
        let values = serde_json::to_value(&config).expect("settings are plain values");
        let path = file.unwrap_or(std::path::Path::new("leasehold.toml"));
        // The file was read above; without one it sets no keys.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let table: toml::Table = toml::from_str(&text).unwrap_or_default();
        let in_file = |key: &str| match key.split_once('.') {
            Some((section, name)) => table.get(section).and_then(|section| section.get(name)).is_some(),
            None => table.contains_key(key),
        };
        let settings = KEYS.iter().map(|key| {
            let variable = format!("LEASEHOLD_{}", key.to_uppercase().replace('.', "__"));
            let from = if flags.iter().any(|(flag, _)| flag == key) {
                "flag".to_owned()
            } else if std::env::var_os(&variable).is_some() {
                variable
            } else if in_file(key) {
                path.display().to_string()
            } else {
                "default".to_owned()
            };
            let value = values.pointer(&format!("/{}", key.replace('.', "/"))).cloned().unwrap_or_default();
            Setting { key, value, from }
        });
        Ok(settings.collect())
    }

    fn from_sources(
        file: Option<&std::path::Path>,
        environment: Vec<(String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Self, Error> {
        let fault = |e: config::ConfigError| Error::Config(format!("configuration: {e}"));
        let mut builder = config::Config::builder();
        builder = match file {
            Some(path) => builder.add_source(config::File::from(path).format(config::FileFormat::Toml)),
            None => builder.add_source(config::File::new("leasehold.toml", config::FileFormat::Toml).required(false)),
        };
        for (key, value) in
            known_variables(environment)?.iter().map(|(k, v)| (k.as_str(), v)).chain(flags.iter().map(|(k, v)| (*k, v)))
        {
            builder = builder.set_override(key, value.as_str()).map_err(fault)?;
        }
        let mut config: Config = builder.build().and_then(config::Config::try_deserialize).map_err(fault)?;
        for listen in std::iter::once(&mut config.api.listen).chain(&mut config.worker.listen) {
            on_loopback(listen);
        }
        config.read_passwords().map_err(Error::Config)?;
        config.check().map_err(Error::Config)?;
        Ok(config)
    }

    /// Reads the files with passwords.
    fn read_passwords(&mut self) -> Result<(), String> {
        if let Some(file) = &self.redis_password_file {
            let password = password_in("redis_password_file", file)?;
            self.redis_url = redis_url::with_password(&self.redis_url, &password)?;
        }
        if let Some(file) = &self.redis.sentinel_password_file {
            let password = password_in("redis.sentinel_password_file", file)?;
            if self.redis.sentinel_password.replace(password).is_some() {
                return Err("redis.sentinel_password and redis.sentinel_password_file are both set; set one".into());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        RedisUrl::parse(&self.redis_url)?;
        let within = |key: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(format!("{key} is {value}; write {least} to {most}"))
        };
        if let Some(n) = self.partitions {
            within("partitions", n.into(), 1, limits::PARTITIONS_MAX.into())?;
        }
        within("lease_ms", self.lease_ms, limits::LEASE_MS_MIN, limits::LEASE_MS_MAX)?;
        within("max_crashes", self.max_crashes.into(), 1, 1_000)?;
        within("redis.connections", self.redis.connections as u64, 1, 1_000)?;
        within("redis.connect_ms", self.redis.connect_ms, 1, 60_000)?;
        within("redis.response_ms", self.redis.response_ms, 1, 60_000)?;
        within("redis.outage_ms", self.redis.outage_ms, 0, 600_000)?;
        within("worker.concurrency", self.worker.concurrency as u64, 1, limits::SLOTS_MAX as u64)?;
        within("worker.sweep_ms", self.worker.sweep_ms, 50, 60_000)?;
        within("worker.grace_ms", self.worker.grace_ms, 0, 86_400_000)?;
        within("limits.json_depth", self.limits.json_depth as u64, 1, 100)?;
        within("limits.wait_s", self.limits.wait_s, 1, 3_600)?;
        within("limits.body_bytes", self.limits.body_bytes as u64, 1_024, 1 << 30)?;
        within("limits.bulk_body_bytes", self.limits.bulk_body_bytes as u64, 1_024, 1 << 30)?;
        within("limits.upload_bytes", self.limits.upload_bytes, 1_024, 1 << 50)?;
        within("limits.upload_ms", self.limits.upload_ms, 1, 604_800_000)?;
        within("files.orphan_ms", self.files.orphan_ms, 1_000, 31_536_000_000)?;
        within("files.walk_ms", self.files.walk_ms, 100, 31_536_000_000)?;
        self.storage()?;
        within("limits.request_ms", self.limits.request_ms, 1, 3_600_000)?;
        within("limits.idle_ms", self.limits.idle_ms, 1, 3_600_000)?;
        within("limits.connections", self.limits.connections as u64, 1, 1_000_000)?;
        if let Some(n) = self.limits.client_connections {
            within("limits.client_connections", n as u64, 1, 1_000_000)?;
        }
        self.worker.weighted_queues()?;
        Ok(())
    }

    /// The place that `storage_url` names, if it is set.
    ///
    /// # Errors
    /// A sentence with what to write.
    pub fn storage(&self) -> Result<Option<Location>, String> {
        self.storage_url.as_deref().map(Location::parse).transpose()
    }

    /// The kinds file, or no kinds when none is named.
    ///
    /// # Errors
    /// [`Kinds::load`]'s.
    pub fn load_kinds(&self) -> Result<Kinds, Error> {
        self.kinds.as_deref().map_or_else(|| Ok(Kinds::default()), Kinds::load)
    }

    /// The configured kinds file, to be followed; `None` without one.
    ///
    /// # Errors
    /// [`Kinds::load`]'s.
    pub fn kinds_file(&self) -> Result<Option<Followed<Kinds>>, Error> {
        self.kinds.as_deref().map(Kinds::open).transpose()
    }
}

/// The password in a file, without the line end.
fn password_in(key: &str, file: &std::path::Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{key} names {}: {e}", file.display()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        Err(format!("{key} names {}, which is empty", file.display()))
    } else {
        Ok(password.into())
    }
}

/// A port without a host (`:8080`) is on loopback.
fn on_loopback(listen: &mut String) {
    if listen.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()) {
        listen.insert_str(0, "127.0.0.1");
    }
}

impl WorkerConfig {
    /// The queues with their weights, at least 1.
    ///
    /// # Errors
    /// A sentence that names the entry.
    pub fn weighted_queues(&self) -> Result<Vec<(QueueName, u32)>, String> {
        let mut queues: Vec<(QueueName, u32)> = Vec::new();
        for entry in self.queues.split(',').map(str::trim) {
            let (name, weight) = entry.split_once(':').unwrap_or((entry, "1"));
            let queue = QueueName::parse(name).map_err(|e| format!("worker.queues: {e}"))?;
            let weight = weight.parse().ok().filter(|w| (1..=100).contains(w));
            let weight = weight.ok_or_else(|| format!("worker.queues: the weight in {entry:?} is not 1 to 100"))?;
            if queues.iter().any(|(known, _)| *known == queue) {
                return Err(format!("worker.queues: {name:?} is named twice"));
            }
            queues.push((queue, weight));
        }
        Ok(queues)
    }
}

/// The keys set by `environment`. A variable with `__`, or similar to a known one, must be known; for others, such as
/// those injected by Kubernetes, a warning is printed.
fn known_variables(environment: Vec<(String, String)>) -> Result<Vec<(String, String)>, Error> {
    let known: Vec<(String, &str)> =
        KEYS.iter().map(|key| (format!("LEASEHOLD_{}", key.to_uppercase().replace('.', "__")), *key)).collect();
    let mut set = Vec::new();
    for (name, value) in environment {
        if OTHER_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        if let Some((_, key)) = known.iter().find(|(variable, _)| *variable == name) {
            set.push(((*key).to_owned(), value));
            continue;
        }
        let distance = |variable: &str| strsim::damerau_levenshtein(variable, &name);
        let nearest = known.iter().map(|(variable, _)| variable).min_by_key(|v| distance(v));
        let nearest = nearest.expect("there are known variables");
        if name.contains("__") || distance(nearest) <= 2 {
            return Err(Error::Config(format!("unknown variable {name}; did you mean {nearest}?")));
        }
        // Logging is set up from this configuration, so it is not available yet.
        crate::log::say(format_args!("warning: unknown variable {name} is ignored"));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(environment: &[(&str, &str)]) -> Result<Config, Error> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::from_sources(None, environment, &[])
    }

    #[test]
    fn every_key_of_the_schema_is_listed_once() {
        let json = serde_json::to_value(Config::default()).expect("config is JSON");
        let mut keys = Vec::new();
        for (key, value) in json.as_object().expect("an object") {
            match value.as_object() {
                Some(section) => keys.extend(section.keys().map(|k| format!("{key}.{k}"))),
                None => keys.push(key.clone()),
            }
        }
        keys.sort();
        let mut listed: Vec<_> = KEYS.iter().map(|k| (*k).to_owned()).collect();
        listed.sort();
        assert_eq!(keys, listed);
    }

    #[test]
    fn a_port_alone_is_one_of_loopback() {
        let config = from(&[("LEASEHOLD_API__LISTEN", ":9190"), ("LEASEHOLD_WORKER__LISTEN", ":0")]).unwrap();
        assert_eq!(config.api.listen, "127.0.0.1:9190");
        assert_eq!(config.worker.listen.as_deref(), Some("127.0.0.1:0"));
        let flags = [("api.listen", ":9191".to_owned())];
        assert_eq!(Config::from_sources(None, Vec::new(), &flags).unwrap().api.listen, "127.0.0.1:9191");
        for other in ["0.0.0.0:9190", "[::1]:9190", ":x", ":", ":99999", "localhost:1"] {
            assert_eq!(from(&[("LEASEHOLD_API__LISTEN", other)]).unwrap().api.listen, other);
        }
    }

    #[test]
    fn variables_set_what_they_name() {
        let config = from(&[
            ("LEASEHOLD_REDIS_URL", "redis://h:1"),
            ("LEASEHOLD_PARTITIONS", "4"),
            ("LEASEHOLD_API__LISTEN", "127.0.0.1:1"),
            ("LEASEHOLD_API__KNOWN_KINDS_ONLY", "true"),
            ("LEASEHOLD_WORKER__QUEUES", "a:3, b"),
            ("LEASEHOLD_FETCH__ALLOW_PRIVATE", "true"),
            ("LEASEHOLD_SERVICE_HOST", "10.0.0.1"),
            ("LEASEHOLD_JOB_ID", "x"),
            ("LEASEHOLD_API_URL", "http://h:1"),
            ("LEASEHOLD_API_TOKEN", "x"),
            ("LEASEHOLD_API_TOKEN_FILE", "/x"),
        ])
        .expect("valid");
        assert_eq!((config.redis_url.as_str(), config.partitions), ("redis://h:1", Some(4)));
        assert!(config.api.known_kinds_only && config.fetch.allow_private);
        let queues = config.worker.weighted_queues().expect("valid");
        assert_eq!(queues.iter().map(|(q, w)| (q.as_str(), *w)).collect::<Vec<_>>(), [("a", 3), ("b", 1)]);
    }

    #[test]
    fn a_wrong_setting_is_named_with_what_would_be_right() {
        for (name, value, named) in [
            ("LEASEHOLD_REDIS_URLS", "x", "LEASEHOLD_REDIS_URL?"),
            ("LEASEHOLD_API__LISTN", "x", "LEASEHOLD_API__LISTEN?"),
            ("LEASEHOLD_FOO__BAR", "x", "LEASEHOLD_FOO__BAR"),
            ("LEASEHOLD_PARTITIONS", "0", "partitions is 0; write 1 to 256"),
            ("LEASEHOLD_PARTITIONS", "many", "many"),
            ("LEASEHOLD_LEASE_MS", "10", "lease_ms is 10; write 1000"),
            ("LEASEHOLD_STORAGE_URL", "s3:bucket", "write file:///"),
            ("LEASEHOLD_REDIS__DURABILITY", "none", "write aof or managed"),
            ("LEASEHOLD_LOG__FORMAT", "yaml", "write text or json"),
            ("LEASEHOLD_WORKER__QUEUES", "a:0", "weight"),
            ("LEASEHOLD_WORKER__QUEUES", "a,a", "twice"),
            ("LEASEHOLD_WORKER__QUEUES", "", "queue"),
        ] {
            let error = from(&[(name, value)]).expect_err(name).to_string();
            assert!(error.contains(named), "{name}={value}: {error}");
        }
    }

    #[test]
    fn an_unknown_key_in_a_file_is_refused() {
        let file = tempfile(b"lease_millis = 3");
        let error = Config::from_sources(Some(&file), Vec::new(), &[]).expect_err("unknown key").to_string();
        std::fs::remove_file(&file).expect("it was written");
        assert!(error.contains("lease_millis"), "{error}");
    }

    fn tempfile(content: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("leasehold-{}.toml", std::process::id()));
        std::fs::write(&path, content).expect("the temporary folder takes files");
        path
    }
}
