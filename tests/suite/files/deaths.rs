//! Deaths between the file store and Redis: no job whose files are missing, no file that stays for ever.
use crate::clocked_store::claim_of;
use leasehold::store::{ClaimRequest, Held, Outcome, Settle, Settled, script_sha};
use leasehold::{FileEntry, FileStore, Json, Kind, QueueName, WorkerId, files::Place};
use leasehold_tests::Proxy;
use leasehold_tests::proxy::script;
use serde_json::json;

use super::*;

const URL: &str = "LEASEHOLD_REDIS_URL";
/// A walk that comes soon, over what is old soon.
const WALKS: [(&str, &str); 2] = [("LEASEHOLD_FILES__WALK_MS", "200"), ("LEASEHOLD_FILES__ORPHAN_MS", "1000")];

#[tokio::test]
async fn an_api_killed_between_upload_and_submit_leaves_files_that_the_walk_finds() {
    for partitions in ["1", "4"] {
        let ground = Ground::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let api = ground.api(&[]).await;
        let kept = submit(&api, "part", &[("a", b"kept")]).await;
        let proxy = Proxy::start(ground.system.redis().port()).await;
        let doomed = ground.api(&[(URL, &proxy.url())]).await;
        let held = proxy.hold(script(script_sha("submit").unwrap()), 1);
        let parts: &[Part<'_>] = &[("name=\"job\"", None, b"{\"kind\": \"part\"}"), ("name=\"a\"", None, b"lost")];
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let request =
            doomed.request(Method::POST, "/api/v1/jobs").header("content-type", content_type).body(body(parts));
        let sent = tokio::spawn(request.send());
        held.fired().await;
        doomed.kill9();
        assert!(sent.await.unwrap().is_err(), "the client has no answer");
        assert_eq!(ground.left().iter().filter(|path| path.ends_with("/in/a")).count(), 2);
        let _worker = ground.system.worker(&WALKS);
        eventually(SOON, "the walk deletes what is nobody's", async || {
            ground.left().iter().filter(|path| path.ends_with("/in/a")).count() == 1
        })
        .await;
        ground.completed(&kept).await;
        assert_eq!(api.get(&format!("/api/v1/jobs/{kept}/files/a?direction=in")).await.text, "kept");
        ground.finish().await;
    }
}

#[tokio::test]
async fn a_worker_killed_after_its_output_and_before_its_settle_loses_to_the_next() {
    for partitions in ["1", "4"] {
        let ground = Ground::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let api = ground.api(&[]).await;
        let proxy = Proxy::start(ground.system.redis().port()).await;
        let doomed = ground.system.worker(&[(URL, &proxy.url())]);
        let held = proxy.hold(script(script_sha("settle").unwrap()), 1);
        let id = id_of(&api.post("/api/v1/jobs", &json!({"kind": "note"})).await, 202);
        held.fired().await;
        let first = ground.left();
        assert_eq!(first.iter().filter(|path| path.ends_with("/note.txt")).count(), 1, "{first:?}");
        assert_eq!(listed(&api.get(&format!("/api/v1/jobs/{id}/files")).await), [], "nothing is published yet");
        doomed.kill9();
        let _worker = ground.system.worker(&[]);
        let job = ground.completed(&id).await;
        let note = api.get(&format!("/api/v1/jobs/{id}/files/note.txt")).await.text;
        assert_eq!(note, format!("token {} attempt 1\n", job.token.unwrap()), "the winner's");
        let only = vec![
            format!("{id}"),
            format!("{id}/out"),
            format!("{id}/out/{}", job.token.unwrap()),
            format!("{id}/out/{}/note.txt", job.token.unwrap()),
        ];
        eventually(SOON, "the dead attempt's folder is gone", async || ground.left() == only).await;
        ground.finish().await;
    }
}

/// A Store with its file store, and a worker of the test's own.
async fn hand(ground: &Ground) -> (Store, WorkerId) {
    let storage_url = Some(format!("file://{}", ground.root().display()));
    let config = Config { redis_url: ground.system.redis().url(), storage_url, ..Config::default() };
    (Store::connect(&config).await.unwrap(), WorkerId::parse("hand").unwrap())
}

async fn claim(store: &Store, worker: &WorkerId, id: &JobId, kind: &str) -> Held {
    let (queues, kinds) = ([(QueueName::parse("default").unwrap(), 1)], [(Kind::parse(kind).unwrap(), 0)]);
    let request = ClaimRequest { lease_ms: 1_000, queues: &queues, kinds: &kinds, ..claim_of(worker, 1) };
    store.claim(store.partition_of(id), &request).await.unwrap().jobs.pop().expect("it was queued").held
}

async fn leave(files: &FileStore, held: &Held, content: &'static [u8]) -> FileEntry {
    let mut writer = files.create(&held.id, Place::Out(held.token), "a.txt").await.unwrap();
    writer.push(&content.into()).await.unwrap();
    writer.finish("text/plain".into()).await.unwrap()
}

fn complete(held: &Held, file: FileEntry) -> Settle {
    Settle { held: held.clone(), outcome: Outcome::Complete { result: Json::null(), skipped: None, files: vec![file] } }
}

#[tokio::test]
async fn a_stale_attempt_cannot_overwrite_the_winners_files() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let (store, worker) = hand(&ground).await;
    let files = store.files().unwrap();
    let id = id_of(&api.post("/api/v1/jobs", &json!({"kind": "byhand"})).await, 202);
    let stale = claim(&store, &worker, &id, "byhand").await;
    let early = leave(files, &stale, b"early").await;
    store.settle(&worker, Settle { held: stale.clone(), outcome: Outcome::Release { delay_ms: None } }).await.unwrap();
    let winner = claim(&store, &worker, &id, "byhand").await;
    let mine = leave(files, &winner, b"winner").await;
    assert_eq!(store.settle(&worker, complete(&stale, early.clone())).await.unwrap(), Settled::Stale);
    assert_eq!(store.job_files(&id).await.unwrap().unwrap().output, None);
    assert_eq!(store.settle(&worker, complete(&winner, mine)).await.unwrap(), Settled::To(State::Completed));
    assert_eq!(store.settle(&worker, complete(&stale, early)).await.unwrap(), Settled::Stale);
    leave(files, &stale, b"late").await;
    assert_eq!(api.get(&format!("/api/v1/jobs/{id}/files/a.txt")).await.text, "winner");
    assert_eq!(store.sweep_files(Duration::from_secs(3_600)).await.unwrap(), 0, "an attempt may still be at it");
    assert_eq!(store.sweep_files(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(api.get(&format!("/api/v1/jobs/{id}/files/a.txt")).await.text, "winner");
    assert_eq!(store.sweep_files(Duration::ZERO).await.unwrap(), 0);
    ground.finish().await;
}

#[tokio::test]
async fn what_a_walk_must_not_touch_stays() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let (store, worker) = hand(&ground).await;
    let id = submit(&api, "byhand", &[("a", b"abc")]).await;
    let running = claim(&store, &worker, &id, "byhand").await;
    leave(store.files().unwrap(), &running, b"half").await;
    let aside = submit(&api, "aside", &[("a", b"abc")]).await;
    let key = format!("lh:{{0}}:job:{aside}");
    let () = ground.system.redis().command(&["HDEL", &key, "kind"]).await;
    claim_nothing(&store, &worker, &aside).await;
    std::fs::create_dir(ground.root().join("not a job")).unwrap();
    std::fs::write(ground.root().join("a-file"), "").unwrap();
    let before = ground.left();
    assert_eq!(store.sweep_files(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(ground.left(), before);
    store.settle(&worker, Settle { held: running, outcome: Outcome::Release { delay_ms: None } }).await.unwrap();
    for finding in store.check().await.unwrap() {
        store.repair(&finding).await.unwrap();
    }
    ground.system.finish().await;
}

/// A claim that meets a record it cannot read, which is set aside.
async fn claim_nothing(store: &Store, worker: &WorkerId, id: &JobId) {
    let (queues, kinds) = ([(QueueName::parse("default").unwrap(), 1)], [(Kind::parse("aside").unwrap(), 0)]);
    let request = ClaimRequest { lease_ms: 1_000, queues: &queues, kinds: &kinds, ..claim_of(worker, 1) };
    assert!(store.claim(store.partition_of(id), &request).await.unwrap().jobs.is_empty());
    let aside = store.get(id).await.unwrap_err();
    assert!(aside.to_string().contains("was set aside"), "{aside}");
}

#[tokio::test]
async fn the_doctor_finds_files_without_a_job_and_jobs_without_files() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let id = submit(&api, "part", &[("a", b"abc"), ("b", b"abc")]).await;
    let short = [("LEASEHOLD_FILES__ORPHAN_MS", "1000")];
    let orphan = ground.root().join("0193a7b2-orphan/in");
    std::fs::create_dir_all(&orphan).unwrap();
    std::fs::write(orphan.join("x"), "x").unwrap();
    std::fs::remove_file(ground.root().join(format!("{id}/in/a"))).unwrap();
    std::fs::write(ground.root().join(format!("{id}/in/b")), "longer").unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let output = ground.system.command(&["doctor", "--repair"], &short).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.contains("0193a7b2-orphan") && output.stdout.contains("the folder is deleted"), "{output:?}");
    assert!(output.stdout.contains("its file \"a\" is missing from the file store"), "{output:?}");
    assert!(output.stdout.contains("its file \"b\" has 6 bytes in the file store, expected 3"), "{output:?}");
    assert!(!ground.root().join("0193a7b2-orphan").exists());
    std::fs::write(ground.root().join(format!("{id}/in/a")), "abc").unwrap();
    std::fs::write(ground.root().join(format!("{id}/in/b")), "abc").unwrap();
    let output = ground.system.command(&["doctor"], &short).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    ground.finish().await;
}

#[tokio::test]
async fn a_folder_with_other_things_or_of_another_redis_is_refused_at_the_start() {
    let ground = Ground::start(&[]).await;
    let _api = ground.api(&[]).await;
    let other = System::start(&[]).await;
    let storage = format!("file://{}", ground.root().display());
    let home = format!("file://{}", ground.system.folder().display());
    for (storage, said) in [
        (storage.as_str(), "this Redis has no such folder"),
        (&home, "so name a folder that is empty or does not exist yet"),
        ("ftp://host/files", "write file:///an/absolute/folder"),
    ] {
        for binary in ["leasehold-api", "leasehold-worker"] {
            let url = other.redis().url();
            let environment =
                [(URL, url.as_str()), ("LEASEHOLD_STORAGE_URL", storage), ("LEASEHOLD_API__LISTEN", "127.0.0.1:0")];
            let process = leasehold_tests::Process::ours(binary, &[], &environment);
            assert!(!process.wait_exit(SOON).await.success());
            assert!(process.stderr().contains(said), "{binary}: {}", process.stderr());
        }
    }
    other.finish().await;
    ground.finish().await;
}
