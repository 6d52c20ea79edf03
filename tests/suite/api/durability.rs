//! `durability`: a submit that waits for replicas of Redis is answered truthfully.
use std::time::{Duration, Instant};

use leasehold_tests::{Answer, Api, RedisServer, System, eventually};
use serde_json::{Value, json};

use super::{id, problem, send};

const LIMIT: Duration = Duration::from_secs(60);
/// Replicas are waited for for half of it.
const RESPONSE: (&str, &str) = ("LEASEHOLD_REDIS__RESPONSE_MS", "4000");

/// A system with a replica of its Redis that is in sync.
async fn start() -> (System, Api, RedisServer) {
    let system = System::start(&[RESPONSE]).await;
    let kinds = system.folder().join("kinds.toml");
    std::fs::write(&kinds, "[kinds.dear]\ndurability = \"replicas:1\"\n[kinds.echo]\n").unwrap();
    let api = system.api(&[("LEASEHOLD_KINDS", kinds.to_str().unwrap())]).await;
    api.wait_ready().await;
    let replica = RedisServer::start().await;
    replica.command::<()>(&["REPLICAOF", "127.0.0.1", &system.redis().port().to_string()]).await;
    in_sync(&system).await;
    (system, api, replica)
}

async fn in_sync(system: &System) {
    eventually(LIMIT, "the replica is in sync", async || {
        system.redis().command::<String>(&["INFO", "replication"]).await.contains("state=online")
    })
    .await;
}

async fn submit(api: &Api, key: &str, body: &Value) -> Answer {
    send(api, "/api/v1/jobs", &[("idempotency-key", key)], body.to_string()).await
}

async fn is_on(redis: &RedisServer, id: &str) -> bool {
    redis.command::<u8>(&["EXISTS", &format!("lh:{{0}}:job:{id}")]).await == 1
}

#[tokio::test]
async fn a_submit_that_waits_for_a_replica_is_on_it_when_it_is_answered() {
    let (system, api, replica) = start().await;
    let durable = json!({"kind": "echo", "durability": "replicas:1"});
    let (first, again) = (submit(&api, "k", &durable).await, submit(&api, "k", &durable).await);
    assert_eq!((first.status, again.status), (202, 200), "{}", again.text);
    assert!(is_on(&replica, &id(&first)).await);
    let dear = api.post("/api/v1/jobs", &json!({"kind": "dear"})).await;
    assert!(dear.status == 202 && is_on(&replica, &id(&dear)).await, "the kind's default");
    let batch = json!({"kind": "echo", "items": [1, 2, 3], "durability": "replicas:1"});
    let batch = id(&api.post("/api/v1/jobs", &batch).await);
    for item in 0..3 {
        assert!(is_on(&replica, &format!("{batch}-{item}")).await);
    }
    let two = json!({"kind": "echo", "durability": "replicas:2"});
    let short = submit(&api, "two", &two).await;
    let detail = problem(&short, 503, "outcome_unknown")["detail"].as_str().unwrap();
    assert!(detail.contains("1 of 2 replicas") && detail.contains("within 2000 ms"), "{detail}");
    system.finish().await;
}

#[tokio::test]
async fn a_replica_that_does_not_answer_is_reported_and_waited_for_again_by_a_repeat() {
    let (system, api, replica) = start().await;
    replica.sigstop();
    let durable = json!({"kind": "echo", "durability": "replicas:1"});
    for _ in 0..2 {
        let short = submit(&api, "k", &durable).await;
        let detail = problem(&short, 503, "outcome_unknown")["detail"].as_str().unwrap();
        assert!(detail.contains("0 of 1 replicas") && detail.contains("same Idempotency-Key"), "{detail}");
    }
    let unkeyed = api.post("/api/v1/jobs", &durable).await;
    assert!(problem(&unkeyed, 503, "outcome_unknown")["detail"].as_str().unwrap().contains("submits a second job"));
    let bulk = json!({"jobs": [{"kind": "echo", "idempotency_key": "b1"},
        {"kind": "echo", "idempotency_key": "b2", "durability": "replicas:1"}]});
    problem(&api.post("/api/v1/jobs/bulk", &bulk).await, 503, "outcome_unknown");
    // While others wait for the replica, a submit that does not is answered at once.
    let plain = async {
        let begun = Instant::now();
        (api.post("/api/v1/jobs", &json!({"kind": "echo"})).await.status, begun.elapsed())
    };
    let (waiting, (status, took)) = tokio::join!(submit(&api, "other", &durable), plain);
    assert!((waiting.status, status) == (503, 202) && took < Duration::from_millis(1_500), "{took:?}");
    let begun = Instant::now();
    assert_eq!(submit(&api, "k", &json!({"kind": "echo"})).await.status, 200, "it waits for none");
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    replica.sigcont();
    in_sync(&system).await;
    let there = eventually(LIMIT, "the repeat is answered", async || {
        let answer = submit(&api, "k", &durable).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert!(is_on(&replica, &id(&there)).await);
    let bulk = api.post("/api/v1/jobs/bulk", &bulk).await;
    assert_eq!((bulk.status, bulk.json["results"].as_array().unwrap().len()), (200, 2), "{}", bulk.text);
    system.finish().await;
}

#[tokio::test]
async fn too_few_connected_replicas_mean_that_nothing_was_done() {
    let (system, api, replica) = start().await;
    system.redis().command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let durable = json!({"kind": "echo", "durability": "replicas:1"});
    assert_eq!(submit(&api, "kept", &durable).await.status, 202);
    drop(replica);
    let refused = eventually(LIMIT, "Redis refuses writes", async || {
        let answer = api.post("/api/v1/jobs", &durable).await;
        (answer.json["code"] != "outcome_unknown").then_some(answer)
    })
    .await;
    let before = api.get("/api/v1/jobs").await.json["jobs"].as_array().unwrap().len();
    problem(&refused, 503, "redis_unavailable");
    problem(&submit(&api, "new", &durable).await, 503, "redis_unavailable");
    assert_eq!(api.get("/api/v1/jobs").await.json["jobs"].as_array().unwrap().len(), before);
    system.redis().command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    system.finish().await;
}

#[tokio::test]
async fn the_command_line_waits_too() {
    let (system, api, replica) = start().await;
    for more in [vec![], vec!["--api".to_owned(), api.url("")]] {
        let mut words = vec!["jobs", "submit", "--kind", "echo", "--durability", "replicas:1"];
        words.extend(more.iter().map(String::as_str));
        let done = system.command(&words, &[]).await;
        assert!(done.status.success(), "{}", done.stderr);
        assert!(is_on(&replica, done.stdout.trim()).await);
    }
    replica.sigstop();
    let short = system.command(&["jobs", "submit", "--kind", "echo", "--durability", "replicas:1"], &[]).await;
    assert!(short.status.code() == Some(1) && short.stderr.contains("only 0 of 1 replicas"), "{}", short.stderr);
    let wrong = system.command(&["jobs", "submit", "--kind", "echo", "--durability", "replicas:x"], &[]).await;
    assert!(wrong.status.code() == Some(2) && wrong.stderr.contains("write N from 0 to 10"), "{}", wrong.stderr);
    system.finish().await;
}
