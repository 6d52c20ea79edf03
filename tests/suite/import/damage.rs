//! Whatever may stand in a folder: no panic, no stop half-way, each record imported or reported.
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use leasehold_tests::{System, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::{Said, finish, import, import_with, job, tree};

/// What can stand where a record is expected, by its name, and what is said of it.
fn hostile(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    write("empty.json", b"");
    write("blank.json", b" \r\n\0\0");
    write("cut.json", b"{\"status\": \"compl");
    write("latin.json", b"{\"status\": \"completed\", \"name\": \"\xe9\"}");
    write("utf16.json", b"\xff\xfe{\0}\0");
    write("list.json", b"[1, 2]");
    write("word.json", b"\"completed\"");
    write("nan.json", b"{\"status\": \"completed\", \"progress\": nan}");
    write("huge.json", b"{\"status\": \"completed\", \"progress\": 1e999}");
    write("two.json", b"{\"status\": \"completed\"} {}");
    let deep = format!("{{\"status\": \"completed\", \"deep\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    write("deep.json", deep.as_bytes());
    write("large.json", format!("{{\"status\": \"completed\", \"text\": \"{}\"}}", "x".repeat(300_000)).as_bytes());
    write("spaced name.json", b"{\"status\": \"completed\"}");
    fs::create_dir(folder.join("folder.json")).unwrap();
    nix::unistd::mkfifo(&folder.join("fifo.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    drop(UnixListener::bind(folder.join("socket.json")).unwrap());
    symlink("loop.json", folder.join("loop.json")).unwrap();
    symlink("/no/such/file", folder.join("nowhere.json")).unwrap();
    symlink("/dev/zero", folder.join("endless.json")).unwrap();
    fs::File::create(folder.join("sparse.json")).unwrap().set_len(5 << 30).unwrap();
    vec![
        ("empty.json", "it is empty"),
        ("blank.json", "it is empty"),
        ("cut.json", "not valid JSON"),
        ("latin.json", "not UTF-8, from byte"),
        ("utf16.json", "not UTF-8"),
        ("list.json", ""),
        ("word.json", ""),
        ("nan.json", "not valid JSON"),
        ("huge.json", ""),
        ("two.json", ""),
        ("deep.json", ""),
        ("large.json", "at most 262144 are allowed"),
        ("spaced name.json", "1 to 64 of A-Z"),
        ("folder.json", "a folder in place of a file"),
        ("fifo.json", "not a regular file"),
        ("socket.json", "cannot be read"),
        ("loop.json", "cannot be read"),
        ("nowhere.json", "cannot be read"),
        ("endless.json", "not a regular file"),
        ("sparse.json", "too large for a record"),
    ]
}

#[tokio::test]
async fn whatever_stands_in_a_folder_is_reported_and_the_good_comes_along() {
    for (from, good) in [
        ("gap-analysis", json!({"status": "completed"})),
        ("files", json!({"status": "Completed", "total_files": 0})),
        ("job-status", json!({"status": "completed"})),
        ("screenshots", json!({"status": "completed", "items": {}})),
    ] {
        let system = System::start(&[]).await;
        let folder = system.folder().join("old");
        fs::create_dir(&folder).unwrap();
        let expected = hostile(&folder);
        for name in ["README.md", ".DS_Store", ".hidden.json", "job_x.json.tmp", "notes.txt"] {
            fs::write(folder.join(name), "no record").unwrap();
        }
        fs::write(folder.join("good.json"), format!("\u{feff}{good}\r\n")).unwrap();
        let before = tree(&folder);
        let said = import(&system, from, &[&folder]).await;
        assert_eq!((said.counts().0, said.counts().2), (1, expected.len()), "{from}: {:#}", said.report);
        for (name, why) in expected {
            let exact = format!("/{name}");
            assert!(said.why(&exact).contains(why), "{from}, {name}: {}", said.why(&exact));
        }
        assert_eq!(job(&system, "good").await["state"], "completed");
        assert_eq!(tree(&folder), before);
        finish(system).await;
    }
}

#[tokio::test]
async fn a_path_may_be_anything() {
    let system = System::start(&[]).await;
    let folder = system.folder().join("old");
    fs::create_dir(&folder).unwrap();
    hostile(&folder);
    for from in ["gap-analysis", "files", "job-status", "screenshots", "audio"] {
        for name in
            ["fifo.json", "socket.json", "folder.json", "loop.json", "endless.json", "sparse.json", "empty.json"]
        {
            let said = import(&system, from, &[&folder.join(name)]).await;
            assert!(
                said.counts().2 >= 1 || (from, name) == ("audio", "folder.json"),
                "{from} {name}: {:#}",
                said.report
            );
        }
    }
    // A file where a folder is expected.
    let store = system.folder().join("store");
    fs::create_dir(&store).unwrap();
    fs::write(store.join("job_metadata"), "{}").unwrap();
    fs::create_dir(store.join("job_results")).unwrap();
    assert!(import(&system, "files", &[&store]).await.why("job_metadata").contains("in place of a folder"));
    finish(system).await;
}

#[tokio::test]
async fn an_id_of_another_job_is_a_conflict_and_changes_nothing() {
    for partitions in ["1", "4"] {
        let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let folder = system.folder().join("jobs");
        fs::create_dir(&folder).unwrap();
        let items = json!({"a": {"status": "success"}, "b": {"status": "failed"}});
        fs::write(folder.join("same.json"), json!({"status": "completed", "items": items}).to_string()).unwrap();
        assert_eq!(import(&system, "screenshots", &[&folder]).await.counts(), (1, 0, 0));
        let item = super::items(&system, "same").await[0]["id"].as_str().unwrap().to_owned();
        fs::write(folder.join(format!("{item}.json")), json!({"status": "completed"}).to_string()).unwrap();
        let before = super::records(&system).await;
        for (from, kind) in [("job-status", "suggestions"), ("files", "process-files")] {
            let said = import(&system, from, &[&folder]).await;
            assert_eq!(said.counts(), (0, 0, 2), "{:#}", said.report);
            assert!(said.why("same.json").contains("of another kind, screenshots"), "{kind}: {}", said.report);
        }
        let said = import(&system, "screenshots", &[&folder]).await;
        assert_eq!(said.counts(), (0, 1, 1), "{:#}", said.report);
        assert!(said.why(&format!("{item}.json")).contains("an item of batch same"), "{}", said.report);
        assert_eq!(super::records(&system).await, before);
        // The other way round: the id that an item would get is taken.
        fs::remove_file(folder.join("same.json")).unwrap();
        fs::remove_file(folder.join(format!("{item}.json"))).unwrap();
        let other = item.replacen("same", "late", 1);
        fs::write(folder.join(format!("{other}.json")), json!({"status": "completed"}).to_string()).unwrap();
        import(&system, "job-status", &[&folder]).await;
        fs::remove_file(folder.join(format!("{other}.json"))).unwrap();
        if partitions == "1" {
            fs::write(folder.join("late.json"), json!({"status": "completed", "items": items}).to_string()).unwrap();
            let said = import(&system, "screenshots", &[&folder]).await;
            assert!(said.why("late.json").contains("which another job has; remove that job first"), "{}", said.report);
            assert_eq!(job(&system, &other).await["kind"], "suggestions");
        }
        finish(system).await;
    }
}

/// Bytes as a bad disk or a death leaves them.
fn spoil(random: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes[at] = random.random(),
            3 => drop(bytes.remove(at)),
            4 => bytes.insert(at, *b"\0\"{}[],:\xff9"[..].get(random.random_range(0..10)).unwrap()),
            _ => bytes[at..].iter_mut().take(40).for_each(|byte| *byte = 0),
        }
    }
    bytes
}

fn whole(said: &Said, records: u64) {
    let (imported, there, skipped) = said.counts();
    assert_eq!(there, 0);
    assert!(imported <= records && imported + skipped as u64 >= records, "{:#}", said.report);
}

#[tokio::test]
async fn of_hundreds_of_spoilt_records_each_is_imported_or_reported() {
    let mut random = StdRng::seed_from_u64(seed());
    let items = json!({"a": {"id": "a", "status": "success", "result": {"url": "https://x"}}, "b": {"status": "pending", "url": "https://y"}});
    for (from, record) in [
        (
            "gap-analysis",
            json!({"request": {"url": "https://x", "max_papers": 3}, "status": "running", "created_at": "2024-01-01T12:00:00", "result_file": null}),
        ),
        (
            "files",
            json!({"status": "Processing", "total_files": 2, "files": ["a", "b"], "start_time": "2025-09-16T20:44:07.533700"}),
        ),
        (
            "job-status",
            json!({"status": "queued", "text": "some", "progress": 75.5, "updated_at": "2025-01-01T00:01:00"}),
        ),
        (
            "screenshots",
            json!({"status": "processing", "items": items, "created_at": 1703123456.789, "config": {"width": 9}}),
        ),
    ] {
        let system = System::start(&[]).await;
        let folder = system.folder().join("old");
        fs::create_dir(&folder).unwrap();
        for n in 0..200 {
            fs::write(folder.join(format!("{n}.json")), spoil(&mut random, record.to_string().as_bytes())).unwrap();
        }
        let before = tree(&folder);
        let said = import(&system, from, &[&folder]).await;
        whole(&said, 200);
        assert_eq!(tree(&folder), before);
        let again = import(&system, from, &[&folder]).await;
        assert_eq!((again.counts().0, again.counts().1), (0, said.counts().0), "{from}");
        finish(system).await;
    }
}

#[tokio::test]
async fn spoilt_lines_and_logs_do_not_stop_the_others() {
    let mut random = StdRng::seed_from_u64(seed());
    let system = System::start(&[]).await;
    let (results, jobs) = (system.folder().join("job_results"), system.folder().join("jobs"));
    fs::create_dir(&results).unwrap();
    let lines: String =
        (0..5).map(|n| format!("{}\n", json!({"filename": n.to_string(), "success": n != 2, "error": null}))).collect();
    let log = "{\"timestamp\": \"2025-01-01T00:00:00\", \"event\": \"created\"}\n{\"status\": \"completed\", \"result\": {\"n\": 1}}\n";
    for n in 0..150 {
        fs::write(results.join(format!("job_{n}_results.jsonl")), spoil(&mut random, lines.as_bytes())).unwrap();
        fs::create_dir_all(jobs.join(format!("log-{n}"))).unwrap();
        fs::write(jobs.join(format!("log-{n}")).join("events.log"), spoil(&mut random, log.as_bytes())).unwrap();
    }
    whole(&import(&system, "files", &[&results]).await, 150);
    whole(&import(&system, "job-status", &[&jobs]).await, 150);
    finish(system).await;
}

#[tokio::test]
async fn spoilt_databases_are_read_as_far_as_they_go() {
    let mut random = StdRng::seed_from_u64(seed());
    let system = System::start(&[]).await;
    let path = system.folder().join("whole.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE jobs (job_id TEXT PRIMARY KEY, status TEXT, filename TEXT)").unwrap();
    for n in 0..300 {
        connection.execute("INSERT INTO jobs VALUES (?1, 'failed', 'a.wav')", [format!("row-{n}")]).unwrap();
    }
    drop(connection);
    let bytes = fs::read(&path).unwrap();
    let paths: Vec<_> = (0..60)
        .map(|n| {
            let path = system.folder().join(format!("{n}.db"));
            fs::write(&path, spoil(&mut random, &bytes)).unwrap();
            path
        })
        .collect();
    for path in &paths {
        let before = fs::read(path).unwrap();
        let said = import_with(&system, "audio", &[path], &["--dry-run"], &[]).await;
        assert!(said.counts().0 > 0 || said.counts().2 > 0, "{:#}", said.report);
        assert_eq!(fs::read(path).unwrap(), before);
    }
    let all: Vec<&Path> = paths.iter().map(std::path::PathBuf::as_path).collect();
    import(&system, "audio", &all).await;
    finish(system).await;
}
