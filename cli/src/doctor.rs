//! `leasehold doctor`: checks of Redis's settings and of every key.
//!
//! A live system changes during a check of its keys, so a finding counts only when a second check, two renewals later,
//! finds it again. With a storage_url the file store is checked too. Problems make the command fail, notes do not.
use std::collections::BTreeSet;
use std::time::Duration;

use leasehold::store::{Finding, Standing, WorkerStatus};
use leasehold::{Store, limits};
use serde::Serialize;

use crate::arguments::{NotVia, Output, Source, reached};
use crate::failure::Failure;
use crate::print::{self, age, span};

/// Rounds of repairs: one may uncover what the next repairs.
const ROUNDS_MAX: usize = 4;
/// How long the second check waits beyond two renewals, ms.
const MARGIN_MS: u64 = 250;
/// Findings of one sort that people are shown.
const SHOWN: usize = 20;

/// How to check.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Repair what can be repaired, report it, and check again.
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    source: Source,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table", help_heading = "Common options")]
    output: Output,
    #[command(flatten)]
    not_via: NotVia,
}

/// What was found, and what was done about it.
#[derive(Default, Serialize)]
struct Report {
    healthy: bool,
    problems: Vec<Problem>,
    notes: Vec<String>,
    repaired: Vec<Problem>,
}

/// Something that is wrong.
#[derive(Serialize)]
struct Problem {
    /// The partition; null for the server itself.
    partition: Option<u16>,
    /// The job, the key, or `redis`.
    subject: String,
    /// What is wrong.
    problem: String,
    /// What `--repair` does about it; null when it must be repaired by hand.
    repair: Option<String>,
}

impl From<&Finding> for Problem {
    fn from(finding: &Finding) -> Self {
        Self {
            partition: Some(finding.partition),
            subject: finding.subject.clone(),
            problem: finding.problem.clone(),
            repair: finding.repair.as_ref().map(ToString::to_string),
        }
    }
}

/// Checks, repairs with `--repair`, and fails when something is wrong in the end.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { repair, source, output, not_via } = arguments;
    not_via.check("the doctor reads Redis's settings and every key, which the API does not show; give --redis-url")?;
    let config = source.load_for_command()?;
    let store = reached(Store::connect_unchecked(&config).await, &config)?;
    let workers = store.workers().await?;
    let lease_ms = workers.iter().filter(|w| w.alive).map(|w| w.lease_ms).max().unwrap_or(config.lease_ms);
    let doctor = Doctor {
        store,
        wait: Duration::from_millis(lease_ms / 3 + MARGIN_MS),
        orphans: Duration::from_millis(config.files.orphan_ms),
        talks: output == Output::Table,
    };
    let mut report = Report::default();
    let partitions = match doctor.store.partitions() {
        1 => "1 partition".to_owned(),
        n => format!("{n} partitions"),
    };
    doctor.say(format_args!("checking Redis {}, {partitions}", doctor.store.address()))?;
    doctor.server(&mut report).await?;
    doctor.notes(&workers, &mut report).await?;
    let mut findings = doctor.look().await?;
    for _ in 0..if repair { ROUNDS_MAX } else { 0 } {
        let repairable: Vec<&Finding> = findings.iter().filter(|f| f.repair.is_some()).collect();
        if repairable.is_empty() {
            break;
        }
        for finding in repairable {
            doctor.store.repair(finding).await?;
            report.repaired.push(finding.into());
        }
        doctor.say("repaired what can be repaired; checking again")?;
        findings = doctor.look().await?;
    }
    report.problems.extend(findings.iter().map(Problem::from));
    report.healthy = report.problems.is_empty();
    if output == Output::Json {
        print::json(&report)?
    } else {
        show(&report, repair)?
    }
    if report.healthy { Ok(()) } else { Err(Failure::Said) }
}

struct Doctor {
    store: Store,
    wait: Duration,
    /// Minimum age of orphaned files before they are reported.
    orphans: Duration,
    talks: bool,
}

impl Doctor {
    fn say(&self, what: impl std::fmt::Display) -> std::io::Result<()> {
        if self.talks { print::line(what) } else { Ok(()) }
    }

    /// Version, settings, memory.
    async fn server(&self, report: &mut Report) -> Result<(), Failure> {
        for fault in self.store.server_faults().await? {
            if fault.fatal {
                report.problems.push(redis(fault.problem));
            } else {
                report.notes.push(fault.problem);
            }
        }
        match self.store.standing().await {
            Ok(Standing::Ready) => {}
            Ok(Standing::Full) => report.problems.push(redis(
                "Redis is at its maxmemory and takes no new jobs; raise `maxmemory`, or let the queues drain".into(),
            )),
            Err(e) => report.problems.push(redis(format!("Redis takes no writes: {e}"))),
        }
        if let Some(files) = self.store.files()
            && let Err(e) = files.try_out().await
        {
            report.problems.push(Problem { subject: "storage_url".into(), ..redis(e.to_string()) });
        }
        Ok(())
    }

    /// Silent workers, and queues that no worker serves.
    async fn notes(&self, workers: &[WorkerStatus], report: &mut Report) -> Result<(), Failure> {
        for worker in workers.iter().filter(|w| !w.alive) {
            let forgotten = span(i64::try_from(limits::WORKER_FORGET_MS).unwrap_or(i64::MAX));
            report.notes.push(format!(
                "worker {} (pid {} on {}) was last seen {}; it is forgotten after {forgotten}",
                worker.id,
                worker.pid,
                worker.host,
                age(worker.seen_at)
            ));
        }
        let published = self.store.published().await?;
        let advice = "give every API and worker the same and restart those with the old one";
        if let Some(digest) = published.kinds.map(|kinds| kinds.digest()) {
            let others =
                workers.iter().filter(|w| w.alive && w.kinds_digest.as_ref().is_some_and(|own| *own != digest));
            report.notes.extend(others.map(|worker| {
                format!("worker {} has another kinds file than the process that started last; {advice}", worker.id)
            }));
        }
        if let Some(lease_ms) = published.lease_ms {
            let others = workers.iter().filter(|w| w.alive && w.lease_ms != lease_ms);
            report.notes.extend(others.map(|worker| {
                let (id, own) = (&worker.id, worker.lease_ms);
                format!("worker {id} has lease_ms {own}, and the worker that started last {lease_ms}; {advice}")
            }));
        }
        for queue in self.store.queues(None).await? {
            if queue.queued > 0 && !queue.served {
                let depth = queue.queued;
                report
                    .notes
                    .push(format!("queue {} has {depth} ids waiting, and no living worker serves it", queue.name));
            } else if queue.queued > 0 && queue.paused {
                report.notes.push(format!("queue {} is paused, with {} ids waiting", queue.name, queue.queued));
            }
        }
        Ok(())
    }

    /// One check of the keys and the file store.
    async fn check(&self) -> Result<Vec<Finding>, Failure> {
        let mut findings = self.store.check().await?;
        findings.extend(self.store.check_files(self.orphans).await?);
        Ok(findings)
    }

    /// What two checks, two renewals apart, both find, as the second found it.
    async fn look(&self) -> Result<Vec<Finding>, Failure> {
        let first = self.check().await?;
        if first.is_empty() {
            return Ok(first);
        }
        let wait = span(i64::try_from(self.wait.as_millis()).unwrap_or(i64::MAX));
        let things = if first.len() == 1 { "1 thing".to_owned() } else { format!("{} things", first.len()) };
        self.say(format_args!(
            "found {things} that may be temporary; checking again in {wait}, two renewals of a lease"
        ))?;
        tokio::time::sleep(self.wait).await;
        let about = |f: &Finding| (f.partition, f.subject.clone(), f.problem.clone());
        let first: BTreeSet<_> = first.iter().map(about).collect();
        let second = self.check().await?;
        Ok(second.into_iter().filter(|f| first.contains(&about(f))).collect())
    }
}

fn redis(problem: String) -> Problem {
    Problem { partition: None, subject: "redis".into(), problem, repair: None }
}

fn show(report: &Report, repair: bool) -> std::io::Result<()> {
    section("fixed", "32", &report.repaired, |p| {
        format!("{}: {} → {}", p.subject, p.problem, p.repair.as_deref().unwrap_or_default())
    })?;
    section("note", "33", &report.notes, Clone::clone)?;
    section("wrong", "31", &report.problems, |p| {
        let place = p.partition.map_or_else(String::new, |partition| format!(" (partition {partition})"));
        let remedy = match (&p.repair, p.partition) {
            (Some(remedy), _) if !repair => format!("; --repair: {remedy}"),
            (None, Some(_)) => "; repair it by hand".to_owned(),
            _ => String::new(),
        };
        format!("{}{place}: {}{remedy}", p.subject, p.problem)
    })?;
    match report.problems.len() {
        0 => print::line("nothing is wrong"),
        1 => print::line("1 thing is wrong"),
        n => print::line(format_args!("{n} things are wrong")),
    }
}

/// The lines of one sort, the first ones of many.
fn section<T>(head: &str, colour: &str, entries: &[T], text: impl Fn(&T) -> String) -> std::io::Result<()> {
    let (on, off) = if print::colours() { (format!("\x1b[{colour}m"), "\x1b[0m") } else { (String::new(), "") };
    for entry in entries.iter().take(SHOWN) {
        print::line(format_args!("{on}{head:6}{off}  {}", print::plain(&text(entry))))?;
    }
    match entries.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => print::line(format_args!("{on}{head:6}{off}  … and {more} more; -o json shows all")),
    }
}
