//! What an idle system with many partitions costs Redis, and that it misses no job for it.
use std::time::Duration;

use leasehold::store::SweepRequest;
use leasehold::{JobId, Store};
use leasehold_tests::RedisServer;

use crate::clocked_store::{Ground, LEASE, job, kind};
use crate::steered_command::*;

const PARTITIONS: u16 = 64;
const MEASURED: Duration = Duration::from_secs(5);

/// Calls of the commands whose names begin so, per second.
async fn calls(redis: &RedisServer, command: &str) -> f64 {
    let stats: String = redis.command(&["INFO", "commandstats"]).await;
    let of = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        name.starts_with(command).then(|| rest.split(',').next()?.parse::<f64>().ok()).flatten()
    };
    stats.lines().filter_map(of).sum::<f64>() / MEASURED.as_secs_f64()
}

#[tokio::test]
async fn idle_workers_with_64_partitions_cost_little_and_miss_no_job() {
    let partitions = PARTITIONS.to_string();
    // A lease as usual: it sets the pace of the renewals.
    let work = Work::start(&[("LEASEHOLD_PARTITIONS", &partitions), ("LEASEHOLD_LEASE_MS", "30000")]).await;
    work.open_gate();
    let _workers = [work.system.worker(&[]), work.system.worker(&[]), work.system.worker(&[])];
    work.workers(3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let redis = work.system.redis();
    redis.command::<()>(&["CONFIG", "RESETSTAT"]).await;
    tokio::time::sleep(MEASURED).await;
    // 64 sweeps, three times 64 renewals in 5 s, the looks of those that do not sweep; and no claims.
    let (scripts, all) = (calls(redis, "evalsha").await, calls(redis, "").await);
    assert!(scripts < 350.0 && all < 6_000.0, "{scripts} scripts and {all} commands a second");
    let api = work.system.api(&[]).await;
    let begun = std::time::Instant::now();
    let ids: Vec<JobId> = futures_util::future::join_all((0..100).map(|_| submit(&api, "step"))).await;
    for id in &ids {
        work.completed(id).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    work.system.finish().await;
}

async fn sweep(store: &Store, interval_ms: u64) -> (bool, usize) {
    let request = SweepRequest { lease_ms: LEASE, max_crashes: 3, interval_ms };
    let swept = store.sweep(0, &request).await.unwrap();
    (swept.fresh, swept.workers)
}

#[tokio::test]
async fn a_partition_that_another_has_just_swept_is_left_alone() {
    let g = Ground::new(1).await;
    g.renew("w1", &[]).await;
    g.renew("w2", &[]).await;
    assert_eq!(sweep(&g.store, 1_000).await, (false, 2));
    g.advance(600);
    assert_eq!(sweep(&g.store, 1_000).await, (true, 2));
    assert_eq!(sweep(&g.store, 0).await, (false, 2), "a backlog is swept in any case");
    g.advance(700);
    assert_eq!(sweep(&g.store, 1_000).await, (false, 2));
    g.advance(-5_000);
    assert_eq!(sweep(&g.store, 1_000).await, (false, 2), "the clock was set back");
    g.advance(LEASE as i64 + 10_000);
    assert_eq!(sweep(&g.store, 1_000).await, (false, 0), "neither has renewed within a lease");
    g.end().await;
}

#[tokio::test]
async fn a_sweep_reports_that_more_is_to_be_pruned_by_number() {
    let g = Ground::new(4).await;
    let kinds = leasehold::Kinds::parse("[kinds.work]\nretention = { keep = 5 }", "/".into()).unwrap();
    g.store.register_kinds(&kinds).await.unwrap();
    let past = leasehold::store::Past {
        created_at: leasehold::Timestamp(1),
        record: None,
        ending: Some(leasehold::store::Ending::Cancelled),
        ended_at: None,
        output: Vec::new(),
    };
    let jobs = (0..10_020).map(|n| leasehold::store::ImportedJob {
        id: JobId::parse(&format!("old-{n}")).unwrap(),
        job: job(),
        past: past.clone(),
        input: Vec::new(),
    });
    g.store.import(jobs.collect()).await.unwrap();
    let swept = g.sweep().await;
    assert!(swept.iter().any(|s| s.more) && swept.iter().map(|s| s.pruned).sum::<usize>() == 10_000, "{swept:?}");
    assert!(g.sweep().await.iter().all(|s| !s.more));
    let counts = g.store.counts(&kind("work"), false).await.unwrap();
    assert_eq!(counts.total, 5);
    g.end().await;
}
