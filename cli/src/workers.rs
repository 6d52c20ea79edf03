//! `leasehold workers`: who runs jobs, or did within the hour.
use clap::Subcommand;
use comfy_table::{Cell, Color};

use crate::arguments::Common;
use crate::failure::Failure;
use crate::print::{self, Table, age, cell};

/// List the workers.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the workers.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        common: Common,
    },
}

/// Runs the command.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    let Command::Ls { common } = command;
    let workers = common.backend().await?.workers().await?;
    if common.json() {
        return Ok(print::json_list("workers", &workers)?);
    }
    let mut table = Table::new(&["WORKER", "HOST", "PID", "STATUS", "BUSY", "SEEN", "QUEUES", "KINDS"]);
    for worker in &workers {
        let (status, colour) = if worker.alive { ("alive", Color::Green) } else { ("silent", Color::Red) };
        table.row(vec![
            Cell::new(&worker.id),
            cell(&worker.host),
            Cell::new(worker.pid),
            Cell::new(status).fg(colour),
            Cell::new(format!("{}/{}", worker.running.len(), worker.slots)),
            Cell::new(age(worker.seen_at)),
            Cell::new(worker.queues.iter().map(|q| q.as_str()).collect::<Vec<_>>().join(",")),
            Cell::new(worker.kinds.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(",")),
        ]);
    }
    Ok(table.print()?)
}
