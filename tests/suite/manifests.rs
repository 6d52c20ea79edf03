//! The compose file and the Kubernetes manifests against the programs: every setting in them exists and has an allowed
//! value, versions are this version, and a stop leaves the programs the time that they need.
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold::tokens::{Scope, Tokens};
use leasehold::{Config, Kind};
use leasehold_tests::run;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
/// What releasing the jobs that still run may take after `worker.grace_ms`, s.
const RELEASE_S: u64 = 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The text files below a folder, by their path in the project.
fn files(folder: &str) -> Vec<(String, String)> {
    let (mut folders, mut files) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(root()).unwrap().display().to_string();
                    files.push((name.clone(), read(&name)));
                }
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "{folder}");
    files
}

/// The text after `key: ` in a YAML file, for every line that has the key, without quotes and comments; of
/// `${NAME:-default}` the default.
fn values(text: &str, key: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    let values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    values.map(|value| plain(value.split(" #").next().unwrap())).collect()
}

fn plain(value: &str) -> String {
    let value = value.trim().trim_matches('"');
    match value.split_once("${").and_then(|(before, rest)| Some((before, rest.split_once(":-")?.1.split_once('}')?))) {
        Some((before, (default, after))) => format!("{before}{default}{after}"),
        None => value.to_owned(),
    }
}

/// The one value of a key.
fn value(text: &str, key: &str) -> String {
    let values = values(text, key);
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0].clone()
}

/// The variables of Leasehold that a YAML file sets, in both notations; a value from elsewhere is an address of Redis.
fn variables(text: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = text.lines().map(|line| line.trim().trim_start_matches("- ")).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("name: ").filter(|name| name.starts_with("LEASEHOLD_")) {
            let next = lines[at + 1];
            let is_secret = next.starts_with("valueFrom:") && name == "LEASEHOLD_REDIS_URL";
            let given = next.strip_prefix("value: ").map(plain);
            let value = given.or_else(|| is_secret.then(|| "redis://redis:6379".into()));
            found.push((name.to_owned(), value.unwrap_or_else(|| panic!("{name} has no value"))));
        } else if let Some((name, value)) = line.split_once(": ").filter(|_| line.starts_with("LEASEHOLD_")) {
            found.push((name.to_owned(), plain(value)));
        }
    }
    found
}

/// The settings that `leasehold config` reads from a file and variables, by key; fails as the programs would.
async fn settings(file: Option<&str>, variables: &[(String, String)]) -> impl Fn(&str) -> Value + use<> {
    let file = file.map(|file| root().join(file).display().to_string());
    let named = file.iter().flat_map(|file| ["--config", file]);
    let arguments: Vec<&str> = ["config", "-o", "json"].into_iter().chain(named).collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let output = run("leasehold", &arguments, &variables, LIMIT).await;
    assert!(output.status.success(), "{variables:?}: {}", output.stderr);
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    move |key| {
        let settings = printed["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).unwrap_or_else(|| panic!("{key}"))["value"].clone()
    }
}

#[tokio::test]
async fn every_setting_of_the_compose_file_and_the_manifests_is_one() {
    let compose = variables(&read("docker-compose.yml"));
    assert!(compose.len() > 5, "{compose:?}");
    let compose = settings(None, &compose).await;
    assert_eq!((compose("api.listen"), compose("worker.listen")), ("0.0.0.0:8080".into(), "0.0.0.0:9190".into()));
    let mut of_manifests = Vec::new();
    for (path, text) in files("k8s").into_iter().filter(|(path, _)| path.ends_with(".yaml")) {
        let found = variables(&text);
        drop(settings(None, &found).await);
        of_manifests.extend(found.into_iter().map(|(name, _)| (path.clone(), name)));
    }
    assert!(of_manifests.iter().any(|(path, _)| path.ends_with("worker.yaml")), "{of_manifests:?}");
    let mut read = 0;
    for (path, _) in files("k8s").into_iter().filter(|(path, _)| path.ends_with("leasehold.toml")) {
        drop(settings(Some(&path), &[]).await);
        read += 1;
    }
    assert!(read > 0);
}

#[tokio::test]
async fn an_unknown_setting_in_them_would_be_found() {
    let text = "env:\n  - name: LEASEHOLD_WORKER__GRACE\n    value: \"1\"\n";
    assert_eq!(variables(text), [("LEASEHOLD_WORKER__GRACE".into(), "1".into())]);
    assert_eq!(plain("file://${FILES:-/srv}/x"), "file:///srv/x");
    let output = run("leasehold", &["config"], &[("LEASEHOLD_WORKER__GRACE", "1")], LIMIT).await;
    assert!(output.stderr.contains("LEASEHOLD_WORKER__GRACE_MS"), "{output:?}");
}

#[test]
fn every_kinds_file_of_them_loads_and_is_the_same() {
    for path in ["compose/kinds/kinds.toml", "k8s/base/kinds.toml", "examples/kinds.toml"] {
        let kinds = Config { kinds: Some(root().join(path)), ..Config::default() }.load_kinds().unwrap();
        let first = if path.starts_with("examples") { "screenshots" } else { "word-count" };
        assert!(kinds.iter().any(|(kind, _)| *kind == Kind::parse(first).unwrap()), "{path}");
    }
    for (path, copy) in [
        ("compose/kinds/kinds.toml", "k8s/base/kinds.toml"),
        ("compose/kinds/word_count.py", "k8s/base/word_count.py"),
        ("redis.conf", "k8s/components/redis/redis.conf"),
    ] {
        assert!(read(path) == read(copy), "{copy} differs from {path}: copy it again");
    }
    let readme = read("README.md");
    assert!(readme.contains(&read("compose/kinds/word_count.py")), "the README's handler is another");
}

#[test]
fn the_public_tokens_are_those_that_the_pages_name() {
    let text = read("compose/tokens");
    let read_only = read("compose/prometheus.token").trim().to_owned();
    let tokens = Tokens::parse(&text).unwrap();
    assert_eq!(tokens.find("lh_development_only"), Some(("developer", Scope::Admin)));
    assert_eq!(tokens.find(&read_only), Some(("prometheus", Scope::Read)));
    let secrets = read("k8s/base/secrets.yaml");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(secrets.contains(line), "k8s/base/secrets.yaml has other tokens");
    }
    let production = read("k8s/overlays/production/kustomization.yaml");
    for (path, text) in files("k8s").into_iter().filter(|(path, _)| path.ends_with(".yaml")) {
        for document in text.split("---\n").filter(|document| document.contains("kind: Secret\n")) {
            let name = document.lines().find_map(|line| line.strip_prefix("  name: ")).unwrap_or_default();
            let removed = format!("name: {name}\n      $patch: delete");
            assert!(
                path.contains("production") || production.contains(&removed),
                "production applies {name} of {path}"
            );
        }
    }
}

#[test]
fn images_have_the_version_of_the_programs() {
    let version = env!("CARGO_PKG_VERSION");
    let compose = read("docker-compose.yml");
    let ours: Vec<String> = values(&compose, "image").into_iter().filter(|i| i.starts_with("leasehold")).collect();
    assert_eq!(ours, ["leasehold", "leasehold-python", "leasehold-full"].map(|name| format!("{name}:{version}")));
    let mut seen = 0;
    for (path, text) in files("k8s").into_iter().filter(|(path, _)| path.ends_with("kustomization.yaml")) {
        let mut name = String::new();
        for line in text.lines().map(str::trim) {
            name = line.strip_prefix("- name: ").map_or(name, ToOwned::to_owned);
            if let Some(tag) = line.strip_prefix("newTag: ").filter(|_| name.starts_with("leasehold")) {
                assert_eq!(tag, version, "{path}: {name}");
                seen += 1;
            }
        }
        assert!(!text.contains(":latest") && !text.contains("newTag: latest"), "{path}");
    }
    assert_eq!(seen, 4);
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains(&format!("leasehold:{version}")) && !dockerfile.contains(":latest"));
}

#[tokio::test]
async fn a_stop_leaves_the_programs_their_time() {
    let seconds = |text: String| text.trim_end_matches('s').parse::<u64>().unwrap();
    let manifests = settings(Some("k8s/base/leasehold.toml"), &[]).await;
    let (worker, api) = (read("k8s/base/worker.yaml"), read("k8s/base/api.yaml"));
    let grace_ms = |of: &Value| of.as_u64().unwrap();
    let given = seconds(value(&worker, "terminationGracePeriodSeconds"));
    assert!(given >= grace_ms(&manifests("worker.grace_ms")) / 1_000 + RELEASE_S, "{given} s for a worker");
    let before = seconds(value(&api, "seconds"));
    let given = seconds(value(&api, "terminationGracePeriodSeconds"));
    assert!(given > before + grace_ms(&manifests("limits.request_ms")) / 1_000 + 1, "{given} s for an API");

    let text = read("docker-compose.yml");
    let compose = settings(None, &variables(&text)).await;
    let stops: Vec<u64> = values(&text, "stop_grace_period").into_iter().map(seconds).collect();
    let [worker, _redis, api] = stops[..] else { panic!("{stops:?}") };
    assert!(worker >= grace_ms(&compose("worker.grace_ms")) / 1_000 + RELEASE_S, "{worker} s for a worker");
    assert!(api > grace_ms(&compose("limits.request_ms")) / 1_000 + 1, "{api} s for an API");
}
