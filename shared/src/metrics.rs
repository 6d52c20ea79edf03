//! The metrics of a process at `/metrics`: a registry, and its text format.
//!
//! The Store counts its calls to Redis ([`crate::store::Metrics`]); the API and the worker add families of their own.
//! No label is a job's id, and every label is of a bounded set: kinds and queues are at most
//! [`crate::limits::NAMES_MAX`] each.
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::Timestamp;

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The help of `file_store_failing`, which the API and the worker show.
pub const FILE_STORE_FAILING: &str = "1 when the file store failed at the last try; 0 also without a file store";

/// Buckets for calls of Redis and HTTP, s.
const QUICK_S: [f64; 16] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets for jobs, s: from a trivial handler to a day.
const SLOW_S: [f64; 17] = [
    0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1_800.0, 7_200.0, 21_600.0, 86_400.0,
];

/// A histogram of calls, s.
pub fn quick_histogram() -> Histogram {
    Histogram::new(QUICK_S)
}

/// A histogram of jobs, s.
pub fn slow_histogram() -> Histogram {
    Histogram::new(SLOW_S)
}

/// Whether settings that must be equal in all processes differ between this one and those that started later:
/// `settings_differ{setting}`, 1 or 0.
#[derive(Debug, Default)]
pub struct SettingsDiffer(Family<[(&'static str, &'static str); 1], Gauge>);

impl SettingsDiffer {
    /// Shows it in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        self.set("kinds", false);
        self.set("lease_ms", false);
        let help = "1 when the setting differs from that of the process that started last";
        registry.register("settings_differ", help, self.0.clone());
    }

    /// Sets it for one setting.
    pub fn set(&self, setting: &'static str, differs: bool) {
        self.0.get_or_create(&[("setting", setting)]).set(differs.into());
    }
}

/// A registry whose names begin with `leasehold_`, with the metrics of every process: its program, version and start.
pub fn registry(program: &'static str, version: &'static str, started_at: Timestamp) -> Registry {
    let mut registry = Registry::with_prefix("leasehold");
    let build: Family<[(&'static str, &'static str); 2], Gauge> = Family::default();
    build.get_or_create(&[("program", program), ("version", version)]).set(1);
    registry.register("build_info", "1, for the program and version that run", build);
    let start: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    start.set(started_at.0 as f64 / 1_000.0);
    registry.register("process_start_time_seconds", "When the process started, seconds since 1970", start);
    registry
}

/// All registered metrics, in Prometheus's text format 0.0.4, which every scraper supports.
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).expect("a String takes any text");
    plain(&text)
}

/// Converts OpenMetrics to the older format, in which a counter is described under the name of its samples.
fn plain(open: &str) -> String {
    let (mut text, mut help) = (String::with_capacity(open.len()), "");
    for line in open.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described;
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, sort) = typed.split_once(' ').unwrap_or((typed, "untyped"));
            let total = if sort == "counter" { "_total" } else { "" };
            let said = help.strip_prefix(name).unwrap_or_default();
            text += &format!("# HELP {name}{total}{said}\n# TYPE {name}{total} {sort}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_counter_is_described_by_the_name_of_its_samples() {
        let mut registry = registry("test", "1.2.3", Timestamp(1_500));
        let counter: Counter = Counter::default();
        counter.inc_by(3);
        registry.register("jobs", "Jobs", counter);
        let text = render(&registry);
        assert!(text.contains("# HELP leasehold_jobs_total Jobs.\n# TYPE leasehold_jobs_total counter\n"), "{text}");
        assert!(text.contains("\nleasehold_jobs_total 3\n"), "{text}");
        assert!(text.contains("leasehold_build_info{program=\"test\",version=\"1.2.3\"} 1\n"), "{text}");
        assert!(text.contains("\nleasehold_process_start_time_seconds 1.5\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }
}
