//! Work that a test can watch and steer: a command that notes its begin and its end outside Redis, and waits at a gate.
use std::path::Path;
use std::time::Duration;

use leasehold::{Config, Job, JobId, State, Store};
use leasehold_tests::{Api, RedisServer, System, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The lease of these tests, ms.
pub const LEASE_MS: u64 = 3_000;
/// How long anything may take that ought to happen soon.
pub const SOON: Duration = Duration::from_secs(30);

const KINDS: &str = r#"
[kinds.step]
command = ["sh", "{dir}/step.sh"]
backoff = { first_ms = 50, max_ms = 100 }
[kinds.narrow]
command = ["sh", "{dir}/step.sh"]
max_running = 1
[kinds.slow]
command = ["sh", "{dir}/step.sh"]
timeout_ms = 300
max_attempts = 2
backoff = { first_ms = 50, max_ms = 100 }
[kinds.alone]
command = ["sh", "{dir}/step.sh"]
exclusive = true
[kinds.exits]
command = ["sh", "{dir}/exits.sh"]
max_attempts = 2
backoff = { first_ms = 50, max_ms = 100 }
[kinds.resumes]
command = ["sh", "{dir}/resumes.sh"]
[kinds.gather]
command = ["sh", "{dir}/gather.sh"]
"#;

const STEP: &str = r#"
dir=$(dirname "$0")
echo "begin $LEASEHOLD_JOB_ID $LEASEHOLD_TOKEN" >> "$dir/journal"
i=0
while [ ! -e "$dir/gate" ] && [ $i -lt 3000 ]; do sleep 0.02; i=$((i+1)); done
echo "end $LEASEHOLD_JOB_ID $LEASEHOLD_TOKEN" >> "$dir/journal"
echo "{\"result\": $LEASEHOLD_TOKEN}"
"#;

const EXITS: &str = r#"
read -r payload
echo "about to exit with $payload"
exit "$payload"
"#;

const RESUMES: &str = r#"
dir=$(dirname "$0")
echo "begin $LEASEHOLD_JOB_ID $LEASEHOLD_TOKEN" >> "$dir/journal"
if [ -n "$LEASEHOLD_CHECKPOINT" ]; then
  echo "{\"result\": $(cat "$LEASEHOLD_CHECKPOINT")}"
  exit 0
fi
echo '{"progress": 10, "message": "first half"}'
echo '{"checkpoint": {"at": 7}}'
sleep 60
"#;

const GATHER: &str = r#"
completed=$(grep -c '"state":"completed"' "$LEASEHOLD_ITEMS")
failed=$(grep -c '"state":"failed"' "$LEASEHOLD_ITEMS")
echo "{\"result\": [$completed, $failed]}"
"#;

pub struct Work {
    pub system: System,
    pub store: Store,
    folder: TempDir,
}

/// A line of the journal: `begin` or `end`, the job, the token.
pub type Line = (String, String, u64);

impl Work {
    pub async fn start(environment: &[(&str, &str)]) -> Self {
        Self::with_redis(RedisServer::start().await, environment).await
    }

    pub async fn with_redis(redis: RedisServer, environment: &[(&str, &str)]) -> Self {
        let folder = TempDir::with_prefix("leasehold-work-").unwrap();
        for (name, text) in [
            ("kinds.toml", KINDS),
            ("step.sh", STEP),
            ("exits.sh", EXITS),
            ("resumes.sh", RESUMES),
            ("gather.sh", GATHER),
            ("journal", ""),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let kinds = folder.path().join("kinds.toml").display().to_string();
        let lease = LEASE_MS.to_string();
        let mut all = vec![("LEASEHOLD_KINDS", kinds.as_str()), ("LEASEHOLD_LEASE_MS", &lease)];
        all.extend_from_slice(environment);
        let partitions = environment.iter().find(|(name, _)| *name == "LEASEHOLD_PARTITIONS");
        let partitions = partitions.map(|(_, n)| n.parse().unwrap());
        let config = Config { redis_url: redis.url(), partitions, ..Config::default() };
        let store = Store::connect(&config).await.unwrap();
        Self { system: System::with_redis(redis, &all), store, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lets every handler end.
    pub fn open_gate(&self) {
        std::fs::write(self.folder.path().join("gate"), "").unwrap();
    }

    pub fn journal(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(self.folder.path().join("journal")).unwrap();
        let line = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            Some((words.next()?, words.next()?, words.next()?.parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }

    pub fn count(&self, word: &str, id: &JobId) -> usize {
        self.journal().iter().filter(|(w, job, _)| w == word && job == id.as_str()).count()
    }

    /// Waits until a job's handler has begun so many times.
    pub async fn begun(&self, id: &JobId, times: usize) {
        eventually(SOON, "the handler begins", async || self.count("begin", id) >= times).await;
    }

    pub async fn job(&self, id: &JobId) -> Job {
        self.store.get(id).await.unwrap().expect("an acknowledged job is there")
    }

    /// Waits until the job has ended, and returns it.
    pub async fn ended(&self, id: &JobId) -> Job {
        eventually(SOON, "the job ends", async || {
            self.store.get(id).await.ok().flatten().filter(|j| j.state.is_final())
        })
        .await
    }

    pub async fn completed(&self, id: &JobId) -> Job {
        let job = self.ended(id).await;
        assert_eq!(job.state, State::Completed, "{:?}", job.error);
        job
    }

    /// Waits until so many workers have registered.
    pub async fn workers(&self, n: usize) {
        eventually(SOON, "the workers register", async || {
            self.store.workers().await.is_ok_and(|w| w.iter().filter(|w| w.alive).count() == n)
        })
        .await;
    }
}

/// Submits over HTTP and expects a 202.
pub async fn submit(api: &Api, kind: &str) -> JobId {
    submit_with(api, json!({ "kind": kind })).await
}

pub async fn submit_with(api: &Api, body: Value) -> JobId {
    let answer = api.post("/api/v1/jobs", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    JobId::parse(answer.json["id"].as_str().unwrap()).unwrap()
}
