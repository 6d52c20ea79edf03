//! The kind `gap-analysis`: what it finds, what it does not fetch, and how it goes on after a death.
use super::site::{Page, Site, pdf};
use super::*;

const DRIFT: &str = "The cause of the northern drift remains unclear.";

fn html(body: &str) -> Page {
    Page::Is("text/html", format!("<!doctype html><title>t</title><body>{body}").into_bytes())
}

fn text(body: &str) -> Page {
    Page::Is("text/plain", body.as_bytes().to_vec())
}

fn gated(page: Page) -> Page {
    Page::Gated(Box::new(page))
}

fn order(url: &str) -> Value {
    json!({ "url": url, "max_papers": 10, "validation_threshold": 2 })
}

/// A page that links to `a` and `b`; `b` is kept at the gate.
async fn two_papers() -> Site {
    Site::start(&[
        ("/", html(&format!("<p>{DRIFT} <a href=a>a</a> <a href=b>b</a>"))),
        ("/a", text("What causes the northern drift has not been studied.")),
        ("/b", gated(text("The northern drift's cause is still unknown."))),
    ])
    .await
}

/// What the result file of a completed analysis says.
async fn found(five: &Five, id: &JobId, result: &Value) -> Value {
    let name = result["result_file"].as_str().unwrap();
    let rest =
        name.strip_prefix(&format!("gap_analysis_{id}_")).and_then(|rest| rest.strip_suffix(".json")).expect(name);
    assert!(rest.len() == 15 && rest.as_bytes()[8] == b'T', "{name}");
    let got = five.api.get(&format!("/api/v1/jobs/{id}/files/{name}")).await;
    assert_eq!(got.status, 200, "{}", got.text);
    serde_json::from_str(&got.text).unwrap()
}

#[tokio::test]
async fn what_several_documents_do_not_know_is_found() {
    let links = [
        "paper.html#top",
        "paper.html",
        "/doc.pdf",
        "notes.txt",
        "gone",
        "endless",
        "image",
        "moved",
        "mailto:x@y.z",
        "/ring",
    ];
    let links: String = links.iter().map(|link| format!("<a href='{link}'>x</a> ")).collect();
    let site = Site::start(&[
        ("/start", Page::Status("302 Found", "location: /papers/".to_owned())),
        ("/papers/", html(&format!("<p>{DRIFT}<p>{links}<p>Long-term costs have not been studied in ports."))),
        ("/papers/paper.html", html("<p>It is unclear what is the <b>cause</b> of the northern&nbsp;drift.")),
        (
            "/doc.pdf",
            Page::Is("application/octet-stream", pdf("Little is known about the cause of the northern drift.")),
        ),
        ("/papers/notes.txt", text("Nothing is missing here.")),
        ("/papers/endless", Page::Endless),
        ("/papers/image", Page::Is("text/html", b"\x89PNG\r\n\x1a\n\0\0".to_vec())),
        ("/papers/moved", Page::Status("301 Moved Permanently", "location: /papers/paper.html".to_owned())),
        ("/ring", Page::Status("302 Found", "location: /ring".to_owned())),
    ])
    .await;
    let five = Five::start(&[]).await;
    let _worker = five.worker();
    let id = five.submit("gap-analysis", order(&site.url("/start"))).await;
    let result = five.result(&id).await;
    assert_eq!((result["gaps"].as_u64(), result["documents"].as_u64()), (Some(1), Some(4)), "{result}");
    let content = found(&five, &id, &result).await;
    let gap = &content["gaps"][0];
    assert_eq!((gap["statement"].as_str(), gap["support"].as_u64()), (Some(DRIFT), Some(3)), "{content:#}");
    let read = ["/start", "/papers/paper.html", "/doc.pdf", "/papers/notes.txt"].map(|path| site.url(path));
    assert_eq!(content["documents"], json!(read));
    assert_eq!(gap["documents"], json!(read[..3]));
    let skipped: Vec<&str> =
        content["skipped"].as_array().unwrap().iter().map(|s| s["reason"].as_str().unwrap()).collect();
    let reasons = [
        "answered 404",
        "larger than 20 MiB",
        "neither HTML, text nor PDF",
        "same document as",
        "redirects more than 10",
    ];
    assert_eq!(skipped.len(), reasons.len(), "{skipped:?}");
    reasons.iter().zip(&skipped).for_each(|(reason, said)| assert!(said.contains(reason), "{said}"));
    assert_eq!(content["job_id"], json!(id.as_str()));
    let history = five.api.get(&format!("/api/v1/jobs/{id}/history")).await;
    let told: Vec<&str> =
        history.json["history"].as_array().unwrap().iter().filter_map(|e| e["message"].as_str()).collect();
    assert_eq!(told, ["fetching", "extracting", "finding gaps", "validating", "writing"], "{}", history.text);
    // One document is enough when that is asked for, and one paper when no more are.
    let id = five
        .submit("gap-analysis", json!({"url": site.url("/papers/"), "max_papers": 1, "validation_threshold": 1}))
        .await;
    let result = five.result(&id).await;
    assert_eq!((result["gaps"].as_u64(), result["documents"].as_u64()), (Some(2), Some(2)), "{result}");
    five.system.finish().await;
}

#[tokio::test]
async fn private_addresses_are_refused_unless_they_are_allowed() {
    let site = Site::start(&[("/", text(DRIFT))]).await;
    let five = Five::start(&[]).await;
    let worker = five.worker_with(&[("http_proxy", &site.url("/")), ("ALL_PROXY", &site.url("/"))]);
    let port = site.address.port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
        let id = five.submit("gap-analysis", order(&format!("http://{host}:{port}/"))).await;
        let (said, attempts) = five.failure(&id).await;
        assert!(said.contains("leads to a private address ("), "{said}");
        assert!(
            said.contains("set LEASEHOLD_FETCH__ALLOW_PRIVATE=true to allow it") && attempts == 1,
            "{attempts}: {said}"
        );
    }
    assert_eq!(site.hits("/"), 0);
    worker.sigterm();
    worker.wait_exit(SOON).await;
    let _worker = five.worker();
    let id = five.submit("gap-analysis", order(&format!("http://localhost:{port}/"))).await;
    assert_eq!(five.result(&id).await["documents"], 1);
    five.system.finish().await;
}

#[tokio::test]
async fn a_first_document_that_cannot_be_read_fails_the_job() {
    let site = Site::start(&[
        ("/500", Page::Status("500 Internal Server Error", "x-a: 1".to_owned())),
        ("/image", Page::Is("text/html", b"\x89PNG\r\n\x1a\n\0\0".to_vec())),
        ("/endless", Page::Endless),
        ("/file", Page::Status("302 Found", "location: file:///etc/passwd".to_owned())),
    ])
    .await;
    let five = Five::start(&[]).await;
    let _worker = five.worker();
    for (path, said, tries) in [
        ("/none", "answered 404 Not Found", 1),
        ("/500", "answered 500", 3),
        ("/image", "neither HTML, text nor PDF", 1),
        ("/endless", "larger than 20 MiB", 1),
        ("/file", "neither http nor https", 1),
    ] {
        let id = five.submit("gap-analysis", order(&site.url(path))).await;
        let (message, attempts) = five.failure(&id).await;
        assert!(message.contains(said) && message.contains(path), "{message}");
        assert_eq!((attempts, site.hits(path)), (tries, tries as usize), "{path}");
    }
    for (payload, said) in [
        (json!({"url": "ftp://a.example/"}), "neither http nor https"),
        (json!({"url": "http://a.example/", "max_papers": 0}), "payload.max_papers is 0; write 1 or more"),
        (json!({"url": "http://a.example/", "validation_threshold": 0}), "payload.validation_threshold"),
        (json!({"url": "http://a.example/", "papers": 3}), "unknown field `papers`"),
        (json!({"max_papers": 3}), "missing field `url`"),
    ] {
        let id = five.submit("gap-analysis", payload).await;
        let (message, attempts) = five.failure(&id).await;
        assert!(message.contains(said) && attempts == 1, "{message}");
        let job = five.job(&id).await;
        assert_eq!(job.error.unwrap().code, leasehold::job::ErrorCode::BadPayload);
    }
    five.system.finish().await;
}

#[tokio::test]
async fn a_worker_killed_between_two_documents_leaves_the_first_ones_done() {
    let (site, five) = (two_papers().await, Five::start(&[]).await);
    let first = five.worker();
    let id = five.submit("gap-analysis", order(&site.url("/"))).await;
    eventually(SOON, "the last paper is asked for", async || site.hits("/b") == 1).await;
    first.kill9();
    let _second = five.worker();
    eventually(SOON, "it is asked for again", async || site.hits("/b") == 2).await;
    site.open_gate();
    let result = five.result(&id).await;
    assert_eq!(found(&five, &id, &result).await["gaps"][0]["support"], 3);
    assert_eq!((site.hits("/"), site.hits("/a"), site.hits("/b")), (1, 1, 2));
    five.system.finish().await;
}

#[tokio::test]
async fn redis_killed_between_two_documents_costs_nothing() {
    let (site, five) = (two_papers().await, Five::start(&[]).await);
    let _worker = five.worker();
    let id = five.submit("gap-analysis", order(&site.url("/"))).await;
    eventually(SOON, "the last paper is asked for", async || site.hits("/b") == 1).await;
    five.system.redis().kill9();
    site.open_gate();
    five.system.redis().restart().await;
    let result = five.result(&id).await;
    assert_eq!(found(&five, &id, &result).await["gaps"][0]["support"], 3);
    assert_eq!((site.hits("/"), site.hits("/a"), site.hits("/b")), (1, 1, 1));
    five.system.finish().await;
}

#[tokio::test]
async fn two_run_at_once_over_three_workers_and_their_deaths() {
    let site = Site::start(&[("/", gated(text(DRIFT)))]).await;
    let five = Five::start(&[]).await;
    let mut workers = vec![five.worker(), five.worker(), five.worker()];
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(five.submit("gap-analysis", order(&site.url(&format!("/#{n}")))).await);
    }
    for round in 0..3 {
        eventually(SOON, "two wait at the gate", async || site.waiting().0 == 2).await;
        let mut running = None;
        for id in &ids {
            let job = five.job(id).await;
            running = running.or(job.worker.filter(|_| job.state == State::Running));
        }
        let holder = running.expect("one is running");
        let pid = five.store.workers().await.unwrap().iter().find(|w| w.id == holder).map(|w| w.pid).unwrap();
        let at = workers.iter().position(|worker| worker.pid() == pid).expect("a worker of ours");
        workers.remove(at).kill9();
        workers.push(five.worker());
        eventually(SOON, "those it had are waited for", async || site.waiting().0 < 2).await;
        assert!(site.waiting().1 <= 2, "round {round}: {:?} at once", site.waiting());
    }
    eventually(SOON, "two wait at the gate", async || site.waiting().0 == 2).await;
    site.open_gate();
    for id in &ids {
        assert_eq!(five.result(id).await["documents"], 1);
    }
    assert!(site.waiting().1 <= 2, "{:?} at once", site.waiting());
    five.system.finish().await;
}

#[tokio::test]
async fn a_cancelled_analysis_stops_in_the_middle_of_a_fetch() {
    let (site, five) = (two_papers().await, Five::start(&[]).await);
    let _worker = five.worker();
    let id = five.submit("gap-analysis", order(&site.url("/"))).await;
    eventually(SOON, "it waits at the gate", async || site.waiting().0 == 1).await;
    five.cancelled_within(&id, Duration::from_secs(2)).await;
    eventually(SOON, "the connection is closed", async || site.waiting().0 == 0).await;
    five.system.finish().await;
}

#[tokio::test]
async fn without_a_file_store_nothing_is_fetched() {
    let (site, five) = (two_papers().await, Five::start(&[]).await);
    let kinds = five.system.folder().join("kinds.toml").display().to_string();
    let environment = [
        ("LEASEHOLD_KINDS", kinds.as_str()),
        ("LEASEHOLD_FETCH__ALLOW_PRIVATE", "true"),
        ("LEASEHOLD_LEASE_MS", "2000"),
    ];
    let _worker = Worker::start(&five.system.redis().url(), &environment);
    let id = five.submit("gap-analysis", order(&site.url("/"))).await;
    let (said, attempts) = five.failure(&id).await;
    assert!(said.contains("LEASEHOLD_STORAGE_URL") && attempts == 1 && site.hits("/") == 0, "{said}");
    five.system.finish().await;
}
