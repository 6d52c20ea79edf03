//! Changes to existing jobs. Each id is reported separately: one that is refused does not stop the others.
use leasehold::store::{Cancelled, PruneQuery, Pruned, Removed, Retried};
use leasehold::{Job, JobId, Refusal};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use super::client::{Client, Repeat};
use super::{Backend, Direct};
use crate::failure::Failure;

/// The outcome for one id: what was done, or why it was refused; and the job afterwards, if it still exists.
pub(crate) struct Changed {
    /// Which.
    pub id: JobId,
    /// What was done, in a word or two; or why it was refused.
    pub answer: Result<&'static str, String>,
    /// The job as it is now.
    pub job: Option<Job>,
}

const CANCELLED: [&str; 2] = ["cancelled", "asked to stop"];
const RETRIED: [&str; 2] = ["queued", "waiting for its failed and cancelled items, which run again"];
const REMOVED: [&str; 2] = ["removed", "being removed, its items first"];

impl Backend {
    /// Cancels jobs.
    pub(crate) async fn cancel(&self, ids: &[JobId]) -> Result<Vec<Changed>, Failure> {
        let word = |done| CANCELLED[usize::from(done == Cancelled::Requested)];
        match self {
            Backend::Redis(direct) => direct.changed(ids, direct.store.cancel(ids).await?, word).await,
            Backend::Http(api) => each(ids, async |id| api.change(id, Repeat::Safe, "cancel", CANCELLED).await).await,
        }
    }

    /// Retries jobs.
    pub(crate) async fn retry(&self, ids: &[JobId]) -> Result<Vec<Changed>, Failure> {
        let word = |done| RETRIED[usize::from(done == Retried::Waiting)];
        match self {
            Backend::Redis(direct) => direct.changed(ids, direct.store.retry(ids).await?, word).await,
            // A repeated one could retry a job that has failed again since.
            Backend::Http(api) => each(ids, async |id| api.change(id, Repeat::Undone, "retry", RETRIED).await).await,
        }
    }

    /// Removes jobs.
    pub(crate) async fn remove(&self, ids: &[JobId]) -> Result<Vec<Changed>, Failure> {
        let word = |done| REMOVED[usize::from(done == Removed::Begun)];
        match self {
            Backend::Redis(direct) => direct.changed(ids, direct.store.remove(ids).await?, word).await,
            Backend::Http(api) => each(ids, async |id| api.remove(id).await).await,
        }
    }
}

impl Direct {
    async fn changed<D>(
        &self,
        ids: &[JobId],
        answers: Vec<Result<D, Refusal>>,
        word: impl Fn(D) -> &'static str,
    ) -> Result<Vec<Changed>, Failure> {
        let mut jobs = self.store.get_many(ids).await?;
        super::say_served(&self.store, jobs.iter_mut().flatten()).await?;
        let answers = answers.into_iter().map(|answer| answer.map(&word).map_err(|refusal| refusal.to_string()));
        let changed = ids.iter().zip(answers).zip(jobs);
        Ok(changed.map(|((id, answer), job)| Changed { id: id.clone(), answer, job }).collect())
    }
}

impl Backend {
    /// Removes the ended jobs that match a query, or counts them; `more` says that the call must be repeated.
    pub(crate) async fn prune(&self, query: &PruneQuery) -> Result<Pruned, Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.store.prune(query).await?),
            Backend::Http(api) => {
                let texts = [
                    ("state", query.state.map(|state| state.to_string())),
                    ("kind", query.kind.as_ref().map(ToString::to_string)),
                    ("older_than_ms", query.older_than_ms.map(|ms| ms.to_string())),
                    ("keep", query.keep.map(|n| n.to_string())),
                    ("bytes_max", query.bytes_max.map(|n| n.to_string())),
                    ("dry_run", Some(query.dry_run.to_string())),
                ];
                let given: Vec<(&str, &str)> = texts.iter().filter_map(|(n, v)| Some((*n, v.as_deref()?))).collect();
                // The deletions of a lost answer would be missing from the count.
                let repeat = if query.dry_run { Repeat::Safe } else { Repeat::Undone };
                let answer = api.send(repeat, || Ok(api.request_with(Method::DELETE, &["jobs"], &given))).await?;
                let DeletedView { deleted, matching, more } = api.json(answer).await?;
                Ok(Pruned { deleted, matching: matching.unwrap_or(deleted), more })
            }
        }
    }
}

/// The answer to `DELETE /api/v1/jobs`.
#[derive(Deserialize)]
struct DeletedView {
    deleted: u64,
    matching: Option<u64>,
    more: bool,
}

/// Changes one after the other. A failure that is not about one job ends it, and is reported with what was done before.
async fn each(
    ids: &[JobId],
    change: impl AsyncFn(&JobId) -> Result<Changed, Failure>,
) -> Result<Vec<Changed>, Failure> {
    let mut changed: Vec<Changed> = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        match change(id).await {
            Ok(one) => changed.push(one),
            Err(failure) if changed.is_empty() => return Err(failure),
            Err(failure) => {
                let refused = |id: &JobId, why: String| Changed { id: id.clone(), answer: Err(why), job: None };
                changed.push(refused(id, failure.to_string()));
                changed.extend(ids[at + 1..].iter().map(|id| refused(id, "not tried after that".into())));
                break;
            }
        }
    }
    Ok(changed)
}

impl Client {
    /// Posts to `jobs/{id}/{verb}`; `words` are for done, and for requested.
    async fn change(
        &self,
        id: &JobId,
        repeat: Repeat,
        verb: &str,
        words: [&'static str; 2],
    ) -> Result<Changed, Failure> {
        let path = ["jobs", id.as_str(), verb];
        let answer = self.send(repeat, || Ok(self.request(Method::POST, &path))).await;
        self.changed(id, answer, words).await
    }

    /// A removal whose answer was lost finds nothing the second time, so the job must have been there at first.
    async fn remove(&self, id: &JobId) -> Result<Changed, Failure> {
        if self.find(id).await?.is_none() {
            return Ok(Changed { id: id.clone(), answer: Err(Refusal::NotFound(id.clone()).to_string()), job: None });
        }
        let path = ["jobs", id.as_str()];
        let answer = self.send(Repeat::Safe, || Ok(self.request(Method::DELETE, &path))).await;
        let mut changed = self.changed(id, answer, REMOVED).await?;
        if changed.job.is_none() {
            changed.answer = Ok(REMOVED[0]);
        }
        Ok(changed)
    }

    async fn changed(
        &self,
        id: &JobId,
        answer: Result<Response, Failure>,
        words: [&'static str; 2],
    ) -> Result<Changed, Failure> {
        let id = id.clone();
        match answer {
            Ok(answer) => {
                let word = words[usize::from(answer.status() == StatusCode::ACCEPTED)];
                let gone = answer.status() == StatusCode::NO_CONTENT;
                let job = if gone { None } else { Some(self.json(answer).await?) };
                Ok(Changed { id, answer: Ok(word), job })
            }
            Err(Failure::Refused(problem)) if problem.is_about_the_job() => {
                let job = self.find(&id).await?;
                Ok(Changed { id, answer: Err(problem.detail), job })
            }
            Err(failure) => Err(failure),
        }
    }
}
