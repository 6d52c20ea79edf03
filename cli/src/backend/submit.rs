//! Submitting a job, and the items of its batch.
use std::time::Duration;

use leasehold::job::{Due, Durability, Priority};
use leasehold::store::kind_names;
use leasehold::{Config, Draft, Job, JobId, Json, Kind, Kinds, QueueName, Store, Timestamp};
use reqwest::Method;
use serde::Serialize;

use super::client::{Client, Repeat};
use super::files::Attachment;
use super::{Backend, Direct};
use crate::failure::{Failure, complain};

/// A job to submit.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// The job. The items of a batch follow in parts.
    pub draft: Draft,
    /// The files that go with it.
    pub files: Vec<Attachment>,
}

/// The body of `POST /api/v1/jobs`.
#[derive(Serialize)]
struct Submit<'a> {
    kind: &'a Kind,
    payload: &'a Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a QueueName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<Durability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items_open: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<&'a Kind>,
}

/// The body of `POST /api/v1/jobs/{id}/items`.
#[derive(Serialize)]
struct Part<'a> {
    first: u64,
    items: &'a [Json],
    last: bool,
}

/// Milliseconds of a duration that is bounded.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a payload within the limits of this backend; over HTTP the server enforces them.
pub(crate) fn payload(text: &str, backend: &Backend) -> Result<Json, leasehold::json::InvalidJson> {
    match backend {
        Backend::Redis(direct) => {
            Json::parse(text, direct.config.limits.json_depth, direct.config.limits.payload_bytes)
        }
        Backend::Http(_) => Json::parse(text, usize::MAX, usize::MAX),
    }
}

/// The kinds by whose defaults a job is submitted: those that API and workers have published, and otherwise those of
/// the kinds file. A file that differs from what was published is reported.
pub(crate) async fn kinds(store: &Store, config: &Config) -> Result<Kinds, Failure> {
    let own = config.load_kinds()?;
    let Some(published) = store.published().await?.kinds else { return Ok(own) };
    let differing = if own.is_empty() { Vec::new() } else { own.published().differing(&published) };
    if !differing.is_empty() {
        complain(format_args!(
            "warning: this kinds file is not the one that the API and the workers use; theirs applies, which differs in {}",
            kind_names(&differing)
        ));
    }
    Ok(own.with_published(&published))
}

impl<'a> From<&'a Draft> for Submit<'a> {
    fn from(draft: &'a Draft) -> Self {
        Submit {
            kind: &draft.kind,
            payload: &draft.payload,
            queue: draft.queue.as_ref(),
            priority: draft.priority,
            delay_ms: if let Some(Due::In(ms)) = draft.due { Some(ms) } else { None },
            run_at: if let Some(Due::At(at)) = draft.due { Some(at) } else { None },
            max_attempts: draft.max_attempts,
            timeout_ms: draft.timeout_ms,
            durability: draft.durability,
            items_open: draft.batch.as_ref().map(|_| true),
            then: draft.batch.as_ref().and_then(|batch| batch.then.as_ref()),
        }
    }
}

impl Backend {
    /// Submits a job.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<Job, Failure> {
        match self {
            Backend::Redis(direct) => {
                let id = direct.submit(submission).await?;
                self.get(&id).await
            }
            Backend::Http(api) => api.submit(&submission).await,
        }
    }

    /// Adds the items from number `first` on; `last` seals the batch. The same part again changes nothing. Returns how
    /// many items the batch has.
    pub(crate) async fn add_items(&self, id: &JobId, first: u64, items: &[Json], last: bool) -> Result<u64, Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.add_items(id, first, items, last).await?),
            Backend::Http(api) => {
                let body = serde_json::to_vec(&Part { first, items, last }).expect("payloads are JSON");
                let body = bytes::Bytes::from(body);
                let path = ["jobs", id.as_str(), "items"];
                let build = || {
                    let request = api.request(Method::POST, &path).header("content-type", "application/json");
                    Ok(request.body(body.clone()))
                };
                let parent: Job = api.json(api.send(Repeat::Safe, build).await?).await?;
                Ok(parent.items.map_or(0, |items| items.total))
            }
        }
    }
}

impl Direct {
    async fn submit(&self, Submission { draft, files }: Submission) -> Result<JobId, Failure> {
        let job = draft.into_job(&kinds(&self.store, &self.config).await?);
        if files.is_empty() { Ok(self.store.submit(job).await?.id) } else { self.submit_with_files(job, &files).await }
    }
}

impl Client {
    /// Without a key of the caller's it gets one of its own, so that it can be sent again when the answer is lost.
    async fn submit(&self, Submission { draft, files }: &Submission) -> Result<Job, Failure> {
        let key = draft.key.clone().unwrap_or_else(|| format!("cli-{}", uuid::Uuid::now_v7()));
        let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
        let body = Submit::from(draft);
        if !files.is_empty() {
            let json = serde_json::to_string(&body).expect("a submit is plain JSON");
            return self.submit_with_files(&json, files, &quoted).await;
        }
        let build = || Ok(self.request(Method::POST, &["jobs"]).header("idempotency-key", &quoted).json(&body));
        self.json(self.send(Repeat::Safe, build).await?).await
    }
}
