//! The routes of the five systems, by the real API on a real Redis, with real workers where a body hangs on work.
mod audio;
mod errors;
mod files;
mod gap_analysis;
mod job_status;
mod screenshots;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use leasehold::job::Uploaded;
use leasehold::{Config, Job, JobId, Kind, NewJob, Store};
use leasehold_tests::api::answer;
use leasehold_tests::{Answer, Api, System, Worker, eventually};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take that ought to happen soon.
const SOON: Duration = Duration::from_secs(60);

/// Stand-ins of the work, as quick as can be; `process-files` is the real one. Each waits for the gate.
const KINDS: &str = r#"
[kinds.process-files]
max_attempts = 1
[kinds.suggestions]
command = ["sh", "{dir}/suggestions.sh"]
max_attempts = 1
[kinds.gap-analysis]
command = ["sh", "{dir}/gap.sh"]
max_attempts = 1
max_running = 2
[kinds.screenshots]
command = ["sh", "{dir}/shot.sh"]
max_attempts = 1
[kinds.analyze-audio]
command = ["sh", "{dir}/audio.sh"]
max_attempts = 1
"#;

const GATE: &str = r#"
gate() {
  i=0
  while [ ! -e "$(dirname "$0")/gate" ] && [ $i -lt 3000 ]; do sleep 0.02; i=$((i+1)); done
}
read -r payload
case "$payload" in *spoilt*) echo "it is spoilt"; exit 65;; *needless*) echo '{"skip": "needless"}'; exit 0;; esac
"#;

const SUGGESTIONS: &str = r#"
echo '{"progress": 75.5, "message": "reading"}'
gate
echo '{"result": {"suggestions": [{"id": "1", "text": "Test suggestion"}]}}'
"#;

const GAP: &str = r#"
echo '{"progress": 20, "message": "fetching"}'
gate
name="gap_analysis_${LEASEHOLD_JOB_ID}_20260101T000000.json"
echo '{"gaps": [], "documents": [1.50]}' > "out/$name"
echo "{\"result\": {\"result_file\": \"$name\", \"gaps\": 0, \"documents\": 1}}"
"#;

const SHOT: &str = r#"
gate
printf 'image' > out/screenshot.png
echo '{"result": {"file": "screenshot.png", "cached": true}}'
"#;

const AUDIO: &str = r#"
echo '{"progress": 50, "message": "decoding"}'
gate
echo "{\"result\": {\"duration_seconds\": $(cat in/* | wc -c).5}}"
"#;

/// A system that serves all five.
pub struct Five {
    pub system: System,
    pub api: Api,
    store: Store,
    folder: TempDir,
}

impl Five {
    pub async fn start(environment: &[(&str, &str)]) -> Five {
        let folder = TempDir::with_prefix("leasehold-test-").unwrap();
        std::fs::write(folder.path().join("kinds.toml"), KINDS).unwrap();
        for (name, script) in [("suggestions", SUGGESTIONS), ("gap", GAP), ("shot", SHOT), ("audio", AUDIO)] {
            std::fs::write(folder.path().join(format!("{name}.sh")), format!("{GATE}{script}")).unwrap();
        }
        let kinds = folder.path().join("kinds.toml").display().to_string();
        let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/process-files/documents");
        let documents = documents.display().to_string();
        let system = System::start(&[("LEASEHOLD_KINDS", &kinds), ("LEASEHOLD_DOCUMENT_ROOT", &documents)]).await;
        let api = system.api(environment).await;
        api.wait_ready().await;
        let config = Config { redis_url: system.redis().url(), ..Config::default() };
        let store = Store::connect(&config).await.unwrap();
        Five { system, api, store, folder }
    }

    pub fn worker(&self) -> Worker {
        self.system.worker(&[("LEASEHOLD_WORKER__CONCURRENCY", "16")])
    }

    /// Lets the work go on.
    pub fn open_gate(&self) {
        std::fs::write(self.folder.path().join("gate"), "").unwrap();
    }

    /// Reads a path until its body is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(SOON, path, async || {
            let read = self.api.get(path).await;
            if read.status == 200 && wanted(&read.json) { Ok(read.json) } else { Err(read.text) }
        })
        .await
    }

    pub async fn has_status(&self, path: &str, status: &str) -> Value {
        self.until(path, |body| body["status"] == status).await
    }

    /// A job with an id of its old store, as an import leaves it; the work is still to be done.
    async fn import(&self, id: &str, kind: &str, items: Option<&[Value]>, old: &Value) -> JobId {
        let payload = |value: &Value| leasehold::Json::of(value).unwrap();
        let job = NewJob {
            kind: Kind::parse(kind).unwrap(),
            queue: leasehold::QueueName::parse("default").unwrap(),
            priority: Default::default(),
            payload: leasehold::Json::null(),
            due: Default::default(),
            max_attempts: 1,
            timeout_ms: None,
            idempotency: None,
            durability: Default::default(),
            limited: kind == "gap-analysis",
            batch: items.map(|items| leasehold::job::NewBatch {
                items: items.iter().map(payload).collect(),
                ..Default::default()
            }),
            uploaded: Some(Uploaded { id: JobId::parse(id).unwrap(), files: Vec::new() }),
        };
        let id = self.store.submit(job).await.unwrap().id;
        self.give_old(&id, old).await;
        id
    }

    async fn give_old(&self, id: &JobId, old: &Value) {
        let key = format!("lh:{{0}}:job:{id}");
        let () = self.system.redis().command(&["HSET", &key, "imported", &old.to_string()]).await;
    }

    /// Makes an ended job one that ended in its old store: no worker of ours has had it.
    async fn ended_there(&self, id: &JobId) {
        let ended = async || self.store.get(id).await.ok().flatten().filter(|job| job.state.is_final());
        eventually(SOON, "the job ends", ended).await;
        let () = self.system.redis().command(&["HDEL", &format!("lh:{{0}}:job:{id}"), "token"]).await;
    }

    async fn job(&self, id: &str) -> Job {
        self.store.get(&JobId::parse(id).unwrap()).await.unwrap().unwrap()
    }
}

/// The id in an answer that has accepted something.
#[track_caller]
pub fn taken(answer: &Answer) -> String {
    assert!([200, 202].contains(&answer.status), "{}", answer.text);
    answer.json["job_id"].as_str().unwrap().to_owned()
}

/// Sends a JSON text with an Idempotency-Key.
async fn keyed(api: &Api, path: &str, key: &str, body: &Value) -> Answer {
    answer(api.request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

/// Uploads a file.
pub async fn upload(api: &Api, part: &'static str, name: &'static str, bytes: &'static [u8]) -> Answer {
    let form = Form::new().part(part, Part::bytes(bytes).file_name(name));
    answer(api.request(Method::POST, "/api/analyze").multipart(form)).await
}

/// A job of each system, and where it is shown.
async fn one_of_each(api: &Api) -> Vec<(String, &'static str)> {
    let gap = api.post("/api/v1/gap-analysis/jobs", &json!({"url": "https://example.org/a.pdf"})).await;
    let files = api.post("/jobs", &json!({"files": ["night-shift.txt"]})).await;
    let text = api.post("/api/suggestions", &json!({"text": "It was done."})).await;
    let page = json!({"items": [{"id": "item1", "url": "https://example.org"}]});
    let page = api.post("/batch/screenshots", &page).await;
    let sound = upload(api, "file", "test.wav", b"RIFF").await;
    vec![
        (taken(&gap), "/api/v1/gap-analysis/jobs/"),
        (taken(&files), "/job_results/"),
        (taken(&text), "/api/job-status/"),
        (taken(&page), "/batch/screenshots/"),
        (taken(&sound), "/api/status/"),
    ]
}

/// Asserts that an answer is an error as the old systems say it.
#[track_caller]
fn refused(answer: &Answer, path: &str, status: u16, said: &str) {
    assert_eq!(answer.status, status, "{path}: {}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/json");
    has(&answer.json, &["error", "timestamp", "path"]);
    assert_eq!(answer.json["path"], path);
    assert!(answer.json["error"].as_str().unwrap().contains(said), "{said}: {}", answer.text);
    is_time(
        &answer.json["timestamp"],
        if path.starts_with("/job_results") || path.starts_with("/jobs") { 6 } else { 0 },
    );
}

/// Asserts that an object has these members and no others.
#[track_caller]
fn has(value: &Value, members: &[&str]) {
    let seen: BTreeSet<&str> =
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect();
    assert_eq!(seen, members.iter().copied().collect(), "{value}");
}

/// Asserts that a text is a time of today's form; `openapi.json` says which, here is how long it is.
#[track_caller]
fn is_time(value: &Value, fraction_digits: usize) {
    let length = 19 + if fraction_digits > 0 { fraction_digits + 1 } else { 0 };
    assert_eq!(value.as_str().map(str::len), Some(length), "{value}");
}
