//! Goals 9 and 11: the real API beside a bare route, and the memory of worker and API.
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bench;
use super::drain::{Drain, consistent};
use super::http::{CONNECTIONS, Load, Requests, load};
use super::process::resident_mb;
use super::report::{Bound, Row};
use super::site::{Fsync, Running, Site};
use super::work::{self, NOOP, payload};
use crate::failure::Failure;
use crate::local::port::Port;
use crate::local::system;

/// Jobs that are read.
const READ: usize = 1_000;
/// How long the servers are under load before anything is measured, as a share of a round.
const WARM_UP: f64 = 0.3;
/// The most memory that a process at rest may have, MB.
const REST_MB_MAX: f64 = 20.0;
/// How much memory may grow from a third of a load to its end.
const GROWTH_MAX: f64 = 1.1;
/// How long processes are left alone before their memory at rest is read.
const REST: Duration = Duration::from_secs(3);

/// A server under load.
struct Server {
    running: Running,
    address: String,
    _port: Port,
}

/// The runs of one server: rate, p50 and p99.
#[derive(Default)]
struct Runs(Vec<f64>, Vec<f64>, Vec<f64>);

impl Runs {
    fn add(&mut self, load: Load) {
        self.0.push(load.rate);
        self.1.push(load.p50_ms);
        self.2.push(load.p99_ms);
    }
}

impl Server {
    async fn api(site: &Site) -> Result<Self, Failure> {
        let port = Port::reserve()?;
        let address = format!("127.0.0.1:{}", port.number());
        let running = site.run("leasehold-api", &[("LEASEHOLD_API__LISTEN", address.clone())])?;
        Self { running, address, _port: port }.ready().await
    }

    async fn bare(site: &Site) -> Result<Self, Failure> {
        let port = Port::reserve()?;
        let address = format!("127.0.0.1:{}", port.number());
        let running = site.run_role(&["route", "--listen", &address, "--redis-url", &site.url()], &[])?;
        Self { running, address, _port: port }.ready().await
    }

    async fn ready(mut self) -> Result<Self, Failure> {
        let base = format!("http://{}", self.address);
        self.running.await_api(&base).await?;
        Ok(self)
    }

    /// Submits jobs to read; their paths.
    async fn fill(&self, path: &str, body: &str, count: usize) -> Result<Requests, Failure> {
        let client = system::client()?;
        let url = format!("http://{}{path}", self.address);
        let fault = |e: reqwest::Error| Failure::Failed(format!("{url}: {e}"));
        let mut paths = Vec::new();
        for _ in 0..count {
            let request = client.post(&url).header("content-type", "application/json").body(body.to_owned());
            let answer = request.send().await.and_then(reqwest::Response::error_for_status).map_err(fault)?;
            let job: Value = answer.json().await.map_err(fault)?;
            paths.push(format!("{path}/{}", job["id"].as_str().unwrap_or_default()));
        }
        Ok(Requests::Read { paths: Arc::new(paths) })
    }
}

/// What the API is sent, and what the bare route is.
fn bodies() -> (String, String) {
    let payload: Value = serde_json::from_str(&payload()).expect("the payload is JSON");
    (json!({"kind": NOOP, "payload": payload}).to_string(), work::payload())
}

/// Goal 9.
pub(super) async fn http(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let size = bench.ground.size;
    let site = Site::start(&bench.ground, Fsync::Everysec, 1).await?;
    let (api, bare) = (Server::api(&site).await?, Server::bare(&site).await?);
    let (body, bare_body) = bodies();
    let (path, bare_path) = ("/api/v1/jobs", "/jobs");
    let reads = [
        api.fill(path, &body, READ.min(size.drain())).await?,
        bare.fill(bare_path, &bare_body, READ.min(size.drain())).await?,
    ];
    let submits =
        [Requests::Submit { path: path.into(), body }, Requests::Submit { path: bare_path.into(), body: bare_body }];
    let time = Duration::from_secs_f64(size.http_s());
    let mut rows = Vec::new();
    for (what, [ours, theirs]) in [("submit", submits), ("get", reads)] {
        let (mut of_api, mut of_bare) = (Runs::default(), Runs::default());
        for round in 0..=size.rounds() {
            let time = if round == 0 { time.mul_f64(WARM_UP) } else { time };
            let (one, other) = (load(&api.address, &ours, time).await?, load(&bare.address, &theirs, time).await?);
            if round > 0 {
                of_api.add(one);
                of_bare.add(other);
            }
        }
        let name = format!("HTTP {what}, {CONNECTIONS} connections");
        let rate = Row::new(name.clone(), "/s", of_api.0).against("bare route", of_bare.0);
        rows.push(rate.needs(Bound::AtLeast(1.0)));
        rows.push(Row::new(format!("{name}, p50"), "ms", of_api.1).against("bare route", of_bare.1));
        let p99 = Row::new(format!("{name}, p99"), "ms", of_api.2).against("bare route", of_bare.2);
        rows.push(p99.needs(Bound::AtMost(3.0)));
    }
    api.running.stop().await?;
    drop(bare);
    consistent(&site.store).await?;
    site.close().await?;
    Ok(rows)
}

/// Goal 11.
pub(super) async fn memory(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let size = bench.ground.size;
    let site = Site::start(&bench.ground, Fsync::Everysec, 1).await?;
    let kinds = site.folder().join("kinds.toml");
    std::fs::write(&kinds, "[kinds.nothing]\ncommand = [\"true\"]\n")?;
    let mut worker = site.run("leasehold-worker", &[("LEASEHOLD_KINDS", kinds.display().to_string())])?;
    worker.await_worker(&site.store).await?;
    let api = Server::api(&site).await?;
    tokio::time::sleep(REST.min(Duration::from_secs_f64(size.load_s()))).await;
    let row = |what: &str, mb: f64| Row::new(what, "MB", vec![mb]).needs(Bound::AtMost(REST_MB_MAX));
    let mut rows =
        vec![row("worker at rest", resident_mb(worker.pid())?), row("API at rest", resident_mb(api.running.pid())?)];
    worker.stop().await?;
    // Half of each load's time, so that both together take `load_s`.
    let time = Duration::from_secs_f64(size.load_s() / 2.0);
    let submits = Requests::Submit { path: "/api/v1/jobs".into(), body: bodies().0 };
    let third = load(&api.address, &submits, time.mul_f64(1.0 / 3.0)).await?;
    let early = resident_mb(api.running.pid())?;
    let rest = load(&api.address, &submits, time.mul_f64(2.0 / 3.0)).await?;
    let late = resident_mb(api.running.pid())?;
    let what = format!("API under load, after {} submits", third.requests + rest.requests);
    let flat = Row::new(what, "MB", vec![late]).against(format!("after {}", third.requests), vec![early]);
    rows.push(flat.needs(Bound::AtMost(GROWTH_MAX)));
    api.running.stop().await?;
    consistent(&site.store).await?;
    site.close().await?;
    rows.push(worker_under_load(bench, time).await?);
    Ok(rows)
}

/// A worker of 300 slots that drains for a while.
async fn worker_under_load(bench: &Bench, time: Duration) -> Result<Row, Failure> {
    let mut drain = Drain::prepare(&bench.ground, Fsync::Everysec, 1).await?;
    let step = bench.ground.size.drain() / 4;
    let (begun, mut jobs, mut early) = (Instant::now(), 0, None);
    while begun.elapsed() < time || early.is_none() {
        drain.fill_and_run(step).await?;
        jobs += step;
        if early.is_none() && begun.elapsed() > time.mul_f64(1.0 / 3.0) {
            early = Some((resident_mb(drain.worker_pid())?, jobs));
        }
    }
    let late = resident_mb(drain.worker_pid())?;
    let (early, after) = early.unwrap_or((late, jobs));
    drain.check(0, 0).await?.close().await?;
    let row = Row::new(format!("worker under load, after {jobs} jobs"), "MB", vec![late]);
    Ok(row.against(format!("after {after}"), vec![early]).needs(Bound::AtMost(GROWTH_MAX)))
}
