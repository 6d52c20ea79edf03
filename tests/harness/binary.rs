//! The project's own binaries, as `make test` builds them.

use std::env;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::process::Process;

/// What a program that has ended leaves behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote to its standard output.
    pub stdout: String,
    /// All that it wrote to its standard error.
    pub stderr: String,
}

/// Runs one of the project's own binaries to its end, at most for `limit`.
///
/// # Panics
/// When it has not been built, or has not ended within `limit`.
pub async fn run(binary: &str, arguments: &[&str], environment: &[(&str, &str)], limit: Duration) -> Output {
    let process = Process::ours(binary, arguments, environment);
    Output { status: process.wait_exit(limit).await, stdout: process.stdout(), stderr: process.stderr() }
}

/// The path of one of the project's own binaries: beside this program, or the folder of this test executable.
///
/// # Panics
/// When it has not been built.
pub fn path(binary: &str) -> PathBuf {
    let this = env::current_exe().expect("a process knows its executable");
    let folder = this.parent().expect("an executable is in a folder");
    let folder = folder.parent().filter(|_| folder.ends_with("deps")).unwrap_or(folder);
    let path = folder.join(binary);
    assert!(path.is_file(), "{} is not built: run `make test`, or `cargo build --release --workspace`", path.display());
    path
}

/// The path of one of the project's own binaries of the next version: the same source with a later version of job
/// records, built beside this version's folder.
///
/// # Panics
/// When it has not been built.
pub fn next_path(binary: &str) -> PathBuf {
    let this = env::current_exe().expect("a process knows its executable");
    let target = this.ancestors().nth(3).expect("cargo puts test executables in target/<profile>/deps");
    let path = target.join("next/demo").join(binary);
    assert!(path.is_file(), "{} is not built: run `make next`, as `make test` does", path.display());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "is not built: run `make test`")]
    fn a_missing_binary_names_what_builds_it() {
        path("leasehold-nothing");
    }
}
