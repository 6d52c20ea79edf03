//! What a worker counts: the jobs it claims and how they end, and what its sweeps and renewals do.
use std::time::Duration;

use leasehold::metrics::{registry, render, slow_histogram};
use leasehold::store::{self, ClaimedJob, Outcome, Settled, Swept};
use leasehold::{Kind, State, Timestamp};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FinishedLabels {
    kind: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RenewalLabels {
    outcome: &'static str,
}

/// The families of one worker. A job that was claimed here and does not run any more is in `finished` once.
pub(crate) struct Metrics {
    store: store::Metrics,
    registry: Registry,
    claimed: Family<KindLabel, Counter>,
    finished: Family<FinishedLabels, Counter>,
    waited: Family<KindLabel, Histogram, fn() -> Histogram>,
    ran: Family<KindLabel, Histogram, fn() -> Histogram>,
    renewals: Family<RenewalLabels, Counter>,
    stale: Counter,
    expired: Counter,
    /// Reservations that nobody leased, put back.
    pub recovered: Counter,
    /// Leases whose claim nobody heard the answer of, given back.
    pub released: Counter,
    promoted: Counter,
    pruned: Counter,
    slots: Gauge,
    running: Gauge,
    redis_up: Gauge,
}

impl Metrics {
    /// All of them, at nought.
    pub fn new() -> Self {
        let started_at = Timestamp(chrono::Utc::now().timestamp_millis());
        let mut metrics = Self {
            store: store::Metrics::default(),
            registry: registry("leasehold-worker", env!("CARGO_PKG_VERSION"), started_at),
            claimed: Family::default(),
            finished: Family::default(),
            waited: Family::new_with_constructor(slow_histogram),
            ran: Family::new_with_constructor(slow_histogram),
            renewals: Family::default(),
            stale: Counter::default(),
            expired: Counter::default(),
            recovered: Counter::default(),
            released: Counter::default(),
            promoted: Counter::default(),
            pruned: Counter::default(),
            slots: Gauge::default(),
            running: Gauge::default(),
            redis_up: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        self.store.register(registry);
        let mut say = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        say("redis_up", "1 when Redis answered the last call", &self.redis_up);
        say("worker_slots", "Jobs that it can run at once", &self.slots);
        say("worker_running", "Jobs that it runs", &self.running);
        let mut count = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        count("leases_expired", "Jobs that its sweeps took back from lost workers", &self.expired);
        count("settles_stale", "Ends of its jobs that were refused, since the lease was lost", &self.stale);
        count("reservations_recovered", "Reservations that nobody had leased, put back", &self.recovered);
        count("claims_given_back", "Leases of its own that it had not heard of, given back", &self.released);
        count("jobs_promoted", "Jobs that became due", &self.promoted);
        count("jobs_pruned", "Ended jobs removed by retention", &self.pruned);
        registry.register("jobs_claimed", "Jobs claimed", self.claimed.clone());
        registry.register("jobs_finished", "Runs that ended, by how", self.finished.clone());
        registry.register("job_wait_seconds", "From a job being due to its first claim", self.waited.clone());
        registry.register("job_run_seconds", "What a handler took", self.ran.clone());
        registry.register(
            "renewals",
            "Renewals of a partition's leases; late: over a third of a lease after the last",
            self.renewals.clone(),
        );
    }

    /// For the Store, which counts its own calls.
    pub fn store(&self) -> &store::Metrics {
        &self.store
    }

    /// A job was claimed.
    pub fn claimed(&self, job: &ClaimedJob) {
        let kind = KindLabel { kind: job.kind.to_string() };
        self.claimed.get_or_create(&kind).inc();
        if let Some(ms) = job.waited_ms {
            self.waited.get_or_create(&kind).observe(Duration::from_millis(ms).as_secs_f64());
        }
    }

    /// A handler has ended.
    pub fn ran(&self, kind: &Kind, took: Duration) {
        self.ran.get_or_create(&KindLabel { kind: kind.to_string() }).observe(took.as_secs_f64());
    }

    /// A claim has ended: `requested` of Redis (nothing, when the lease was known to be lost), which answered `settled` (nothing,
    /// when it was not heard).
    pub fn finished(&self, kind: &Kind, requested: Option<Requested>, settled: Option<Settled>) {
        let outcome = match (settled, requested) {
            (Some(Settled::To(State::Completed)), Some(Requested::Skip)) => "skipped",
            (Some(Settled::To(State::Retrying)), Some(Requested::Release)) | (Some(Settled::To(State::Queued)), _) => {
                "released"
            }
            (Some(Settled::To(state)), _) => state.as_str(),
            (Some(Settled::Stale | Settled::Missing) | None, _) => "lost",
        };
        if matches!(settled, Some(Settled::Stale | Settled::Missing)) {
            self.stale.inc();
        }
        self.finished.get_or_create(&FinishedLabels { kind: kind.to_string(), outcome }).inc();
    }

    /// A partition was swept.
    pub fn swept(&self, swept: &Swept) {
        self.promoted.inc_by(swept.promoted as u64);
        self.expired.inc_by(swept.reclaimed.len() as u64);
        self.recovered.inc_by(swept.recovered as u64);
        self.pruned.inc_by(swept.pruned as u64);
    }

    /// A renewal was answered, so long after the one before, or failed (`None`).
    pub fn renewed(&self, since_last: Option<Duration>, lease: Duration) {
        let outcome = match since_last {
            None => "failed",
            Some(gap) if gap > lease / 3 => "late",
            Some(_) => "ok",
        };
        self.renewals.get_or_create(&RenewalLabels { outcome }).inc();
    }

    /// The text of all, with what others count at this moment.
    pub fn text(&self, redis_up: bool, slots_total: usize, slots_free: usize) -> String {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.redis_up.set(redis_up.into());
        self.slots.set(count(slots_total));
        self.running.set(count(slots_total.saturating_sub(slots_free)));
        render(&self.registry)
    }
}

/// What a settle asks for, as far as its answer does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requested {
    Complete,
    Skip,
    Fail,
    Release,
}

impl Requested {
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Complete { skipped: None, .. } => Requested::Complete,
            Outcome::Complete { .. } => Requested::Skip,
            Outcome::Fail { .. } => Requested::Fail,
            Outcome::Release { .. } => Requested::Release,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_counted_by_what_redis_answered() {
        let (metrics, kind) = (Metrics::new(), Kind::parse("a").unwrap());
        for (requested, settled, outcome) in [
            (Some(Requested::Complete), Some(Settled::To(State::Completed)), "completed"),
            (Some(Requested::Skip), Some(Settled::To(State::Completed)), "skipped"),
            (Some(Requested::Fail), Some(Settled::To(State::Failed)), "failed"),
            (Some(Requested::Fail), Some(Settled::To(State::Retrying)), "retrying"),
            (Some(Requested::Fail), Some(Settled::To(State::Cancelled)), "cancelled"),
            (Some(Requested::Release), Some(Settled::To(State::Queued)), "released"),
            (Some(Requested::Complete), Some(Settled::Stale), "lost"),
        ] {
            metrics.finished(&kind, requested, settled);
            let line = format!("leasehold_jobs_finished_total{{kind=\"a\",outcome=\"{outcome}\"}} 1\n");
            assert!(metrics.text(false, 0, 0).contains(&line), "{line}");
        }
        metrics.finished(&kind, Some(Requested::Release), Some(Settled::To(State::Retrying)));
        metrics.finished(&kind, None, None);
        let text = metrics.text(false, 0, 0);
        assert!(text.contains("outcome=\"released\"} 2\n") && text.contains("outcome=\"lost\"} 2\n"), "{text}");
        assert!(text.contains("leasehold_settles_stale_total 1\n"), "{text}");
    }

    #[test]
    fn a_renewal_is_late_after_a_third_of_a_lease() {
        let metrics = Metrics::new();
        for gap in [Some(100), Some(1_100), None] {
            metrics.renewed(gap.map(Duration::from_millis), Duration::from_secs(3));
        }
        let text = metrics.text(false, 0, 0);
        for outcome in ["ok", "late", "failed"] {
            assert!(text.contains(&format!("leasehold_renewals_total{{outcome=\"{outcome}\"}} 1\n")), "{text}");
        }
    }
}
