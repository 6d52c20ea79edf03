//! `leasehold bench`: measures Leasehold against its speed goals, on a private Redis, with the real programs.
//!
//! Reading order: `goals` names the goals, and the modules that measure them; `site` is the private
//! system, `drain` fills and empties a queue, `floor` and `route` are what is compared with, `role` the programs that
//! only a measurement starts. `figure` and `report` make a table of it.
mod api;
mod commands;
mod drain;
mod figure;
mod flat;
mod floor;
mod goals;
mod http;
mod idle;
mod latency;
mod life;
mod machine;
mod meter;
mod process;
mod report;
pub(crate) mod role;
mod route;
mod site;
mod size;
mod sqlite;
mod throughput;
mod work;

use std::time::{Duration, Instant};

use comfy_table::{Cell, Color};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::Serialize;
use tokio::sync::OnceCell;

use crate::arguments::{NotVia, Output};
use crate::failure::{Failure, complain};
use crate::print::{self, Table};
use crate::stop::Signals;
use goals::Goal;
use life::Lives;
use machine::Machine;
use report::Outcome;
use site::Ground;
use size::Size;

/// How long killed processes may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(clap::Args)]
#[command(after_help = "\
It starts a private Redis and ends it; yours is never touched. Data is written to the folder for temporary files
(TMPDIR), which should be on a disk. Nothing else should run on the machine meanwhile.

Examples:
  leasehold bench --quick
  leasehold bench --only 3,memory
  leasehold bench -o json > figures.json

Exit codes: 0 all measured goals are met; 1 one is not; 2 invalid usage.")]
pub(crate) struct Arguments {
    /// Measure only these goals, by number or name, separated by commas.
    #[arg(long, value_name = "GOALS", value_delimiter = ',')]
    only: Vec<String>,
    /// Measure less of everything: under three minutes, with a wider spread.
    #[arg(long)]
    quick: bool,
    /// Measure next to nothing, for tests of this command.
    #[arg(long, hide = true, conflicts_with = "quick")]
    tiny: bool,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table", help_heading = "Common options")]
    output: Output,
    /// The same as `--output json`.
    #[arg(long, hide = true, conflicts_with = "output")]
    json: bool,
    #[command(flatten)]
    not_via: NotVia,
}

/// A run.
struct Bench {
    ground: Ground,
    /// Measured once for two goals.
    lives: OnceCell<Lives>,
}

/// The result of a run.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    quick: bool,
    goals: Vec<Outcome>,
    met: bool,
}

impl Bench {
    /// Whole lives of jobs.
    async fn lives(&self) -> Result<&Lives, Failure> {
        self.lives.get_or_try_init(|| Lives::measure(self)).await
    }
}

/// Measures, and fails unless every goal is met.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.not_via.check("it measures a private system on this machine")?;
    let goals = Goal::select(&arguments.only).map_err(Failure::Usage)?;
    let mut signals = Signals::listen()?;
    let folder = tempfile::Builder::new().prefix("leasehold-bench-").tempdir()?;
    let size = match (arguments.quick, arguments.tiny) {
        (_, true) => Size::Tiny,
        (true, false) => Size::Quick,
        (false, false) => Size::Whole,
    };
    let is_json = arguments.json || arguments.output == Output::Json;
    let ground = Ground { folder: std::fs::canonicalize(folder.path())?, size };
    let bench = Bench { ground, lives: OnceCell::new() };
    let measured = tokio::select! {
        measured = measure(&bench, &goals, is_json) => measured,
        () = signals.received() => {
            complain("interrupted; nothing is left running");
            Err(Failure::Said)
        }
    };
    // What was dropped has been killed.
    await_gone().await;
    folder.close()?;
    let report = measured?;
    if is_json {
        print::json(&report)?;
    } else {
        show(&report)?;
    }
    if report.met { Ok(()) } else { Err(Failure::Said) }
}

async fn measure(bench: &Bench, goals: &[Goal], is_json: bool) -> Result<Report, Failure> {
    let machine = Machine::look(&bench.ground).await?;
    if !is_json {
        print::line(machine.line())?;
    }
    machine.warnings().iter().for_each(|warning| print::aside(format_args!("warning: {warning}")));
    let mut outcomes = Vec::new();
    for goal in goals {
        let begun = Instant::now();
        let outcome = goal.measure(bench).await;
        let word = match outcome.met {
            None => "shown",
            Some(true) => "met",
            Some(false) => "not met",
        };
        let (number, about, seconds) = (goal.number, goal.about, begun.elapsed().as_secs_f64());
        print::aside(format_args!("goal {number}, {about}: {word} ({seconds:.0} s)"));
        outcomes.push(outcome);
    }
    let met = outcomes.iter().all(|outcome| outcome.met != Some(false));
    Ok(Report { machine, quick: bench.ground.size != Size::Whole, goals: outcomes, met })
}

/// Waits until every child of this process is gone.
async fn await_gone() {
    let end = Instant::now() + GONE_LIMIT;
    while Instant::now() < end {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => tokio::time::sleep(Duration::from_millis(10)).await,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn show(report: &Report) -> std::io::Result<()> {
    let mut table = Table::new(&["GOAL", "WHAT", "MEASURED", "COMPARED WITH", "RATIO", "NEEDED", "RESULT"]).elastic(1);
    for outcome in &report.goals {
        for row in &outcome.rows {
            let colour = match row.met {
                None => Color::Reset,
                Some(true) => Color::Green,
                Some(false) => Color::Red,
            };
            let [what, measured, compared, ratio, needed, verdict] = row.cells();
            let mut cells: Vec<Cell> =
                [outcome.goal.to_string(), what, measured, compared, ratio, needed].map(Cell::new).into();
            cells.push(Cell::new(verdict).fg(colour));
            table.row(cells);
        }
    }
    print::line("")?;
    table.print()?;
    print::line(
        "\nEach figure is the median of the runs, with the lowest and the highest; a ratio is formed run by run.",
    )?;
    if report.quick {
        print::line("This was a quick run: fewer jobs, fewer rounds, and a smaller backlog than goal 8 names.")?;
    }
    for outcome in report.goals.iter().filter(|outcome| outcome.fault.is_some()) {
        let fault = outcome.fault.as_deref().unwrap_or_default();
        print::line(format_args!("Goal {} ({}) FAILED: {}", outcome.goal, outcome.name, print::lines(fault)))?;
    }
    let judged: Vec<&Outcome> = report.goals.iter().filter(|outcome| outcome.met.is_some()).collect();
    let met = judged.iter().filter(|outcome| outcome.met == Some(true)).count();
    print::line(format_args!("{met} of {} goals with a bound here are met.", judged.len()))
}
