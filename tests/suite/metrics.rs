//! Metrics, and the worker's port: what is counted moves with the work, and an outage is told.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leasehold::tokens::{Scope, mint};
use leasehold_tests::api::client;
use leasehold_tests::{Api, Port, Process, Proxy, System, Way, Worker, eventually};
use serde_json::json;

use crate::steered_command::*;

/// One scrape: a value by name and labels, and the type by name.
struct Scrape {
    values: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads the text format strictly: HELP, TYPE and then all samples of a family, each series once.
    fn parse(text: &str) -> Scrape {
        let (mut values, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split_once(' ').expect("a help text").0.to_owned();
                assert!(family.starts_with("leasehold_"), "{line}");
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, sort) = typed.split_once(' ').expect("a type");
                assert_eq!(name, family, "HELP and TYPE stand together: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&sort), "{line}");
                assert_eq!(name.ends_with("_total"), sort == "counter", "{line}");
                assert!(types.insert(name.to_owned(), sort.to_owned()).is_none(), "twice: {line}");
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a sample");
                let name = series.split('{').next().unwrap();
                let known = types.get(&family).expect("a TYPE before its samples");
                let parts: &[&str] = if known == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(parts.iter().any(|part| name == format!("{family}{part}")), "{line} in {family}");
                assert!(!series.contains("job=") && !series.contains("id="), "{line}");
                let value: f64 = value.parse().expect("a number");
                assert!(values.insert(series.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        assert!(text.ends_with('\n'));
        Scrape { values, types }
    }

    /// The value of a series, `name{label="value"}` without `leasehold_`; 0 when it is not there.
    fn value(&self, series: &str) -> f64 {
        self.values.get(&format!("leasehold_{series}")).copied().unwrap_or(0.0)
    }

    fn names(&self) -> BTreeSet<String> {
        self.types.keys().cloned().collect()
    }
}

async fn of_api(api: &Api) -> Scrape {
    let answer = api.get("/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Scrape::parse(&answer.text)
}

/// A worker with a port.
struct Probed {
    worker: Worker,
    port: Port,
}

impl Probed {
    fn start(work: &Work, environment: &[(&str, &str)]) -> Probed {
        let port = Port::reserve();
        let listen = port.address().to_string();
        let mut all = vec![("LEASEHOLD_WORKER__LISTEN", listen.as_str())];
        all.extend_from_slice(environment);
        Probed { worker: work.system.worker(&all), port }
    }

    async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let url = format!("http://{}{path}", self.port.address());
        let client = client().timeout(Duration::from_secs(10)).build().unwrap();
        let response = client.get(url).send().await.map_err(|e| e.to_string())?;
        Ok((response.status().as_u16(), response.text().await.map_err(|e| e.to_string())?))
    }

    async fn becomes(&self, path: &str, status: u16) -> String {
        eventually(SOON, &format!("{path} answers {status}"), async || match self.get(path).await {
            Ok((seen, text)) if seen == status => Ok(text),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    async fn metrics(&self) -> Scrape {
        let (status, text) = self.get("/metrics").await.unwrap();
        assert_eq!(status, 200);
        Scrape::parse(&text)
    }

    /// Waits until a series has that value.
    async fn shows(&self, series: &str, value: f64) {
        eventually(SOON, &format!("{series} is {value}"), async || {
            let seen = self.metrics().await.value(series);
            if seen == value { Ok(()) } else { Err(seen) }
        })
        .await;
    }
}

#[tokio::test]
async fn counters_and_histograms_move_with_the_work() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let worker = Probed::start(&work, &[("LEASEHOLD_WORKER__CONCURRENCY", "2")]);
    worker.becomes("/readyz", 200).await;
    let first = [submit(&api, "step").await, submit(&api, "step").await];
    for id in &first {
        work.begun(id, 1).await;
    }
    let waiting = submit(&api, "step").await;
    let running = worker.metrics().await;
    assert_eq!((running.value("worker_slots"), running.value("worker_slots_busy")), (2.0, 2.0));
    eventually(SOON, "the API tells what waits and runs", async || {
        let seen = of_api(&api).await;
        let [waits, runs] = ["queue_jobs", "queue_running"].map(|n| seen.value(&format!("{n}{{queue=\"default\"}}")));
        let oldest = seen.value("queue_latency_seconds{queue=\"default\"}");
        if (waits, runs) == (1.0, 2.0) && oldest > 0.0 { Ok(()) } else { Err((waits, runs, oldest)) }
    })
    .await;
    work.open_gate();
    for id in first.iter().chain([&waiting]) {
        work.completed(id).await;
    }
    work.ended(&submit_with(&api, json!({"kind": "exits", "payload": 1})).await).await;
    work.ended(&submit_with(&api, json!({"kind": "exits", "payload": 65, "delay_ms": 50})).await).await;
    for (series, value) in [
        ("jobs_finished_total{kind=\"step\",queue=\"default\",outcome=\"completed\"}", 3.0),
        ("jobs_finished_total{kind=\"exits\",queue=\"default\",outcome=\"retrying\"}", 1.0),
        ("jobs_finished_total{kind=\"exits\",queue=\"default\",outcome=\"failed\"}", 2.0),
        ("jobs_claimed_total{kind=\"step\"}", 3.0),
        ("job_run_duration_seconds_count{kind=\"step\"}", 3.0),
        ("job_run_duration_seconds_bucket{le=\"+Inf\",kind=\"exits\"}", 3.0),
        // The second attempt of the one that failed did not wait in line.
        ("job_wait_duration_seconds_count{kind=\"exits\"}", 2.0),
        ("job_wait_duration_seconds_count{kind=\"step\"}", 3.0),
        ("worker_slots_busy", 0.0),
        ("settles_stale_total", 0.0),
    ] {
        worker.shows(series, value).await;
    }
    let seen = worker.metrics().await;
    assert!(seen.value("jobs_promoted_total") >= 2.0, "a retry and a delayed job became due");
    assert!(seen.value("redis_calls_total{verb=\"claim\",outcome=\"ok\"}") >= 3.0);
    assert!(seen.value("redis_calls_total{verb=\"pop\",outcome=\"ok\"}") >= 1.0);
    assert!(seen.value("redis_call_duration_seconds_count{verb=\"settle\"}") >= 1.0);
    assert!(seen.value("renewals_total{outcome=\"ok\"}") >= 1.0);
    let seen = of_api(&api).await;
    let submits = "http_requests_total{method=\"POST\",route=\"/api/v1/jobs\",code=\"202\"}";
    assert_eq!(seen.value(submits), 5.0);
    assert_eq!(seen.value("http_request_duration_seconds_count{method=\"POST\",route=\"/api/v1/jobs\"}"), 5.0);
    assert_eq!(seen.value("http_requests_in_flight"), 1.0, "this one");
    work.system.finish().await;
}

#[tokio::test]
async fn the_table_in_architecture_is_what_is_shown() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let worker = Probed::start(&work, &[]);
    worker.becomes("/readyz", 200).await;
    work.open_gate();
    work.completed(&submit(&api, "step").await).await;
    worker.shows("jobs_finished_total{kind=\"step\",queue=\"default\",outcome=\"completed\"}", 1.0).await;
    of_api(&api).await;
    let (from_api, from_worker) = (of_api(&api).await.names(), worker.metrics().await.names());
    let text = include_str!("../../ARCHITECTURE.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `leasehold_"));
    let (mut api_rows, mut worker_rows) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = format!("leasehold_{}", cells[0].trim_end_matches('`'));
        let by = cells[1];
        assert!(["both", "API", "worker"].contains(&by), "{row}");
        if by != "worker" {
            api_rows.insert(name.clone());
        }
        if by != "API" {
            worker_rows.insert(name);
        }
    }
    assert_eq!(api_rows, from_api);
    assert_eq!(worker_rows, from_worker);
    work.system.finish().await;
}

#[tokio::test]
async fn a_lost_lease_is_counted_by_who_takes_it_and_by_who_comes_late() {
    let work = Work::start(&[]).await;
    let (api, proxy) = (work.system.api(&[]).await, Proxy::start(work.system.redis().port()).await);
    let late = Probed::start(&work, &[("LEASEHOLD_REDIS_URL", &proxy.url())]);
    late.becomes("/readyz", 200).await;
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    let other = Probed::start(&work, &[]);
    other.becomes("/readyz", 200).await;
    proxy.freeze(Way::Both);
    other.shows("leases_expired_total", 1.0).await;
    late.becomes("/readyz", 503).await;
    work.begun(&id, 2).await;
    // It is settled late, before a renewal can tell that the lease is lost.
    work.open_gate();
    work.completed(&id).await;
    proxy.heal().await;
    eventually(SOON, "it counts its loss", async || {
        late.metrics().await.value("jobs_finished_total{kind=\"step\",queue=\"default\",outcome=\"lost\"}") == 1.0
    })
    .await;
    let seen = late.metrics().await;
    assert!(seen.value("renewals_total{outcome=\"failed\"}") >= 1.0);
    late.becomes("/readyz", 200).await;
    work.system.finish().await;
}

#[tokio::test]
async fn a_stale_settle_is_counted() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    // A lease so long that no renewal comes meanwhile: nothing but its settle tells the handler's end that it is lost.
    let worker = Probed::start(&work, &[("LEASEHOLD_LEASE_MS", "300000")]);
    worker.becomes("/readyz", 200).await;
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    let () = work.system.redis().command(&["ZADD", "lh:{0}:leases", "1", id.as_str()]).await;
    worker.shows("leases_expired_total", 1.0).await;
    work.begun(&id, 2).await;
    work.open_gate();
    work.completed(&id).await;
    worker.shows("settles_stale_total", 1.0).await;
    worker.shows("jobs_finished_total{kind=\"step\",queue=\"default\",outcome=\"lost\"}", 1.0).await;
    worker.shows("jobs_finished_total{kind=\"step\",queue=\"default\",outcome=\"completed\"}", 1.0).await;
    work.system.finish().await;
}

#[tokio::test]
async fn a_reservation_that_nobody_leased_is_counted_when_it_is_put_back() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    // What a worker leaves that dies between its pop and its claim.
    let id = submit(&api, "step").await;
    // It would recover the job itself.
    drop(api);
    let () =
        work.system.redis().command(&["LMOVE", "lh:{0}:queue:default", "lh:{0}:claimed:dead", "RIGHT", "LEFT"]).await;
    let () = work.system.redis().command(&["ZADD", "lh:{0}:workers", "1", "dead"]).await;
    let worker = Probed::start(&work, &[]);
    work.completed(&id).await;
    worker.shows("reservations_recovered_total", 1.0).await;
    work.system.finish().await;
}

#[tokio::test]
async fn an_api_tells_its_metrics_and_that_redis_is_away() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[("LEASEHOLD_REDIS__OUTAGE_MS", "500")]).await;
    submit(&api, "step").await;
    let seen = of_api(&api).await;
    assert_eq!((seen.value("redis_up"), seen.value("queue_jobs{queue=\"default\"}")), (1.0, 1.0));
    work.system.redis().kill9();
    let away = eventually(SOON, "it says that Redis is away", async || {
        let seen = of_api(&api).await;
        (seen.value("redis_up") == 0.0).then_some(seen)
    })
    .await;
    assert!(!away.names().iter().any(|name| name.starts_with("leasehold_queue_")), "it knows nothing of the queues");
    let failed = away.values.iter().filter(|(series, _)| series.contains("outcome=\"unavailable\"")).count();
    assert!(failed >= 1, "the calls that failed are counted");
    work.system.redis().restart().await;
    eventually(SOON, "Redis is back", async || of_api(&api).await.value("redis_up") == 1.0).await;
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_answers_before_redis_and_until_its_end() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    work.system.redis().kill9();
    let worker = Probed::start(&work, &[]);
    worker.becomes("/livez", 200).await;
    assert!(worker.becomes("/readyz", 503).await.contains("Redis"));
    assert_eq!(worker.metrics().await.value("redis_up"), 0.0);
    work.system.redis().restart().await;
    worker.becomes("/readyz", 200).await;
    assert_eq!(worker.metrics().await.value("redis_up"), 1.0);
    api.wait_ready().await;
    let id = submit(&api, "step").await;
    work.begun(&id, 1).await;
    worker.worker.sigterm();
    assert!(worker.becomes("/readyz", 503).await.contains("shutting down"));
    assert_eq!(worker.get("/livez").await.unwrap().0, 200, "it lives until its job has ended");
    assert_eq!(worker.metrics().await.value("worker_slots_busy"), 1.0);
    assert_eq!(worker.get("/jobs").await.unwrap().0, 404);
    work.open_gate();
    assert!(worker.worker.wait_exit(SOON).await.success());
    work.completed(&id).await;
    work.system.finish().await;
}

#[tokio::test]
async fn a_workers_port_is_reached_from_other_machines_and_its_metrics_take_a_token() {
    let work = Work::start(&[]).await;
    let (token, line) = mint("prometheus", Scope::Read).unwrap();
    let file = work.system.folder().join("tokens");
    std::fs::write(&file, line).unwrap();
    let port = Port::reserve();
    let listen = format!("0.0.0.0:{}", port.number());
    let tokens = file.display().to_string();
    let worker =
        work.system.worker(&[("LEASEHOLD_WORKER__LISTEN", listen.as_str()), ("LEASEHOLD_API__TOKENS", &tokens)]);
    let client = client().build().unwrap();
    let get = async |path: &str, bearer: Option<&str>| {
        let request = client.get(format!("http://{}{path}", port.address()));
        let request = bearer.into_iter().fold(request, |request, token| request.bearer_auth(token));
        let response = request.send().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((response.status().as_u16(), response.text().await.map_err(|e| e.to_string())?))
    };
    eventually(SOON, "the worker is ready", async || match get("/readyz", None).await {
        Ok((200, _)) => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(get("/livez", None).await.unwrap().0, 200);
    let (status, text) = get("/metrics", None).await.unwrap();
    assert!(status == 401 && text.contains("Authorization: Bearer") && !text.contains("leasehold_"), "{text}");
    assert_eq!(get("/metrics", Some("wrong")).await.unwrap().0, 401);
    let (status, text) = get("/metrics", Some(&token)).await.unwrap();
    assert!(status == 200 && text.contains("leasehold_worker_slots "), "{text}");
    drop(worker);
    // Without a token file it is open, and says so.
    let open = work.system.worker(&[("LEASEHOLD_WORKER__LISTEN", listen.as_str())]);
    eventually(SOON, "its metrics are read", async || match get("/metrics", None).await {
        Ok((200, _)) => Ok(()),
        other => Err(other),
    })
    .await;
    assert!(open.stderr().contains("can be read from other machines"), "{}", open.stderr());
    drop(open);
    work.system.finish().await;
}

#[tokio::test]
async fn a_worker_whose_claim_loop_does_not_turn_is_not_live() {
    let system = System::start(&[]).await;
    let (api, port) = (system.api(&[]).await, Port::reserve());
    let (listen, url) = (port.address().to_string(), system.redis().url());
    let environment = [
        ("LEASEHOLD_REDIS_URL", url.as_str()),
        ("LEASEHOLD_WORKER__LISTEN", &listen),
        ("LEASEHOLD_REDIS__OUTAGE_MS", "0"),
        ("LEASEHOLD_REDIS__RESPONSE_MS", "500"),
        ("LEASEHOLD_REDIS__CONNECT_MS", "500"),
    ];
    let worker = Worker::of(Process::ours("leasehold-test-worker", &[], &environment));
    let probed = Probed { worker, port };
    probed.becomes("/readyz", 200).await;
    assert_eq!(probed.get("/livez").await.unwrap().0, 200);
    // Both threads of its runtime are kept busy; a probe has a thread of its own.
    let journal = system.folder().join("journal").display().to_string();
    for _ in 0..2 {
        submit_with(&api, json!({"kind": "hog", "payload": {"ms": 18_000, "journal": journal}})).await;
    }
    let said = probed.becomes("/livez", 503).await;
    assert!(said.contains("the claim loop has not turned for"), "{said}");
    probed.becomes("/livez", 200).await;
    drop((probed, api));
    system.finish().await;
}
