//! Screenshots: batches whose items stand in one file.
use std::fs;

use leasehold_tests::System;
use serde_json::json;

use super::{finish, import, items, job, kinds_file, named, round, shipped};

#[tokio::test]
async fn batches_come_along_with_their_items() {
    for partitions in ["1", "4"] {
        let kinds = kinds_file("screenshots");
        let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions), ("LEASEHOLD_KINDS", named(&kinds))]).await;
        let old = shipped(&system, "screenshots");
        let said = round(&system, "screenshots", &[&old]).await;
        assert_eq!((said.counts(), &said.report["items"]), ((2, 0, 1), &json!(4)));
        assert_eq!(said.why("batch-e5f6a7b8.json"), "it is empty");
        let done = job(&system, "batch-7d87a3dc").await;
        assert_eq!((&done["state"], &done["imported"]["total_processing_time"]), (&json!("completed"), &json!(3.334)));
        assert_eq!(
            (&done["created_at"], &done["imported"]["items"]),
            (&json!("2023-12-21T01:50:56.789Z"), &json!(null))
        );
        let open = items(&system, "batch-a1b2c3d4").await;
        assert_eq!((&open[0]["state"], &open[1]["state"]), (&json!("completed"), &json!("queued")));
        let config = json!({"width": 800, "height": 600, "format": "png"});
        assert_eq!(
            open[1]["payload"],
            json!({"id": "about", "url": "http://127.0.0.1:8765/clock.html", "config": config, "cache": false})
        );
        let api = system.api(&[]).await;
        let view = api.get("/batch/results/batch-7d87a3dc").await.json;
        assert_eq!(view["items"]["item1"]["result"]["url"], "https://images.example.org/7d87a3dc/item1.png");
        assert_eq!(
            (&view["items"]["item2"]["status"], &view["created_at"]),
            (&json!("failed"), &json!(1703123456.789))
        );
        drop(api);
        finish(system).await;
    }
}

#[tokio::test]
async fn a_batch_that_had_ended_ends_and_a_bad_item_is_named() {
    let system = System::start(&[]).await;
    let old = system.folder().join("jobs");
    fs::create_dir(&old).unwrap();
    let write = |id: &str, text: String| fs::write(old.join(format!("{id}.json")), text).unwrap();
    let pending = json!({"id": "p", "status": "pending", "url": "https://example.org"});
    for status in ["cancelled", "completed", "failed"] {
        let items = json!({"s": {"status": "success"}, "k": {"status": "skipped"}, "p": pending});
        let record =
            json!({"job_id": status, "status": status, "items": items, "created_at": 1.7e9, "completed_at": 1.70001e9});
        write(status, record.to_string());
    }
    let items = json!({"bad": 5, "worse": {"status": "asleep"}, "lost": {"status": "pending"}, "p": pending});
    write("mixed", json!({"status": "pending", "items": items, "config": {"width": -1, "format": 7}}).to_string());
    write("listed", json!({"status": "processing", "items": [pending, pending], "created_at": 1e300}).to_string());
    write("wrong", json!({"status": "completed", "items": "none"}).to_string());
    write("nan", "{\"status\": \"completed\", \"items\": {}, \"created_at\": NaN}".into());
    write("bare", json!({"status": "completed"}).to_string());
    let said = import(&system, "screenshots", &[&old]).await;
    assert_eq!(said.counts(), (7, 0, 3), "{:#}", said.report);
    assert!(said.why("wrong.json").contains("\"items\" must be an object"));
    assert!(said.notes().contains("no url for it") && said.notes().contains("so it is cancelled"), "{}", said.notes());
    for (id, state, counts) in [
        ("cancelled", "cancelled", [3, 1, 0, 1, 1]),
        ("completed", "completed", [3, 1, 0, 1, 1]),
        ("failed", "failed", [3, 1, 0, 1, 1]),
        ("mixed", "waiting", [2, 0, 1, 0, 0]),
        ("listed", "waiting", [2, 0, 0, 0, 0]),
        ("bare", "completed", [0, 0, 0, 0, 0]),
        ("nan", "completed", [0, 0, 0, 0, 0]),
    ] {
        let batch = job(&system, id).await;
        let names = ["total", "succeeded", "failed", "skipped", "cancelled"];
        let seen = names.map(|name| batch["items"][name].as_u64().unwrap());
        assert_eq!((batch["state"].as_str().unwrap(), seen), (state, counts), "{batch}");
    }
    let queued = &items_of(&system, "mixed").await[1];
    assert_eq!(queued["payload"]["config"], json!({"width": 1280, "height": 800, "format": "png"}));
    // An operator's retry of the batch runs what was pending in it.
    let retried = system.command(&["jobs", "retry", "completed"], &[]).await;
    assert!(retried.status.success(), "{retried:?}");
    finish(system).await;
}

async fn items_of(system: &System, id: &str) -> Vec<serde_json::Value> {
    items(system, id).await
}
