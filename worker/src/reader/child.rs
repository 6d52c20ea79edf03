//! The reader's side.
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use super::{CPU_SECONDS_MAX, MEMORY_BYTES_MAX, NAME, VERB};

/// Reads a document: the task, its argument, the document and what to call with the fraction done. Returns the answer
/// as JSON.
pub(crate) type Work = fn(&str, &str, &mut dyn Read, &mut dyn FnMut(f64)) -> io::Result<String>;

/// The maximum number of open files of a reader.
const FILES_MAX: u64 = 32;
/// The least fraction by which the progress must grow to be written.
const PROGRESS_STEP: f64 = 0.005;

static IS_READY: AtomicBool = AtomicBool::new(false);

/// Whether this program becomes a reader when it is started as one.
pub(crate) fn is_ready() -> bool {
    IS_READY.load(Ordering::Relaxed)
}

/// If this process is to be a reader, does the work and exits.
pub(crate) fn run_if_reader(work: Work) {
    IS_READY.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os();
    if arguments.next().as_deref() != Some(OsStr::new(NAME)) || arguments.next().as_deref() != Some(OsStr::new(VERB)) {
        return;
    }
    let mut word = || arguments.next().and_then(|word| word.into_string().ok()).unwrap_or_default();
    let (task, argument) = (word(), word());
    let code = match limit().and_then(|()| serve(work, &task, &argument)) {
        Ok(()) => 0,
        Err(e) => {
            // Nobody may be there to read it.
            drop(writeln!(io::stderr(), "{e}"));
            1
        }
    };
    std::process::exit(code)
}

/// Limits what the process can take, and what it can do.
fn limit() -> io::Result<()> {
    for (resource, most) in [
        (Resource::RLIMIT_AS, MEMORY_BYTES_MAX),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, FILES_MAX),
    ] {
        lower(resource, most, most)?;
    }
    // The first limit ends the process by a signal that says why; the second one kills it.
    lower(Resource::RLIMIT_CPU, CPU_SECONDS_MAX, CPU_SECONDS_MAX + 5)?;
    prctl::set_no_new_privs()?;
    // What ends a worker in order is not for its readers: the worker ends them.
    let mut asked = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT].into_iter().for_each(|signal| asked.add(signal));
    asked.thread_block()?;
    // When memory runs out, the kernel ends this process and not the worker.
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    Ok(())
}

/// Sets a limit, or keeps one that is lower already.
fn lower(resource: Resource, soft: u64, hard: u64) -> nix::Result<()> {
    let (_, most) = getrlimit(resource)?;
    setrlimit(resource, soft.min(most), hard.min(most))
}

fn serve(work: Work, task: &str, argument: &str) -> io::Result<()> {
    let output = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut watched = output.try_clone()?;
    std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
        // Nothing is ever sent: this returns when the worker closes the socket or ends.
        let _ = watched.read(&mut [0]);
        // SAFETY: ends the process at once, whatever the other thread does.
        unsafe { nix::libc::_exit(1) }
    })?;
    let mut lines = &output;
    let mut written = 0.0;
    let mut progress = |fraction: f64| {
        if fraction - written >= PROGRESS_STEP || fraction >= 1.0 {
            written = fraction;
            // If it fails the worker is gone, and the other thread ends this process.
            drop(writeln!(lines, "{{\"progress\":{fraction}}}"));
        }
    };
    let answer = work(task, argument, &mut io::stdin(), &mut progress)?;
    (&output).write_all(format!("{{\"answer\":{answer}}}\n").as_bytes())
}
