//! A child process that can be signalled, restarted and read, and never outlives the test.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::binary;
use crate::spawner::spawn;
use crate::wait::eventually;

/// How many lines of a log a failed test prints.
const LOG_LINES_PRINTED: usize = 200;

const STDOUT: &str = "stdout.log";
const STDERR: &str = "stderr.log";

/// A running program with a folder of its own: its working directory, where its output goes too.
///
/// A test that panics prints the end of the output. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: TempDir,
    child: Mutex<Child>,
}

impl Process {
    /// Starts any program, with this process's environment less all `LEASEHOLD_` variables, plus
    /// `environment`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let folder =
            tempfile::Builder::new().prefix("leasehold-test-").tempdir().expect("a temporary folder can be made");
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        let environment: Vec<(String, String)> =
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let child = launch(program, &arguments, &environment, folder.path());
        Process { program: program.to_owned(), arguments, environment, folder, child: Mutex::new(child) }
    }

    /// Starts one of the project's own binaries.
    ///
    /// # Panics
    /// When it has not been built.
    pub fn ours(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        Process::start(&binary::path(binary), arguments, environment)
    }

    /// Starts it again as it was started first, in the same folder; kills it when it still runs.
    pub fn restart(&self) {
        self.kill9();
        *self.child() = launch(&self.program, &self.arguments, &self.environment, self.folder.path());
    }

    /// The process id; another one after each restart.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// The most memory it has had since it was last started, bytes.
    pub fn peak_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
        let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB");
        kib * 1024
    }

    /// Its working directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether it has not ended; a stopped one (SIGSTOP) counts as running.
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// How it ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a child can be waited for")
    }

    /// Waits until it has ended, at most for `limit`.
    pub async fn wait_exit(&self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name());
        eventually(limit, &what, async || self.exit_status()).await
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // Not yet waited for, so its id cannot have been given to another process.
        if matches!(child.try_wait(), Ok(None)) {
            let pid = Pid::from_raw(child.id().cast_signed());
            kill(pid, signal).expect("a child can be signalled");
        }
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill9(&self) {
        let mut child = self.child();
        // Both fail only when it has already been waited for.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// SIGTERM: asks it to shut down.
    pub fn sigterm(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGINT, as Ctrl-C sends it.
    pub fn sigint(&self) {
        self.signal(Signal::SIGINT);
    }

    /// SIGSTOP: it freezes, its connections stay open.
    pub fn sigstop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT: it goes on, not knowing that time has passed.
    pub fn sigcont(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// What it has written to its standard output so far, over all restarts.
    pub fn stdout(&self) -> String {
        self.read(STDOUT)
    }

    /// What it has written to its standard error so far, over all restarts.
    pub fn stderr(&self) -> String {
        self.read(STDERR)
    }

    /// The program's name and process id, for messages.
    pub fn name(&self) -> String {
        let program = self.program.file_name().unwrap_or_default();
        format!("{} (pid {})", program.to_string_lossy(), self.pid())
    }

    fn read(&self, log: &str) -> String {
        let bytes = fs::read(self.folder.path().join(log)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print_logs(&self) {
        for (stream, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            let lines: Vec<&str> = text.lines().collect();
            let skipped = lines.len().saturating_sub(LOG_LINES_PRINTED);
            eprintln!("---- {stream} of {} ({skipped} lines before)", self.name());
            for line in &lines[skipped..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            self.print_logs();
        }
    }
}

fn launch(program: &Path, arguments: &[String], environment: &[(String, String)], folder: &Path) -> Child {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"LEASEHOLD_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log_file(&folder.join(STDOUT)))
        .stderr(log_file(&folder.join(STDERR)));
    spawn(command).unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()))
}

fn log_file(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a file can be made in a temporary folder")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::spawner::tests::state;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str, environment: &[(&str, &str)]) -> Process {
        Process::start(Path::new("sh"), &["-c", script], environment)
    }

    #[tokio::test]
    async fn signals_and_a_restart_reach_the_process() {
        let process = Process::start(Path::new("sleep"), &["1000"], &[]);
        let first = process.pid();
        process.sigstop();
        eventually(LIMIT, "it is stopped", async || state(&first.to_string()) == Some('T')).await;
        assert!(process.is_running());
        process.sigcont();
        process.sigterm();
        assert_eq!(process.wait_exit(LIMIT).await.signal(), Some(15));
        process.sigterm();
        process.restart();
        assert!(process.is_running() && process.pid() != first);
        process.kill9();
        assert_eq!(process.exit_status().and_then(|it| it.signal()), Some(9));
    }

    #[tokio::test]
    async fn output_and_environment_are_the_process_own() {
        let process = shell("echo $LEASEHOLD_X; echo no >&2; pwd", &[("LEASEHOLD_X", "yes")]);
        assert!(process.wait_exit(LIMIT).await.success());
        let folder = process.folder().canonicalize().unwrap();
        assert_eq!(process.stdout(), format!("yes\n{}\n", folder.display()));
        assert_eq!(process.stderr(), "no\n");
    }
}
