//! The built-in kind `process-files`: reads one document below a root, counts its text and hashes its bytes.
//!
//! [`process`] blocks and is independent of jobs and Redis. The handler calls it off the async threads, passes its
//! progress on and turns [`ProcessError::is_retryable`] into a retry or a final failure.
//!
//! Limitations: [`process`] cannot be stopped from outside. A PDF is abandoned after [`PDF_SECONDS_MAX`], but only
//! between two pages or two pieces of text. A malicious PDF can still occupy its thread for longer or exhaust memory,
//! with a compressed cross-reference or the ranges of a character map, which the library always expands; the worker
//! then crashes, which is counted as a crash of the job.

/// Used by other kinds that read documents.
#[cfg(feature = "web")]
pub(super) mod content {
    pub(in crate::kinds) use super::pdf::{is_pdf, read as read_pdf};
    pub(in crate::kinds) use super::text::{Sink, read as read_text};
}
mod open;
mod page;
mod pdf;
#[cfg(test)]
mod tests;
mod text;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leasehold::{Config, Kind};
use serde::{Deserialize, Serialize};

use crate::attempt::context::Context;
use crate::error::{self, Error};
use crate::failure::{Done, Failure};
use crate::handler::Registry;

/// The maximum size of a file, in bytes: each slot of the worker may hold one in memory.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long extracting the text of one PDF may take, in seconds. A book of 1,200 pages takes four.
pub const PDF_SECONDS_MAX: u64 = 60;

/// The payload of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Path of the document, relative to the document root.
    pub file: String,
    /// The reason to skip the job, if it is to be skipped. The routes of file batches set it for a file without a name
    /// and for a duplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<String>,
}

/// The counts of a document: the job's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The name as it was submitted.
    pub file: String,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// Pages of a PDF. For plain text, the number of form feeds plus one, not counting a form feed at the very end; an
    /// empty text has one page.
    pub pages: u64,
    /// Words as of [`str::split_whitespace`]: separated by Unicode white space.
    pub words: u64,
    /// Unicode scalar values of the extracted text, including white space but not a byte order mark. For a PDF they
    /// include the spaces and line ends that the extraction inserts at gaps on the page, so other extractors count
    /// differently.
    pub characters: u64,
    /// SHA-256 of the file's bytes, as 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Why a document could not be processed. The text may be shown to clients: it names the file as submitted, never the
/// root.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The name is empty.
    #[error("The file name is empty")]
    EmptyName,
    /// The file does not exist, or is outside the root.
    #[error("File not found: {file}")]
    NotFound {
        /// The name as submitted.
        file: String,
    },
    /// A directory, a pipe, a device or a socket.
    #[error("Not a regular file: {file}")]
    NotAFile {
        /// The name as submitted.
        file: String,
    },
    /// The document root itself cannot be reached, as when a volume is not mounted.
    #[error("The document root cannot be read: {source}")]
    RootUnreadable {
        /// The system's error.
        source: io::Error,
    },
    /// The file exists but the system refuses to read it.
    #[error("File could not be read: {file}: {source}")]
    Unreadable {
        /// The name as submitted.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// Over [`FILE_BYTES_MAX`].
    #[error("File is larger than {} MiB: {file}", FILE_BYTES_MAX / 1024 / 1024)]
    TooLarge {
        /// The name as submitted.
        file: String,
    },
    /// The file is neither a PDF nor text.
    #[error("Not a text or PDF document: {file}: {reason}")]
    NotText {
        /// The name as submitted.
        file: String,
        /// Why it is not text.
        reason: String,
    },
    /// A PDF that opens only with a password.
    #[error("PDF is encrypted and needs a password: {file}")]
    EncryptedPdf {
        /// The name as submitted.
        file: String,
    },
    /// The PDF is damaged, or the PDF library does not support it.
    #[error("PDF could not be read: {file}: {reason}")]
    BrokenPdf {
        /// The name as submitted.
        file: String,
        /// The fault, with the page if known.
        reason: String,
    },
    /// The decompressed PDF exceeds a limit.
    #[error("PDF asks for too much memory: {file}: {reason}")]
    PdfTooCostly {
        /// The name as submitted.
        file: String,
        /// The limit that was exceeded.
        reason: String,
    },
    /// The PDF took longer than [`PDF_SECONDS_MAX`], possibly because the machine is busy.
    #[error("PDF took longer than {} s to read: {file}", PDF_SECONDS_MAX)]
    OutOfTime {
        /// The name as submitted.
        file: String,
    },
}

impl ProcessError {
    /// Whether the same file may succeed later: the cause is the system, not the name or the content.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::RootUnreadable { .. } | Self::Unreadable { .. } | Self::OutOfTime { .. })
    }
}

/// Reads the document `file` below `root` and counts its text. Blocks; uses a few times the file's size in memory.
///
/// `progress` gets a percentage from 0 to 100 and the phase, `reading` or `extracting text`; it is called at most once
/// per page and must not panic. A file is a PDF if a header is found in its first 1,024 bytes.
pub fn process(root: &Path, file: &str, progress: &mut dyn FnMut(f64, &str)) -> Result<Report, ProcessError> {
    progress(0.0, "reading");
    let document = open::read(root, file)?;
    progress(10.0, "extracting text");
    let mut extracted = |share: f64| progress(10.0 + 90.0 * share, "extracting text");
    let (pages, tally) = if pdf::is_pdf(&document.content) {
        let deadline = Instant::now() + Duration::from_secs(PDF_SECONDS_MAX);
        let mut tally = text::Tally::default();
        let should_stop = || Instant::now() > deadline;
        (pdf::read(file, &document.content, &should_stop, &mut tally, &mut extracted)?, tally)
    } else {
        let counted = text::count(&document.content);
        extracted(1.0);
        counted.map_err(|reason| ProcessError::NotText { file: open::shown(file), reason })?
    };
    Ok(Report {
        file: file.to_owned(),
        bytes: document.content.len() as u64,
        pages,
        words: tally.words,
        characters: tally.characters,
        sha256: document.sha256,
    })
}

/// Serves the kind below this document root.
pub(super) fn serve(registry: &mut Registry, kind: Kind, root: &Path, config: &Config) -> Result<(), Error> {
    if !root.is_dir() {
        let shown = root.display();
        return Err(error::config(format!(
            "document_root {shown} is not a folder; set it to the folder of the documents"
        )));
    }
    let root: PathBuf = root.into();
    let handler = move |context: Context, payload: Payload| run(root.clone(), context, payload);
    registry.add(kind, handler, &config.limits).map_err(error::config)
}

/// Reads one document, off the async threads.
async fn run(root: PathBuf, context: Context, payload: Payload) -> Result<Done<Report>, Failure> {
    if let Some(reason) = payload.skip {
        return Ok(Done::Skipped(reason));
    }
    let reading = tokio::task::spawn_blocking(move || {
        // Holds the context, and so the slot, until reading ends, since it cannot be stopped.
        let mut progress = |percent: f64, phase: &str| context.progress(percent, phase);
        process(&root, &payload.file, &mut progress)
    });
    match reading.await {
        Ok(Ok(report)) => Ok(report.into()),
        Ok(Err(e)) if e.is_retryable() => Err(Failure::new(e.to_string())),
        Ok(Err(e)) => Err(Failure::fatal(e.to_string())),
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(e) => Err(Failure::new(format!("reading was interrupted: {e}"))),
    }
}
