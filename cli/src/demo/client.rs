//! The demo as a client of two of the five systems, file batches and job status: one that an outage does not confuse.
use std::collections::HashMap;
use std::time::Duration;

use leasehold::store::Page;
use leasehold::{Job, JobId, State, WorkerId};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::documents;
use crate::failure::Failure;
use crate::local::system;

/// The kind of the demo's batches.
const KIND: &str = "process-files";
/// How long a submit is retried.
const SUBMIT_LIMIT: Duration = Duration::from_secs(40);
/// How long a look at the jobs may take; while Redis is away the API waits for it.
const LOOK_LIMIT: Duration = Duration::from_millis(250);

/// A submit that the API has answered with yes.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    /// What the demo calls it, as part of its Idempotency-Key.
    pub name: &'static str,
    pub id: JobId,
    /// The files of a batch, in their order.
    pub files: Vec<String>,
}

/// `GET /job_results/{job_id}`, as far as the demo reads it.
#[derive(Debug, Deserialize)]
pub(super) struct Results {
    pub status: String,
    pub total_files: usize,
    pub successful_files: usize,
    pub failed_files: usize,
}

/// `GET /api/job-status/{job_id}`, as far as the demo reads it.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub status: String,
    pub result: Option<Suggestions>,
    pub error_message: Option<String>,
}

/// What kind `suggestions` returns.
#[derive(Debug, Deserialize)]
pub(super) struct Suggestions {
    pub suggestions: Vec<Suggestion>,
}

/// A passage that could be better; positions are characters.
#[derive(Debug, Deserialize)]
pub(super) struct Suggestion {
    pub text: String,
    pub start: usize,
    pub end: usize,
    pub kind: String,
}

#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    run: String,
}

impl Client {
    /// A client of the API at `base`; its keys are its own.
    pub(super) fn new(base: &str) -> Result<Self, Failure> {
        Ok(Self { http: system::client()?, base: base.to_owned(), run: std::process::id().to_string() })
    }

    /// Submits a batch of files.
    pub(super) async fn submit_files(&self, name: &'static str, files: Vec<String>) -> Result<Accepted, Failure> {
        self.submit("/jobs", name, &json!({ "files": files })).await.map(|id| Accepted { name, id, files })
    }

    /// Submits a text to find suggestions for.
    pub(super) async fn submit_text(&self, name: &'static str, text: &str) -> Result<Accepted, Failure> {
        let id = self.submit("/api/suggestions", name, &json!({ "text": text })).await?;
        Ok(Accepted { name, id, files: Vec::new() })
    }

    /// Submits again and again with the same Idempotency-Key until the API says yes.
    async fn submit(&self, path: &str, name: &str, body: &Value) -> Result<JobId, Failure> {
        #[derive(Deserialize)]
        struct Yes {
            job_id: JobId,
        }
        let end = Instant::now() + SUBMIT_LIMIT;
        loop {
            let request = self.http.post(format!("{}{path}", self.base));
            let request = request.header("Idempotency-Key", format!("demo-{}-{name}", self.run)).json(body);
            let reason = match request.send().await {
                Ok(answer) if answer.status().is_success() => match answer.json::<Yes>().await {
                    Ok(yes) => return Ok(yes.job_id),
                    Err(e) => e.to_string(),
                },
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
                    return Err(Failure::Failed(format!("the API refused {name}: {status} {text}")));
                }
                Ok(answer) => answer.status().to_string(),
                // The answer was lost, the submit perhaps not: the key makes another one safe.
                Err(e) => e.to_string(),
            };
            if Instant::now() >= end {
                return Err(Failure::Failed(format!("the API did not accept {name} within 40 s: {reason}")));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The items of batches, in their order.
    pub(super) async fn items(&self, batches: &[JobId]) -> Result<Vec<Job>, Failure> {
        let mut items = Vec::new();
        for batch in batches {
            items.extend(self.read::<Page>(&format!("/api/v1/jobs/{batch}/items?limit=1000")).await?.jobs);
        }
        Ok(items)
    }

    /// Every batch of the demo's kind.
    pub(super) async fn batches(&self) -> Result<Vec<Job>, Failure> {
        Ok(self.read::<Page>(&format!("/api/v1/jobs?kind={KIND}&limit=1000")).await?.jobs)
    }

    /// What became of a batch.
    pub(super) async fn results(&self, batch: &JobId) -> Result<Results, Failure> {
        self.read(&format!("/job_results/{batch}")).await
    }

    /// What became of a text.
    pub(super) async fn status(&self, id: &JobId) -> Result<Status, Failure> {
        self.read(&format!("/api/job-status/{id}")).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let fault = |e: reqwest::Error| Failure::Failed(format!("the API did not answer GET {path}: {e}"));
        let answer = self.http.get(format!("{}{path}", self.base)).send().await;
        answer.and_then(Response::error_for_status).map_err(fault)?.json().await.map_err(fault)
    }
}

/// What has been seen of the jobs, look by look.
pub(super) struct Observer {
    client: Client,
    batches: Vec<JobId>,
    last: HashMap<JobId, Job>,
    ends: HashMap<JobId, Job>,
    /// Jobs that had ended, and were seen otherwise later.
    pub changed: Vec<String>,
}

impl Observer {
    pub(super) fn new(client: &Client) -> Self {
        let (last, ends) = (HashMap::new(), HashMap::new());
        Self { client: client.clone(), batches: Vec::new(), last, ends, changed: Vec::new() }
    }

    /// Looks at the items of this batch too.
    pub(super) fn watch(&mut self, batch: &JobId) {
        self.batches.push(batch.clone());
    }

    /// The items of all that is watched, as they are now.
    pub(super) async fn items(&self) -> Result<Vec<Job>, Failure> {
        self.client.items(&self.batches).await
    }

    /// Looks at all jobs; whether they were seen. While Redis is unreachable, the last state is kept.
    pub(super) async fn look(&mut self) -> bool {
        let looked = tokio::time::timeout(LOOK_LIMIT, self.client.items(&self.batches)).await;
        let Ok(Ok(jobs)) = looked else { return false };
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
