//! Logging, set up once by each `main`: to standard error, so that a command's output stays its own.
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
    drop(match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    });
    Ok(())
}
