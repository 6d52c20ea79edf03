//! `leasehold jobs`: what a client sees of its jobs, and what an operator may do to them.
mod change;
mod show;
mod submit;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use leasehold::store::ListQuery;
use leasehold::{Job, JobId, Kind, QueueName, State, Store, limits};

use crate::arguments::Common;
use crate::failure::Failure;
use crate::print::{self, Table, age, cell, span};

/// Submit, list, show, cancel, retry and remove jobs.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Submit a job.
    Submit(Box<submit::Arguments>),
    /// List jobs: newest first, or by state in the order of that state.
    #[command(visible_alias = "list")]
    Ls(List),
    /// Show one job, whole.
    Show(One),
    /// Show a job's attempts, phases and interventions.
    History(One),
    /// Cancel jobs: what runs is asked to stop, what waits ends at once.
    Cancel(Many),
    /// Requeue failed and cancelled jobs, their attempts counted anew.
    Retry(Many),
    /// Remove jobs that have ended, a batch with its items.
    Rm(Many),
}

/// Which jobs to list.
#[derive(Args)]
pub(crate) struct List {
    /// Only jobs in this state.
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Only jobs of this kind.
    #[arg(long)]
    kind: Option<Kind>,
    /// Only jobs of this queue.
    #[arg(long)]
    queue: Option<QueueName>,
    /// The items of this batch.
    #[arg(long, value_name = "ID")]
    parent: Option<JobId>,
    /// Jobs in a page, at most 1000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=limits::PAGE_MAX as i64))]
    limit: u16,
    /// Where the page before ended.
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// One job.
#[derive(Args)]
pub(crate) struct One {
    /// The job's id.
    id: JobId,
    #[command(flatten)]
    common: Common,
}

/// One job or more.
#[derive(Args)]
pub(crate) struct Many {
    /// The jobs' ids; each is answered alone.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<JobId>,
    #[command(flatten)]
    common: Common,
}

/// Runs one of the commands.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Submit(arguments) => submit::run(*arguments).await,
        Command::Ls(arguments) => list(arguments).await,
        Command::Show(One { id, common }) => show::job(&id, &common).await,
        Command::History(One { id, common }) => show::history(&id, &common).await,
        Command::Cancel(Many { ids, common }) => change::cancel(&ids, &common).await,
        Command::Retry(Many { ids, common }) => change::retry(&ids, &common).await,
        Command::Rm(Many { ids, common }) => change::remove(&ids, &common).await,
    }
}

/// The state of that word.
fn state(word: &str) -> Result<State, String> {
    let words = || State::ALL.map(State::as_str).join(", ");
    State::parse(word).ok_or_else(|| format!("write one of {}", words()))
}

async fn list(arguments: List) -> Result<(), Failure> {
    let List { state, kind, queue, parent, limit, cursor, common } = arguments;
    let mut query = ListQuery { state, kind, queue, parent, limit: limit.into(), cursor: None };
    if let Some(cursor) = cursor {
        query = query.with_cursor(&cursor).map_err(|e| Failure::Usage(format!("--cursor: {e}")))?;
    }
    let store = common.connect().await?;
    let mut page = store.list(&query).await?;
    say_served(&store, &mut page.jobs).await?;
    if common.json() {
        return Ok(print::json(&page)?);
    }
    let mut table = Table::new(&["ID", "KIND", "QUEUE", "STATE", "ATTEMPT", "AGE", "DETAIL"]);
    for job in &page.jobs {
        table.row(vec![
            Cell::new(&job.id),
            Cell::new(&job.kind),
            Cell::new(&job.queue),
            print::state_cell(job.state),
            Cell::new(format!("{}/{}", job.attempt, job.max_attempts)),
            Cell::new(span(print::now().0 - job.created_at.0)),
            cell(detail(job)),
        ]);
    }
    table.print()?;
    if let Some(cursor) = page.next_cursor {
        print::line(format_args!("more: the same command with --cursor {cursor}"))?;
    }
    Ok(())
}

/// Fills in, for jobs that wait for a worker, whether a living one serves their kind, as the API does.
async fn say_served(store: &Store, jobs: &mut [Job]) -> Result<(), Failure> {
    let waits = |job: &&mut Job| job.state == State::Queued && job.items.is_none();
    let waiting: Vec<&mut Job> = jobs.iter_mut().filter(waits).collect();
    if !waiting.is_empty() {
        let kinds = store.served_kinds().await?;
        waiting.into_iter().for_each(|job| job.served = Some(kinds.contains(&job.kind)));
    }
    Ok(())
}

/// What is most worth knowing about a job besides its state.
fn detail(job: &Job) -> String {
    let mut parts = Vec::new();
    if job.cancel_requested {
        parts.push("cancel asked".to_owned());
    }
    if job.crashes > 0 {
        parts.push(format!("{} {}", job.crashes, if job.crashes == 1 { "crash" } else { "crashes" }));
    }
    if let Some(items) = &job.items {
        let ended = items.succeeded + items.failed + items.skipped + items.cancelled;
        parts.push(format!("{ended} of {} items, {} failed", items.total, items.failed));
    }
    match job.state {
        State::Running => {
            parts.extend(job.progress.as_ref().map(progress));
            parts.extend(job.worker.as_ref().map(|worker| format!("on {worker}")));
        }
        State::Scheduled => parts.extend(job.scheduled_at.map(|due| format!("due {}", age(due)))),
        State::Retrying => {
            parts.extend(job.scheduled_at.map(|due| format!("again {}", age(due))));
            parts.extend(job.error.as_ref().map(|error| error.message.clone()));
        }
        State::Completed => {
            let took = job.started_at.zip(job.finished_at).map(|(start, end)| end.0 - start.0);
            parts.extend(took.map(|ms| format!("took {}", span(ms))));
            parts.extend(job.skipped.as_ref().map(|reason| format!("skipped: {reason}")));
        }
        State::Failed => parts.extend(job.error.as_ref().map(|error| error.message.clone())),
        State::Queued if job.served == Some(false) => parts.push("no living worker serves its kind".to_owned()),
        State::Waiting | State::Queued | State::Cancelled => {}
    }
    parts.join(", ")
}

/// How far a job is: `40 % counting`.
fn progress(progress: &leasehold::job::Progress) -> String {
    let percent = progress.percent.map(|percent| format!("{percent:.0} %"));
    [percent, progress.message.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ")
}
