//! `jobs prune`: delete jobs that have ended, after showing how many.
use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::time::Duration;

use clap::Args;
use leasehold::store::PruneQuery;
use leasehold::{Kind, State};
use serde::Serialize;

use crate::arguments::{Common, duration};
use crate::backend::{Backend, millis};
use crate::failure::Failure;
use crate::print;

/// What to delete.
#[derive(Args)]
#[command(after_help = "\
A batch goes with its items, a job with its files. Without --yes it asks on a terminal; elsewhere it only reports how many
jobs would be deleted.

Examples:
  leasehold jobs prune --state completed --older-than 7d
  leasehold jobs prune --kind word-count --keep 1000 --yes")]
pub(crate) struct Arguments {
    /// Only jobs in this final state: completed, failed or cancelled.
    #[arg(long, value_parser = final_state)]
    state: Option<State>,
    /// Only jobs of this kind.
    #[arg(long)]
    kind: Option<Kind>,
    /// Only jobs that ended longer ago, as in 90s, 15m, 24h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Keep the newest N of the kind.
    #[arg(long, value_name = "N", requires = "kind")]
    keep: Option<u64>,
    /// Keep the newest of the kind up to BYTES in all.
    #[arg(long, value_name = "BYTES", requires = "kind")]
    max_bytes: Option<u64>,
    /// Delete them.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: Common,
}

/// What was found, and what was deleted of it.
#[derive(Serialize)]
struct Answer {
    matching: u64,
    deleted: u64,
}

/// Counts the jobs, and deletes them with `--yes` or after a yes.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { state, kind, older_than, keep, max_bytes, yes, common } = arguments;
    if state.is_none() && kind.is_none() && older_than.is_none() {
        let advice =
            "this would delete every job that has ended; name at least one of --state, --kind and --older-than";
        return Err(Failure::Usage(advice.into()));
    }
    let older_than_ms = older_than.map(millis);
    let query = PruneQuery { state, kind, older_than_ms, keep, bytes_max: max_bytes, dry_run: true, within: None };
    let backend = common.backend().await?;
    let counted_again = query.clone();
    let counted = backend.prune(&query).await?;
    let matching = counted.matching;
    let what = format!("{}{matching} {}", if counted.more { "at least " } else { "" }, jobs(matching));
    let mut deleted = 0;
    if matching > 0 && (yes || ask(&what)?) {
        deleted = delete(&backend, &PruneQuery { dry_run: false, ..query }).await?;
    }
    if common.json() {
        return Ok(print::json(&Answer { matching, deleted })?);
    }
    // A batch stays listed until its items are gone.
    let left = if deleted > 0 { backend.prune(&counted_again).await?.matching } else { 0 };
    match (matching, deleted) {
        (0, _) => print::line("no job matches; nothing was deleted")?,
        (_, 0) if !yes => print::line(format_args!("{what} would be deleted; the same command with --yes deletes"))?,
        _ if left > 0 => {
            let why = "a batch is removed after its items, and jobs may have ended since";
            print::line(format_args!("{deleted} {} deleted; {left} still match: {why}", jobs(deleted)))?
        }
        _ => print::line(format_args!("{deleted} {} deleted", jobs(deleted)))?,
    }
    Ok(())
}

async fn delete(backend: &Backend, query: &PruneQuery) -> Result<u64, Failure> {
    let mut deleted = 0;
    loop {
        let step = backend.prune(query).await.map_err(|failure| match deleted {
            0 => failure,
            n => Failure::Failed(format!("{failure}; {n} {} deleted before", jobs(n))),
        })?;
        deleted += step.deleted;
        if !step.more {
            return Ok(deleted);
        }
        // Each step begins at the newest job again: one that reached nothing to delete never will.
        if step.deleted == 0 && (query.keep.is_some() || query.bytes_max.is_some()) {
            let advice =
                "what is kept takes longer to count than a request may; run the same command straight on Redis";
            return Err(Failure::Failed(format!("{advice} (without --api); {deleted} {} deleted", jobs(deleted))));
        }
    }
}

/// Asks at the terminal; without a terminal nothing is deleted.
fn ask(what: &str) -> Result<bool, Failure> {
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        return Ok(false);
    }
    write!(stderr(), "delete {what}? [y/N] ")?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn jobs(n: u64) -> &'static str {
    if n == 1 { "job" } else { "jobs" }
}

fn final_state(word: &str) -> Result<State, String> {
    let state = State::parse(word).filter(|state| state.is_final());
    state.ok_or_else(|| "write completed, failed or cancelled: only jobs that have ended are deleted".into())
}
