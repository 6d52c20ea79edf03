//! The work of the five systems on real input: real pages and recordings, real processes, and deaths in the middle.
mod analyze_audio;
mod documents;
mod gap_analysis;
mod site;

use std::time::Duration;

use leasehold::{Config, Job, JobId, State, Store};
use leasehold_tests::api::answer;
use leasehold_tests::{Api, System, Worker, eventually};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

/// How long anything may take that ought to happen soon: these handlers are slow when they are built to be debugged.
const SOON: Duration = Duration::from_secs(60);

const KINDS: &str = r#"
[kinds.gap-analysis]
max_running = 2
max_attempts = 3
backoff = { first_ms = 50, max_ms = 100 }
[kinds.analyze-audio]
max_attempts = 3
backoff = { first_ms = 50, max_ms = 100 }
"#;

/// A system with a file store that serves these kinds.
struct Five {
    system: System,
    store: Store,
    api: Api,
}

impl Five {
    async fn start(environment: &[(&str, &str)]) -> Five {
        let system = System::start(&[("LEASEHOLD_LEASE_MS", "2000")]).await;
        let kinds = system.folder().join("kinds.toml");
        std::fs::write(&kinds, KINDS).unwrap();
        let config = Config { redis_url: system.redis().url(), ..Config::default() };
        let store = Store::connect(&config).await.unwrap();
        let mut all = vec![("LEASEHOLD_KINDS", kinds.to_str().unwrap())];
        all.extend_from_slice(environment);
        let api = system.api(&all).await;
        api.wait_ready().await;
        Five { system, store, api }
    }

    /// A worker that may fetch from private addresses, as all servers of these tests have.
    fn worker(&self) -> Worker {
        self.worker_with(&[("LEASEHOLD_FETCH__ALLOW_PRIVATE", "true")])
    }

    fn worker_with(&self, environment: &[(&str, &str)]) -> Worker {
        let kinds = self.system.folder().join("kinds.toml").display().to_string();
        let mut all = vec![("LEASEHOLD_KINDS", kinds.as_str())];
        all.extend_from_slice(environment);
        self.system.worker(&all)
    }

    async fn submit(&self, kind: &str, payload: Value) -> JobId {
        let got = self.api.post("/api/v1/jobs", &json!({ "kind": kind, "payload": payload })).await;
        assert_eq!(got.status, 202, "{}", got.text);
        JobId::parse(got.json["id"].as_str().unwrap()).unwrap()
    }

    async fn upload(&self, kind: &str, payload: Value, files: &[(&str, &[u8])]) -> JobId {
        self.upload_with(&json!({ "kind": kind, "payload": payload }), files).await
    }

    async fn upload_with(&self, job: &Value, files: &[(&str, &[u8])]) -> JobId {
        let mut form = Form::new().part("job", Part::text(job.to_string()));
        for (name, content) in files {
            form = form.part("file", Part::bytes(content.to_vec()).file_name((*name).to_owned()));
        }
        let got = answer(self.api.request(Method::POST, "/api/v1/jobs").multipart(form)).await;
        assert_eq!(got.status, 202, "{}", got.text);
        JobId::parse(got.json["id"].as_str().unwrap()).unwrap()
    }

    async fn job(&self, id: &JobId) -> Job {
        self.store.get(id).await.unwrap().expect("an acknowledged job is there")
    }

    async fn ended(&self, id: &JobId) -> Job {
        eventually(SOON, "the job ends", async || {
            self.store.get(id).await.ok().flatten().filter(|job| job.state.is_final())
        })
        .await
    }

    /// The result of a job that is to complete.
    async fn result(&self, id: &JobId) -> Value {
        let job = self.ended(id).await;
        assert_eq!(job.state, State::Completed, "{:?}", job.error);
        serde_json::from_str(job.result.expect("a completed job has a result").as_str()).unwrap()
    }

    /// Why a job failed that is to fail, and after how many attempts.
    async fn failure(&self, id: &JobId) -> (String, u32) {
        let job = self.ended(id).await;
        assert_eq!(job.state, State::Failed, "{:?}", job.result);
        (job.error.expect("a failed job has an error").message, job.attempt)
    }

    async fn cancelled_within(&self, id: &JobId, limit: Duration) {
        self.api.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
        eventually(limit, "the cancelled job ends", async || self.job(id).await.state.is_final()).await;
        assert_eq!(self.job(id).await.state, State::Cancelled);
    }
}
