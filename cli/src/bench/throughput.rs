//! Goals 2, 4 and 12: drains under both ways to sync and over several partitions, and the three ways to submit.
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use leasehold::Store;

use super::Bench;
use super::drain::{Drain, consistent};
use super::report::{Bound, Row};
use super::site::{Fsync, Site};
use super::work::{self, NOOP, payload};
use crate::failure::Failure;

/// Callers that submit at the same time.
const CALLERS: usize = 64;

/// Drains in turn, each on a new Redis: jobs a second, and the CPU time of Redis for each job, µs.
async fn drains(bench: &Bench, ways: [(Fsync, u16); 2]) -> Result<[(Vec<f64>, Vec<f64>); 2], Failure> {
    let mut measured: [(Vec<f64>, Vec<f64>); 2] = Default::default();
    for _ in 0..bench.ground.size.rounds() {
        for (way, measured) in ways.iter().zip(&mut measured) {
            let mut drain = Drain::prepare(&bench.ground, way.0, way.1).await?;
            let cost = drain.fill_and_run(bench.ground.size.drain()).await?;
            drain.check(0, 0).await?.close().await?;
            measured.0.push(cost.rate);
            measured.1.push(cost.redis_us);
        }
    }
    Ok(measured)
}

/// Goal 2.
pub(super) async fn always(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let [always, everysec] = drains(bench, [(Fsync::Always, 1), (Fsync::Everysec, 1)]).await?;
    let rate = Row::new("drain, appendfsync always", "jobs/s", always.0);
    Ok(vec![
        rate.against("everysec", everysec.0).needs(Bound::AtLeast(0.6)),
        Row::new("Redis CPU of a job, always", "µs", always.1).against("everysec", everysec.1),
    ])
}

/// Goal 12.
pub(super) async fn partitions(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let [four, one] = drains(bench, [(Fsync::Everysec, 4), (Fsync::Everysec, 1)]).await?;
    let rate = Row::new("drain, 4 partitions", "jobs/s", four.0);
    Ok(vec![
        rate.against("1 partition", one.0).needs(Bound::AtLeast(0.85)),
        Row::new("Redis CPU of a job, 4 partitions", "µs", four.1).against("1 partition", one.1),
    ])
}

/// How jobs are submitted.
#[derive(Clone, Copy)]
enum Way {
    Bulk,
    Concurrent,
    OneByOne,
}

/// Goal 4; what the peers do is measured elsewhere.
pub(super) async fn enqueue(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for fsync in [Fsync::Everysec, Fsync::Always] {
        let ways = [
            (Way::Bulk, "submit in bulk, 1,000 jobs a call"),
            (Way::Concurrent, "submit, 64 concurrent callers"),
            (Way::OneByOne, "submit one by one"),
        ];
        let mut measured: [(Vec<f64>, Vec<f64>); 3] = Default::default();
        for _ in 0..bench.ground.size.rounds() {
            let site = Site::start(&bench.ground, fsync, 1).await?;
            work::submit(&site.store, bench.ground.size.enqueue().1).await?;
            for ((way, _), measured) in ways.iter().zip(&mut measured) {
                let (rate, redis_us) = submits(&site, *way, bench.ground.size.enqueue()).await?;
                measured.0.push(rate);
                measured.1.push(redis_us);
            }
            consistent(&site.store).await?;
            site.close().await?;
        }
        for ((_, what), measured) in ways.iter().zip(measured) {
            rows.push(Row::new(format!("{what}, {}", fsync.as_str()), "jobs/s", measured.0));
            rows.push(Row::new("  Redis CPU of a job", "µs", measured.1));
        }
    }
    Ok(rows)
}

async fn submits(site: &Site, way: Way, (many, few): (usize, usize)) -> Result<(f64, f64), Failure> {
    let jobs = if matches!(way, Way::OneByOne) { few } else { many };
    let before = site.meter.read().await?;
    match way {
        Way::Bulk => drop(work::submit(&site.store, jobs).await?),
        Way::Concurrent => concurrent(&site.store, jobs, CALLERS).await.map(drop)?,
        Way::OneByOne => concurrent(&site.store, jobs, 1).await.map(drop)?,
    }
    let after = site.meter.read().await?;
    let seconds = (after.at - before.at).as_secs_f64();
    Ok((jobs as f64 / seconds, (after.cpu_us - before.cpu_us) / jobs as f64))
}

/// Submits jobs one a call, `callers` at the same time; how long each call took, µs.
pub(super) async fn concurrent(store: &Store, jobs: usize, callers: usize) -> Result<Vec<f64>, Failure> {
    let job = work::job(NOOP, &payload());
    let calls = (0..jobs).map(|_| {
        let job = job.clone();
        async move {
            let begun = Instant::now();
            store.submit(job).await?;
            Ok::<_, Failure>(begun.elapsed().as_secs_f64() * 1e6)
        }
    });
    stream::iter(calls).buffer_unordered(callers).try_collect().await
}
