//! File batches: metadata and results, either alone, and what is not done running on a real worker.
use std::fs;
use std::path::Path;

use leasehold_tests::{System, eventually};
use serde_json::{Value, json};

use super::{finish, import, items, job, kinds_file, named, records, round, shipped};
use crate::steered_command::SOON;

fn states(items: &[Value]) -> Vec<(&str, &str)> {
    items.iter().map(|item| (item["payload"]["file"].as_str().unwrap(), item["state"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn batches_come_along_and_what_is_not_done_runs() {
    for partitions in ["1", "4"] {
        let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let old = shipped(&system, "file-batches");
        let said = round(&system, "files", &[&old]).await;
        assert_eq!((said.counts(), &said.report["items"]), ((3, 0, 2), &json!(8)));
        assert!(said.why("job_metadata/77aa0e31.json").contains("not valid JSON"));
        assert_eq!(said.report["skipped"][1]["line"], 3);

        let done = job(&system, "271945c6").await;
        let counts = json!({"total": 3, "succeeded": 0, "failed": 3, "skipped": 0, "cancelled": 0, "open": false});
        assert_eq!((&done["state"], &done["items"]), (&json!("completed"), &counts), "all failed, and completed");
        assert_eq!(
            (&done["imported"]["processing_time"], &done["created_at"]),
            (&json!(0.000319), &json!("2025-09-16T20:44:07.533Z"))
        );
        let of_it = items(&system, "271945c6").await;
        assert_eq!((of_it.len(), &of_it[0]["error"]["message"]), (3, &json!("File not found")));
        assert_eq!(of_it[0]["imported"]["timestamp"], "2025-09-16T20:44:07.533904");
        let alone = job(&system, "5d0c11aa").await;
        assert_eq!((&alone["state"], &alone["items"]["succeeded"]), (&json!("completed"), &json!(2)));
        assert_eq!(alone["imported"]["end_time"], "2025-09-15T10:00:00.200000");
        let open = items(&system, "9be2f014").await;
        let expected =
            [("harbour-rules.pdf", "completed"), ("night-shift.txt", "queued"), ("almanac-of-daylight.txt", "queued")];
        assert_eq!(states(&open), expected);

        let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/process-files/documents");
        let worker = system.worker(&[("LEASEHOLD_DOCUMENT_ROOT", documents.to_str().unwrap())]);
        eventually(SOON, "the batch ends", async || {
            let batch = job(&system, "9be2f014").await;
            (batch["state"] == "completed").then_some(()).ok_or(batch.to_string())
        })
        .await;
        let ran = items(&system, "9be2f014").await;
        assert!(ran[1]["result"]["words"].as_u64().unwrap() > 10, "{}", ran[1]);
        assert_eq!(
            (&ran[0]["token"], &ran[0]["result"]),
            (&Value::Null, &Value::Null),
            "what was done is not done again"
        );
        worker.kill9();
        let before = records(&system).await;
        assert_eq!(import(&system, "files", &[&old]).await.counts(), (0, 3, 2));
        assert_eq!(records(&system).await, before, "what has run since stays as it is");
        finish(system).await;
    }
}

#[tokio::test]
async fn a_batch_ends_as_it_had_ended_and_its_lines_are_the_truth() {
    let kinds = kinds_file("process-files");
    let system = System::start(&[("LEASEHOLD_KINDS", named(&kinds))]).await;
    let (metadata, results) = (system.folder().join("job_metadata"), system.folder().join("job_results"));
    fs::create_dir(&metadata).unwrap();
    fs::create_dir(&results).unwrap();
    let line = |name: &str, success: bool| {
        json!({"filename": name, "success": success, "timestamp": "2025-09-16T20:44:07"}).to_string()
    };
    for (id, record, lines) in [
        // More files are counted than there are lines, one of them skipped.
        (
            "lines",
            json!({"status": "Completed", "total_files": 4, "successful_files": 4, "skipped_files": 1}),
            vec![line("a", true), line("b", false)],
        ),
        ("broken", json!({"status": "Failed", "total_files": 1, "error": "disk full"}), vec![line("a", false)]),
        ("stopped", json!({"status": "Cancelled", "total_files": 5}), vec![line("a", true)]),
        ("nameless", json!({"status": "Processing", "total_files": 3}), vec![line("a", true)]),
        ("new", json!({"status": "Pending", "files": ["b", "", "b"], "total_files": 3}), vec![]),
        ("none", json!({"status": "Completed", "total_files": 2, "end_time": "2025-09-16T20:44:08"}), vec![]),
    ] {
        let mut record = record;
        record["job_id"] = json!(id);
        fs::write(metadata.join(format!("{id}.json")), record.to_string()).unwrap();
        if !lines.is_empty() {
            fs::write(
                results.join(format!("job_{id}_results.jsonl")),
                format!("\u{feff}{}\r\n\r\n", lines.join("\r\n")),
            )
            .unwrap();
        }
    }
    fs::write(results.join("README.md"), "not a record").unwrap();
    let said = import(&system, "files", &[&metadata]).await;
    assert_eq!(said.counts(), (6, 0, 0), "{:#}", said.report);
    assert!(said.notes().contains("does not name 2 of its files"), "{}", said.notes());
    for (id, state, counts) in [
        ("lines", "completed", [3, 1, 1, 1]),
        ("broken", "failed", [1, 0, 1, 0]),
        ("stopped", "cancelled", [1, 1, 0, 0]),
        ("nameless", "failed", [1, 1, 0, 0]),
        ("new", "waiting", [3, 0, 0, 2]),
        ("none", "completed", [0, 0, 0, 0]),
    ] {
        let batch = job(&system, id).await;
        let seen = ["total", "succeeded", "failed", "skipped"].map(|name| batch["items"][name].as_u64().unwrap());
        assert_eq!((batch["state"].as_str().unwrap(), seen), (state, counts), "{batch}");
    }
    assert_eq!(job(&system, "broken").await["error"]["message"], "disk full");
    let api = system.api(&[]).await;
    let view = api.get("/job_results/lines").await.json;
    assert_eq!(view["results"].as_array().map(Vec::len), Some(2), "skipped files are not listed: {view}");
    drop(api);
    finish(system).await;
}

#[tokio::test]
async fn bad_lines_are_named_and_the_rest_goes_on() {
    let system = System::start(&[]).await;
    let results = system.folder().join("job_results");
    fs::create_dir(&results).unwrap();
    let mut lines: Vec<u8> = Vec::new();
    for line in [
        &b"{\"job_id\": \"mixed\", \"total_files\": 9}"[..],
        b"{\"filename\": \"a\", \"success\": true}",
        b"{\"filename\": \"b\", \"success\": \"yes\"}",
        b"{\"filename\": 3, \"success\": true}",
        b"\xff\xfe",
        b"[]",
        b"{\"filename\": \"c\"}",
        b"{\"filename\": \"d\", \"error\": \"File not found\"}",
        b"{\"filename\": \"e\", \"success\": true, \"score\": NaN}",
        b"{\"filename\": \"f\", \"success\": true",
    ] {
        lines.extend_from_slice(line);
        lines.push(b'\n');
    }
    fs::write(results.join("job_mixed_results.jsonl"), lines).unwrap();
    let said = import(&system, "files", &[&results]).await;
    assert_eq!(said.counts(), (1, 0, 6), "{:#}", said.report);
    let numbers: Vec<u64> =
        said.report["skipped"].as_array().unwrap().iter().map(|s| s["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [3, 4, 5, 6, 7, 10]);
    assert_eq!(states(&items(&system, "mixed").await), [("a", "completed"), ("d", "failed"), ("e", "completed")]);
    finish(system).await;
}
