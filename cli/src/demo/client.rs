//! The demo as a client of the HTTP API, one that an outage does not confuse.
use std::collections::HashMap;
use std::time::Duration;

use leasehold::store::Page;
use leasehold::{Job, JobId, State, WorkerId};
use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use super::documents;
use crate::failure::Failure;
use crate::system;

/// The kind of the demo's jobs.
const KIND: &str = "process-files";
/// How long a submit goes on trying.
const SUBMIT_LIMIT: Duration = Duration::from_secs(40);
/// How long a look at the jobs may take; while Redis is away the API waits for it.
const LOOK_LIMIT: Duration = Duration::from_millis(250);

/// A submit that the API has answered with yes.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub file: String,
    pub id: JobId,
}

#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    jobs: String,
    run: String,
}

impl Client {
    /// A client of the API at `base`; its keys are its own.
    pub(super) fn new(base: &str) -> Result<Self, Failure> {
        let run = std::process::id().to_string();
        Ok(Self { http: system::client()?, jobs: format!("{base}/api/v1/jobs"), run })
    }

    /// Submits a document, again and again with the same Idempotency-Key until the API says yes.
    pub(super) async fn submit(&self, file: String) -> Result<Accepted, Failure> {
        let end = Instant::now() + SUBMIT_LIMIT;
        let body = serde_json::json!({ "kind": KIND, "payload": { "file": file } });
        loop {
            let request = self.http.post(&self.jobs).header("Idempotency-Key", format!("demo-{}-{file}", self.run));
            let reason = match request.json(&body).send().await {
                Ok(answer) if answer.status().is_success() => match answer.json::<Job>().await {
                    Ok(job) => return Ok(Accepted { file, id: job.id }),
                    Err(e) => e.to_string(),
                },
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
                    return Err(Failure::Failed(format!("the API refused {file}: {status} {text}")));
                }
                Ok(answer) => answer.status().to_string(),
                // The answer was lost, the submit perhaps not: the key makes another one safe.
                Err(e) => e.to_string(),
            };
            if Instant::now() >= end {
                return Err(Failure::Failed(format!("the API did not accept {file} within 40 s: {reason}")));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Every job of the demo's kind.
    pub(super) async fn jobs(&self) -> Result<Vec<Job>, Failure> {
        let fault = |e: reqwest::Error| Failure::Failed(format!("the API did not list the jobs: {e}"));
        let request = self.http.get(format!("{}?kind={KIND}&limit=1000", self.jobs));
        let answer = request.send().await.and_then(reqwest::Response::error_for_status).map_err(fault)?;
        Ok(answer.json::<Page>().await.map_err(fault)?.jobs)
    }
}

/// What has been seen of the jobs, look by look.
pub(super) struct Observer {
    client: Client,
    last: HashMap<JobId, Job>,
    ends: HashMap<JobId, Job>,
    /// Jobs that had ended, and were seen otherwise later.
    pub changed: Vec<String>,
}

impl Observer {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone(), last: HashMap::new(), ends: HashMap::new(), changed: Vec::new() }
    }

    /// Looks at all jobs; whether they were seen. While Redis is away, what was seen last stands.
    pub(super) async fn look(&mut self) -> bool {
        let Ok(Ok(jobs)) = tokio::time::timeout(LOOK_LIMIT, self.client.jobs()).await else { return false };
        jobs.into_iter().for_each(|job| self.take(job));
        true
    }

    fn take(&mut self, job: Job) {
        match self.ends.get(&job.id) {
            Some(end) if *end != job => {
                self.changed.push(format!("{} ended {}, and is {} now", job.id, end.state, job.state))
            }
            Some(_) => {}
            None if job.state.is_final() => drop(self.ends.insert(job.id.clone(), job.clone())),
            None => {}
        }
        self.last.insert(job.id.clone(), job);
    }

    /// The jobs as they were seen last.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.last.values()
    }

    /// The worker that runs the largest document.
    pub(super) fn busiest(&self) -> Option<WorkerId> {
        let running = self.last.values().filter(|job| job.state == State::Running);
        running.max_by_key(|job| documents::size(job)).and_then(|job| job.worker.clone())
    }

    /// What a worker runs.
    pub(super) fn held_by(&self, worker: &WorkerId) -> Vec<Job> {
        let held = |job: &&Job| job.state == State::Running && job.worker.as_ref() == Some(worker);
        self.last.values().filter(held).cloned().collect()
    }

    /// How many have ended, of how many that are known.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.ends.len(), self.last.len())
    }

    /// Whether that many jobs are known and all have ended.
    pub(super) fn all_ended(&self, jobs: usize) -> bool {
        self.last.len() >= jobs && self.ends.len() == self.last.len()
    }

    /// How a job had ended when that was first seen.
    pub(super) fn end(&self, id: &JobId) -> Option<&Job> {
        self.ends.get(id)
    }
}
