//! Submissions: one job, or many.
use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use leasehold::job::{Items, Priority};
use leasehold::store::{Accepted, Submitted};
use leasehold::{Error, Job, JobId, Json as JobJson, Kind, NewJob, QueueName, Refusal, Store, limits};
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::Instrument;

use super::{Answer, held_object};
use crate::error::Problem;
use crate::extract::body::BulkText;
use crate::extract::headers::{check_key, idempotency_key};
use crate::extract::query::NoQuery;
use crate::extract::upload::{Form, SubmitBody, Upload};
use crate::fault::Fault;
use crate::fields::Reader;
use crate::state::Api;
use crate::submission;

/// `POST /api/v1/jobs`: a job, or a job with files.
pub async fn submit(State(api): State<Api>, headers: HeaderMap, _: NoQuery, body: SubmitBody) -> Answer {
    let key = idempotency_key(&headers)?;
    match body {
        SubmitBody::Json(text) => {
            api.defaults_known().await?;
            let job = submission::read(Reader::open(text.as_str())?, key, &api.rules())?;
            drop(text);
            let (job, replayed) = take(&api, &api.store().await?, job).await?;
            Ok(accepted(job, replayed))
        }
        SubmitBody::Upload(upload) => {
            let (job, replayed) = take_upload(&api, upload, Form::Submit { key }).await?;
            Ok(accepted(job, replayed))
        }
    }
}

/// The answer with a job that was submitted.
pub(super) fn accepted(job: Job, replayed: bool) -> Response {
    let status = if replayed { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = format!("/api/v1/jobs/{}", job.id);
    (status, [(LOCATION, location)], Json(job)).into_response()
}

/// Reads an upload and submits its job. Returns it, and whether it had been submitted before.
///
/// # Errors
/// As [`take`], and the faults of the upload.
pub async fn take_upload(api: &Api, upload: Upload, form: Form) -> Result<(Job, bool), Problem> {
    let (api, store) = (api.clone(), api.store().await?);
    let uploading = async move {
        let job = upload.receive(&api, &store, form).await?;
        take(&api, &store, job).await
    };
    // In a separate task: a client that disconnects must not stop it between the files and the job.
    let uploading = tokio::spawn(uploading.in_current_span()).await;
    uploading.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

/// Submits a job. Returns it, and whether it had been submitted before.
///
/// # Errors
/// A problem that says whether the job may have been submitted.
pub async fn take(api: &Api, store: &Store, job: NewJob) -> Result<(Job, bool), Problem> {
    let has_key = job.idempotency.is_some();
    let receipt = Receipt::of(&job);
    let submitted = store.submit(job).await.map_err(|e| not_submitted(e, has_key))?;
    let mut job = match submitted.accepted {
        Some(accepted) => receipt.job(submitted.id, &accepted),
        None => there_already(store.get(&submitted.id).await, &submitted)?,
    };
    api.say_served(store, [&mut job]).await;
    Ok((job, submitted.replayed))
}

fn not_submitted(error: Error, has_key: bool) -> Problem {
    let unknown = matches!(error, Error::OutcomeUnknown(_));
    let short = matches!(error, Error::TooFewReplicas { .. });
    let problem = Problem::changing(error);
    if short {
        let advice = match has_key {
            true => "repeat the request with the same Idempotency-Key: it waits for the replicas again",
            false => "without an Idempotency-Key, sending it again submits a second job",
        };
        let detail = format!("{}; {advice}", problem.detail());
        return problem.with_detail(detail);
    }
    match (unknown, has_key) {
        (false, _) => problem,
        (true, true) => problem.with_detail(
            "Redis did not answer in time, so the job may or may not have been submitted; repeat the request with the same \
             Idempotency-Key: the job is submitted once",
        ),
        (true, false) => problem.with_detail(
            "Redis did not answer in time, so the job may or may not have been submitted; without an Idempotency-Key, \
             sending it again may submit a second one: list the jobs of its kind first, and send a key from now on",
        ),
    }
}

/// The current job of a replayed submission.
fn there_already(read: Result<Option<Job>, Error>, submitted: &Submitted) -> Result<Job, Problem> {
    match read.map_err(Problem::after_a_change)? {
        Some(job) => Ok(job),
        None => Err(Problem::refused(Refusal::KeyGone(submitted.id.clone()))),
    }
}

/// The fields of a new job that the response shows, kept so that the job need not be read back.
struct Receipt {
    kind: Kind,
    queue: QueueName,
    priority: Priority,
    payload: JobJson,
    max_attempts: u32,
    items: Option<Items>,
}

impl Receipt {
    fn of(job: &NewJob) -> Self {
        Self {
            kind: job.kind.clone(),
            queue: job.queue.clone(),
            priority: job.priority,
            payload: job.payload.clone(),
            max_attempts: job.max_attempts,
            items: job.batch.as_ref().map(|batch| Items {
                total: batch.items.len() as u64,
                open: batch.open,
                ..Items::default()
            }),
        }
    }

    fn job(self, id: JobId, accepted: &Accepted) -> Job {
        Job {
            id,
            partition: accepted.partition,
            kind: self.kind,
            queue: self.queue,
            state: accepted.state,
            priority: self.priority,
            payload: self.payload,
            attempt: 1,
            max_attempts: self.max_attempts,
            crashes: 0,
            token: None,
            worker: None,
            cancel_requested: false,
            progress: None,
            result: None,
            skipped: None,
            error: None,
            parent: None,
            items: self.items,
            created_at: accepted.created_at,
            scheduled_at: accepted.scheduled_at,
            schedule: None,
            scheduled_for: None,
            started_at: None,
            updated_at: accepted.created_at,
            finished_at: None,
            lease_expires_at: None,
            served: None,
            imported: None,
        }
    }
}

/// The outcome of one submission of a bulk.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Job(Box<Job>),
    Error(Problem),
}

/// `POST /api/v1/jobs/bulk`: valid submissions are accepted, each invalid one is answered with its problem.
pub async fn bulk(State(api): State<Api>, headers: HeaderMap, _: NoQuery, body: BulkText) -> Answer {
    if headers.contains_key("idempotency-key") {
        let advice = "a bulk takes none; give each job its own idempotency_key";
        return Err(Problem::invalid(vec![Fault::header("Idempotency-Key", advice)]));
    }
    let mut reader = Reader::open(body.as_str())?;
    let elements = reader.list("jobs", limits::BATCH_MAX);
    if elements.is_none() && !reader.is_faulty("jobs") {
        reader.fault("jobs", "required: an array of submits");
    }
    reader.finish()?;
    api.defaults_known().await?;
    let read = |(number, raw)| read_element(&api, number, raw);
    let jobs: Vec<Result<NewJob, Problem>> = elements.unwrap_or_default().into_iter().enumerate().map(read).collect();
    // What is made of the body is about as large, until the client has received the response.
    let share = body.into_share();
    let store = api.store().await?;
    let outcomes = submit_all(&api, &store, jobs).await?;
    Ok(held_object("results", outcomes, share))
}

fn read_element(api: &Api, number: usize, raw: &RawValue) -> Result<NewJob, Problem> {
    let mut reader = Reader::open_at(raw, format!("/jobs/{number}"))?;
    let key = reader.text("idempotency_key");
    if let Some(Err(rule)) = key.as_deref().map(check_key) {
        reader.fault("idempotency_key", rule);
    }
    submission::read(reader, key, &api.rules())
}

async fn submit_all(api: &Api, store: &Store, jobs: Vec<Result<NewJob, Problem>>) -> Result<Vec<Outcome>, Problem> {
    let mut good = Vec::with_capacity(jobs.len());
    let receipts: Vec<Result<Receipt, Problem>> = jobs
        .into_iter()
        .map(|job| {
            let job = job?;
            let receipt = Receipt::of(&job);
            good.push(job);
            Ok(receipt)
        })
        .collect();
    let mut answers = store.submit_many(good).await.map_err(|e| not_submitted(e, true))?.into_iter();
    let answered = receipts.into_iter().map(|receipt| {
        let receipt = receipt?;
        let submitted = answers.next().expect("each good one is answered").map_err(Problem::refused)?;
        Ok((receipt, submitted))
    });
    let answered: Vec<Result<(Receipt, Submitted), Problem>> = answered.collect();
    let there = answered.iter().flatten().filter(|(_, submitted)| submitted.accepted.is_none());
    let there: Vec<JobId> = there.map(|(_, submitted)| submitted.id.clone()).collect();
    let mut read = store.get_many(&there).await.map_err(Problem::after_a_change)?.into_iter();
    let jobs = answered.into_iter().map(|answer| {
        let (receipt, submitted) = answer?;
        match submitted.accepted {
            Some(accepted) => Ok(receipt.job(submitted.id, &accepted)),
            None => there_already(Ok(read.next().flatten()), &submitted),
        }
    });
    let mut jobs: Vec<Result<Job, Problem>> = jobs.collect();
    api.say_served(store, jobs.iter_mut().flatten()).await;
    Ok(jobs.into_iter().map(|job| job.map_or_else(Outcome::Error, |job| Outcome::Job(Box::new(job)))).collect())
}
