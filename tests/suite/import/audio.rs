//! Audio analysis: SQLite files as they may be found: odd tables, locked, with a log that was never written back,
//! damaged.
use std::fs;
use std::path::Path;

use leasehold_tests::{Process, System, eventually};
use rusqlite::Connection;
use serde_json::json;

use super::{finish, import, import_with, job, round, shipped, tree};
use crate::steered_command::SOON;

/// Changes a database and commits nothing.
const HOLDER: &str = r#"
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN EXCLUSIVE")
db.execute("UPDATE jobs SET status = 'cancelled'")
for n in range(2000):
    db.execute("INSERT INTO jobs VALUES (?, 'failed')", [f"uncommitted-{n}"])
print("held", flush=True)
time.sleep(600)
"#;

#[tokio::test]
async fn jobs_come_along_with_the_uploads_of_those_that_are_to_run() {
    for partitions in ["1", "4"] {
        let kinds = tempfile::NamedTempFile::new().unwrap();
        fs::write(kinds.path(), "[kinds.analyze-audio]").unwrap();
        let kinds = kinds.path().to_str().unwrap();
        let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions), ("LEASEHOLD_KINDS", kinds)]).await;
        let old = shipped(&system, "audio-analysis");
        let said = round(&system, "audio", &[&old]).await;
        assert_eq!(said.counts(), (3, 0, 1));
        assert!(said.why("jobs.db").contains("one of pending, processing"));
        assert_eq!(said.report["skipped"][0]["line"], 4);
        let done = job(&system, "abc123").await;
        assert_eq!((&done["state"], &done["result"]["sample_rate_hz"]), (&json!("completed"), &json!(44100)));
        assert_eq!((&done["imported"]["genre"], &done["imported"]["progress"]), (&json!("jazz"), &json!(1.0)));
        assert_eq!(job(&system, "def456").await["error"]["message"], "Not an audio file");
        let open = job(&system, "ghi789").await;
        assert_eq!((&open["state"], &open["payload"]), (&json!("queued"), &json!({"filename": "tone.wav"})));
        let api = system.api(&[]).await;
        let file = api.get("/api/v1/jobs/ghi789/files/tone.wav").await;
        assert_eq!((file.status, &file.headers["content-length"]), (200, &"8044".parse().unwrap()));
        drop(api);
        let worker = system.worker(&[]);
        eventually(SOON, "it is measured", async || {
            let ran = job(&system, "ghi789").await;
            (ran["result"]["sample_rate_hz"] == 8000.0).then_some(()).ok_or(ran.to_string())
        })
        .await;
        drop(worker);
        finish(system).await;
    }
}

fn database(path: &Path, sql: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection
}

#[tokio::test]
async fn columns_are_looked_up_by_name_and_values_of_any_sort_are_read_or_told() {
    let system = System::start(&[]).await;
    let path = system.folder().join("odd.db");
    drop(database(
        &path,
        "CREATE TABLE other (x); INSERT INTO other VALUES (1);
         CREATE TABLE Jobs (ID INTEGER, Status TEXT, mood TEXT, Result TEXT);
         INSERT INTO Jobs VALUES (7, 'completed', 'calm', '{\"n\": 1}');
         INSERT INTO Jobs VALUES (8, 'pending', NULL, NULL);
         INSERT INTO Jobs VALUES (9, 'completed', NULL, '{\"n\": ');
         INSERT INTO Jobs VALUES (10, x'ff00', NULL, NULL);
         INSERT INTO Jobs VALUES (11, 12, NULL, NULL);
         INSERT INTO Jobs VALUES (NULL, 'failed', NULL, NULL);
         INSERT INTO Jobs VALUES (7, 'failed', NULL, NULL);
         INSERT INTO Jobs VALUES ('a b', 'failed', NULL, NULL);
         INSERT INTO Jobs VALUES (14, 'cancelled', 9e999, CAST(x'ff' AS TEXT));
         INSERT INTO Jobs VALUES (15, 'failed', 9e999, NULL);",
    ));
    let said = import(&system, "audio", &[&path]).await;
    assert_eq!(said.counts(), (3, 0, 7), "{:#}", said.report);
    let lines: Vec<u64> =
        said.report["skipped"].as_array().unwrap().iter().map(|s| s["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(
        job(&system, "7").await["imported"],
        json!({"ID": 7, "Status": "completed", "mood": "calm", "Result": "{\"n\": 1}"})
    );
    assert!(
        job(&system, "8").await["error"]["message"].as_str().unwrap().contains("upload is not beside"),
        "no upload"
    );
    for (name, sql, why) in [
        ("none.db", "CREATE TABLE other (job_id, status)", "no table \"jobs\""),
        ("nameless.db", "CREATE TABLE jobs (status TEXT)", "no column \"job_id\""),
    ] {
        let path = system.folder().join(name);
        drop(database(&path, sql));
        let said = import(&system, "audio", &[&path]).await;
        assert!(said.why(name).contains(why), "{}", said.report);
    }
    let plain = system.folder().join("plain.db");
    drop(database(
        &plain,
        "CREATE TABLE jobs (job_id TEXT PRIMARY KEY, status TEXT) WITHOUT ROWID; INSERT INTO jobs VALUES ('w', 'failed')",
    ));
    assert_eq!(import(&system, "audio", &[&plain]).await.counts(), (1, 0, 0));
    finish(system).await;
}

#[tokio::test]
async fn a_database_that_is_in_use_is_read_as_it_was_committed_and_left_alone() {
    let system = System::start(&[]).await;
    let folder = system.folder().join("live");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("jobs.db");
    let create = "CREATE TABLE jobs (job_id TEXT PRIMARY KEY, status TEXT);";
    let log = database(
        &path,
        &format!(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; {create} INSERT INTO jobs VALUES ('in-log', 'failed');"
        ),
    );
    let before = tree(&folder);
    assert!(before.len() >= 2, "there is a log beside it");
    assert_eq!(import(&system, "audio", &[&folder]).await.counts(), (1, 0, 0));
    assert_eq!(tree(&folder), before);
    drop(log);
    assert_eq!(job(&system, "in-log").await["state"], "failed");

    let locked = folder.join("locked.db");
    drop(database(&locked, &format!("{create} INSERT INTO jobs VALUES ('kept', 'failed');")));
    // In a process of its own, since its locks go with any descriptor of the file that its process closes. The cache is
    // so small that what is not committed is written, with a journal beside.
    let holder = Process::start(Path::new("python3"), &["-c", HOLDER, locked.to_str().unwrap()], &[]);
    eventually(SOON, "it is locked", async || holder.stdout().contains("held")).await;
    let before = tree(&folder);
    let said = import(&system, "audio", &[&locked]).await;
    assert_eq!(said.counts(), (1, 0, 1), "{:#}", said.report);
    assert!(said.why("locked.db").contains("locked by process"));
    assert_eq!(tree(&folder), before);
    assert_eq!(job(&system, "kept").await["state"], "failed", "what was not committed is not imported");
    holder.kill9();
    finish(system).await;
}

#[tokio::test]
async fn of_a_damaged_database_the_rows_that_can_be_read_come_along() {
    let system = System::start(&[]).await;
    let path = system.folder().join("damaged.db");
    let mut connection = database(&path, "CREATE TABLE jobs (job_id TEXT, status TEXT, note TEXT)");
    let change = connection.transaction().unwrap();
    for n in 0..3_000 {
        change.execute("INSERT INTO jobs VALUES (?1, 'failed', ?2)", [format!("row-{n}"), "x".repeat(200)]).unwrap();
    }
    change.commit().unwrap();
    drop(connection);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    // Two pages in the middle.
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8192].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let said = import(&system, "audio", &[&path]).await;
    let (imported, _, skipped) = said.counts();
    assert!(imported > 2_950 && imported < 3_000 && skipped >= 1, "{:#}", said.report);
    assert!(said.why("damaged.db").contains("damaged"), "{}", said.report);
    assert_eq!(job(&system, "row-2999").await["state"], "failed", "what stands behind the damage too");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let half = import(&system, "audio", &[&path]).await;
    assert!(half.counts().2 >= 1, "{:#}", half.report);
    for (name, bytes) in [("empty.db", &b""[..]), ("text.db", b"not a database"), ("head.db", &whole[..100])] {
        let path = system.folder().join(name);
        fs::write(&path, bytes).unwrap();
        let said = import_with(&system, "audio", &[&path], &[], &[]).await;
        assert!(!said.why(name).is_empty());
    }
    finish(system).await;
}
