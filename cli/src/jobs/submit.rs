//! `jobs submit`: the same job that `POST /api/v1/jobs` would submit, with the same defaults.
use std::io::Read;
use std::time::Duration;

use clap::Args;
use leasehold::job::{Due, Idempotency, Priority};
use leasehold::store::{Watcher, request_digest};
use leasehold::{Config, JobId, Json, Kind, NewJob, QueueName, State, Store, Timestamp, limits};

use crate::arguments::{Common, duration, reached, time};
use crate::failure::{Failure, complain};
use crate::print;

/// The job to submit.
#[derive(Args)]
pub(crate) struct Arguments {
    /// What sort of work it is.
    #[arg(long)]
    kind: Kind,
    /// Its payload: JSON, @file, or - for standard input.
    #[arg(long, value_name = "JSON|@FILE|-", default_value = "null", allow_hyphen_values = true)]
    payload: String,
    /// Where it waits, in place of its kind's queue.
    #[arg(long)]
    queue: Option<QueueName>,
    /// high, normal or low.
    #[arg(long, value_parser = priority)]
    priority: Option<Priority>,
    /// Start it so much later, as in 5s, 10m, 2h.
    #[arg(long, value_name = "DURATION", value_parser = delay, conflicts_with = "run_at")]
    delay: Option<Duration>,
    /// Start it at this time, as in 2026-11-22T06:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    run_at: Option<Timestamp>,
    /// Attempts it is given, in place of its kind's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::ATTEMPTS_MAX)))]
    max_attempts: Option<u32>,
    /// Longest run, in place of its kind's.
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<Duration>,
    /// The same key and job again change nothing for 24 h and answer with the first job.
    #[arg(long, value_name = "KEY", value_parser = key)]
    idempotency_key: Option<String>,
    /// Wait until the job has ended, at most so long; fails unless it completed.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "30s", value_parser = duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    common: Common,
}

/// Submits the job, and waits for its end when asked to.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let common = &arguments.common;
    let config = common.load()?;
    let job = job(&arguments, &config)?;
    let store = reached(Store::connect(&config).await, &config)?;
    let watcher = arguments.wait.map(|limit| (Watcher::spawn(store.clone()), limit));
    let submitted = store.submit(job).await?;
    let id = &submitted.id;
    let Some((watcher, limit)) = watcher else {
        if common.json() {
            return Ok(print::json(&super::show::read(&store, id).await?)?);
        }
        return Ok(print::line(id)?);
    };
    if !common.json() {
        print::line(id)?;
    }
    wait(&watcher, id, limit, common.json()).await
}

async fn wait(watcher: &Watcher, id: &JobId, limit: Duration, json: bool) -> Result<(), Failure> {
    let gone = || Failure::Failed(format!("job {id} was removed while this waited for it"));
    let job = watcher.wait_for_end(id, limit).await?.ok_or_else(gone)?;
    if json {
        print::json(&job)?;
    } else if let Some(result) = &job.result {
        print::line(result.as_str())?;
    }
    match (job.state, &job.error) {
        (State::Completed, _) => return Ok(()),
        (state, Some(error)) if state.is_final() => {
            complain(format_args!("the job {state}: {}", print::plain(&error.message)));
        }
        (state, None) if state.is_final() => complain(format_args!("the job was {state}")),
        (state, _) => complain(format_args!("the job is still {state} after {}", span_of(limit))),
    }
    Err(Failure::Said)
}

fn span_of(limit: Duration) -> String {
    print::span(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX))
}

/// Fills in what its kind says.
fn job(arguments: &Arguments, config: &Config) -> Result<NewJob, Failure> {
    let kinds = config.load_kinds()?;
    let kind = kinds.get(&arguments.kind);
    let payload = Json::parse(&read(&arguments.payload)?, config.limits.json_depth, config.limits.payload_bytes)
        .map_err(|e| Failure::Usage(format!("--payload: {e}")))?;
    let queue = arguments.queue.clone().unwrap_or_else(|| kind.queue_name());
    let max_attempts = arguments.max_attempts.unwrap_or(kind.max_attempts);
    let timeout_ms = arguments.timeout.map(millis);
    let due = match (arguments.delay, arguments.run_at) {
        (Some(delay), _) => Due::In(millis(delay)),
        (None, Some(at)) => Due::At(at),
        (None, None) => Due::Now,
    };
    let digest = digest(arguments, &payload, due);
    Ok(NewJob {
        kind: arguments.kind.clone(),
        queue,
        priority: arguments.priority.unwrap_or_default(),
        payload,
        due,
        max_attempts,
        timeout_ms,
        idempotency: arguments.idempotency_key.clone().map(|key| Idempotency { key, digest }),
        limited: kind.max_running.is_some(),
        batch: None,
        uploaded: None,
    })
}

/// The digest that the API gives the same submit, so that a key means the same over both doors.
fn digest(arguments: &Arguments, payload: &Json, due: Due) -> String {
    let due = match (due, arguments.delay) {
        (Due::At(at), _) => at.0.to_string(),
        (_, Some(delay)) => format!("+{}", millis(delay)),
        _ => String::new(),
    };
    let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let (attempts, timeout) = (arguments.max_attempts.map(u64::from), arguments.timeout.map(millis));
    request_digest([
        arguments.kind.as_str(),
        payload.as_str(),
        arguments.queue.as_ref().map_or("", QueueName::as_str),
        arguments.priority.map_or("", Priority::as_str),
        &due,
        &number(attempts),
        &number(timeout),
        // No items: not open, no `then`, none of them.
        "false",
        "",
        "",
    ])
}

fn read(payload: &str) -> Result<String, Failure> {
    if payload == "-" {
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn priority(word: &str) -> Result<Priority, String> {
    Priority::parse(word).ok_or_else(|| "write high, normal or low".into())
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration(text)?;
    if millis(delay) > limits::DELAY_MS_MAX { Err("write at most ten years, 3650d".into()) } else { Ok(delay) }
}

fn timeout(text: &str) -> Result<Duration, String> {
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
