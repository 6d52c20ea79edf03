//! A submit with an Idempotency-Key is made once.
use std::collections::BTreeSet;

use futures_util::future::join_all;
use leasehold_tests::api::answer;
use leasehold_tests::{Proxy, System, Then, eventually, proxy};
use reqwest::Method;
use serde_json::json;

use super::{LIMIT, id, problem, send, start};

const SUBMIT: &str = r#"{"kind": "echo", "payload": {"n": 1}}"#;

#[tokio::test]
async fn a_hundred_concurrent_submits_of_one_key_make_one_job() {
    for partitions in ["1", "4"] {
        let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
        let replicas = [system.api(&[]).await, system.api(&[]).await];
        for replica in &replicas {
            replica.wait_ready().await;
        }
        let submits = (0..100).map(|n| send(&replicas[n % 2], "/api/v1/jobs", &[("idempotency-key", "k")], SUBMIT));
        let answers = join_all(submits).await;
        let ids: BTreeSet<String> = answers.iter().map(id).collect();
        assert_eq!(ids.len(), 1);
        let count = |status| answers.iter().filter(|a| a.status == status).count();
        assert_eq!((count(202), count(200)), (1, 99));
        assert_eq!(replicas[0].get("/api/v1/jobs").await.json["jobs"].as_array().map(Vec::len), Some(1));
        system.finish().await;
    }
}

#[tokio::test]
async fn a_killed_api_leaves_one_job_for_each_key() {
    const CLIENTS: usize = 4;
    const EACH: usize = 100;
    let (system, api) = start(&[]).await;
    let submit = |client: usize, n: usize| {
        let request = api.request(Method::POST, "/api/v1/jobs").header("content-type", "application/json");
        request.header("idempotency-key", format!("{client}-{n}")).body(SUBMIT)
    };
    let client = async |client: usize| {
        for n in 0..EACH {
            // What is refused or cut off stays unknown for now.
            drop(submit(client, n).send().await);
        }
    };
    tokio::join!(join_all((0..CLIENTS).map(client)), async {
        let some = || system.redis().command::<usize>(&["ZCARD", "lh:{0}:kind:echo"]);
        eventually(LIMIT, "some are accepted", async || some().await >= 50).await;
        api.kill9();
    });
    api.restart().await;
    api.wait_ready().await;
    let (mut ids, mut replayed) = (BTreeSet::new(), 0);
    for client in 0..CLIENTS {
        for n in 0..EACH {
            let job = answer(submit(client, n)).await;
            assert!([200, 202].contains(&job.status), "{}", job.text);
            replayed += usize::from(job.status == 200);
            ids.insert(id(&job));
        }
    }
    let jobs: usize = system.redis().command(&["ZCARD", "lh:{0}:kind:echo"]).await;
    assert_eq!((ids.len(), jobs), (CLIENTS * EACH, CLIENTS * EACH));
    assert!((50..CLIENTS * EACH).contains(&replayed), "the kill came in the middle: {replayed}");
    system.finish().await;
}

#[tokio::test]
async fn a_key_stands_for_one_request_however_it_is_written() {
    let (system, api) = start(&[]).await;
    let first = send(&api, "/api/v1/jobs", &[("idempotency-key", "k")], SUBMIT).await;
    assert_eq!(first.status, 202);
    let again =
        send(&api, "/api/v1/jobs", &[("idempotency-key", "\"k\"")], r#"{"payload":{"n":1},"kind":"echo"}"#).await;
    assert_eq!((again.status, id(&again)), (200, id(&first)));
    let other = r#"{"kind": "echo", "payload": {"n": 2}}"#;
    let conflict = send(&api, "/api/v1/jobs", &[("idempotency-key", "k")], other).await;
    assert!(problem(&conflict, 422, "idempotency_conflict")["detail"].as_str().unwrap().contains(&id(&first)));
    let bulk = r#"{"jobs": [{"kind": "echo", "payload": {"n": 1}, "idempotency_key": "k"},
                            {"kind": "echo", "payload": {"n": 3}, "idempotency_key": "k"}]}"#;
    let bulk = send(&api, "/api/v1/jobs/bulk", &[], bulk).await;
    assert_eq!(bulk.json["results"][0]["job"]["id"], first.json["id"]);
    assert_eq!(bulk.json["results"][1]["error"]["code"], "idempotency_conflict");
    assert_eq!(api.get("/api/v1/jobs").await.json["jobs"].as_array().map(Vec::len), Some(1));
    system.finish().await;
}

#[tokio::test]
async fn a_key_whose_job_is_gone_says_so() {
    let (system, api) = start(&[]).await;
    let job = send(&api, "/api/v1/jobs", &[("idempotency-key", "k")], SUBMIT).await;
    let path = format!("/api/v1/jobs/{}", id(&job));
    super::ask(&api, &format!("{path}/cancel")).await;
    assert_eq!(api.delete(&path).await.status, 204);
    problem(&send(&api, "/api/v1/jobs", &[("idempotency-key", "k")], SUBMIT).await, 410, "job_gone");
    system.finish().await;
}

#[tokio::test]
async fn a_lost_reply_is_ridden_out_and_makes_one_job() {
    let system = System::start(&[]).await;
    let network = Proxy::start(system.redis().port()).await;
    let api = system.api(&[("LEASEHOLD_REDIS_URL", &network.url())]).await;
    api.wait_ready().await;
    // So that Redis knows the script, and the next call is one EVALSHA.
    send(&api, "/api/v1/jobs", &[], r#"{"kind": "other"}"#).await;
    let lost = network.drop_reply_to(proxy::script(leasehold::store::script_sha("submit").unwrap()), 1, Then::Cut);
    let job = send(&api, "/api/v1/jobs", &[], SUBMIT).await;
    assert!(lost.has_fired());
    assert_eq!(job.status, 202, "{}", job.text);
    assert_eq!(api.get("/api/v1/jobs?kind=echo").await.json["jobs"], json!([job.json]));
    system.finish().await;
}

#[tokio::test]
async fn a_batch_cut_off_half_way_is_no_failure_and_its_key_completes_it() {
    let system = System::start(&[]).await;
    let network = Proxy::start(system.redis().port()).await;
    let api = system.api(&[("LEASEHOLD_REDIS_URL", &network.url()), ("LEASEHOLD_REDIS__OUTAGE_MS", "300")]).await;
    api.wait_ready().await;
    let batch = r#"{"kind": "echo", "items": [0, 1, 2]}"#;
    send(&api, "/api/v1/jobs", &[], batch).await;
    // The parent is there when its items are lost before they reach Redis, and then Redis is gone.
    let items = proxy::script(leasehold::store::script_sha("items").unwrap());
    let lost = network.cut_request_to(items, 1, 0, Then::Cut);
    let (lost_answer, ()) = tokio::join!(send(&api, "/api/v1/jobs", &[("idempotency-key", "k")], batch), async {
        lost.fired().await;
        network.accept(false).await;
        network.cut();
    });
    problem(&lost_answer, 503, "outcome_unknown");
    network.heal().await;
    eventually(LIMIT, "the same submit is answered", async || {
        let again = send(&api, "/api/v1/jobs", &[("idempotency-key", "k")], batch).await;
        (again.status == 200).then_some(()).ok_or(again.text)
    })
    .await;
    let parents = api.get("/api/v1/jobs").await;
    let totals: Vec<_> = parents.json["jobs"].as_array().unwrap().iter().map(|job| job["items"].clone()).collect();
    assert_eq!(totals.len(), 2);
    for items in totals {
        assert_eq!((&items["total"], &items["open"]), (&json!(3), &json!(false)));
    }
    system.finish().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_told_as_such_and_its_key_resolves_it() {
    let system = System::start(&[]).await;
    let network = Proxy::start(system.redis().port()).await;
    let api = system.api(&[("LEASEHOLD_REDIS_URL", &network.url()), ("LEASEHOLD_REDIS__OUTAGE_MS", "300")]).await;
    api.wait_ready().await;
    send(&api, "/api/v1/jobs", &[], r#"{"kind": "other"}"#).await;
    let lost = network.drop_reply_to(proxy::script(leasehold::store::script_sha("submit").unwrap()), 1, Then::Cut);
    let submit = send(&api, "/api/v1/jobs", &[("idempotency-key", "k")], SUBMIT);
    let (lost_answer, ()) = tokio::join!(submit, async {
        // From the loss on there is no Redis: the later tries are refused, and still nobody knows of the first.
        lost.fired().await;
        network.accept(false).await;
        network.cut();
    });
    let detail = problem(&lost_answer, 503, "outcome_unknown")["detail"].as_str().unwrap();
    assert!(detail.contains("Idempotency-Key"), "{detail}");
    assert!(lost_answer.headers.contains_key("retry-after"));
    network.heal().await;
    eventually(LIMIT, "the same submit is answered", async || {
        let again = send(&api, "/api/v1/jobs", &[("idempotency-key", "k")], SUBMIT).await;
        (again.status == 200).then_some(()).ok_or(again.text)
    })
    .await;
    assert_eq!(api.get("/api/v1/jobs?kind=echo").await.json["jobs"].as_array().map(Vec::len), Some(1));
    system.finish().await;
}
