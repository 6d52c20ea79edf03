//! Batches at size, over HTTP and through deaths: submitted in parts, run, streamed, cancelled, retried, removed.
use std::time::Duration;

use futures_util::StreamExt;
use leasehold::store::{ListQuery, script_sha};
use leasehold::{JobId, NewJob, State};
use leasehold_tests::api::answer;
use leasehold_tests::proxy::script;
use leasehold_tests::{Api, Process, Proxy, System, Way, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::clocked_store::*;
use crate::steered_command::{SOON, Work, submit_with};

const URL: &str = "LEASEHOLD_REDIS_URL";
/// What an API or a worker may need at most, however large the batch.
const MEMORY_MAX_KB: u64 = 100 << 10;
/// How long a batch of many thousand may take.
const LONG: Duration = Duration::from_secs(180);

fn sha(name: &str) -> &'static str {
    script_sha(name).expect("a script of that name")
}

/// A worker that serves `doubles` and `sums`; it sweeps for all.
fn worker_at(url: &str, partitions: &str) -> Process {
    let environment = [(URL, url), ("LEASEHOLD_WORKER__CONCURRENCY", "100"), ("LEASEHOLD_PARTITIONS", partitions)];
    // Not shorter: the API sweeps when no worker has for a ninth of it, as on a busy machine.
    let lease = ("LEASEHOLD_LEASE_MS", "15000");
    Process::ours("leasehold-test-worker", &[], &[&environment[..], &[lease]].concat())
}

/// Submits a batch in parts of 10,000; item k has the payload k.
async fn in_parts(api: &Api, kind: &str, total: u64, then: Option<&str>) -> String {
    let mut body = json!({"kind": kind, "items_open": true});
    if let Some(then) = then {
        body["then"] = then.into();
    }
    let id = submit_with(api, body).await.to_string();
    for first in (0..total).step_by(10_000) {
        let to = total.min(first + 10_000);
        let part = json!({"first": first, "items": (first..to).collect::<Vec<_>>(), "last": to == total});
        let added = api.post(&format!("/api/v1/jobs/{id}/items"), &part).await;
        assert_eq!((added.status, &added.json["items"]["total"]), (200, &json!(to)), "{}", added.text);
    }
    id
}

async fn wait_for(api: &Api, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(LONG, what, async || {
        let job = api.get(&format!("/api/v1/jobs/{id}")).await.json;
        if fits(&job) { Ok(job) } else { Err(job["items"].to_string()) }
    })
    .await
}

/// Reads a batch's items as JSON Lines, a chunk at a time, and hands each line on. Whether the stream had an end.
async fn stream(api: &Api, id: &str, mut line: impl FnMut(Value)) -> bool {
    let request =
        api.request(Method::GET, &format!("/api/v1/jobs/{id}/items")).header("accept", "application/x-ndjson");
    let response = request.send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (reqwest::StatusCode::OK, &"application/x-ndjson".parse().unwrap())
    );
    let (mut chunks, mut rest) = (response.bytes_stream(), Vec::new());
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return false };
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            line(serde_json::from_slice(&rest[..end]).unwrap());
            rest.drain(..=end);
        }
    }
    assert!(rest.is_empty(), "the last line has an end");
    true
}

/// A batch of `total` through its whole life.
async fn lives(total: u64, partitions: &str) {
    let system = System::start(&[("LEASEHOLD_PARTITIONS", partitions)]).await;
    let api = system.api(&[]).await;
    api.wait_ready().await;
    let worker = worker_at(&system.redis().url(), partitions);
    let id = in_parts(&api, "doubles", total, Some("sums")).await;
    let path = format!("/api/v1/jobs/{id}");
    let is_final = |job: &Value| job["state"] == "completed";
    let done = wait_for(&api, &id, "the batch completes", is_final).await;
    let refused = total / 10;
    let counts = json!({"total": total, "succeeded": total - refused - 1, "failed": refused, "skipped": 1, "cancelled": 0, "open": false});
    assert_eq!(done["items"], counts);
    let sum: u64 = (0..total).filter(|n| n % 10 != 7).map(|n| 2 * n).sum();
    assert_eq!(done["result"], json!({"sum": sum, "seen": total, "failed": refused}), "its `then` saw every item");

    let mut next = 0;
    let whole = stream(&api, &id, |item| {
        let ends = if next % 10 == 7 { "failed" } else { "completed" };
        assert_eq!((&item["payload"], &item["state"], &item["parent"]), (&json!(next), &json!(ends), &json!(id)));
        next += 1;
    });
    assert!((whole.await, next) == (true, total), "{next} lines");

    assert_eq!(answer(api.request(Method::POST, &format!("{path}/retry"))).await.status, 202);
    let again = wait_for(&api, &id, "the failed ones have run again", is_final).await;
    assert_eq!(again["items"], counts, "each end is counted once");

    let waiting = in_parts(&api, "unserved", total, None).await;
    let status = answer(api.request(Method::POST, &format!("/api/v1/jobs/{waiting}/cancel"))).await.status;
    assert!([200, 202].contains(&status), "{status}: done, or begun");
    let cancelled = wait_for(&api, &waiting, "the batch is cancelled", |job| job["state"] == "cancelled").await;
    assert_eq!(cancelled["items"]["cancelled"], total);

    for id in [&id, &waiting] {
        let status = api.delete(&format!("/api/v1/jobs/{id}")).await.status;
        assert!([202, 204].contains(&status), "{status}: begun, or done");
    }
    eventually(LONG, "every job is gone", async || {
        let left = api.get("/api/v1/jobs").await.json["jobs"].as_array().map(Vec::len);
        let queued: Vec<String> = system.redis().command(&["KEYS", "*:job:*"]).await;
        if (left, queued.len()) == (Some(0), 0) { Ok(()) } else { Err(queued.len()) }
    })
    .await;
    let peaks = [api.peak_bytes() >> 10, worker.peak_bytes() >> 10];
    println!("peaks of API and worker: {peaks:?} kB");
    assert!(peaks.iter().all(|kb| *kb < MEMORY_MAX_KB), "API and worker peaked at {peaks:?} kB");
    system.finish().await;
}

#[tokio::test]
async fn twenty_thousand_items_live_in_flat_memory() {
    lives(20_000, "1").await;
}

#[tokio::test]
async fn a_batch_among_four_partitions_lives_in_one() {
    lives(2_000, "4").await;
}

/// By hand, since it takes minutes: `cargo test --workspace --test suite -- --ignored a_hundred_thousand`.
#[tokio::test]
#[ignore = "takes minutes"]
async fn a_hundred_thousand_items_live_in_flat_memory() {
    lives(100_000, "1").await;
}

#[tokio::test]
async fn a_stream_that_cannot_go_on_breaks_off_visibly() {
    let system = System::start(&[]).await;
    let proxy = Proxy::start(system.redis().port()).await;
    let impatient = [("LEASEHOLD_REDIS__RESPONSE_MS", "300"), ("LEASEHOLD_REDIS__OUTAGE_MS", "1000")];
    let api = system.api(&[&[(URL, proxy.url().as_str())], &impatient[..]].concat()).await;
    api.wait_ready().await;
    let id = in_parts(&api, "unserved", 2_000, None).await;
    let held = proxy.hold(script(sha("get")), 5);
    let mut lines = 0;
    let (whole, ()) = tokio::join!(stream(&api, &id, |_| lines += 1), async {
        held.fired().await;
        proxy.partition(Way::Both);
        held.release();
    });
    assert!(!whole && lines > 0 && lines < 2_000, "{lines} lines, and an end");
    system.finish().await;
}

#[tokio::test]
async fn json_lines_are_for_those_who_ask_and_have_no_pages() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    api.wait_ready().await;
    let id = in_parts(&api, "unserved", 3, None).await;
    let path = format!("/api/v1/jobs/{id}/items");
    let with = |query: &str, accept: &str| {
        answer(api.request(Method::GET, &format!("{path}{query}")).header("accept", accept))
    };
    assert_eq!(with("", "*/*").await.json["jobs"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        with("", "application/x-ndjson;q=0.9, application/json").await.headers["content-type"],
        "application/json"
    );
    let refused = with("?limit=2", "application/x-ndjson").await;
    assert_eq!((refused.status, &refused.json["code"]), (400, &json!("invalid_request")), "{}", refused.text);
    let gone =
        answer(api.request(Method::GET, "/api/v1/jobs/nope/items").header("accept", "application/x-ndjson")).await;
    assert_eq!((gone.status, &gone.json["code"]), (404, &json!("no_such_job")));
    let plain = submit_with(&api, json!({"kind": "unserved"})).await.to_string();
    assert!(stream(&api, &plain, |line| panic!("{line}")).await, "a job without items has none");
    system.finish().await;
}

#[tokio::test]
async fn a_batch_whose_api_died_between_chunks_is_completed_by_its_key() {
    let system = System::start(&[]).await;
    let proxy = Proxy::start(system.redis().port()).await;
    let doomed = system.api(&[(URL, &proxy.url())]).await;
    doomed.wait_ready().await;
    let body = json!({"kind": "unserved", "items": (0..10_000).collect::<Vec<_>>()});
    let post = |api: &Api| api.request(Method::POST, "/api/v1/jobs").header("idempotency-key", "all").json(&body);
    let held = proxy.hold(script(sha("items")), 4);
    let sent = tokio::spawn(post(&doomed).send());
    held.fired().await;
    doomed.kill9();
    assert!(sent.await.unwrap().is_err(), "the client has no answer");
    let api = system.api(&[]).await;
    let begun = &api.get("/api/v1/jobs").await.json["jobs"][0];
    let (id, total) = (begun["id"].as_str().unwrap(), begun["items"]["total"].as_u64().unwrap());
    assert!((1_000..10_000).contains(&total) && begun["items"]["open"] == true, "{total}");
    for _ in 0..2 {
        let again = answer(post(&api)).await;
        assert_eq!((again.status, again.json["id"].as_str()), (200, Some(id)), "{}", again.text);
        assert_eq!((&again.json["items"]["total"], &again.json["items"]["open"]), (&json!(10_000), &json!(false)));
    }
    let queued: usize = system.redis().command(&["LLEN", "lh:{0}:queue:default"]).await;
    assert_eq!(queued, 10_000, "no item twice");
    system.finish().await;
}

#[tokio::test]
async fn a_cascade_that_a_death_cuts_is_gone_on_with() {
    let system = System::start(&[("LEASEHOLD_LEASE_MS", "15000")]).await;
    let proxy = Proxy::start(system.redis().port()).await;
    let api = system.api(&[]).await;
    let id = in_parts(&api, "unserved", 9_000, None).await;
    let path = format!("/api/v1/jobs/{id}");
    for (method, verb) in
        [(Method::POST, "/cancel"), (Method::POST, "/retry"), (Method::POST, "/cancel"), (Method::DELETE, "")]
    {
        let workers = async || system.redis().command::<usize>(&["ZCARD", "lh:{0}:workers"]).await;
        let before = workers().await;
        let doomed = worker_at(&proxy.url(), "1");
        // Without a worker the API would sweep.
        eventually(SOON, "the worker is at work", async || if workers().await > before { Ok(()) } else { Err(before) })
            .await;
        let key = if verb.is_empty() { "lh:{0}:removals" } else { "lh:{0}:cascades" };
        let held = proxy.hold(script(sha("cascade")), 4);
        assert_eq!(answer(api.request(method, &format!("{path}{verb}"))).await.status, 202, "{verb}");
        held.fired().await;
        doomed.kill9();
        drop(held);
        let stands: Vec<String> = system.redis().command(&["HVALS", key]).await;
        assert!(stands.len() == 1 && !stands[0].contains(" 0 "), "{verb} stands half-way: {stands:?}");
        let rescuer = worker_at(&system.redis().url(), "1");
        eventually(SOON, "nothing is left of the cascade", async || {
            let left: usize = system.redis().command(&["HLEN", key]).await;
            let job = api.get(&path).await.json;
            let ended = match verb {
                "/cancel" => job["state"] == "cancelled" && job["items"]["cancelled"] == 9_000,
                "/retry" => job["state"] == "waiting" && job["items"]["cancelled"] == 0,
                _ => job["code"] == "no_such_job",
            };
            if left == 0 && ended { Ok(()) } else { Err(job["items"].to_string()) }
        })
        .await;
        drop(rescuer);
    }
    let left: Vec<String> = system.redis().command(&["KEYS", "*:job:*"]).await;
    assert_eq!(left, Vec::<String>::new());
    // What two workers that were killed may have reserved is recovered by one that lives.
    let _worker = worker_at(&system.redis().url(), "1");
    system.finish().await;
}

#[tokio::test]
async fn a_command_that_runs_over_a_batch_finds_its_items_in_a_file() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let _worker = work.system.worker(&[]);
    let id = submit_with(&api, json!({"kind": "exits", "items": [0, 65, 0], "then": "gather"})).await;
    let job = work.completed(&id).await;
    assert_eq!(job.result.unwrap().as_str(), "[2,1]");
    let empty = submit_with(&api, json!({"kind": "exits", "items": [], "then": "gather"})).await;
    assert_eq!(work.completed(&empty).await.result.unwrap().as_str(), "[0,0]");
    work.system.finish().await;
}

#[tokio::test]
async fn a_command_begins_at_its_checkpoint_after_a_crash_and_the_history_tells() {
    let work = Work::start(&[]).await;
    let api = work.system.api(&[]).await;
    let doomed = work.system.worker(&[]);
    let id = submit_with(&api, json!({"kind": "resumes"})).await;
    eventually(SOON, "the checkpoint is saved", async || {
        let saved: Option<String> =
            work.system.redis().command(&["HGET", &format!("lh:{{0}}:job:{id}"), "checkpoint"]).await;
        saved.is_some()
    })
    .await;
    doomed.kill9();
    let _worker = work.system.worker(&[]);
    assert_eq!(work.completed(&id).await.result.unwrap().as_str(), "{\"at\":7}");
    assert_eq!(work.count("begin", &id), 2);
    let history = api.get(&format!("/api/v1/jobs/{id}/history")).await.json["history"].clone();
    let told: Vec<_> =
        history.as_array().unwrap().iter().map(|e| (e["event"].as_str().unwrap(), e["attempt"].as_u64())).collect();
    let one = Some(1);
    assert_eq!(
        told,
        [("submit", None), ("claim", one), ("phase", one), ("reclaim", one), ("claim", one), ("complete", one)]
    );
    assert_eq!(history[2]["message"], "first half");
    assert_ne!(history[1]["worker"], history[4]["worker"]);
    work.system.finish().await;
}

#[tokio::test]
async fn a_bulk_of_a_thousand_is_one_call_with_an_answer_for_each() {
    let system = System::start(&[]).await;
    let api = system.api(&[]).await;
    api.wait_ready().await;
    let job = |n: usize| match n % 10 {
        3 => json!({"kind": "Bad Kind"}),
        5 => json!({"kind": "echo", "payload": n, "idempotency_key": format!("k{}", n / 10)}),
        _ => json!({"kind": "echo", "payload": n}),
    };
    let body = json!({"jobs": (0..1_000).map(job).collect::<Vec<_>>()});
    let calls = async || {
        let stats: String = system.redis().command(&["INFO", "commandstats"]).await;
        let line = stats.lines().find(|l| l.starts_with("cmdstat_evalsha:")).map(str::to_owned);
        line.and_then(|l| l.split(['=', ',']).nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    api.post("/api/v1/jobs/bulk", &json!({"jobs": []})).await;
    let before = calls().await;
    let first = api.post("/api/v1/jobs/bulk", &body).await;
    assert!(calls().await - before <= 3, "900 jobs in one call, and a look at the workers");
    let again = api.post("/api/v1/jobs/bulk", &body).await;
    let (first, again) = (first.json["results"].as_array().unwrap(), again.json["results"].as_array().unwrap());
    for (n, (one, two)) in first.iter().zip(again).enumerate() {
        match n % 10 {
            3 => assert_eq!(one["error"]["errors"][0]["pointer"], format!("/jobs/{n}/kind")),
            5 => assert_eq!(
                (&one["job"]["payload"], &one["job"]["id"]),
                (&json!(n), &two["job"]["id"]),
                "its key finds it"
            ),
            _ => assert_eq!(one["job"]["payload"], n),
        }
    }
    assert_eq!((first.len(), again.len()), (1_000, 1_000));
    let queued: usize = system.redis().command(&["LLEN", "lh:{0}:queue:default"]).await;
    assert_eq!(queued, 900 + 800);
    system.finish().await;
}

on_ground! {
    async fn a_huge_cascade_keeps_no_other_waiting(g: &Ground) {
        let (huge, small) = (g.submit(batch(13_000)).await, g.submit(batch(3)).await);
        for id in [&huge, &small] {
            g.store.cancel(std::slice::from_ref(id)).await.unwrap()[0].clone().unwrap();
        }
        let swept = g.sweep().await;
        assert_eq!((g.state(&huge).await, g.state(&small).await), (State::Waiting, State::Cancelled));
        assert!(swept.iter().any(|s| s.more), "there is more to do");
        assert!(swept.iter().all(|s| s.cascaded <= 20), "one budget for all");
        g.sweep().await;
        assert_eq!(g.get(&huge).await.items.unwrap().cancelled, 13_000);
        assert_eq!(g.state(&huge).await, State::Cancelled);
    }

    async fn a_listing_goes_on_behind_what_is_no_id(g: &Ground) {
        let mut ids = Vec::new();
        for n in 0..6 {
            ids.push(g.submit(job()).await);
            g.advance(1_000);
            let partition = g.store.partition_of(&ids[n]);
            for (place, member) in [("kind:work", "no id!"), ("kind:work", "\u{e9}".repeat(300).as_str())] {
                let score = (g.now() - 500).to_string();
                let () = g.redis.command(&["ZADD", &format!("lh:{{{partition}}}:{place}"), &score, &format!("{member}{n}")]).await;
            }
            let () = g.redis.command(&["RPUSH", &format!("lh:{{{partition}}}:queue:default"), "no id!"]).await;
        }
        for state in [None, Some(State::Queued)] {
            let (mut seen, mut cursor) = (Vec::<JobId>::new(), None::<String>);
            loop {
                let query = ListQuery { state, kind: Some(kind("work")), limit: 2, ..ListQuery::default() };
                let query = match &cursor {
                    Some(text) => query.with_cursor(text).unwrap(),
                    None => query,
                };
                let page = g.store.list(&query).await.unwrap();
                seen.extend(page.jobs.into_iter().map(|j| j.id));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            seen.sort();
            let mut all = ids.clone();
            all.sort();
            assert_eq!(seen, all, "{state:?}");
        }
    }

    async fn an_unsealed_batch_that_nobody_would_close_is_found_and_put_back(g: &Ground) {
        let open = leasehold::job::NewBatch { open: true, ..Default::default() };
        let parent = g.submit(NewJob { batch: Some(open), ..job() }).await;
        let place = format!("lh:{{{}}}:open", g.store.partition_of(&parent));
        let () = g.redis.command(&["ZREM", &place, parent.as_str()]).await;
        let found = g.store.check().await.unwrap();
        assert!(found.len() == 1 && found[0].problem.contains("`open`"), "{found:?}");
        g.store.repair(&found[0]).await.unwrap();
        assert_eq!(g.store.check().await.unwrap(), []);
        let score: i64 = g.redis.command(&["ZSCORE", &place, parent.as_str()]).await;
        assert_eq!(score, g.now() + 3_600_000);
        g.store.add_items(&parent, 0, &[], true).await.unwrap();
    }

    async fn a_dead_worker_behind_a_thousand_others_is_recovered(g: &Ground) {
        let id = g.submit(job()).await;
        let partition = g.store.partition_of(&id);
        g.sweep().await;
        let workers = format!("lh:{{{partition}}}:workers");
        let gone = (g.now() - 2 * LEASE as i64).to_string();
        let names: Vec<String> = (0..2_500).map(|n| format!("a{n}")).chain(["z".into()]).collect();
        let members = names.iter().flat_map(|name| [gone.as_str(), name]);
        let () = g.redis.command(&["ZADD", workers.as_str()].into_iter().chain(members).collect::<Vec<_>>()).await;
        let queue = format!("lh:{{{partition}}}:queue:default");
        let () = g.redis.command(&["RPOPLPUSH", &queue, &format!("lh:{{{partition}}}:claimed:z")]).await;
        g.pass(4_000).await;
        assert_eq!(g.claim_one("w1").await.held.id, id);
    }
}
