//! `Done` and `Failure`: what a handler returns.
use std::time::Duration;

use leasehold::files::FileError;
use leasehold::job::ErrorCode;
use leasehold::retry::Wish;

/// How an attempt succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done<T> {
    /// With this result.
    Result(T),
    /// There was nothing to do, for this reason.
    Skipped(String),
}

impl<T> From<T> for Done<T> {
    fn from(result: T) -> Self {
        Done::Result(result)
    }
}

/// How an attempt failed, and whether to retry it. Any error converts to one with `?` and is retried by the kind's
/// policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) wish: Wish,
    /// The system failed, not the attempt: the job is released, and no attempt is charged.
    pub(crate) uncharged: bool,
}

impl Failure {
    /// Retried by the kind's policy: after its back-off, while attempts are left.
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::Failed, message: message.into(), wish: Wish::Policy, uncharged: false }
    }

    /// Not retried.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self { wish: Wish::Never, ..Self::new(message) }
    }

    /// Retried after `delay` (at most a day), while attempts are left.
    pub fn retry_in(delay: Duration, message: impl Into<String>) -> Self {
        Self { wish: Wish::In(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)), ..Self::new(message) }
    }

    /// An error of the file store. When the store itself failed (no space, no permission, no connection), no attempt is
    /// charged, and the job is tried again after 10 s for as long as that takes.
    pub(crate) fn of_files(doing: &str, error: &FileError) -> Self {
        let uncharged = matches!(error, FileError::Failed(_));
        Self { uncharged, ..Self::new(format!("{doing}{error}")) }
    }

    pub(crate) fn with_code(self, code: ErrorCode) -> Self {
        Self { code, ..self }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        if let Some(error) = (&error as &dyn std::any::Any).downcast_ref::<FileError>() {
            return Self::of_files("", error);
        }
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_becomes_a_failure_with_its_causes() {
        let failure = Failure::from(leasehold::Error::Config("no".into()));
        assert_eq!((failure.wish, failure.message.as_str()), (Wish::Policy, "no"));
        assert_eq!(Failure::retry_in(Duration::from_secs(2), "later").wish, Wish::In(2_000));
        assert_eq!(Failure::fatal("never").wish, Wish::Never);
        assert!(Failure::from(FileError::Failed("no space".into())).uncharged);
        assert!(!Failure::from(FileError::Missing("a".into())).uncharged && !Failure::new("no").uncharged);
        assert!(!Failure::from(FileError::Unread("a source that ends early".into())).uncharged);
    }
}
