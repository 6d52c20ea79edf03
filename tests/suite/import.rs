//! `leasehold import`: old stores, good and damaged, through the real command and a real Redis.
mod audio;
mod damage;
mod deaths;
mod file_batches;
mod foreign;
mod gap_analysis;
mod job_status;
mod screenshots;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use leasehold_tests::System;
use serde_json::Value;

/// A kinds file with one kind, so that the API serves the view of its jobs.
fn kinds_file(kind: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("[kinds.{kind}]\n")).unwrap();
    file
}

/// The path of a file.
fn named(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// What an import said.
struct Said {
    report: Value,
}

impl Said {
    fn counts(&self) -> (u64, u64, usize) {
        let count = |name: &str| self.report[name].as_u64().unwrap();
        (count("imported"), count("already_there"), self.report["skipped"].as_array().unwrap().len())
    }

    /// The reason why a path (its end) was skipped.
    fn why(&self, path: &str) -> String {
        let skipped = self.report["skipped"].as_array().unwrap();
        let of = |entry: &&Value| entry["path"].as_str().unwrap().ends_with(path);
        let entry = skipped.iter().find(of).unwrap_or_else(|| panic!("{path} is not skipped: {:#}", self.report));
        entry["reason"].as_str().unwrap().to_owned()
    }

    fn notes(&self) -> String {
        self.report["notes"].to_string()
    }
}

async fn import_with(
    system: &System,
    from: &str,
    paths: &[&Path],
    more: &[&str],
    environment: &[(&str, &str)],
) -> Said {
    let mut arguments = vec!["import", "--from", from, "-o", "json"];
    arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
    arguments.extend(more);
    let output = system.command(&arguments, environment).await;
    let report = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(output.stderr, "", "{output:?}");
    let said = Said { report };
    assert_eq!(output.status.code().unwrap(), i32::from(said.counts().2 > 0), "{:#}", said.report);
    said
}

async fn import(system: &System, from: &str, paths: &[&Path]) -> Said {
    import_with(system, from, paths, &[], &[]).await
}

/// An old store that ships with the project, copied.
fn shipped(system: &System, name: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name).join("old-store");
    let to = system.folder().join("old-store");
    copy(&from, &to);
    to
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// What is in a folder, byte by byte.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap();
        if kind.is_dir() {
            all.extend(tree(&path));
            all.insert(path, Vec::new());
        } else if kind.is_file() && kind.len() < 1 << 26 {
            all.insert(path.clone(), fs::read(&path).unwrap());
        } else {
            all.insert(path, format!("{:?} {}", kind.file_type(), kind.len()).into_bytes());
        }
    }
    all
}

async fn job(system: &System, id: &str) -> Value {
    let output = system.command(&["jobs", "show", id, "-o", "json"], &[]).await;
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

async fn items(system: &System, id: &str) -> Vec<Value> {
    let output = system.command(&["jobs", "items", id, "--all", "-o", "json"], &[]).await;
    output.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{output:?}"))).collect()
}

async fn keys(system: &System) -> Vec<String> {
    let mut keys: Vec<String> = system.redis().command(&["KEYS", "*"]).await;
    keys.sort();
    keys
}

/// All that is in Redis, less what changes with time.
async fn records(system: &System) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut records = BTreeMap::new();
    for key in keys(system).await.into_iter().filter(|key| key.contains(":job:")) {
        let record = system.redis().command(&["HGETALL", &key]).await;
        records.insert(key, record);
    }
    records
}

/// Ends a test: the doctor has nothing to say.
async fn finish(system: System) {
    let output = system.command(&["doctor"], &[("LEASEHOLD_LEASE_MS", "1000")]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    system.finish().await;
}

/// A dry run that tells the same as the import after it and writes nothing; then the import, twice. Its first report.
async fn round(system: &System, from: &str, paths: &[&Path]) -> Said {
    let before = tree(paths[0]);
    let dry = import_with(system, from, paths, &["--dry-run"], &[]).await;
    assert_eq!(keys(system).await, Vec::<String>::new(), "a dry run writes nothing");
    assert!(!system.folder().join("storage").exists(), "and no files");
    let first = import(system, from, paths).await;
    assert_eq!(dry.counts(), first.counts(), "{:#}\n{:#}", dry.report, first.report);
    assert_eq!(dry.report["skipped"], first.report["skipped"]);
    assert_eq!((&dry.report["items"], dry.notes()), (&first.report["items"], first.notes()));
    let records_then = records(system).await;
    let again = import(system, from, paths).await;
    let (imported, _, skipped) = first.counts();
    assert_eq!(again.counts(), (0, imported, skipped), "{:#}", again.report);
    assert_eq!(records(system).await, records_then, "the second import changes nothing");
    assert_eq!(tree(paths[0]), before, "the source is as it was");
    first
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let system = System::start(&[]).await;
    let here = system.folder().display().to_string();
    for (arguments, said) in [
        (&["import", &here][..], "--from"),
        (&["import", "--from", "elsewhere", &here], "possible values: gap-analysis"),
        (&["import", "--from", "files"], "<PATH>"),
        (&["import", "--from", "files", "/no/such/folder"], "/no/such/folder"),
        (&["import", "--from", "files", &here, "--api", "http://127.0.0.1:1"], "straight to Redis"),
    ] {
        let output = system.command(arguments, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stderr.contains(said), "{said}: {output:?}");
    }
    assert_eq!(keys(&system).await, Vec::<String>::new());
    system.finish().await;
}
