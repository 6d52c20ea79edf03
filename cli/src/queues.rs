//! `leasehold queues`: the commands for queues.
use clap::{Args, Subcommand};
use comfy_table::{Cell, Color};
use leasehold::QueueName;
use leasehold::store::QueueStatus;

use crate::arguments::Common;
use crate::backend::Backend;
use crate::failure::Failure;
use crate::print::{self, Table, span};

/// List, show, pause, resume and remove queues.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the queues.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        common: Common,
    },
    /// Show one queue, with its depth in each partition.
    Show(One),
    /// Stop claims from queues: running jobs continue, and new jobs are accepted.
    Pause(PauseArguments),
    /// Let workers claim from queues again.
    Resume(Many),
    /// Remove unused queues: their names and pauses. Refused while a worker serves the queue or it has a job that has
    /// not ended.
    Rm(Many),
}

/// One queue.
#[derive(Args)]
pub(crate) struct One {
    /// The queue's name.
    queue: QueueName,
    #[command(flatten)]
    common: Common,
}

/// One queue or more.
#[derive(Args)]
pub(crate) struct Many {
    /// The queues' names.
    #[arg(required = true, value_name = "QUEUE")]
    queues: Vec<QueueName>,
    #[command(flatten)]
    common: Common,
}

/// Queues to pause.
#[derive(Args)]
pub(crate) struct PauseArguments {
    /// Pause a queue that has never been used, too.
    #[arg(long)]
    create: bool,
    #[command(flatten)]
    many: Many,
}

/// Runs one of the commands.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls { common } => list(&common).await,
        Command::Show(One { queue, common }) => show(&queue, &common).await,
        Command::Pause(PauseArguments { create, many: Many { queues, common } }) => {
            pause(&queues, true, create, &common).await
        }
        Command::Resume(Many { queues, common }) => pause(&queues, false, true, &common).await,
        Command::Rm(Many { queues, common }) => remove(&queues, &common).await,
    }
}

async fn list(common: &Common) -> Result<(), Failure> {
    let queues = common.backend().await?.queues().await?;
    if common.json() {
        return Ok(print::json_list("queues", &queues)?);
    }
    let mut table = Table::new(&["QUEUE", "QUEUED", "OLDEST", "RUNNING", "STATUS"]);
    for queue in &queues {
        let (status, colour) = status(queue);
        table.row(vec![
            Cell::new(&queue.name),
            Cell::new(queue.queued),
            Cell::new(queue.oldest_wait_ms.map_or_else(|| "-".into(), wait)),
            Cell::new(queue.running),
            Cell::new(status).fg(colour),
        ]);
    }
    table.numbers(&[1, 3]);
    Ok(table.print()?)
}

/// Whether a worker claims from a queue.
fn status(queue: &QueueStatus) -> (&'static str, Color) {
    match (queue.paused, queue.served) {
        (true, true) => ("paused", Color::Yellow),
        (true, false) => ("paused, and no living worker serves it", Color::Yellow),
        (false, true) => ("served", Color::Green),
        (false, false) => ("no living worker serves it", Color::Red),
    }
}

fn wait(ms: u64) -> String {
    span(i64::try_from(ms).unwrap_or(i64::MAX))
}

async fn find(backend: &Backend, name: &QueueName) -> Result<QueueStatus, Failure> {
    let unknown = || Failure::Failed(format!("there is no queue {name}; `leasehold queues ls` lists them"));
    backend.queue(name).await?.ok_or_else(unknown)
}

async fn show(name: &QueueName, common: &Common) -> Result<(), Failure> {
    let queue = find(&common.backend().await?, name).await?;
    if common.json() {
        return Ok(print::json(&queue)?);
    }
    let mut entries = vec![
        ("queue", queue.name.to_string()),
        ("status", status(&queue).0.to_owned()),
        ("queued", queue.queued.to_string()),
        ("oldest", queue.oldest_wait_ms.map_or_else(|| "none waits".into(), wait)),
        ("running", queue.running.to_string()),
        ("demand", queue.demand.to_string()),
    ];
    let shares = queue.partitions.iter().enumerate().map(|(partition, depth)| format!("{partition}: {depth}"));
    entries.push(("partitions", shares.collect::<Vec<_>>().join(", ")));
    Ok(print::list(&entries)?)
}

async fn pause(names: &[QueueName], paused: bool, create: bool, common: &Common) -> Result<(), Failure> {
    let backend = common.backend().await?;
    let mut queues = Vec::new();
    if !create {
        // Checked first, so that nothing is paused when one name is wrong.
        for name in names {
            let unknown = || {
                let advice = "`leasehold queues ls` lists them; --create pauses one that has never been used";
                Failure::Failed(format!("there is no queue {name}; {advice}"))
            };
            backend.queue(name).await?.ok_or_else(unknown)?;
        }
    }
    for name in names {
        backend.pause(name, paused).await?;
        if !common.json() {
            print::line(format_args!("{name}  {}", if paused { "paused" } else { "resumed" }))?;
        } else {
            // One that was only ever paused is unknown again once it is resumed.
            let unused = || QueueStatus { paused, ..QueueStatus::unused(name.clone(), 0) };
            queues.push(backend.queue(name).await?.unwrap_or_else(unused));
        }
    }
    if common.json() { Ok(print::json_list("queues", &queues)?) } else { Ok(()) }
}

/// Removes queues one after the other; one that is refused does not stop the others.
async fn remove(names: &[QueueName], common: &Common) -> Result<(), Failure> {
    let backend = common.backend().await?;
    let mut refused = Vec::new();
    let mut removed = Vec::new();
    for name in names {
        match backend.remove_queue(name).await? {
            Ok(()) if common.json() => removed.push(name),
            Ok(()) => print::line(format_args!("{name}  removed"))?,
            Err(reason) => refused.push(reason),
        }
    }
    if common.json() {
        print::json_list("removed", &removed)?;
    }
    if refused.is_empty() { Ok(()) } else { Err(Failure::Failed(refused.join("\n"))) }
}
