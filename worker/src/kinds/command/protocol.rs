//! The exchange with a running command: the payload on its stdin, messages on its stdout, its log and its exit.
use std::io;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;

use leasehold::{Json, Limits};
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::launch::Group;
use super::meant::{Block, Fault, Member};
use super::output::{Line, Lines, Log, parse};
use crate::attempt::context::Context;
use crate::error::CheckpointError;
use crate::failure::Failure;
use crate::handler::{Completion, parse_result};
use crate::stop::COMMAND_GRACE;

/// The exit code of a command whose job must not be retried (EX_DATAERR of sysexits).
const FAILED_FOR_GOOD: i32 = 65;
/// How long a pipe is still read after its command has ended: a process that the command left running may hold it open.
const DRAIN_TIME: Duration = Duration::from_millis(500);
/// The timeout of a read after that time, and how much is then read at most: the default capacity of a pipe, since
/// nothing is read while a line is handled, for example during an outage.
const LAST_READ: Duration = Duration::from_millis(10);
const PIPE_BYTES_MAX: usize = 1 << 20;
/// Warnings of one attempt that are kept in the job's history.
const WARNINGS_MAX: usize = 5;

/// The exchange between one attempt and its command.
pub(super) struct Session<'a> {
    context: &'a Context,
    limits: &'a Limits,
    /// The command itself has ended; its pipes may still hold output.
    ended: CancellationToken,
    /// A message of the command fails the attempt.
    failed: CancellationToken,
    received: Mutex<Received>,
}

/// What has been received from the command so far.
#[derive(Default)]
struct Received {
    log: Log,
    result: Option<Result<Json, Failure>>,
    skip: Option<String>,
    /// An object that has begun and not ended yet.
    block: Option<Block>,
    warnings: usize,
    /// The failure of a message that fails the attempt.
    fault: Option<Failure>,
    /// The command was requested to stop.
    stopped: bool,
}

/// Waits for the command's end; stops it if the attempt must stop: SIGTERM to its group, SIGKILL after the grace
/// period.
async fn supervise(session: &Session<'_>, group: &Group, child: &mut Child) -> io::Result<ExitStatus> {
    let status = tokio::select! {
        status = child.wait() => status,
        () = async { tokio::select! { () = session.context.cancelled() => {}, () = session.failed.cancelled() => {} } } => {
            session.received().stopped = true;
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
    // Its child processes end with it.
    let strays = group.end().await;
    if strays > 0 {
        let job = session.context.job_id();
        tracing::info!(%job, "the command left {strays} processes running outside its process group; they were killed");
    }
    session.ended.cancel();
    status
}

/// Writes the payload; a command may end, or close its stdin, without reading it.
async fn write_payload(session: &Session<'_>, mut stdin: ChildStdin, payload: &Json) {
    let line = format!("{}\n", payload.as_str());
    tokio::select! { _ = stdin.write_all(line.as_bytes()) => {}, () = session.ended.cancelled() => {} }
}

/// Reads a pipe to its end, or until a while after the command's end; then only what the pipe still holds.
async fn read_output(session: &Session<'_>, mut pipe: impl AsyncRead + Unpin, is_stdout: bool) {
    let (mut lines, mut buffer) = (Lines::default(), vec![0; 16 << 10]);
    // One for the whole pipe: a process that the command left running may write to it without end.
    let mut over = std::pin::pin!(async {
        session.ended.cancelled().await;
        tokio::time::sleep(DRAIN_TIME).await;
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
            session.handle_line(line, is_stdout).await;
        }
    }
    if let Some(line) = lines.finish() {
        session.handle_line(line, is_stdout).await;
    }
    if is_stdout {
        session.end_block(true);
    }
}

impl<'a> Session<'a> {
    pub fn new(context: &'a Context, limits: &'a Limits) -> Self {
        let (ended, failed) = (CancellationToken::new(), CancellationToken::new());
        Self { context, limits, ended, failed, received: Mutex::default() }
    }

    /// Serves a command until it has ended, and returns its outcome.
    pub async fn run(&self, group: &Group, child: &mut Child, payload: &Json) -> Result<Completion, Failure> {
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(Failure::new("the command has no pipes"));
        };
        let (status, ..) = tokio::join!(
            supervise(self, group, child),
            write_payload(self, stdin, payload),
            read_output(self, stdout, true),
            read_output(self, stderr, false),
        );
        self.outcome(status.map_err(|e| Failure::new(format!("the command was lost: {e}")))?)
    }

    fn received(&self) -> std::sync::MutexGuard<'_, Received> {
        self.received.lock().expect("lock not poisoned")
    }

    /// Records a failure, and stops the command.
    fn fail(&self, fault: Failure) {
        self.received().fault.get_or_insert(fault);
        self.failed.cancel();
    }

    async fn handle_line(&self, line: Line, is_stdout: bool) {
        let line = match line {
            Line::Whole(line) => line,
            Line::Cut(line) => {
                self.log(&line);
                if is_stdout {
                    self.end_block(false);
                    let fault = Fault::too_long(&line);
                    if let Some(Fault { member: Some(Member::Checkpoint), reason, .. }) = &fault {
                        self.fail(Failure::new(format!("the checkpoint cannot be saved: {reason}")));
                    }
                    self.take_fault(fault);
                }
                return;
            }
        };
        let message = if is_stdout { parse(&line) } else { None };
        let Some(message) = message.filter(|message| message.takes_effect() || !message.faults.is_empty()) else {
            self.log(&line);
            if is_stdout {
                self.look_at(&line);
            }
            return;
        };
        self.end_block(false);
        if !message.takes_effect() {
            self.log(&line);
        }
        for fault in message.faults {
            self.take_fault(Some(fault));
        }
        if let Some((percent, message)) = message.progress {
            self.context.set_progress(percent, message.as_deref());
        }
        if let Some(result) = message.result {
            self.received().result = Some(parse_result(result.get(), self.limits));
        }
        if message.skip.is_some() {
            self.received().skip = message.skip;
        }
        if let Some(checkpoint) = message.checkpoint {
            let json = Json::from_raw(&checkpoint, self.limits.json_depth, self.limits.checkpoint_bytes);
            let saved = match json {
                Ok(json) => self.context.save_json(json).await,
                Err(e) => Err(CheckpointError::OverLimit(e)),
            };
            if let Err(e) = saved {
                self.fail(Failure::from(e));
            }
        }
    }

    /// A log line may be part of a message that cannot be read.
    fn look_at(&self, line: &[u8]) {
        let block = self.received().block.take();
        let mut block = match block {
            Some(block) if block.may_continue() => block,
            Some(block) => {
                self.take_fault(block.end(false));
                return self.look_at(line);
            }
            None if line.trim_ascii_start().starts_with(b"{") => Block::default(),
            None => return self.take_fault(Fault::of(line, 1, false)),
        };
        match block.push(line) {
            ControlFlow::Continue(()) => self.received().block = Some(block),
            ControlFlow::Break(fault) => self.take_fault(fault),
        }
    }

    /// An object that has not ended was not meant to continue. `is_end`: the output has ended.
    fn end_block(&self, is_end: bool) {
        let block = self.received().block.take();
        self.take_fault(block.and_then(|block| block.end(is_end)));
    }

    /// Output that was meant as a message and cannot be read. If it decides how the job ends, the attempt fails unless
    /// a readable one follows; the history has a warning in any case.
    fn take_fault(&self, fault: Option<Fault>) {
        let Some(Fault { member, is_certain, is_cut_off, reason }) = fault else { return };
        let what = member.map_or("a line", |member| match member {
            Member::Progress => "the progress",
            Member::Checkpoint => "the checkpoint",
            Member::Skip => "the skip",
            Member::Result => "the result",
        });
        let reason = format!("{what} cannot be read: {reason}");
        let mut received = self.received();
        received.warnings += 1;
        if received.warnings <= WARNINGS_MAX {
            self.context.warn(&reason);
        }
        let is_settled = received.skip.is_some() || matches!(received.result, Some(Ok(_)));
        if matches!(member, Some(Member::Result | Member::Skip)) && (is_certain || !is_settled) {
            received.result = Some(Err(if is_cut_off { Failure::new(reason) } else { Failure::fatal(reason) }));
        }
    }

    fn log(&self, line: &[u8]) {
        tracing::debug!(job = %self.context.job_id(), "{}", String::from_utf8_lossy(line));
        self.received().log.push(line);
    }

    /// The outcome of the command.
    fn outcome(&self, status: ExitStatus) -> Result<Completion, Failure> {
        let mut received = self.received();
        if let Some(fault) = received.fault.take() {
            return Err(fault);
        }
        let skip = received.skip.take();
        let result = received.result.take().transpose();
        // A stopped command that exits with 0 has done its work only if it reported a result or a skip.
        let says_nothing = skip.is_none() && matches!(result, Ok(None));
        match status.code() {
            Some(0) if !(received.stopped && says_nothing) => Ok((result?.unwrap_or_else(Json::null), skip)),
            Some(FAILED_FOR_GOOD) => Err(Failure::fatal(describe_exit(status, &received.log))),
            _ => Err(Failure::new(describe_exit(status, &received.log))),
        }
    }
}

/// The exit of a command, with the end of its log.
fn describe_exit(status: ExitStatus, log: &Log) -> String {
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
