//! `leasehold workers`: the workers that are alive, or were within the hour.
use clap::Subcommand;
use comfy_table::{Cell, Color};

use crate::arguments::Common;
use crate::failure::Failure;
use crate::print::{self, Table, age, cell};

/// Jobs of a worker that the table names.
const RUNS_SHOWN: usize = 4;

/// List the workers.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the workers, and the jobs that each runs.
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
    // Short ids where the terminal is narrow, and what changes rather than what is configured.
    let narrow = print::is_narrow();
    let heads: &[&str] = match narrow {
        true => &["WORKER", "PID", "STATUS", "BUSY", "SEEN", "RUNS"],
        false => &["WORKER", "HOST", "PID", "STATUS", "BUSY", "SEEN", "QUEUES", "KINDS", "RUNS"],
    };
    let mut table = Table::new(heads);
    for worker in &workers {
        let (status, colour) = if worker.alive { ("alive", Color::Green) } else { ("silent", Color::Red) };
        let runs = worker.running.iter().take(RUNS_SHOWN).map(|id| match narrow {
            true => print::short_id(id.as_str()),
            false => id.as_str(),
        });
        let mut runs = runs.collect::<Vec<_>>().join(",");
        if worker.running.len() > RUNS_SHOWN {
            runs += &format!(",… and {} more", worker.running.len() - RUNS_SHOWN);
        }
        let mut cells = vec![Cell::new(&worker.id)];
        if !narrow {
            cells.push(cell(&worker.host));
        }
        cells.extend([
            Cell::new(worker.pid),
            Cell::new(status).fg(colour),
            Cell::new(format!("{}/{}", worker.running.len(), worker.slots)),
            Cell::new(age(worker.seen_at)),
        ]);
        if !narrow {
            cells.push(Cell::new(worker.queues.iter().map(|q| q.as_str()).collect::<Vec<_>>().join(",")));
            cells.push(Cell::new(worker.kinds.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(",")));
        }
        cells.push(Cell::new(runs));
        table.row(cells);
    }
    Ok(table.print()?)
}
