//! Tokens of leases: none is issued twice, whatever Redis has lost.
use std::collections::HashSet;
use std::path::Path;

use leasehold::limits;
use leasehold_tests::RedisServer;

use crate::clocked_store::*;
use crate::steered_command::*;

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Redis with `appendfsync everysec` is killed and started with its files of a moment ago, under two workers whose
/// handlers log their tokens.
#[tokio::test]
async fn a_redis_that_continues_from_an_earlier_copy_issues_no_token_twice() {
    let redis = RedisServer::start_with(&[("appendfsync", "everysec")], &[]).await;
    let work = Work::with_redis(redis, &[]).await;
    let api = work.system.api(&[]).await;
    let ids = [submit(&api, "step").await, submit(&api, "step").await, submit(&api, "step").await];
    let folder = work.system.redis().process().folder().to_owned();
    let (live, copy) = (folder.join("appendonlydir"), folder.join("copy"));
    // Redis has written every acknowledged command, and only syncs once a second.
    copy_folder(&live, &copy);
    let _workers = [work.system.worker(&[]), work.system.worker(&[])];
    for round in 1..=3 {
        for id in &ids {
            work.begun(id, round).await;
        }
        if round < 3 {
            work.system.redis().kill9();
            std::fs::remove_dir_all(&live).unwrap();
            copy_folder(&copy, &live);
            work.system.redis().restart().await;
        }
    }
    work.open_gate();
    for id in &ids {
        let job = work.completed(id).await;
        let newest = work.journal().iter().filter(|(_, job, _)| job == id.as_str()).map(|(_, _, t)| *t).max();
        assert_eq!(job.result.unwrap().as_str(), newest.unwrap().to_string(), "the last claim has settled it");
    }
    let begun: Vec<_> = work.journal().into_iter().filter(|(word, ..)| word == "begin").collect();
    let tokens: HashSet<u64> = begun.iter().map(|(_, _, token)| *token).collect();
    assert!(begun.len() >= 9 && tokens.len() == begun.len(), "each handler has another token: {begun:?}");
    work.system.finish().await;
}

on_ground! {
    async fn a_token_is_the_time_in_microseconds_or_one_more_than_the_last(g: &Ground) {
        let now = g.now() as u64 * 1_000;
        let id = g.submit(job()).await;
        let held = g.claim_one("w1").await.held;
        assert_eq!(held.token, now);
        g.settle("w1", release(&held)).await;
        assert_eq!(g.claim_one("w2").await.held.token, now + 1, "in the same microsecond");
        g.advance(1_000);
        g.settle("w2", release(&leasehold::store::Held { partition: held.partition, id, token: now + 1 })).await;
        assert_eq!(g.claim_one("w1").await.held.token, now + 1_000_000);
    }

    async fn a_counter_that_is_ahead_of_the_clock_continues(g: &Ground) {
        let ahead = g.now() as u64 * 1_000 + 3_600_000_000;
        let id = g.submit(job()).await;
        let key = format!("lh:{{{}}}:tokens", g.store.partition_of(&id));
        g.redis.command::<()>(&["SET", &key, &ahead.to_string()]).await;
        assert_eq!(g.claim_one("w1").await.held.token, ahead + 1, "a replica whose clock is behind");
    }

    async fn a_counter_that_no_clock_can_have_reached_is_set_aside(g: &Ground) {
        let id = g.submit(job()).await;
        let key = format!("lh:{{{}}}:tokens", g.store.partition_of(&id));
        for damaged in [(limits::TOKEN_MAX + 1).to_string(), u64::MAX.to_string(), "-1".into(), "1e9".into()] {
            g.redis.command::<()>(&["SET", &key, &damaged]).await;
            let held = g.claim_one("w1").await.held;
            assert!(held.token <= limits::TOKEN_MAX, "{held:?} after {damaged}");
            g.settle("w1", release(&held)).await;
            for finding in g.store.check().await.unwrap() {
                assert_eq!(finding.subject, key);
                g.store.repair(&finding).await.unwrap();
            }
        }
    }

    async fn a_worker_is_given_no_token_below_those_it_has_seen(g: &Ground) {
        let (first, second) = (g.submit(job()).await, g.submit(job()).await);
        let partition = g.store.partition_of(&first);
        let key = format!("lh:{{{partition}}}:tokens");
        let claimed = g.claim("w1", 2).await;
        let highest = claimed.iter().filter(|j| j.partition == partition).map(|j| j.held.token).max().unwrap();
        for job in &claimed {
            g.settle("w1", release(&job.held)).await;
        }
        // A replica without the last writes, whose clock is behind. Only the worker knows its tokens.
        let lost = async || {
            for id in [&first, &second] {
                let job = format!("lh:{{{}}}:job:{id}", g.store.partition_of(id));
                g.redis.command::<()>(&["HDEL", &job, "token", "settled"]).await;
            }
            g.redis.command::<()>(&["DEL", &key]).await;
            g.advance(-500);
        };
        lost().await;
        let again = g.claim("w1", 2).await;
        assert!(again.iter().filter(|j| j.partition == partition).all(|j| j.held.token > highest), "{again:?}");
        for job in &again {
            g.settle("w1", release(&job.held)).await;
        }
        lost().await;
        g.renew("w1", &[]).await;
        let other = g.claim("w2", 2).await;
        let here = other.iter().filter(|j| j.partition == partition);
        assert!(here.clone().count() > 0 && here.clone().all(|j| j.held.token > highest + 1), "a renewal raises it");
    }
}
