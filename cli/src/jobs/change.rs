//! `jobs cancel`, `retry` and `rm`: each id is reported separately, and one that is refused makes the command fail.
use std::collections::HashSet;

use leasehold::{Job, JobId};
use serde::Serialize;

use crate::arguments::Common;
use crate::backend::Changed;
use crate::failure::{Failure, complain};
use crate::print;

/// The outcome for one id.
#[derive(Serialize)]
struct Answer {
    id: JobId,
    /// What was done, in the words of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<&'static str>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
    /// The job after it; null when it is gone.
    job: Option<Job>,
}

/// What the API's problems say in their `detail`.
#[derive(Serialize)]
struct Problem {
    detail: String,
}

impl From<Changed> for Answer {
    fn from(changed: Changed) -> Self {
        let Changed { id, answer, job } = changed;
        let (done, error) = match answer {
            Ok(done) => (Some(done), None),
            Err(detail) => (None, Some(Problem { detail })),
        };
        Self { id, done, error, job }
    }
}

/// Cancels jobs.
pub(super) async fn cancel(ids: &[JobId], common: &Common) -> Result<(), Failure> {
    let backend = common.backend().await?;
    let ids = distinct(&backend.resolve_all(ids).await?);
    report(backend.cancel(&ids).await?, common)
}

/// Retries jobs.
pub(super) async fn retry(ids: &[JobId], common: &Common) -> Result<(), Failure> {
    let backend = common.backend().await?;
    let ids = distinct(&backend.resolve_all(ids).await?);
    report(backend.retry(&ids).await?, common)
}

/// Removes jobs.
pub(super) async fn remove(ids: &[JobId], common: &Common) -> Result<(), Failure> {
    let backend = common.backend().await?;
    let ids = distinct(&backend.resolve_all(ids).await?);
    report(backend.remove(&ids).await?, common)
}

/// The ids, each once: a second one would be refused because of what the first has done.
fn distinct(ids: &[JobId]) -> Vec<JobId> {
    let mut seen = HashSet::new();
    ids.iter().filter(|id| seen.insert(*id)).cloned().collect()
}

fn report(changed: Vec<Changed>, common: &Common) -> Result<(), Failure> {
    let refused = changed.iter().any(|one| one.answer.is_err());
    if common.json() {
        print::json_list("results", &changed.into_iter().map(Answer::from).collect::<Vec<_>>())?;
    } else {
        for Changed { id, answer, .. } in changed {
            match answer {
                Ok(done) => print::line(format_args!("{id}  {done}"))?,
                Err(why) => complain(format_args!("{id}: {why}")),
            }
        }
    }
    if refused { Err(Failure::Said) } else { Ok(()) }
}
