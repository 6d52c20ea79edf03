//! What a command prints and Leasehold cannot read: a result that was meant is never taken for none.
use leasehold::{Config, Job, JobId, State, Store};
use leasehold_tests::{Api, System, eventually};
use serde_json::json;

use crate::steered_command::{SOON, submit};

/// What each kind runs, and part of the reason for which its attempt fails.
const FAILS: [(&str, &str, &str); 16] = [
    ("nan", r#"printf '{"result": {"score": NaN}}\n'"#, "NaN is not JSON"),
    ("infinity", r#"printf '{"result": [-Infinity]}\n'"#, "Infinity is not JSON"),
    ("latin1", r#"printf '{"result": "caf\351"}\n'"#, "not UTF-8: byte 0xe9 at offset 15"),
    ("bom", r#"printf '\357\273\277{"result": 3}\n'"#, "byte order mark"),
    ("pretty", r#"printf '{\n  "result": {\n    "a": 1\n  }\n}\n'"#, "spread over 5 lines"),
    ("pretty-late", r#"printf '{\n  "progress": 100,\n  "result": 3\n}\nbye\n'"#, "spread over 4 lines"),
    (
        "long",
        r#"printf '{"message": "m", "result": "'; head -c 2000000 /dev/zero | tr '\0' x; echo '"}'"#,
        "1048576 bytes",
    ),
    ("cut-off", r#"printf '{"result": {"a": [1, 2'"#, "cut off"),
    ("cut-early", r#"printf '{"resu'"#, "cut off"),
    ("cut-pretty", r#"printf '{\n  "result": {\n    "a":'"#, "cut off"),
    ("python", r#"printf "{'result': {'a': None}}\n""#, "None is not JSON"),
    ("quotes", r#"printf "{'result': 3}\n""#, "need double quotes"),
    ("garbage", r#"printf '{"result": 3} done\n'"#, "trailing characters"),
    ("replaced", r#"printf '{"result": 3}\n{"result": NaN}\n'"#, "NaN is not JSON"),
    ("skip", r#"printf '{"skip": 1}\n'"#, "\"skip\" must be a text"),
    ("utf16", r#"printf '\377\376{\0"\0r\0e\0s\0u\0l\0t\0"\0:\0003\0}\0\n\0'"#, "UTF-16"),
];

/// What completes, with which result, and a warning in its history.
const WARNS: [(&str, &str, &str, &str); 8] = [
    ("misspelt", r#"echo '{"reslt": 3}'"#, "null", "did you mean \"result\"?"),
    ("progress", r#"echo '{"progress": "abc"}'; echo '{"result": 1}'"#, "1", "\"progress\" must be a number"),
    ("both", r#"echo '{"progress": "abc", "result": 2}'"#, "2", "\"progress\" must be a number"),
    ("checkpoint", r#"echo '{"checkpoint": {"at": 1'; echo '{"result": 3}'"#, "3", "the checkpoint cannot be read"),
    ("mended", r#"echo '{"result": NaN}'; echo '{"result": 4}'"#, "4", "NaN is not JSON"),
    ("debug", r#"echo '{"result": 5}'; echo "{'result': 3}""#, "5", "need double quotes"),
    ("within", r#"printf 'working... '; echo '{"result": 6}'"#, "null", "must begin its line"),
    ("brace", r#"echo '{'; echo '{"result": 7}'; echo '{"progress": NaN}'"#, "7", "NaN is not JSON"),
];

struct Ground {
    system: System,
    store: Store,
    api: Api,
    _worker: leasehold_tests::Worker,
    /// Has the scripts.
    _folder: tempfile::TempDir,
}

impl Ground {
    async fn start() -> Self {
        let folder = tempfile::TempDir::with_prefix("leasehold-results-").unwrap();
        let mut kinds = String::new();
        for (kind, script) in FAILS.map(|(k, s, _)| (k, s)).into_iter().chain(WARNS.map(|(k, s, ..)| (k, s))) {
            std::fs::write(folder.path().join(format!("{kind}.sh")), script).unwrap();
            kinds += &format!("[kinds.{kind}]\ncommand = [\"sh\", \"{{dir}}/{kind}.sh\"]\nmax_attempts = 1\n");
        }
        kinds += "[kinds.plain]\ncommand = [\"sh\", \"{dir}/plain.sh\"]\n";
        let plain =
            "echo '{\"level\": \"info\"}'; echo '{'; echo ' \"data\": {\"result\": 3}'; echo '}'; echo 'result: 3'";
        std::fs::write(folder.path().join("plain.sh"), plain).unwrap();
        std::fs::write(folder.path().join("kinds.toml"), kinds).unwrap();
        let path = folder.path().join("kinds.toml").display().to_string();
        let system = System::start(&[("LEASEHOLD_KINDS", &path)]).await;
        let store = Store::connect(&Config { redis_url: system.redis().url(), ..Config::default() }).await.unwrap();
        let api = system.api(&[]).await;
        let _worker = system.worker(&[]);
        Self { system, store, api, _worker, _folder: folder }
    }

    async fn ended(&self, kind: &str) -> (JobId, Job) {
        let id = submit(&self.api, kind).await;
        let ended = async || self.store.get(&id).await.ok().flatten().filter(|job| job.state.is_final());
        let job = eventually(SOON, "the job ends", ended).await;
        (id, job)
    }

    async fn warnings(&self, id: &JobId) -> Vec<String> {
        let entries = self.store.history(id).await.unwrap().into_iter();
        entries.filter(|entry| entry.event == "warning").filter_map(|entry| entry.message).collect()
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_read_fails_the_attempt_and_says_why() {
    let ground = Ground::start().await;
    for (kind, _, reason) in FAILS {
        let (id, job) = ground.ended(kind).await;
        let message = job.error.map(|error| error.message).unwrap_or_default();
        assert!(job.state == State::Failed && message.contains(reason), "{kind}: {:?} {message}", job.state);
        let warnings = ground.warnings(&id).await;
        assert!(warnings.iter().any(|warning| warning.contains(reason)), "{kind}: {warnings:?}");
    }
    ground.system.finish().await;
}

#[tokio::test]
async fn a_line_that_looks_like_a_message_and_is_none_is_a_warning_in_the_history() {
    let ground = Ground::start().await;
    for (kind, _, result, warning) in WARNS {
        let (id, job) = ground.ended(kind).await;
        assert_eq!(job.state, State::Completed, "{kind}: {:?}", job.error);
        assert_eq!(job.result.unwrap().as_str(), result, "{kind}");
        let warnings = ground.warnings(&id).await;
        assert!(warnings.len() == 1 && warnings[0].contains(warning), "{kind}: {warnings:?}");
        let shown = ground.api.get(&format!("/api/v1/jobs/{id}/history")).await.json;
        let event = |event: &serde_json::Value| event["event"] == json!("warning") && event["attempt"] == json!(1);
        assert!(shown["history"].as_array().unwrap().iter().any(event), "{shown}");
    }
    let (id, job) = ground.ended("plain").await;
    assert_eq!((job.state, job.result.unwrap().as_str()), (State::Completed, "null"));
    assert_eq!(ground.warnings(&id).await, Vec::<String>::new());
    ground.system.finish().await;
}
