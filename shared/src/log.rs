//! Logging, set up once by each `main`: to standard error, so that a command's output stays its own. Whoever reads it may go
//! away at any time, so what cannot be written is dropped.
use std::fmt::Display;
use std::io::Write;

use tracing_subscriber::EnvFilter;

use crate::Error;
use crate::config::{LogConfig, LogFormat};

/// Sets up logging for the process. A second call in one process changes nothing.
///
/// # Errors
/// [`Error::Config`] when the filter is none.
pub fn init(config: &LogConfig) -> Result<(), Error> {
    // The PDF libraries warn of every glyph they do not know; a filter that names them still shows it.
    let filter = EnvFilter::try_new(format!("pdf_extract=error,lopdf=error,{}", config.filter))
        .map_err(|e| Error::Config(format!("log.filter: {e}; write a level such as info, or target=level,…")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would tell of a failed write by `eprintln!`, which panics when standard error is closed.
    let builder = builder.log_internal_errors(false);
    drop(match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    });
    Ok(())
}

/// Writes a line to standard error, for what is said before logging is set up or after it: unlike `eprintln!` without a panic
/// when nobody reads it.
pub fn say(line: impl Display) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
