//! Screenshots (003).
use super::*;

const SHOTS: &str = "/batch/screenshots";

#[tokio::test]
async fn a_batch_is_followed_to_its_images() {
    let five = Five::start(&[]).await;
    let items: Vec<Value> =
        [("item1", "https://a.org"), ("ä \"2\"", "https://b.org/spoilt"), ("3", "https://c.org/needless")]
            .map(|(id, url)| json!({"id": id, "url": url}))
            .into();
    let submitted = five.api.post(SHOTS, &json!({"items": items, "config": {"width": 640}})).await;
    let id = taken(&submitted);
    assert_eq!((submitted.status, &submitted.json), (202, &json!({"job_id": id, "status": "pending", "total": 3})));
    let item = five.job(&id).await;
    let first = five.store.item_id(&item.id, five.store.partition_of(&item.id), 0);
    let payload: Value = five.job(first.as_str()).await.payload.to().unwrap();
    let config = json!({"width": 640, "height": 800, "format": "png"});
    assert_eq!(payload, json!({"id": "item1", "url": "https://a.org", "config": config, "cache": true}));
    let path = format!("{SHOTS}/{id}");
    let waiting = five.api.get(&format!("{path}/results")).await.json;
    has(&waiting, &["job_id", "status", "items", "created_at", "completed_at", "total_processing_time"]);
    let pending = json!({"id": "item1", "status": "pending", "result": null, "cached": false});
    assert_eq!((&waiting["status"], &waiting["items"]["item1"]), (&json!("pending"), &pending));
    assert!(waiting["created_at"].as_f64().is_some_and(|at| at > 1.7e9), "{waiting}");
    assert_eq!((&waiting["completed_at"], &waiting["total_processing_time"]), (&Value::Null, &Value::Null));
    let _worker = five.worker();
    five.open_gate();
    let counts = five.has_status(&path, "completed").await;
    let counts =
        ["total", "pending", "success", "failed", "skipped", "cancelled"].map(|name| counts[name].as_u64().unwrap());
    assert_eq!(counts, [3, 0, 1, 1, 1, 0]);
    let done = five.api.get(&format!("{path}/results")).await.json;
    assert_eq!(five.api.get(&format!("/batch/results/{id}")).await.json, done);
    let took = done["completed_at"].as_f64().unwrap() - done["created_at"].as_f64().unwrap();
    assert!((done["total_processing_time"].as_f64().unwrap() - took).abs() < 0.01, "{done}");
    let url = five.api.url(&format!("/api/v1/jobs/{first}/files/screenshot.png"));
    let image = json!({"id": "item1", "status": "success", "result": {"url": url}, "cached": true});
    assert_eq!(done["items"]["item1"], image);
    assert_eq!(reqwest::get(url).await.unwrap().text().await.unwrap(), "image");
    let failed = &done["items"]["ä \"2\""];
    assert_eq!((&failed["status"], &failed["result"]), (&json!("failed"), &Value::Null));
    assert!(failed["error"].as_str().unwrap().contains("it is spoilt"), "{failed}");
    assert_eq!(done["items"]["3"]["status"], "skipped");
    five.system.finish().await;
}

#[tokio::test]
async fn a_batch_that_is_wrong_is_refused_by_item_and_field() {
    let five = Five::start(&[]).await;
    let item = json!({"id": "a", "url": "https://a.org"});
    let with = |config: Value| json!({"items": [item], "config": config});
    for (body, said) in [
        (json!({}), "/items: required"),
        (json!({"items": []}), "/items: required"),
        (json!({"items": {"a": 1}}), "expected an array"),
        (json!({"items": ["a"]}), "/items/0: expected an object, got a string"),
        (json!({"items": [item, {"id": "b"}]}), "/items/1/url: required"),
        (json!({"items": [{"url": "https://a.org"}]}), "/items/0/id: required"),
        (json!({"items": [{"id": "", "url": "https://a.org"}]}), "/items/0/id: empty"),
        (json!({"items": [{"id": 5, "url": "https://a.org"}]}), "/items/0/id: expected a string"),
        (json!({"items": [item, item]}), "/items/1/id: another item has this id"),
        (json!({"items": [{"id": "a", "url": "file:///etc/passwd"}]}), "/items/0/url"),
        (with(json!([])), "/config: expected an object"),
        (with(json!({"width": 0})), "/config/width"),
        (with(json!({"height": 8_193})), "/config/height: 8193 is not a whole number from 1 to 8192"),
        (with(json!({"format": "gif"})), "/config/format: write one of png, jpeg, webp"),
        (with(json!({"cache": "maybe"})), "/config/cache: expected a boolean"),
    ] {
        refused(&five.api.post(SHOTS, &body).await, SHOTS, 400, said);
    }
    let body = with(json!({"format": "jpeg", "cache": false}));
    let first = taken(&keyed(&five.api, SHOTS, "k", &body).await);
    assert_eq!(taken(&keyed(&five.api, SHOTS, "k", &body).await), first);
    refused(&keyed(&five.api, SHOTS, "k", &with(json!({}))).await, SHOTS, 422, "Idempotency-Key");
    five.system.finish().await;
}

#[tokio::test]
async fn an_imported_batch_reads_as_it_stood() {
    let five = Five::start(&[]).await;
    let item =
        json!({"id": "item1", "status": "success", "result": {"url": "https://old.example/1.png"}, "cached": false});
    let old = json!({"job_id": "batch-7d87a3dc", "status": "completed", "items": {"item1": item},
        "created_at": 1703123456.789, "completed_at": 1703123460.123, "total_processing_time": 3.334});
    let id = five.import("batch-7d87a3dc", "screenshots", Some(&[json!({"id": "item1", "url": null})]), &old).await;
    let first = five.store.item_id(&id, five.store.partition_of(&id), 0);
    five.give_old(&first, &item).await;
    five.open_gate();
    let _worker = five.worker();
    five.ended_there(&first).await;
    five.ended_there(&id).await;
    let () = five.system.redis().command(&["HDEL", &format!("lh:{{0}}:job:{first}"), "result"]).await;
    let read = five.api.get("/batch/screenshots/batch-7d87a3dc/results").await;
    assert_eq!(read.json, old);
    assert!(read.text.contains("1703123456.789"), "{}", read.text);
    five.system.finish().await;
}
