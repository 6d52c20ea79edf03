//! `jobs cancel`, `retry` and `rm`: each id is answered alone, and one that is refused makes the command fail.
use std::collections::HashSet;

use leasehold::store::{Cancelled, Removed, Retried};
use leasehold::{Job, JobId, Refusal, Result, Store};
use serde::Serialize;

use crate::arguments::Common;
use crate::failure::{Failure, complain};
use crate::print;

/// What became of one id.
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

/// Cancels jobs.
pub(super) async fn cancel(ids: &[JobId], common: &Common) -> Result<(), Failure> {
    let store = common.connect().await?;
    let ids = distinct(ids);
    let word = |done| match done {
        Cancelled::Done => "cancelled",
        Cancelled::Requested => "asked to stop",
    };
    let answers = store.cancel(&ids).await?.into_iter().map(|answer| answer.map(word)).collect();
    tell(&store, &ids, answers, common).await
}

/// Retries jobs.
pub(super) async fn retry(ids: &[JobId], common: &Common) -> Result<(), Failure> {
    let store = common.connect().await?;
    let ids = distinct(ids);
    let word = |done| match done {
        Retried::Queued => "queued",
        Retried::Waiting => "waiting for its failed and cancelled items, which run again",
    };
    let answers = store.retry(&ids).await?.into_iter().map(|answer| answer.map(word)).collect();
    tell(&store, &ids, answers, common).await
}

/// Removes jobs.
pub(super) async fn remove(ids: &[JobId], common: &Common) -> Result<(), Failure> {
    let store = common.connect().await?;
    let ids = distinct(ids);
    let word = |done| match done {
        Removed::Done => "removed",
        Removed::Begun => "being removed, its items first",
    };
    let answers = store.remove(&ids).await?.into_iter().map(|answer| answer.map(word)).collect();
    tell(&store, &ids, answers, common).await
}

/// The ids, each once: a second mention of one would be answered with what the first has done.
fn distinct(ids: &[JobId]) -> Vec<JobId> {
    let mut seen = HashSet::new();
    ids.iter().filter(|id| seen.insert(*id)).cloned().collect()
}

async fn tell(
    store: &Store,
    ids: &[JobId],
    answers: Vec<Result<&'static str, Refusal>>,
    common: &Common,
) -> Result<(), Failure> {
    let refused = answers.iter().any(Result::is_err);
    if common.json() {
        let jobs = store.get_many(ids).await?;
        let answers = ids.iter().zip(answers).zip(jobs).map(|((id, answer), job)| {
            let (done, error) = match answer {
                Ok(done) => (Some(done), None),
                Err(refusal) => (None, Some(Problem { detail: refusal.to_string() })),
            };
            Answer { id: id.clone(), done, error, job }
        });
        print::json_list("results", &answers.collect::<Vec<_>>())?;
    } else {
        for (id, answer) in ids.iter().zip(answers) {
            match answer {
                Ok(done) => print::line(format_args!("{id}  {done}"))?,
                Err(refusal) => complain(format_args!("{id}: {refusal}")),
            }
        }
    }
    if refused { Err(Failure::Said) } else { Ok(()) }
}
