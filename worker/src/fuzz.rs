//! What the fuzzers and the tests that replay their finds call; not part of the interface.
use crate::kinds::command::output;
#[cfg(feature = "web")]
use crate::kinds::gap_analysis::document;
use crate::kinds::process_files;

/// Counts a document, as the reader of process-files does in its own process.
pub fn document(mut bytes: &[u8]) {
    drop(process_files::work(&mut bytes, &mut |_| {}));
}

/// Reads what a command printed.
pub fn command_output(bytes: &[u8]) {
    output::read_all(bytes);
}

/// Reads a document that gap-analysis has fetched.
#[cfg(feature = "web")]
pub fn web_document(bytes: &[u8]) {
    // The first byte chooses what the server said of it.
    let (first, body) = bytes.split_first().unwrap_or((&0, &[]));
    let types = ["text/html", "text/html; charset=utf-16le", "text/plain", "application/octet-stream", ""];
    document::read_any(body.to_vec(), types[usize::from(*first) % types.len()]);
}
