//! `leasehold schedules`: the commands for schedules.
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{Cell, Color};
use leasehold::job::Priority;
use leasehold::schedule::{CatchUp, Overlap, Plan};
use leasehold::{Kind, QueueName, Schedule, ScheduleName, Timestamp, limits};

use crate::arguments::{Common, duration, time};
use crate::backend::{self, millis};
use crate::failure::Failure;
use crate::jobs::submit;
use crate::print::{self, Table};

/// List, show, write, pause, resume, trigger and remove schedules.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the schedules.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        common: Common,
    },
    /// Show one schedule, with its next runs.
    Show(One),
    /// Create or replace a schedule.
    Put(Box<PutArguments>),
    /// Let schedules submit no jobs until they are resumed.
    Pause(Many),
    /// Let schedules go on with their next run.
    Resume(Many),
    /// Submit a job of a schedule now, besides its runs.
    Trigger(One),
    /// Remove schedules; their jobs stay.
    Rm(Many),
}

/// One schedule.
#[derive(Args)]
pub(crate) struct One {
    /// The schedule's name.
    schedule: ScheduleName,
    #[command(flatten)]
    common: Common,
}

/// One schedule or more.
#[derive(Args)]
pub(crate) struct Many {
    /// The schedules' names.
    #[arg(required = true, value_name = "SCHEDULE")]
    schedules: Vec<ScheduleName>,
    #[command(flatten)]
    common: Common,
}

/// The schedule to write.
#[derive(Args)]
#[command(after_help = "\
Examples:
  leasehold schedules put nightly --cron '0 3 * * *' --time-zone Europe/Berlin --kind report
  leasehold schedules put poll --every 30s --kind fetch --payload '{\"page\": 1}' --overlap allow")]
pub(crate) struct PutArguments {
    /// The schedule's name.
    schedule: ScheduleName,
    /// Its times: minute, hour, day of month, month and day of week, or @daily and the like.
    #[arg(long, value_name = "EXPRESSION", required_unless_present = "every", conflicts_with = "every")]
    cron: Option<String>,
    /// The zone of --cron in the IANA database, e.g. Europe/Berlin; UTC by default.
    #[arg(long, value_name = "ZONE", conflicts_with = "every")]
    time_zone: Option<String>,
    /// In place of --cron: the interval, e.g. 30s, 10m, at least 1s.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    every: Option<Duration>,
    /// The kind of its jobs.
    #[arg(long)]
    kind: Kind,
    /// Their payload: JSON, @file, or - for standard input.
    #[arg(long, value_name = "JSON|@FILE|-", default_value = "null", allow_hyphen_values = true)]
    payload: String,
    /// Their queue, in place of their kind's.
    #[arg(long)]
    queue: Option<QueueName>,
    /// Which jobs of their queue start first.
    #[arg(long, value_parser = submit::priority())]
    priority: Option<Priority>,
    /// Maximum number of attempts, in place of their kind's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::ATTEMPTS_MAX)))]
    max_attempts: Option<u32>,
    /// Maximum duration of an attempt, in place of their kind's.
    #[arg(long, value_name = "DURATION", value_parser = submit::timeout)]
    timeout: Option<Duration>,
    /// What happens while the last job has not ended: no job, a job beside it, or a job in its place (the last one is
    /// cancelled).
    #[arg(long, value_parser = ["skip", "allow", "replace"], default_value = "skip")]
    overlap: String,
    /// What happens with runs that are more than 10 s late: one job for all of them, none, or a job for each.
    #[arg(long, value_parser = ["one", "none", "all"], default_value = "one")]
    catch_up: String,
    /// The first moment at which there may be a run, e.g. 2026-11-22T06:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    start_at: Option<Timestamp>,
    /// The last moment.
    #[arg(long, value_name = "TIME", value_parser = time)]
    end_at: Option<Timestamp>,
    /// Write it paused.
    #[arg(long)]
    paused: bool,
    #[command(flatten)]
    common: Common,
}

/// Runs one of the commands.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls { common } => list(&common).await,
        Command::Show(One { schedule, common }) => show(&common.backend().await?.schedule(&schedule).await?, &common),
        Command::Put(arguments) => put(*arguments).await,
        Command::Pause(many) => pause(&many, true).await,
        Command::Resume(many) => pause(&many, false).await,
        Command::Trigger(One { schedule, common }) => trigger(&schedule, &common).await,
        Command::Rm(many) => remove(&many).await,
    }
}

async fn list(common: &Common) -> Result<(), Failure> {
    let schedules = common.backend().await?.schedules().await?;
    if common.json() {
        return Ok(print::json_list("schedules", &schedules)?);
    }
    let mut table = Table::new(&["SCHEDULE", "KIND", "TIMES", "NEXT", "LAST", "STATUS"]).elastic(2);
    for schedule in &schedules {
        let (status, colour) = status(schedule);
        table.row(vec![
            Cell::new(&schedule.name),
            Cell::new(&schedule.plan.kind),
            print::cell(times(&schedule.plan)),
            Cell::new(or_dash(schedule.standing.next_run_at)),
            Cell::new(or_dash(schedule.standing.last_run_at)),
            Cell::new(status).fg(colour),
        ]);
    }
    Ok(table.print()?)
}

/// The times of a plan, as it was written.
fn times(plan: &Plan) -> String {
    match (&plan.cron, plan.every_ms) {
        (Some(cron), _) => format!("{cron} ({})", plan.time_zone.as_deref().unwrap_or("UTC")),
        (None, every_ms) => {
            format!("every {}", print::span(every_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(0)))
        }
    }
}

fn or_dash(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".into(), |time| time.to_string())
}

fn status(schedule: &Schedule) -> (&'static str, Color) {
    match (schedule.standing.paused, schedule.standing.next_run_at) {
        (true, _) => ("paused", Color::Yellow),
        (false, None) => ("no run to come", Color::DarkGrey),
        (false, Some(_)) => ("active", Color::Green),
    }
}

fn show(schedule: &Schedule, common: &Common) -> Result<(), Failure> {
    if common.json() {
        return Ok(print::json(schedule)?);
    }
    let Schedule { name, plan, standing } = schedule;
    let next: Vec<String> = standing.next_runs.iter().map(Timestamp::to_string).collect();
    let mut entries = vec![
        ("schedule", name.to_string()),
        ("status", status(schedule).0.to_owned()),
        ("times", times(plan)),
        ("kind", plan.kind.to_string()),
        ("payload", print::shown(plan.payload.as_str())),
        ("overlap", plan.overlap.as_str().to_owned()),
        ("catch up", plan.catch_up.as_str().to_owned()),
        ("declared in", standing.declared_in.as_str().to_owned()),
        ("next runs", if next.is_empty() { "none".into() } else { next.join("\n") }),
        ("last run", or_dash(standing.last_run_at)),
        ("last job", standing.last_job.as_ref().map_or_else(|| "-".into(), ToString::to_string)),
    ];
    entries.extend(standing.last_skipped_at.map(|at| ("last skipped", at.to_string())));
    Ok(print::list(&entries)?)
}

async fn put(arguments: PutArguments) -> Result<(), Failure> {
    let text = submit::read(&arguments.payload, None)?;
    let backend = arguments.common.backend().await?;
    let payload = backend::payload(&text, &backend).map_err(|e| Failure::Usage(format!("--payload: {e}")))?;
    let plan = Plan {
        cron: arguments.cron,
        time_zone: arguments.time_zone,
        every_ms: arguments.every.map(millis),
        kind: arguments.kind,
        payload,
        queue: arguments.queue,
        priority: arguments.priority,
        max_attempts: arguments.max_attempts,
        timeout_ms: arguments.timeout.map(millis),
        overlap: Overlap::parse(&arguments.overlap).expect("one of its words"),
        catch_up: CatchUp::parse(&arguments.catch_up).expect("one of its words"),
        start_at: arguments.start_at,
        end_at: arguments.end_at,
    };
    let (schedule, created) = backend.put_schedule(&arguments.schedule, &plan, arguments.paused).await?;
    if arguments.common.json() {
        return Ok(print::json(&schedule)?);
    }
    let next = schedule.standing.next_run_at.map_or_else(String::new, |at| format!("; next run {at}"));
    let done = if created { "created" } else { "replaced" };
    Ok(print::line(format_args!("{}  {done}{next}", schedule.name))?)
}

async fn pause(many: &Many, paused: bool) -> Result<(), Failure> {
    let (backend, mut done) = (many.common.backend().await?, Vec::new());
    for name in &many.schedules {
        let schedule = backend.pause_schedule(name, paused).await?;
        if !many.common.json() {
            print::line(format_args!("{name}  {}", if paused { "paused" } else { "resumed" }))?;
        }
        done.push(schedule);
    }
    if many.common.json() { Ok(print::json_list("schedules", &done)?) } else { Ok(()) }
}

async fn trigger(name: &ScheduleName, common: &Common) -> Result<(), Failure> {
    let job = common.backend().await?.trigger_schedule(name).await?;
    if common.json() { Ok(print::json(&job)?) } else { Ok(print::line(&job.id)?) }
}

async fn remove(many: &Many) -> Result<(), Failure> {
    let backend = many.common.backend().await?;
    for name in &many.schedules {
        backend.remove_schedule(name).await?;
        if !many.common.json() {
            print::line(format_args!("{name}  removed"))?;
        }
    }
    if many.common.json() { Ok(print::json_list("removed", &many.schedules)?) } else { Ok(()) }
}
