//! `jobs submit`: the same job that `POST /api/v1/jobs` would submit, with the same defaults.
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use leasehold::job::{Due, Durability, NewBatch, Priority};
use leasehold::store::Serving;
use leasehold::{Draft, Job, Kind, QueueName, Timestamp, limits};

use super::{batch, watch};
use crate::arguments::{Common, duration, time};
use crate::backend::{self, Attachment, Backend, Submission, millis};
use crate::failure::Failure;
use crate::print;

/// The job to submit.
#[derive(Args)]
#[command(after_help = "\
A batch is a job with items: --items reads one payload per line and submits them in parts, in bounded memory. Nothing is
submitted when a line of the file is not JSON; when the lines come from a pipe, what was submitted before the bad line is
cancelled. With an --idempotency-key, the same command continues where an earlier one was interrupted.

Examples:
  leasehold jobs submit --kind word-count --payload '{\"file\": \"a.txt\"}' --watch
  leasehold jobs submit --kind word-count --payload @job.json --delay 15m --idempotency-key monday
  leasehold jobs submit --kind resize --file photo.jpg --file logo.png
  leasehold jobs submit --kind word-count --items pages.jsonl --then sum-up --watch")]
pub(crate) struct Arguments {
    /// The kind of the job.
    #[arg(long)]
    kind: Kind,
    /// Its payload: JSON, @file, or - for standard input.
    #[arg(long, value_name = "JSON|@FILE|-", default_value = "null", allow_hyphen_values = true)]
    payload: String,
    /// The queue, in place of its kind's.
    #[arg(long)]
    queue: Option<QueueName>,
    /// Which jobs of its queue start first.
    #[arg(long, value_parser = priority())]
    priority: Option<Priority>,
    /// Delay before the job may start, e.g. 5s, 10m, 2h.
    #[arg(long, value_name = "DURATION", value_parser = delay, conflicts_with = "run_at")]
    delay: Option<Duration>,
    /// Time before which the job must not start, e.g. 2026-11-22T06:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    run_at: Option<Timestamp>,
    /// Maximum number of attempts, in place of its kind's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::ATTEMPTS_MAX)))]
    max_attempts: Option<u32>,
    /// Maximum duration of an attempt, in place of its kind's.
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<Duration>,
    /// Wait until N replicas of Redis have the job, in place of its kind's; fails when fewer acknowledge it in time.
    #[arg(long, value_name = "replicas:N", value_parser = Durability::parse, conflicts_with = "items")]
    durability: Option<Durability>,
    /// For 24 h, a submit with the same key and job returns the first job instead of making another.
    #[arg(long, value_name = "KEY", value_parser = key)]
    idempotency_key: Option<String>,
    /// A file for the handler to read; may be repeated.
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,
    /// Submit a batch: one payload per line of this file, or of standard input for -.
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["delay", "run_at"])]
    items: Option<PathBuf>,
    /// The kind to run over the finished items of a batch.
    #[arg(long, value_name = "KIND", requires = "items")]
    then: Option<Kind>,
    /// Follow the job to its end, with a progress bar; fails unless it completed.
    #[arg(long)]
    watch: bool,
    /// Wait for the end of the job, for at most DURATION; fails unless it completed.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "30s", value_parser = duration,
          conflicts_with = "watch")]
    wait: Option<Duration>,
    #[command(flatten)]
    common: Common,
}

/// Submits the job, and waits for its end with `--wait` or `--watch`.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.common.json();
    let payload = read(&arguments.payload, arguments.items.as_ref())?;
    let backend = arguments.common.backend().await?;
    let submission = submission(&arguments, &payload, &backend)?;
    let job = match &arguments.items {
        Some(path) => batch::submit(&backend, submission, path).await?,
        None => backend.submit(submission).await?,
    };
    if !json {
        print::line(&job.id)?;
    }
    if !arguments.watch {
        warn_unserved(&backend, &job).await;
    }
    let job: Job = match arguments.wait {
        Some(limit) => watch::wait(&backend, &job.id, limit).await?,
        None if arguments.watch => watch::follow(&backend, &job.id).await?,
        None if json => return Ok(print::json(&backend.find(&job.id).await?.unwrap_or(job))?),
        None => return Ok(()),
    };
    watch::finish(&job, json)
}

/// Says when the job, or the items of the batch, will wait because no living worker serves them. It is only a warning:
/// the job is submitted, so a failed check does not fail the command.
async fn warn_unserved(backend: &Backend, job: &Job) {
    if job.served != Some(false) && job.items.is_none() {
        return;
    }
    if let Ok(workers) = backend.workers().await
        && let Some(lack) = Serving::of(workers).lack(&job.kind, &job.queue)
    {
        print::aside(format_args!("warning: {lack}; the job waits until one does"));
    }
}

fn submission(arguments: &Arguments, payload: &str, backend: &Backend) -> Result<Submission, Failure> {
    let payload = backend::payload(payload, backend).map_err(|e| Failure::Usage(format!("--payload: {e}")))?;
    let due = arguments.delay.map(|delay| Due::In(millis(delay)));
    let batch = |_| NewBatch { items: Vec::new(), open: true, then: arguments.then.clone() };
    let draft = Draft {
        queue: arguments.queue.clone(),
        priority: arguments.priority,
        due: due.or(arguments.run_at.map(Due::At)),
        max_attempts: arguments.max_attempts,
        timeout_ms: arguments.timeout.map(millis),
        key: arguments.idempotency_key.clone(),
        durability: arguments.durability,
        batch: arguments.items.as_ref().map(batch),
        ..Draft::new(arguments.kind.clone(), payload)
    };
    Ok(Submission { draft, files: Attachment::all(&arguments.file)? })
}

/// Reads the value of `--payload`.
pub(crate) fn read(payload: &str, items: Option<&PathBuf>) -> Result<String, Failure> {
    if payload == "-" {
        if items.is_some_and(|path| path.as_os_str() == "-") {
            return Err(Failure::Usage("--payload and --items cannot both be standard input".into()));
        }
        let mut text = String::new();
        let read = std::io::stdin().lock().read_to_string(&mut text);
        return read.map(|_| text).map_err(|e| Failure::Usage(format!("--payload: standard input: {e}")));
    }
    match payload.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("--payload: file {path:?}: {e}")))
        }
        None => Ok(payload.to_owned()),
    }
}

/// Reads `--priority`.
pub(crate) fn priority() -> impl TypedValueParser<Value = Priority> {
    let words = PossibleValuesParser::new(["high", "normal", "low"]);
    words.map(|word| Priority::parse(&word).expect("the words above are priorities"))
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration(text)?;
    if millis(delay) > limits::DELAY_MS_MAX { Err("write at most ten years, 3650d".into()) } else { Ok(delay) }
}

/// Reads `--timeout`.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    let fits = (1..=limits::TIMEOUT_MS_MAX).contains(&millis(timeout));
    if fits { Ok(timeout) } else { Err("write 1ms to 7d".into()) }
}

fn key(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if printable && (1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!("write 1 to {} printable ASCII characters", limits::IDEMPOTENCY_KEY_BYTES_MAX))
}
