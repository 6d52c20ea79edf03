//! The metrics of the API: its requests, the queues, and whether Redis answers.
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use leasehold::metrics::{quick_histogram, registry, render};
use leasehold::store::{self, QueueStatus};
use leasehold::{Store, Timestamp};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long the queues, once read, are reused.
const QUEUES_FOR: Duration = Duration::from_secs(1);
/// How long a scrape waits for the queues; a scraper usually times out after 10 s.
const QUEUES_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    queue: String,
}

/// The metrics of one API process.
pub struct Metrics {
    store: store::Metrics,
    registry: Registry,
    answered: Family<Answered, Counter>,
    took: Family<Asked, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    watchers: Gauge,
    streams: Gauge,
    redis_up: Gauge,
    waiting: Family<Queue, Gauge>,
    oldest: Family<Queue, Gauge<f64, AtomicU64>>,
    running: Family<Queue, Gauge>,
    paused: Family<Queue, Gauge>,
    read_at: Mutex<Option<Instant>>,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let started_at = Timestamp(chrono::Utc::now().timestamp_millis());
        let mut metrics = Self {
            store: store::Metrics::default(),
            registry: registry("leasehold-api", env!("CARGO_PKG_VERSION"), started_at),
            answered: Family::default(),
            took: Family::new_with_constructor(quick_histogram),
            in_flight: Gauge::default(),
            watchers: Gauge::default(),
            streams: Gauge::default(),
            redis_up: Gauge::default(),
            waiting: Family::default(),
            oldest: Family::default(),
            running: Family::default(),
            paused: Family::default(),
            read_at: Mutex::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        self.store.register(registry);
        let mut say = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        say("redis_up", "1 when Redis answered the last look at the queues", &self.redis_up);
        say("http_requests_in_flight", "Requests that are being answered", &self.in_flight);
        say("watchers", "Requests that watch a job: waits and event streams", &self.watchers);
        say("event_streams", "Event streams that are open", &self.streams);
        registry.register("http_requests", "Requests answered", self.answered.clone());
        registry.register("http_request_seconds", "Time from a request's head to its answer's", self.took.clone());
        registry.register("queue_jobs", "Jobs that wait in a queue, an upper bound", self.waiting.clone());
        registry.register("queue_oldest_wait_seconds", "Age of the oldest job that waits", self.oldest.clone());
        registry.register("queue_running", "Jobs of a queue that live workers run", self.running.clone());
        registry.register("queue_paused", "1 when nothing is claimed from the queue", self.paused.clone());
    }

    /// The counters of the Store.
    pub fn of_store(&self) -> &store::Metrics {
        &self.store
    }

    /// Counts a request as in flight; report its response to the returned guard.
    pub fn begin(&self, request: &Request) -> InFlight<'_> {
        let path = request.extensions().get::<MatchedPath>();
        let route = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
        self.in_flight.inc();
        InFlight { metrics: self, asked: Asked { method: method(request.method()), route }, begun: Instant::now() }
    }

    /// All metrics as text, with the queues, or without them when Redis does not answer in time.
    pub async fn text(&self, store: Option<Store>, watchers: usize, streams: usize) -> String {
        // Held to the end, so that no scrape renders the queues while another replaces them.
        let mut read_at = self.read_at.lock().await;
        if read_at.is_none_or(|at| at.elapsed() >= QUEUES_FOR) {
            let queues = match store {
                Some(store) => tokio::time::timeout(QUEUES_WITHIN, store.queues(None)).await.ok().and_then(Result::ok),
                None => None,
            };
            self.show(queues.as_deref());
            *read_at = Some(Instant::now());
        }
        self.watchers.set(i64::try_from(watchers).unwrap_or(i64::MAX));
        self.streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
        render(&self.registry)
    }

    fn show(&self, queues: Option<&[QueueStatus]>) {
        self.redis_up.set(queues.is_some().into());
        self.waiting.clear();
        self.oldest.clear();
        self.running.clear();
        self.paused.clear();
        for status in queues.unwrap_or_default() {
            let queue = Queue { queue: status.name.to_string() };
            let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            self.waiting.get_or_create(&queue).set(count(status.queued));
            let oldest_s = status.oldest_wait_ms.unwrap_or(0) as f64 / 1_000.0;
            self.oldest.get_or_create(&queue).set(oldest_s);
            self.running.get_or_create(&queue).set(count(status.running));
            self.paused.get_or_create(&queue).set(status.paused.into());
        }
    }
}

/// A request in flight; dropped without a response when its client disconnects.
pub struct InFlight<'a> {
    metrics: &'a Metrics,
    asked: Asked,
    begun: Instant,
}

impl InFlight<'_> {
    /// Counts the response.
    pub fn answered(self, status: StatusCode) {
        let Asked { method, route } = self.asked.clone();
        let status = class(status);
        self.metrics.answered.get_or_create(&Answered { method, route, status }).inc();
        self.metrics.took.get_or_create(&self.asked).observe(self.begun.elapsed().as_secs_f64());
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}

/// The label of a method; a client may send any, so unknown ones share a label.
fn method(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
