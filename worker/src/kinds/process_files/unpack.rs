//! Bounds the decompressed size of a PDF's streams, before the PDF library decompresses them without a limit.

use std::cell::RefCell;
use std::io::{self, Read};

use flate2::read::DeflateDecoder;
use pdf_extract::{Dictionary, Document, Object, ObjectId, Stream};

use super::{ProcessError, open};

/// The maximum decompressed size of a stream, in bytes. Deflate compresses up to a thousand to one, so a small file can
/// hold a very large stream.
const STREAM_BYTES_MAX: u64 = 64 * 1024 * 1024;
const DEFLATE_RATIO_MAX: u64 = 1032;
/// LZW codes of 12 bits, each for at most 3,840 bytes.
const LZW_RATIO_MAX: u64 = 2560;

/// Why a PDF or one of its pages was not read.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    Encrypted,
    Broken(String),
    TooCostly(String),
    OutOfTime,
}

impl Refusal {
    /// The error for the file, with the page, counted from 1, if there is one.
    pub fn into_error(self, file: String, page: Option<usize>) -> ProcessError {
        let placed = |reason: String| match (page, open::shown(&reason)) {
            (Some(page), reason) => format!("page {page}: {reason}"),
            (None, reason) => reason,
        };
        match self {
            Self::Encrypted => ProcessError::EncryptedPdf { file },
            Self::Broken(reason) => ProcessError::BrokenPdf { file, reason: placed(reason) },
            Self::TooCostly(reason) => ProcessError::PdfTooCostly { file, reason: placed(reason) },
            Self::OutOfTime => ProcessError::OutOfTime { file },
        }
    }
}

impl From<pdf_extract::Error> for Refusal {
    fn from(error: pdf_extract::Error) -> Self {
        use pdf_extract::Error::{Decryption, InvalidPassword, Unimplemented, UnsupportedSecurityHandler};
        match error {
            Decryption(_) | InvalidPassword | UnsupportedSecurityHandler(_) => Self::Encrypted,
            Unimplemented(feature) => Self::Broken(format!("it needs {feature}, which is not supported")),
            error => Self::Broken(error.to_string()),
        }
    }
}

thread_local! {
    static LAST_REFUSAL: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// Checks each object while a file is loaded, before the object streams are decompressed. The library takes a plain
/// function, so a refusal is kept for [`take_refusal`].
pub(super) fn admit(id: ObjectId, object: &mut Object) -> Option<(ObjectId, Object)> {
    let Object::Stream(stream) = object else {
        return Some((id, object.clone()));
    };
    if stream.dict.has_type(b"ObjStm")
        && let Err(refusal) = unpacked_bytes(stream)
    {
        LAST_REFUSAL.set(Some(refusal));
        return None;
    }
    // The library uses the return value only for objects from object streams, which are never streams themselves.
    Some((id, Object::Null))
}

pub(super) fn clear_refusal() {
    LAST_REFUSAL.set(None);
}

pub(super) fn take_refusal() -> Result<(), Refusal> {
    LAST_REFUSAL.take().map_or(Ok(()), Err)
}

/// Refuses a document with a stream, such as a font's, whose decompressed size is over the limit. Damage is reported by
/// the reader of the stream. Images are emptied: they are not read, and may be large.
pub(super) fn check_streams(document: &mut Document) -> Result<(), Refusal> {
    for stream in document.objects.values_mut().filter_map(|object| object.as_stream_mut().ok()) {
        if stream.dict.get(b"Subtype").and_then(Object::as_name).is_ok_and(|subtype| subtype == b"Image") {
            *stream = Stream::new(Dictionary::new(), Vec::new());
        } else if let Err(refusal @ Refusal::TooCostly(_)) = unpacked_bytes(stream) {
            return Err(refusal);
        }
    }
    Ok(())
}

/// A decompressed content stream. Damage is an error here, where the library would use the readable part.
pub(super) fn unpacked(stream: &Stream) -> Result<Vec<u8>, Refusal> {
    unpacked_bytes(stream)?;
    if stream.filters().is_err() {
        return Ok(stream.content.clone());
    }
    Ok(stream.decompressed_content()?)
}

/// The decompressed size of a stream, computed without storing it; for an unusual chain of filters, an upper bound.
fn unpacked_bytes(stream: &Stream) -> Result<u64, Refusal> {
    let filters = stream.filters().unwrap_or_default();
    let bytes = match filters.as_slice() {
        [b"FlateDecode"] => inflated_bytes(&stream.content)?,
        [b"ASCII85Decode", b"FlateDecode"] => {
            let mut outer = stream.clone();
            outer.dict.set("Filter", "ASCII85Decode");
            inflated_bytes(&outer.decompressed_content()?)?
        }
        filters => filters.iter().fold(stream.content.len() as u64, |bytes, filter| {
            bytes.saturating_mul(match *filter {
                b"FlateDecode" => DEFLATE_RATIO_MAX,
                b"LZWDecode" => LZW_RATIO_MAX,
                // A `z` stands for four bytes.
                b"ASCII85Decode" => 4,
                _ => 1,
            })
        }),
    };
    if bytes > STREAM_BYTES_MAX {
        return Err(Refusal::TooCostly(format!(
            "a stream decompresses to more than {} MiB",
            STREAM_BYTES_MAX / 1024 / 1024
        )));
    }
    Ok(bytes)
}

/// The decompressed size of deflated data, counted to just over [`STREAM_BYTES_MAX`].
fn inflated_bytes(packed: &[u8]) -> Result<u64, Refusal> {
    // Skips the header of two bytes. The checksum at the end is ignored, as viewers do.
    let Some(deflated) = packed.get(2..) else {
        return Ok(0);
    };
    io::copy(&mut DeflateDecoder::new(deflated).take(STREAM_BYTES_MAX + 1), &mut io::sink())
        .map_err(|error| Refusal::Broken(format!("a compressed stream is damaged: {error}")))
}
