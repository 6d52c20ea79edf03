//! What all views answer when they do not give what was asked for: by their own checks, and by what stands before them.
use leasehold::tokens::{Scope, mint};
use leasehold_tests::contract;

use super::*;

/// Every operation of the views: its method, and a path with `id` in it.
fn operations(id: &str) -> Vec<(Method, String)> {
    let operation = |(path, method, _): (&str, String, &Value)| (method.parse().unwrap(), path.replace("{job_id}", id));
    let all: Vec<(Method, String)> = contract::views().operations().map(operation).collect();
    assert!(all.len() > 20, "{all:?}");
    all
}

/// A request that is as its route wants it.
async fn good(api: &Api, method: &Method, path: &str) -> Answer {
    let request = api.request(method.clone(), path);
    let body = match path {
        "/jobs" => json!({"files": ["a"]}),
        "/api/suggestions" => json!({"text": "a"}),
        "/batch/screenshots" => json!({"items": [{"id": "a", "url": "https://a"}]}),
        _ => json!({"url": "https://a"}),
    };
    let file = || Form::new().part("file", Part::bytes(b"a".as_slice()).file_name("a"));
    answer(match (method, path) {
        (&Method::POST, "/api/analyze") => request.multipart(file()),
        (&Method::POST, _) if !path.ends_with("/cancel") => request.json(&body),
        (&Method::DELETE, "/api/jobs/cleanup") => api.request(Method::DELETE, "/api/jobs/cleanup?days=7"),
        _ => request,
    })
    .await
}

#[tokio::test]
async fn the_id_of_another_views_job_is_no_job() {
    let five = Five::start(&[]).await;
    let jobs = one_of_each(&five.api).await;
    let screenshots = leasehold::JobId::parse(&jobs[3].0).unwrap();
    let item = five.store.item_id(&screenshots, five.store.partition_of(&screenshots), 0).to_string();
    for (id, own) in &jobs {
        assert_eq!(five.api.get(&format!("{own}{id}")).await.status, 200);
        for (method, path) in operations(id).into_iter().filter(|(_, path)| path.contains(id)) {
            let is_own = path.starts_with(own)
                || (*own == "/batch/screenshots/" && path.starts_with("/batch/"))
                || (*own == "/api/status/" && path.starts_with("/api/jobs/"));
            if !is_own {
                refused(&good(&five.api, &method, &path).await, &path, 404, "Job not found");
            }
        }
    }
    for id in [item.as_str(), "no-such-job", "a.b", &"x".repeat(65), "%ff", "a%2Fb"] {
        for (method, path) in operations(id).into_iter().filter(|(_, path)| path.contains(id)) {
            if !path.contains("job-status") {
                refused(&good(&five.api, &method, &path).await, &path, 404, "Job not found");
            }
        }
    }
    five.system.finish().await;
}

#[tokio::test]
async fn with_redis_away_each_route_says_so_and_is_back_by_itself() {
    let five = Five::start(&[("LEASEHOLD_REDIS__OUTAGE_MS", "300")]).await;
    let health = five.api.get("/health").await;
    let address = five.system.redis().url().replace("redis://", "").trim_end_matches('/').to_owned();
    assert_eq!((health.status, &health.json["status"]), (200, &json!("healthy")));
    assert_eq!((&health.json["database"], &health.json["jobs_directory"]), (&json!(address), &json!(address)));
    five.system.redis().kill9();
    let id = "12345678-1234-1234-1234-123456789abc";
    for (method, path) in operations(id) {
        let answer = good(&five.api, &method, &path).await;
        if path == "/health" {
            assert_eq!((answer.status, &answer.json["status"]), (503, &json!("unhealthy")));
            assert_eq!((&answer.json["total_jobs"], &answer.json["database"]), (&Value::Null, &json!(address)));
        } else {
            refused(&answer, &path, 503, "");
        }
        assert!(answer.headers.contains_key("retry-after"), "{method} {path}");
    }
    five.system.redis().restart().await;
    five.api.wait_ready().await;
    for (method, path) in operations(id) {
        let status = good(&five.api, &method, &path).await.status;
        assert!([200, 202, 404].contains(&status), "{method} {path}: {status}");
    }
    five.system.finish().await;
}

#[tokio::test]
async fn health_counts_and_shows_no_password() {
    let five = Five::start(&[]).await;
    let count = async |name: &str| five.api.get("/health").await.json[name].as_u64().unwrap();
    one_of_each(&five.api).await;
    one_of_each(&five.api).await;
    upload(&five.api, "file", "b.wav", b"RIFF").await;
    five.api.post("/api/v1/gap-analysis/jobs", &json!({"url": "https://b"})).await;
    five.api.post("/api/v1/gap-analysis/jobs", &json!({"url": "https://c"})).await;
    assert_eq!((count("total_jobs").await, count("jobs_count").await, count("running_jobs").await), (4, 3, 0));
    assert_eq!(count("max_concurrent_jobs").await, 2);
    let _worker = five.worker();
    five.until("/health", |health| health["running_jobs"] == 2).await;
    five.open_gate();
    five.until("/health", |health| health["running_jobs"] == 0).await;
    let url = five.system.redis().url().replace("redis://", "redis://default:hush@");
    let other = five.system.api(&[("LEASEHOLD_REDIS_URL", &url), ("LEASEHOLD_REDIS__OUTAGE_MS", "100")]).await;
    let health = other.get("/health").await;
    assert!(
        !health.text.contains("hush") && health.json["database"].as_str().unwrap().contains("127.0.0.1"),
        "{}",
        health.text
    );
    five.system.finish().await;
}

#[tokio::test]
async fn what_stands_before_the_routes_refuses_in_their_form() {
    let (token, line) = mint("reads", Scope::Read).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, line).unwrap();
    let five = Five::start(&[]).await;
    let guarded = five.system.api(&[("LEASEHOLD_API__TOKENS", &file.display().to_string())]).await;
    for (method, path) in operations("x") {
        let answer = good(&guarded, &method, &path).await;
        refused(&answer, &path, 401, "Authorization");
        assert!(answer.headers.contains_key("www-authenticate"));
        if method != Method::GET {
            let request = guarded.request(method, &path).bearer_auth(&token);
            refused(&leasehold_tests::api::answer(request).await, &path, 403, "scope");
        }
        let patch = five.api.request(Method::PATCH, &path);
        let patched = leasehold_tests::api::answer(patch).await;
        refused(&patched, &path, 405, "Allow");
        assert!(patched.headers.contains_key("allow"), "{path}");
    }
    for path in ["/jobs/x", "/job_results", "/batch", "/api/v1/gap-analysis", "/api/status", "/api/jobs/x/y"] {
        refused(&five.api.get(path).await, path, 404, "routes");
    }
    // Its neighbours keep their own.
    for path in ["/jobsx", "/api/v1/jobs/x", "/nowhere"] {
        assert_eq!(five.api.get(path).await.headers["content-type"], "application/problem+json", "{path}");
    }
    let broken =
        five.api.request(Method::POST, "/jobs").header("content-type", "application/json").body("{\"files\": [");
    refused(&leasehold_tests::api::answer(broken).await, "/jobs", 400, "EOF");
    five.system.finish().await;
}

/// Checked against FastAPI with pydantic: what it takes, and what it refuses.
#[tokio::test]
async fn a_request_is_taken_as_the_old_frameworks_took_it() {
    let five = Five::start(&[]).await;
    let gap = "/api/v1/gap-analysis/jobs";
    let post = |path: &str, sort: &str, body: &str| {
        answer(five.api.request(Method::POST, path).header("content-type", sort.to_owned()).body(body.to_owned()))
    };
    let sort = "application/json";
    for (sort, body, papers) in [
        (sort, r#"{"url": "https://a"}"#, 10),
        ("Application/JSON; charset=utf8", r#"{"url": "https://a"}"#, 10),
        ("application/vnd.api+json", r#"{"url": "https://a"}"#, 10),
        (sort, r#"{"url": "https://a", "callback": {"x": 1}, "max_papers": 7}"#, 7),
        (sort, r#"{"url": "https://a", "max_papers": "7"}"#, 7),
        (sort, r#"{"url": "https://a", "max_papers": " 7.0 "}"#, 7),
        (sort, r#"{"url": "https://a", "max_papers": 7.0}"#, 7),
        (sort, r#"{"url": "https://b", "url": "https://a", "max_papers": true}"#, 1),
        (sort, "\u{feff}{\"url\": \"https://a\"}", 10),
    ] {
        let sent = post(gap, sort, body).await;
        assert_eq!(sent.status, 202, "{sort} {body}: {}", sent.text);
        assert_eq!(sent.json["request"]["max_papers"], papers, "{body}");
        assert_eq!(
            sent.json["request"]["url"].as_str().map(|url| url.trim_end_matches('/')),
            Some("https://a"),
            "{body}"
        );
    }
    for (body, said) in [
        (r#"{"max_papers": 7}"#, "url: required"),
        (r#"{"url": 7}"#, "expected a string"),
        (r#"{"url": "https://a", "max_papers": "many"}"#, "expected a number"),
        (r#"{"url": "https://a", "max_papers": 7.5}"#, "7.5 is not a whole number"),
        (r#"{"url": "https://a", "max_papers": "0"}"#, "0 is not a whole number from 1"),
        (r#"{"url": "https://a", "max_papers": [7]}"#, "expected a number"),
    ] {
        refused(&post(gap, sort, body).await, gap, 400, said);
    }
    let shots =
        r#"{"items": [{"id": "a", "url": "https://a", "note": 1}], "config": {"width": "640", "cache": "no"}, "x": 1}"#;
    assert_eq!(post("/batch/screenshots", sort, shots).await.status, 202);
    assert_eq!(post("/jobs", sort, r#"{"files": ["a"], "priority": 3}"#).await.status, 202);
    assert_eq!(post("/api/suggestions", sort, r#"{"text": "a", "lang": "en"}"#).await.status, 202);
    for path in ["/api/jobs?limit=5", "/jobs?page=1", "/health?verbose=1", "/api/v1/gap-analysis/jobs?status=all"] {
        assert_eq!(five.api.get(path).await.status, 200, "{path}");
    }
    let unredirected = leasehold_tests::api::client().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let moved = unredirected.post(five.api.url("/api/suggestions/?a=b%2F")).send().await.unwrap();
    assert_eq!(
        (moved.status().as_u16(), moved.headers()["location"].to_str().unwrap()),
        (307, "/api/suggestions?a=b%2F")
    );
    let followed =
        five.api.request(Method::POST, "/api/suggestions/").json(&json!({"text": "a"})).send().await.unwrap();
    assert_eq!(followed.status().as_u16(), 202);
    assert_eq!(five.api.get("/api/v1/jobs/").await.status, 404, "our own routes have one form");
    five.system.finish().await;
}

#[tokio::test]
async fn a_view_is_served_only_where_the_kinds_file_names_its_kind() {
    let folder = TempDir::with_prefix("leasehold-test-").unwrap();
    let kinds = folder.path().join("kinds.toml");
    std::fs::write(&kinds, "[kinds.suggestions]\n[kinds.other]\n").unwrap();
    let system = System::start(&[]).await;
    let none = system.api(&[]).await;
    let one = system.api(&[("LEASEHOLD_KINDS", kinds.to_str().unwrap())]).await;
    none.wait_ready().await;
    one.wait_ready().await;
    for (method, path) in operations("12345678-1234-1234-1234-123456789abc") {
        absent(&none, &method, &path).await;
        if !(path.contains("job-status") || path == "/api/suggestions" || path == "/health") {
            absent(&one, &method, &path).await;
        }
    }
    let id = taken(&one.post("/api/suggestions", &json!({"text": "It was done."})).await);
    assert_eq!(one.get(&format!("/api/job-status/{id}")).await.json["status"], "queued");
    assert_eq!(one.get("/health").await.status, 200);
    system.finish().await;
}

/// Asserts that a path is no route. The answer is not compared with `openapi.json`, which describes an API with all
/// views.
async fn absent(api: &Api, method: &Method, path: &str) {
    let response = api.request(method.clone(), path).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 404, "{method} {path}");
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {path}");
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(problem["code"], "no_such_route", "{method} {path}");
}
