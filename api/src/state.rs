//! State shared by all requests: the configuration, and the Store once Redis has been reached.
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use leasehold::followed::Followed;
use leasehold::log::Seldom;
use leasehold::server::Client;
use leasehold::store::{Agreement, Differences, Serving, Watcher};
use leasehold::tokens::Tokens;
use leasehold::{Config, Error, Job, Kinds, Limits, State, Store, limits};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::budget::{Budget, Share};
use crate::error::{Code, Problem};
use crate::metrics::Metrics;
use crate::submission::Rules;
use crate::sweeper;
use crate::wrong_tokens::WrongTokens;

/// How long the served kinds, once read, are reused.
const SERVED_FOR: Duration = Duration::from_secs(1);
/// How long a response waits for the served kinds to be read.
const SERVED_WAIT: Duration = Duration::from_millis(500);
/// How often the kinds that others have published are read.
const KINDS_EVERY: Duration = Duration::from_secs(5);
/// The pause between two attempts to reach Redis at start.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// State shared by all requests; cheap to clone, clones share state.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    /// The limits and time-outs that requests are held to.
    config: Config,
    /// The kinds file; without one it is empty, and the routes of the views are not served.
    kinds: RwLock<Arc<Kinds>>,
    /// The defaults of submits: the kinds file, or without one what was published last.
    defaults: RwLock<Arc<Kinds>>,
    /// What differs from the settings that were published last.
    differences: RwLock<Differences>,
    /// Asks for the kinds file, which has changed, to be published.
    kinds_changed: Notify,
    /// The tokens; without them every request is allowed.
    guard: Option<Followed<Tokens>>,
    /// `None` until Redis has been reached; a watch, so that early requests can wait for the first connection.
    connection: watch::Sender<Option<Connection>>,
    /// The served kinds, cached: nearly every answer shows them, and reading them takes a call to Redis.
    served: Mutex<Served>,
    /// Bytes that request bodies may occupy: bounds the memory of all bodies together.
    bodies: Arc<Budget>,
    /// Event streams that may be open: streams must not use up the connections.
    streams: Arc<Budget>,
    /// Bytes of events that clients have not received yet.
    events: Arc<Budget>,
    /// Wrong tokens, by client.
    wrong_tokens: WrongTokens,
    /// Limits the log lines about bodies that were not discarded to their end.
    slow_bodies: Seldom,
    /// Cancelled at shutdown: waits and streams answer at once.
    stopping: CancellationToken,
    /// The counters of this process.
    metrics: Metrics,
}

#[derive(Clone)]
struct Connection {
    store: Store,
    /// One subscription for all who wait for a job.
    watcher: Watcher,
}

/// What living workers serve, as last read; `None` when the read failed.
#[derive(Default)]
struct Served {
    /// When they were read, or the attempt failed.
    read_at: Option<Instant>,
    serving: Option<Arc<Serving>>,
}

impl Api {
    /// The shared state, not yet connected; cancel `stopping` to end waits and streams.
    pub fn new(config: Config, kinds: Kinds, stopping: CancellationToken) -> Self {
        Self::guarded(config, kinds, None, stopping)
    }

    /// [`Api::new`] with optional tokens.
    pub fn guarded(config: Config, kinds: Kinds, guard: Option<Followed<Tokens>>, stopping: CancellationToken) -> Self {
        let kinds = Arc::new(kinds);
        // The budget must admit the largest body.
        let bodies = limits::BODIES_BYTES_MAX.max(config.limits.bulk_body_bytes);
        // A stream may stay open for ever; a quarter of the connections is kept for other requests.
        let streams = limits::WATCHERS_MAX.min(config.limits.connections.div_ceil(4) * 3);
        let event = config.limits.payload_bytes + config.limits.result_bytes;
        let events = limits::EVENTS_BYTES_MAX.max(8 * event);
        let of_a_client = config.limits.of_a_client(config.limits.connections).div_ceil(4) * 3;
        Self(Arc::new(Inner {
            config,
            defaults: RwLock::new(kinds.clone()),
            differences: RwLock::default(),
            kinds_changed: Notify::new(),
            kinds: RwLock::new(kinds),
            guard,
            connection: watch::Sender::new(None),
            served: Mutex::default(),
            bodies: Budget::new(bodies, bodies),
            streams: Budget::new(streams, of_a_client),
            events: Budget::new(events, events / 2),
            wrong_tokens: WrongTokens::default(),
            slow_bodies: Seldom::default(),
            stopping,
            metrics: Metrics::new(),
        }))
    }

    /// Connects to Redis, retrying without limit; requests are answered 503 until then.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Corrupt`]: this API cannot serve this Redis server.
    pub async fn connect(&self) -> Result<(), Error> {
        loop {
            match self.try_connect().await {
                Ok(store) => {
                    tracing::info!(redis = store.address(), partitions = store.partitions(), "connected");
                    let watcher = Watcher::spawn(store.clone());
                    self.0.connection.send_replace(Some(Connection { store: store.clone(), watcher }));
                    tokio::spawn(self.clone().follow_kinds(store.clone()));
                    tokio::spawn(self.clone().watch_files(store.clone()));
                    let (config, stopping, api) = (self.0.config.clone(), self.0.stopping.clone(), self.clone());
                    tokio::spawn(sweeper::run(store, config, move || api.rules().kinds, stopping));
                    return Ok(());
                }
                Err(e @ (Error::Config(_) | Error::Corrupt { .. } | Error::Refused(_))) => return Err(e),
                Err(e) => tracing::warn!("waiting for Redis: {e}"),
            }
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }

    async fn try_connect(&self) -> Result<Store, Error> {
        let store = Store::connect_counted(&self.0.config, self.0.metrics.of_store()).await?;
        store.register_kinds(&self.kinds()).await?;
        store.declare_schedules(&self.kinds()).await?;
        self.adopt_kinds(&store).await?;
        Ok(store)
    }

    /// Without a kinds file, an API applies the defaults that the others have published.
    async fn adopt_kinds(&self, store: &Store) -> Result<(), Error> {
        if self.kinds().is_empty()
            && let Some(published) = store.published().await?.kinds
        {
            write(&self.0.defaults, Arc::new(Kinds::default().with_published(&published)));
        }
        Ok(())
    }

    /// Applies a new version of the kinds file: to submits at once, and to the routes of the views. It is published
    /// soon after.
    pub fn set_kinds(&self, kinds: Arc<Kinds>) {
        write(&self.0.defaults, kinds.clone());
        write(&self.0.kinds, kinds);
        self.0.kinds_changed.notify_one();
    }

    /// Publishes this API's kinds whenever its file has changed, Redis has been emptied or
    /// the partitions have grown, and keeps up with the kinds
    /// that other processes publish, until this one stops.
    async fn follow_kinds(self, store: Store) {
        let mut agreement = Agreement::new(&self.kinds(), self.0.config.lease_ms);
        let (mut is_due, mut known) = (false, (None, store.partitions()));
        let stopping = self.0.stopping.clone();
        loop {
            let changed = tokio::time::timeout(KINDS_EVERY, self.0.kinds_changed.notified());
            let Some(changed) = stopping.run_until_cancelled(changed).await else { return };
            is_due |= changed.is_ok();
            // An outage is reported by the requests that meet it; a record that cannot be read by the doctor.
            if let Ok(emptied_at) = store.emptied_at().await {
                let now = (emptied_at, store.partitions());
                is_due |= std::mem::replace(&mut known, now) != now;
            }
            if is_due
                && store.register_kinds(&self.kinds()).await.is_ok()
                && store.declare_schedules(&self.kinds()).await.is_ok()
            {
                (is_due, _) = (false, agreement.set_kinds(&self.kinds()));
            }
            let _ = self.adopt_kinds(&store).await;
            let _ = store.check_masters().await;
            if let Ok(differences) = agreement.check(&store).await {
                self.0.metrics.differ().set("kinds", !differences.kinds.is_empty());
                self.0.metrics.differ().set("lease_ms", differences.lease_ms.is_some());
                write(&self.0.differences, differences.clone());
            }
        }
    }

    /// Tries the file store from time to time, until this API stops.
    async fn watch_files(self, store: Store) {
        if let Some(files) = store.files() {
            let watching = files.watch(|fails| self.0.metrics.files_fail(fails));
            self.0.stopping.run_until_cancelled(watching).await;
        }
    }

    /// The settings that differ from what another process has published since this one started.
    pub fn differences(&self) -> Differences {
        self.0.differences.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The Store; waits for the first connection as long as any call rides out an outage.
    ///
    /// # Errors
    /// A problem when Redis has not been reached since the start.
    pub async fn store(&self) -> Result<Store, Problem> {
        self.connection().await.map(|connection| connection.store)
    }

    /// The Store, and the watcher of its jobs.
    ///
    /// # Errors
    /// As [`Api::store`].
    pub async fn watcher(&self) -> Result<(Store, Watcher), Problem> {
        self.connection().await.map(|connection| (connection.store, connection.watcher))
    }

    async fn connection(&self) -> Result<Connection, Problem> {
        let mut receiver = self.0.connection.subscribe();
        let outage = Duration::from_millis(self.0.config.redis.outage_ms);
        let connected = tokio::time::timeout(outage, receiver.wait_for(Option::is_some)).await;
        let connection = connected.ok().and_then(Result::ok).and_then(|connection| connection.clone());
        connection.ok_or_else(Self::not_connected)
    }

    /// The Store if Redis has been reached.
    ///
    /// # Errors
    /// As [`Api::store`].
    pub fn store_now(&self) -> Result<Store, Problem> {
        self.0.connection.borrow().as_ref().map(|connection| connection.store.clone()).ok_or_else(Self::not_connected)
    }

    fn not_connected() -> Problem {
        Problem::new(
            Code::Unavailable,
            "Redis has not been reached since this API started; nothing was done; try again",
        )
    }

    /// Fills in, for jobs that wait for a worker, whether a living one serves their kind and queue. A queued parent
    /// waits for one that serves its `then`, which it does not name.
    pub async fn say_served<'a>(&self, store: &Store, jobs: impl IntoIterator<Item = &'a mut Job>) {
        let waits = |job: &&mut Job| job.state == State::Queued && job.items.is_none();
        let waiting: Vec<&mut Job> = jobs.into_iter().filter(waits).collect();
        if waiting.is_empty() {
            return;
        }
        let Some(serving) = self.serving(store).await else { return };
        waiting.into_iter().for_each(|job| job.served = Some(serving.serves(&job.kind, &job.queue)));
    }

    async fn serving(&self, store: &Store) -> Option<Arc<Serving>> {
        let mut served = self.0.served.lock().await;
        if served.read_at.is_none_or(|at| at.elapsed() >= SERVED_FOR) {
            // An answer must not fail, or be late, for want of this.
            let read = tokio::time::timeout(SERVED_WAIT, store.serving()).await;
            served.serving = read.ok().and_then(Result::ok).map(Arc::new);
            served.read_at = Some(Instant::now());
        }
        served.serving.clone()
    }

    /// Waits until the defaults of submits are known: an API without a kinds file has none before it has reached Redis,
    /// and a request that came first would make another job than one that comes after.
    ///
    /// # Errors
    /// As [`Api::store`].
    pub async fn defaults_known(&self) -> Result<(), Problem> {
        if self.kinds().is_empty() { self.connection().await.map(drop) } else { Ok(()) }
    }

    /// The rules that submissions are validated against; [`Api::defaults_known`] comes first.
    pub fn rules(&self) -> Rules<'_> {
        let known_kinds_only = self.0.config.api.known_kinds_only;
        let kinds = self.0.defaults.read().unwrap_or_else(PoisonError::into_inner).clone();
        Rules { kinds, known_kinds_only, limits: &self.0.config.limits }
    }

    /// The configured kinds.
    pub fn kinds(&self) -> Arc<Kinds> {
        self.0.kinds.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tokens, if they are required.
    pub fn guard(&self) -> Option<&Followed<Tokens>> {
        self.0.guard.as_ref()
    }

    /// The metrics of this process.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The text of `/metrics`; without the queues when Redis does not answer within 2 s.
    pub async fn metrics_text(&self) -> String {
        let connection = self.0.connection.borrow().clone();
        let watchers = connection.as_ref().map_or(0, |connection| connection.watcher.watchers());
        let streams = self.0.streams.held();
        self.0.metrics.text(connection.map(|connection| connection.store), watchers, streams).await
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The configured limits.
    pub fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    /// The memory that request bodies may occupy, in bytes.
    pub fn bodies(&self) -> &Arc<Budget> {
        &self.0.bodies
    }

    /// The memory that events may occupy until their clients have received them, in bytes.
    pub fn events(&self) -> &Arc<Budget> {
        &self.0.events
    }

    /// A place for one more event stream.
    ///
    /// # Errors
    /// `Code::Busy` when all of the client's, or all, are in use.
    pub fn stream(&self, client: Client) -> Result<Share, Problem> {
        let advice = "the limit of event streams is reached; poll the job instead, or try again";
        self.0.streams.take(client, 1).map_err(|_| Problem::new(Code::Busy, advice))
    }

    /// When to log about bodies that were not discarded to their end.
    pub fn slow_bodies(&self) -> &Seldom {
        &self.0.slow_bodies
    }

    /// The wrong tokens of late.
    pub fn wrong_tokens(&self) -> &WrongTokens {
        &self.0.wrong_tokens
    }

    /// Cancelled when the process is to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }
}

fn write<T>(place: &RwLock<T>, value: T) {
    *place.write().unwrap_or_else(PoisonError::into_inner) = value;
}
