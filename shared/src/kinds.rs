//! The kinds file: an operator's settings for each kind of work. API and workers read the same file.
mod published;
mod schedules;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::canonical::request_digest;
use crate::followed::Followed;
use crate::job::Durability;
use crate::retry::Backoff;
use crate::{Error, Kind, QueueName, ScheduleName, canonical, limits};

use published::PublishedKind;
pub use published::PublishedKinds;
pub use schedules::Declared;
use text::{Text, either};

/// The settings of one kind; every setting has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "KindFields")]
pub struct KindConfig {
    /// The program to run and its arguments, run without a shell; `{dir}` is the folder of the kinds file.
    /// `None` configures a handler that is built into the worker.
    pub command: Option<Vec<String>>,
    /// The queue of a job whose submit does not name one.
    pub queue: String,
    /// Attempts of a job whose submit does not name a number, at least 1.
    pub max_attempts: u32,
    /// Maximum run time of an attempt, ms; absent or 0: no limit.
    pub timeout_ms: Option<u64>,
    /// Delays between attempts.
    pub backoff: Backoff,
    /// Maximum jobs of this kind running at once, over all workers; absent: no limit.
    pub max_running: Option<u32>,
    /// Cancel the handler when its worker has been out of contact with Redis for the length of a lease.
    pub exclusive: bool,
    /// How long ended jobs are kept.
    pub retention: Retention,
    /// Reuse the result of an earlier job with the same payload; absent: always run the command.
    pub cache: Option<Cache>,
    /// What a submit that names none waits for; absent: for no replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
}

impl Default for KindConfig {
    fn default() -> Self {
        Self {
            command: None,
            queue: "default".into(),
            max_attempts: 5,
            timeout_ms: None,
            backoff: Backoff::default(),
            max_running: None,
            exclusive: false,
            retention: Retention::default(),
            cache: None,
            durability: None,
        }
    }
}

impl KindConfig {
    /// The default queue, checked when the file was read.
    pub fn queue_name(&self) -> QueueName {
        QueueName::parse(&self.queue).expect("checked when the kinds file was read")
    }
}

/// A kind's settings as a file may write them: a duration in ms, or as text with a unit under the name without `_ms`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindFields {
    #[serde(default, deserialize_with = "command")]
    command: Option<Vec<String>>,
    queue: Option<String>,
    max_attempts: Option<u32>,
    timeout_ms: Option<u64>,
    timeout: Option<Text>,
    backoff: Option<BackoffFields>,
    max_running: Option<u32>,
    #[serde(default)]
    exclusive: bool,
    retention: Option<RetentionFields>,
    cache: Option<Cache>,
    durability: Option<Durability>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackoffFields {
    first_ms: Option<u64>,
    first: Option<Text>,
    factor: Option<f64>,
    max_ms: Option<u64>,
    max: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionFields {
    completed_ms: Option<u64>,
    completed: Option<Text>,
    failed_ms: Option<u64>,
    failed: Option<Text>,
    cancelled_ms: Option<u64>,
    cancelled: Option<Text>,
    keep: Option<u64>,
}

/// A program and its arguments; a string is refused, with the equivalent list as advice.
fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct Words;
    impl<'de> Visitor<'de> for Words {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list, as in [\"program\", \"argument\"]")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
            Err(E::custom(format!("write command = [{}]; there is no shell", words.join(", "))))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
            let mut words = Vec::new();
            while let Some(word) = list.next_element()? {
                words.push(word);
            }
            Ok(words)
        }
    }
    deserializer.deserialize_any(Words).map(Some)
}

impl TryFrom<KindFields> for KindConfig {
    type Error = String;

    fn try_from(fields: KindFields) -> Result<Self, String> {
        let default = KindConfig::default();
        let (backoff, retention) = (fields.backoff.unwrap_or_default(), fields.retention.unwrap_or_default());
        Ok(Self {
            command: fields.command,
            queue: fields.queue.unwrap_or(default.queue),
            max_attempts: fields.max_attempts.unwrap_or(default.max_attempts),
            timeout_ms: either("timeout", fields.timeout_ms, fields.timeout)?,
            backoff: Backoff {
                first_ms: either("first", backoff.first_ms, backoff.first)?.unwrap_or(default.backoff.first_ms),
                factor: backoff.factor.unwrap_or(default.backoff.factor),
                max_ms: either("max", backoff.max_ms, backoff.max)?.unwrap_or(default.backoff.max_ms),
            },
            max_running: fields.max_running,
            exclusive: fields.exclusive,
            retention: Retention {
                completed_ms: either("completed", retention.completed_ms, retention.completed)?
                    .unwrap_or(default.retention.completed_ms),
                failed_ms: either("failed", retention.failed_ms, retention.failed)?
                    .unwrap_or(default.retention.failed_ms),
                cancelled_ms: either("cancelled", retention.cancelled_ms, retention.cancelled)?
                    .unwrap_or(default.retention.cancelled_ms),
                keep: retention.keep.unwrap_or(default.retention.keep),
            },
            cache: fields.cache,
            durability: fields.durability,
        })
    }
}

/// How long ended jobs are kept, counted from their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// Completed jobs, ms, at least a minute.
    pub completed_ms: u64,
    /// Failed jobs, ms.
    pub failed_ms: u64,
    /// Cancelled jobs, ms.
    pub cancelled_ms: u64,
    /// Maximum number of ended jobs; 0 or absent: no limit.
    pub keep: u64,
}

impl Default for Retention {
    fn default() -> Self {
        let day = 86_400_000;
        Self { completed_ms: 7 * day, failed_ms: 30 * day, cancelled_ms: 30 * day, keep: 0 }
    }
}

/// When a job receives a copy of the result of an earlier job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// How long ago the earlier job may have ended, ms, at least 1.
    pub ms: u64,
    /// JSON pointers into the payload: two jobs do the same work if their payloads are equal there and their files are
    /// equal.
    pub by: Vec<String>,
}

/// All configured kinds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kinds {
    kinds: BTreeMap<Kind, KindConfig>,
    schedules: BTreeMap<ScheduleName, Declared>,
    dir: PathBuf,
    default: KindConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindsFile {
    #[serde(default)]
    kinds: BTreeMap<String, KindConfig>,
    #[serde(default)]
    schedules: BTreeMap<String, toml::Table>,
}

impl Kinds {
    /// Reads a kinds file.
    ///
    /// # Errors
    /// [`Error::Config`] names the file, the kind, and what to write instead.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let fault = |reason: String| Error::Config(format!("kinds file {}: {reason}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
        let dir = folder(path);
        Self::parse(&text, dir).map_err(fault)
    }

    /// The kinds file at `path`, to be followed.
    ///
    /// # Errors
    /// [`Kinds::load`]'s.
    pub fn open(path: &Path) -> Result<Followed<Self>, Error> {
        let dir = folder(path);
        Followed::open("kinds file", path, move |text| Self::parse(text, dir.clone()))
    }

    /// Reads the text of a kinds file in the folder `dir`.
    ///
    /// # Errors
    /// A sentence that names the kind and what to write instead.
    pub fn parse(text: &str, dir: PathBuf) -> Result<Self, String> {
        let file: KindsFile = toml::from_str(text).map_err(|e| e.to_string())?;
        let mut kinds = BTreeMap::new();
        for (name, config) in file.kinds {
            let kind = Kind::parse(&name).map_err(|e| e.to_string())?;
            check(&config).map_err(|reason| format!("[kinds.{name}]: {reason}"))?;
            kinds.insert(kind, config);
        }
        Ok(Self { kinds, schedules: schedules::read(file.schedules)?, dir, default: KindConfig::default() })
    }

    /// The settings of `kind`, or the defaults.
    pub fn get(&self, kind: &Kind) -> &KindConfig {
        self.kinds.get(kind).unwrap_or(&self.default)
    }

    /// Whether the file names `kind`.
    pub fn contains(&self, kind: &Kind) -> bool {
        self.kinds.contains_key(kind)
    }

    /// The kinds that the file names.
    pub fn iter(&self) -> impl Iterator<Item = (&Kind, &KindConfig)> {
        self.kinds.iter()
    }

    /// Whether there is no kinds file, or it is empty.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The settings to publish for other processes.
    pub fn published(&self) -> PublishedKinds {
        let kinds = self.kinds.iter().map(|(kind, config)| {
            let settings = serde_json::to_string(config).expect("settings are plain JSON");
            let published = PublishedKind {
                queue: config.queue_name(),
                max_attempts: config.max_attempts,
                timeout_ms: config.timeout_ms,
                max_running: config.max_running,
                durability: config.durability,
                digest: request_digest([settings.as_str()]),
            };
            (kind.clone(), published)
        });
        PublishedKinds { kinds: kinds.collect() }
    }

    /// These kinds, overridden by the published settings, so that a submit applies the same defaults as the API
    /// and the workers.
    pub fn with_published(mut self, published: &PublishedKinds) -> Self {
        for (kind, of) in &published.kinds {
            let config = self.kinds.entry(kind.clone()).or_default();
            config.queue = of.queue.to_string();
            config.max_attempts = of.max_attempts;
            config.timeout_ms = of.timeout_ms;
            config.max_running = of.max_running;
            config.durability = of.durability;
        }
        self
    }

    /// The command programs that were not found, on PATH or at their path, with their kinds.
    pub fn missing_programs(&self) -> Vec<(&Kind, String)> {
        let dir = self.dir.display().to_string();
        let commands = self.kinds.iter().filter_map(|(kind, config)| Some((kind, config.command.as_ref()?.first()?)));
        let programs = commands.map(|(kind, program)| (kind, program.replace("{dir}", &dir)));
        programs.filter(|(_, program)| !is_there(program)).collect()
    }

    /// The folder of the file, which replaces `{dir}`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The folder that `path` names. The file may be a link, as in a ConfigMap's volume, where its target is replaced with
/// each change: the folder of the target would be gone then.
fn folder(path: &Path) -> PathBuf {
    std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default()
}

/// Whether a program is a file that may be executed.
fn is_there(program: &str) -> bool {
    let may_run = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return may_run(Path::new(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| may_run(&folder.join(program)))
}

fn check_cache(config: &KindConfig) -> Result<(), String> {
    let Some(cache) = &config.cache else { return Ok(()) };
    if config.command.is_none() {
        return Err("cache is only for a kind with a command; remove it".into());
    }
    if !(1..=limits::DELAY_MS_MAX).contains(&cache.ms) {
        return Err(format!("cache.ms is {}; write 1 to {}", cache.ms, limits::DELAY_MS_MAX));
    }
    if cache.by.is_empty() {
        return Err("cache.by is empty, so all jobs would share one result; write cache.by = [\"/url\", …]".into());
    }
    let fault = cache.by.iter().find_map(|pointer| Some((pointer, canonical::pointer_fault(pointer)?)));
    fault.map_or(Ok(()), |(pointer, why)| Err(format!("cache.by has {pointer:?}: {why}")))
}

fn check(config: &KindConfig) -> Result<(), String> {
    check_cache(config)?;
    QueueName::parse(&config.queue).map_err(|e| e.to_string())?;
    if config.command.as_ref().is_some_and(|c| c.first().is_none_or(String::is_empty)) {
        return Err("command is empty; write command = [\"program\", \"argument\", …] or leave it out".into());
    }
    if !(1..=limits::ATTEMPTS_MAX).contains(&config.max_attempts) {
        return Err(format!("max_attempts is {}; write 1 to {}", config.max_attempts, limits::ATTEMPTS_MAX));
    }
    if config.timeout_ms.is_some_and(|ms| ms > limits::TIMEOUT_MS_MAX) {
        return Err(format!("timeout_ms is longer than a week; write at most {}", limits::TIMEOUT_MS_MAX));
    }
    if config.max_running == Some(0) {
        return Err("max_running is 0, so nothing would run; write at least 1, or leave it out for no limit".into());
    }
    let backoff = &config.backoff;
    if !(backoff.factor >= 1.0 && backoff.factor.is_finite()) {
        return Err(format!("backoff.factor is {}; write at least 1.0", backoff.factor));
    }
    if backoff.first_ms > backoff.max_ms || backoff.max_ms > limits::BACKOFF_MS_MAX {
        return Err(format!("backoff must have first_ms ≤ max_ms ≤ {} (a day)", limits::BACKOFF_MS_MAX));
    }
    let retention = &config.retention;
    for (name, ms) in [
        ("completed_ms", retention.completed_ms),
        ("failed_ms", retention.failed_ms),
        ("cancelled_ms", retention.cancelled_ms),
    ] {
        if !(60_000..=limits::DELAY_MS_MAX).contains(&ms) {
            return Err(format!("retention.{name} is {ms}; write 60000 (a minute) to {}", limits::DELAY_MS_MAX));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Kinds, String> {
        Kinds::parse(text, PathBuf::from("/x"))
    }

    #[test]
    fn a_kind_has_defaults_for_everything() {
        let kinds = parse("[kinds.a]\ncommand = [\"true\"]\n[kinds.b]\n").expect("valid");
        let a = kinds.get(&Kind::parse("a").expect("a kind"));
        assert_eq!((a.max_attempts, a.timeout_ms, a.queue.as_str()), (5, None, "default"));
        assert_eq!(kinds.iter().count(), 2);
    }

    #[test]
    fn a_duration_is_a_number_of_ms_or_a_text_with_a_unit() {
        let text = "[kinds.a]\ntimeout = \"60s\"\nbackoff = { first = \"500ms\", max_ms = 9000 }\n\
                    retention = { completed = \"7d\", failed_ms = 60000, cancelled = \"1h\" }";
        let kinds = parse(text).expect("valid");
        let a = kinds.get(&Kind::parse("a").expect("a kind"));
        assert_eq!((a.timeout_ms, a.backoff.first_ms, a.backoff.max_ms), (Some(60_000), 500, 9_000));
        let kept = a.retention;
        assert_eq!((kept.completed_ms, kept.failed_ms, kept.cancelled_ms), (604_800_000, 60_000, 3_600_000));
    }

    #[test]
    fn a_program_that_is_not_there_is_found_out() {
        let kinds = parse(
            "[kinds.a]\ncommand = [\"sh\"]\n[kinds.b]\ncommand = [\"no-such-program\"]\n\
             [kinds.c]\ncommand = [\"{dir}/c\"]\n[kinds.d]\n",
        );
        let kinds = kinds.expect("valid");
        let missing: Vec<_> =
            kinds.missing_programs().into_iter().map(|(kind, program)| (kind.as_str(), program)).collect();
        assert_eq!(missing, [("b", "no-such-program".to_owned()), ("c", "/x/c".to_owned())]);
    }

    #[test]
    fn a_typo_is_named() {
        for (text, named) in [
            ("[kinds.a]\nmax_atempts = 3", "max_atempts"),
            ("[kind.a]", "kind"),
            ("[kinds.A]", "kind \"A\""),
            ("[kinds.a]\nmax_running = 0", "[kinds.a]: max_running is 0"),
            ("[kinds.a]\nbackoff = { factor = 0.5 }", "backoff.factor is 0.5"),
            ("[kinds.a]\ncommand = []", "command is empty"),
            ("[kinds.a]\nretention = { failed_ms = 1 }", "retention.failed_ms is 1"),
            ("[kinds.a]\nmax_attempts = \"3\"", "max_attempts"),
            ("[kinds.a]\ncommand = \"echo hi\"", "write command = [\"echo\", \"hi\"]; there is no shell"),
            ("[kinds.a]\ntimeout = \"60\"", "\"60\" is not a duration"),
            ("[kinds.a]\ntimeout = 60", "for a number of ms use the name that ends in _ms"),
            ("[kinds.a]\ntimeout = \"6s\"\ntimeout_ms = 6", "timeout and timeout_ms are the same setting"),
            ("[kinds.a]\nbackoff = { frist = \"6s\" }", "frist"),
            ("[kinds.a]\ncache = { ms = 5, by = [\"/x\"] }", "[kinds.a]: cache is only for a kind with a command"),
            ("[kinds.a]\ncommand = [\"a\"]\ncache = { ms = 0, by = [\"/x\"] }", "[kinds.a]: cache.ms is 0"),
            ("[kinds.a]\ncommand = [\"a\"]\ncache = { ms = 315360000001, by = [\"/x\"] }", "cache.ms is 315360000001"),
            ("[kinds.a]\ncommand = [\"a\"]\ncache = { ms = 5, by = [] }", "[kinds.a]: cache.by is empty"),
            ("[kinds.a]\ncommand = [\"a\"]\ncache = { ms = 5, by = [\"url\"] }", "cache.by has \"url\""),
            ("[kinds.a]\ncommand = [\"a\"]\ncache = { ms = 5 }", "by"),
            ("[kinds.a]\ndurability = \"replicas:11\"", "write N from 0 to 10"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn what_was_published_replaces_what_a_file_says_and_differences_are_named() {
        let read = |text| Kinds::parse(text, "/".into()).expect("a kinds file");
        let (kind, other) = (Kind::parse("a").unwrap(), Kind::parse("b").unwrap());
        let published =
            read("[kinds.a]\nqueue = \"gpu\"\nmax_attempts = 1\nmax_running = 2\ndurability = \"replicas:1\"")
                .published();
        let kinds = read("[kinds.a]\nmax_attempts = 7\n[kinds.b]\nmax_attempts = 3").with_published(&published);
        let a = kinds.get(&kind);
        assert_eq!((a.queue.as_str(), a.max_attempts, a.max_running), ("gpu", 1, Some(2)));
        assert_eq!(a.durability.map(Durability::replicas), Some(1));
        assert_eq!(kinds.get(&other).max_attempts, 3);
        let same = read("[kinds.a]\ndurability = \"replicas:1\"\nmax_running = 2\nmax_attempts = 1\nqueue = \"gpu\"")
            .published();
        assert_eq!((same.differing(&published), same.digest()), (Vec::new(), published.digest()));
        let backoff = read("[kinds.a]\nqueue = \"gpu\"\nmax_attempts = 1\nmax_running = 2\nbackoff = { first_ms = 5 }");
        assert_eq!(backoff.published().differing(&published), vec![kind.clone()]);
        assert_ne!(backoff.published().digest(), published.digest());
        assert_eq!(read("[kinds.b]").published().differing(&published), [kind, other]);
    }
}
