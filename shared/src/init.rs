//! Process 1 of a container.
//!
//! The kernel gives orphaned processes to process 1, which must wait for them, and drops signals that process 1 has no
//! handler for. A program of ours that finds itself to be process 1 therefore continues in a child process; the parent
//! only waits for processes and forwards signals.
use std::process::exit;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Added to the number of the signal that killed the program, as shells do.
const KILLED: i32 = 128;

/// If this is process 1, lets the program continue in a child, and exits as the child does; otherwise returns at once.
///
/// Call it first in `main`, while the process has one thread. In the child it returns. When it fails it logs the reason
/// and returns, still as process 1.
pub fn leave_process_one() {
    if Pid::this().as_raw() != 1 {
        return;
    }
    if let Err(e) = split() {
        crate::log::say(format_args!("warning: this process is process 1 and will not reap orphaned processes: {e}"));
    }
}

fn split() -> nix::Result<()> {
    // Blocked signals wait for the parent to read them; none is lost around the fork.
    let (all, before) = (SigSet::all(), SigSet::thread_get_mask()?);
    let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC)?;
    all.thread_block()?;
    // SAFETY: the process has one thread, so that no lock is held by another.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => exit(serve(child, &signals)),
        Ok(ForkResult::Child) => before.thread_set_mask(),
        Err(e) => before.thread_set_mask().and(Err(e)),
    }
}

/// Waits for processes and forwards signals until `child` has ended; returns the exit code.
fn serve(child: Pid, signals: &SignalFd) -> i32 {
    loop {
        let Ok(Some(received)) = signals.read_signal() else { continue };
        let signal = i32::try_from(received.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        match signal {
            Some(Signal::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            // A positive code is the kernel's: the terminal has sent it to the whole group, the child included.
            Some(signal) if received.ssi_code <= 0 => drop(kill(child, signal)),
            _ => {}
        }
    }
}

/// Waits for all processes that have ended; the exit code, if `child` is one of them.
fn reap(child: Pid) -> Option<i32> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return Some(KILLED + signal as i32),
            Ok(WaitStatus::StillAlive) => return None,
            // No process is left, so the child has ended in a way that has no name here.
            Err(Errno::ECHILD) => return Some(1),
            Ok(_) | Err(_) => {}
        }
    }
}
