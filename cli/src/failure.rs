//! How a command ends when it does not end well: one sentence on standard error, and an exit code.
use std::io;
use std::process::ExitCode;

use crate::problem::Problem;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments cannot be meant like this: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It was refused, or it failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The API refused it, or could not do it: exit code 1.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// What is wrong has been printed: exit code 1.
    #[error("")]
    Said,
    /// Output could not be written. A reader that has seen enough (`| head`) is no failure.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

impl From<leasehold::Error> for Failure {
    fn from(error: leasehold::Error) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl Failure {
    /// Says it and turns it into an exit code.
    pub(crate) fn report(self) -> ExitCode {
        match &self {
            Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Failure::Said => {}
            _ => complain(&self),
        }
        ExitCode::from(if matches!(self, Failure::Usage(_)) { 2 } else { 1 })
    }
}

/// An error, on standard error.
pub(crate) fn complain(what: impl std::fmt::Display) {
    crate::print::aside(format_args!("error: {what}"));
}
