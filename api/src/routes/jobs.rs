//! Existing jobs: read, list, cancel, retry, remove, prune.
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use leasehold::store::{Cancelled, ListQuery, PruneQuery, Removed, Retried};
use leasehold::{Job, JobId, Kind, QueueName, Refusal, State as JobState, Store, limits};

use super::{Answer, changed, found, object, only};
use crate::deadline::Clock;
use crate::error::Problem;
use crate::extract::headers::prefer_wait;
use crate::extract::query::{Named, NoQuery, Query};
use crate::fault::Fault;
use crate::state::Api;

/// Default number of jobs in a page.
const PAGE_USUAL: usize = 50;
/// The largest number in a query: the largest that Lua represents exactly.
const NUMBER_MAX: u64 = 1 << 53;

/// `GET /api/v1/jobs`
pub async fn list(State(api): State<Api>, mut query: Query) -> Answer {
    let wanted = ListQuery {
        kind: query.read("kind", Kind::parse),
        queue: query.read("queue", QueueName::parse),
        parent: query.read("parent", JobId::parse),
        ..ListQuery::default()
    };
    let wanted = page_of(wanted, query)?;
    page(&api, &api.store().await?, &wanted).await
}

/// Adds the state, limit and cursor of the query, and finishes reading it.
pub(super) fn page_of(wanted: ListQuery, mut query: Query) -> Result<ListQuery, Problem> {
    let state = query.read("state", |word| a_state(word, |_| true));
    let limit = query.read("limit", |text| {
        let limit = text.parse().ok().filter(|n| (1..=limits::PAGE_MAX).contains(n));
        limit.ok_or_else(|| format!("write a whole number from 1 to {}", limits::PAGE_MAX))
    });
    let cursor = query.text("cursor");
    query.finish()?;
    let wanted = ListQuery { state, limit: limit.unwrap_or(PAGE_USUAL), ..wanted };
    let foreign = |e| Problem::invalid(vec![Fault::parameter("cursor", e)]);
    match cursor {
        Some(text) => wanted.with_cursor(&text).map_err(foreign),
        None => Ok(wanted),
    }
}

/// Parses a state that satisfies `fit`.
fn a_state(word: &str, fit: impl Fn(&JobState) -> bool) -> Result<JobState, String> {
    let words = || JobState::ALL.iter().filter(|s| fit(s)).map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
    JobState::parse(word).filter(&fit).ok_or_else(|| format!("write one of {}", words()))
}

/// Parses a whole number that is not negative.
pub fn a_number(text: &str) -> Result<u64, String> {
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    number.filter(|n| *n <= NUMBER_MAX).ok_or_else(|| format!("write a whole number from 0 to {NUMBER_MAX}"))
}

/// Responds with a page.
pub(super) async fn page(api: &Api, store: &Store, wanted: &ListQuery) -> Answer {
    let mut page = store.list(wanted).await.map_err(Problem::reading)?;
    api.say_served(store, &mut page.jobs).await;
    Ok(Json(page).into_response())
}

/// `GET /api/v1/jobs/{id}`; with `Prefer: wait=N` it responds when the job has ended or after N seconds.
pub async fn get(
    State(api): State<Api>,
    Named(id): Named<JobId>,
    _: NoQuery,
    clock: Clock,
    headers: HeaderMap,
) -> Answer {
    let wait = prefer_wait(&headers, api.limits().wait_s);
    let (store, watcher) = api.watcher().await?;
    let read = match wait {
        None => store.get(&id).await,
        Some(limit) => {
            clock.stop();
            let read = tokio::select! {
                read = watcher.wait_for_end(&id, limit) => read,
                () = api.stopping().cancelled() => store.get(&id).await,
            };
            clock.start();
            read
        }
    };
    let mut job = found(read.map_err(Problem::reading)?, &id)?;
    api.say_served(&store, [&mut job]).await;
    let mut response = Json(job).into_response();
    if let Some(limit) = wait {
        let applied = HeaderValue::from_str(&format!("wait={}", limit.as_secs())).expect("a number is ASCII");
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

/// `GET /api/v1/jobs/{id}/history`
pub async fn history(State(api): State<Api>, Named(id): Named<JobId>, _: NoQuery) -> Answer {
    let store = api.store().await?;
    let history = store.history(&id).await.map_err(Problem::reading)?;
    if history.is_empty() {
        return Err(Problem::refused(Refusal::NotFound(id)));
    }
    Ok(object("history", history))
}

/// The job of that id.
pub(super) async fn existing(store: &Store, id: &JobId) -> Result<Job, Problem> {
    found(store.get(id).await.map_err(Problem::reading)?, id)
}

/// `POST /api/v1/jobs/{id}/cancel`
pub async fn cancel(State(api): State<Api>, Named(id): Named<JobId>, _: NoQuery) -> Answer {
    let store = api.store().await?;
    let status = match only(store.cancel(std::slice::from_ref(&id)).await)? {
        Cancelled::Done => StatusCode::OK,
        Cancelled::Requested => StatusCode::ACCEPTED,
    };
    changed(&api, &store, status, &id).await
}

/// `POST /api/v1/jobs/{id}/retry`
pub async fn retry(State(api): State<Api>, Named(id): Named<JobId>, _: NoQuery) -> Answer {
    let store = api.store().await?;
    let status = match only(store.retry(std::slice::from_ref(&id)).await)? {
        Retried::Queued => StatusCode::OK,
        Retried::Waiting => StatusCode::ACCEPTED,
    };
    changed(&api, &store, status, &id).await
}

/// `DELETE /api/v1/jobs/{id}`
pub async fn remove(State(api): State<Api>, Named(id): Named<JobId>, _: NoQuery) -> Answer {
    let store = api.store().await?;
    match only(store.remove(std::slice::from_ref(&id)).await)? {
        Removed::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        Removed::Begun => changed(&api, &store, StatusCode::ACCEPTED, &id).await,
    }
}

/// `DELETE /api/v1/jobs`: removes the finished jobs that match all conditions of the query, in bounded steps, for at
/// most half of `limits.request_ms`; `more` says that matching jobs are left and the request should be repeated.
pub async fn prune(State(api): State<Api>, mut query: Query) -> Answer {
    let mut wanted = PruneQuery {
        state: query.read("state", |word| a_state(word, |s| s.is_final())),
        kind: query.read("kind", Kind::parse),
        older_than_ms: query.read("older_than_ms", a_number),
        keep: query.read("keep", a_number),
        bytes_max: query.read("bytes_max", a_number),
        within: Some(Duration::from_millis(api.limits().request_ms / 2)),
        ..PruneQuery::default()
    };
    let dry_run = query.read("dry_run", |word| match word {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("write true or false"),
    });
    wanted.dry_run = dry_run.unwrap_or(false);
    for (name, given) in [("keep", wanted.keep), ("bytes_max", wanted.bytes_max)] {
        if given.is_some() && wanted.kind.is_none() {
            query.fault(name, "it counts the jobs of one kind: name it with kind=");
        }
    }
    let chosen = wanted.state.is_some() || wanted.kind.is_some() || wanted.older_than_ms.is_some();
    if !chosen && !wanted.dry_run && !query.is_faulty() {
        query
            .fault("state", "this would remove every finished job; name at least one of state, kind and older_than_ms");
    }
    query.finish()?;
    let pruned = api.store().await?.prune(&wanted).await.map_err(Problem::changing)?;
    let mut answer = serde_json::json!({ "deleted": pruned.deleted, "more": pruned.more });
    if wanted.dry_run {
        answer["matching"] = pruned.matching.into();
    }
    Ok(Json(answer).into_response())
}
