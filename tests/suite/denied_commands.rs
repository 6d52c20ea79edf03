//! A user that may not run a command: each script that needs it is refused before its first write, and Leasehold does
//! not start.
use std::collections::BTreeSet;
use std::path::Path;

use leasehold::job::Due;
use leasehold::store::{ClaimRequest, Held, PruneQuery, Report, SweepPart, SweepRequest};
use leasehold::{Error, JobId, NewJob, Store, Timestamp, WorkerId};

use crate::clocked_store::*;

const RULES: [&str; 6] = ["on", "nopass", "~lh:*", "resetchannels", "&lh:*", "+@all"];

/// Every command that a script names.
fn commands() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/store/lua");
    let mut commands = BTreeSet::new();
    let options = ["LIMIT", "WITHSCORES", "WITHVALUES", "WRONGTYPE", "REV", "BYSCORE", "NX", "PX", "RANK", "MAXLEN"];
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let words = text.split('\'').filter(|word| word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase()));
        commands.extend(words.filter(|word| !options.contains(word)).map(str::to_owned));
    }
    commands
}

/// The user's address.
fn address(g: &Ground) -> String {
    g.redis.url().replace("redis://", "redis://app:any@")
}

async fn allow(g: &Ground, rules: &[&str]) {
    let () = g.redis.command(&[&["ACL", "SETUSER", "app"], rules].concat()).await;
}

/// All keys with their content.
async fn snapshot(g: &Ground) -> Vec<Vec<u8>> {
    let text = "local all = {} for _, key in ipairs(redis.call('KEYS', '*')) do all[#all + 1] = key end \
                table.sort(all) for i = 1, #all do all[#all + 1] = redis.call('DUMP', all[i]) end return all";
    g.redis.command(&["EVAL", text, "0"]).await
}

/// Jobs in every state, so that each verb has something to do.
struct Scene {
    queued: JobId,
    running: Vec<Held>,
    failed: JobId,
    ended: JobId,
    batch: JobId,
    open: JobId,
    ended_batch: JobId,
}

/// A scene in which all leases have expired, and for a prune all retention.
async fn fresh_scene(g: &Ground, verb: &str) -> Scene {
    let keys: Vec<String> = g.redis.command(&["KEYS", "lh:{*"]).await;
    let keys: Vec<&str> = ["DEL", "lh:{0}:none"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let () = g.redis.command(&keys).await;
    let scene = scene(g).await;
    let days = if verb.ends_with("expired") { 31 } else { 0 };
    g.elapse(LEASE as i64 + 1_000 + days * 86_400_000).await;
    scene
}

async fn scene(g: &Ground) -> Scene {
    let mut running = Vec::new();
    g.renew("w1", &[]).await;
    for _ in 0..4 {
        g.submit(NewJob { limited: true, ..job() }).await;
        running.extend(g.claim_kinds("w1", 1, &[("work", 9)]).await.into_iter().map(|job| job.held));
    }
    let failed = g.submit(job()).await;
    let held = g.claim_one("w1").await.held;
    g.settle("w1", fail(&held, None)).await;
    let ended = g.submit(job()).await;
    let held = g.claim_one("w1").await.held;
    g.settle("w1", complete(&held)).await;
    let ended_batch = g.submit(batch(2)).await;
    g.store.cancel(std::slice::from_ref(&ended_batch)).await.unwrap()[0].clone().unwrap();
    g.submit(NewJob { due: Due::At(Timestamp(g.now() + 5)), ..job() }).await;
    let lost = g.submit(batch(1)).await;
    let () = g
        .redis
        .command(&[
            "HDEL",
            &format!("lh:{{0}}:job:{}", g.store.item_id(&lost, g.store.partition_of(&lost), 0)),
            "payload",
        ])
        .await;
    assert_eq!(g.claim("w1", 9).await.len(), 0, "it is set aside");
    g.store.pause(&queue("paused"), true).await.unwrap();
    let queued = g.submit(NewJob { priority: leasehold::job::Priority::High, ..job() }).await;
    let () = g.redis.command(&["HSET", &format!("lh:{{0}}:job:{queued}"), "crashes", "1"]).await;
    g.submit(NewJob { kind: kind("other"), ..job() }).await;
    let opened = leasehold::job::NewBatch { open: true, ..Default::default() };
    let open = g.submit(NewJob { batch: Some(opened), ..job() }).await;
    let batch = g.submit(batch(2)).await;
    Scene { queued, running, failed, ended, batch, open, ended_batch }
}

/// Calls a verb; the result, and its name.
async fn call(store: &Store, scene: &Scene, verb: &str) -> Result<(), Error> {
    let (w1, one): (WorkerId, fn(&JobId) -> &[JobId]) = (worker("w1"), std::slice::from_ref);
    let request = SweepRequest { lease_ms: LEASE, max_crashes: 3, interval_ms: 0 };
    match verb {
        "submit" => store.submit(keyed("key", "digest")).await.map(drop),
        "submit a batch" => store.submit(batch(2)).await.map(drop),
        "items" => store.add_items(&scene.open, 0, &[json("1")], true).await.map(drop),
        "report" => {
            let report = Report {
                held: scene.running[0].clone(),
                progress: Some(leasehold::job::Progress { percent: Some(1.0), message: Some("half".into()) }),
                checkpoint: Some(json("1")),
                warning: Some("a line".into()),
            };
            store.report(&w1, &[report]).await.map(drop)
        }
        "complete" => store.settle(&w1, complete(&scene.running[0])).await.map(drop),
        "fail" => store.settle(&w1, fail(&scene.running[1], Some(5))).await.map(drop),
        "release" => store.settle(&w1, release(&scene.running[2])).await.map(drop),
        "claim" => {
            let (worker, queues, kinds) = (worker("w2"), [(queue("default"), 3)], [(kind("work"), 9)]);
            let request = ClaimRequest { suspects: 0, queues: &queues, kinds: &kinds, ..claim_of(&worker, 3) };
            store.claim(0, &request).await.map(drop)
        }
        "cancel" => store.cancel(one(&scene.queued)).await.map(drop),
        "cancel a running job" => store.cancel(one(&scene.running[3].id)).await.map(drop),
        "cancel a batch" => store.cancel(one(&scene.batch)).await.map(drop),
        "retry" => store.retry(one(&scene.failed)).await.map(drop),
        "retry a batch" => store.retry(one(&scene.ended_batch)).await.map(drop),
        "remove a queue" => store.remove_queue(&queue("paused")).await,
        "remove" => store.remove(one(&scene.ended)).await.map(drop),
        "prune" => store.prune(&PruneQuery::default()).await.map(drop),
        "leave" => store.leave(&worker("w2")).await,
        "recover" => store.recover(0, &w1, one(&scene.queued)).await.map(drop),
        "promote" => store.promote(0).await.map(drop),
        "reclaim" => store.reclaim(0, &request).await.map(drop),
        "sweep" => store.sweep(0, &request).await.map(drop),
        "sweep the long part" => store.sweep_part(0, &request, SweepPart::Long).await.map(drop),
        "prune what has expired" => store.prune_expired(0).await.map(drop),
        _ => unreachable!(),
    }
}

const VERBS: [&str; 23] = [
    "submit",
    "submit a batch",
    "items",
    "report",
    "complete",
    "fail",
    "release",
    "claim",
    "cancel",
    "cancel a running job",
    "cancel a batch",
    "retry",
    "retry a batch",
    "remove",
    "remove a queue",
    "leave",
    "recover",
    "promote",
    "reclaim",
    "sweep",
    "sweep the long part",
    "prune",
    "prune what has expired",
];

#[tokio::test]
async fn a_command_that_is_denied_leaves_nothing_half_written() {
    let redis = leasehold_tests::RedisServer::start_with(&[("appendfsync", "no")], &[]).await;
    let g = Ground::on(redis, 1).await;
    allow(&g, &RULES).await;
    let store = g.store_at(address(&g)).await.unwrap();
    let (mut refused, mut done, mut ready) = (0, 0, None);
    for verb in VERBS {
        // A sweep has several steps, and these verbs several calls.
        let is_one_call =
            !verb.starts_with("sweep") && verb != "prune" && verb != "remove a queue" && !verb.ends_with("batch");
        for command in commands() {
            let scene = match ready.take() {
                Some(scene) => scene,
                None => fresh_scene(&g, verb).await,
            };
            let before = snapshot(&g).await;
            allow(&g, &[&format!("-{}", command.to_lowercase())]).await;
            let result = call(&store, &scene, verb).await;
            allow(&g, &["+@all"]).await;
            match result {
                Ok(()) => done += 1,
                Err(Error::Config(reason)) => {
                    refused += 1;
                    assert!(reason.contains("~lh:* &lh:* +@all"), "{reason}");
                    if is_one_call {
                        assert!(snapshot(&g).await == before, "{verb} without {command} has changed something");
                        ready = Some(scene);
                        continue;
                    }
                }
                Err(other) => panic!("{verb} without {command}: {other}"),
            }
            g.sweep().await;
            for finding in g.store.check().await.unwrap() {
                let aside = finding.problem.contains("has been set aside");
                let gone = finding.problem.contains("gone") || finding.problem.contains("there is no such job");
                assert!(aside || gone, "{verb} without {command}: {finding:?}");
            }
        }
        ready = None;
    }
    assert!(refused > 300 && done > 100, "{refused} refused, {done} done");
}

#[tokio::test]
async fn a_user_without_channels_or_commands_is_refused_at_the_start() {
    let g = Ground::new(1).await;
    let denials =
        [("resetchannels", "PUBLISH"), ("-brpoplpush", "BRPOPLPUSH"), ("-hset", "HSET"), ("-subscribe", "SUBSCRIBE")];
    for (denied, named) in denials {
        allow(&g, &RULES).await;
        g.store_at(address(&g)).await.map(drop).expect("all is allowed");
        allow(&g, &[denied]).await;
        match g.store_at(address(&g)).await.map(drop) {
            Err(Error::Config(reason)) => assert!(reason.contains(named) && reason.contains("&lh:*"), "{reason}"),
            other => panic!("{denied}: {other:?}"),
        }
    }
    g.end().await;
}

#[tokio::test]
async fn a_message_that_is_denied_is_only_a_hint() {
    let g = Ground::new(1).await;
    allow(&g, &RULES).await;
    let store = g.store_at(address(&g)).await.unwrap();
    allow(&g, &["resetchannels"]).await;
    let id = store.submit(job()).await.unwrap().id;
    let held = g.claim_one("w1").await.held;
    store.cancel(std::slice::from_ref(&id)).await.unwrap()[0].clone().unwrap();
    store.settle(&worker("w1"), complete(&held)).await.unwrap();
    g.end().await;
}

#[tokio::test]
async fn a_step_that_fails_does_not_stop_the_rest_of_a_sweep() {
    let g = Ground::new(1).await;
    allow(&g, &RULES).await;
    let store = g.store_at(address(&g)).await.unwrap();
    let kinds = leasehold::Kinds::parse("[kinds.work]\nretention = { completed_ms = 60000 }", "/".into()).unwrap();
    g.store.register_kinds(&kinds).await.unwrap();
    let ended = g.submit(job()).await;
    let held = g.claim_one("w1").await.held;
    g.settle("w1", complete(&held)).await;
    g.pass(30_000).await;
    let lost = g.submit(job()).await;
    g.claim_one("w1").await;
    g.pass(LEASE as i64 - 1_000).await;
    g.advance(2_000);
    allow(&g, &["-hincrby"]).await;
    let request = SweepRequest { lease_ms: LEASE, max_crashes: 3, interval_ms: 0 };
    let failed = store.sweep(0, &request).await;
    assert!(matches!(failed, Err(Error::Config(_))), "a reclaim needs HINCRBY: {failed:?}");
    assert_eq!(g.state(&lost).await, leasehold::State::Running);
    assert!(g.store.get(&ended).await.unwrap().is_none(), "the prune was run nevertheless");
    g.end().await;
}
