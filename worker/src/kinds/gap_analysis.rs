//! The built-in kind `gap-analysis`: reads a document and those it refers to, and finds gaps in knowledge that several
//! of them state.
//!
//! The progress messages are its phases: `fetching` (each document is fetched and read, and its sentences that state a
//! gap are kept), `extracting` (the topic of each statement), `finding gaps` (groups the statements by topic),
//! `validating` (keeps the groups with enough documents) and `writing`. A checkpoint is saved after each document and
//! each phase, so an attempt continues where the last one stopped and fetches nothing twice.
mod cues;
pub(crate) mod document;
mod html;
mod prose;
mod state;
mod support;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::sync::Arc;

use chrono::Utc;
use leasehold::job::ErrorCode;
use leasehold::limits;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::attempt::context::Context;
use crate::failure::{Done, Failure};
use crate::fetch::{FetchError, Fetched, Fetcher};
use crate::reader::{Input, Readers};
use document::{Document, Extract};
use state::{Phase, State};

/// The name of this kind's task for a reader; its argument is the content type.
pub(super) const TASK: &str = "extract";

const CONTENT_TYPE_BYTES_MAX: usize = 1000;

/// The payload of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The first document: HTML, plain text or PDF, by http or https.
    pub url: String,
    /// The maximum number of referenced documents to read, at least 1; values over 50 count as 50.
    #[serde(default = "ten")]
    pub max_papers: i64,
    /// The minimum number of documents that support a gap, at least 1.
    #[serde(default = "two")]
    pub validation_threshold: i64,
}

fn ten() -> i64 {
    10
}

fn two() -> i64 {
    2
}

/// The job's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The job's output file with the gaps.
    pub result_file: String,
    /// Number of gaps.
    pub gaps: usize,
    /// Number of documents read.
    pub documents: usize,
}

/// A valid payload.
struct Order {
    url: Url,
    papers: usize,
    threshold: usize,
}

impl Order {
    fn parse(payload: &Payload, fetcher: &Fetcher) -> Result<Self, Failure> {
        let refused = |text: String| Failure::fatal(text).with_code(ErrorCode::BadPayload);
        let least_one = |name: &str, value: i64| {
            let number = usize::try_from(value).ok().filter(|number| *number >= 1);
            number.ok_or_else(|| refused(format!("payload.{name} is {value}; write 1 or more")))
        };
        let shown = leasehold::job::cut(&payload.url, 300);
        if payload.url.len() > limits::URL_BYTES_MAX {
            return Err(refused(format!("payload.url is longer than {} bytes: {shown}…", limits::URL_BYTES_MAX)));
        }
        let mut url = Url::parse(&payload.url).map_err(|e| {
            refused(format!("payload.url is {shown:?}, which is not a URL ({e}); write https://… or http://…"))
        })?;
        url.set_fragment(None);
        // A private address is reported by the fetch, as for any other document.
        if let Err(e @ FetchError::Url(_)) = fetcher.admit(&url) {
            return Err(refused(format!("payload.url {shown} {e}; write https://… or http://…")));
        }
        let papers = least_one("max_papers", payload.max_papers)?.min(limits::PAPERS_MAX);
        Ok(Self { url, papers, threshold: least_one("validation_threshold", payload.validation_threshold)? })
    }
}

/// The handler.
pub(super) async fn run(
    fetcher: Fetcher,
    readers: Arc<Readers>,
    context: Context,
    payload: Payload,
) -> Result<Done<Report>, Failure> {
    let order = Order::parse(&payload, &fetcher)?;
    context.require_file_store()?;
    let saved = context.checkpoint::<State>().ok().flatten();
    let mut state = saved.filter(|state| state.is_of(&order.url)).unwrap_or_else(|| State::new(&order.url));
    let run = Run { fetcher, readers, context, order };
    loop {
        run.context.progress(run.percent(&state), state.phase.message());
        match state.phase {
            Phase::Fetching => run.fetch_all(&mut state).await?,
            Phase::Extracting => state.keep(|statement| !support::topic(statement).is_empty()),
            Phase::Finding => state.groups = run.run_blocking(&state, support::groups).await?,
            Phase::Validating => state.groups.retain(|group| group.documents.len() >= run.order.threshold),
            Phase::Writing => return Ok(run.write(&state).await?.into()),
        }
        state.phase = state.phase.next();
        run.save(&state).await?;
    }
}

/// The reader's work: what is in a document, or why it cannot be read, as JSON.
pub(super) fn work(content_type: &str, document: &mut dyn Read) -> io::Result<String> {
    let mut body = Vec::new();
    document.read_to_end(&mut body)?;
    Ok(serde_json::to_string(&document::read(body, content_type))?)
}

/// One attempt.
struct Run {
    fetcher: Fetcher,
    readers: Arc<Readers>,
    context: Context,
    order: Order,
}

impl Run {
    fn percent(&self, state: &State) -> f64 {
        match state.phase {
            Phase::Fetching => 70.0 * state.done() as f64 / state.sources.len().max(2) as f64,
            Phase::Extracting => 70.0,
            Phase::Finding => 80.0,
            Phase::Validating => 90.0,
            Phase::Writing => 95.0,
        }
    }

    async fn save(&self, state: &State) -> Result<(), Failure> {
        Ok(self.context.save_checkpoint(state).await?)
    }

    /// Fetches the documents not fetched yet; the first one names the others.
    async fn fetch_all(&self, state: &mut State) -> Result<(), Failure> {
        while let Some(at) = state.next_source() {
            self.context.progress(self.percent(state), state.phase.message());
            let read = tokio::select! {
                read = self.read(&state.sources[at].url) => read,
                () = self.context.cancelled() => return Err(Failure::new("the analysis was stopped")),
            };
            let room = self.context.limits().checkpoint_bytes;
            match read {
                Ok(document) if at == 0 => {
                    state.refer(&document.links, self.order.papers, room / 4);
                    state.record(at, document, room / 8 * 3);
                }
                Ok(document) => state.record(at, document, room / 8 * 3),
                Err(fault) if at > 0 => state.skipped(at, &fault.reason),
                Err(fault) => {
                    let said = format!("{} {}", state.sources[at].url, fault.reason);
                    return Err(if fault.is_retryable { Failure::new(said) } else { Failure::fatal(said) });
                }
            }
            self.save(state).await?;
        }
        Ok(())
    }

    async fn read(&self, url: &str) -> Result<Document, document::Fault> {
        let url = Url::parse(url).map_err(|e| document::Fault::for_good(format!("is not a URL ({e})")))?;
        let Fetched { url, content_type, body } = self.fetcher.fetch(&url).await?;
        // It is an argument of the reader, which may not be long.
        let task = [TASK, leasehold::job::cut(&content_type, CONTENT_TYPE_BYTES_MAX)];
        let read = self.readers.read::<Result<Extract, String>>(task, Input::Bytes(body), &mut |_| {}).await?;
        Ok(read.map_err(document::Fault::for_good)?.at(url))
    }

    /// Runs `work` off the async threads; it must check for a stop itself.
    async fn run_blocking<T: Send + 'static>(
        &self,
        state: &State,
        work: fn(&[Vec<String>], &dyn Fn() -> bool) -> T,
    ) -> Result<T, Failure> {
        let (statements, context) = (state.statements(), self.context.clone());
        let working = tokio::task::spawn_blocking(move || work(&statements, &|| context.is_cancelled()));
        let done = working.await;
        if self.context.is_cancelled() {
            return Err(Failure::new("the analysis was stopped"));
        }
        done.map_err(|e| Failure::new(format!("the analysis was interrupted: {e}")))
    }

    /// Writes the file with the gaps.
    async fn write(&self, state: &State) -> Result<Report, Failure> {
        let (now, job) = (Utc::now(), self.context.job_id());
        let documents = state.read();
        let content = json!({
            "job_id": job,
            "url": self.order.url.as_str(),
            "created_at": now.format("%Y-%m-%dT%H:%M:%S").to_string(),
            "documents": documents,
            "gaps": state.gaps(),
            "skipped": state.skipped_documents(),
        });
        let text = serde_json::to_string_pretty(&content)?;
        let name = format!("gap_analysis_{job}_{}.json", now.format("%Y%m%dT%H%M%S"));
        self.context.write_file(&name, text.as_bytes()).await?;
        Ok(Report { result_file: name, gaps: state.groups.len(), documents: documents.len() })
    }
}
