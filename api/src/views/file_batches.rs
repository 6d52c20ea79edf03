//! File batches (001): a batch is a job of `process-files`, a file an item of it.
use std::collections::HashSet;

use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use futures_util::TryStreamExt;
use leasehold::job::Items;
use leasehold::{Job, JobId, Json, State as JobState, limits};
use serde::{Deserialize, Serialize};

use super::record::{Clock, Record, Words, json, number};
use super::view::{Asked, View, answer, begun, has_begun, opened};
use crate::extract::body::BulkText;
use crate::fields::Reader;
use crate::routes::Answer;
use crate::state::Api;
use crate::stream::{JSON, JSON_LINES, document, stream};

pub const VIEW: View = View { kind: "process-files", is_batch: true };
const WORDS: Words = ["Pending", "Processing", "Completed", "Failed", "Cancelled"];

/// An item's payload.
#[derive(Serialize, Deserialize)]
struct File {
    file: String,
    /// Why the file is skipped, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skip: Option<String>,
}

#[derive(Serialize)]
struct Submitted<'a> {
    job_id: &'a JobId,
    status: &'static str,
    total_files: u64,
}

#[derive(Serialize)]
struct Summary<'a> {
    job_id: &'a JobId,
    status: &'static str,
    progress_percentage: Json,
    total_files: u64,
    successful_files: u64,
    failed_files: u64,
    skipped_files: u64,
    processing_time: Option<Json>,
    start_time: Json,
    end_time: Option<Json>,
}

#[derive(Serialize)]
struct Results<'a> {
    job_id: &'a JobId,
    status: &'static str,
    total_files: u64,
    successful_files: u64,
    failed_files: u64,
}

#[derive(Serialize)]
struct Processed {
    filename: String,
    success: bool,
    error: Option<String>,
    timestamp: Option<Json>,
}

/// `POST /jobs`
pub async fn submit(State(api): State<Api>, headers: HeaderMap, body: BulkText) -> Answer {
    let mut reader = Reader::open_lenient(body.as_str())?;
    let files = reader.texts("files", limits::ITEMS_PER_SUBMIT_MAX);
    if files.as_ref().is_none_or(Vec::is_empty) && !reader.is_faulty("files") {
        reader.fault("files", "required: an array of the files' paths, at least one");
    }
    reader.finish()?;
    drop(body);
    let files = files.unwrap_or_default();
    let mut known = HashSet::new();
    let items = files.iter().map(|file| {
        let skip = match file.as_str() {
            "" => Some("the file has no name"),
            file if !known.insert(file) => Some("the file is named twice in this batch"),
            _ => None,
        };
        json(&File { file: file.clone(), skip: skip.map(str::to_owned) })
    });
    let items = Some(("files", items.collect()));
    let (store, job) = VIEW.submit(&api, &headers, Json::null(), items).await?;
    let status = Record::new(&job, &WORDS, has_begun(&store, &job).await?).status;
    Ok(answer(StatusCode::ACCEPTED, &Submitted { job_id: &job.id, status, total_files: files.len() as u64 }))
}

/// `GET /jobs`: all batches, newest first.
pub async fn list(State(api): State<Api>) -> Answer {
    let store = api.store().await?;
    let pages = VIEW.all(&store).and_then(move |jobs| {
        let store = store.clone();
        async move {
            let begun = begun(&store, &jobs).await?;
            Ok(jobs.into_iter().map(|job| (begun.contains(&job.id), job)).collect())
        }
    });
    let write = |(begun, job): &(bool, Job)| Some(json(&summary(job, *begun)).as_str().to_owned());
    stream(JSON, document("{\"jobs\":[".into(), ",", pages, write, |_| "]}".into())).await
}

/// `GET /job_results/{job_id}`: the results of the files so far.
pub async fn results(State(api): State<Api>, asked: Asked) -> Answer {
    let store = api.store().await?;
    let job = VIEW.find(&store, &asked).await?;
    let Summary { job_id, status, total_files, successful_files, failed_files, .. } =
        summary(&job, has_begun(&store, &job).await?);
    let head = opened(&Results { job_id, status, total_files, successful_files, failed_files }, "results") + "[";
    let write = |item: &Job| Some(json(&processed(item)?).as_str().to_owned());
    stream(JSON, document(head, ",", store.items(&job.id), write, |_| "]}".into())).await
}

/// `GET /job_results/{job_id}/download`: the summary, then one line per file.
pub async fn download(State(api): State<Api>, asked: Asked) -> Answer {
    let store = api.store().await?;
    let job = VIEW.find(&store, &asked).await?;
    let head = json(&summary(&job, has_begun(&store, &job).await?)).as_str().to_owned() + "\n";
    let write = |item: &Job| Some(json(&processed(item)?).as_str().to_owned() + "\n");
    let lines = document(head, "", store.items(&job.id), write, |_| String::new());
    let mut response = stream(JSON_LINES, lines).await?;
    let attachment = format!("attachment; filename=\"job_{}_results.jsonl\"", job.id);
    let attachment = HeaderValue::from_str(&attachment).expect("an id is ASCII");
    response.headers_mut().insert(CONTENT_DISPOSITION, attachment);
    Ok(response)
}

fn summary(job: &Job, begun: bool) -> Summary<'_> {
    let record = Record::new(job, &WORDS, begun);
    let counts = job.items.unwrap_or_default();
    let ended = counts.succeeded + counts.failed + counts.skipped + counts.cancelled;
    let percent = if counts.total == 0 { record.percent() } else { 100.0 * ended as f64 / counts.total as f64 };
    let (counts, old_percent) = match old_counts(&record).filter(|old| old.total > counts.total) {
        Some(old) => (old, record.past_number("progress_percentage")),
        None => (counts, None),
    };
    Summary {
        job_id: &job.id,
        status: record.status,
        progress_percentage: old_percent.unwrap_or_else(|| number((percent * 100.0).round() / 100.0)),
        total_files: counts.total,
        successful_files: counts.succeeded,
        failed_files: counts.failed,
        skipped_files: counts.skipped,
        processing_time: record.past_number("processing_time").or_else(|| record.seconds().map(|s| json(&s))),
        start_time: record.made_at("start_time", Clock::Micros),
        end_time: record.past_time("end_time", Clock::Micros, job.finished_at),
    }
}

/// The counts of the old record, which includes files whose results were not imported.
fn old_counts(record: &Record<'_>) -> Option<Items> {
    let count = |field: &str| record.past(field);
    Some(Items {
        total: count("total_files")?,
        succeeded: count("successful_files").unwrap_or(0),
        failed: count("failed_files").unwrap_or(0),
        skipped: count("skipped_files").unwrap_or(0),
        ..Items::default()
    })
}

/// The result of a file; `None` while it has none, or when it was skipped.
fn processed(item: &Job) -> Option<Processed> {
    let success = item.state == JobState::Completed;
    if item.skipped.is_some() || !(success || item.state == JobState::Failed) {
        return None;
    }
    let record = Record::new(item, &WORDS, false);
    let file = record.old("filename").or_else(|| Some(item.payload.to::<File>().ok()?.file));
    let filename: String = file.unwrap_or_default();
    // The old system named the file beside the error, not in it.
    let bare = |text: String| match text.strip_prefix("File not found: ") {
        Some(_) => "File not found".to_owned(),
        None => text,
    };
    Some(Processed {
        error: record.failure("error").map(bare),
        timestamp: record.past_time("timestamp", Clock::Micros, item.finished_at),
        success,
        filename,
    })
}
