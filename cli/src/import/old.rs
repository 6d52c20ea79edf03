//! What the old stores have in common: the states of a job, and records that are files named by an id.
use std::path::Path;

use leasehold::Timestamp;
use leasehold::store::Ending;

/// The state of a job in its old store.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Status {
    Open,
    Completed,
    Failed,
    Cancelled,
}

/// Whether a folder has the name of a record, in whose place it is.
pub(super) fn is_record(folder: &Path) -> bool {
    folder.extension().is_some_and(|ending| ending == "json")
}

/// The id that the name of a record's file says.
pub(super) fn named<'a>(path: &'a Path, head: &str) -> Option<&'a str> {
    let stem = path.file_stem()?.to_str()?;
    Some(stem.strip_prefix(head).unwrap_or(stem))
}

/// Why a record is left out as a copy: its id is that of another file.
pub(super) fn is_copy(path: &Path, file: &str) -> Option<String> {
    let own = path.with_file_name(file);
    let differs = path.file_name().is_some_and(|name| name != file);
    (differs && own.is_file()).then(|| format!("its id is that of {}, which is used", own.display()))
}

/// The failure of a job that had not ended and cannot run here.
pub(super) fn cannot_run(why: &str, at: Timestamp) -> (Ending, String) {
    let message = format!("it had not ended in the old store, and cannot run: {why}");
    let note = format!("imported as failed: {message}");
    (Ending::Failed { message, at }, note)
}
