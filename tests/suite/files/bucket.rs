//! Files in a bucket of an object store: the same ways as in a folder, on a real S3 server.
use leasehold_tests::S3Server;
use leasehold_tests::proxy::script;
use leasehold_tests::{Proxy, Worker, s3};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;

/// A system whose files are in a bucket.
pub(super) struct Shore {
    pub(super) ground: Ground,
    pub(super) s3: S3Server,
    environment: Vec<(&'static str, String)>,
}

impl Shore {
    pub(super) async fn start(environment: &[(&str, &str)]) -> Shore {
        let s3 = S3Server::start();
        let mut all = vec![("LEASEHOLD_STORAGE_URL", format!("s3://{}/jobs/of=test", s3::BUCKET))];
        all.extend(s3.environment());
        Shore { ground: Ground::start(environment).await, s3, environment: all }
    }

    fn with<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect()
    }

    pub(super) async fn api(&self, more: &[(&str, &str)]) -> Api {
        self.ground.api(&self.with(more)).await
    }

    pub(super) fn worker(&self, more: &[(&str, &str)]) -> Worker {
        self.ground.system.worker(&self.with(more))
    }

    pub(super) async fn command(&self, words: &[&str]) -> leasehold_tests::Output {
        self.ground.system.command(words, &self.with(&[])).await
    }

    /// The objects of jobs, without the prefix.
    pub(super) fn left(&self) -> Vec<String> {
        let all = self.s3.objects();
        all.iter().map(|key| key.strip_prefix("jobs/of=test/").expect("it is below the prefix").to_owned()).collect()
    }

    pub(super) async fn nothing_is_left(&self) {
        eventually(SOON, "the bucket is empty", async || {
            let left = [self.left(), self.s3.unfinished()].concat();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    /// Keys and bucket agree, as the doctor sees it.
    pub(super) async fn finish(self) {
        let doctor = self.command(&["doctor"]).await;
        assert!(doctor.status.success(), "{}{}", doctor.stdout, doctor.stderr);
        assert!(!doctor.stderr.contains("not checked"), "{}", doctor.stderr);
        self.ground.system.finish().await;
    }
}

async fn ranged(api: &Api, path: &str, range: &str) -> Answer {
    answer(api.request(Method::GET, path).header("range", range)).await
}

#[tokio::test]
async fn a_jobs_files_go_through_a_bucket_and_leave_it_with_the_job() {
    let shore = Shore::start(&[]).await;
    let api = shore.api(&[]).await;
    let _worker = shore.worker(&[]);
    let names = ["a b.txt", "ä-水.pdf", "a#1", "a%231", "C:", "~", "?x=1&y", "[*]", "empty", "-rf"];
    let files: Vec<(&str, &[u8])> =
        names.iter().map(|name| (*name, if *name == "empty" { b"".as_slice() } else { name.as_bytes() })).collect();
    let id = submit(&api, "part", &files).await;
    let job = shore.ground.completed(&id).await;
    let list = listed(&api.get(&format!("/api/v1/jobs/{id}/files")).await);
    assert_eq!(list.iter().filter(|(.., direction)| direction == "out").count(), names.len(), "{list:?}");
    for (name, content) in &files {
        let path = format!("/api/v1/jobs/{id}/files/{}", escaped(name));
        for query in ["", "?direction=in"] {
            let got = api.get(&format!("{path}{query}")).await;
            assert_eq!((got.status, got.text.as_bytes()), (200, *content), "{name}");
        }
    }
    let left = shore.left();
    assert_eq!(left.len(), 2 * names.len(), "{left:?}");
    assert!(left.contains(&format!("{id}/in/a b.txt")), "{left:?}");
    assert!(left.contains(&format!("{id}/out/{}/~", job.token.unwrap())), "{left:?}");
    let path = format!("/api/v1/jobs/{id}/files/a%20b.txt");
    for (range, part, said) in
        [("bytes=2-4", "b.t", "bytes 2-4/7"), ("bytes=5-", "xt", "bytes 5-6/7"), ("bytes=-1", "t", "bytes 6-6/7")]
    {
        let got = ranged(&api, &path, range).await;
        assert_eq!((got.status, got.text.as_str(), &got.headers["content-range"]), (206, part, &said.parse().unwrap()));
    }
    assert_eq!(ranged(&api, &path, "bytes=7-").await.status, 416);
    let target = shore.ground.system.folder().join("fetched").display().to_string();
    let fetched = shore.command(&["jobs", "files", id.as_str(), "--get", "a#1", "--to", &target]).await;
    assert!(fetched.status.success(), "{}", fetched.stderr);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "a#1");
    let removed = api.request(Method::DELETE, &format!("/api/v1/jobs/{id}"));
    assert_eq!(answer(removed).await.status, 204);
    shore.nothing_is_left().await;
    shore.finish().await;
}

fn escaped(name: &str) -> String {
    name.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[tokio::test]
async fn failed_and_skipped_attempts_leave_nothing_in_the_bucket() {
    let shore = Shore::start(&[]).await;
    let api = shore.api(&[]).await;
    let _worker = shore.worker(&[]);
    for kind in ["fails", "skips", "folder"] {
        let id = id_of(&api.post("/api/v1/jobs", &json!({"kind": kind})).await, 202);
        shore.ground.ended(&id).await;
    }
    shore.nothing_is_left().await;
    shore.finish().await;
}

#[tokio::test]
async fn commands_do_not_get_the_buckets_credentials() {
    let shore = Shore::start(&[]).await;
    let api = shore.api(&[]).await;
    let _worker = shore.worker(&[]);
    let id = id_of(&api.post("/api/v1/jobs", &json!({"kind": "variables"})).await, 202);
    shore.ground.completed(&id).await;
    let seen = api.get(&format!("/api/v1/jobs/{id}/files/variables")).await.text;
    assert!(seen.contains("AWS_REGION=") && !seen.contains("leasehold-test-secret"), "{seen}");
    shore.finish().await;
}

#[tokio::test]
async fn a_large_file_is_streamed_through_little_memory() {
    const BYTES: usize = 200 << 20;
    const PIECE: usize = 1 << 20;
    let shore = Shore::start(&[]).await;
    let (api, worker) = (shore.api(&[]).await, shore.worker(&[]));
    let piece = |at: usize| -> Vec<u8> { (0..PIECE).map(|n| (n * 31 + at) as u8).collect() };
    let mut hash = Sha256::new();
    let mut pieces = vec![body(&[("name=\"job\"", None, b"{\"kind\": \"part\"}")])];
    let end = pieces[0].len() - format!("--{BOUNDARY}--\r\n").len();
    pieces[0].truncate(end);
    pieces[0].extend(
        format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"f\"; filename=\"big\"\r\n\r\n").bytes(),
    );
    let head = pieces.remove(0);
    (0..BYTES / PIECE).for_each(|at| hash.update(piece(at)));
    let middle = (0..BYTES / PIECE).map(piece);
    let tail = format!("\r\n--{BOUNDARY}--\r\n").into_bytes();
    let whole = std::iter::once(head).chain(middle).chain([tail]).map(Ok::<_, std::io::Error>);
    let whole = futures_util::stream::iter(whole);
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = api.request(Method::POST, "/api/v1/jobs").header("content-type", content_type);
    let id = id_of(&answer(request.timeout(LONG).body(reqwest::Body::wrap_stream(whole))).await, 202);
    let peak = api.peak_bytes();
    assert!(peak < 100 << 20, "the API had {peak} bytes in memory for an upload of {BYTES}");
    eventually(LONG, "the job ends", async || {
        shore.ground.store.get(&id).await.unwrap().filter(|job| job.state == State::Completed)
    })
    .await;
    let peak = worker.peak_bytes();
    assert!(peak < 150 << 20, "the worker had {peak} bytes in memory for a file of {BYTES}");
    let request = api.request(Method::GET, &format!("/api/v1/jobs/{id}/files/big")).timeout(LONG);
    let mut got = request.send().await.unwrap();
    let mut read = Sha256::new();
    while let Some(bytes) = got.chunk().await.unwrap() {
        read.update(&bytes);
    }
    assert_eq!(read.finalize(), hash.finalize());
    let peak = api.peak_bytes();
    assert!(peak < 100 << 20, "the API had {peak} bytes in memory for a download of {BYTES}");
    let removed = api.request(Method::DELETE, &format!("/api/v1/jobs/{id}"));
    assert_eq!(answer(removed).await.status, 204);
    shore.nothing_is_left().await;
    shore.finish().await;
}

/// How long a large file may take, in builds that are not optimized too.
const LONG: Duration = Duration::from_secs(180);

#[tokio::test]
async fn a_worker_killed_between_its_output_and_its_settle_publishes_nothing() {
    let shore = Shore::start(&[]).await;
    let api = shore.api(&[]).await;
    let proxy = Proxy::start(shore.ground.system.redis().port()).await;
    let doomed = shore.worker(&[("LEASEHOLD_REDIS_URL", &proxy.url())]);
    let held = proxy.hold(script(leasehold::store::script_sha("settle").unwrap()), 1);
    let id = id_of(&api.post("/api/v1/jobs", &json!({"kind": "note"})).await, 202);
    held.fired().await;
    let first = shore.left();
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(listed(&api.get(&format!("/api/v1/jobs/{id}/files")).await), [], "nothing is published yet");
    doomed.kill9();
    let _worker = shore.worker(&[]);
    let job = shore.ground.completed(&id).await;
    let note = api.get(&format!("/api/v1/jobs/{id}/files/note.txt")).await.text;
    assert_eq!(note, format!("token {} attempt 1\n", job.token.unwrap()), "the winner's");
    let only = vec![format!("{id}/out/{}/note.txt", job.token.unwrap())];
    eventually(SOON, "the dead attempt's output is gone", async || shore.left() == only).await;
    shore.finish().await;
}

#[tokio::test]
async fn the_sweep_deletes_what_no_job_has_and_no_more() {
    let shore = Shore::start(&[]).await;
    let api = shore.api(&[]).await;
    // Before the sweeping worker runs, so that an age of a second spares nothing.
    let worker = shore.worker(&[]);
    let id = submit(&api, "part", &[("a", b"kept")]).await;
    let token = shore.ground.completed(&id).await.token.unwrap();
    worker.kill9();
    let put = |key: &str| {
        let path = shore.s3.path(&format!("jobs/of=test/{key}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    };
    let mut kept = shore.left();
    // More than a page of the listing, and more than a batch of a deletion.
    (0..1_100).for_each(|n| put(&format!("0193a7b2-orphan/in/{n}")));
    put(&format!("{id}/out/{}/lost", token - 1));
    put("a-file");
    put("not/of/a/job");
    kept.extend(["a-file", "not/of/a/job"].map(str::to_owned));
    kept.sort();
    let _worker = shore.worker(&[("LEASEHOLD_FILES__WALK_MS", "200"), ("LEASEHOLD_FILES__ORPHAN_MS", "1000")]);
    eventually(SOON, "only what jobs have is left", async || {
        let left = shore.left();
        if left == kept { Ok(()) } else { Err(left.len()) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(shore.left(), kept, "and stays");
    std::fs::remove_file(shore.s3.path(&format!("jobs/of=test/{id}/in/a"))).unwrap();
    let doctor = shore.command(&["doctor"]).await;
    assert!(doctor.stdout.contains("its file \"a\" is missing from the file store"), "{}", doctor.stdout);
    shore.ground.system.finish().await;
}
