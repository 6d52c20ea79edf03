//! What the old stores have in common: the states of a job, and records that are files named by an id.
use std::path::Path;

use leasehold::store::Ending;
use leasehold::{Json, Timestamp};

use super::fields::Fields;

/// The state of a job in its old store.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Status {
    Open,
    Completed,
    Failed,
    Cancelled,
}

/// The status, or that of a record which has the time of its end as well: its service died before it wrote the status.
pub(super) fn ended_or(status: Status, fields: &Fields, end: &str) -> Status {
    let has_ended = fields.time(end).is_ok_and(|at| at.is_some());
    match status {
        Status::Open if has_ended && ["error_message", "error"].iter().any(|name| fields.get(name).is_some()) => {
            Status::Failed
        }
        Status::Open if has_ended => Status::Completed,
        status => status,
    }
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

/// The end of an item for which there was nothing to do.
pub(super) fn skipped(reason: &str) -> Ending {
    Ending::Completed { result: Json::null(), skipped: Some(reason.into()) }
}
