//! Logging: its settings, and its setup, once in each `main`. Lines go to standard error, so that standard output
//! carries a command's output only. The reader of standard error may go away at any time, so a line that cannot be
//! written is dropped.
use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::Error;

/// The time between two lines about events of one sort that may be very frequent.
const SELDOM: Duration = Duration::from_secs(10);

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Lines(io::stderr()));
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
    drop(writeln!(io::stderr(), "{line}"));
}

/// Counts events that a client can cause as often as it likes; a line about them is written once in 10 s at most.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Counts an event. When a line is due, returns the number of events since the last line.
    pub fn due(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, count) = &mut *state;
        *count += 1;
        if last.is_some_and(|last| last.elapsed() < SELDOM) {
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(count))
    }
}

/// Writes each event as one line. Messages carry texts of jobs and clients, whose control characters could begin lines
/// of their own or steer a terminal.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    /// tracing writes an event at once, with the line break at its end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        self.0.write_all(format!("{}\n", one_line(line)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The text with its control characters, and those that reorder or break lines, as JSON escapes them.
fn one_line(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if steers(c) => drop(write!(line, "\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_texts_are() {
        let mut written = Vec::new();
        let event = "WARN a job: x\n2026-01-01 ERROR forged\r\u{1b}[31m\t\u{7f}\u{85}\u{2028}\u{202e}\0é\n";
        Lines(&mut written).write_all(event.as_bytes()).unwrap();
        let line = "WARN a job: x\\n2026-01-01 ERROR forged\\r\\u001b[31m\\t\\u007f\\u0085\\u2028\\u202e\\u0000é\n";
        assert_eq!(String::from_utf8(written).unwrap(), line);
    }

    #[test]
    fn what_is_frequent_is_logged_seldom() {
        let seldom = Seldom::default();
        assert_eq!([seldom.due(), seldom.due(), seldom.due()], [Some(1), None, None]);
    }
}
