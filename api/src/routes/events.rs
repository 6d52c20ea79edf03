//! A job's event stream (`text/event-stream`): its latest state, whenever that has changed.
//!
//! A slow client misses intermediate states and occupies no more memory than one event; the connection of a client that
//! does not read at all is closed. A stream outlasts a restart of Redis.
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::Stream;
use leasehold::server::{Client, Endless, Relief};
use leasehold::store::Watch;
use leasehold::{Job, JobId, Json, Store};
use tokio::time::Instant;

use super::{Answer, found};
use crate::budget::{self, Share};
use crate::error::Problem;
use crate::extract::from::From;
use crate::extract::query::{Named, NoQuery};

use crate::state::Api;

/// The interval of keep-alive comments on an idle stream.
const ALIVE: Duration = Duration::from_secs(15);

/// `GET /api/v1/jobs/{id}/events`: `job` as it is and at each change, then `end`, or `gone` when it was removed.
///
/// Every stream begins with the current state, so a reconnecting client misses nothing and `Last-Event-ID` is not
/// needed.
pub async fn events(State(api): State<Api>, from: From, Named(id): Named<JobId>, _: NoQuery) -> Answer {
    let plain = |job: &Job| Json::of(job).expect("a job is plain JSON");
    let gone = |id: &JobId| Json::of(&BTreeMap::from([("id", id)])).expect("an id is plain JSON");
    follow(&api, from, id, Shown { fits: |_| true, data: plain, gone }).await
}

/// How a stream presents its job.
pub struct Shown {
    /// Whether the job may be watched here; if not, the response is 404.
    pub fits: fn(&Job) -> bool,
    /// The data of `job` and `end`.
    pub data: fn(&Job) -> Json,
    /// The data of `gone`.
    pub gone: fn(&JobId) -> Json,
}

/// Responds with a job's event stream.
pub async fn follow(api: &Api, From(client, relief): From, id: JobId, shown: Shown) -> Answer {
    let place = api.stream(client)?;
    let (store, watcher) = api.watcher().await?;
    let mut watch = watcher.watch(&id).map_err(Problem::reading)?;
    let job = watch.read().await.map_err(Problem::reading)?;
    found(job.as_deref().filter(|job| (shown.fits)(job)), &id)?;
    let events = Events { api: api.clone(), client, relief, store, id, shown, watch, _place: place };
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    let body = Body::from_stream(events.stream(job));
    let mut response = (headers, [("x-accel-buffering", "no")], body).into_response();
    response.extensions_mut().insert(Endless);
    Ok(response)
}

/// One client's stream.
struct Events {
    api: Api,
    client: Client,
    relief: Relief,
    store: Store,
    id: JobId,
    shown: Shown,
    watch: Watch,
    _place: Share,
}

/// Why a waiting stream continues.
enum Next {
    Changed(leasehold::Result<Option<Arc<Job>>>),
    Silence,
    Stopping,
}

impl Events {
    fn stream(mut self, first: Option<Arc<Job>>) -> impl Stream<Item = Result<Bytes, Infallible>> {
        async_stream::stream! {
            let Some(job) = first else { return };
            let Some(event) = self.event("job", &job).await else { return };
            yield Ok(event);
            let mut ended = job.state.is_final().then_some(job);
            while ended.is_none() {
                match self.next().await {
                    Next::Changed(Ok(Some(job))) if job.state.is_final() => ended = Some(job),
                    Next::Changed(Ok(Some(job))) => {
                        let Some(event) = self.event("job", &job).await else { return };
                        yield Ok(event);
                    }
                    Next::Changed(Ok(None)) => {
                        yield Ok(format!("event: gone\ndata: {}\n\n", (self.shown.gone)(&self.id).as_str()).into());
                        return;
                    }
                    Next::Changed(Err(e)) => {
                        tracing::warn!(job = %self.id, "event stream ended: {e}");
                        return;
                    }
                    Next::Silence => yield Ok(Bytes::from_static(b": alive\n\n")),
                    Next::Stopping => {
                        yield Ok(Bytes::from_static(b": this API is shutting down; reconnect\nretry: 1000\n\n"));
                        return;
                    }
                }
            }
            if let Some(job) = ended
                && let Some(event) = self.event("end", &job).await
            {
                yield Ok(event);
            }
        }
    }

    async fn next(&mut self) -> Next {
        tokio::select! {
            changed = self.watch.changed() => Next::Changed(changed),
            () = self.api.stopping().cancelled() => Next::Stopping,
            () = tokio::time::sleep(ALIVE) => Next::Silence,
        }
    }

    /// One event; its id is the time and state of the job. `None` when clients that do not read hold all the memory for
    /// events.
    async fn event(&self, name: &str, job: &Job) -> Option<Bytes> {
        // Its own share, since the texts of all streams that are not read would else occupy memory without limit.
        let end = Instant::now() + Duration::from_millis(self.api.limits().idle_ms);
        let share = loop {
            match self.api.events().take_within(self.client, about(job), Relief::PATIENCE).await {
                Ok(share) => break share,
                Err(_) if Instant::now() < end => self.relief.ask(),
                Err(_) => {
                    tracing::debug!(job = %self.id, "event stream ended: other streams of this client are not read");
                    return None;
                }
            }
        };
        let mut job = job.clone();
        self.api.say_served(&self.store, [&mut job]).await;
        let (at, state) = (job.updated_at.0, job.state);
        let data = (self.shown.data)(&job);
        let event = format!("id: {at}-{state}\nevent: {name}\ndata: {}\n\n", data.as_str()).into_bytes();
        Some(budget::held(event, Some(share)))
    }
}

/// The bytes of an event of the job, about; never less than its long texts.
fn about(job: &Job) -> usize {
    let texts = [Some(&job.payload), job.result.as_ref(), job.imported.as_ref()];
    1_024 + texts.into_iter().flatten().map(|text| text.as_str().len()).sum::<usize>()
}
