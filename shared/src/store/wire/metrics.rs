//! Metrics of the Store: every call to Redis, and the connection pools.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool::Status;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::pool::Pool;
use crate::config::RedisDurability;
use crate::metrics::quick_histogram;
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    verb: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verb {
    verb: &'static str,
}

/// Counts of a process's calls to Redis, over all its Stores. Clones share state.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<Call, Counter>,
    took: Family<Verb, Histogram, fn() -> Histogram>,
    managed: Gauge,
    unfit: Gauge,
    pools: Pools,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            took: Family::new_with_constructor(quick_histogram),
            managed: Gauge::default(),
            unfit: Gauge::default(),
            pools: Pools(Arc::default()),
        }
    }
}

impl Metrics {
    /// Shows them in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("redis_calls", "Calls sent to Redis, each try of one that was repeated", self.calls.clone());
        let help = "What a call to Redis took, the wait for a connection included";
        registry.register("redis_call_duration_seconds", help, self.took.clone());
        let help = "1 when redis.durability is managed: nothing checks that Redis keeps its data";
        registry.register("redis_durability_managed", help, self.managed.clone());
        let help = "1 when Redis's settings would lose jobs, so that no new ones are accepted";
        registry.register("redis_unfit", help, self.unfit.clone());
        registry.register_collector(Box::new(self.pools.clone()));
    }

    /// Shows `redis.durability`.
    pub(crate) fn durability(&self, durability: RedisDurability) {
        self.managed.set((durability == RedisDurability::Managed).into());
    }

    /// Shows whether Redis would lose jobs.
    pub(crate) fn unfit(&self, unfit: bool) {
        self.unfit.set(unfit.into());
    }

    /// Counts a call, answered or not, and its duration.
    pub(crate) fn called<T>(&self, verb: &'static str, took: Duration, reply: &Result<T>) {
        self.answered(verb, reply);
        self.took.get_or_create(&Verb { verb }).observe(took.as_secs_f64());
    }

    /// Counts a call that blocks in Redis, so that its duration means nothing.
    pub(crate) fn answered<T>(&self, verb: &'static str, reply: &Result<T>) {
        let outcome = reply.as_ref().err().map_or("ok", outcome);
        self.calls.get_or_create(&Call { verb, outcome }).inc();
    }

    /// Counts a pool's connections for as long as it lives.
    pub(crate) fn watch_pool(&self, pool: &Pool) {
        let mut pools = self.pools.0.lock().expect("lock not poisoned");
        pools.retain(|status| status().is_some());
        let pool = pool.weak();
        pools.push(Box::new(move || pool.upgrade().map(|pool| pool.status())));
    }
}

fn outcome(error: &Error) -> &'static str {
    match error {
        Error::Unavailable(_) => "unavailable",
        Error::OutcomeUnknown(_) | Error::TooFewReplicas { .. } => "unknown",
        Error::Full(_) => "full",
        Error::Refused(_) | Error::Config(_) => "refused",
        Error::Corrupt { .. } => "corrupt",
    }
}

/// A pool's status, while the pool exists.
type PoolStatus = Box<dyn Fn() -> Option<Status> + Send + Sync>;

/// The pools of a process.
#[derive(Clone)]
struct Pools(Arc<Mutex<Vec<PoolStatus>>>);

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pools")
    }
}

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let pools = self.0.lock().expect("lock not poisoned");
        let (mut most, mut open, mut used, mut waiting) = (0, 0, 0, 0);
        for status in pools.iter().filter_map(|status| status()) {
            most += status.max_size as u64;
            open += status.size as u64;
            used += status.size.saturating_sub(status.available) as u64;
            waiting += status.waiting as u64;
        }
        for (name, help, value) in [
            ("redis_pool_max", "Connections that the pools may have", most),
            ("redis_pool_open", "Connections that the pools have", open),
            ("redis_pool_in_use", "Connections of the pools with a call on them", used),
            ("redis_pool_waiting", "Calls that wait for a connection", waiting),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
