//! Logging: its settings, and its setup, once in each `main`. Lines go to standard error, so that standard output
//! carries a command's output only. The reader of standard error may go away at any time, so a line that cannot be
//! written is dropped.
use std::fmt::Display;
use std::io::Write;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::Error;

/// Logging of the programs, to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Which events, as `info` or `leasehold=debug,warn` (tracing's filter syntax).
    pub filter: String,
    /// `text` for people or `json`, a line an event.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum LogFormat {
    /// Human-readable.
    Text,
    /// Machine-readable.
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("log.format is {word:?}; write text or json")),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// Sets up logging for the process. A second call in one process changes nothing.
///
/// # Errors
/// [`Error::Config`] when the filter is not valid.
pub fn init(config: &LogConfig) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|e| Error::Config(format!("log.filter: {e}; write a level such as info, or target=level,…")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would report a failed write by `eprintln!`, which panics when standard error is closed.
    let builder = builder.log_internal_errors(false);
    drop(match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    });
    Ok(())
}

/// Writes a line to standard error, for messages before logging is set up or outside it. Unlike `eprintln!` it does not
/// panic when standard error is closed.
pub fn say(line: impl Display) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
