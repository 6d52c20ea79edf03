//! `jobs show` and `jobs history`.
use comfy_table::Cell;
use leasehold::{Job, JobId, State};

use crate::arguments::Common;
use crate::backend::Direction;
use crate::failure::Failure;
use crate::print::{self, Table, age, span};

/// Shows one job in full.
pub(super) async fn job(id: &JobId, common: &Common) -> Result<(), Failure> {
    let backend = common.backend().await?;
    let id = &backend.resolve(id).await?;
    let job = backend.get(id).await?;
    if common.json() {
        return Ok(print::json(&job)?);
    }
    let lack = backend.lack(&job).await;
    let mut entries = entries(&job, lack);
    // Without a file store there are none.
    let files = backend.files(id).await.unwrap_or_default();
    if !files.is_empty() {
        let names = |wanted: Direction| {
            let names: Vec<_> = files.iter().filter(|file| file.direction == wanted).map(|file| &*file.name).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        entries.extend(names(Direction::In).map(|names| ("files in", print::plain(&names))));
        entries.extend(names(Direction::Out).map(|names| ("files out", print::plain(&names))));
    }
    Ok(print::list(&entries)?)
}

fn entries(job: &Job, lack: Option<String>) -> Vec<(&'static str, String)> {
    let mut entries = vec![
        ("id", job.id.to_string()),
        ("kind", job.kind.to_string()),
        ("queue", format!("{}, priority {}", job.queue, job.priority.as_str())),
        ("partition", job.partition.to_string()),
        ("state", state(job, lack)),
        ("attempt", attempts(job)),
        ("created", format!("{} ({})", job.created_at, age(job.created_at))),
    ];
    let mut add = |name, value: Option<String>| entries.extend(value.map(|value| (name, value)));
    add("due", job.scheduled_at.map(|at| format!("{at} ({})", age(at))));
    add("started", job.started_at.map(|at| format!("{at} ({})", age(at))));
    add("finished", job.finished_at.map(|at| format!("{at} ({})", age(at))));
    add("worker", job.worker.as_ref().map(ToString::to_string));
    add("token", job.token.map(|token| token.to_string()));
    add("progress", job.progress.as_ref().map(progress));
    add("parent", job.parent.as_ref().map(ToString::to_string));
    add("items", job.items.as_ref().map(items));
    add("skipped", job.skipped.as_deref().map(print::plain));
    add("error", job.error.as_ref().map(|e| format!("{}: {}", code(e), print::lines(&e.message))));
    add("payload", Some(print::shown(job.payload.as_str())));
    add("result", job.result.as_ref().map(|result| print::shown(result.as_str())));
    entries
}

/// The attempt that a job is at; none before its first.
pub(super) fn attempt(job: &Job) -> Option<u32> {
    let started = job.started_at.is_some() || job.attempt > 1 || job.crashes > 0;
    (started && job.attempt > 0).then_some(job.attempt)
}

fn attempts(job: &Job) -> String {
    let attempt = attempt(job).map_or_else(|| "–".to_owned(), |n| n.to_string());
    let crashes = match job.crashes {
        0 => String::new(),
        1 => ", 1 worker lost".into(),
        n => format!(", {n} workers lost"),
    };
    format!("{attempt} of {}{crashes}", job.max_attempts)
}

fn state(job: &Job, lack: Option<String>) -> String {
    let mut text = job.state.to_string();
    if job.cancel_requested {
        text += ", cancel requested";
    }
    if let Some(end) = job.lease_expires_at {
        text += &format!(", its lease ends {}", age(end));
    }
    if let (State::Completed, Some(start), Some(end)) = (job.state, job.started_at, job.finished_at) {
        text += &format!(", took {}", span(end.0 - start.0));
    }
    if let Some(lack) = lack {
        text += &format!("; {lack}");
    }
    text
}

fn items(items: &leasehold::job::Items) -> String {
    let open = if items.open { ", more may come" } else { "" };
    format!(
        "{}: {} succeeded, {} failed, {} skipped, {} cancelled{open}",
        items.total, items.succeeded, items.failed, items.skipped, items.cancelled
    )
}

fn code(error: &leasehold::JobError) -> String {
    serde_json::to_value(error.code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The progress of a job: `40 % counting`.
pub(super) fn progress(progress: &leasehold::job::Progress) -> String {
    let percent = progress.percent.map(|percent| format!("{percent:.0} %"));
    [percent, progress.message.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Shows a job's history.
pub(super) async fn history(id: &JobId, common: &Common) -> Result<(), Failure> {
    let backend = common.backend().await?;
    let id = &backend.resolve(id).await?;
    let job = backend.get(id).await?;
    let history = backend.history(id).await?;
    if common.json() {
        return Ok(print::json_list("history", &history)?);
    }
    if history.is_empty() {
        let state = job.state;
        return Ok(print::line(format_args!(
            "job {id} is {state} and has no history: nothing unusual has happened to it"
        ))?);
    }
    let mut table = Table::new(&["AT", "EVENT", "ATTEMPT", "WORKER", "DETAIL"]);
    for entry in history {
        let error = entry.error.as_ref().map(|e| format!("{}: {}", code(e), e.message));
        table.tall_row(vec![
            Cell::new(entry.at),
            Cell::new(&entry.event),
            Cell::new(entry.attempt.map_or_else(String::new, |n| n.to_string())),
            Cell::new(entry.worker.as_ref().map_or("", |worker| worker.as_str())),
            Cell::new(print::lines(&entry.message.or(error).unwrap_or_default())),
        ]);
    }
    Ok(table.print()?)
}
