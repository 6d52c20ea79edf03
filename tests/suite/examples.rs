//! The commands of `examples/`, as its kinds file has them, through real APIs, workers and Redis: done once, whatever
//! dies.
mod day;
mod screenshots;
mod site;
mod suggestions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold::{Config, Job, JobId, Store};
use leasehold_tests::{Api, System, Worker, eventually};
use serde_json::{Value, json};

/// How long anything may take; a browser starts in seconds, and in many when all tests run at once.
const SOON: Duration = Duration::from_secs(120);

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// A system with the kinds of the examples.
struct Five {
    system: System,
    store: Store,
}

impl Five {
    async fn start(environment: &[(&str, &str)]) -> Five {
        let kinds = examples().join("kinds.toml").display().to_string();
        let documents = examples().join("process-files/documents").display().to_string();
        let mut all = vec![
            ("LEASEHOLD_KINDS", kinds.as_str()),
            ("LEASEHOLD_DOCUMENT_ROOT", &documents),
            ("LEASEHOLD_LEASE_MS", "3000"),
        ];
        all.extend_from_slice(environment);
        let system = System::start(&all).await;
        let config = Config { redis_url: system.redis().url(), ..Config::default() };
        Five { store: Store::connect(&config).await.unwrap(), system }
    }

    async fn api(&self) -> Api {
        let api = self.system.api(&[]).await;
        api.wait_ready().await;
        api
    }

    /// The folder in which the workers of [`Five::worker`] run their commands.
    fn yard(&self) -> PathBuf {
        let yard = self.system.folder().join("yard");
        std::fs::create_dir_all(&yard).unwrap();
        yard
    }

    fn worker(&self, environment: &[(&str, &str)]) -> Worker {
        let yard = self.yard().display().to_string();
        let mut all = vec![("TMPDIR", yard.as_str())];
        all.extend_from_slice(environment);
        self.system.worker(&all)
    }

    /// Waits until nothing is left of what commands had: no file, and no process that names their folder.
    async fn nothing_runs(&self) {
        let yard = self.yard();
        let named = yard.display().to_string();
        eventually(SOON, "no command is left", async || {
            let files: Vec<_> = std::fs::read_dir(&yard).unwrap().flatten().map(|entry| entry.path()).collect();
            let processes: Vec<_> = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).collect();
            let running = processes.into_iter().filter(|path| {
                let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&named)
            });
            let left: Vec<_> = files.into_iter().chain(running).collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    async fn ended(&self, id: &JobId) -> Job {
        eventually(SOON, "the job ends", async || {
            let job = self.store.get(id).await.ok().flatten();
            match job {
                Some(job) if job.state.is_final() => Ok(job),
                job => Err(job),
            }
        })
        .await
    }
}

/// Submits a job as any client does.
async fn submit(api: &Api, body: Value) -> JobId {
    let answer = api.post("/api/v1/jobs", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    id_of(&answer.json["id"])
}

fn id_of(id: &Value) -> JobId {
    JobId::parse(id.as_str().unwrap()).unwrap()
}

/// Submits each payload, and expects that its only attempt fails with the words that stand with it.
async fn fail_for_good(five: &Five, api: &Api, kind: &str, cases: &[(Value, &str)]) {
    let mut ids = Vec::new();
    for (payload, _) in cases {
        ids.push(submit(api, json!({"kind": kind, "payload": payload})).await);
    }
    for (id, (payload, said)) in ids.iter().zip(cases) {
        let job = five.ended(id).await;
        let message = job.error.map(|error| error.message).unwrap_or_default();
        assert!(message.contains("exit code 65") && message.contains(said), "{payload}: {message}");
        assert_eq!((job.state, job.attempt), (leasehold::State::Failed, 1), "{payload}");
    }
}
