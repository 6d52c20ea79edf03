//! `/openapi.json` and `/openapi-views.json`: what they describe is what is there. The harness asserts in every test
//! that each answer is as described; here each operation is called, and each success that is described is seen.
use std::collections::{BTreeMap, BTreeSet};

use leasehold_tests::api::answer;
use leasehold_tests::{Answer, Api, contract, eventually};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::steered_command::*;
use crate::views::{Five, taken, upload};

/// An API, and which successes it has shown.
struct Asker {
    api: Api,
    seen: BTreeSet<String>,
}

impl Asker {
    async fn ask(&mut self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.ask_with(method, path, body, None).await
    }

    async fn ask_with(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
        header: Option<(&str, &str)>,
    ) -> Answer {
        let mut request = self.api.request(method.clone(), path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = answer(request).await;
        let bare = path.split('?').next().unwrap();
        let template = contract::template(bare).unwrap_or_else(|| panic!("{path} is not described"));
        self.seen.insert(format!("{method} {template} {}", answer.status));
        answer
    }
}

#[tokio::test]
async fn each_described_success_is_seen() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    api.wait_ready().await;
    let mut asker = Asker { api, seen: BTreeSet::new() };
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/openapi-views.json",
        "/",
        "/api/v1/workers",
        "/api/v1/jobs?state=queued",
    ] {
        assert_eq!(asker.ask(Method::GET, path, None).await.status, 200, "{path}");
    }
    let job = json!({"kind": "step", "payload": {"a": [1, null]}, "priority": "low"});
    let mut ids = Vec::new();
    for status in [202, 200] {
        let key = Some(("idempotency-key", "one"));
        let submitted = asker.ask_with(Method::POST, "/api/v1/jobs", Some(job.clone()), key).await;
        assert_eq!(submitted.status, status);
        ids.push(submitted.json["id"].as_str().unwrap().to_owned());
    }
    let path = format!("/api/v1/jobs/{}", ids[0]);
    asker.ask_with(Method::GET, &path, None, Some(("prefer", "wait=0"))).await;
    let bulk = json!({"jobs": [job, {"kind": 5}, {"kind": "step", "run_at": "2100-01-01T00:00:00+01:00"}]});
    asker.ask(Method::POST, "/api/v1/jobs/bulk", Some(bulk)).await;
    for path in ["/api/v1/queues", "/api/v1/queues/default"] {
        assert_eq!(asker.ask(Method::GET, path, None).await.status, 200, "{path}");
    }
    for verb in ["pause", "resume"] {
        asker.ask(Method::POST, &format!("/api/v1/queues/default/{verb}"), None).await;
    }
    asker.ask(Method::POST, "/api/v1/queues/unused/pause", None).await;
    assert_eq!(asker.ask(Method::DELETE, "/api/v1/queues/unused", None).await.status, 204);
    assert_eq!(asker.ask(Method::DELETE, "/api/v1/queues/unused", None).await.status, 404);
    assert_eq!(asker.ask(Method::DELETE, "/api/v1/queues/default", None).await.status, 409);
    // The states and steps of a job: cancelled, retried, run, cancelled while it runs, removed.
    asker.ask(Method::POST, &format!("{path}/cancel"), None).await;
    asker.ask(Method::POST, &format!("{path}/retry"), None).await;
    let worker = work.system.worker(&[]);
    let id = leasehold::JobId::parse(&ids[0]).unwrap();
    work.begun(&id, 1).await;
    assert_eq!(asker.ask(Method::GET, &path, None).await.json["state"], "running");
    asker.ask(Method::GET, "/api/v1/workers", None).await;
    assert_eq!(asker.ask(Method::POST, &format!("{path}/cancel"), None).await.status, 202);
    work.ended(&id).await;
    let events = asker.ask(Method::GET, &format!("{path}/events"), None).await;
    assert!(events.text.contains("event: end"), "{}", events.text);
    let shown = events.text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let shown: Value = serde_json::from_str(shown).unwrap();
    assert_eq!(contract::api().faults(&json!({"$ref": "#/components/schemas/Job"}), &shown), [""; 0]);
    asker.ask(Method::GET, &format!("{path}/history"), None).await;
    schedules(&mut asker).await;
    batches(&mut asker, &work).await;
    files(&mut asker).await;
    assert_eq!(asker.ask(Method::DELETE, &path, None).await.status, 204);
    asker.ask(Method::DELETE, "/api/v1/jobs?dry_run=true", None).await;
    views(&mut asker).await;
    asker.ask(Method::DELETE, "/api/v1/jobs?state=completed&kind=step&keep=1&older_than_ms=0", None).await;
    assert_eq!(asker.seen.into_iter().filter(|seen| is_success(seen)).collect::<BTreeSet<_>>(), described());
    drop(worker);
    work.system.finish().await;
}

/// The routes of the five systems, on a system that serves them.
async fn views(asker: &mut Asker) {
    let five = Five::start(&[]).await;
    five.open_gate();
    let worker = five.worker();
    let own = std::mem::replace(&mut asker.api, five.system.api(&[]).await);
    asker.api.wait_ready().await;
    let analyses = "/api/v1/gap-analysis/jobs";
    let mut ids = Vec::new();
    for (path, body) in [
        (analyses, json!({"url": "https://example.org"})),
        ("/jobs", json!({"files": ["night-shift.txt"]})),
        ("/api/suggestions", json!({"text": "It was done."})),
        ("/batch/screenshots", json!({"items": [{"id": "a", "url": "https://example.org"}]})),
    ] {
        ids.push(taken(&asker.ask(Method::POST, path, Some(body)).await));
    }
    let (analysis, files, text, pages) = (&ids[0], &ids[1], &ids[2], &ids[3]);
    five.has_status(&format!("{analyses}/{analysis}"), "completed").await;
    for path in [analyses, "/jobs", "/api/jobs", "/health"].map(str::to_owned).into_iter().chain([
        format!("{analyses}/{analysis}"),
        format!("{analyses}/{analysis}/result"),
        format!("/job_results/{files}"),
        format!("/job_results/{files}/download"),
        format!("/api/job-status/{text}"),
        format!("/api/job-status/{text}/stream"),
        format!("/batch/screenshots/{pages}"),
        format!("/batch/screenshots/{pages}/results"),
        format!("/batch/results/{pages}"),
    ]) {
        asker.ask(Method::GET, &path, None).await;
    }
    assert_eq!(asker.ask(Method::DELETE, &format!("{analyses}/{analysis}"), None).await.status, 204);
    drop(worker);
    let analysis = taken(&asker.ask(Method::POST, analyses, Some(json!({"url": "https://example.org"}))).await);
    asker.ask(Method::POST, &format!("{analyses}/{analysis}/cancel"), None).await;
    let recording = taken(&upload(&asker.api, "file", "test.wav", b"RIFF").await);
    asker.seen.insert("POST /api/analyze 200".into());
    asker.ask(Method::GET, &format!("/api/status/{recording}"), None).await;
    asker.ask(Method::DELETE, &format!("/api/jobs/{recording}"), None).await;
    asker.ask(Method::DELETE, "/api/jobs/cleanup?days=7", None).await;
    asker.api = own;
    five.system.finish().await;
}

async fn files(asker: &mut Asker) {
    let job = Part::text("{\"kind\": \"unserved\"}").mime_str("application/json").unwrap();
    let file = Part::bytes(b"0123456789".as_slice()).file_name("ten.txt");
    let form = Form::new().part("job", job).part("file", file);
    let submitted = answer(asker.api.request(Method::POST, "/api/v1/jobs").multipart(form)).await;
    assert_eq!(submitted.status, 202, "{}", submitted.text);
    let path = format!("/api/v1/jobs/{}/files", submitted.json["id"].as_str().unwrap());
    asker.ask(Method::GET, &path, None).await;
    let path = format!("{path}/ten.txt");
    asker.ask(Method::GET, &path, None).await;
    let part = asker.ask_with(Method::GET, &path, None, Some(("range", "bytes=2-4"))).await;
    assert_eq!((part.status, part.text.as_str()), (206, "234"));
}

async fn schedules(asker: &mut Asker) {
    let path = "/api/v1/schedules/nightly";
    let body = json!({"cron": "0 3 * * *", "time_zone": "Europe/Berlin", "kind": "step", "payload": [1]});
    for status in [201, 200] {
        assert_eq!(asker.ask(Method::PUT, path, Some(body.clone())).await.status, status);
    }
    let never = json!({"cron": "0 0 31 2 *", "kind": "step"});
    let refused = asker.ask(Method::PUT, path, Some(never)).await;
    assert_eq!((refused.status, &refused.json["errors"][0]["pointer"]), (422, &json!("/cron")));
    for path in ["/api/v1/schedules", path] {
        assert_eq!(asker.ask(Method::GET, path, None).await.status, 200, "{path}");
    }
    for (verb, status) in [("pause", 200), ("resume", 200), ("trigger", 202)] {
        assert_eq!(asker.ask(Method::POST, &format!("{path}/{verb}"), None).await.status, status, "{verb}");
    }
    for status in [204, 404] {
        assert_eq!(asker.ask(Method::DELETE, path, None).await.status, status);
    }
    assert_eq!(asker.ask(Method::GET, path, None).await.status, 404);
}

async fn batches(asker: &mut Asker, work: &Work) {
    let open = asker.ask(Method::POST, "/api/v1/jobs", Some(json!({"kind": "step", "items_open": true}))).await;
    let path = format!("/api/v1/jobs/{}", open.json["id"].as_str().unwrap());
    let part = json!({"first": 0, "items": [1, "two"], "last": true});
    assert_eq!(asker.ask(Method::POST, &format!("{path}/items"), Some(part)).await.status, 200);
    let items = asker.ask(Method::GET, &format!("{path}/items?limit=1"), None).await;
    assert!(items.json["next_cursor"].is_string(), "{}", items.text);
    let lines = ("accept", "application/x-ndjson");
    asker.ask_with(Method::GET, &format!("{path}/items"), None, Some(lines)).await;
    asker.ask(Method::POST, &format!("{path}/cancel"), None).await;
    let id = leasehold::JobId::parse(open.json["id"].as_str().unwrap()).unwrap();
    work.ended(&id).await;
    assert_eq!(asker.ask(Method::POST, &format!("{path}/retry"), None).await.status, 202);
    work.open_gate();
    work.completed(&id).await;
    assert_eq!(asker.ask(Method::DELETE, &path, None).await.status, 204);
    // The removal of a large one takes several steps.
    let items = (0..2_100).collect::<Vec<_>>();
    let large = asker.ask(Method::POST, "/api/v1/jobs", Some(json!({"kind": "unserved", "items": items}))).await;
    let id = leasehold::JobId::parse(large.json["id"].as_str().unwrap()).unwrap();
    let path = format!("/api/v1/jobs/{id}");
    asker.ask(Method::POST, &format!("{path}/cancel"), None).await;
    work.ended(&id).await;
    assert_eq!(asker.ask(Method::DELETE, &path, None).await.status, 202);
    eventually(SOON, "the batch is gone", async || work.store.get(&id).await.is_ok_and(|job| job.is_none())).await;
}

fn is_success(seen: &str) -> bool {
    seen.rsplit(' ').next().is_some_and(|status| status.starts_with('2'))
}

/// Every success that the document describes.
fn described() -> BTreeSet<String> {
    let mut described = BTreeSet::new();
    for (path, method, operation) in contract::documents().iter().flat_map(contract::Document::operations) {
        let statuses = operation["responses"].as_object().unwrap().keys().filter(|status| status.starts_with('2'));
        described.extend(statuses.map(|status| format!("{method} {path} {status}")));
    }
    described
}

#[tokio::test]
async fn each_described_path_has_the_methods_described_and_no_others() {
    let five = Five::start(&[]).await;
    let mut described: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in contract::documents().iter().flat_map(contract::Document::operations) {
        described.entry(path).or_default().insert(method);
    }
    for (path, mut wanted) in described {
        let path = path.replace("{id}", "x").replace("{queue}", "x").replace("{name}", "x").replace("{job_id}", "x");
        let refused = answer(five.api.request(Method::PATCH, &path)).await;
        assert_eq!(refused.status, 405, "{path}");
        let allowed = refused.headers["allow"].to_str().unwrap().split(',').map(str::trim).map(str::to_owned);
        if wanted.contains("GET") {
            wanted.insert("HEAD".into());
        }
        assert_eq!(allowed.collect::<BTreeSet<_>>(), wanted, "{path}");
    }
    five.system.finish().await;
}
