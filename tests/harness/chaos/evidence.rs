//! What a run leaves behind: the clients' notes, the scripts' journal, the faults, and the jobs as Redis has them.
use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use leasehold::{Config, Job, Store};

use super::faults::Struck;
use super::load::{Heard, Step, Submit};
use super::verdict::Violation;
use super::work::{Journal, OUTPUT, Run};
use super::{Fleet, Past};
use crate::Api;

/// Jobs whose history a failed run prints.
const SHOWN: usize = 10;

/// What a run leaves behind.
#[derive(Debug)]
pub struct Evidence {
    pub(super) submits: Vec<Submit>,
    /// Jobs that are no items, as the listing has them.
    pub jobs: Vec<Job>,
    /// The items of each batch.
    pub items: HashMap<String, Vec<Job>>,
    /// What is in the files that jobs left, of each submit that came with one.
    pub outputs: HashMap<String, String>,
    /// Every run of the script, in the order of the begins.
    pub(super) runs: Vec<Run>,
    /// The partition of every job that ran.
    pub partitions: HashMap<String, u16>,
    /// The faults that were injected.
    pub struck: Vec<Struck>,
    /// The machine's uptime when the load began, s.
    pub booted: f64,
    /// How long load and faults went on.
    pub took: Duration,
}

impl Evidence {
    /// Reads it all, from the API and from the journal.
    pub async fn gather(fleet: &Fleet, past: Past) -> Evidence {
        let api = fleet.apis.last().expect("there is an API");
        let runs = Journal::of(fleet.system.folder()).runs();
        let jobs = all_jobs(api).await.expect("all is healed");
        let mut items = HashMap::new();
        for batch in jobs.iter().filter(|job| job.items.is_some()) {
            items.insert(
                batch.id.to_string(),
                pages(api, &format!("parent={}&", batch.id)).await.expect("all is healed"),
            );
        }
        let mut outputs = HashMap::new();
        for id in past.submits.iter().filter(|submit| submit.file.is_some()).filter_map(Submit::id) {
            let answer = api.get(&format!("/api/v1/jobs/{id}/files/{OUTPUT}")).await;
            outputs.insert(id.to_owned(), answer.text);
        }
        let store =
            Store::connect(&Config { redis_url: fleet.system.redis().url(), ..Config::default() }).await.unwrap();
        let partition = |run: &Run| (run.job.clone(), store.partition_of(&run.job.parse().unwrap()));
        let partitions = runs.iter().map(partition).collect();
        let took = past.healed_at - past.begun_at;
        let Past { submits, struck, booted, .. } = past;
        Evidence { submits, jobs, items, outputs, runs, partitions, struck, booted, took }
    }

    /// Every job that runs: those that are no batches, and the items of those that are.
    pub fn running_jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|job| job.items.is_none()).chain(self.items.values().flatten())
    }

    /// How many submits, cancels and retries aside, were not answered with their job at once.
    pub fn refused(&self) -> usize {
        let tries = self.submits.iter().flat_map(|submit| &submit.tries);
        tries.filter(|(.., heard)| !matches!(heard, Heard::Made(_) | Heard::Known(_))).count()
    }

    /// When the jobs that are gone were asked for and acknowledged, since the begin.
    pub fn lost(&self) -> Vec<(Duration, Duration)> {
        let there = |id: &str| self.jobs.iter().any(|job| job.id.as_str() == id);
        let tries = self.submits.iter().flat_map(|submit| &submit.tries);
        let gone = tries.filter_map(|(asked, answered, heard)| match heard {
            Heard::Made(id) | Heard::Known(id) if !there(id) => Some((*asked, *answered)),
            _ => None,
        });
        gone.collect()
    }

    /// The run in numbers.
    pub fn summary(&self, recovered: Option<Duration>) -> String {
        let tries = |of: fn(&Heard) -> bool| {
            self.submits.iter().flat_map(|submit| &submit.tries).filter(|(.., heard)| of(heard)).count()
        };
        let stepped = |step: Step| self.submits.iter().filter(|submit| submit.steps.contains(&step)).count();
        let (seconds, jobs) = (self.took.as_secs_f64(), self.running_jobs().count());
        format!(
            "{seconds:.1} s, {} submits, {} of them with a file, {} cancelled, {} retried, {jobs} jobs and {} batches \
             ({:.0} jobs a second), {} runs, {} unfinished; {} faults; tries with an unknown outcome: {}, \
             not done: {}, answered again: {}; slowest answer {} ms; all final {} ms after the last fault",
            self.submits.len(),
            self.outputs.len(),
            stepped(Step::SeenCancelled),
            stepped(Step::Retried),
            self.items.len(),
            jobs as f64 / seconds,
            self.runs.len(),
            self.runs.iter().filter(|run| run.code.is_none()).count(),
            self.struck.len(),
            tries(|heard| matches!(heard, Heard::Unknown(_))),
            tries(|heard| matches!(heard, Heard::NotDone(_))),
            tries(|heard| matches!(heard, Heard::Known(_))),
            self.submits
                .iter()
                .flat_map(|s| &s.tries)
                .map(|(asked, heard, _)| *heard - *asked)
                .max()
                .unwrap_or_default()
                .as_millis(),
            recovered.map_or("never".to_owned(), |took| took.as_millis().to_string()),
        )
    }

    /// The violations, the faults, and all that is known of the first jobs that offend.
    pub async fn report(&self, fleet: &Fleet, violations: &[Violation]) -> String {
        let mut text = format!("{} violations\n", violations.len());
        for violation in violations.iter().take(10 * SHOWN) {
            writeln!(text, "  {violation}").unwrap();
        }
        for struck in &self.struck {
            let Struck { fault, workers, at, back_at } = struck;
            let (at, back_at) = (at.as_millis(), back_at.as_millis());
            writeln!(text, "{at:>7} ms: {fault}, workers {workers:?}, over at {back_at} ms").unwrap();
        }
        let mut offenders: Vec<&str> = violations.iter().filter_map(|violation| violation.job.as_deref()).collect();
        offenders.dedup();
        for job in offenders.into_iter().take(SHOWN) {
            self.tell(&mut text, &fleet.apis[0], job).await;
        }
        text
    }

    async fn tell(&self, text: &mut String, api: &Api, job: &str) {
        writeln!(text, "---- {job}").unwrap();
        for submit in self.submits.iter().filter(|submit| submit.id() == Some(job)) {
            writeln!(text, "{} {}", submit.key, submit.body).unwrap();
            for (asked, answered, heard) in &submit.tries {
                writeln!(text, "  {} ms to {} ms: {heard:?}", asked.as_millis(), answered.as_millis()).unwrap();
            }
            writeln!(text, "  then {:?}", submit.steps).unwrap();
        }
        for run in self.runs.iter().filter(|run| run.job == job) {
            writeln!(text, "{run:?}").unwrap();
        }
        for path in ["", "/history"] {
            writeln!(text, "{}", api.get(&format!("/api/v1/jobs/{job}{path}")).await.text).unwrap();
        }
    }
}

/// Every job that is no item; `None`: the API cannot list them now.
pub async fn all_jobs(api: &Api) -> Option<Vec<Job>> {
    pages(api, "").await
}

async fn pages(api: &Api, query: &str) -> Option<Vec<Job>> {
    let (mut jobs, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = api.get(&format!("/api/v1/jobs?{query}limit=1000{cursor}")).await;
        if answer.status == 503 {
            return None;
        }
        assert_eq!(answer.status, 200, "{}", answer.text);
        let page: Vec<Job> = serde_json::from_value(answer.json["jobs"].clone()).unwrap();
        jobs.extend(page);
        match answer.json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Some(jobs),
        }
    }
}
