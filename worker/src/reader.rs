//! Reads documents in processes of their own, so that no document can take a worker along.
//!
//! A worker starts its own program again for each document; [`become_reader`](crate::become_reader), the first call in
//! `main`, is where that process goes on. It gets the document as its standard input, and writes lines of JSON to its
//! standard output: its progress, and in the end its answer. Its memory and its processor time are limited, its
//! environment is empty, and it cannot write files. It ends when its output, a socket, is closed at the other end: with
//! the attempt, and with the worker however that ends.
mod child;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

pub(crate) use child::{is_ready, run_if_reader};

/// The maximum memory of a reader, in bytes of address space.
pub(crate) const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// The maximum processor time of a reader, in seconds.
pub(crate) const CPU_SECONDS_MAX: u64 = 60;
/// How long a reader may take in all, in seconds: longer than its processor time, for a busy machine and a slow disk.
const SECONDS_MAX: u64 = 300;
/// The maximum size of what a reader writes, in bytes.
const OUTPUT_BYTES_MAX: u64 = 32 << 20;
/// How much is kept of what a reader writes to stderr, in bytes: the reason of its end.
const STDERR_BYTES_MAX: u64 = 4096;
/// How readers are called in a list of processes.
const NAME: &str = "leasehold-reader";
/// The first argument of a reader.
const VERB: &str = "read-document";

/// Starts readers: as many at once as the machine has processors, but at least two.
pub(crate) struct Readers {
    slots: Semaphore,
}

/// A document to read.
pub(crate) enum Input {
    /// A regular file, from its start.
    File(File),
    /// A document in memory.
    Bytes(Vec<u8>),
}

/// Why a reader gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// It would need more than [`MEMORY_BYTES_MAX`].
    #[error("reading it needs more than {} MiB of memory", MEMORY_BYTES_MAX >> 20)]
    Memory,
    /// It would need more than [`CPU_SECONDS_MAX`].
    #[error("reading it needs more than {CPU_SECONDS_MAX} s of processor time")]
    Time,
    /// The document made the reader fail.
    #[error("reading it failed: {0}")]
    Failed(String),
    /// The reader could not be started, was killed or took too long: not the document's fault, as far as is known.
    #[error("the process that reads it {0}")]
    System(String),
}

impl ReadError {
    /// Whether the same document may be read later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::System(_))
    }
}

/// A line that a reader writes.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The fraction done, from 0 to 1.
    Progress(f64),
    Answer(Box<RawValue>),
}

impl Readers {
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self { slots: Semaphore::new(processors.max(2)) }
    }

    /// Reads a document by the task of this name, with this argument. `progress` gets the fraction done. Dropping the
    /// future kills the reader.
    pub async fn read<A: DeserializeOwned>(
        &self,
        task: [&str; 2],
        input: Input,
        progress: &mut (dyn FnMut(f64) + Send),
    ) -> Result<A, ReadError> {
        let _slot = self.slots.acquire().await.expect("never closed");
        let reading = read(task, input, progress);
        let took_long = || ReadError::System(format!("took longer than {SECONDS_MAX} s"));
        let answer =
            tokio::time::timeout(Duration::from_secs(SECONDS_MAX), reading).await.map_err(|_| took_long())??;
        serde_json::from_str(answer.get())
            .map_err(|e| ReadError::System(format!("gave an answer of another form: {e}")))
    }
}

async fn read(
    task: [&str; 2],
    input: Input,
    progress: &mut (dyn FnMut(f64) + Send),
) -> Result<Box<RawValue>, ReadError> {
    let not_started = |e: io::Error| ReadError::System(format!("could not be started: {e}"));
    let (mut reader, output, bytes) = start(task, input).map_err(not_started)?;
    let (stdin, stderr) = (reader.stdin.take(), reader.stderr.take().expect("piped"));
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // It fails when the reader has ended; the reader's end says why.
            drop(stdin.write_all(&bytes).await);
        }
    };
    let complaint = async move {
        let mut said = Vec::new();
        drop(stderr.take(STDERR_BYTES_MAX).read_to_end(&mut said).await);
        String::from_utf8_lossy(&said).into_owned()
    };
    let (answer, (), said) = tokio::join!(listen(output, progress), feed, complaint);
    let status = reader.wait().await.map_err(|e| ReadError::System(format!("cannot be waited for: {e}")))?;
    answer
        .unwrap_or_else(|e| Err(ReadError::System(format!("cannot be heard: {e}"))))?
        .ok_or_else(|| reason(status, &said))
}

/// Starts a reader; returns it, its output, and what is to be written to it.
fn start(task: [&str; 2], input: Input) -> io::Result<(Child, UnixStream, Vec<u8>)> {
    let (ours, theirs) = Socket::pair()?;
    ours.set_nonblocking(true)?;
    let (stdin, bytes) = match input {
        Input::File(file) => (Stdio::from(file), Vec::new()),
        Input::Bytes(bytes) => (Stdio::piped(), bytes),
    };
    // The program that runs, even if another one has taken its place in the file system.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(VERB).args(task).env_clear().current_dir("/");
    // A group of its own: what a terminal sends to the worker is not for it.
    command.stdin(stdin).stdout(OwnedFd::from(theirs)).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let reader = command.spawn()?;
    Ok((reader, UnixStream::from_std(ours)?, bytes))
}

/// Passes on the progress, and returns the answer; `None`: the output ended without one.
async fn listen(
    output: impl AsyncRead + Unpin,
    progress: &mut (dyn FnMut(f64) + Send),
) -> io::Result<Result<Option<Box<RawValue>>, ReadError>> {
    let mut output = BufReader::new(output.take(OUTPUT_BYTES_MAX));
    let mut line = String::new();
    while output.read_line(&mut line).await? > 0 {
        match serde_json::from_str(&line) {
            Ok(Line::Progress(fraction)) => progress(fraction),
            Ok(Line::Answer(answer)) => return Ok(Ok(Some(answer))),
            // Cut off, by its end or by the limit.
            Err(_) if !line.ends_with('\n') => break,
            Err(e) => return Ok(Err(ReadError::System(format!("wrote a line that cannot be read: {e}")))),
        }
        line.clear();
    }
    Ok(Ok(None))
}

/// Why a reader ended without an answer.
fn reason(status: ExitStatus, said: &str) -> ReadError {
    let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
    match signal {
        Some(Signal::SIGXCPU) => ReadError::Time,
        _ if said.contains("memory allocation of") => ReadError::Memory,
        _ if said.contains("has overflowed its stack") => ReadError::Failed("it is nested too deeply".to_owned()),
        Some(Signal::SIGKILL) => ReadError::System("was killed, perhaps for want of memory".to_owned()),
        Some(Signal::SIGABRT | Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE) => {
            ReadError::Failed(format!("its reader crashed: {}", said.lines().next().unwrap_or("(no message)")))
        }
        Some(signal) => ReadError::System(format!("was ended by {signal}")),
        None => ReadError::System(format!("ended without an answer: {status}: {}", said.trim_end())),
    }
}
