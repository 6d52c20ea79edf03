//! `jobs ls` and `jobs items`: one page, or all pages as they arrive.
use clap::Args;
use comfy_table::Cell;
use leasehold::store::Serving;
use leasehold::{Job, JobId, Kind, QueueName, State, limits};

use super::show;
use crate::arguments::Common;
use crate::backend::{Backend, Listing};
use crate::failure::Failure;
use crate::print::{self, Table, age, cell, span};

pub(super) const AFTER_HELP: &str = "\
Examples:
  leasehold jobs ls --state failed --kind word-count
  leasehold jobs ls --state completed --all -o json | jq -r .id       one job per line";

pub(super) const ITEMS_AFTER_HELP: &str = "\
Examples:
  leasehold jobs items ID --state failed
  leasehold jobs items ID --all -o json | jq .result                  one item per line";

/// Jobs in a page of all.
const ALL_PAGE: usize = 500;

/// Which jobs to list.
#[derive(Args)]
pub(crate) struct Arguments {
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
    #[command(flatten)]
    pages: Pages,
    #[command(flatten)]
    common: Common,
}

/// Which items to list.
#[derive(Args)]
pub(crate) struct ItemsArguments {
    /// The batch's id, or its first or last characters.
    id: JobId,
    /// Only items in this state.
    #[arg(long, value_parser = state)]
    state: Option<State>,
    #[command(flatten)]
    pages: Pages,
    #[command(flatten)]
    common: Common,
}

/// How much of a listing.
#[derive(Args)]
struct Pages {
    /// Jobs in a page, at most 1000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=limits::PAGE_MAX as i64))]
    limit: u16,
    /// Where the page before ended.
    #[arg(long)]
    cursor: Option<String>,
    /// All pages, from the cursor if there is one; with -o json one job per line.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// Reads a state.
pub(super) fn state(word: &str) -> Result<State, String> {
    let words = || State::ALL.map(State::as_str).join(", ");
    State::parse(word).ok_or_else(|| format!("write one of {}", words()))
}

/// Lists jobs.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { state, kind, queue, parent, pages, common } = arguments;
    let backend = common.backend().await?;
    print(&backend, Listing { state, kind, queue, parent, ..Listing::default() }, pages, &common).await
}

/// Lists items.
pub(super) async fn items(arguments: ItemsArguments) -> Result<(), Failure> {
    let ItemsArguments { id, state, pages, common } = arguments;
    let backend = common.backend().await?;
    let id = backend.resolve(&id).await?;
    if backend.get(&id).await?.items.is_none() {
        return Err(Failure::Failed(format!("job {id} is not a batch, so it has no items")));
    }
    print(&backend, Listing { state, parent: Some(id), ..Listing::default() }, pages, &common).await
}

async fn print(backend: &Backend, listing: Listing, pages: Pages, common: &Common) -> Result<(), Failure> {
    let Pages { limit, cursor, all } = pages;
    let mut listing = Listing { limit: if all { ALL_PAGE } else { limit.into() }, cursor, ..listing };
    let mut heads = true;
    loop {
        let page = backend.list(&listing).await?;
        match (common.json(), all) {
            (true, false) => return Ok(print::json(&page)?),
            (true, true) => print::json_lines(&page.jobs)?,
            (false, _) if heads || !page.jobs.is_empty() => {
                table(&page.jobs, &backend.serving(&page.jobs).await?, heads, all)?;
            }
            (false, _) => {}
        }
        heads = false;
        match page.next_cursor {
            None => return Ok(()),
            Some(cursor) if all => listing.cursor = Some(cursor),
            Some(cursor) => {
                let more = format_args!("more: the same command with --cursor {cursor}, or --all");
                return Ok(print::line(more)?);
            }
        }
    }
}

fn table(jobs: &[Job], serving: &Serving, heads: bool, all: bool) -> std::io::Result<()> {
    let narrow = print::is_narrow();
    // Pages that follow one another have the same columns.
    let one_queue = narrow && !all && jobs.windows(2).all(|two| two[0].queue == two[1].queue);
    let heads_of = ["ID", "KIND", "QUEUE", "STATE", "ATTEMPT", "AGE", "DETAIL"];
    let shown: Vec<&str> = heads_of.into_iter().filter(|head| !(one_queue && *head == "QUEUE")).collect();
    let mut table = Table::new(&shown);
    for job in jobs {
        let id = job.id.as_str();
        let mut cells = vec![Cell::new(if narrow { print::short_id(id) } else { id }), Cell::new(&job.kind)];
        if !one_queue {
            cells.push(Cell::new(&job.queue));
        }
        cells.extend([
            print::state_cell(job.state),
            Cell::new(show::attempt(job).map_or_else(|| "–".into(), |n| format!("{n}/{}", job.max_attempts))),
            Cell::new(span(print::now().0 - job.created_at.0)),
            cell(print::brief(&detail(job, serving))),
        ]);
        table.row(cells);
    }
    table.print_after(if heads { 0 } else { 1 })
}

/// What is most worth knowing about a job besides its state.
fn detail(job: &Job, serving: &Serving) -> String {
    let mut parts = Vec::new();
    if job.cancel_requested {
        parts.push("cancel requested".to_owned());
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
            parts.extend(job.progress.as_ref().map(show::progress));
            parts.extend(job.worker.as_ref().map(|worker| format!("on {worker}")));
        }
        State::Scheduled => parts.extend(job.scheduled_at.map(|due| format!("due {}", age(due)))),
        State::Retrying => {
            parts.extend(job.scheduled_at.map(|due| format!("again {}", age(due))));
            parts.extend(job.error.as_ref().map(|error| print::brief(&error.message)));
        }
        State::Completed => {
            let took = job.started_at.zip(job.finished_at).map(|(start, end)| end.0 - start.0);
            parts.extend(took.map(|ms| format!("took {}", span(ms))));
            parts.extend(job.skipped.as_ref().map(|reason| format!("skipped: {}", print::brief(reason))));
        }
        State::Failed => parts.extend(job.error.as_ref().map(|error| print::brief(&error.message))),
        State::Queued if job.served == Some(false) => parts.extend(serving.lack(&job.kind, &job.queue)),
        State::Waiting | State::Queued | State::Cancelled => {}
    }
    parts.join(", ")
}
