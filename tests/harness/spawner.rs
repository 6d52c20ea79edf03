//! Starts child processes that die with the test process, whatever ends it.
//!
//! The kernel kills a child when the *thread* that forked it ends (`PR_SET_PDEATHSIG`), and test
//! threads end with their test. So all children are forked by one thread that never ends.
//!
//! Between fork and exec a child holds a copy of every socket, and what this process closes then is
//! not closed: a listener still takes connections, a cut sends no reset. [`no_fork`] keeps that away.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

struct Order {
    command: Command,
    done: Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = channel::<Order>();
    thread::Builder::new()
        .name("spawner".to_owned())
        .spawn(move || {
            for mut order in inbox {
                // It returns after the exec.
                let _forking = FORKING.write().unwrap_or_else(PoisonError::into_inner);
                // Whoever ordered it waits for it, so the receiver is there.
                let _ = order.done.send(order.command.spawn());
            }
        })
        .expect("a thread can be started");
    orders
});

static FORKING: RwLock<()> = RwLock::new(());

/// While this is held no child is between fork and exec, so that closing a socket closes it. Held
/// for a close, never across an await.
pub(crate) fn no_fork() -> RwLockReadGuard<'static, ()> {
    FORKING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the command; it is killed when this process ends, by whatever cause.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    let parent = getpid();
    // SAFETY: between fork and exec it makes two system calls and builds an error from an errno:
    // no lock, no allocation.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above.
            if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
    let (done, answer) = channel();
    SPAWNER.send(Order { command, done }).expect("the spawner never ends");
    answer.recv().expect("the spawner answers every order")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;
    use std::time::Duration;
    use std::{env, fs};

    use super::*;
    use crate::process::Process;
    use crate::wait::eventually;

    const LIMIT: Duration = Duration::from_secs(20);
    /// Set for the parent that is to be killed.
    const PARENT_VARIABLE: &str = "LEASEHOLD_TEST_PARENT";

    /// The state letter of a process in /proc, if there is one.
    pub(crate) fn state(pid: &str) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    #[tokio::test]
    async fn a_child_dies_with_a_killed_parent() {
        if env::var_os(PARENT_VARIABLE).is_some() {
            let child = Process::start(Path::new("sleep"), &["1000"], &[]);
            println!("child={}", child.pid());
            std::future::pending::<()>().await;
        }
        let this = env::current_exe().unwrap();
        let name = "spawner::tests::a_child_dies_with_a_killed_parent";
        let arguments = [name, "--exact", "--nocapture"];
        // The killed parent leaves a folder behind, which goes with this one.
        let folder = tempfile::tempdir().unwrap();
        let environment = [(PARENT_VARIABLE, "1"), ("TMPDIR", folder.path().to_str().unwrap())];
        let parent = Process::start(&this, &arguments, &environment);
        let child = eventually(LIMIT, "the parent has a child", async || {
            let output = parent.stdout();
            let (_, rest) = output.split_once("child=")?;
            Some(rest.split_once('\n')?.0.to_owned())
        })
        .await;
        assert!(matches!(state(&child), Some('S' | 'R' | 'D')));
        let environment = fs::read(format!("/proc/{child}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        assert!(environment.contains("PATH=") && !environment.contains("LEASEHOLD_"));
        parent.kill9();
        eventually(LIMIT, "the child is dead", async || matches!(state(&child), None | Some('Z'))).await;
    }

    #[tokio::test]
    async fn a_child_outlives_the_thread_that_ordered_it() {
        let child = thread::spawn(|| {
            let script = "mkfifo gate && read line < gate && exit 7";
            Process::start(Path::new("sh"), &["-c", script], &[])
        })
        .join()
        .unwrap();
        let gate = child.folder().join("gate");
        eventually(LIMIT, "it waits at the gate", async || gate.exists()).await;
        tokio::task::spawn_blocking(move || fs::write(gate, "go\n")).await.unwrap().unwrap();
        assert_eq!(child.wait_exit(LIMIT).await.code(), Some(7));
    }
}
