//! What all requests share: the configuration, and the Store once Redis has been reached.
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use leasehold::store::{Agreement, Serving, Watcher};
use leasehold::{Config, Error, Job, Kind, Kinds, Limits, State, Store, limits};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, Problem};
use crate::metrics::Metrics;
use crate::submission::Rules;
use crate::token_file::Guard;

/// How long what the workers serve is taken to be as it was.
const SERVED_FOR: Duration = Duration::from_secs(1);
/// How long an answer waits for it.
const SERVED_WAIT: Duration = Duration::from_millis(500);
/// How often the kinds that others have published are read.
const KINDS_EVERY: Duration = Duration::from_secs(5);
/// The pause between two tries to reach Redis at the start.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// What all requests share; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    config: Config,
    /// The kinds file; without one it is empty, and the routes of the views are not served.
    kinds: Kinds,
    /// What submits are held against: the kinds file, or without one what was published last.
    defaults: RwLock<Arc<Kinds>>,
    /// Kinds of the file that differ from what was published last.
    differing: RwLock<Vec<Kind>>,
    guard: Option<Guard>,
    connection: watch::Sender<Option<Connection>>,
    served: Mutex<Served>,
    bodies: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    streams_max: usize,
    stopping: CancellationToken,
    metrics: Metrics,
}

#[derive(Clone)]
struct Connection {
    store: Store,
    watcher: Watcher,
}

/// What living workers serve, as last read; `None` when the read failed.
#[derive(Default)]
struct Served {
    read_at: Option<Instant>,
    serving: Option<Arc<Serving>>,
}

impl Api {
    /// What requests share, not yet connected; `stopping` tells those that wait to answer.
    pub fn new(config: Config, kinds: Kinds, stopping: CancellationToken) -> Self {
        Self::guarded(config, kinds, None, stopping)
    }

    /// [`Api::new`] with tokens, when there are any.
    pub fn guarded(config: Config, kinds: Kinds, guard: Option<Guard>, stopping: CancellationToken) -> Self {
        // A body over the budget could never be taken.
        let bodies = limits::BODIES_BYTES_MAX.max(2 * config.limits.bulk_body_bytes);
        // Streams never end by themselves; the rest of the connections is for requests that do.
        let streams = limits::WATCHERS_MAX.min(config.limits.connections.div_ceil(4) * 3);
        Self(Arc::new(Inner {
            config,
            defaults: RwLock::new(Arc::new(kinds.clone())),
            differing: RwLock::default(),
            kinds,
            guard,
            connection: watch::Sender::new(None),
            served: Mutex::default(),
            bodies: Arc::new(Semaphore::new(bodies)),
            streams: Arc::new(Semaphore::new(streams)),
            streams_max: streams,
            stopping,
            metrics: Metrics::new(),
        }))
    }

    /// Connects to Redis, however long that takes; requests are answered 503 until then.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Corrupt`]: this API cannot serve this Redis.
    pub async fn connect(&self) -> Result<(), Error> {
        loop {
            match self.try_connect().await {
                Ok(store) => {
                    tracing::info!(redis = store.address(), partitions = store.partitions(), "connected");
                    let watcher = Watcher::spawn(store.clone());
                    self.0.connection.send_replace(Some(Connection { store: store.clone(), watcher }));
                    tokio::spawn(self.clone().follow_kinds(store));
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
        store.register_kinds(&self.0.kinds).await?;
        self.adopt_kinds(&store).await?;
        Ok(store)
    }

    /// Without a kinds file of its own, an API applies the defaults that the others have published.
    async fn adopt_kinds(&self, store: &Store) -> Result<(), Error> {
        if self.0.kinds.is_empty()
            && let Some(published) = store.published_kinds().await?
        {
            let adopted = Arc::new(Kinds::default().with_published(&published));
            *self.0.defaults.write().unwrap_or_else(PoisonError::into_inner) = adopted;
        }
        Ok(())
    }

    /// Keeps up with the kinds that other processes publish, until this one stops.
    async fn follow_kinds(self, store: Store) {
        let mut agreement = Agreement::new(&self.0.kinds);
        let stopping = self.0.stopping.clone();
        while stopping.run_until_cancelled(tokio::time::sleep(KINDS_EVERY)).await.is_some() {
            // An outage is reported by the requests that meet it; a record that cannot be read by the doctor.
            let _ = self.adopt_kinds(&store).await;
            if let Ok(differing) = agreement.check(&store).await {
                *self.0.differing.write().unwrap_or_else(PoisonError::into_inner) = differing.to_vec();
            }
        }
    }

    /// The kinds whose settings differ from what another process has published since this one started.
    pub fn differing_kinds(&self) -> Vec<Kind> {
        self.0.differing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The Store; waits for the first connection as long as any call rides out an outage.
    ///
    /// # Errors
    /// A problem when Redis has not been reached since the start.
    pub async fn store(&self) -> Result<Store, Problem> {
        self.connection().await.map(|connection| connection.store)
    }

    /// The Store, and who waits for its jobs.
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

    /// Fills in, for jobs that wait for a worker, whether a living one serves their kind and queue. A queued parent waits for one that
    /// serves its `then`, which it does not name.
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

    /// What submits are held against.
    pub fn rules(&self) -> Rules<'_> {
        let known_kinds_only = self.0.config.api.known_kinds_only;
        let kinds = self.0.defaults.read().unwrap_or_else(PoisonError::into_inner).clone();
        Rules { kinds, known_kinds_only, limits: &self.0.config.limits }
    }

    /// The configured kinds.
    pub fn kinds(&self) -> &Kinds {
        &self.0.kinds
    }

    /// The tokens, when requests need one.
    pub fn guard(&self) -> Option<&Guard> {
        self.0.guard.as_ref()
    }

    /// What this process counts.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The text of `/metrics`; it does not wait for Redis for long, and says when it is away.
    pub async fn metrics_text(&self) -> String {
        let connection = self.0.connection.borrow().clone();
        let watchers = connection.as_ref().map_or(0, |connection| connection.watcher.watchers());
        let streams = self.0.streams_max - self.0.streams.available_permits();
        self.0.metrics.text(connection.map(|connection| connection.store), watchers, streams).await
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The configured bounds.
    pub fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    /// The memory that request bodies may take, in bytes.
    pub fn bodies(&self) -> &Arc<Semaphore> {
        &self.0.bodies
    }

    /// A place for one more event stream.
    ///
    /// # Errors
    /// A problem when there is none.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let advice = "it serves as many event streams as it may; poll the job instead, or ask again";
        self.0.streams.clone().try_acquire_owned().map_err(|_| Problem::new(Code::Busy, advice))
    }

    /// Set when the process is to end.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }
}
