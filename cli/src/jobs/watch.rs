//! `jobs watch`, and what `jobs submit` does once it has submitted: follow a job to its end.
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use leasehold::job::Items;
use leasehold::{Job, JobId, Refusal, State};

use super::show;
use crate::arguments::Common;
use crate::backend::Backend;
use crate::failure::{Failure, complain};
use crate::print::{self, plain, span};

pub(super) const AFTER_HELP: &str = "\
Progress goes to standard error: a bar on a terminal, lines elsewhere. The result goes to standard output; with -o json the
job as it has ended. Exit code 0 when it completed, 1 when it failed or was cancelled.

Examples:
  leasehold jobs watch ID
  leasehold jobs watch ID -o json 2>/dev/null | jq .result";

/// How often the bar is redrawn when nothing has changed.
const TICK: Duration = Duration::from_millis(120);

/// Follows a job.
pub(super) async fn run(id: &JobId, common: &Common) -> Result<(), Failure> {
    let backend = common.backend().await?;
    let id = backend.resolve(id).await?;
    let job = follow(&backend, &id).await?;
    finish(&job, common.json())
}

/// Follows a job to its end and shows its progress.
pub(super) async fn follow(backend: &Backend, id: &JobId) -> Result<Job, Failure> {
    let (mut follower, mut meter) = (backend.follow(id)?, Meter::new());
    let mut seen = false;
    loop {
        let next = tokio::select! {
            next = follower.next() => next?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                drop(meter);
                return Err(left(id));
            }
        };
        let Some(job) = next else {
            return Err(if seen { removed(id) } else { Failure::Failed(Refusal::NotFound(id.clone()).to_string()) });
        };
        seen = true;
        meter.show(&job, backend.lack(&job).await);
        if job.state.is_final() {
            return Ok(job);
        }
    }
}

/// Waits for the end of a job, for at most `limit`; returns the job as it is then.
pub(super) async fn wait(backend: &Backend, id: &JobId, limit: Duration) -> Result<Job, Failure> {
    let mut follower = backend.follow(id)?;
    let end = async {
        loop {
            match follower.next().await? {
                Some(job) if job.state.is_final() => return Ok(job),
                Some(_) => {}
                None => return Err(removed(id)),
            }
        }
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(limit, end) => ended,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            return Err(left(id));
        }
    };
    match ended {
        Ok(ended) => ended,
        Err(_) => backend.find(id).await?.ok_or_else(|| removed(id)),
    }
}

/// The watch was interrupted; the job does not depend on it.
fn left(id: &JobId) -> Failure {
    print::aside(format_args!(
        "\njob {id} continues\n  leasehold jobs watch {id}    to watch it again\n  leasehold jobs cancel {id}   to cancel it"
    ));
    Failure::Said
}

fn removed(id: &JobId) -> Failure {
    Failure::Failed(format!("job {id} was removed while this waited for it"))
}

/// Prints the outcome of a job. Fails unless it completed; the failure has been printed then.
pub(super) fn finish(job: &Job, json: bool) -> Result<(), Failure> {
    if json {
        print::json(job)?;
    } else if let Some(result) = &job.result {
        print::line(result.as_str())?;
    }
    match (job.state, &job.error) {
        (State::Completed, _) => return Ok(()),
        (state, Some(error)) if state.is_final() => {
            complain(format_args!("the job {state}: {}", plain(&error.message)));
        }
        (State::Cancelled, None) => complain("the job was cancelled"),
        (state, None) if state.is_final() => complain(format_args!("the job {state}")),
        (state, _) => complain(format_args!("the job is still {state}")),
    }
    Err(Failure::Said)
}

/// The progress of a job: a bar on a terminal, elsewhere a line for each step.
struct Meter {
    bar: Option<ProgressBar>,
    reported: String,
}

impl Meter {
    fn new() -> Self {
        let bar = print::is_live().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, reported: String::new() }
    }

    fn show(&mut self, job: &Job, lack: Option<String>) {
        let text = text(job, lack);
        let Some(bar) = &self.bar else {
            let step = step(job);
            if self.reported != step {
                print::aside(&text);
                self.reported = step;
            }
            return;
        };
        if job.state.is_final() {
            bar.finish_and_clear();
            return print::aside(&text);
        }
        let (template, at, of) = match (&job.items, job.progress.as_ref().and_then(|p| p.percent)) {
            (Some(items), _) if items.total > 0 => {
                ("{spinner} {wide_bar} {pos}/{len}  {msg}", ended(items), items.total)
            }
            (_, Some(percent)) => ("{spinner} {wide_bar} {pos} %  {msg}", percent.clamp(0.0, 100.0) as u64, 100),
            _ => ("{spinner} {msg}", 0, 0),
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the templates above are right"));
        bar.set_length(of);
        bar.set_position(at);
        bar.set_message(text);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn ended(items: &Items) -> u64 {
    items.succeeded + items.failed + items.skipped + items.cancelled
}

/// What changes with each step that is reported: state, phase, each tenth.
fn step(job: &Job) -> String {
    let tenth = job.progress.as_ref().and_then(|p| p.percent).map(|percent| (percent / 10.0) as u64);
    let phase = job.progress.as_ref().and_then(|p| p.message.clone()).filter(|_| job.state == State::Running);
    let items = job.items.as_ref().filter(|items| items.total > 0).map(|items| 10 * ended(items) / items.total);
    format!("{} {tenth:?} {phase:?} {items:?} {} {}", job.state, job.crashes, job.attempt)
}

/// The state of a job, on one line.
fn text(job: &Job, lack: Option<String>) -> String {
    let mut parts = vec![job.state.to_string()];
    if let Some(items) = &job.items {
        let counts = [
            (items.succeeded, "succeeded"),
            (items.failed, "failed"),
            (items.skipped, "skipped"),
            (items.cancelled, "cancelled"),
        ];
        parts.push(format!("{} of {} items", ended(items), items.total));
        parts.extend(counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    }
    match job.state {
        State::Running => parts.extend(job.progress.as_ref().map(show::progress)),
        State::Retrying => parts.extend(job.error.as_ref().map(|error| print::brief(&error.message))),
        State::Queued => parts.extend(lack),
        State::Completed | State::Failed | State::Cancelled => {
            let took = job.finished_at.map(|end| end.0 - job.created_at.0);
            parts.extend(took.map(|ms| format!("{} after it was submitted", span(ms))));
        }
        _ => {}
    }
    if job.attempt > 1 {
        parts.push(format!("attempt {} of {}", job.attempt, job.max_attempts));
    }
    if job.crashes > 0 {
        parts.push(format!("{} {} lost", job.crashes, if job.crashes == 1 { "worker" } else { "workers" }));
    }
    if job.cancel_requested {
        parts.push("cancel requested".into());
    }
    plain(&parts.join(", "))
}
