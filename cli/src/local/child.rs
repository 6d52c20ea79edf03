//! Child processes that die with this one, whatever ends it, and log to a file each.
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::Command;

use crate::failure::Failure;

/// Lines of a log that say why a program ended.
const LOG_LINES: usize = 12;

/// A program and how to start it, so that it can be started again.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Its name in output: `api`, `worker-1`.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables it gets on top of this process's.
    pub environment: Vec<(String, String)>,
    /// Whether it inherits no LEASEHOLD_ variable.
    pub private: bool,
    /// Where it runs; `None`: where this process does.
    pub folder: Option<PathBuf>,
    /// Where its output goes, appended.
    pub log: PathBuf,
}

/// A running program; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    pid: u32,
    process: tokio::process::Child,
}

impl Program {
    /// Starts it.
    pub(crate) fn start(&self) -> Result<Child, Failure> {
        let fault = |e: std::io::Error| Failure::Failed(format!("{} ({}): {e}", self.name, self.path.display()));
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(|e| Failure::Failed(format!("log {}: {e}", self.log.display())))?;
        let mut command = Command::new(&self.path);
        if self.private {
            let inherited = std::env::vars_os().map(|(name, _)| name);
            inherited.filter(|name| name.to_string_lossy().starts_with("LEASEHOLD_")).for_each(|name| {
                command.env_remove(name);
            });
        }
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        // In a separate process group: Ctrl-C reaches this process only, which stops the others in order.
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(fault)?).stderr(log).process_group(0);
        command.kill_on_drop(true);
        let parent = getpid();
        // SAFETY: between fork and exec it makes two system calls and builds an error from an errno: no lock, no
        // allocation. The signal is tied to the thread that forks, which is the main one (see `main`).
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before the line above.
                if getppid() == parent { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
            });
        }
        let process = command.spawn().map_err(fault)?;
        let pid = process.id().expect("it has not been waited for");
        Ok(Child { name: self.name.clone(), pid, process })
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Child {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it has ended.
    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Sends it a signal; one that has ended gets none.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = i32::try_from(self.pid).expect("a process id is a pid_t");
            // It has not been waited for, so its id cannot have been reused.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills it with -9 and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> std::io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        self.wait().await
    }

    /// Sends SIGTERM, and kills the process if it has not ended within `grace`. Returns a message when it was killed.
    pub(crate) async fn stop(mut self, grace: Duration) -> Option<String> {
        self.signal(Signal::SIGTERM);
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(_) => None,
            Err(_) => {
                drop(self.kill().await);
                Some(format!("{} did not end within {} s and was killed", self.name, grace.as_secs()))
            }
        }
    }
}

/// How a process ended, in words.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("{signal}"),
            Err(_) => format!("signal {signal}"),
        },
        (None, None) => "unknown".into(),
    }
}
