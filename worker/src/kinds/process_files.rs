//! The built-in kind `process-files`: reads one document below a root, counts its text and hashes its bytes.
//!
//! The handler finds the file and opens it; a process of its own reads it (see `reader`), with `count`.

/// Used by other kinds that read documents.
#[cfg(feature = "web")]
pub(super) mod content {
    pub(in crate::kinds) use super::pdf::{Refusal, is_pdf, read as read_pdf};
    pub(in crate::kinds) use super::text::{Sink, read as read_text};
}
mod open;
mod pdf;
#[cfg(test)]
mod tests;
mod text;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leasehold::{Config, Kind};
use serde::{Deserialize, Serialize};

use crate::attempt::context::Context;
use crate::error::{self, Error};
use crate::failure::{Done, Failure};
use crate::handler::Registry;
use crate::reader::{Input, ReadError, Readers};
use pdf::Refusal;

/// The name of this kind's task for a reader.
pub(super) const TASK: &str = "count";
/// The maximum size of a file, in bytes: a reader holds it in memory.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

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
    /// Words as of [`str::split_whitespace`]: separated by Unicode white space. In a PDF a word that is hyphenated at
    /// the end of a line is one word, as are letters that are set apart, and Chinese and Japanese text runs on over the
    /// end of a line.
    pub words: u64,
    /// Unicode scalar values of the extracted text, including white space but not a byte order mark, nor NUL characters
    /// at the end. For a PDF they include the spaces and line ends that the extraction inserts at gaps on the page, so
    /// other extractors count differently; a ligature is its letters, and a character whose font does not say which one
    /// it is counts as one.
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
    /// The reader gave no answer: the document needs more memory or time than a reader has, or the reader was killed.
    #[error("File could not be read: {file}: {reason}")]
    NotRead {
        /// The name as submitted.
        file: String,
        /// What happened to the reader.
        reason: String,
        /// Whether the same file may be read later.
        is_retryable: bool,
    },
}

impl ProcessError {
    /// Whether the same file may succeed later: the cause is the system, not the name or the content.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::RootUnreadable { .. } | Self::Unreadable { .. } | Self::NotRead { is_retryable: true, .. })
    }

    fn not_read(file: &str, error: &ReadError) -> Self {
        let (reason, is_retryable) = (open::shown(&error.to_string()), error.is_retryable());
        Self::NotRead { file: open::shown(file), reason, is_retryable }
    }
}

/// What the reader counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    bytes: u64,
    pages: u64,
    words: u64,
    characters: u64,
    sha256: String,
}

/// Why a document was not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Fault {
    TooLarge,
    NotText(String),
    Pdf(Refusal),
}

impl Fault {
    fn into_error(self, file: &str) -> ProcessError {
        let file = open::shown(file);
        match self {
            Self::TooLarge => ProcessError::TooLarge { file },
            Self::NotText(reason) => ProcessError::NotText { file, reason: open::shown(&reason) },
            Self::Pdf(refusal) => refusal.into_error(file),
        }
    }
}

/// Reads a document and counts its text. `progress` gets the fraction done. A file is a PDF if a header is found in its
/// first 1,024 bytes.
///
/// # Errors
/// The document cannot be read to its end.
fn count(document: &mut dyn Read, progress: &mut dyn FnMut(f64)) -> io::Result<Result<Counts, Fault>> {
    let Some(open::Content { bytes, sha256 }) = open::read(document)? else { return Ok(Err(Fault::TooLarge)) };
    let length = bytes.len() as u64;
    let counted = if pdf::is_pdf(&bytes) {
        let mut tally = text::Tally::of_page();
        pdf::read(bytes, &mut tally, progress).map(|pages| (pages, tally)).map_err(Fault::Pdf)
    } else {
        text::count(&bytes).map_err(Fault::NotText)
    };
    progress(1.0);
    Ok(counted.map(|(pages, text::Tally { words, characters, .. })| Counts {
        bytes: length,
        pages,
        words,
        characters,
        sha256,
    }))
}

/// The reader's work: [`count`], as JSON.
pub(crate) fn work(document: &mut dyn Read, progress: &mut dyn FnMut(f64)) -> io::Result<String> {
    Ok(serde_json::to_string(&count(document, progress)?)?)
}

/// Serves the kind below this document root.
pub(super) fn serve(
    registry: &mut Registry,
    kind: Kind,
    root: &Path,
    config: &Config,
    readers: &Arc<Readers>,
) -> Result<(), Error> {
    if !root.is_dir() {
        let shown = root.display();
        return Err(error::config(format!(
            "document_root {shown} is not a folder; set it to the folder of the documents"
        )));
    }
    let (root, readers): (PathBuf, _) = (root.into(), Arc::clone(readers));
    let handler = move |context: Context, payload: Payload| run(root.clone(), Arc::clone(&readers), context, payload);
    registry.add(kind, handler, &config.limits).map_err(error::config)
}

/// Reads one document.
async fn run(
    root: PathBuf,
    readers: Arc<Readers>,
    context: Context,
    payload: Payload,
) -> Result<Done<Report>, Failure> {
    if let Some(reason) = payload.skip {
        return Ok(Done::Skipped(reason));
    }
    context.progress(0.0, "reading");
    let read = tokio::select! {
        read = read(root, &readers, &context, payload.file) => read,
        () = context.cancelled() => return Err(Failure::new("reading was stopped")),
    };
    match read {
        Ok(report) => Ok(report.into()),
        Err(e) if e.is_retryable() => Err(Failure::new(e.to_string())),
        Err(e) => Err(Failure::fatal(e.to_string())),
    }
}

async fn read(root: PathBuf, readers: &Readers, context: &Context, file: String) -> Result<Report, ProcessError> {
    let name = file.clone();
    // The file system may take a while.
    let opening = tokio::task::spawn_blocking(move || open::find(&root, &name));
    let interrupted = |e: tokio::task::JoinError| ReadError::System(format!("was never started: {e}"));
    let opened = opening.await.map_err(|e| ProcessError::not_read(&file, &interrupted(e)))??;
    context.progress(10.0, "extracting text");
    let mut progress = |fraction: f64| context.progress(10.0 + 90.0 * fraction, "extracting text");
    let answer = readers.read::<Result<Counts, Fault>>([TASK, ""], Input::File(opened), &mut progress).await;
    let counted = answer.map_err(|e| ProcessError::not_read(&file, &e))?;
    let Counts { bytes, pages, words, characters, sha256 } = counted.map_err(|fault| fault.into_error(&file))?;
    Ok(Report { file, bytes, pages, words, characters, sha256 })
}
