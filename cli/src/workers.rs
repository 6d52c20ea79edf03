//! `leasehold workers`: who runs jobs, or did within the hour.
use clap::Subcommand;
use comfy_table::{Cell, Color};
use leasehold::store::WorkerStatus;

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
    let workers = common.connect().await?.workers().await?;
    if common.json() {
        return Ok(print::json_list("workers", &workers.iter().map(api_shape).collect::<Vec<_>>())?);
    }
    let mut table = Table::new(&["WORKER", "HOST", "PID", "STATUS", "BUSY", "SEEN", "QUEUES", "KINDS"]);
    for worker in &workers {
        let info = &worker.info;
        let (status, colour) = if worker.alive { ("alive", Color::Green) } else { ("silent", Color::Red) };
        table.row(vec![
            Cell::new(&info.id),
            cell(&info.host),
            Cell::new(info.pid),
            Cell::new(status).fg(colour),
            Cell::new(format!("{}/{}", worker.running.len(), info.slots)),
            Cell::new(age(worker.seen_at)),
            Cell::new(info.queues.iter().map(|q| q.as_str()).collect::<Vec<_>>().join(",")),
            Cell::new(info.kinds.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(",")),
        ]);
    }
    Ok(table.print()?)
}

/// A worker as `GET /api/v1/workers` shows it.
fn api_shape(worker: &WorkerStatus) -> serde_json::Value {
    let info = &worker.info;
    serde_json::json!({
        "id": info.id, "host": info.host, "pid": info.pid, "version": info.version,
        "alive": worker.alive, "started_at": info.started_at, "seen_at": worker.seen_at,
        "queues": info.queues, "kinds": info.kinds, "slots": info.slots, "running": worker.running,
    })
}
