//! The arguments that commands share: where Redis is, the form of the output, times and durations.
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use leasehold::config::{LogConfig, Setting};
use leasehold::{Config, Error, Store, Timestamp};

use crate::backend::Backend;
use crate::failure::Failure;
use crate::print::without_password;

/// How long a command retries during an outage of Redis, ms.
const OUTAGE_MS_MAX: u64 = 2_000;

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// Where Redis is, in place of LEASEHOLD_REDIS_URL, as `redis://user:password@host:port`; `rediss://` for TLS.
    #[arg(long, value_name = "URL", help_heading = "Common options")]
    pub redis_url: Option<String>,
    /// The configuration file, in place of ./leasehold.toml.
    #[arg(long, value_name = "FILE", help_heading = "Common options")]
    pub config: Option<PathBuf>,
}

/// The API to work through.
#[derive(Debug, Clone, Args)]
pub(crate) struct Via {
    /// Work through the HTTP API there, in place of LEASEHOLD_API_URL; without either, straight on Redis.
    #[arg(long, value_name = "URL", conflicts_with_all = ["redis_url", "config"], help_heading = "Common options")]
    api: Option<String>,
    /// The token for the API, in place of LEASEHOLD_API_TOKEN; others on this machine can see it in the list of
    /// processes.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", help_heading = "Common options")]
    token: Option<Secret>,
    /// The file that holds the token for the API, in place of LEASEHOLD_API_TOKEN_FILE.
    #[arg(long, value_name = "FILE", help_heading = "Common options")]
    token_file: Option<PathBuf>,
}

/// A text that is never shown.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// For a command that needs Redis, or this machine: `--api` is accepted, and refused with the reason.
#[derive(Debug, Clone, Args)]
pub(crate) struct NotVia {
    #[arg(long, value_name = "URL", hide = true)]
    api: Option<String>,
}

/// Where the configuration comes from, the API to work through, and the form of the output.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    via: Via,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table", help_heading = "Common options")]
    pub output: Output,
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs: the shapes of the HTTP API.
    Json,
}

impl Source {
    /// Reads file, environment, and these flags and `more`.
    pub(crate) fn load(&self, more: impl IntoIterator<Item = (&'static str, String)>) -> Result<Config, Failure> {
        let flags = self.redis_url.iter().map(|url| ("redis_url", url.clone())).chain(more);
        Ok(Config::load(self.config.as_deref(), &flags.collect::<Vec<_>>())?)
    }
}

impl Source {
    /// The settings that [`Source::load`] reads, and where each comes from.
    pub(crate) fn settings(&self) -> Result<Vec<Setting>, Failure> {
        let flags: Vec<_> = self.redis_url.iter().map(|url| ("redis_url", url.clone())).collect();
        Ok(Config::settings(self.config.as_deref(), &flags)?)
    }
}

impl Via {
    /// The address of the API, if one is to be used.
    fn address(&self, source: &Source) -> Option<String> {
        let names_redis = source.redis_url.is_some() || source.config.is_some();
        self.api.clone().or_else(|| variable("LEASEHOLD_API_URL").filter(|_| !names_redis))
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let file = || self.token_file.clone().or_else(|| variable("LEASEHOLD_API_TOKEN_FILE").map(PathBuf::from));
        if let Some(Secret(token)) = &self.token {
            return Ok(Some(token.clone()));
        }
        let named = if self.token_file.is_some() { None } else { variable("LEASEHOLD_API_TOKEN") };
        let Some(path) = file().filter(|_| named.is_none()) else { return Ok(named) };
        let fault = |e| Failure::Usage(format!("--token-file {}: {e}", path.display()));
        Ok(Some(std::fs::read_to_string(&path).map_err(fault)?.trim().to_owned()))
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

impl NotVia {
    /// Refuses `--api`; `why` ends the sentence.
    pub(crate) fn check(&self, why: &str) -> Result<(), Failure> {
        match &self.api {
            None => Ok(()),
            Some(_) => Err(Failure::Usage(format!("--api is not for this command: {why}"))),
        }
    }
}

impl Source {
    /// [`Source::load`] for a command: sets up logging when it is configured.
    pub(crate) fn load_for_command(&self) -> Result<Config, Failure> {
        let mut config = self.load([])?;
        // A person waits for the answer, or a script that can call again.
        config.redis.outage_ms = config.redis.outage_ms.min(OUTAGE_MS_MAX);
        // The answer of a command is its output: it logs only when more than the default is configured.
        if config.log != LogConfig::default() {
            leasehold::log::init(&config.log)?;
        }
        Ok(config)
    }
}

impl Common {
    /// The backend that the arguments select.
    pub(crate) async fn backend(&self) -> Result<Backend, Failure> {
        if let Some(address) = self.via.address(&self.source) {
            return Backend::http(&address, self.via.token()?.as_deref());
        }
        if self.via.token.is_some() || self.via.token_file.is_some() {
            return Err(Failure::Usage("a token is for the API: give --api URL, or LEASEHOLD_API_URL, too".into()));
        }
        let config = self.source.load_for_command()?;
        let store = reached(Store::connect(&config).await, &config)?;
        Ok(Backend::redis(store, config))
    }

    /// Whether the output is for programs.
    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }
}

/// The Store; or an error with the address of Redis and how to give another.
pub(crate) fn reached(store: leasehold::Result<Store>, config: &Config) -> Result<Store, Failure> {
    store.map_err(|e| match e {
        Error::Unavailable(reason) if reason.contains("maxclients") => Failure::Failed(reason),
        Error::Unavailable(reason) | Error::OutcomeUnknown(reason) => {
            let address = without_password(&config.redis_url);
            let advice = "start one (`leasehold up` does), or name yours with LEASEHOLD_REDIS_URL or --redis-url";
            Failure::Failed(format!("no Redis answers at {address} ({reason}); {advice}"))
        }
        other => other.into(),
    })
}

/// Reads a duration with its unit: `500ms`, `5s`, `2m`, `1h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    leasehold::duration::parse(text)
}

/// Reads an RFC 3339 time.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
}
