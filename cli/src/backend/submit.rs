//! A job as somebody asks for it, before anything that hangs on its kind is filled in; and the items of its batch.
use std::time::Duration;

use leasehold::job::{Due, Idempotency, NewBatch, Priority};
use leasehold::store::request_digest;
use leasehold::{Config, Job, JobId, Json, Kind, NewJob, QueueName, Timestamp};
use reqwest::Method;
use serde::Serialize;

use super::client::{Client, Repeat};
use super::files::Attachment;
use super::{Backend, Direct};
use crate::failure::Failure;

/// A job to submit; what is absent comes from its kind.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// What it is.
    pub kind: Kind,
    /// For its handler.
    pub payload: Json,
    /// Where it waits.
    pub queue: Option<QueueName>,
    /// How soon.
    pub priority: Option<Priority>,
    /// When it may start.
    pub due: Option<Due>,
    /// Attempts it is given.
    pub max_attempts: Option<u32>,
    /// Its longest run.
    pub timeout: Option<Duration>,
    /// So that a second submit of the same is known.
    pub key: Option<String>,
    /// It is a batch, whose items follow.
    pub batch: Option<Batch>,
    /// What comes with it.
    pub files: Vec<Attachment>,
}

/// A batch whose items follow in parts.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// The kind to run once they have ended.
    pub then: Option<Kind>,
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

impl Draft {
    /// Reads a payload within the limits of this backend. Over HTTP they are the server's to know.
    pub(crate) fn payload(text: &str, backend: &Backend) -> Result<Json, leasehold::json::InvalidJson> {
        match backend {
            Backend::Redis(direct) => {
                Json::parse(text, direct.config.limits.json_depth, direct.config.limits.payload_bytes)
            }
            Backend::Http(_) => Json::parse(text, usize::MAX, usize::MAX),
        }
    }

    /// Fills in what its kind says.
    fn job(self, config: &Config) -> Result<NewJob, Failure> {
        let kinds = config.load_kinds()?;
        let kind = kinds.get(&self.kind);
        let digest = self.digest();
        Ok(NewJob {
            queue: self.queue.unwrap_or_else(|| kind.queue_name()),
            priority: self.priority.unwrap_or_default(),
            payload: self.payload,
            due: self.due.unwrap_or_default(),
            max_attempts: self.max_attempts.unwrap_or(kind.max_attempts),
            timeout_ms: self.timeout.map(millis),
            idempotency: self.key.map(|key| Idempotency { key, digest }),
            limited: kind.max_running.is_some(),
            batch: self.batch.map(|batch| NewBatch { items: Vec::new(), open: true, then: batch.then }),
            kind: self.kind,
            uploaded: None,
        })
    }

    /// The digest that the API gives the same submit, so that a key means the same over both backends.
    fn digest(&self) -> String {
        let due = match self.due {
            Some(Due::At(at)) => at.0.to_string(),
            Some(Due::In(ms)) => format!("+{ms}"),
            Some(Due::Now) | None => String::new(),
        };
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let then = self.batch.as_ref().and_then(|batch| batch.then.as_ref());
        request_digest([
            self.kind.as_str(),
            self.payload.as_str(),
            self.queue.as_ref().map_or("", QueueName::as_str),
            self.priority.map_or("", Priority::as_str),
            &due,
            &number(self.max_attempts.map(u64::from)),
            &number(self.timeout.map(millis)),
            if self.batch.is_some() { "true" } else { "false" },
            then.map_or("", Kind::as_str),
            // No items come with it.
            "",
        ])
    }

    fn body(&self) -> Submit<'_> {
        Submit {
            kind: &self.kind,
            payload: &self.payload,
            queue: self.queue.as_ref(),
            priority: self.priority,
            delay_ms: if let Some(Due::In(ms)) = self.due { Some(ms) } else { None },
            run_at: if let Some(Due::At(at)) = self.due { Some(at) } else { None },
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout.map(millis),
            items_open: self.batch.as_ref().map(|_| true),
            then: self.batch.as_ref().and_then(|batch| batch.then.as_ref()),
        }
    }
}

impl Backend {
    /// Submits a job.
    pub(crate) async fn submit(&self, draft: Draft) -> Result<Job, Failure> {
        match self {
            Backend::Redis(direct) => {
                let id = direct.submit(draft).await?;
                self.get(&id).await
            }
            Backend::Http(api) => api.submit(&draft).await,
        }
    }

    /// Adds the items from number `first` on; `last` seals the batch. The same part again changes nothing. Returns how many
    /// items the batch has.
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
    async fn submit(&self, draft: Draft) -> Result<JobId, Failure> {
        let files = draft.files.clone();
        let job = draft.job(&self.config)?;
        if files.is_empty() { Ok(self.store.submit(job).await?.id) } else { self.submit_with_files(job, &files).await }
    }
}

impl Client {
    /// Without a key of the caller's it gets one of its own, so that it can be sent again when the answer is lost.
    async fn submit(&self, draft: &Draft) -> Result<Job, Failure> {
        let key = draft.key.clone().unwrap_or_else(|| format!("cli-{}", uuid::Uuid::now_v7()));
        let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
        if !draft.files.is_empty() {
            let json = serde_json::to_string(&draft.body()).expect("a submit is plain JSON");
            return self.submit_with_files(&json, &draft.files, &quoted).await;
        }
        let body = draft.body();
        let build = || Ok(self.request(Method::POST, &["jobs"]).header("idempotency-key", &quoted).json(&body));
        self.json(self.send(Repeat::Safe, build).await?).await
    }
}
