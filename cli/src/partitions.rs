//! `leasehold partitions`: more partitions, for a system at work.
use std::time::Duration;

use leasehold::Store;

use crate::arguments::{NotVia, Source, reached};
use crate::failure::Failure;
use crate::print;

/// How long the other processes have to learn of the new partitions: they look every 5 s.
const ADOPTED_WITHIN: Duration = Duration::from_secs(15);

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Place new jobs in N partitions from now on. No job is moved, and no process needs a restart. There is no way
    /// back to fewer.
    Grow(Grow),
}

#[derive(clap::Args)]
pub(crate) struct Grow {
    /// The number of partitions, up to 256.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    partitions: u16,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    not_via: NotVia,
}

/// Runs it.
pub(crate) async fn run(Command::Grow(arguments): &Command) -> Result<(), Failure> {
    arguments.not_via.check("it works on Redis itself; name it with --redis-url")?;
    let (to, config) = (arguments.partitions, arguments.source.load_for_command()?);
    // A growth does not depend on the number that this process was started with.
    let config = leasehold::Config { partitions: None, ..config };
    let store = reached(Store::connect_unchecked(&config).await, &config)?;
    let seconds = ADOPTED_WITHIN.as_secs();
    print::line(format_args!(
        "{} partitions; waiting {seconds} s for the other processes to learn of {to}",
        store.partitions()
    ))?;
    let from = store.grow_partitions(to, ADOPTED_WITHIN.as_millis() as u64).await?;
    Ok(print::line(format_args!("new jobs are placed in {to} partitions; the jobs of the {from} stay where they are"))?)
}
