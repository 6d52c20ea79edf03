//! Goal 7: what a worker without work costs.
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::Bench;
use super::meter::fault;
use super::process::cpu_s;
use super::report::{Bound, Row};
use super::site::{Fsync, Site};
use crate::failure::Failure;

/// How long a worker settles in before it is watched.
const SETTLE: Duration = Duration::from_secs(2);
/// Commands that wait on lists.
const BLOCKING: [&str; 4] = ["brpoplpush", "blmove", "brpop", "blmpop"];
/// Commands that are shown.
const SHOWN: usize = 4;
/// The largest share of a core that counts as not measurable: below what the kernel's clock resolves in some seconds.
const CPU_SHARE_MAX: f64 = 0.01;

/// What an idle worker did.
struct Idle {
    /// Calls a second.
    calls: f64,
    /// Calls a second by command, the most frequent first.
    commands: String,
    /// Lists it waited on.
    lists: f64,
    /// Its share of a core.
    cpu: f64,
    /// That of Redis.
    redis_cpu: f64,
}

/// Goal 7.
pub(super) async fn worker(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (queues, partitions) in [(1, 1), (16, 1), (1, 4)] {
        let idle = watch(bench, queues, partitions).await?;
        let most = 2.0 * idle.lists + f64::from(partitions);
        let place = format!("{queues} queue(s), {partitions} partition(s)");
        let calls = Row::new(format!("calls of an idle worker, {place}"), "/s", vec![idle.calls]);
        rows.push(calls.needs(Bound::AtMost(most)));
        rows.push(Row::new(format!("  lists it waits on; calls: {}", idle.commands), "lists", vec![idle.lists]));
        let cpu = Row::new(format!("its CPU, {place}"), "of a core", vec![idle.cpu]);
        rows.push(cpu.needs(Bound::AtMost(CPU_SHARE_MAX)));
        rows.push(Row::new(format!("CPU of Redis, {place}"), "of a core", vec![idle.redis_cpu]));
    }
    Ok(rows)
}

/// Watches the real worker, serving a kind with a command.
async fn watch(bench: &Bench, queues: usize, partitions: u16) -> Result<Idle, Failure> {
    let site = Site::start(&bench.ground, Fsync::Everysec, partitions).await?;
    let kinds = site.folder().join("kinds.toml");
    std::fs::write(&kinds, "[kinds.nothing]\ncommand = [\"true\"]\n")?;
    let names: Vec<String> = (1..=queues).map(|number| format!("queue-{number}")).collect();
    let settings = [("LEASEHOLD_KINDS", kinds.display().to_string()), ("LEASEHOLD_WORKER__QUEUES", names.join(","))];
    let mut worker = site.run("leasehold-worker", &settings)?;
    worker.await_worker(&site.store).await?;
    tokio::time::sleep(SETTLE).await;
    let (before, worker_before) = (site.meter.read().await?, cpu_s(worker.pid())?);
    let (calls, commands, lists) = monitor(&site, Duration::from_secs_f64(bench.ground.size.idle_s())).await?;
    let (after, worker_after) = (site.meter.read().await?, cpu_s(worker.pid())?);
    let seconds = (after.at - before.at).as_secs_f64();
    worker.stop().await?;
    site.close().await?;
    Ok(Idle {
        calls,
        commands,
        lists,
        cpu: (worker_after - worker_before) / seconds,
        redis_cpu: (after.cpu_us - before.cpu_us) / 1e6 / seconds,
    })
}

/// The calls a second that arrive at Redis, those inside scripts left out: all, the commonest by command, and the
/// number of lists that are waited on.
async fn monitor(site: &Site, time: Duration) -> Result<(f64, String, f64), Failure> {
    let mut monitor = site.meter.client().get_async_monitor().await.map_err(fault)?;
    let (begun, mut lists) = (Instant::now(), BTreeSet::new());
    let mut calls: BTreeMap<String, u32> = BTreeMap::new();
    let mut messages = monitor.on_message::<String>();
    while let Ok(Some(line)) = tokio::time::timeout(time.saturating_sub(begun.elapsed()), messages.next()).await {
        // 1700000000.123456 [0 127.0.0.1:40000] "command" "argument"…; inside a script: [0 lua].
        let Some((head, command)) = line.split_once("] ") else { continue };
        if head.ends_with(" lua") {
            continue;
        }
        let words: Vec<String> = command.split(' ').map(|word| word.trim_matches('"').to_lowercase()).collect();
        if BLOCKING.contains(&words[0].as_str()) {
            lists.extend(words.get(1).cloned());
        }
        *calls.entry(words[0].clone()).or_default() += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut by_count: Vec<(&String, f64)> = calls.iter().map(|(name, n)| (name, f64::from(*n) / seconds)).collect();
    by_count.sort_by(|a, b| b.1.total_cmp(&a.1));
    let shown: Vec<String> = by_count.iter().take(SHOWN).map(|(name, rate)| format!("{name} {rate:.1}/s")).collect();
    Ok((by_count.iter().map(|(_, rate)| rate).sum(), shown.join(", "), lists.len() as f64))
}
