//! Screenshots (003): a batch is a job of `screenshots`, a page is an item, its image a file of the item.
use std::collections::HashSet;

use axum::extract::State;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use leasehold::{Job, JobId, Json, State as JobState, limits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::record::{Clock, Record, Words, json};
use super::url::WebUrl;
use super::view::{Asked, View, answer, has_begun, opened};
use crate::error::Problem;
use crate::extract::body::BulkText;
use crate::fields::Reader;
use crate::routes::Answer;
use crate::routes::files::escaped;
use crate::state::Api;
use crate::stream::{JSON, document, stream};

pub const VIEW: View = View { kind: "screenshots", is_batch: true };
const WORDS: Words = ["pending", "processing", "completed", "failed", "cancelled"];
const ITEM_WORDS: Words = ["pending", "pending", "success", "failed", "cancelled"];
/// The words of an item that was skipped.
const SKIPPED_WORDS: Words = ["pending", "pending", "skipped", "failed", "cancelled"];
/// Maximum width and height of an image, in pixels.
const SIDE_MAX: u64 = 8_192;
const FORMATS: [&str; 3] = ["png", "jpeg", "webp"];

/// An item's payload.
#[derive(Serialize)]
struct Page {
    id: String,
    url: WebUrl,
    config: Config,
    cache: bool,
}

#[derive(Clone, Serialize)]
struct Config {
    width: u64,
    height: u64,
    format: String,
}

/// The part that all items' payloads have, imported ones included.
#[derive(Deserialize)]
struct Named {
    id: String,
}

/// The result of the handler.
#[derive(Deserialize)]
struct Made {
    file: String,
    #[serde(default)]
    cached: bool,
}

#[derive(Serialize)]
struct Submitted<'a> {
    job_id: &'a JobId,
    status: &'static str,
    total: u64,
}

#[derive(Serialize)]
struct Batch<'a> {
    job_id: &'a JobId,
    status: &'static str,
    total: u64,
    pending: u64,
    success: u64,
    failed: u64,
    skipped: u64,
    cancelled: u64,
    created_at: Json,
    completed_at: Option<Json>,
    total_processing_time: Option<Json>,
}

/// The members of the results before the items. [`Tail`] has those after them.
#[derive(Serialize)]
struct Head<'a> {
    job_id: &'a JobId,
    status: &'static str,
}

#[derive(Serialize)]
struct Tail {
    created_at: Json,
    completed_at: Option<Json>,
    total_processing_time: Option<Json>,
}

#[derive(Serialize)]
struct Item {
    id: String,
    status: &'static str,
    result: Option<Json>,
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Image {
    url: String,
}

/// `POST /batch/screenshots`
pub async fn submit(State(api): State<Api>, headers: HeaderMap, body: BulkText) -> Answer {
    let pages = read(body.as_str())?;
    drop(body);
    let total = pages.len() as u64;
    let (store, job) = VIEW.submit(&api, &headers, Json::null(), Some(("items", pages))).await?;
    let status = Record::new(&job, &WORDS, has_begun(&store, &job).await?).status;
    Ok(answer(StatusCode::ACCEPTED, &Submitted { job_id: &job.id, status, total }))
}

/// `GET /batch/screenshots/{job_id}`
pub async fn get(State(api): State<Api>, asked: Asked) -> Answer {
    let store = api.store().await?;
    let job = VIEW.find(&store, &asked).await?;
    let record = Record::new(&job, &WORDS, has_begun(&store, &job).await?);
    let counts = job.items.unwrap_or_default();
    let ended = counts.succeeded + counts.failed + counts.skipped + counts.cancelled;
    let Tail { created_at, completed_at, total_processing_time } = tail(&record);
    let batch = Batch {
        job_id: &job.id,
        status: record.status,
        total: counts.total,
        pending: counts.total.saturating_sub(ended),
        success: counts.succeeded,
        failed: counts.failed,
        skipped: counts.skipped,
        cancelled: counts.cancelled,
        created_at,
        completed_at,
        total_processing_time,
    };
    Ok(answer(StatusCode::OK, &batch))
}

/// `GET /batch/screenshots/{job_id}/results` and `GET /batch/results/{job_id}`: every item by its id, with its
/// status and result so far.
pub async fn results(State(api): State<Api>, asked: Asked, headers: HeaderMap) -> Answer {
    let store = api.store().await?;
    let job = VIEW.find(&store, &asked).await?;
    let record = Record::new(&job, &WORDS, has_begun(&store, &job).await?);
    let head = opened(&Head { job_id: &job.id, status: record.status }, "items") + "{";
    let behind = json(&tail(&record)).as_str().replacen('{', "},", 1);
    let root = root(&headers);
    let write = move |job: &Job| {
        let item = item(job, &root);
        Some(format!("{}:{}", json(&item.id).as_str(), json(&item).as_str()))
    };
    stream(JSON, document(head, ",", store.items(&job.id), write, |_| behind)).await
}

/// The payloads of a batch's items.
fn read(body: &str) -> Result<Vec<Json>, Problem> {
    let mut reader = Reader::open_lenient(body)?;
    let elements = reader.list("items", limits::ITEMS_PER_SUBMIT_MAX);
    if elements.as_ref().is_none_or(Vec::is_empty) && !reader.is_faulty("items") {
        reader.fault("items", "required: an array of objects with id and url, at least one");
    }
    let config = reader.object("config").map(|config| config.and_then(read_config)).transpose()?;
    reader.finish()?;
    let (config, cache) = config.unwrap_or_else(|| (usual(), true));
    let mut known = HashSet::new();
    let pages = elements.unwrap_or_default().into_iter().enumerate();
    pages.map(|(number, raw)| read_page(number, raw, &config, cache, &mut known)).collect()
}

fn read_page(
    number: usize,
    raw: &RawValue,
    config: &Config,
    cache: bool,
    known: &mut HashSet<String>,
) -> Result<Json, Problem> {
    let mut reader = Reader::open_at(raw, format!("/items/{number}"))?.lenient();
    let id: Option<String> = reader.required("id");
    match id.as_deref() {
        Some("") => reader.fault("id", "empty; give each item a unique id"),
        Some(id) if !known.insert(id.to_owned()) => {
            reader.fault("id", "another item has this id; give each item a unique id");
        }
        _ => {}
    }
    let url: Option<WebUrl> = reader.required("url");
    reader.finish()?;
    let (id, url) = (id.unwrap_or_default(), url.unwrap_or_default());
    Ok(json(&Page { id, url, config: config.clone(), cache }))
}

fn usual() -> Config {
    Config { width: 1_280, height: 800, format: FORMATS[0].to_owned() }
}

fn read_config(mut reader: Reader<'_>) -> Result<(Config, bool), Problem> {
    let usual = usual();
    let width = reader.whole("width", 1, SIDE_MAX).unwrap_or(usual.width);
    let height = reader.whole("height", 1, SIDE_MAX).unwrap_or(usual.height);
    let format = reader.text("format").unwrap_or(usual.format);
    if !FORMATS.contains(&format.as_str()) {
        reader.fault("format", format!("write one of {}", FORMATS.join(", ")));
    }
    let cache = reader.flag_or("cache", true);
    reader.finish()?;
    Ok((Config { width, height, format }, cache))
}

fn tail(record: &Record<'_>) -> Tail {
    Tail {
        created_at: record.made_at("created_at", Clock::Unix),
        completed_at: record.past_time("completed_at", Clock::Unix, record.job.finished_at),
        total_processing_time: record
            .past_number("total_processing_time")
            .or_else(|| record.seconds().map(|seconds| json(&seconds))),
    }
}

/// An item; `root` begins the URLs of this API.
fn item(job: &Job, root: &str) -> Item {
    let skipped = job.skipped.is_some();
    let record = Record::new(job, if skipped { &SKIPPED_WORDS } else { &ITEM_WORDS }, false);
    let made: Option<Made> = job.result.as_ref().and_then(|result| result.to().ok());
    let made = made.filter(|_| job.state == JobState::Completed && !skipped);
    let image = made.as_ref().map(|made| {
        let url = format!("{root}/api/v1/jobs/{}/files/{}", job.id, escaped(&made.file));
        json(&Image { url })
    });
    let id = job.payload.to::<Named>().ok().map(|page| page.id);
    Item {
        id: id.or_else(|| record.old("id")).unwrap_or_else(|| job.id.to_string()),
        status: record.status,
        result: image.or_else(|| record.past("result")),
        cached: record.past("cached").unwrap_or(made.is_some_and(|made| made.cached)),
        error: record.failure("error"),
    }
}

/// The scheme and host of this API, as the client addressed it; empty when it sent no Host.
fn root(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text("x-forwarded-proto").filter(|scheme| *scheme == "https").unwrap_or("http");
    let host = text(HOST.as_str()).and_then(|host| host.parse::<Authority>().ok());
    host.map(|host| format!("{scheme}://{host}")).unwrap_or_default()
}
