//! The pages under `docs/` and `examples/`: what they tell a reader to do is done here as it stands there.
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use leasehold_tests::{Port, System, eventually};
use serde_json::Value;

/// How long all examples of a page may take.
const LIMIT: Duration = Duration::from_secs(120);
/// A page shows what happens when Redis answers: a disk that flushes for seconds must not show something else.
const PATIENT: (&str, &str) = ("LEASEHOLD_REDIS__RESPONSE_MS", "20000");
/// Stands in the output between two examples.
const MARK: &str = "---- end of an example ----";

/// A fenced block: its language, the file that it is, its text.
struct Block {
    language: String,
    file: Option<String>,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn blocks(page: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let mut blocks = Vec::new();
    for part in text.split("\n```").skip(1).step_by(2) {
        let (head, text) = part.split_once('\n').unwrap();
        let mut words = head.split(' ').map(str::to_owned);
        let language = words.next().unwrap();
        blocks.push(Block { language, file: words.next(), text: text.to_owned() });
    }
    blocks
}

/// Runs the `sh` blocks of a page in one shell, against a system with the files of the page; returns what each printed,
/// with the block that stands behind it.
async fn run(page: &str) {
    let page = &format!("docs/{page}");
    let blocks = blocks(page);
    let folder = tempfile::tempdir().unwrap();
    for block in &blocks {
        if let Some(file) = &block.file {
            std::fs::write(folder.path().join(file), &block.text).unwrap();
        }
    }
    let kinds = folder.path().join("kinds.toml");
    if !kinds.exists() {
        std::fs::write(&kinds, "").unwrap();
    }
    let documents = root().join("examples/process-files/documents").display().to_string();
    let kinds = kinds.display().to_string();
    let system = System::start(&[("LEASEHOLD_KINDS", &kinds), ("LEASEHOLD_DOCUMENT_ROOT", &documents)]).await;
    let api = system.api(&[]).await;
    let _worker = system.worker(&[]);
    follow(page, &blocks, folder.path(), &api.url(""), &[]).await;
    system.finish().await;
}

/// Runs the `sh` blocks in one shell, and holds what each prints against the block that stands behind it.
async fn follow(page: &str, blocks: &[Block], folder: &Path, api: &str, environment: &[(&str, &str)]) {
    let examples: Vec<usize> = (0..blocks.len()).filter(|at| blocks[*at].language == "sh").collect();
    // What an example leaves running in the background ends with it, however it ends.
    let mut script = "set -euo pipefail\ntrap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for at in &examples {
        script += &blocks[*at].text.replace("http://127.0.0.1:8080", api);
        script += &format!("\necho; echo '{MARK}'\n");
    }
    let shell = tokio::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, shell).await.expect("the examples come to an end").unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{page}: {printed}\n{}", String::from_utf8_lossy(&output.stderr));
    for (at, printed) in examples.into_iter().zip(printed.split(&format!("{MARK}\n"))) {
        let (printed, code) = (printed.trim(), &blocks[at].text);
        match blocks.get(at + 1) {
            Some(shown) if shown.language == "json" => {
                let [shown, seen] = [&shown.text, printed].map(|text| serde_json::from_str(text).expect("JSON"));
                assert_eq!(shape(&shown), shape(&seen), "{page}: {code}");
            }
            Some(shown) if shown.language == "text" => {
                assert_eq!(masked(&shown.text), masked(printed), "{page}: {code}")
            }
            _ => assert_eq!(printed, "", "{page} shows nothing of what this prints: {code}"),
        }
    }
}

/// Runs a page of `examples/`, in the project's folder, with the kinds that stand there; ports in it become free ones.
async fn run_example(name: &str) {
    let page = format!("examples/{name}/README.md");
    let mut blocks = blocks(&page);
    let free = [Port::reserve(), Port::reserve()];
    for (taken, free) in ["8765", "8766"].into_iter().zip(&free) {
        blocks.iter_mut().for_each(|block| block.text = block.text.replace(taken, &free.number().to_string()));
    }
    let root = root().canonicalize().unwrap();
    let at = |path: &str| root.join(path).display().to_string();
    let (kinds, documents) = (at("examples/kinds.toml"), at("examples/process-files/documents"));
    let system = System::start(&[
        ("LEASEHOLD_KINDS", &kinds),
        ("LEASEHOLD_DOCUMENT_ROOT", &documents),
        ("LEASEHOLD_FETCH__ALLOW_PRIVATE", "true"),
        PATIENT,
        ("LEASEHOLD_LEASE_MS", "2000"),
    ])
    .await;
    let api = system.api(&[]).await;
    let _workers = [system.worker(&[]), system.worker(&[]), system.worker(&[])];
    eventually(LIMIT, "the workers are there", async || {
        api.get("/api/v1/workers").await.json["workers"].as_array().is_some_and(|workers| workers.len() == 3)
    })
    .await;
    let programs = leasehold_tests::binary::path("leasehold");
    let path = format!("{}:{}", programs.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let (redis, storage) = (system.redis().url(), format!("file://{}/storage", system.folder().display()));
    let environment = [
        ("PATH", path.as_str()),
        ("LEASEHOLD_KINDS", &kinds),
        ("LEASEHOLD_REDIS_URL", &redis),
        ("LEASEHOLD_STORAGE_URL", &storage),
        PATIENT,
    ];
    follow(&page, &blocks, &root, &api.url(""), &environment).await;
    system.finish().await;
}

/// The names of all members, of like elements once; what is in a member that may be null is left out.
fn shape(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => {
            let named = members.iter().flat_map(|(name, value)| {
                let inner =
                    if ["progress", "result", "error"].contains(&name.as_str()) { Vec::new() } else { shape(value) };
                std::iter::once(name.clone()).chain(inner.into_iter().map(move |inner| format!("{name}.{inner}")))
            });
            named.collect()
        }
        Value::Array(elements) => {
            let mut shapes: Vec<Vec<String>> = elements.iter().map(shape).collect();
            shapes.dedup();
            shapes.concat()
        }
        _ => Vec::new(),
    }
}

/// Without what differs from run to run: ids, numbers and times, of which all digits are hex digits.
fn masked(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_ascii_hexdigit()).collect()
}

#[tokio::test]
async fn the_http_api_by_example_answers_as_its_page_shows() {
    run("http-api.md").await;
}

#[tokio::test]
async fn the_command_kind_of_its_page_runs() {
    run("command-kinds.md").await;
}

#[tokio::test]
async fn the_example_of_file_batches_runs() {
    run_example("file-batches").await;
}

#[tokio::test]
async fn the_example_of_job_status_runs() {
    run_example("job-status").await;
}

#[tokio::test]
async fn the_example_of_screenshots_runs() {
    run_example("screenshots").await;
}

#[tokio::test]
async fn the_example_of_gap_analysis_runs() {
    run_example("gap-analysis").await;
}

#[tokio::test]
async fn the_example_of_audio_analysis_runs() {
    run_example("audio-analysis").await;
}

#[test]
fn every_link_leads_somewhere() {
    let pages = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let examples =
        std::fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path().join("README.md"));
    let examples = examples.filter(|page| page.exists());
    for page in pages.chain(examples).chain(
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md"]
            .map(|page| root().join(page)),
    ) {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            let there = file.is_empty() || file.contains("://") || page.parent().unwrap().join(file).exists();
            assert!(there, "{}: {link}", page.display());
        }
    }
}
