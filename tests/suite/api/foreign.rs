//! Web pages of other sites, which any browser on the machine shows: what they send to an API without tokens.
use leasehold_tests::api::answer;
use leasehold_tests::{Answer, Api};
use reqwest::Method;
use serde_json::{Value, json};

use super::{LIMIT, connect, exchange, id, problem, send, start};

const KINDS: (&str, &str) = ("LEASEHOLD_KINDS", concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/kinds.toml"));
const PAGE: &str = "http://evil.example";

async fn ask(api: &Api, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = api.request(method.parse::<Method>().unwrap(), path);
    answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

/// The status of a request of these bytes.
async fn raw(api: &Api, request: &str) -> (String, String) {
    let answer = exchange(&mut connect(api).await, request.as_bytes(), LIMIT).await;
    (answer.get(9..12).unwrap_or_default().to_owned(), answer)
}

#[tokio::test]
async fn a_name_that_a_page_points_here_reads_and_changes_nothing() {
    let (system, api) = start(&[KINDS]).await;
    let job = id(&api.post("/api/v1/jobs", &json!({"kind": "echo", "payload": "secret"})).await);
    let port = api.url("").rsplit(':').next().unwrap().to_owned();
    for host in
        ["evil.example".to_owned(), format!("evil.example:{port}"), "localhost.evil.example".into(), "0.0.0.0".into()]
    {
        let of_host = [("host", host.as_str())];
        for path in [
            "/api/v1/jobs",
            &format!("/api/v1/jobs/{job}"),
            &format!("/api/v1/jobs/{job}/events"),
            "/metrics",
            "/livez",
            "/openapi.json",
        ] {
            let refused = ask(&api, "GET", path, &of_host).await;
            let detail = problem(&refused, 421, "foreign_host")["detail"].as_str().unwrap();
            assert!(detail.contains("LEASEHOLD_API__HOSTS") && !refused.text.contains("secret"), "{path}: {detail}");
        }
        problem(&ask(&api, "DELETE", "/api/v1/jobs?kind=echo", &of_host).await, 421, "foreign_host");
        problem(&ask(&api, "POST", "/api/v1/queues/default/pause", &of_host).await, 421, "foreign_host");
        let view = ask(&api, "GET", "/api/jobs", &of_host).await;
        assert_eq!(view.status, 421, "{}", view.text);
        assert!(view.json["error"].as_str().unwrap().contains("api.hosts"), "{}", view.text);
    }
    for host in ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9:1", "[::1]:8080", "app.localhost:80"] {
        assert_eq!(ask(&api, "GET", "/api/v1/jobs", &[("host", host)]).await.status, 200, "{host}");
    }
    assert_eq!(api.get("/api/v1/queues/default").await.json["paused"], false);
    let named = system.api(&[("LEASEHOLD_API__HOSTS", "jobs.example, Other.example")]).await;
    for (host, status) in
        [("jobs.example", 200), ("other.example:80", 200), ("a.jobs.example", 421), ("localhost", 200)]
    {
        assert_eq!(ask(&named, "GET", "/livez", &[("host", host)]).await.status, status, "{host}");
    }
    system.finish().await;
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let (system, api) = start(&[KINDS]).await;
    let job = id(&api.post("/api/v1/jobs", &json!({"kind": "echo"})).await);
    let host = api.url("");
    let neighbour = "http://127.0.0.1:3000";
    for headers in [
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site")],
        vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        vec![("origin", PAGE)],
        vec![("origin", "null")],
        vec![("origin", neighbour)],
    ] {
        for (method, path) in [
            ("POST", "/api/v1/queues/default/pause".to_owned()),
            ("POST", format!("/api/v1/jobs/{job}/cancel")),
            ("DELETE", "/api/v1/jobs?kind=echo".into()),
        ] {
            problem(&ask(&api, method, &path, &headers).await, 403, "cross_site");
        }
        problem(&send(&api, "/api/v1/jobs", &headers, "{\"kind\": \"echo\"}").await, 403, "cross_site");
        // A form that a page posts without any script.
        let form = "--b\r\ncontent-disposition: form-data; name=\"job\"\r\n\r\n{\"kind\": \"echo\"}\r\n--b--\r\n";
        for path in ["/api/v1/jobs", "/api/analyze"] {
            let form =
                api.request(Method::POST, path).header("content-type", "multipart/form-data; boundary=b").body(form);
            let posted = answer(headers.iter().fold(form, |form, (name, value)| form.header(*name, *value))).await;
            assert_eq!(posted.status, 403, "{headers:?} {path}: {}", posted.text);
        }
    }
    // Without any mark of a browser: by their content type.
    for path in [
        "/api/v1/jobs",
        "/api/v1/jobs/bulk",
        "/jobs",
        "/api/suggestions",
        "/batch/screenshots",
        "/api/v1/gap-analysis/jobs",
    ] {
        for sort in ["text/plain", "application/x-www-form-urlencoded", "text/plain; a=application/json"] {
            let request = api.request(Method::POST, path).header("content-type", sort);
            let body =
                "{\"kind\": \"echo\", \"files\": [\"a\"], \"text\": \"a\", \"jobs\": [], \"url\": \"http://a/\"}";
            assert_eq!(answer(request.body(body)).await.status, 415, "{path} {sort}");
        }
    }
    let preflight = [("origin", PAGE), ("access-control-request-method", "DELETE")];
    let allowed = ask(&api, "OPTIONS", "/api/v1/jobs", &preflight).await;
    assert!(allowed.headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "{:?}", allowed.headers);
    let jobs = api.get("/api/v1/jobs").await;
    assert_eq!(jobs.json["jobs"].as_array().map(Vec::len), Some(1), "nothing was submitted or removed");
    assert_eq!(jobs.json["jobs"][0]["state"], "queued");
    assert_eq!(api.get("/api/v1/queues/default").await.json["paused"], false);
    // A page of the API's own origin, and a person, may.
    for headers in [
        [("sec-fetch-site", "same-origin"), ("origin", host.as_str())],
        [("sec-fetch-site", "none"), ("accept", "*/*")],
    ] {
        assert_eq!(ask(&api, "POST", "/api/v1/queues/default/resume", &headers).await.status, 200, "{headers:?}");
    }
    system.finish().await;
}

#[tokio::test]
async fn a_page_of_another_site_reads_only_by_a_link() {
    let (system, api) = start(&[]).await;
    let of =
        |site, mode, destination| [("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", destination)];
    for path in ["/api/v1/jobs", "/livez", "/metrics"] {
        for (mode, destination) in
            [("no-cors", "script"), ("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")]
        {
            problem(&ask(&api, "GET", path, &of("cross-site", mode, destination)).await, 403, "cross_site");
        }
        let link = ask(&api, "GET", path, &of("cross-site", "navigate", "document")).await;
        assert_eq!(link.status, 200, "{path}");
        assert_eq!(link.headers["x-content-type-options"], "nosniff");
        assert_eq!(link.headers["cross-origin-resource-policy"], "same-site");
        assert!(!link.headers.contains_key("access-control-allow-origin"));
        assert_eq!(ask(&api, "GET", path, &of("same-site", "no-cors", "image")).await.status, 200, "{path}");
    }
    system.finish().await;
}

#[tokio::test]
async fn a_file_never_runs_in_the_origin_of_the_api() {
    let (system, api) = start(&[]).await;
    let page = "<script>fetch('/api/v1/jobs')</script>";
    let form = reqwest::multipart::Form::new()
        .text("job", "{\"kind\": \"echo\"}")
        .part("page.html", reqwest::multipart::Part::text(page).file_name("page.html").mime_str("text/html").unwrap());
    let job = id(&answer(api.request(Method::POST, "/api/v1/jobs").multipart(form)).await);
    let file = api.get(&format!("/api/v1/jobs/{job}/files/page.html")).await;
    assert_eq!((file.status, file.text.as_str()), (200, page));
    assert_eq!(file.headers["x-content-type-options"], "nosniff");
    assert!(file.headers["content-disposition"].to_str().unwrap().starts_with("attachment;"));
    assert!(file.headers["content-security-policy"].to_str().unwrap().starts_with("sandbox; default-src 'none'"));
    system.finish().await;
}

#[tokio::test]
async fn a_request_without_one_host_or_with_two_lengths_is_refused_with_tokens_too() {
    let (token, line) = leasehold::tokens::mint("ci", leasehold::tokens::Scope::Admin).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, line).unwrap();
    let (system, open) = start(&[]).await;
    let guarded = system.api(&[("LEASEHOLD_API__TOKENS", file.to_str().unwrap())]).await;
    for api in [&open, &guarded] {
        for hosts in
            ["", "host: localhost\r\nhost: localhost\r\n", "host: \r\n", "host: a@localhost\r\n", "host: a b\r\n"]
        {
            let (status, text) = raw(api, &format!("GET /livez HTTP/1.1\r\n{hosts}connection: close\r\n\r\n")).await;
            assert_eq!(status, "400", "{hosts}: {text}");
            assert!(text.contains("\"header\":\"Host\""), "{text}");
        }
        let differs = "GET http://evil.example/livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        assert_eq!(raw(api, differs).await.0, "400");
        // HTTP/1.0 has no Host, and no browser speaks it.
        assert_eq!(raw(api, "GET /livez HTTP/1.0\r\n\r\n").await.0, "200");
        for lengths in [
            "content-length: 5\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 5",
            "Transfer-Encoding: Chunked\r\nX: y\r\nContent-Length: 0",
        ] {
            // A proxy may take what follows the body for another request.
            let request = format!(
                "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
                 content-type: application/json\r\n{lengths}\r\n\r\nf\r\n{{\"kind\":\"echo\"}}\r\n0\r\n\r\n\
                 GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
            );
            let (status, text) = raw(api, &request).await;
            assert_eq!(status, "400", "{text}");
            assert!(text.contains("exclude each other") && text.matches("HTTP/1.1").count() == 1, "{text}");
        }
        let jobs: Value = answer(api.request(Method::GET, "/api/v1/jobs").bearer_auth(&token)).await.json;
        assert_eq!(jobs["jobs"], json!([]));
    }
    // With tokens any name is fine: pods are probed by their address.
    assert_eq!(ask(&guarded, "GET", "/livez", &[("host", "10.1.2.3:8080"), ("origin", PAGE)]).await.status, 200);
    system.finish().await;
}
