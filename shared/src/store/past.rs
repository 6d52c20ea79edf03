//! The past of an imported job: what a submit writes of it beside the job itself.
use crate::files::{FileEntry, Output};
use crate::job::{ErrorCode, JobError, cut};
use crate::{Json, State, Timestamp, limits};

/// The token of files that an attempt in another store left; the first that is given here is 1.
pub const IMPORTED_TOKEN: u64 = 0;

/// What a job was in another store.
#[derive(Debug, Clone)]
pub struct Past {
    /// When it was submitted there, ms since 1970, at least 0.
    pub created_at: Timestamp,
    /// Its record, as it stood.
    pub record: Option<Json>,
    /// How it had ended; `None`: it is queued, or, as a batch, waits for its items.
    pub ending: Option<Ending>,
    /// Files in the file store at `Place::Out(0)`, written before.
    pub output: Vec<FileEntry>,
}

/// How a job had ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Done.
    Completed {
        /// What it made.
        result: Json,
        /// Why there was nothing to do, if so.
        skipped: Option<String>,
    },
    /// Failed for good.
    Failed {
        /// Why.
        message: String,
        /// When.
        at: Timestamp,
    },
    /// Cancelled.
    Cancelled,
}

impl Ending {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Ending::Completed { skipped: None, .. } => State::Completed.as_str(),
            Ending::Completed { skipped: Some(_), .. } => "skipped",
            Ending::Failed { .. } => State::Failed.as_str(),
            Ending::Cancelled => State::Cancelled.as_str(),
        }
    }

    /// The fields of a record that say how it ended.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Ending::Completed { result, skipped } => {
                let reason =
                    skipped.as_deref().map(|reason| ("skipped", cut(reason, limits::MESSAGE_BYTES_MAX).into()));
                std::iter::once(("result", result.as_str().to_owned())).chain(reason).collect()
            }
            Ending::Failed { message, at } => {
                let message = cut(message, limits::MESSAGE_BYTES_MAX).to_owned();
                let error = JobError { code: ErrorCode::Failed, message, at: *at };
                vec![("error", Json::of(&error).expect("an error is plain JSON").as_str().to_owned())]
            }
            Ending::Cancelled => Vec::new(),
        }
    }
}

impl Past {
    pub(super) fn bytes(&self) -> usize {
        let result = match &self.ending {
            Some(Ending::Completed { result, .. }) => result.as_str().len(),
            _ => 0,
        };
        self.record.as_ref().map_or(0, |record| record.as_str().len()) + result
    }

    /// What its record says of it.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = self.ending.as_ref().map(Ending::fields).unwrap_or_default();
        fields.extend(self.record.as_ref().map(|record| ("imported", record.as_str().to_owned())));
        if !self.output.is_empty() {
            let output = Output { token: IMPORTED_TOKEN, files: self.output.clone() };
            fields.push(("output", Json::of(&output).expect("a list of files is plain JSON").as_str().to_owned()));
        }
        fields
    }
}
