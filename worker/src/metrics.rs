//! A worker's metrics: the jobs it claims and how they end, its sweeps and its renewals.
use std::time::Duration;

use leasehold::metrics::{SettingsDiffer, registry, render, slow_histogram};
use leasehold::store::{self, ClaimedJob, Differences, Outcome, Settled, Swept};
use leasehold::{Kind, QueueName, State, Timestamp};
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
    queue: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RenewalLabels {
    outcome: &'static str,
}

/// The metrics of one worker. `finished` counts every claimed job once, when it no longer runs here.
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
    /// Reservations that were never leased, returned to their queues.
    pub recovered: Counter,
    /// Jobs released because their claim was answered too late.
    pub released: Counter,
    promoted: Counter,
    pruned: Counter,
    set_aside: Counter,
    slots: Gauge,
    running: Gauge,
    redis_up: Gauge,
    files_failing: Gauge,
    differ: SettingsDiffer,
}

impl Metrics {
    /// All metrics, at zero.
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
            set_aside: Counter::default(),
            slots: Gauge::default(),
            running: Gauge::default(),
            redis_up: Gauge::default(),
            files_failing: Gauge::default(),
            differ: SettingsDiffer::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        self.store.register(registry);
        self.differ.register(registry);
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("redis_up", "1 if Redis answered the last call, else 0", &self.redis_up);
        gauge("file_store_failing", leasehold::metrics::FILE_STORE_FAILING, &self.files_failing);
        gauge("worker_slots", "Jobs the worker can run at once", &self.slots);
        gauge("worker_slots_busy", "Slots in use: jobs running now", &self.running);
        let mut count = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        count("leases_expired", "Expired leases of lost workers that this worker's sweeps reclaimed", &self.expired);
        count("settles_stale", "Job outcomes rejected because the lease was lost", &self.stale);
        count("reservations_recovered", "Reservations never leased, returned to their queues", &self.recovered);
        count("claims_released", "Jobs released because their claim was answered too late", &self.released);
        count("jobs_promoted", "Jobs that became due", &self.promoted);
        count("jobs_pruned", "Finished jobs removed by retention", &self.pruned);
        count("keys_set_aside", "Unreadable records and keys that were set aside; the log names each", &self.set_aside);
        registry.register("jobs_claimed", "Jobs claimed", self.claimed.clone());
        registry.register("jobs_finished", "Claimed jobs that no longer run here, by outcome", self.finished.clone());
        registry.register(
            "job_wait_duration_seconds",
            "Time from a job being due to its first claim",
            self.waited.clone(),
        );
        registry.register("job_run_duration_seconds", "Run time of handlers", self.ran.clone());
        registry.register(
            "renewals",
            "Renewals of a partition's leases, by outcome; late: more than a third of a lease after the last one",
            self.renewals.clone(),
        );
    }

    /// The metrics of the Store's calls.
    pub fn store(&self) -> &store::Metrics {
        &self.store
    }

    /// Shows whether the file store fails.
    pub fn files_fail(&self, fails: bool) {
        self.files_failing.set(fails.into());
    }

    /// Shows which settings differ from those of other processes.
    pub fn differ(&self, differences: &Differences) {
        self.differ.set("kinds", !differences.kinds.is_empty());
        self.differ.set("lease_ms", differences.lease_ms.is_some());
    }

    /// Counts a claimed job.
    pub fn claimed(&self, job: &ClaimedJob) {
        let kind = KindLabel { kind: job.kind.to_string() };
        self.claimed.get_or_create(&kind).inc();
        if let Some(ms) = job.waited_ms {
            self.waited.get_or_create(&kind).observe(Duration::from_millis(ms).as_secs_f64());
        }
    }

    /// Records the run time of a handler.
    pub fn ran(&self, kind: &Kind, took: Duration) {
        self.ran.get_or_create(&KindLabel { kind: kind.to_string() }).observe(took.as_secs_f64());
    }

    /// Counts a job that no longer runs here: `requested` is its settle (`None`: none was sent, the lease was lost) and
    /// `settled` the reply (`None`: none was received).
    pub fn finished(&self, kind: &Kind, queue: &QueueName, requested: Option<Requested>, settled: Option<Settled>) {
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
        let labels = FinishedLabels { kind: kind.to_string(), queue: queue.to_string(), outcome };
        self.finished.get_or_create(&labels).inc();
    }

    /// Counts the results of a partition's sweep.
    pub fn swept(&self, swept: &Swept) {
        self.promoted.inc_by(swept.promoted as u64);
        self.expired.inc_by(swept.reclaimed.len() as u64);
        self.recovered.inc_by(swept.recovered as u64);
        self.pruned.inc_by(swept.pruned as u64);
        self.set_aside.inc_by(swept.set_aside as u64);
    }

    /// Counts a renewal: answered `gap` after the one before, or failed (`None`).
    pub fn renewed(&self, since_last: Option<Duration>, lease: Duration) {
        let outcome = match since_last {
            None => "failed",
            Some(gap) if gap > lease / 3 => "late",
            Some(_) => "ok",
        };
        self.renewals.get_or_create(&RenewalLabels { outcome }).inc();
    }

    /// All metrics as text, with the gauges set to these values.
    pub fn text(&self, redis_up: bool, slots_total: usize, slots_free: usize) -> String {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.redis_up.set(redis_up.into());
        self.slots.set(count(slots_total));
        self.running.set(count(slots_total.saturating_sub(slots_free)));
        render(&self.registry)
    }
}

/// The outcome that a settle requests, where its reply does not show it.
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
        let (metrics, kind, queue) = (Metrics::new(), Kind::parse("a").unwrap(), QueueName::parse("q").unwrap());
        for (requested, settled, outcome) in [
            (Some(Requested::Complete), Some(Settled::To(State::Completed)), "completed"),
            (Some(Requested::Skip), Some(Settled::To(State::Completed)), "skipped"),
            (Some(Requested::Fail), Some(Settled::To(State::Failed)), "failed"),
            (Some(Requested::Fail), Some(Settled::To(State::Retrying)), "retrying"),
            (Some(Requested::Fail), Some(Settled::To(State::Cancelled)), "cancelled"),
            (Some(Requested::Release), Some(Settled::To(State::Queued)), "released"),
            (Some(Requested::Complete), Some(Settled::Stale), "lost"),
        ] {
            metrics.finished(&kind, &queue, requested, settled);
            let line = format!("leasehold_jobs_finished_total{{kind=\"a\",queue=\"q\",outcome=\"{outcome}\"}} 1\n");
            assert!(metrics.text(false, 0, 0).contains(&line), "{line}");
        }
        metrics.finished(&kind, &queue, Some(Requested::Release), Some(Settled::To(State::Retrying)));
        metrics.finished(&kind, &queue, None, None);
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
