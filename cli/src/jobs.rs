//! `leasehold jobs`: the commands for jobs.
mod batch;
mod change;
mod files;
mod list;
mod prune;
mod show;
pub(crate) mod submit;
mod watch;

use clap::{Args, Subcommand};
use leasehold::JobId;

use crate::arguments::Common;
use crate::failure::Failure;

/// Submit, watch, list, show, cancel, retry and remove jobs.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Submit a job, or a batch from a file.
    Submit(Box<submit::Arguments>),
    /// Follow a job to its end; fails unless it completes.
    #[command(after_help = watch::AFTER_HELP)]
    Watch(One),
    /// List jobs: newest first, or by state in the order of that state.
    #[command(visible_alias = "list", after_help = list::AFTER_HELP)]
    Ls(list::Arguments),
    /// List the items of a batch, in their order.
    #[command(after_help = list::ITEMS_AFTER_HELP)]
    Items(list::ItemsArguments),
    /// Show one job in full.
    Show(One),
    /// Show a job's attempts, phases and interventions.
    History(One),
    /// List a job's files, or download one.
    Files(files::Arguments),
    /// Cancel jobs: waiting ones end at once, running ones are asked to stop.
    Cancel(Many),
    /// Requeue failed and cancelled jobs; their attempts are counted from the start.
    Retry(Many),
    /// Remove jobs that have ended, a batch with its items.
    Rm(Many),
    /// Delete many jobs that have ended: counts them, and deletes them with --yes.
    Prune(prune::Arguments),
}

/// One job.
#[derive(Args)]
pub(crate) struct One {
    /// The job's id, or its first or last characters.
    id: JobId,
    #[command(flatten)]
    common: Common,
}

/// One job or more.
#[derive(Args)]
pub(crate) struct Many {
    /// The jobs' ids, or their first or last characters; each is reported separately.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<JobId>,
    #[command(flatten)]
    common: Common,
}

/// Runs one of the commands.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Submit(arguments) => submit::run(*arguments).await,
        Command::Watch(One { id, common }) => watch::run(&id, &common).await,
        Command::Ls(arguments) => list::run(arguments).await,
        Command::Items(arguments) => list::items(arguments).await,
        Command::Show(One { id, common }) => show::job(&id, &common).await,
        Command::History(One { id, common }) => show::history(&id, &common).await,
        Command::Files(arguments) => files::run(arguments).await,
        Command::Cancel(Many { ids, common }) => change::cancel(&ids, &common).await,
        Command::Retry(Many { ids, common }) => change::retry(&ids, &common).await,
        Command::Rm(Many { ids, common }) => change::remove(&ids, &common).await,
        Command::Prune(arguments) => prune::run(arguments).await,
    }
}
