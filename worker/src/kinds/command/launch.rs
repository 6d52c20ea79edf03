//! Starts commands so that none outlives its worker.
//!
//! A [`Guard`] kills what is left when the worker has ended. Without one, the kernel kills a child when the *thread*
//! that started it ends (`PR_SET_PDEATHSIG`), so one thread that lives as long as the worker starts all of them. That
//! is no more than a substitute: it spares the child's own children, and the child must ask for it itself, between fork
//! and exec. Each start is then a copy of the whole worker's memory map instead of a `posix_spawn`, which costs several
//! times what a small command does.
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use leasehold::files::location::Location;
use leasehold::{Config, Json};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpid, getppid};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::guard::Guard;
use super::strays::{self, MARK};
use super::user::CommandUser;

/// A command to start.
pub(super) struct LaunchRequest {
    pub words: Vec<OsString>,
    pub environment: Vec<(&'static str, OsString)>,
    pub checkpoint: Option<Json>,
    /// The folder it runs in, from [`Launcher::scratch`].
    pub scratch: TempDir,
}

/// A started command. Dropping it kills its processes and removes its folder.
pub(super) struct Launched {
    pub group: Group,
    pub child: Child,
    pub scratch: TempDir,
}

/// What ends a command whose worker is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bond {
    /// The guard.
    Guard,
    /// The end of the thread that starts it.
    Thread,
}

type Answer = oneshot::Sender<io::Result<Launched>>;

/// Starts the commands of one worker.
pub(crate) struct Launcher {
    /// Variables that commands do not get: the credentials of the file store.
    hidden: &'static [&'static str],
    /// The user that commands run as; `None`: the worker's.
    user: Option<CommandUser>,
    running: Mutex<Option<LauncherThread>>,
}

#[derive(Clone)]
struct LauncherThread {
    root: Arc<ScratchRoot>,
    requests: mpsc::Sender<(LaunchRequest, Answer)>,
}

impl Launcher {
    /// # Errors
    /// A sentence: `worker.command_user` cannot be used.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let hidden = match config.storage() {
            Ok(Some(Location::Bucket(url))) => url.cloud.secrets(),
            _ => &[],
        };
        let user = config.worker.command_user.as_deref().map(CommandUser::parse).transpose()?;
        Ok(Self { hidden, user, running: Mutex::default() })
    }

    /// Creates a folder for one command, with `in/` and `out/`.
    ///
    /// # Errors
    /// The system's error, for example a full disk.
    pub(super) async fn scratch(&self) -> io::Result<TempDir> {
        let root = self.running()?.root;
        tokio::task::spawn_blocking(move || root.scratch()).await.map_err(io::Error::other)?
    }

    /// Starts a command in its scratch folder, from a tokio runtime.
    ///
    /// # Errors
    /// The system's error, for example a missing program.
    pub(super) async fn launch(&self, request: LaunchRequest) -> io::Result<Launched> {
        let running = self.running()?;
        if running.root.guard.is_there() {
            // A start takes until the program runs, so several at once.
            let launching = move || running.root.launch(request, Bond::Guard);
            return tokio::task::spawn_blocking(launching).await.map_err(io::Error::other)?;
        }
        let (answer, launched) = oneshot::channel();
        running.requests.send((request, answer)).map_err(io::Error::other)?;
        launched.await.map_err(io::Error::other)?
    }

    /// The root and the thread, started for the first command.
    fn running(&self) -> io::Result<LauncherThread> {
        let mut running = self.running.lock().expect("lock not poisoned");
        if let Some(running) = &*running {
            return Ok(running.clone());
        }
        let root = Arc::new(ScratchRoot::open(self.hidden, self.user.clone())?);
        let (requests, inbox) = mpsc::channel::<(LaunchRequest, Answer)>();
        let runtime = tokio::runtime::Handle::current();
        let launching = Arc::clone(&root);
        std::thread::Builder::new().name("launcher".into()).spawn(move || {
            let _entered = runtime.enter();
            for (request, answer) in inbox {
                // If the receiver is gone, the command is dropped and so killed.
                drop(answer.send(launching.launch(request, Bond::Thread)));
            }
        })?;
        Ok(running.insert(LauncherThread { root, requests }).clone())
    }
}

/// Where the commands of one worker run.
struct ScratchRoot {
    guard: Arc<Guard>,
    folder: TempDir,
    hidden: &'static [&'static str],
    user: Option<CommandUser>,
}

impl ScratchRoot {
    fn open(hidden: &'static [&'static str], user: Option<CommandUser>) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("leasehold-worker-").tempdir()?;
        let guard = match Guard::start(folder.path()) {
            Err(e) if is_shortage(&e) => return Err(e),
            Err(e) => {
                tracing::warn!(
                    "cannot start /bin/sh ({e}): if this worker is killed, the child processes of its commands may outlive it"
                );
                Guard::default()
            }
            Ok(guard) => guard,
        };
        let root = Self { guard: Arc::new(guard), folder, hidden, user };
        root.open_to_user()?;
        Ok(root)
    }

    fn scratch(&self) -> io::Result<TempDir> {
        let make = || tempfile::Builder::new().prefix("job-").tempdir_in(self.folder.path());
        let scratch = match make() {
            // A cleaner of temporary folders may remove the root after a long idle time.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new().mode(0o700).create(self.folder.path())?;
                self.open_to_user()?;
                make()
            }
            made => made,
        }?;
        for folder in ["in", "out"] {
            std::fs::create_dir(scratch.path().join(folder))?;
        }
        Ok(scratch)
    }

    /// Another user must pass through the root to its own folder.
    fn open_to_user(&self) -> io::Result<()> {
        match self.user {
            Some(_) => std::fs::set_permissions(self.folder.path(), std::fs::Permissions::from_mode(0o711)),
            None => Ok(()),
        }
    }

    fn launch(&self, request: LaunchRequest, bond: Bond) -> io::Result<Launched> {
        let scratch = request.scratch;
        let (program, arguments) = request.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = std::process::Command::new(program);
        command.args(arguments).current_dir(scratch.path()).process_group(0);
        // Commands must not see the worker's settings, above all the Redis password.
        let ours =
            std::env::vars_os().map(|(name, _)| name).filter(|n| n.as_encoded_bytes().starts_with(b"LEASEHOLD_"));
        for name in ours {
            command.env_remove(name);
        }
        for name in self.hidden {
            command.env_remove(name);
        }
        if let Some(user) = &self.user {
            user.apply(&mut command);
        }
        command.envs(request.environment.iter().map(|(name, value)| (name, value)));
        command.env(MARK, scratch.path());
        if let Some(checkpoint) = &request.checkpoint {
            let file = scratch.path().join("checkpoint.json");
            std::fs::write(&file, checkpoint.as_str())?;
            command.env("LEASEHOLD_CHECKPOINT", file);
        }
        if let Some(user) = &self.user {
            user.give(scratch.path())?;
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if bond == Bond::Thread {
            die_with_this_thread(&mut command);
        }
        let child = Command::from(command).kill_on_drop(true).spawn()?;
        let group = Group::new(&child, scratch.path().to_owned(), Arc::clone(&self.guard))?;
        Ok(Launched { group, child, scratch })
    }
}

/// Whether the system is out of a resource: open files, processes, memory, disk space. It may be available again later.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull, WouldBlock};
    // There is no stable `ErrorKind` for these two.
    let files = [Errno::EMFILE, Errno::ENFILE].map(|errno| Some(errno as i32));
    matches!(error.kind(), OutOfMemory | QuotaExceeded | StorageFull | WouldBlock)
        || files.contains(&error.raw_os_error())
}

fn die_with_this_thread(command: &mut std::process::Command) {
    let worker = getpid();
    // SAFETY: between fork and exec the closure makes two system calls and builds an error from an errno: no lock, no
    // allocation.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // The worker may have died before the line above.
            if getppid() == worker { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}

/// The processes of a command: its group, and those that have left it. Dropping it kills them.
pub(super) struct Group {
    leader: Pid,
    scratch: PathBuf,
    started_at: Instant,
    /// All have been killed.
    ended: Arc<AtomicBool>,
    guard: Arc<Guard>,
}

impl Group {
    fn new(child: &Child, scratch: PathBuf, guard: Arc<Guard>) -> io::Result<Self> {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).ok_or(io::ErrorKind::NotFound)?;
        guard.add(id);
        Ok(Self { leader: Pid::from_raw(id), scratch, started_at: Instant::now(), ended: Arc::default(), guard })
    }

    /// Sends a signal to all processes of the group; ignores a group that has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = killpg(self.leader, signal);
    }

    /// Kills all processes that the command has left. Returns how many had left the group.
    pub async fn end(&self) -> usize {
        self.signal(Signal::SIGKILL);
        let (scratch, leader, started_at) = (self.scratch.clone(), self.leader, self.started_at);
        let ended = Arc::clone(&self.ended);
        let killing = tokio::task::spawn_blocking(move || {
            let killed = strays::kill_all(&scratch, leader, started_at);
            ended.store(true, Ordering::Relaxed);
            killed
        });
        killing.await.unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Relaxed) {
            self.signal(Signal::SIGKILL);
            strays::kill_all(&self.scratch, self.leader, self.started_at);
        }
        self.guard.remove(self.leader.as_raw());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_the_worker_is_logged_from_a_command_that_cannot_run() {
        let is_shortage = |errno: Errno| is_shortage(&io::Error::from_raw_os_error(errno as i32));
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::EAGAIN, Errno::ENOMEM, Errno::ENOSPC, Errno::EDQUOT] {
            assert!(is_shortage(errno), "{errno}");
        }
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC, Errno::E2BIG] {
            assert!(!is_shortage(errno), "{errno}");
        }
    }
}
