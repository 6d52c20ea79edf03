//! Goals 3 and 6: a job's whole life in batches, its CPU time in Redis beside that of the floor, and its memory.
use super::Bench;
use super::drain::Drain;
use super::figure::Figure;
use super::floor::{self, Floor};
use super::report::{Bound, Compared, Row};
use super::site::{Fsync, Site};
use super::work::PAYLOAD_BYTES;
use crate::failure::Failure;

/// Runs of whole lives.
#[derive(Default)]
pub(super) struct Lives {
    ours: Vec<Life>,
    floor: Vec<Floor>,
}

/// The cost of one job's whole life.
struct Life {
    /// CPU time of Redis for its submit, µs.
    enqueue_us: f64,
    /// The same for claim and settle.
    drain_us: f64,
    /// Commands of a whole life, those inside scripts included.
    commands: f64,
    /// Jobs a second, drained.
    rate: f64,
    /// Bytes while it is queued.
    queued_bytes: f64,
    /// Bytes once it has finished.
    kept_bytes: f64,
}

impl Lives {
    /// Measures lives of ours and of the floor in turn.
    pub(super) async fn measure(bench: &Bench) -> Result<Self, Failure> {
        let mut lives = Self::default();
        for _ in 0..bench.ground.size.rounds() {
            lives.ours.push(life(bench).await?);
            let site = Site::start(&bench.ground, Fsync::Everysec, 1).await?;
            lives.floor.push(floor::measure(&site, bench.ground.size.life()).await?);
            site.close().await?;
        }
        Ok(lives)
    }

    fn ours(&self, of: impl Fn(&Life) -> f64) -> Vec<f64> {
        self.ours.iter().map(of).collect()
    }

    fn floor(&self, of: impl Fn(&Floor) -> f64) -> Vec<f64> {
        self.floor.iter().map(of).collect()
    }
}

async fn life(bench: &Bench) -> Result<Life, Failure> {
    let jobs = bench.ground.size.life();
    let mut drain = Drain::prepare(&bench.ground, Fsync::Everysec, 1).await?;
    let before = drain.site.meter.read().await?.memory;
    let enqueue = drain.fill(jobs).await?;
    let queued = drain.site.meter.read().await?.memory;
    let drained = drain.run(jobs as u64).await?;
    let kept = drain.site.meter.read().await?.memory;
    drain.check(0, 0).await?.close().await?;
    Ok(Life {
        enqueue_us: enqueue.redis_us,
        drain_us: drained.redis_us,
        commands: enqueue.commands + drained.commands,
        rate: drained.rate,
        queued_bytes: (queued - before) / jobs as f64,
        kept_bytes: (kept - before) / jobs as f64,
    })
}

/// Goal 3.
pub(super) async fn redis_cpu(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let lives = bench.lives().await?;
    let floor = "floor, 100 jobs a call";
    let whole = Row::new("whole life of a job, Redis CPU", "µs", lives.ours(|life| life.enqueue_us + life.drain_us));
    Ok(vec![
        whole.against(floor, lives.floor(|life| life.enqueue_us + life.drain_us)).needs(Bound::AtMost(1.1)),
        Row::new("submit in bulk, Redis CPU", "µs", lives.ours(|life| life.enqueue_us))
            .against(floor, lives.floor(|life| life.enqueue_us)),
        Row::new("claim and settle, Redis CPU", "µs", lives.ours(|life| life.drain_us))
            .against(floor, lives.floor(|life| life.drain_us)),
        Row::new("Redis commands of a whole life", "", lives.ours(|life| life.commands)),
        Row::new("drain, one worker of 300 slots", "jobs/s", lives.ours(|life| life.rate)),
    ])
}

/// Goal 6.
pub(super) async fn memory(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let lives = bench.lives().await?;
    let row = |what: &str, ours: Vec<f64>, floor: Vec<f64>, most: f64| {
        let row = Row::new(format!("{what}, payload of {PAYLOAD_BYTES} bytes"), "bytes", ours);
        // The goal is the value, and the floor is shown beside it.
        let row = row.needs(Bound::AtMost(most));
        Row { compared_with: Some(Compared::new("floor", Figure::new(floor))), ..row }
    };
    Ok(vec![
        row("a queued job", lives.ours(|life| life.queued_bytes), lives.floor(|life| life.queued_bytes), 650.0),
        row("a finished job, kept", lives.ours(|life| life.kept_bytes), lives.floor(|life| life.kept_bytes), 870.0),
    ])
}
