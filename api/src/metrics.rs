//! The metrics of the API: its requests, and what Redis says of jobs, queues and workers.
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use leasehold::metrics::{SettingsDiffer, quick_histogram, registry, render};
use leasehold::store::{self, QueueStatus, WorkerStatus};
use leasehold::{State, Store, Timestamp, server};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a look at Redis is reused.
const LOOK_FOR: Duration = Duration::from_secs(1);
/// How long a scrape waits for Redis; a scraper usually times out after 10 s.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    code: u16,
}

/// A gauge by one label, of what Redis was asked last.
type By = Family<[(&'static str, String); 1], Gauge>;
/// The same for a number of seconds.
type SecondsBy = Family<[(&'static str, String); 1], Gauge<f64, AtomicU64>>;

/// What Redis says of all processes' jobs, queues and workers; empty while it does not answer.
#[derive(Default)]
struct Fleet {
    jobs: By,
    queued: By,
    latency: SecondsBy,
    running: By,
    demand: By,
    paused: By,
    served: By,
    workers: By,
    slots: By,
}

/// One look at all of it.
struct Look {
    totals: BTreeMap<State, u64>,
    queues: Vec<QueueStatus>,
    workers: Vec<WorkerStatus>,
}

impl Look {
    async fn at(store: &Store) -> Result<Self, leasehold::Error> {
        let (totals, queues, workers) =
            (store.totals().await?, store.queues(None).await?, store.workers_at_a_glance().await?);
        Ok(Self { totals, queues, workers })
    }
}

impl Fleet {
    fn register(&self, registry: &mut Registry) {
        let mut by = |name: &str, help: &str, family: &By| registry.register(name, help, family.clone());
        by("jobs", "Jobs by state, items included; queued is an upper bound", &self.jobs);
        by("queue_jobs", "Jobs that wait in a queue, an upper bound", &self.queued);
        by("queue_running", "Jobs of a queue that live workers run", &self.running);
        by("queue_demand", "Running jobs, and waiting ones that could start: what to scale workers by", &self.demand);
        by("queue_paused", "1 when nothing is claimed from the queue", &self.paused);
        by("queue_served", "1 when a live worker serves the queue", &self.served);
        by("workers", "Workers by status: alive, or lost within the last hour", &self.workers);
        by("slots", "Slots of all live workers, by status", &self.slots);
        let help = "How long the oldest job of the queue has been waiting";
        registry.register("queue_latency_seconds", help, self.latency.clone());
    }

    fn show(&self, look: Option<&Look>) {
        let all = [&self.jobs, &self.queued, &self.running, &self.demand, &self.paused, &self.served];
        all.into_iter().chain([&self.workers, &self.slots]).for_each(Family::clear);
        self.latency.clear();
        let Some(Look { totals, queues, workers }) = look else { return };
        let set = |family: &By, label, value: &str, count: u64| {
            let gauge = family.get_or_create_owned(&[(label, value.to_owned())]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        for (state, count) in totals {
            set(&self.jobs, "state", state.as_str(), *count);
        }
        set(&self.jobs, "state", State::Queued.as_str(), queues.iter().map(|queue| queue.queued).sum());
        for queue in queues {
            let name = queue.name.as_str();
            set(&self.queued, "queue", name, queue.queued);
            set(&self.running, "queue", name, queue.running);
            set(&self.demand, "queue", name, queue.demand);
            set(&self.paused, "queue", name, queue.paused.into());
            set(&self.served, "queue", name, queue.served.into());
            let latency_s = queue.oldest_wait_ms.unwrap_or(0) as f64 / 1_000.0;
            self.latency.get_or_create(&[("queue", name.to_owned())]).set(latency_s);
        }
        let (alive, lost): (Vec<&WorkerStatus>, Vec<&WorkerStatus>) = workers.iter().partition(|worker| worker.alive);
        set(&self.workers, "status", "alive", alive.len() as u64);
        set(&self.workers, "status", "lost", lost.len() as u64);
        let total: usize = alive.iter().map(|worker| worker.slots).sum();
        let busy: usize = alive.iter().map(|worker| worker.busy()).sum();
        set(&self.slots, "status", "busy", busy as u64);
        set(&self.slots, "status", "free", (total - busy) as u64);
    }
}

/// The metrics of one API process.
pub struct Metrics {
    store: store::Metrics,
    connections: server::Metrics,
    tokens_refused: Family<[(&'static str, &'static str); 1], Counter>,
    registry: Registry,
    answered: Family<Answered, Counter>,
    took: Family<Asked, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    watchers: Gauge,
    streams: Gauge,
    redis_up: Gauge,
    files_failing: Gauge,
    fleet: Fleet,
    differ: SettingsDiffer,
    read_at: Mutex<Option<Instant>>,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let started_at = Timestamp(chrono::Utc::now().timestamp_millis());
        let mut metrics = Self {
            store: store::Metrics::default(),
            connections: server::Metrics::default(),
            tokens_refused: Family::default(),
            registry: registry("leasehold-api", env!("CARGO_PKG_VERSION"), started_at),
            answered: Family::default(),
            took: Family::new_with_constructor(quick_histogram),
            in_flight: Gauge::default(),
            watchers: Gauge::default(),
            streams: Gauge::default(),
            redis_up: Gauge::default(),
            files_failing: Gauge::default(),
            fleet: Fleet::default(),
            differ: SettingsDiffer::default(),
            read_at: Mutex::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        self.store.register(registry);
        self.connections.register(registry);
        let mut say = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        say("redis_up", "1 when Redis answered the last time", &self.redis_up);
        say("file_store_failing", leasehold::metrics::FILE_STORE_FAILING, &self.files_failing);
        say("http_requests_in_flight", "Requests that are being answered", &self.in_flight);
        say("watchers", "Requests that watch a job: waits and event streams", &self.watchers);
        say("event_streams", "Event streams that are open", &self.streams);
        registry.register("http_requests", "Requests answered", self.answered.clone());
        for reason in ["missing", "unknown", "scope", "too_many"] {
            drop(self.tokens_refused.get_or_create(&[("reason", reason)]));
        }
        let help = "Requests refused for their token, by reason";
        registry.register("http_tokens_refused", help, self.tokens_refused.clone());
        let help = "Time from a request's head to its answer's";
        registry.register("http_request_duration_seconds", help, self.took.clone());
        self.fleet.register(registry);
        self.differ.register(registry);
    }

    /// The counters of the Store.
    pub fn of_store(&self) -> &store::Metrics {
        &self.store
    }

    /// The counters of the connections.
    pub fn of_connections(&self) -> &server::Metrics {
        &self.connections
    }

    /// Counts a request that was refused for its token.
    pub fn refused_token(&self, reason: &'static str) {
        self.tokens_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// Shows whether the file store fails.
    pub fn files_fail(&self, fails: bool) {
        self.files_failing.set(fails.into());
    }

    /// Which settings differ from those of other processes.
    pub fn differ(&self) -> &SettingsDiffer {
        &self.differ
    }

    /// Counts a request as in flight; report its response to the returned guard.
    pub fn begin(&self, request: &Request) -> InFlight<'_> {
        let path = request.extensions().get::<MatchedPath>();
        let route = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
        self.in_flight.inc();
        InFlight { metrics: self, asked: Asked { method: method(request.method()), route }, begun: Instant::now() }
    }

    /// All metrics as text; without those of jobs, queues and workers when Redis does not answer in time.
    pub async fn text(&self, store: Option<Store>, watchers: usize, streams: usize) -> String {
        // Held to the end, so that no scrape renders what another is replacing.
        let mut read_at = self.read_at.lock().await;
        if read_at.is_none_or(|at| at.elapsed() >= LOOK_FOR) {
            // Over a slow link the looks may take longer than Redis is slow to answer.
            let (look, standing) = match &store {
                Some(store) => {
                    let look = tokio::time::timeout(LOOK_WITHIN, Look::at(store));
                    let standing = tokio::time::timeout(LOOK_WITHIN, store.standing());
                    let (look, standing) = tokio::join!(look, standing);
                    (look.ok().and_then(Result::ok), standing.is_ok_and(|standing| standing.is_ok()))
                }
                None => (None, false),
            };
            self.redis_up.set((look.is_some() || standing).into());
            self.fleet.show(look.as_ref());
            *read_at = Some(Instant::now());
        }
        self.watchers.set(i64::try_from(watchers).unwrap_or(i64::MAX));
        self.streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
        render(&self.registry)
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
        let code = status.as_u16();
        self.metrics.answered.get_or_create(&Answered { method, route, code }).inc();
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
