//! What a server and its service say to each other of requests, responses and connections.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

/// Marks an endless response, which ends soon after the process starts to stop.
#[derive(Clone)]
pub struct Endless;

/// Marks a request that gives the length of its body in two ways, to be refused: a proxy may have read it differently.
#[derive(Clone)]
pub struct TwoLengths;

/// Asks for the connections to be closed whose clients do not read their endless responses at the moment: what they do
/// not read occupies memory that others wait for. An extension of each request.
#[derive(Debug, Clone, Default)]
pub struct Relief(Arc<(Notify, Mutex<Option<Instant>>)>);

impl Relief {
    /// Closes those that have not read for [`Relief::PATIENCE`], at most once in that time: all who wait ask for it.
    pub fn ask(&self) {
        let mut last = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= Self::PATIENCE) {
            *last = Some(Instant::now());
            self.0.0.notify_waiters();
        }
    }

    /// Returns when somebody has asked.
    pub async fn asked(&self) {
        self.0.0.notified().await;
    }

    /// How long a client may pause while others wait.
    pub const PATIENCE: Duration = Duration::from_millis(250);
}

/// The connections that were closed against the will of their clients.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    cut: Family<[(&'static str, &'static str); 1], Counter>,
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All places were taken.
    Limit,
    /// Its client had as many as a client may have.
    ClientLimit,
    /// The body of a request that had been answered did not end in time.
    SlowBody,
    /// Its client did not read an endless response.
    SlowReader,
}

impl Cut {
    fn as_str(self) -> &'static str {
        match self {
            Cut::Limit => "limit",
            Cut::ClientLimit => "client_limit",
            Cut::SlowBody => "slow_body",
            Cut::SlowReader => "slow_reader",
        }
    }
}

impl Metrics {
    /// Shows them in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        for cut in [Cut::Limit, Cut::ClientLimit, Cut::SlowBody, Cut::SlowReader] {
            drop(self.cut.get_or_create(&[("reason", cut.as_str())]));
        }
        let help = "Connections that were refused or closed early, by reason";
        registry.register("http_connections_cut", help, self.cut.clone());
    }

    /// Counts one.
    pub fn count(&self, cut: Cut) {
        self.cut.get_or_create(&[("reason", cut.as_str())]).inc();
    }
}
