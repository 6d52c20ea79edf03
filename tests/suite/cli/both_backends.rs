//! Every command through both doors, straight on Redis and over the HTTP API: the same commands get the same answers.
use std::collections::HashMap;
use std::fs;

use leasehold_tests::{Api, System, eventually};
use serde_json::{Value, json};

use super::{SOON, fails};

const KINDS: &str = r#"
[kinds.echo]
command = ["sh", "-c", "read -r line; echo \"{\\\"result\\\": $line}\""]
[kinds.fails]
command = ["false"]
max_attempts = 1
"#;

/// Each command, and the exit code it must have. `$name` is the id that `name = …` has saved, `FOLDER` the system's.
const STEPS: &[(&str, i32)] = &[
    ("workers ls", 0),
    ("done = jobs submit --kind echo --payload {\"n\":1.50} --wait 20s", 0),
    ("failed = jobs submit --kind fails --watch", 1),
    ("later = jobs submit --kind nobody --queue quiet --priority low --delay 1h --idempotency-key a\"b", 0),
    ("again = jobs submit --kind nobody --queue quiet --priority low --delay 1h --idempotency-key a\"b", 0),
    ("jobs submit --kind nobody --idempotency-key a\"b", 1),
    ("idle = jobs submit --kind nobody --queue quiet --max-attempts 7 --timeout 90s", 0),
    ("jobs submit --kind nobody --queue quiet --wait 50ms", 1),
    ("batch = jobs submit --kind echo --payload \"all\" --items FOLDER/items.jsonl --then echo --watch", 0),
    ("jobs ls", 0),
    ("jobs ls --state completed --kind echo --limit 1", 0),
    ("jobs ls --kind echo --all", 0),
    ("jobs ls --queue quiet --state queued", 0),
    ("jobs ls --parent $batch", 0),
    ("jobs ls --cursor x", -1),
    ("jobs items $batch", 0),
    ("jobs items $batch --state completed --all", 0),
    ("jobs items $done", 1),
    ("jobs show $later", 0),
    ("jobs show nobody", 1),
    ("jobs history $failed", 0),
    ("jobs history $done", 0),
    ("jobs history nobody", 1),
    ("jobs watch $done", 0),
    ("jobs watch $failed", 1),
    ("jobs watch nobody", 1),
    ("jobs rm $later", 1),
    ("jobs cancel $later $done nobody $later", 1),
    ("jobs watch $later", 1),
    ("jobs retry $later $done", 1),
    ("jobs cancel $later", 0),
    ("jobs rm $later", 0),
    ("jobs rm $later", 1),
    ("jobs submit --kind nobody --queue quiet --priority low --delay 1h --idempotency-key a\"b", 1),
    ("jobs prune --kind echo --older-than 1h", 0),
    ("jobs prune --kind echo --keep 1", 0),
    ("jobs prune --kind echo --keep 1 --yes", 0),
    ("jobs prune --state failed --yes", 0),
    ("jobs show $failed", 1),
    ("queues pause quiet fresh", 1),
    ("queues pause --create quiet fresh", 0),
    ("queues ls", 0),
    ("queues show quiet", 0),
    ("queues resume quiet fresh", 0),
    ("queues show fresh", 1),
    ("queues pause --create fresh", 0),
    ("queues rm fresh default", 1),
    ("queues rm fresh", 1),
    ("queues pause --create fresh", 0),
    ("queues rm fresh", 0),
    ("jobs ls --all", 0),
];

/// One run of all commands through one door.
struct Run {
    system: System,
    door: Vec<String>,
    saved: HashMap<String, String>,
    /// What an id is called, in the order of the first sight.
    ids: Vec<String>,
}

#[tokio::test]
async fn each_command_answers_the_same_over_redis_and_over_http() {
    let over_redis = run(false).await;
    let over_http = run(true).await;
    for (((step, _), redis), http) in STEPS.iter().zip(over_redis).zip(over_http) {
        assert_eq!(redis, http, "{step}: left over Redis, right over HTTP");
    }
}

/// What each command has answered, with what differs from run to run taken out.
async fn run(over_http: bool) -> Vec<Value> {
    let kinds = tempfile::tempdir().unwrap();
    fs::write(kinds.path().join("kinds.toml"), KINDS).unwrap();
    let file = kinds.path().join("kinds.toml").display().to_string();
    let system = System::start(&[("LEASEHOLD_PARTITIONS", "4"), ("LEASEHOLD_KINDS", &file)]).await;
    fs::write(system.folder().join("items.jsonl"), "1\n\n {\"a\": [2]} \n\"three\"").unwrap();
    let (worker, api) = (system.worker(&[]), system.api(&[]).await);
    eventually(SOON, "a worker is there", async || {
        (api.get("/api/v1/workers").await.json["workers"][0]["alive"] == true).then_some(())
    })
    .await;
    let door = if over_http { vec!["--api".to_owned(), api.url("/")] } else { Vec::new() };
    let mut run = Run { system, door, saved: HashMap::new(), ids: Vec::new() };
    let mut answers = Vec::new();
    for (step, code) in STEPS {
        answers.push(run.step(step, *code).await);
    }
    drop((worker, api));
    run.system.finish().await;
    answers
}

impl Run {
    async fn step(&mut self, step: &str, code: i32) -> Value {
        let (name, command) = step.split_once(" = ").map_or((None, step), |(name, command)| (Some(name), command));
        let folder = self.system.folder().display().to_string();
        let word = |word: &str| match word.strip_prefix('$') {
            Some(name) => self.saved[name].clone(),
            None => word.replace("FOLDER", &folder),
        };
        let words: Vec<String> = command.split(' ').map(word).collect();
        let words = words.iter().chain(&self.door).map(String::as_str).chain(["-o", "json"]).collect::<Vec<_>>();
        let output = self.system.command(&words, &[]).await;
        // -1: it fails, in the way of its door.
        let status = output.status.code();
        assert!(if code < 0 { status > Some(0) } else { status == Some(code) }, "{step}: {output:?}");
        assert!(status == Some(0) || output.stderr.contains("error: ") || !output.stdout.is_empty(), "{output:?}");
        let lines = command.contains("--all");
        let mut answer = match output.stdout.as_str() {
            "" => Value::Null,
            text if lines => text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect(),
            text => serde_json::from_str(text).unwrap_or_else(|e| panic!("{step}: {e}: {output:?}")),
        };
        if let Some(name) = name {
            self.saved.insert(name.to_owned(), answer["id"].as_str().expect("a job").to_owned());
        }
        self.name_ids(&answer);
        self.level(&mut answer);
        if command.contains("--state queued") {
            // One partition comes after the other.
            answer["jobs"].as_array_mut().unwrap().sort_by_key(|job| job["id"].to_string());
        }
        answer
    }

    fn name_ids(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                let id = fields.get("id").and_then(Value::as_str);
                self.ids.extend(id.filter(|id| !self.ids.iter().any(|known| known == id)).map(str::to_owned));
                fields.values().for_each(|value| self.name_ids(value));
            }
            Value::Array(values) => values.iter().for_each(|value| self.name_ids(value)),
            _ => {}
        }
    }

    /// Takes out what differs from run to run: ids become their numbers, times and processes nothing.
    fn level(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let differs =
                        ["worker", "host", "pid", "token", "oldest_wait_ms", "next_cursor", "partition", "partitions"];
                    if (name.ends_with("_at") || name == "at" || differs.contains(&name.as_str())) && !value.is_null() {
                        *value = json!("some");
                    } else if name == "running" && value.is_number() {
                        // What a worker last reported.
                        *value = json!(0);
                    } else {
                        self.level(value);
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.level(value)),
            Value::String(text) => {
                // An item's id begins with its batch's.
                let mut ids: Vec<_> = self.ids.iter().enumerate().collect();
                ids.sort_by_key(|(_, id)| std::cmp::Reverse(id.len()));
                for (number, id) in ids {
                    *text = text.replace(id.as_str(), &format!("#{number}"));
                }
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_door_is_the_flags_then_the_environments_and_never_both() {
    let system = System::start(&[]).await;
    let api: Api = system.api(&[]).await;
    let url = api.url("");
    let id = super::ok(&system, &["jobs", "submit", "--kind", "a", "--api", &url]).await;
    // The variable is heard, and a flag for Redis wins over it.
    let nowhere = [("LEASEHOLD_REDIS_URL", "redis://127.0.0.1:1"), ("LEASEHOLD_API_URL", url.as_str())];
    let shown = system.command(&["jobs", "show", id.trim()], &nowhere).await;
    assert!(shown.stdout.contains("partition  0") && shown.stderr.is_empty(), "{shown:?}");
    let redis = system.redis().url();
    let dead = [("LEASEHOLD_API_URL", "http://127.0.0.1:1")];
    let shown = system.command(&["jobs", "show", id.trim(), "--redis-url", &redis], &dead).await;
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let output = system.command(&["jobs", "ls"], &dead).await;
    assert!(output.status.code() == Some(1) && output.stderr.contains("no API answers at http://127.0.0.1:1"));
    for (arguments, said) in [
        (&["jobs", "ls", "--api", "127.0.0.1:80"][..], "not an address such as http://"),
        (&["jobs", "ls", "--api", "ftp://x"], "not an address such as http://"),
        (&["jobs", "ls", "--api", &url, "--redis-url", &redis], "cannot be used with"),
        (&["jobs", "ls", "--token", "x"], "a token is for the API"),
        (&["jobs", "ls", "--api", &url, "--token", "a b"], "one word of printable ASCII"),
        (&["jobs", "ls", "--api", &url, "--token-file", "/no/such"], "--token-file /no/such: No such file"),
        (&["doctor", "--api", &url], "the doctor reads Redis's settings and every key"),
        (&["up", "--api", &url], "it starts an API on this machine"),
        (&["demo", "--api", &url], "the demo starts a private system and kills"),
    ] {
        fails(&system, 2, arguments, said).await;
    }
    drop(api);
    system.finish().await;
}

/// A kind with defaults of its own, for a process that has the kinds file; the command line has none.
const DEFAULTS: &str = "[kinds.gpu]\ncommand = [\"true\"]\nqueue = \"gpu\"\nmax_attempts = 1\nmax_running = 1\n";

#[tokio::test]
async fn one_key_sent_both_ways_is_one_job_with_the_defaults_of_its_kind() {
    for partitions in ["1", "4"] {
        let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let write = |name: &str, text: &str| {
            let path = system.folder().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let kinds = write("kinds.toml", DEFAULTS);
        let file = write("photo.txt", "the same contents");
        let api = system.api(&[("LEASEHOLD_KINDS", &kinds)]).await;
        api.wait_ready().await;
        let base = api.url("/");
        for (at, extra) in [vec![], vec!["--file", &file], vec!["--queue", "other"]].into_iter().enumerate() {
            let key = format!("key-{at}");
            let submit = async |way: &[&str], key: &str| {
                let mut words = vec!["jobs", "submit", "--kind", "gpu", "--payload", "{\"n\": [1, 2]}", "-o", "json"];
                words.extend(
                    ["--idempotency-key", key].into_iter().chain(way.iter().copied()).chain(extra.iter().copied()),
                );
                let output = system.command(&words, &[]).await;
                assert!(output.status.success(), "{output:?}");
                serde_json::from_str::<Value>(&output.stdout).unwrap()
            };
            let (over_redis, over_http) = (submit(&[], &key).await, submit(&["--api", &base], &key).await);
            assert_eq!(over_redis["id"], over_http["id"], "{over_redis} {over_http}");
            let other = submit(&["--api", &base], &format!("other-{at}")).await;
            let queue = if extra.contains(&"--queue") { "other" } else { "gpu" };
            for job in [over_redis, over_http, other] {
                assert_eq!((&job["queue"], &job["max_attempts"]), (&json!(queue), &json!(1)), "{job}");
            }
        }
        let differing = write("other.toml", "[kinds.gpu]\ncommand = [\"true\"]\nqueue = \"elsewhere\"\n");
        let words = ["jobs", "submit", "--kind", "gpu", "-o", "json"];
        let output = system.command(&words, &[("LEASEHOLD_KINDS", &differing)]).await;
        assert!(output.stderr.contains("which differs in gpu"), "{output:?}");
        assert_eq!(serde_json::from_str::<Value>(&output.stdout).unwrap()["queue"], "gpu", "{output:?}");
        drop(api);
        system.finish().await;
    }
}
