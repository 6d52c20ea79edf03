//! The past of an imported job, which a submit writes in addition to the job.
use crate::files::{FileEntry, Output};
use crate::job::{ErrorCode, JobError, cut};
use crate::{Json, State, Timestamp, limits};

/// The token of output files from another store; the first token issued here is 1.
pub const IMPORTED_TOKEN: u64 = 0;

/// A job's past in another store.
#[derive(Debug, Clone)]
pub struct Past {
    /// When it was submitted there, ms since 1970, at least 0.
    pub created_at: Timestamp,
    /// Its original record.
    pub record: Option<Json>,
    /// How it had ended; `None`: it is queued, or, as a batch, waits for its items.
    pub ending: Option<Ending>,
    /// When it had ended, at least `created_at`; `None`: at its import. It is kept from its import on in any case.
    pub ended_at: Option<Timestamp>,
    /// Files already written to the file store at `Place::Out(0)`.
    pub output: Vec<FileEntry>,
}

/// How a job had ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Completed.
    Completed {
        /// The result.
        result: Json,
        /// Why there was nothing to do, for a skipped job.
        skipped: Option<String>,
    },
    /// Failed for good.
    Failed {
        /// The error.
        message: String,
        /// The time.
        at: Timestamp,
    },
    /// Cancelled.
    Cancelled,
}

impl Ending {
    /// How it had ended, and when, for the scripts.
    pub(super) fn with_time(&self, at: Option<Timestamp>) -> String {
        let word = self.word();
        at.map_or(word.to_owned(), |at| format!("{word}:{}", at.0))
    }

    fn word(&self) -> &'static str {
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
    /// How it had ended, for the scripts; empty: it had not.
    pub(super) fn ended(&self) -> String {
        self.ending.as_ref().map_or(String::new(), |ending| ending.with_time(self.ended_at))
    }

    pub(super) fn bytes(&self) -> usize {
        let result = match &self.ending {
            Some(Ending::Completed { result, .. }) => result.as_str().len(),
            _ => 0,
        };
        self.record.as_ref().map_or(0, |record| record.as_str().len()) + result
    }

    /// The fields of its record.
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
