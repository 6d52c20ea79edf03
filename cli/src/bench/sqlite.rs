//! Goal 10: one caller beside a job store in one SQLite file on the same disk, at equal durability: a write-ahead log
//! with `synchronous=FULL` syncs each change, as `appendfsync always` does.
use std::path::Path;
use std::time::Instant;

use leasehold::JobId;
use leasehold::store::ListQuery;
use rusqlite::{Connection, params};

use super::Bench;
use super::drain::Drain;
use super::figure::percentile;
use super::report::{Bound, Row};
use super::site::Fsync;
use super::throughput::concurrent;
use super::work::{self, NOOP, payload};
use crate::failure::Failure;

/// Callers whose throughput is shown.
const CALLERS: usize = 64;
/// Jobs of a listing.
const LISTED: usize = 100;
/// Listings of a round.
const LISTS: usize = 50;
/// The table of such a store, and the index that its listing needs.
const SCHEMA: &str = "
    CREATE TABLE jobs (
        job_id TEXT PRIMARY KEY, status TEXT NOT NULL, progress REAL NOT NULL, filename TEXT, result TEXT, error TEXT,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL
    );
    CREATE INDEX jobs_created_at ON jobs (created_at);";
const INSERT: &str = "INSERT INTO jobs VALUES (?1, 'pending', 0.0, ?2, NULL, NULL, ?3, ?3)";
const SELECT: &str = "SELECT job_id, status, progress, filename, result, error, created_at, updated_at FROM jobs";

/// Times of the operations of a round, medians, µs.
#[derive(Default)]
struct Times {
    create: Vec<f64>,
    delete: Vec<f64>,
    read: Vec<f64>,
    list: Vec<f64>,
}

/// The median time of `count` calls, µs.
async fn timed(count: usize, mut call: impl AsyncFnMut(usize) -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let begun = Instant::now();
        call(number).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(percentile(&times, 50.0))
}

/// Goal 10.
pub(super) async fn one_caller(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let count = bench.ground.size.callers();
    let (mut ours, mut theirs, mut rates) = (Times::default(), Times::default(), Vec::new());
    let mut drain = Drain::prepare(&bench.ground, Fsync::Always, 1).await?;
    for round in 0..bench.ground.size.rounds() {
        of_leasehold(&mut drain, count, &mut ours).await?;
        let path = drain.site.folder().join(format!("jobs-{round}.db"));
        of_sqlite(&path, count, &mut theirs).await?;
        let begun = Instant::now();
        concurrent(&drain.site.store, count * 4, CALLERS).await?;
        rates.push((count * 4) as f64 / begun.elapsed().as_secs_f64());
        drain.submitted += (count * 4) as u64;
        drain.run((count * 4) as u64).await?;
    }
    let removed = (count * bench.ground.size.rounds()) as u64;
    drain.check(0, removed).await?.close().await?;
    let sqlite = "SQLite, synchronous=FULL";
    // More than 1 is ahead: a rate, from the median time of a call.
    let rate = |what: &str, ours: &[f64], theirs: &[f64]| {
        let of = |times: &[f64]| times.iter().map(|us| 1e6 / us).collect();
        Row::new(what, "/s", of(ours)).against(sqlite, of(theirs))
    };
    Ok(vec![
        rate("create, one caller, always", &ours.create, &theirs.create).needs(Bound::AtLeast(1.0)),
        rate("delete, one caller, always", &ours.delete, &theirs.delete).needs(Bound::AtLeast(1.0)),
        Row::new("read one job", "µs", ours.read).against("SQLite in this process", theirs.read),
        Row::new(format!("list {LISTED} jobs"), "µs", ours.list).against("SQLite in this process", theirs.list),
        Row::new(format!("create, {CALLERS} callers, always"), "/s", rates),
    ])
}

async fn of_leasehold(drain: &mut Drain, count: usize, times: &mut Times) -> Result<(), Failure> {
    let (store, job) = (drain.site.store.clone(), work::job(NOOP, &payload()));
    let mut ids: Vec<JobId> = Vec::new();
    times.create.push(
        timed(count, async |_| {
            ids.push(store.submit(job.clone()).await?.id);
            Ok(())
        })
        .await?,
    );
    times.read.push(timed(count, async |number| Ok(store.get(&ids[number]).await.map(drop)?)).await?);
    let query = ListQuery { limit: LISTED, ..ListQuery::default() };
    times.list.push(timed(LISTS, async |_| Ok(store.list(&query).await.map(drop)?)).await?);
    drain.submitted += count as u64;
    // Only a job that has ended can be removed.
    drain.run(count as u64).await?;
    let removed = timed(count, async |number| {
        let answers = store.remove(std::slice::from_ref(&ids[number])).await?;
        answers.into_iter().try_for_each(|answer| answer.map(drop)).map_err(leasehold::Error::Refused)?;
        Ok(())
    });
    times.delete.push(removed.await?);
    Ok(())
}

async fn of_sqlite(path: &Path, count: usize, times: &mut Times) -> Result<(), Failure> {
    let fault = |e: rusqlite::Error| Failure::Failed(format!("SQLite: {e}"));
    let connection = Connection::open(path).map_err(fault)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(fault)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(fault)?;
    connection.execute_batch(SCHEMA).map_err(fault)?;
    let ids: Vec<String> = (0..count).map(|_| uuid::Uuid::now_v7().to_string()).collect();
    let (text, now) = (payload(), "2026-01-01T00:00:00");
    let read = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let mut insert = connection.prepare(INSERT).map_err(fault)?;
    times.create.push(
        timed(count, async |number| insert.execute(params![ids[number], text, now]).map(drop).map_err(fault)).await?,
    );
    let mut select = connection.prepare(&format!("{SELECT} WHERE job_id = ?1")).map_err(fault)?;
    times
        .read
        .push(timed(count, async |number| select.query_row([&ids[number]], read).map(drop).map_err(fault)).await?);
    let mut list = connection.prepare(&format!("{SELECT} ORDER BY created_at DESC LIMIT ?1")).map_err(fault)?;
    times.list.push(
        timed(LISTS, async |_| {
            let rows = list.query_map([LISTED as i64], read).map_err(fault)?;
            rows.collect::<Result<Vec<_>, _>>().map(drop).map_err(fault)
        })
        .await?,
    );
    let mut delete = connection.prepare("DELETE FROM jobs WHERE job_id = ?1").map_err(fault)?;
    times.delete.push(timed(count, async |number| delete.execute([&ids[number]]).map(drop).map_err(fault)).await?);
    Ok(())
}
