//! PDF: reads a file's pages and text.
//!
//! [`document`] finds the objects and the pages, [`stream`] unpacks streams, [`content`] runs the operators that show
//! text on the state in [`pen`], [`font`] says which characters are shown, and [`layout`] puts spaces and line ends
//! between them. What cannot be read fails the document: a count that silently omits text would be worse. What all
//! readers repair is repaired: a wrong cross-reference, a wrong length, a missing end.

mod content;
mod document;
mod font;
mod layout;
mod pen;
mod repair;
mod stream;

use serde::{Deserialize, Serialize};

use super::text::{self, Sink};
use super::{ProcessError, open};
use crate::panics;
use document::Document;

/// How far from the start the header of a PDF may be, in bytes, as in other PDF readers.
const HEADER_BYTES: usize = 1024;
const MAGIC: &[u8] = b"%PDF-";

/// Why a PDF or one of its pages was not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::kinds) enum Refusal {
    Encrypted,
    Broken(String),
    TooCostly(String),
}

impl Refusal {
    /// The error for the file.
    pub fn into_error(self, file: String) -> ProcessError {
        match self {
            Self::Encrypted => ProcessError::EncryptedPdf { file },
            Self::Broken(reason) => ProcessError::BrokenPdf { file, reason: open::shown(&reason) },
            Self::TooCostly(reason) => ProcessError::PdfTooCostly { file, reason: open::shown(&reason) },
        }
    }

    /// With the page, counted from 1.
    fn on_page(self, page: usize) -> Self {
        match self {
            Self::Encrypted => Self::Encrypted,
            Self::Broken(reason) => Self::Broken(format!("page {page}: {reason}")),
            Self::TooCostly(reason) => Self::TooCostly(format!("page {page}: {reason}")),
        }
    }
}

/// Whether this is a PDF by its content. A text that only mentions the header within a line is not one.
pub(in crate::kinds) fn is_pdf(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(HEADER_BYTES)];
    let Some(at) = head.windows(MAGIC.len()).position(|window| window == MAGIC) else { return false };
    let before = head[..at].strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&head[..at]);
    match before.last() {
        None | Some(b'\n' | b'\r') => true,
        Some(_) => before.iter().all(u8::is_ascii_whitespace) || text::count(bytes).is_err(),
    }
}

/// Reads a PDF's text into `sink` and returns its number of pages. `progress` gets the fraction done, from 0 to 1,
/// after each page.
pub(in crate::kinds) fn read(
    bytes: Vec<u8>,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(f64),
) -> Result<u64, Refusal> {
    let read = || {
        let document = Document::open(bytes)?;
        let pages = document.pages()?;
        let mut reader = content::Reader::new(&document);
        for (index, page) in pages.iter().enumerate() {
            reader.read_page(page, sink).map_err(|refusal| refusal.on_page(index + 1))?;
            sink.end_page();
            progress((index + 1) as f64 / pages.len() as f64);
        }
        Ok(pages.len() as u64)
    };
    panics::quietly(read).unwrap_or_else(|panic| Err(Refusal::Broken(format!("the PDF library failed: {panic}"))))
}
