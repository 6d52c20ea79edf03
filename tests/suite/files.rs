//! Files: up with a submit, through an attempt, down again, and gone with their job; and what deaths leave of them.
mod bucket;
mod bucket_outages;
mod bucket_start;
mod cache;
mod deaths;
mod down;
mod up;

use std::path::PathBuf;
use std::time::Duration;

use leasehold::{Config, Job, JobId, State, Store};
use leasehold_tests::api::answer;
use leasehold_tests::{Answer, Api, System, eventually};
use reqwest::Method;
use serde_json::Value;

/// How long anything may take that ought to happen soon.
const SOON: Duration = Duration::from_secs(30);
/// The lease of these tests, ms.
const LEASE_MS: &str = "2000";

const KINDS: &str = r#"
[kinds.shout]
command = ["sh", "-c", "for f in in/*; do tr a-z A-Z < \"$f\" > \"out/$(basename \"$f\")\"; done"]
[kinds.note]
command = ["sh", "-c", "echo token $LEASEHOLD_TOKEN attempt $LEASEHOLD_ATTEMPT > out/note.txt"]
max_attempts = 2
backoff = { first_ms = 50, max_ms = 100 }
[kinds.fails]
command = ["sh", "-c", "echo x > out/x; exit 1"]
max_attempts = 1
[kinds.skips]
command = ["sh", "-c", "echo x > out/x; echo '{\"skip\": \"nothing new\"}'"]
[kinds.folder]
command = ["sh", "-c", "mkdir out/sub; echo x > out/sub/x"]
[kinds.link]
command = ["sh", "-c", "ln -s /etc/passwd out/passwd"]
[kinds.pipe]
command = ["sh", "-c", "mkfifo out/fifo"]
[kinds.many]
command = ["sh", "-c", "for i in $(seq 101); do echo > out/$i; done"]
[kinds.large]
command = ["sh", "-c", "head -c 3000000 /dev/zero > out/zeros"]
[kinds.spoils]
command = ["sh", "-c", "cat in/a.txt >> \"$0\"; echo spoilt > in/a.txt; exit 1", "{dir}/read"]
max_attempts = 2
backoff = { first_ms = 50, max_ms = 100 }
[kinds.part]
command = ["sh", "-c", "cp in/* out/"]
[kinds.gated]
command = ["sh", "-c", "cp in/* out/; touch \"$0.reached\"; while [ ! -e \"$0\" ]; do sleep 0.05; done", "{dir}/gate"]
max_attempts = 10
backoff = { first_ms = 500, max_ms = 1000 }
[kinds.variables]
command = ["sh", "-c", "env > out/variables"]
[kinds.render]
command = ["sh", "{dir}/render.sh"]
cache = { ms = 3600000, by = ["/url", "/config"] }
[kinds.brief]
command = ["sh", "{dir}/render.sh"]
cache = { ms = 400, by = ["/url"] }
"#;

/// Notes that it ran, and what it may fetch; leaves the payload as its image; does as the payload's `url` says.
const RENDER: &str = r#"
read -r payload
echo "$LEASEHOLD_FETCH__ALLOW_PRIVATE" >> "$(dirname "$0")/rendered"
printf '%s' "$payload" > out/image
printf '%s' "$LEASEHOLD_TOKEN" > out/token
case $payload in
  *fails*) exit 65 ;;
  *plain*) echo '{"result": {"file": "image"}}' ;;
  *skips*) echo '{"skip": "nothing to see"}' ;;
  *) echo '{"result": {"file": "image", "cached": false}}' ;;
esac
"#;

/// A system with a file store and the kinds above.
struct Ground {
    system: System,
    store: Store,
    /// The folder of the kinds file.
    kinds: tempfile::TempDir,
}

impl Ground {
    async fn start(environment: &[(&str, &str)]) -> Ground {
        let folder = tempfile::TempDir::with_prefix("leasehold-test-").unwrap();
        std::fs::write(folder.path().join("kinds.toml"), KINDS).unwrap();
        std::fs::write(folder.path().join("render.sh"), RENDER).unwrap();
        let kinds = folder.path().join("kinds.toml").display().to_string();
        let mut all = vec![("LEASEHOLD_KINDS", kinds.as_str()), ("LEASEHOLD_LEASE_MS", LEASE_MS)];
        all.extend_from_slice(environment);
        let system = System::start(&all).await;
        let partitions = environment.iter().find(|(name, _)| *name == "LEASEHOLD_PARTITIONS");
        let partitions = partitions.map(|(_, n)| n.parse().unwrap());
        let config = Config { redis_url: system.redis().url(), partitions, ..Config::default() };
        let store = Store::connect(&config).await.unwrap();
        Ground { system, store, kinds: folder }
    }

    async fn api(&self, environment: &[(&str, &str)]) -> Api {
        let api = self.system.api(environment).await;
        api.wait_ready().await;
        api
    }

    fn root(&self) -> PathBuf {
        self.system.folder().join("storage")
    }

    /// Every path in the file store, but the one that names its owner.
    fn left(&self) -> Vec<String> {
        fn below(path: &std::path::Path, all: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                all.push(entry.path());
                below(&entry.path(), all);
            }
        }
        let mut all = Vec::new();
        below(&self.root(), &mut all);
        let relative = |path: &PathBuf| path.strip_prefix(self.root()).unwrap().display().to_string();
        let mut all: Vec<String> = all.iter().map(relative).filter(|path| !path.starts_with(".leasehold")).collect();
        all.sort();
        all
    }

    async fn nothing_is_left(&self) {
        eventually(SOON, "the file store is empty", async || {
            let left = self.left();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    async fn ended(&self, id: &JobId) -> Job {
        eventually(SOON, "the job ends", async || {
            self.store.get(id).await.ok().flatten().filter(|j| j.state.is_final())
        })
        .await
    }

    async fn completed(&self, id: &JobId) -> Job {
        let job = self.ended(id).await;
        assert_eq!(job.state, State::Completed, "{:?}", job.error);
        job
    }

    /// Both ends of a job's files: nothing is missing, and nothing is there that no job has.
    async fn finish(self) {
        let config = Config {
            redis_url: self.system.redis().url(),
            storage_url: Some(format!("file://{}", self.root().display())),
            ..Config::default()
        };
        let store = Store::connect_unchecked(&config).await.unwrap();
        eventually(SOON, "records and files agree", async || {
            let found = store.check_files(Duration::ZERO).await.unwrap();
            if found.is_empty() { Ok(()) } else { Err(found) }
        })
        .await;
        self.system.finish().await;
    }
}

/// A part of an upload: its head's parameters, its type, and what is in it.
type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

const BOUNDARY: &str = "----leasehold-test-7MA4YWxk";

/// The body of an upload, its parts as they stand.
fn body(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (parameters, content_type, content) in parts {
        let content_type = content_type.map(|text| format!("\r\ncontent-type: {text}")).unwrap_or_default();
        let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; {parameters}{content_type}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

async fn upload(api: &Api, key: Option<&str>, parts: &[Part<'_>]) -> Answer {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let mut request = api.request(Method::POST, "/api/v1/jobs").header("content-type", content_type).body(body(parts));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    answer(request).await
}

/// A submit of a kind with files, each a name and what is in it.
async fn submit(api: &Api, kind: &str, files: &[(&str, &[u8])]) -> JobId {
    let job = format!("{{\"kind\": \"{kind}\"}}");
    let heads: Vec<String> = files.iter().map(|(name, _)| format!("name=\"f\"; filename=\"{name}\"")).collect();
    let mut parts: Vec<Part<'_>> = vec![("name=\"job\"", None, job.as_bytes())];
    parts.extend(heads.iter().zip(files).map(|(head, (_, content))| (head.as_str(), None, *content)));
    id_of(&upload(api, None, &parts).await, 202)
}

#[track_caller]
fn id_of(answer: &Answer, status: u16) -> JobId {
    assert_eq!(answer.status, status, "{}", answer.text);
    JobId::parse(answer.json["id"].as_str().unwrap()).unwrap()
}

#[track_caller]
fn problem(answer: &Answer, status: u16, code: &str, said: &str) {
    assert_eq!((answer.status, answer.json["code"].as_str()), (status, Some(code)), "{}", answer.text);
    assert!(answer.json["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{said}: {}", answer.text);
}

/// What a list of files says: name, size, type and direction.
fn listed(answer: &Answer) -> Vec<(String, u64, String, String)> {
    let text = |file: &Value, member: &str| file[member].as_str().unwrap().to_owned();
    let files = answer.json["files"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
    let one = |file: &Value| {
        assert_eq!(file.as_object().unwrap().len(), 4, "{file}");
        (text(file, "name"), file["bytes"].as_u64().unwrap(), text(file, "content_type"), text(file, "direction"))
    };
    files.iter().map(one).collect()
}
