//! Failures of a command: one sentence on standard error, and an exit code.
use std::io;
use std::process::ExitCode;

use crate::problem::Problem;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Invalid usage: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The command failed or was refused: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The API answered with a problem: exit code 1.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The failure has been printed already: exit code 1.
    #[error("")]
    Said,
    /// Output could not be written. A reader that has closed the pipe (`| head`) is not a failure.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

impl From<leasehold::Error> for Failure {
    fn from(error: leasehold::Error) -> Self {
        Failure::Failed(error.to_string())
    }
}

impl Failure {
    /// Prints the failure and turns it into an exit code.
    pub(crate) fn report(self) -> ExitCode {
        match &self {
            Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Failure::Said => {}
            _ => complain(&self),
        }
        ExitCode::from(if matches!(self, Failure::Usage(_)) { 2 } else { 1 })
    }
}

/// Prints an error on standard error.
pub(crate) fn complain(what: impl std::fmt::Display) {
    crate::print::aside(format_args!("error: {what}"));
}
