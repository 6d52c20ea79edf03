//! `leasehold bench` runs, reports, refuses wrong input, and leaves nothing behind. What it measures is not judged.
use std::path::Path;
use std::time::Duration;

use leasehold_tests::{Process, eventually, run};
use serde_json::Value;

/// How long a run of a few jobs may take.
const LIMIT: Duration = Duration::from_secs(120);
/// No Redis is there: a run that used it would fail.
const NO_REDIS: (&str, &str) = ("LEASEHOLD_REDIS_URL", "redis://127.0.0.1:1");

/// The processes whose command line or environment names the folder.
fn of_folder(folder: &Path) -> Vec<String> {
    let name = folder.display().to_string();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| std::fs::read(process.path().join(file)).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        let text = String::from_utf8_lossy(&command).replace('\0', " ");
        if text.contains(&name) || String::from_utf8_lossy(&environment).contains(&name) {
            found.push(text);
        }
    }
    found
}

fn entries(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path().display().to_string()).collect()
}

#[tokio::test]
async fn a_bench_measures_reports_as_json_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().display().to_string();
    let arguments = ["bench", "--tiny", "--only", "3,memory,13", "-o", "json"];
    let output = run("leasehold", &arguments, &[NO_REDIS, ("TMPDIR", &temporary)], LIMIT).await;
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let goals = report["goals"].as_array().unwrap();
    let numbers: Vec<u64> = goals.iter().map(|goal| goal["goal"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [3, 6, 13], "{report:#}");
    for goal in goals {
        assert_eq!(goal["fault"], Value::Null, "{goal:#}");
        for row in goal["rows"].as_array().unwrap() {
            // What so few jobs take is less than what the buffers of Redis change by.
            let is_memory = row["unit"] == "bytes";
            assert!(row["measured"]["median"].as_f64().is_some_and(|value| value > 0.0 || is_memory), "{row:#}");
            assert!(row["what"].is_string() && row["unit"].is_string(), "{row:#}");
        }
    }
    let life = &goals[0]["rows"][0];
    assert!(life["ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{life:#}");
    assert_eq!(life["needed"], serde_json::json!({"at_most": 1.1}));
    assert_eq!(life["compared_with"]["measured"]["runs"].as_array().map(Vec::len), Some(1));
    let machine = &report["machine"];
    assert!(machine["cores"].is_u64() && machine["redis"].is_string() && machine["fsync_us"].is_number(), "{report:#}");
    let met = goals.iter().all(|goal| goal["met"] != Value::Bool(false));
    assert_eq!((report["met"].as_bool(), output.status.code()), (Some(met), Some(i32::from(!met))));
    assert_eq!((entries(folder.path()), of_folder(folder.path())), (vec![], vec![]));
}

#[tokio::test]
async fn a_bench_shows_people_a_table_of_the_goals() {
    let output = run("leasehold", &["bench", "--tiny", "--only", "partitions"], &[NO_REDIS], LIMIT).await;
    for text in ["cores", "Redis", "GOAL", "NEEDED", "drain, 4 partitions", "1 partition", "≥ 0.850", "quick run"] {
        assert!(output.stdout.contains(text), "{text}: {output:?}");
    }
    assert!(output.stdout.contains("met by") || output.stdout.contains("NOT MET by"), "{output:?}");
    assert!(!output.stdout.contains("FAILED"), "{output:?}");
}

#[tokio::test]
async fn a_bench_of_an_unknown_goal_names_the_goals_there_are() {
    for (arguments, said) in [
        (&["bench", "--only", "memory,fast"][..], &["unknown goal \"fast\"", "3 (redis-cpu)", "13 (commands)"][..]),
        (&["bench", "--only", ""], &["unknown goal \"\""]),
        (&["bench", "--api", "http://127.0.0.1:1"], &["--api is not for this command"]),
        (&["bench", "--rounds", "3"], &["unexpected argument '--rounds'"]),
    ] {
        let output = run("leasehold", arguments, &[], LIMIT).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(said.iter().all(|said| output.stderr.contains(said)), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}

#[tokio::test]
async fn an_interrupted_bench_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().display().to_string();
    let bench = Process::ours("leasehold", &["bench", "--quick", "--only", "8"], &[("TMPDIR", &temporary)]);
    // In the middle of the measurement: Redis and the worker run.
    let running = async || of_folder(folder.path()).iter().any(|command| command.contains("bench-role worker"));
    eventually(LIMIT, "the worker of the bench runs", running).await;
    bench.sigint();
    let status = bench.wait_exit(LIMIT).await;
    assert_eq!(status.code(), Some(1), "{}", bench.stderr());
    assert!(bench.stderr().contains("interrupted"), "{}", bench.stderr());
    assert_eq!((entries(folder.path()), of_folder(folder.path())), (vec![], vec![]));
}
