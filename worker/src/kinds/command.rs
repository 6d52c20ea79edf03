//! A kind whose work an operator's command does: any program that reads a line and writes lines.
//!
//! It gets the payload on stdin, runs in a scratch folder, says what it has to say as JSON lines on stdout, and logs with all
//! else. Its exit code decides: 0 completes, 65 fails for good, all others fail the attempt.
mod cache;
mod items;
mod launch;
mod output;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold::kinds::Cache;
use leasehold::{Config, Json, Limits};
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::contact::Backoff;
use crate::handler::{Attempt, Failure, Made, Work, result_within};
use crate::stop::{COMMAND_GRACE, COMMAND_HANDLER_GRACE};
pub(crate) use launch::Launcher;
use launch::{Group, Launched, Order, is_want};
use output::{LINE_BYTES_MAX, Line, Lines, Log, said, too_long};

/// The exit code of a command whose job is not to be tried again (sysexits' EX_DATAERR).
const FAILED_FOR_GOOD: i32 = 65;
/// How long a pipe is read on after its command has ended: what the command left running may hold it open for ever.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a read may take once that is over, and how much is read then: what a pipe holds at most by the system's default,
/// for while a line was answered, in an outage say, nothing was read.
const LAST_READ: Duration = Duration::from_millis(10);
const PIPE_BYTES_MAX: usize = 1 << 20;

/// A command, as the kinds file names it.
pub(super) struct Command {
    words: Vec<OsString>,
    cache: Option<Cache>,
    allow_private: bool,
    limits: Limits,
    launcher: Arc<Launcher>,
}

impl Command {
    /// `dir` is what `{dir}` stands for.
    pub fn new(words: &[String], dir: &Path, config: &Config, launcher: &Arc<Launcher>) -> Self {
        Self {
            words: words.iter().map(|word| expanded(word, dir)).collect(),
            cache: None,
            allow_private: config.fetch.allow_private,
            limits: config.limits.clone(),
            launcher: Arc::clone(launcher),
        }
    }

    /// The same, not run for a job whose work an earlier one has done.
    pub fn cached(self, cache: Option<Cache>) -> Self {
        Self { cache, ..self }
    }

    fn program(&self) -> String {
        self.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Starts the command. What the worker itself is short of is no fault of the job's: it is tried again until there is enough,
    /// and the slot stays taken meanwhile, so that less is claimed.
    async fn start(&self, context: &Context) -> Result<Launched, Failure> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut is_told = false;
        loop {
            let want = match self.try_start(context).await {
                Ok(launched) => return Ok(launched),
                Err(Unstarted::Failed(failure)) => return Err(failure),
                Err(Unstarted::Want(error)) => error,
            };
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(job = %context.job_id(), "its command cannot be started now, and is tried again: {want}");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.delay()) => {}
                () = context.cancelled() => return Err(Failure::new(format!("the command was never started: {want}"))),
            }
        }
    }

    async fn try_start(&self, context: &Context) -> Result<Launched, Unstarted> {
        let scratch = self.launcher.scratch().await.map_err(|e| unstarted(e, "there is no scratch folder"))?;
        context.attempt.files.copy_input(&scratch.path().join("in")).await.map_err(Failure::from)?;
        let mut environment: Vec<(&str, OsString)> = vec![
            ("LEASEHOLD_JOB_ID", context.job_id().as_str().into()),
            ("LEASEHOLD_TOKEN", context.token().to_string().into()),
            ("LEASEHOLD_ATTEMPT", context.attempt().to_string().into()),
            ("LEASEHOLD_FETCH__ALLOW_PRIVATE", self.allow_private.to_string().into()),
        ];
        if context.batch().is_some() {
            let path = scratch.path().join("items.jsonl");
            items::write(context, &path).await?;
            environment.push(("LEASEHOLD_ITEMS", path.into()));
        }
        let order =
            Order { words: self.words.clone(), environment, checkpoint: context.attempt.checkpoint.clone(), scratch };
        let launched = self.launcher.launch(order).await;
        launched.map_err(|e| unstarted(e, &format!("the command {} cannot be started", self.program())))
    }

    async fn run(&self, context: Context, payload: &Json) -> Result<Made, Failure> {
        let files = &context.attempt.files;
        if let Some(made) = cache::find(self.cache.as_ref(), &context, payload, &self.limits).await {
            return Ok(made);
        }
        // Dropped in the reverse order: first the processes, then their folder.
        let Launched { scratch, mut child, group } = self.start(&context).await?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(Failure::new("the command has no pipes"));
        };
        let talk = Talk::new(&context, &self.limits);
        let (status, ..) = tokio::join!(
            supervise(&talk, &group, &mut child),
            feed(&talk, stdin, payload),
            listen(&talk, stdout, true),
            listen(&talk, stderr, false),
        );
        drop(group);
        let made = status.map_err(|e| Failure::new(format!("the command was lost: {e}")));
        let mut made = made.and_then(|status| talk.verdict(status));
        if let Ok((_, None)) = made
            && let Err(failure) = files.keep(scratch.path().join("out")).await
        {
            made = Err(failure);
        }
        // Removing what a job left may take a while.
        drop(tokio::task::spawn_blocking(move || scratch.close()).await);
        made
    }
}

/// Why a command was not started.
enum Unstarted {
    /// The job cannot be run so.
    Failed(Failure),
    /// The worker is short of something.
    Want(io::Error),
}

impl From<Failure> for Unstarted {
    fn from(failure: Failure) -> Self {
        Unstarted::Failed(failure)
    }
}

fn unstarted(error: io::Error, what: &str) -> Unstarted {
    if is_want(&error) { Unstarted::Want(error) } else { Failure::new(format!("{what}: {error}")).into() }
}

impl Work for Command {
    fn grace(&self) -> Duration {
        COMMAND_HANDLER_GRACE
    }

    fn attempt<'a>(&'a self, context: Context, payload: &'a Json) -> Attempt<'a> {
        Box::pin(self.run(context, payload))
    }
}

fn expanded(word: &str, dir: &Path) -> OsString {
    let mut parts = word.split("{dir}");
    let mut expanded = OsString::from(parts.next().unwrap_or_default());
    for part in parts {
        expanded.push(dir);
        expanded.push(part);
    }
    expanded
}

/// What passes between one attempt and its command.
struct Talk<'a> {
    context: &'a Context,
    limits: &'a Limits,
    /// The command itself has ended; its pipes may hold what it wrote last.
    ended: CancellationToken,
    /// Something it said fails the attempt.
    failed: CancellationToken,
    heard: Mutex<Heard>,
}

/// What the command has said so far.
#[derive(Default)]
struct Heard {
    log: Log,
    result: Option<Result<Json, Failure>>,
    skip: Option<String>,
    /// What it said that fails the attempt.
    fault: Option<Failure>,
    /// It was told to stop.
    stopped: bool,
}

/// Waits for the command's end; stops it when it is to stop: SIGTERM to its group, SIGKILL a while later.
async fn supervise(talk: &Talk<'_>, group: &Group, child: &mut Child) -> io::Result<ExitStatus> {
    let status = tokio::select! {
        status = child.wait() => status,
        () = async { tokio::select! { () = talk.context.cancelled() => {}, () = talk.failed.cancelled() => {} } } => {
            talk.heard().stopped = true;
            group.signal(Signal::SIGTERM);
            match timeout(COMMAND_GRACE, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    group.signal(Signal::SIGKILL);
                    child.wait().await
                }
            }
        }
    };
    // What it started itself ends with it.
    group.signal(Signal::SIGKILL);
    talk.ended.cancel();
    status
}

/// Writes the payload; a command may end, or close its stdin, without reading it.
async fn feed(talk: &Talk<'_>, mut stdin: ChildStdin, payload: &Json) {
    let line = format!("{}\n", payload.as_str());
    tokio::select! { _ = stdin.write_all(line.as_bytes()) => {}, () = talk.ended.cancelled() => {} }
}

/// Reads a pipe to its end, or until a while after the command's: then what stands in it is taken, and no more.
async fn listen(talk: &Talk<'_>, mut pipe: impl AsyncRead + Unpin, is_stdout: bool) {
    let (mut lines, mut buffer) = (Lines::default(), vec![0; 16 << 10]);
    // One for the whole pipe: what the command left running may write into it for ever.
    let mut over = std::pin::pin!(async {
        talk.ended.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    });
    let (mut is_over, mut room) = (false, PIPE_BYTES_MAX);
    while room > 0 {
        let read = if is_over {
            timeout(LAST_READ, pipe.read(&mut buffer)).await.unwrap_or(Ok(0))
        } else {
            tokio::select! {
                biased;
                () = &mut over => {
                    is_over = true;
                    continue;
                }
                read = pipe.read(&mut buffer) => read,
            }
        };
        let Ok(count @ 1..) = read else { break };
        if is_over {
            room = room.saturating_sub(count);
        }
        let mut got = Vec::new();
        lines.push(&buffer[..count], |line| got.push(line));
        for line in got {
            talk.hear(line, is_stdout).await;
        }
    }
    if let Some(line) = lines.finish() {
        talk.hear(line, is_stdout).await;
    }
}

impl<'a> Talk<'a> {
    fn new(context: &'a Context, limits: &'a Limits) -> Self {
        let (ended, failed) = (CancellationToken::new(), CancellationToken::new());
        Self { context, limits, ended, failed, heard: Mutex::default() }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().expect("nobody panics with it")
    }

    /// There is no use in going on.
    fn fail(&self, fault: Failure) {
        self.heard().fault.get_or_insert(fault);
        self.failed.cancel();
    }

    async fn hear(&self, line: Line, is_stdout: bool) {
        let line = match line {
            Line::Whole(line) => line,
            Line::Cut(line) => {
                match too_long(&line).filter(|_| is_stdout) {
                    Some("result") => self.heard().result = Some(Err(Failure::fatal(over("its result")))),
                    Some(_) => self.fail(Failure::new(over("its checkpoint"))),
                    None => self.log(&line),
                }
                return;
            }
        };
        let Some(said) = said(&line).filter(|_| is_stdout) else { return self.log(&line) };
        if let Some((percent, message)) = said.progress {
            self.context.tell(percent, message.as_deref());
        }
        if let Some(result) = said.result {
            self.heard().result = Some(result_within(result.get(), self.limits));
        }
        if said.skip.is_some() {
            self.heard().skip = said.skip;
        }
        if let Some(checkpoint) = said.checkpoint {
            let json = Json::from_raw(&checkpoint, self.limits.json_depth, self.limits.checkpoint_bytes);
            let saved = match json {
                Ok(json) => self.context.save(json).await,
                Err(e) => Err(crate::CheckpointError::OverLimit(e)),
            };
            if let Err(e) = saved {
                self.fail(Failure::from(e));
            }
        }
    }

    fn log(&self, line: &[u8]) {
        tracing::debug!(job = %self.context.job_id(), "{}", String::from_utf8_lossy(line));
        self.heard().log.push(line);
    }

    /// What the command's end comes to.
    fn verdict(&self, status: ExitStatus) -> Result<Made, Failure> {
        let mut heard = self.heard();
        if let Some(fault) = heard.fault.take() {
            return Err(fault);
        }
        let skip = heard.skip.take();
        let result = heard.result.take().transpose();
        // One that was told to stop and ends well has done its work only if it says so.
        let says_nothing = skip.is_none() && matches!(result, Ok(None));
        match status.code() {
            Some(0) if !(heard.stopped && says_nothing) => Ok((result?.unwrap_or_else(Json::null), skip)),
            Some(FAILED_FOR_GOOD) => Err(Failure::fatal(describe(status, &heard.log))),
            _ => Err(Failure::new(describe(status, &heard.log))),
        }
    }
}

fn over(what: &str) -> String {
    format!("{what} is refused: its line is longer than {LINE_BYTES_MAX} bytes")
}

/// How it ended, and the end of its log.
fn describe(status: ExitStatus, log: &Log) -> String {
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("ended by {signal}"),
            Err(_) => format!("ended by signal {number}"),
        },
        (None, None) => "ended".into(),
    };
    let log = log.end();
    if log.is_empty() { format!("{end}, and logged nothing") } else { format!("{end}; the end of its log:\n{log}") }
}
