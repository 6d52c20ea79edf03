//! `make bench-peers` without its measurements, which need a quiet machine: its programs can be read, wrong input is
//! refused, and a finished run is judged and reported.
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn bench(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench").join(name)
}

fn python(arguments: &[&str]) -> Output {
    let ran = Command::new("python3").args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").output();
    ran.expect("python3 runs (scripts/install-tools.sh python3 installs it)")
}

fn peers(arguments: &[&str]) -> (Option<i32>, String, String) {
    let script = bench("peers.py").display().to_string();
    let ended = python(&[&[script.as_str()], arguments].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
}

#[test]
fn the_programs_of_the_comparison_can_be_read() {
    let folder = bench("").display().to_string();
    let parse = "import ast, pathlib, sys
files = sorted(pathlib.Path(sys.argv[1]).rglob('*.py'))
[ast.parse(file.read_text(), str(file)) for file in files]
print(len(files))";
    let ended = python(&["-c", parse, &folder]);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let files: usize = String::from_utf8_lossy(&ended.stdout).trim().parse().unwrap();
    assert!(files > 5, "{files} files");
    let node = Command::new("node").arg("--check").arg(bench("bullmq/bullmq.mjs")).output();
    let node = node.expect("node runs (scripts/install-tools.sh node installs it)");
    assert!(node.status.success(), "{}", String::from_utf8_lossy(&node.stderr));
}

#[test]
fn what_cannot_be_compared_is_refused_with_what_can() {
    for (arguments, said) in [
        (&["--only", "resque"][..], "resque: choose from leasehold, bullmq, sidekiq, celery, apalis"),
        (&["--only", ","], "nothing: choose from"),
        (&["--jobs", "0"], "'0': a whole number of at least 1"),
        (&["--rounds", "two"], "'two': a whole number of at least 1"),
        (&["--docs", "--quick"], "leave out --only and --quick"),
        (&["--report", "/nonexistent/run.json"], "/nonexistent/run.json"),
        (&["--report", "x", "--quick"], "leave out what would change it"),
        (&["--only", "leasehold", "--leasehold", "/nonexistent/peer"], "--example peer"),
    ] {
        let (code, _, errors) = peers(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
        assert!(!errors.contains("Traceback"), "{arguments:?}: {errors}");
    }
}

/// A run in which Leasehold drains `drain` times as fast as BullMQ, and twice as fast in each other way that counts.
fn run_with(drain: f64) -> Value {
    let figures = |drain: f64, enqueue: f64, latency: f64| {
        json!({
            "drain_1": 1_000.0 * drain, "drain_2": 2_000.0 * drain, "drain_1_us": 9.0, "drain_2_us": 9.0,
            "enqueue_one": 100.0 * enqueue, "enqueue_concurrent": 200.0 * enqueue, "enqueue_bulk": 300.0 * enqueue,
            "enqueue_one_us": 5.0, "enqueue_concurrent_us": 4.0, "enqueue_bulk_us": 3.0,
            "latency_p50": 100.0 * latency, "latency_p99": 200.0 * latency,
        })
    };
    let round = json!({
        "leasehold": figures(drain, 4.5, 0.4), "bullmq": figures(1.0, 1.0, 3.0), "sidekiq": figures(1.5, 2.0, 1.0),
    });
    json!({
        "date": "2026-11-27", "machine": { "cores": 2, "processor": "a processor" }, "redis": "7.0.15",
        "versions": { "bullmq": "BullMQ 6.7.0" }, "sizes": { "jobs": 1_000, "rounds": 3 }, "load": 0.1,
        "rounds": [round, round, round],
    })
}

#[test]
fn a_missed_goal_is_an_error_and_says_by_how_much() {
    let folder = tempfile::tempdir().unwrap();
    let (file, copy) = (folder.path().join("run.json"), folder.path().join("copy.json"));
    let report = |drain: f64| {
        std::fs::write(&file, run_with(drain).to_string()).unwrap();
        peers(&["--report", &file.display().to_string(), "--json", &copy.display().to_string()])
    };

    let (code, printed, errors) = report(5.0);
    assert_eq!(code, Some(0), "{printed}{errors}");
    assert!(printed.contains("met    drain, two workers: 5.00 × BullMQ (5.00–5.00), goal at least 4.5 ×: 11 % above"));
    assert!(printed.contains("met    start latency, median: 0.40 × Sidekiq (free) (0.40–0.40), goal at most 0.5 ×"));
    assert!(printed.contains("not guaranteed: that a job survives the crash of its worker"), "{printed}");
    let copied: Value = serde_json::from_slice(&std::fs::read(&copy).unwrap()).unwrap();
    assert_eq!(copied["summary"]["leasehold"]["drain_2"]["median"], 10_000.0);
    assert_eq!(copied["goals"].as_array().unwrap().len(), 7);

    let (code, printed, errors) = report(4.0);
    assert_eq!(code, Some(1), "{printed}{errors}");
    assert!(printed.contains("MISSED drain, two workers: 4.00 × BullMQ (4.00–4.00), goal at least 4.5 ×: 11 % below"));
    assert!(printed.contains("met    drain, one worker: 4.00 × BullMQ"), "{printed}");
}
