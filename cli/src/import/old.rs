//! What the old stores have in common: the states of a job, and records that are files named by an id.
use std::path::Path;

use leasehold::Timestamp;
use leasehold::store::Ending;

/// How a job stood.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Status {
    Open,
    Completed,
    Failed,
    Cancelled,
}

/// A folder that has the name of a record stands in its place.
pub(super) fn is_record(folder: &Path) -> bool {
    folder.extension().is_some_and(|ending| ending == "json")
}

/// The id that the name of a file says, and what is wrong when its record says another that has a file of its own.
pub(super) fn named<'a>(path: &'a Path, head: &str) -> Option<&'a str> {
    let stem = path.file_stem()?.to_str()?;
    Some(stem.strip_prefix(head).unwrap_or(stem))
}

/// Why a copy of a record that has a file of its own is left out.
pub(super) fn is_copy(path: &Path, file: &str) -> Option<String> {
    let own = path.with_file_name(file);
    let differs = path.file_name().is_some_and(|name| name != file);
    (differs && own.is_file()).then(|| format!("its id is that of {}, which is taken", own.display()))
}

/// A failure of what had not ended and cannot run here.
pub(super) fn cannot_run(why: &str, at: Timestamp) -> (Ending, String) {
    let message = format!("it had not ended in the old store, and cannot run: {why}");
    let note = format!("imported as failed: {message}");
    (Ending::Failed { message, at }, note)
}
