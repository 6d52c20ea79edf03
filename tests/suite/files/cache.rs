//! Kinds with a `cache`: what an earlier job made is copied, and whatever stands in the way of that, the command is
//! run.
use leasehold::store::script_sha;
use leasehold_tests::Proxy;
use leasehold_tests::proxy::{command, script};
use serde_json::json;

use super::*;

const URL: &str = "LEASEHOLD_REDIS_URL";

impl Ground {
    /// How often a command of these tests has run.
    fn rendered(&self) -> usize {
        std::fs::read_to_string(self.kinds.path().join("rendered")).unwrap_or_default().lines().count()
    }

    async fn cache_keys(&self) -> Vec<String> {
        self.system.redis().command(&["KEYS", "lh:*:cache:*"]).await
    }

    /// Waits until so many works are remembered: a job is completed a moment before.
    async fn remembers(&self, count: usize) -> Vec<String> {
        eventually(SOON, "the work is remembered", async || {
            let keys = self.cache_keys().await;
            if keys.len() == count { Ok(keys) } else { Err(keys) }
        })
        .await
    }
}

async fn render(ground: &Ground, api: &Api, kind: &str, payload: Value) -> Job {
    let submitted = api.post("/api/v1/jobs", &json!({"kind": kind, "payload": payload})).await;
    ground.ended(&id_of(&submitted, 202)).await
}

fn is_cached(job: &Job) -> bool {
    let result: Value = job.result.as_ref().unwrap().to().unwrap();
    assert_eq!(result["file"], "image");
    result["cached"].as_bool().unwrap_or(false)
}

async fn file(api: &Api, job: &Job, name: &str) -> String {
    let answer = api.get(&format!("/api/v1/jobs/{}/files/{name}", job.id)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.text
}

#[tokio::test]
async fn the_same_work_is_copied_and_outlives_what_it_was_copied_from() {
    for partitions in ["1", "4"] {
        let ground = Ground::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let api = ground.api(&[]).await;
        let _workers = [ground.system.worker(&[]), ground.system.worker(&[])];
        let first =
            render(&ground, &api, "render", json!({"id": 1, "url": "u", "config": {"width": 1, "height": 2}})).await;
        ground.remembers(1).await;
        let second =
            render(&ground, &api, "render", json!({"id": 2, "config": {"height": 2, "width": 1}, "url": "u"})).await;
        assert_eq!((is_cached(&first), is_cached(&second), ground.rendered()), (false, true, 1));
        assert_eq!(file(&api, &second, "token").await, first.token.unwrap().to_string(), "the first attempt's file");
        assert_eq!(api.delete(&format!("/api/v1/jobs/{}", first.id)).await.status, 204);
        eventually(SOON, "the first one's files are gone", async || {
            !ground.left().iter().any(|path| path.starts_with(first.id.as_str()))
        })
        .await;
        assert!(file(&api, &second, "image").await.contains("\"id\":1"));
        // Its source is gone, and a copy is none.
        let third = render(&ground, &api, "render", json!({"url": "u", "config": {"width": 1, "height": 2}})).await;
        assert_eq!((is_cached(&third), ground.rendered()), (false, 2));
        ground.finish().await;
    }
}

#[tokio::test]
async fn other_work_is_done() {
    let ground = Ground::start(&[("LEASEHOLD_FETCH__ALLOW_PRIVATE", "true")]).await;
    let api = ground.api(&[]).await;
    let _worker = ground.system.worker(&[]);
    let mut expected = 0;
    for payload in [
        json!({"url": "u", "config": {"width": 1}}),
        json!({"url": "u", "config": {"width": 2}}),
        json!({"url": "u"}),
        json!({"url": "u", "config": null}),
        json!({"url": "u", "config": {"width": 1}, "cache": false}),
    ] {
        assert!(!is_cached(&render(&ground, &api, "render", payload.clone()).await), "{payload}");
        expected += 1;
        assert_eq!(ground.rendered(), expected, "{payload}");
        ground.remembers(expected.min(4)).await;
    }
    // The files that came with it are a part of the work.
    for (content, count) in [("a", 1), ("b", 2), ("a", 2)] {
        let job: Part<'_> = ("name=\"job\"", None, b"{\"kind\": \"render\", \"payload\": {\"url\": \"file\"}}");
        let parts = [job, ("name=\"f\"; filename=\"in.txt\"", None, content.as_bytes())];
        let id = id_of(&upload(&api, None, &parts).await, 202);
        ground.completed(&id).await;
        assert_eq!(ground.rendered(), expected + count, "{content}");
        ground.remembers(4 + count).await;
    }
    let notes = std::fs::read_to_string(ground.kinds.path().join("rendered")).unwrap();
    assert!(notes.lines().all(|line| line == "true"), "it is told what it may fetch: {notes}");
    ground.finish().await;
}

#[tokio::test]
async fn what_was_skipped_or_failed_or_is_too_old_is_done_again() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let _worker = ground.system.worker(&[]);
    for payload in [json!({"url": "skips"}), json!({"url": "fails"})] {
        let before = ground.rendered();
        for _ in 0..2 {
            assert!(render(&ground, &api, "render", payload.clone()).await.result.is_none_or(|r| r.as_str() == "null"));
        }
        assert_eq!(ground.rendered(), before + 2, "{payload}");
    }
    assert_eq!(ground.cache_keys().await, [] as [String; 0]);
    let before = ground.rendered();
    assert!(!is_cached(&render(&ground, &api, "brief", json!({"url": "u"})).await));
    // It lives for 400 ms, and may be gone before it was seen.
    eventually(SOON, "it is forgotten", async || ground.cache_keys().await.is_empty()).await;
    assert!(!is_cached(&render(&ground, &api, "brief", json!({"url": "u"})).await));
    assert_eq!(ground.rendered(), before + 2);
    ground.finish().await;
}

#[tokio::test]
async fn a_copy_that_cannot_be_made_is_a_run() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let _worker = ground.system.worker(&[]);
    let redis = ground.system.redis();
    let payload = json!({"url": "u"});
    let mut last = render(&ground, &api, "render", payload.clone()).await;
    let other = render(&ground, &api, "render", json!({"url": "other"})).await;
    ground.remembers(2).await;
    let folder = |job: &Job| ground.root().join(format!("{}/out/{}", job.id, job.token.unwrap()));
    for spoilt in ["changed", "key", "forgotten", "misled", "nonsense"] {
        let keys = ground.cache_keys().await;
        let mut key = String::new();
        for name in keys {
            if redis.command::<String>(&["GET", &name]).await == last.id.as_str() {
                key = name;
            }
        }
        let mut mend = None;
        match spoilt {
            "changed" => {
                // The last of its files: one before it has been copied by then.
                let path = folder(&last).join("token");
                mend = Some((path.clone(), std::fs::read(&path).unwrap()));
                std::fs::write(path, "7").unwrap();
            }
            "key" => {
                let () = redis.command(&["DEL", &key]).await;
                let () = redis.command(&["HSET", &key, "a", "b"]).await;
            }
            "forgotten" => redis.command(&["DEL", &key]).await,
            "misled" => redis.command(&["SET", &key, other.id.as_str()]).await,
            _ => redis.command(&["SET", &key, "no id / at all"]).await,
        }
        let before = ground.rendered();
        let job = render(&ground, &api, "render", payload.clone()).await;
        assert_eq!((job.state, is_cached(&job), ground.rendered()), (State::Completed, false, before + 1), "{spoilt}");
        assert_eq!(file(&api, &job, "token").await, job.token.unwrap().to_string(), "{spoilt}: none of it was copied");
        if let Some((path, bytes)) = mend {
            std::fs::write(path, bytes).unwrap();
        }
        eventually(
            SOON,
            "the new one is remembered",
            async || matches!(redis.try_command::<String>(&["GET", &key]).await, Ok(id) if id == job.id.as_str()),
        )
        .await;
        last = job;
    }
    ground.finish().await;
}

#[tokio::test]
async fn a_result_that_the_mark_would_make_too_long_is_not_copied() {
    let bytes = r#"{"file":"image"}"#.len().to_string();
    let ground = Ground::start(&[("LEASEHOLD_LIMITS__RESULT_BYTES", &bytes)]).await;
    let api = ground.api(&[]).await;
    let _worker = ground.system.worker(&[]);
    for runs in 1..=2 {
        let job = render(&ground, &api, "render", json!({"url": "plain"})).await;
        assert_eq!((job.state, is_cached(&job), ground.rendered()), (State::Completed, false, runs));
        ground.remembers(1).await;
    }
    ground.finish().await;
}

#[tokio::test]
async fn a_death_between_the_settle_and_the_note_is_a_miss() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let proxy = Proxy::start(ground.system.redis().port()).await;
    let doomed = ground.system.worker(&[(URL, &proxy.url())]);
    let held = proxy.hold(command("SET"), 1);
    let first = render(&ground, &api, "render", json!({"url": "u"})).await;
    assert_eq!(first.state, State::Completed);
    held.fired().await;
    doomed.kill9();
    let _worker = ground.system.worker(&[]);
    let second = render(&ground, &api, "render", json!({"url": "u"})).await;
    assert_eq!((is_cached(&second), ground.rendered()), (false, 2));
    ground.finish().await;
}

#[tokio::test]
async fn a_death_after_the_copy_leaves_one_copy_in_the_end() {
    let ground = Ground::start(&[]).await;
    let api = ground.api(&[]).await;
    let other = ground.system.worker(&[]);
    render(&ground, &api, "render", json!({"url": "u"})).await;
    ground.remembers(1).await;
    drop(other);
    let proxy = Proxy::start(ground.system.redis().port()).await;
    let doomed = ground.system.worker(&[(URL, &proxy.url())]);
    let held = proxy.hold(script(script_sha("settle").unwrap()), 1);
    let id = id_of(&api.post("/api/v1/jobs", &json!({"kind": "render", "payload": {"url": "u"}})).await, 202);
    held.fired().await;
    doomed.kill9();
    let copies = || ground.left().iter().filter(|p| p.starts_with(id.as_str()) && p.ends_with("/image")).count();
    assert_eq!(copies(), 1, "the dead attempt's");
    let _worker = ground.system.worker(&[]);
    let job = ground.completed(&id).await;
    assert_eq!((is_cached(&job), ground.rendered()), (true, 1));
    eventually(SOON, "the dead attempt's folder is gone", async || copies() == 1).await;
    assert!(file(&api, &job, "image").await.contains("\"u\""));
    ground.finish().await;
}
