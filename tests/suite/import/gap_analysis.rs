//! Gap analysis: records with and without results, to the file store and without one.
use std::fs;

use leasehold_tests::{System, run};
use serde_json::{Value, json};

use super::{Said, finish, import, job, kinds_file, named, round, shipped};
use crate::steered_command::SOON;

const DONE: &str = "3f0d4a52-6a0e-4c55-8a5e-6f0c7d9b1e01";
const FAILED: &str = "8b1de0f3-20c8-4a43-bb43-7d1f8a6d9c02";
const RUNNING: &str = "c94f6a7b-9c0b-4e0f-8a0e-5a2d3c4b5a03";

#[tokio::test]
async fn jobs_come_along_as_they_were_with_their_results() {
    for partitions in ["1", "4"] {
        let kinds = kinds_file("gap-analysis");
        let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions), ("LEASEHOLD_KINDS", named(&kinds))]).await;
        let old = shipped(&system, "gap-analysis");
        let said = round(&system, "gap-analysis", &[&old]).await;
        assert_eq!(said.counts(), (3, 0, 1));
        assert!(said.why("job_e0a6bd0c-44b8-4d5c-8d21-2f9f1c6a7d04.json").contains("not valid JSON"));

        let name = format!("gap_analysis_{DONE}_20240101_120500.json");
        let done = job(&system, DONE).await;
        assert_eq!((&done["state"], &done["kind"]), (&json!("completed"), &json!("gap-analysis")));
        assert_eq!(done["created_at"], "2024-01-01T12:00:00.000Z");
        assert_eq!(done["result"], json!({"result_file": name, "gaps": 1, "documents": 2}));
        let record = fs::read_to_string(old.join(format!("gap_analysis_jobs/job_{DONE}.json"))).unwrap();
        assert_eq!(done["imported"], serde_json::from_str::<Value>(&record).unwrap());
        let api = system.api(&[]).await;
        let file = api.get(&format!("/api/v1/jobs/{DONE}/files/{name}")).await;
        let original = fs::read_to_string(old.join("gap_analysis_results").join(&name)).unwrap();
        assert_eq!((file.status, &file.text), (200, &original));
        let view = api.get(&format!("/api/v1/gap-analysis/jobs/{DONE}")).await.json;
        assert_eq!((&view["completed_at"], &view["result_file"]), (&json!("2024-01-01T12:05:00"), &json!(name)));
        let history = api.get(&format!("/api/v1/jobs/{DONE}/history")).await.json;
        assert_eq!(
            (&history["history"][0]["event"], &history["history"][1]["event"]),
            (&json!("submit"), &json!("import"))
        );
        drop(api);

        let failed = job(&system, FAILED).await;
        assert_eq!(
            (&failed["state"], &failed["error"]["message"]),
            (&json!("failed"), &json!("404 Client Error: Not Found"))
        );
        let running = job(&system, RUNNING).await;
        assert_eq!(running["state"], "queued");
        let payload = json!({"url": "http://127.0.0.1:8766/gates.html", "max_papers": 3, "validation_threshold": 1});
        assert_eq!(running["payload"], payload);
        finish(system).await;
    }
}

#[tokio::test]
async fn without_a_file_store_a_result_stands_in_its_job_or_is_reported() {
    let system = System::start(&[]).await;
    let old = shipped(&system, "gap-analysis");
    let large = json!({"job_id": "large", "status": "completed", "result_file": "gap_analysis_large_1.json"});
    fs::write(old.join("gap_analysis_jobs/job_large.json"), large.to_string()).unwrap();
    let result = json!({"gaps": [], "documents": vec!["https://example.org/"; 1_000]});
    fs::write(old.join("gap_analysis_results/gap_analysis_large_1.json"), result.to_string()).unwrap();
    // Not by the system, whose processes have a file store.
    let (url, jobs) = (system.redis().url(), old.join("gap_analysis_jobs"));
    let arguments = ["import", "--from", "gap-analysis", "-o", "json", jobs.to_str().unwrap()];
    let environment = [("LEASEHOLD_REDIS_URL", url.as_str()), ("LEASEHOLD_LIMITS__RESULT_BYTES", "2000")];
    let output = run("leasehold", &arguments, &environment, SOON).await;
    let said = Said { report: serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")) };
    assert_eq!(said.counts(), (4, 0, 2));
    assert!(said.why("gap_analysis_large_1.json").contains("without a storage_url"));
    assert_eq!(job(&system, DONE).await["result"]["gaps"][0]["support"], 2);
    let large = job(&system, "large").await;
    assert_eq!((&large["state"], &large["result"]), (&json!("completed"), &Value::Null));
    finish(system).await;
}

#[tokio::test]
async fn results_are_found_in_a_second_path_and_a_lost_or_broken_one_is_reported() {
    let system = System::start(&[]).await;
    let old = shipped(&system, "gap-analysis");
    let jobs = old.join("gap_analysis_jobs");
    let apart = system.folder().join("apart");
    fs::rename(old.join("gap_analysis_results"), &apart).unwrap();
    for (id, file) in [("lost", "gap_analysis_lost_1.json"), ("broken", "gap_analysis_broken_1.json"), ("climbs", "..")]
    {
        let record =
            json!({"job_id": id, "status": "completed", "created_at": "2024-01-01T12:00:00", "result_file": file});
        fs::write(jobs.join(format!("job_{id}.json")), record.to_string()).unwrap();
    }
    fs::write(apart.join("gap_analysis_broken_1.json"), "{\"gaps\": [").unwrap();
    let said = import(&system, "gap-analysis", &[&jobs, &apart]).await;
    assert_eq!(said.counts(), (6, 0, 4));
    assert!(said.why("gap_analysis_broken_1.json").contains("valid JSON"));
    assert!(said.why("job_lost.json").contains("there is no gap_analysis_lost_1.json"));
    assert!(said.why("job_climbs.json").contains("not allowed"));
    assert_eq!(job(&system, DONE).await["result"]["gaps"], 1);
    finish(system).await;
}

#[tokio::test]
async fn a_field_of_a_wrong_type_is_named_and_a_missing_one_has_a_fallback() {
    let system = System::start(&[]).await;
    let old = system.folder().join("jobs");
    fs::create_dir(&old).unwrap();
    let good = json!({"job_id": "x", "request": {"url": "https://example.org"}, "status": "pending", "created_at": "2024-01-01T12:00:00"});
    for (at, (field, value, said)) in [
        ("status", json!("asleep"), "one of pending, running, completed, failed, cancelled"),
        ("status", json!(5), "\"status\" is 5; it must be a text"),
        ("status", Value::Null, "\"status\" is missing"),
        ("request", json!("https://example.org"), "\"request\""),
        ("request", json!({"url": 7}), "request.url"),
        ("request", json!({"url": "https://example.org", "max_papers": -1}), "request.max_papers"),
        ("created_at", json!([]), "\"created_at\""),
        ("error_message", json!({}), "\"error_message\""),
        ("result_file", json!(1), "\"result_file\""),
        ("job_id", json!(12), "\"job_id\""),
        ("job_id", json!("a/b"), "1 to 64 of A-Z"),
        ("job_id", json!("x".repeat(65)), "1 to 64 of A-Z"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut record = good.clone();
        record["job_id"] = json!(format!("w{at}"));
        record[field] = value;
        let name = format!("job_w{at}.json");
        fs::write(old.join(&name), record.to_string()).unwrap();
        let wrong = import(&system, "gap-analysis", &[&old.join(&name)]).await;
        assert_eq!(wrong.counts(), (0, 0, 1), "{record}");
        assert!(wrong.why(&name).contains(said), "{record}: {}", wrong.report);
        fs::remove_file(old.join(name)).unwrap();
    }
    for (id, record) in [
        ("odd", json!({"status": "Completed", "created_at": "last Tuesday", "completed_at": "2024-01-01 12:00:00"})),
        ("bare", json!({"status": "cancelled"})),
        ("empty", json!({"status": "running"})),
        ("ftp", json!({"status": "pending", "request": {"url": "ftp://example.org"}})),
    ] {
        fs::write(old.join(format!("job_{id}.json")), record.to_string()).unwrap();
    }
    let said = import(&system, "gap-analysis", &[&old]).await;
    assert_eq!(said.counts(), (4, 0, 0));
    assert!(
        said.notes().contains("no url for it") && said.notes().contains("not an http or https URL"),
        "{}",
        said.notes()
    );
    let odd = job(&system, "odd").await;
    assert_eq!(
        (&odd["created_at"], &odd["imported"]["created_at"]),
        (&json!("2024-01-01T12:00:00.000Z"), &json!("last Tuesday"))
    );
    assert_eq!(job(&system, "bare").await["state"], "cancelled");
    let ftp = job(&system, "ftp").await;
    assert!(ftp["error"]["message"].as_str().unwrap().contains("cannot run"), "{ftp}");
    finish(system).await;
}
