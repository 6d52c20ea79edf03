//! The two ways into a system: Redis itself, for operators, and the HTTP API.
//!
//! Each command is written once, against [`Backend`]; both ways return the same answers.
mod change;
mod client;
mod files;
mod follow;
mod ids;
mod schedules;
mod submit;

use leasehold::store::{HistoryEntry, ListQuery, Page, QueueStatus, Serving, WorkerStatus};
use leasehold::{Config, Error, Job, JobId, Kind, QueueName, Refusal, State, Store};
use reqwest::Method;
use serde::Deserialize;

use crate::failure::Failure;
use client::{Client, Repeat};

pub(crate) use change::Changed;
pub(crate) use files::{Attachment, Direction, FileView, path_for};
pub(crate) use submit::{Submission, kinds, millis, payload};

/// A way into a system.
pub(crate) enum Backend {
    /// Redis itself.
    Redis(Box<Direct>),
    /// Over the HTTP API.
    Http(Client),
}

/// Redis, and the configuration.
pub(crate) struct Direct {
    store: Store,
    config: Config,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// Only in this state.
    pub state: Option<State>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this queue.
    pub queue: Option<QueueName>,
    /// The items of this batch.
    pub parent: Option<JobId>,
    /// Jobs in a page.
    pub limit: usize,
    /// The end of the page before.
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
struct Queues {
    queues: Vec<QueueStatus>,
}

#[derive(Deserialize)]
struct Workers {
    workers: Vec<WorkerStatus>,
}

#[derive(Deserialize)]
struct History {
    history: Vec<HistoryEntry>,
}

impl Backend {
    /// The backend on Redis.
    pub(crate) fn redis(store: Store, config: Config) -> Self {
        Backend::Redis(Box::new(Direct { store, config }))
    }

    /// The backend over the API at `base`; nothing is sent yet.
    pub(crate) fn http(base: &str, token: Option<&str>) -> Result<Self, Failure> {
        Ok(Backend::Http(Client::new(base, token)?))
    }

    /// One job, if it is there.
    pub(crate) async fn find(&self, id: &JobId) -> Result<Option<Job>, Failure> {
        match self {
            Backend::Redis(direct) => {
                let mut job = direct.store.get(id).await?;
                say_served(&direct.store, job.iter_mut()).await?;
                Ok(job)
            }
            Backend::Http(api) => api.find(id).await,
        }
    }

    /// One job.
    pub(crate) async fn get(&self, id: &JobId) -> Result<Job, Failure> {
        self.find(id).await?.ok_or_else(|| Failure::Failed(Refusal::NotFound(id.clone()).to_string()))
    }

    /// A page of jobs.
    pub(crate) async fn list(&self, listing: &Listing) -> Result<Page, Failure> {
        let Listing { state, kind, queue, parent, limit, cursor } = listing.clone();
        match self {
            Backend::Redis(direct) => {
                let mut query = ListQuery { state, kind, queue, parent, limit, cursor: None };
                if let Some(cursor) = cursor {
                    query = query.with_cursor(&cursor).map_err(|e| Failure::Usage(format!("--cursor: {e}")))?;
                }
                let mut page = direct.store.list(&query).await?;
                say_served(&direct.store, page.jobs.iter_mut()).await?;
                Ok(page)
            }
            Backend::Http(api) => {
                let limit = limit.to_string();
                let query = [
                    ("state", state.map(State::as_str)),
                    ("kind", kind.as_ref().map(Kind::as_str)),
                    ("queue", queue.as_ref().map(QueueName::as_str)),
                    ("parent", parent.as_ref().map(JobId::as_str)),
                    ("limit", Some(limit.as_str())),
                    ("cursor", cursor.as_deref()),
                ];
                let query: Vec<_> = query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
                api.get(&["jobs"], &query).await
            }
        }
    }

    /// A job's attempts, phases and interventions.
    pub(crate) async fn history(&self, id: &JobId) -> Result<Vec<HistoryEntry>, Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.history(id).await?),
            Backend::Http(api) => Ok(api.get::<History>(&["jobs", id.as_str(), "history"], &[]).await?.history),
        }
    }

    /// All queues.
    pub(crate) async fn queues(&self) -> Result<Vec<QueueStatus>, Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.queues(None).await?),
            Backend::Http(api) => Ok(api.get::<Queues>(&["queues"], &[]).await?.queues),
        }
    }

    /// One queue, if it is known.
    pub(crate) async fn queue(&self, name: &QueueName) -> Result<Option<QueueStatus>, Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.queues(Some(name)).await?.into_iter().next()),
            // Over HTTP a queue that was never used has a status too, so only the list says that it is known.
            Backend::Http(_) => Ok(self.queues().await?.into_iter().find(|queue| queue.name == *name)),
        }
    }

    /// Stops (`true`) or resumes claims from a queue.
    pub(crate) async fn pause(&self, name: &QueueName, paused: bool) -> Result<(), Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.pause(name, paused).await?),
            Backend::Http(api) => {
                let path = ["queues", name.as_str(), if paused { "pause" } else { "resume" }];
                api.send(Repeat::Safe, || Ok(api.request(Method::POST, &path))).await.map(drop)
            }
        }
    }

    /// Removes an unused queue; the reason when it is refused.
    pub(crate) async fn remove_queue(&self, name: &QueueName) -> Result<Result<(), String>, Failure> {
        match self {
            Backend::Redis(direct) => match direct.store.remove_queue(name).await {
                Ok(()) => Ok(Ok(())),
                Err(Error::Refused(refusal)) => Ok(Err(refusal.to_string())),
                Err(e) => Err(e.into()),
            },
            Backend::Http(api) => {
                let path = ["queues", name.as_str()];
                // A repeated one would find no queue after a lost answer.
                match api.send(Repeat::Undone, || Ok(api.request(Method::DELETE, &path))).await {
                    Ok(_) => Ok(Ok(())),
                    Err(Failure::Refused(problem)) if problem.is_about_the_job() => Ok(Err(problem.detail)),
                    Err(failure) => Err(failure),
                }
            }
        }
    }

    /// The workers that are alive, or were within the hour.
    pub(crate) async fn workers(&self) -> Result<Vec<WorkerStatus>, Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.workers().await?),
            Backend::Http(api) => Ok(api.get::<Workers>(&["workers"], &[]).await?.workers),
        }
    }
}

impl Backend {
    /// What the living workers serve, when one of these jobs waits for a worker that is missing.
    pub(crate) async fn serving(&self, jobs: &[Job]) -> Result<Serving, Failure> {
        let lacks = jobs.iter().any(|job| job.served == Some(false));
        if lacks { Ok(Serving::of(self.workers().await?)) } else { Ok(Serving::default()) }
    }

    /// Why a job has no worker: what no living worker serves.
    pub(crate) async fn lack(&self, job: &Job) -> Option<String> {
        if job.served != Some(false) {
            return None;
        }
        match self.workers().await {
            Ok(workers) => Serving::of(workers).lack(&job.kind, &job.queue),
            Err(_) => Some("no living worker serves its kind and queue".into()),
        }
    }
}

impl Client {
    /// One job, if it is there.
    async fn find(&self, id: &JobId) -> Result<Option<Job>, Failure> {
        match self.get(&["jobs", id.as_str()], &[]).await {
            Ok(job) => Ok(Some(job)),
            Err(Failure::Refused(problem)) if problem.code == "no_such_job" => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// Fills in, for jobs that wait for a worker, whether a living one serves their kind and queue, as the API does.
async fn say_served<'a>(store: &Store, jobs: impl Iterator<Item = &'a mut Job>) -> Result<(), Failure> {
    let waits = |job: &&mut Job| job.state == State::Queued && job.items.is_none();
    let waiting: Vec<&mut Job> = jobs.filter(waits).collect();
    if !waiting.is_empty() {
        let serving = store.serving().await?;
        waiting.into_iter().for_each(|job| job.served = Some(serving.serves(&job.kind, &job.queue)));
    }
    Ok(())
}
