//! What the routes do when nothing is wrong.
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use leasehold_tests::api::answer;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Hand, LIMIT, ask, connect, exchange, id, send, start};

#[tokio::test]
async fn a_submit_answers_202_with_the_place_and_the_job() {
    let (system, api) = start(&[]).await;
    let submit = json!({"kind": "echo", "payload": {"a": 1}, "priority": "high", "max_attempts": 2});
    let submitted = api.post("/api/v1/jobs", &submit).await;
    assert_eq!(submitted.status, 202, "{}", submitted.text);
    let path = submitted.headers["location"].to_str().unwrap();
    let read = api.get(path).await;
    assert_eq!(read.json, submitted.json, "the answer shows the job as it is");
    for (field, value) in [
        ("kind", json!("echo")),
        ("queue", json!("default")),
        ("state", json!("queued")),
        ("priority", json!("high")),
        ("payload", json!({"a": 1})),
        ("attempt", json!(1)),
        ("max_attempts", json!(2)),
        ("items", Value::Null),
        ("finished_at", Value::Null),
    ] {
        assert_eq!(read.json[field], value, "{field}");
    }
    system.finish().await;
}

#[tokio::test]
async fn a_payload_comes_back_to_the_digit() {
    let (system, api) = start(&[]).await;
    let payload = r#"{"z":12345678901234567890123,"a":1.50,"a":"twice","s":"\u00e9"}"#;
    let one = send(&api, "/api/v1/jobs", &[], format!(r#"{{"kind": "echo", "payload": {payload}}}"#)).await;
    let bulk = format!(r#"{{"jobs": [{{"kind": "echo", "payload": {payload}}}]}}"#);
    let many = send(&api, "/api/v1/jobs/bulk", &[], bulk).await;
    let read = api.get(&format!("/api/v1/jobs/{}", id(&one))).await;
    let list = api.get("/api/v1/jobs").await;
    for answer in [one, many, read, list] {
        assert!(answer.text.contains(payload), "{}", answer.text);
    }
    system.finish().await;
}

#[tokio::test]
async fn a_later_job_waits_for_its_time() {
    let (system, api) = start(&[]).await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo", "delay_ms": 3_600_000})).await;
    assert_eq!((job.status, &job.json["state"]), (202, &json!("scheduled")));
    let at = "2100-01-01T01:00:00+01:00";
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo", "run_at": at})).await;
    assert_eq!(job.json["scheduled_at"], "2100-01-01T00:00:00.000Z");
    let past = api.post("/api/v1/jobs", &json!({"kind": "echo", "run_at": "2001-01-01T00:00:00Z"})).await;
    assert_eq!(past.json["state"], "queued");
    system.finish().await;
}

#[tokio::test]
async fn a_job_says_whether_a_worker_serves_its_kind() {
    let (system, api) = start(&[]).await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    assert_eq!(job.json["served"], false);
    Hand::of(&system).await;
    let path = format!("/api/v1/jobs/{}", id(&job));
    leasehold_tests::eventually(LIMIT, "the worker is seen", async || api.get(&path).await.json["served"] == true)
        .await;
    let other = api.post("/api/v1/jobs", &json!({"kind": "other"})).await;
    assert_eq!(other.json["served"], false);
    let workers = api.get("/api/v1/workers").await;
    assert_eq!(
        (&workers.json["workers"][0]["id"], &workers.json["workers"][0]["running"]),
        (&json!("hand"), &json!([]))
    );
    assert_eq!(api.get("/api/v1/queues/default").await.json["served"], true);
    system.finish().await;
}

#[tokio::test]
async fn a_wait_is_answered_when_the_job_ends() {
    let (system, api) = start(&[]).await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let path = format!("/api/v1/jobs/{}", id(&job));
    let hand = Hand::of(&system).await;
    let held = hand.claim().await;
    let waiting = answer(api.request(Method::GET, &path).header("prefer", "wait=50"));
    let begun = Instant::now();
    let (waited, ()) = tokio::join!(waiting, async {
        tokio::task::yield_now().await;
        hand.complete(held).await;
    });
    assert_eq!((waited.status, &waited.json["state"]), (200, &json!("completed")));
    assert_eq!(waited.headers["preference-applied"], "wait=50");
    assert!(begun.elapsed() < Duration::from_secs(20), "it did not wait for the time to be up");
    system.finish().await;
}

#[tokio::test]
async fn a_wait_ends_when_its_time_is_up() {
    let (system, api) = start(&[]).await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let begun = Instant::now();
    let path = format!("/api/v1/jobs/{}", id(&job));
    let waited = answer(api.request(Method::GET, &path).header("prefer", "wait=1")).await;
    assert_eq!((waited.status, &waited.json["state"]), (200, &json!("queued")));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    system.finish().await;
}

#[tokio::test]
async fn a_wait_beyond_the_limit_is_shortened_and_a_malformed_one_ignored() {
    let (system, api) = start(&[("LEASEHOLD_LIMITS__WAIT_S", "1")]).await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let path = format!("/api/v1/jobs/{}", id(&job));
    for long in ["wait=2", "wait=1000", "wait=99999999999999999999"] {
        let waited = answer(api.request(Method::GET, &path).header("prefer", long)).await;
        assert_eq!((waited.status, &waited.json["state"]), (200, &json!("queued")), "{long}");
        assert_eq!(waited.headers["preference-applied"], "wait=1", "{long}");
    }
    for malformed in ["wait", "wait=x", "wait=-1", "wait=1.5"] {
        let read = answer(api.request(Method::GET, &path).header("prefer", malformed)).await;
        assert_eq!(read.status, 200, "{malformed}");
        assert!(!read.headers.contains_key("preference-applied"), "{malformed}");
    }
    system.finish().await;
}

#[tokio::test]
async fn the_time_of_a_request_does_not_count_a_wait_or_a_slow_body() {
    let (system, api) = start(&[("LEASEHOLD_LIMITS__REQUEST_MS", "500")]).await;
    let mut stream = connect(&api).await;
    let head =
        b"POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
                 content-length: 15\r\nexpect: 100-continue\r\n\r\n{\"kind\":";
    assert!(exchange(&mut stream, head, Duration::from_secs(1)).await.contains("100 Continue"));
    let submitted = exchange(&mut stream, b"\"echo\"}", LIMIT).await;
    assert!(submitted.starts_with("HTTP/1.1 202"), "{submitted}");
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let path = format!("/api/v1/jobs/{}", id(&job));
    let waited = answer(api.request(Method::GET, &path).header("prefer", "wait=1")).await;
    assert_eq!(waited.status, 200, "{}", waited.text);
    system.finish().await;
}

#[tokio::test]
async fn a_listing_goes_through_all_jobs_once() {
    let (system, api) = start(&[("LEASEHOLD_PARTITIONS", "4")]).await;
    let jobs: Vec<Value> = (0..25).map(|n| json!({"kind": format!("k{}", n % 2), "payload": n})).collect();
    let bulk = api.post("/api/v1/jobs/bulk", &json!({"jobs": jobs})).await;
    assert_eq!((bulk.status, bulk.json["results"].as_array().map(Vec::len)), (200, Some(25)), "{}", bulk.text);
    for (query, expected) in [("", 25), ("&kind=k1", 12), ("&state=queued", 25), ("&state=queued&kind=k0", 13)] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = api.get(&format!("/api/v1/jobs?limit=4{query}{cursor}")).await;
            assert_eq!(page.status, 200, "{}", page.text);
            seen.extend(page.json["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            pages += 1;
            let Some(next) = page.json["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), expected, "{query}");
        assert_eq!((seen.len(), pages > 2), (expected, true), "{query}");
    }
    system.finish().await;
}

#[tokio::test]
async fn cancel_retry_and_delete_answer_with_what_they_did() {
    let (system, api) = start(&[]).await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "echo"})).await;
    let path = format!("/api/v1/jobs/{}", id(&job));
    let cancelled = ask(&api, &format!("{path}/cancel")).await;
    assert_eq!((cancelled.status, &cancelled.json["state"]), (200, &json!("cancelled")));
    let retried = ask(&api, &format!("{path}/retry")).await;
    assert_eq!((retried.status, &retried.json["state"]), (200, &json!("queued")));
    let hand = Hand::of(&system).await;
    let held = hand.claim().await;
    let asked = ask(&api, &format!("{path}/cancel")).await;
    assert_eq!((asked.status, &asked.json["state"]), (202, &json!("running")));
    assert_eq!(asked.json["cancel_requested"], true);
    hand.complete(held).await;
    let history = api.get(&format!("{path}/history")).await;
    let events: Vec<_> = history.json["history"].as_array().unwrap().iter().map(|e| e["event"].clone()).collect();
    assert_eq!(events, ["submit", "cancel", "retry", "claim", "cancel", "complete"]);
    assert_eq!(api.delete(&path).await.status, 204);
    assert_eq!(api.get(&path).await.status, 404);
    system.finish().await;
}

#[tokio::test]
async fn a_batch_takes_its_items_in_parts() {
    let (system, api) = start(&[]).await;
    let parent = api.post("/api/v1/jobs", &json!({"kind": "page", "items": [0, 1], "items_open": true})).await;
    assert_eq!((parent.status, &parent.json["state"]), (202, &json!("waiting")));
    let path = format!("/api/v1/jobs/{}", id(&parent));
    let items = format!("{path}/items");
    for _ in 0..2 {
        let part = api.post(&items, &json!({"first": 1, "items": [1, 2], "last": true})).await;
        assert_eq!((part.status, &part.json["items"]["total"]), (200, &json!(3)), "a part sent twice changes nothing");
        assert_eq!(part.json["items"]["open"], false);
    }
    let page = api.get(&format!("{items}?limit=2")).await;
    let payloads: Vec<_> = page.json["jobs"].as_array().unwrap().iter().map(|job| job["payload"].clone()).collect();
    assert_eq!(payloads, [0, 1]);
    assert_eq!(page.json["jobs"][0]["parent"], parent.json["id"]);
    let rest = api.get(&format!("{items}?limit=2&cursor={}", page.json["next_cursor"].as_str().unwrap())).await;
    assert_eq!((&rest.json["jobs"][0]["payload"], &rest.json["next_cursor"]), (&json!(2), &Value::Null));
    assert_eq!(ask(&api, &format!("{path}/cancel")).await.status, 200, "a small batch ends at once");
    system.finish().await;
}

#[tokio::test]
async fn a_queue_is_paused_and_resumed() {
    let (system, api) = start(&[("LEASEHOLD_PARTITIONS", "4")]).await;
    for paused in [true, false] {
        let verb = if paused { "pause" } else { "resume" };
        for _ in 0..2 {
            let queue = ask(&api, &format!("/api/v1/queues/later/{verb}")).await;
            assert_eq!((queue.status, &queue.json["paused"]), (200, &json!(paused)), "{}", queue.text);
        }
        let listed = api.get("/api/v1/queues").await;
        assert_eq!(listed.json["queues"].as_array().unwrap().len(), usize::from(paused), "{}", listed.text);
    }
    api.post("/api/v1/jobs", &json!({"kind": "echo", "queue": "later"})).await;
    let queue = api.get("/api/v1/queues/later").await;
    assert_eq!(
        (&queue.json["queued"], &queue.json["running"], &queue.json["served"]),
        (&json!(1), &json!(0), &json!(false))
    );
    system.finish().await;
}

#[tokio::test]
async fn a_request_keeps_its_id() {
    let (system, api) = start(&[]).await;
    let given = answer(api.request(Method::GET, "/livez").header("x-request-id", "mine-1.2_3")).await;
    assert_eq!(given.headers["x-request-id"], "mine-1.2_3");
    for unfit in ["a b", "", &"x".repeat(129)] {
        let own = answer(api.request(Method::GET, "/nowhere").header("x-request-id", unfit)).await;
        assert_eq!(own.headers["x-request-id"].len(), 36, "{unfit:?} is replaced");
    }
    system.finish().await;
}

#[tokio::test]
async fn a_kind_brings_its_defaults() {
    let system = leasehold_tests::System::start(&[]).await;
    let kinds = system.folder().join("kinds.toml");
    std::fs::write(&kinds, "[kinds.resize]\nqueue = \"images\"\nmax_attempts = 2\n").unwrap();
    let environment = [("LEASEHOLD_KINDS", kinds.to_str().unwrap()), ("LEASEHOLD_API__KNOWN_KINDS_ONLY", "true")];
    let api = system.api(&environment).await;
    api.wait_ready().await;
    let job = api.post("/api/v1/jobs", &json!({"kind": "resize"})).await;
    assert_eq!((&job.json["queue"], &job.json["max_attempts"]), (&json!("images"), &json!(2)));
    let unknown = api.post("/api/v1/jobs", &json!({"kind": "resise"})).await;
    assert!(super::problem(&unknown, 422, "unknown_kind")["detail"].as_str().unwrap().contains("did you mean resize?"));
    system.finish().await;
}
