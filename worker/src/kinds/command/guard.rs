//! The guard of a worker's commands: a small shell that reads from a pipe of the worker's. When the pipe closes,
//! however the worker ended, it kills the process groups and the processes that remain, and removes their scratch
//! folders.
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// Reads the folder, and then `+ group` and `- group` until the pipe closes.
const GUARD: &str = r#"
trap '' HUP INT QUIT TERM
read -r folder || exit
groups=' '
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    -) groups="${groups%% $group *} ${groups#* $group }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
rounds=0
while [ "$rounds" -lt 100 ]; do
  found=$(grep -lsaF "LEASEHOLD_SCRATCH=$folder/" /proc/[0-9]*/environ)
  [ -n "$found" ] || break
  for file in $found; do process=${file#/proc/}; kill -s KILL "${process%/environ}"; done
  rounds=$((rounds + 1))
done
rm -rf -- "$folder"
"#;

/// The pause before another guard is started.
const RESTART_PAUSE: Duration = Duration::from_millis(50);

/// The shell that outlives the worker to clean up, and the thread that starts another one when it is killed.
#[derive(Default)]
pub(super) struct Guard {
    watched: Arc<Mutex<Watched>>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Watched {
    /// What the shell reads; `None`: no shell runs.
    pipe: Option<ChildStdin>,
    groups: BTreeSet<i32>,
    /// The worker ends: no other shell is needed.
    is_over: bool,
}

impl Guard {
    /// Guards the commands whose scratch folders are in `folder`.
    ///
    /// # Errors
    /// The system's error, for example that `/bin/sh` is missing.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let (mut shell, pipe) = start_shell(folder)?;
        let watched = Arc::new(Mutex::new(Watched { pipe: Some(pipe), ..Watched::default() }));
        let (folder, watching) = (folder.to_owned(), Arc::clone(&watched));
        let watch = move || {
            let mut is_told = false;
            loop {
                drop(shell.wait());
                lock(&watching).pipe = None;
                if lock(&watching).is_over {
                    return;
                }
                std::thread::sleep(RESTART_PAUSE);
                let mut watched = lock(&watching);
                if watched.is_over {
                    return;
                }
                match start_shell(&folder) {
                    Ok((other, pipe)) => (shell, watched.pipe, is_told) = (other, Some(pipe), false),
                    // Perhaps the machine lacks something only for a while.
                    Err(e) => {
                        if !std::mem::replace(&mut is_told, true) {
                            tracing::warn!("the shell that guards commands has ended, and does not start again: {e}");
                        }
                        continue;
                    }
                }
                let groups: Vec<_> = watched.groups.iter().copied().collect();
                groups.into_iter().for_each(|group| watched.tell('+', group));
            }
        };
        let watcher = std::thread::Builder::new().name("guard".into()).spawn(watch)?;
        Ok(Self { watched, watcher: Some(watcher) })
    }

    /// Whether it can be relied on now.
    pub fn is_there(&self) -> bool {
        lock(&self.watched).pipe.is_some()
    }

    /// The process group of a command that has been started.
    pub fn add(&self, group: i32) {
        let mut watched = lock(&self.watched);
        watched.groups.insert(group);
        watched.tell('+', group);
    }

    /// A group of which nothing is left.
    pub fn remove(&self, group: i32) {
        let mut watched = lock(&self.watched);
        watched.groups.remove(&group);
        watched.tell('-', group);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut watched = lock(&self.watched);
        (watched.is_over, watched.pipe) = (true, None);
        drop(watched);
        if let Some(watcher) = self.watcher.take() {
            drop(watcher.join());
        }
    }
}

impl Watched {
    fn tell(&mut self, sign: char, group: i32) {
        // If it fails, the shell has been killed, and the next one is told.
        drop(self.pipe.as_mut().map(|pipe| writeln!(pipe, "{sign} {group}")));
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().expect("lock not poisoned")
}

fn start_shell(folder: &Path) -> io::Result<(Child, ChildStdin)> {
    let mut shell = Command::new("/bin/sh");
    // Its command line does not name Leasehold: who kills by that name, kills the worker and not its guard.
    shell.args(["-c", GUARD, "command-guard"]).current_dir("/").env_clear();
    shell.env("PATH", "/usr/bin:/bin");
    // In a separate group, so that signals to the worker's group, for example from a terminal, do not reach it.
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut shell = shell.spawn()?;
    let mut pipe = shell.stdin.take().expect("piped");
    let line = [folder.as_os_str().as_encoded_bytes(), b"\n"].concat();
    pipe.write_all(&line).map(|()| (shell, pipe))
}
