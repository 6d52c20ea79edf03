//! The pages under `docs/`: what they tell a reader to do is done here as it stands there.
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use leasehold_tests::System;
use serde_json::Value;

/// How long all examples of a page may take.
const LIMIT: Duration = Duration::from_secs(120);
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
    let text = std::fs::read_to_string(root().join("docs").join(page)).unwrap();
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
    let examples: Vec<usize> = (0..blocks.len()).filter(|at| blocks[*at].language == "sh").collect();
    let mut script = "set -euo pipefail\n".to_owned();
    for at in &examples {
        script += &blocks[*at].text.replace("http://127.0.0.1:8080", &api.url(""));
        script += &format!("\necho; echo '{MARK}'\n");
    }
    let shell = tokio::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
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

#[test]
fn every_link_leads_somewhere() {
    let pages = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for page in pages.chain([root().join("README.md")]) {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            let there = file.is_empty() || file.contains("://") || page.parent().unwrap().join(file).exists();
            assert!(there, "{}: {link}", page.display());
        }
    }
}
