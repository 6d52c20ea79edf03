//! What the views share: how they submit, find and list the jobs of one kind, and write records.
use std::collections::HashSet;
use std::convert::Infallible;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, try_unfold};
use leasehold::store::ListQuery;
use leasehold::{Error, Job, JobId, Json, Kind, Refusal, State, Store};
use serde::Serialize;

use super::record::json;
use crate::error::{Code, Problem};
use crate::extract::headers::idempotency_key;
use crate::routes::submit::take;
use crate::state::Api;
use crate::submission::{self, Work};

/// Jobs of a list that are read in one call.
const PAGE: usize = 200;
/// How many of the first items of a batch are read to find out whether any has started.
const FIRST_ITEMS: u64 = 8;

/// The job id in the path, not validated.
pub struct Asked(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let first = parameters.ok().and_then(|all| all.iter().next().map(|(_, text)| text.to_owned()));
        Ok(Self(first.unwrap_or_default()))
    }
}

/// The jobs that a view shows.
pub struct View {
    /// The kind that the view submits and shows.
    pub kind: &'static str,
    /// Whether its jobs are batches.
    pub is_batch: bool,
}

impl View {
    pub fn kind(&self) -> Kind {
        Kind::parse(self.kind).expect("a constant")
    }

    /// Whether the view shows this job; jobs of other views and items are not shown.
    pub fn has(&self, job: &Job) -> bool {
        job.kind.as_str() == self.kind && job.items.is_some() == self.is_batch && job.parent.is_none()
    }

    fn unknown(id: &str) -> Problem {
        match JobId::parse(id) {
            Ok(id) => Problem::refused(Refusal::NotFound(id)),
            Err(e) => Problem::new(Code::NoJob, e.to_string()),
        }
    }

    /// The job of that id.
    pub async fn find(&self, store: &Store, asked: &Asked) -> Result<Job, Problem> {
        let id = JobId::parse(&asked.0).map_err(|_| Self::unknown(&asked.0))?;
        let job = store.get(&id).await.map_err(Problem::reading)?;
        job.filter(|job| self.has(job)).ok_or_else(|| Self::unknown(&asked.0))
    }

    /// All jobs of the view, newest first, a page at a time.
    pub fn all(&'static self, store: &Store) -> impl Stream<Item = Result<Vec<Job>, Error>> + Send + use<> {
        let (store, kind) = (store.clone(), self.kind());
        let begin = ListQuery { kind: Some(kind), limit: PAGE, ..ListQuery::default() };
        try_unfold(Some(begin), move |next| {
            let store = store.clone();
            async move {
                let Some(query) = next else { return Ok(None) };
                let page = store.list(&query).await?;
                let next = page.next_cursor.and_then(|cursor| query.with_cursor(&cursor).ok());
                Ok(Some((page.jobs.into_iter().filter(|job| self.has(job)).collect(), next)))
            }
        })
    }

    /// Submits a job, or a batch with `items` and the name of their list in the request; everything else is the default
    /// of the kind. The same request with the same Idempotency-Key returns the same job.
    pub async fn submit(
        &self,
        api: &Api,
        headers: &HeaderMap,
        payload: Json,
        items: Option<(&'static str, Vec<Json>)>,
    ) -> Result<(Store, Job), Problem> {
        let key = idempotency_key(headers)?;
        let job = submission::of_kind(Work { kind: self.kind(), payload, items }, key, &api.rules())?;
        let store = api.store().await?;
        let (job, _) = take(api, &store, job).await?;
        Ok((store, job))
    }
}

/// Which of these batches have begun: an item has started or ended. Items start in order, so reading the first is
/// enough.
pub async fn begun(store: &Store, jobs: &[Job]) -> Result<HashSet<JobId>, Error> {
    let (mut begun, mut looked, mut ids) = (HashSet::new(), Vec::new(), Vec::new());
    for (job, items) in jobs.iter().filter_map(|job| Some((job, job.items?))) {
        if items.succeeded + items.failed + items.skipped + items.cancelled > 0 {
            begun.insert(job.id.clone());
        } else if job.state == State::Waiting {
            let first = (0..items.total.min(FIRST_ITEMS)).map(|number| store.item_id(&job.id, job.partition, number));
            ids.extend(first.inspect(|_| looked.push(&job.id)));
        }
    }
    let first = match store.get_many(&ids).await {
        // An unreadable record must not fail the list; `doctor` reports it.
        Err(Error::Corrupt { .. }) => return Ok(begun),
        read => read?,
    };
    let started = |item: Option<&Job>| item.is_some_and(|item| item.token.is_some() || item.state == State::Running);
    begun.extend(looked.into_iter().zip(&first).filter(|(_, item)| started(item.as_ref())).map(|(id, _)| id.clone()));
    Ok(begun)
}

/// Whether this batch has begun.
pub async fn has_begun(store: &Store, job: &Job) -> Result<bool, Problem> {
    let begun = begun(store, std::slice::from_ref(job)).await.map_err(Problem::reading)?;
    Ok(begun.contains(&job.id))
}

/// A response with a record.
pub fn answer(status: StatusCode, record: &impl Serialize) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], json(record).as_str().to_owned()).into_response()
}

/// The JSON of a record, open at a last member whose value follows.
pub fn opened(record: &impl Serialize, member: &str) -> String {
    let mut text = json(record).as_str().to_owned();
    text.pop();
    let comma = if text.len() > 1 { "," } else { "" };
    format!("{text}{comma}\"{member}\":")
}
