//! A worker's port (`worker.listen`): liveness, readiness and metrics.
//!
//! It has a separate thread and runtime, like the lease thread: a handler that blocks every other thread must not make
//! the worker look dead. It answers from before Redis is reached until the worker has ended.
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use leasehold::followed::Followed;
use leasehold::metrics::CONTENT_TYPE as METRICS_TYPE;
use leasehold::server::{Bounds, Metrics as Connections, listen, serve};
use leasehold::tokens::{NotAdmitted, Scope, Tokens};
use leasehold::{Config, FileStore, Limits, Store};
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::Error;
use crate::metrics::Metrics;
use crate::running::Running;
use crate::shutdown::Shutdown;

/// Connections at once: probes and scrapers are few.
const CONNECTIONS: usize = 64;
/// How long the lease thread may be silent; it looks at its handlers several times a second.
const LIVE_WITHIN: Duration = Duration::from_secs(10);
/// How long the claim loop may stand still, beyond the time that a call to Redis may take. It turns every second.
const CLAIM_TURNS_WITHIN: Duration = Duration::from_secs(10);
/// How long Redis may take to answer a readiness check.
const REDIS_WITHIN: Duration = Duration::from_secs(5);

/// The state that the port reports.
pub(crate) struct Probe {
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    limits: Limits,
    /// The tokens that `/metrics` requires; without them it is open.
    tokens: Option<Followed<Tokens>>,
    /// The worker, and this thread's connections to Redis, once Redis has been reached.
    worker: OnceLock<(Arc<Running>, Store)>,
}

impl Probe {
    /// Opens the port, when one is configured. Dropping the guard closes it.
    ///
    /// # Errors
    /// The address cannot be listened on, or the thread cannot be started.
    pub async fn open(
        config: &Config,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Result<(Arc<Self>, DropGuard), Error> {
        let tokens = config.api.tokens.as_deref().map(Tokens::open).transpose()?;
        let (limits, worker) = (config.limits.clone(), OnceLock::new());
        let probe = Arc::new(Self { metrics, shutdown, limits, tokens, worker });
        let stopping = CancellationToken::new();
        if let Some(address) = config.worker.listen.clone() {
            let (served, stopped) = (Arc::clone(&probe), stopping.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (sender, opened) = oneshot::channel();
            let life = async move {
                match listen("worker.listen", &address, None).await {
                    Ok(listener) => {
                        if let Some(tokens) = served.tokens.clone() {
                            tokio::spawn(tokens.follow(None, |_| {}));
                        } else if listener.local_addr().is_ok_and(|address| !address.ip().is_loopback()) {
                            tracing::warn!(
                                "/metrics of this worker can be read from other machines; to require a token, \
                                 name a token file (LEASEHOLD_API__TOKENS)"
                            );
                        }
                        drop(sender.send(Ok(())));
                        let limits = served.limits.clone();
                        let bounds = Bounds { connections: CONNECTIONS, of_a_client: limits.of_a_client(CONNECTIONS) };
                        serve(listener, router(served), bounds, &limits, Connections::default(), stopped).await;
                    }
                    Err(e) => drop(sender.send(Err(e))),
                }
            };
            std::thread::Builder::new().name("probes".into()).spawn(move || runtime.block_on(life))?;
            opened.await.map_err(|_| std::io::Error::other("the probe thread ended unexpectedly"))??;
        }
        Ok((probe, stopping.drop_guard()))
    }

    /// Sets the running worker, once Redis has been reached.
    ///
    /// # Errors
    /// Those of [`Store::apart`].
    pub fn introduce(&self, running: &Arc<Running>) -> Result<(), Error> {
        let mut own = running.config.clone();
        (own.redis.connections, own.redis.outage_ms) = (2, 0);
        let store = running.store.apart(&own)?;
        drop(self.worker.set((Arc::clone(running), store)));
        Ok(())
    }
}

fn router(probe: Arc<Probe>) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(nothing)
        .with_state(probe)
}

/// Live: the process answers, and neither its lease thread nor its claim loop is stuck.
async fn live(State(probe): State<Arc<Probe>>) -> Response {
    let Some((running, _)) = probe.worker.get() else { return Json(json!({ "status": "live" })).into_response() };
    let silent = running.leases.since_last_check();
    if silent > LIVE_WITHIN {
        return refused(&format!("the lease thread has been silent for {} ms", silent.as_millis()));
    }
    let (still, patience) = (running.turned.since(), CLAIM_TURNS_WITHIN + longest_call(&running.config));
    if still > patience && !probe.shutdown.begun.is_cancelled() {
        return refused(&format!("the claim loop has not turned for {} ms", still.as_millis()));
    }
    Json(json!({ "status": "live" })).into_response()
}

/// Ready: Redis answers, the worker is registered there with fresh renewals, and it is not shutting down.
async fn ready(State(probe): State<Arc<Probe>>) -> Response {
    if probe.shutdown.begun.is_cancelled() {
        return refused("the worker is shutting down");
    }
    let Some((running, store)) = probe.worker.get() else {
        return refused("Redis has not been reached since this worker started");
    };
    match tokio::time::timeout(REDIS_WITHIN, store.standing()).await {
        // A full Redis is when workers are needed most.
        Ok(Ok(_)) => {}
        Ok(Err(e)) => return refused(&e.to_string()),
        Err(_) => return refused(&format!("Redis did not answer within {} s", REDIS_WITHIN.as_secs())),
    }
    // In a cluster some partitions may be away; the worker serves the others.
    if (0..store.partitions()).all(|partition| !running.leases.is_fresh(partition)) {
        return refused("the leases of no partition have been renewed for half a lease");
    }
    let (redis, durability) = (store.address(), store.durability());
    let mut answer = json!({ "status": "ready", "redis": redis, "durability": durability, "worker": running.worker });
    let faults = store.fatal_faults();
    if !faults.is_empty() {
        answer["redis_faults"] = json!(faults);
    }
    if let Some(fault) = running.store.files().and_then(FileStore::fault) {
        answer["files_fault"] = json!(fault);
    }
    Json(answer).into_response()
}

/// The metrics, for a token of scope `read` when there is a token file.
async fn metrics(State(probe): State<Arc<Probe>>, headers: HeaderMap) -> Response {
    let admitted = probe.tokens.as_ref().map(|tokens| tokens.now().admit(&headers, Scope::Read).map(drop));
    if let Some(Err(refused)) = admitted {
        let (status, reason) = match refused {
            NotAdmitted::Unknown(reason) => (StatusCode::UNAUTHORIZED, reason.to_owned()),
            NotAdmitted::Forbidden(reason) => (StatusCode::FORBIDDEN, reason),
        };
        let body = Json(json!({ "status": "refused", "reason": reason }));
        return (status, [(WWW_AUTHENTICATE, "Bearer")], body).into_response();
    }
    let text = match probe.worker.get() {
        Some((running, _)) => probe.metrics.text(!running.redis.is_down(), running.slots.total(), running.slots.free()),
        None => probe.metrics.text(false, 0, 0),
    };
    ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response()
}

/// How long a call to Redis may take: it is not repeated after `redis.outage_ms`.
fn longest_call(config: &Config) -> Duration {
    Duration::from_millis(config.redis.outage_ms + config.redis.connect_ms + 2 * config.redis.response_ms)
}

async fn nothing(uri: Uri) -> impl IntoResponse {
    (StatusCode::NOT_FOUND, format!("there is no {}; this port has /livez, /readyz and /metrics\n", uri.path()))
}

fn refused(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unavailable", "reason": reason }))).into_response()
}
