//! Goal 8: the same work with a Redis that is nearly empty and with one that holds many jobs.
use std::time::Instant;

use leasehold::store::{Ending, ImportedJob, ListQuery, Past};
use leasehold::{JobId, Json, Kind, State, Timestamp};

use super::Bench;
use super::drain::{Drain, completed};
use super::figure::percentile;
use super::report::{Bound, Row};
use super::site::{Fsync, Site};
use super::work::{self, NOOP, payload};
use crate::failure::Failure;
use crate::print;

/// Jobs of one call of the fill.
const BULK: usize = 1_000;
/// Jobs that a drain with few jobs begins with, and that are drained in each round of both.
const FEW: usize = 10_000;
/// Memory to have free for each job that is kept, bytes, so that the machine does not swap.
const JOB_BYTES: f64 = 1_400.0;
/// Reads of a round.
const READS: usize = 20;
/// The longest that a listing, a depth and the metrics may take, ms.
const READ_MS_MAX: f64 = 5.0;

/// Goal 8.
pub(super) async fn full(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let (queued, finished) = bench.ground.size.backlog();
    enough_memory((queued + finished) as f64 * JOB_BYTES)?;
    let few = FEW.min(bench.ground.size.drain());
    let site = Site::start(&bench.ground, Fsync::Everysec, 1).await?;
    fill_finished(&site, finished).await?;
    let mut full = Drain::on(site, &bench.ground).await?;
    full.fill(queued).await?;
    let (mut of_full, mut of_few) = (Vec::new(), Vec::new());
    for _ in 0..bench.ground.size.rounds() {
        let mut empty = Drain::prepare(&bench.ground, Fsync::Everysec, 1).await?;
        of_few.push(empty.fill_and_run(few).await?.rate);
        empty.check(0, 0).await?.close().await?;
        let done = completed(&full.site.store).await?;
        of_full.push(full.run(few as u64).await?.rate);
        // What was drained is queued again, so that every round finds as many.
        full.fill(usize::try_from(completed(&full.site.store).await? - done).unwrap_or(0)).await?;
    }
    let mut rows = vec![
        Row::new(format!("drain beside {queued} queued and {finished} finished jobs"), "jobs/s", of_full)
            .against(format!("beside {few} jobs"), of_few)
            .needs(Bound::AtLeast(0.9)),
    ];
    rows.extend(reads(bench, &full).await?);
    full.check(finished as u64, 0).await?.close().await?;
    Ok(rows)
}

/// Fails when the machine has less memory available.
fn enough_memory(bytes: f64) -> Result<(), Failure> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let available = kib.and_then(|kib| kib.parse::<f64>().ok()).map(|kib| kib * 1_024.0);
    match available {
        Some(available) if available < bytes => Err(Failure::Failed(format!(
            "it needs {:.1} GB of memory, and {:.1} GB are available; with --quick a twentieth of that is enough",
            bytes / 1e9,
            available / 1e9
        ))),
        _ => Ok(()),
    }
}

/// Fills a Redis with completed jobs, as an import does.
async fn fill_finished(site: &Site, count: usize) -> Result<(), Failure> {
    let ended = |number: usize| Timestamp(print::now().0 - 1_000 + i64::try_from(number % 1_000).unwrap_or(0));
    for first in (0..count).step_by(BULK) {
        let of_number = |number: usize| {
            let id = JobId::parse(&uuid::Uuid::now_v7().to_string()).expect("a UUID is an id");
            let result = Json::parse("{\"ok\":true}", 2, 64).expect("it is JSON");
            let past = Past {
                created_at: Timestamp(ended(number).0 - 1_000),
                record: None,
                ending: Some(Ending::Completed { result, skipped: None }),
                ended_at: Some(ended(number)),
                output: Vec::new(),
            };
            ImportedJob { id, job: work::job(NOOP, &payload()), past, input: Vec::new() }
        };
        let jobs = (first..count.min(first + BULK)).map(of_number).collect();
        for new in site.store.import(jobs).await? {
            new.map_err(leasehold::Error::Refused)?;
        }
    }
    Ok(())
}

/// How long reads take that people and monitors repeat, ms.
async fn reads(bench: &Bench, full: &Drain) -> Result<Vec<Row>, Failure> {
    let store = &full.site.store;
    let kind = Kind::parse(NOOP).expect("a valid name");
    let by_state = ListQuery { state: Some(State::Completed), limit: 50, ..ListQuery::default() };
    let by_kind = ListQuery { kind: Some(kind.clone()), limit: 50, ..ListQuery::default() };
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..bench.ground.size.rounds() {
        let mut round: [Vec<f64>; 4] = Default::default();
        for _ in 0..READS {
            let begun = Instant::now();
            store.list(&by_state).await?;
            let listed = Instant::now();
            store.list(&by_kind).await?;
            let listed_by_kind = Instant::now();
            store.queues(None).await?;
            let counted = Instant::now();
            // What the API's /metrics reads.
            store.queues(None).await?;
            store.workers().await?;
            store.totals().await?;
            let ends = [listed, listed_by_kind, counted, Instant::now()];
            for (at, begun) in [begun, listed, listed_by_kind, counted].into_iter().enumerate() {
                round[at].push((ends[at] - begun).as_secs_f64() * 1e3);
            }
        }
        for (round, times) in round.iter().zip(&mut times) {
            times.push(percentile(round, 50.0));
        }
    }
    let names = ["list 50 completed jobs", "list 50 jobs of a kind", "depth of the queues", "what /metrics reads"];
    let row = |(what, times): (&str, Vec<f64>)| Row::new(what, "ms", times).needs(Bound::AtMost(READ_MS_MAX));
    Ok(names.into_iter().zip(times).map(row).collect())
}
