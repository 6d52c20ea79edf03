//! Schedules, both ways.
use leasehold::schedule::{DeclaredIn, Plan};
use leasehold::{Job, Refusal, Schedule, ScheduleName};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::client::Repeat;
use super::{Backend, kinds};
use crate::failure::Failure;

#[derive(Deserialize)]
struct Schedules {
    schedules: Vec<Schedule>,
}

/// The body of a schedule that is written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    paused: bool,
}

impl Backend {
    /// All schedules, by name.
    pub(crate) async fn schedules(&self) -> Result<Vec<Schedule>, Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.schedules().await?),
            Backend::Http(api) => Ok(api.get::<Schedules>(&["schedules"], &[]).await?.schedules),
        }
    }

    /// One schedule.
    pub(crate) async fn schedule(&self, name: &ScheduleName) -> Result<Schedule, Failure> {
        match self {
            Backend::Redis(direct) => {
                let missing = || Failure::Failed(Refusal::NoSchedule(name.clone()).to_string());
                direct.store.schedule(name).await?.ok_or_else(missing)
            }
            Backend::Http(api) => api.get(&["schedules", name.as_str()], &[]).await,
        }
    }

    /// Writes a schedule, and says whether it is a new one.
    pub(crate) async fn put_schedule(
        &self,
        name: &ScheduleName,
        plan: &Plan,
        paused: bool,
    ) -> Result<(Schedule, bool), Failure> {
        match self {
            Backend::Redis(direct) => {
                let kinds = kinds(&direct.store, &direct.config).await?;
                Ok(direct.store.put_schedule(name, plan, paused, DeclaredIn::Api, &kinds).await?)
            }
            Backend::Http(api) => {
                let (path, body) = (["schedules", name.as_str()], Written { plan, paused });
                let request = || Ok(api.request(Method::PUT, &path).json(&body));
                let answer = api.send(Repeat::Safe, request).await?;
                let created = answer.status() == StatusCode::CREATED;
                Ok((api.json(answer).await?, created))
            }
        }
    }

    /// Pauses or resumes a schedule.
    pub(crate) async fn pause_schedule(&self, name: &ScheduleName, paused: bool) -> Result<Schedule, Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.pause_schedule(name, paused).await?),
            Backend::Http(api) => {
                let path = ["schedules", name.as_str(), if paused { "pause" } else { "resume" }];
                let answer = api.send(Repeat::Safe, || Ok(api.request(Method::POST, &path))).await?;
                api.json(answer).await
            }
        }
    }

    /// Submits a job of a schedule now.
    pub(crate) async fn trigger_schedule(&self, name: &ScheduleName) -> Result<Job, Failure> {
        match self {
            Backend::Redis(direct) => {
                let kinds = kinds(&direct.store, &direct.config).await?;
                let id = direct.store.trigger_schedule(name, &kinds).await?;
                self.get(&id).await
            }
            Backend::Http(api) => {
                let path = ["schedules", name.as_str(), "trigger"];
                // Sent again after a lost answer it would submit a second job.
                let answer = api.send(Repeat::Undone, || Ok(api.request(Method::POST, &path))).await?;
                api.json(answer).await
            }
        }
    }

    /// Removes a schedule.
    pub(crate) async fn remove_schedule(&self, name: &ScheduleName) -> Result<(), Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.remove_schedule(name, DeclaredIn::Api).await?),
            Backend::Http(api) => {
                let path = ["schedules", name.as_str()];
                // A repeated one would find no schedule after a lost answer.
                api.send(Repeat::Undone, || Ok(api.request(Method::DELETE, &path))).await.map(drop)
            }
        }
    }
}
