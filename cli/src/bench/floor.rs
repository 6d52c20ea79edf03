//! The floor: what a guarded life of a job costs Redis when every guard is asked for a whole batch at once. Three
//! scripts, and a client that does nothing else.
//!
//! Same guards as Leasehold's: token and holder, existence, state, cancellation, known ids, a claim that is safe to
//! repeat. Kept are the record, its result, an index by kind and creation, and one by kind, state and end. Left out is
//! everything that a product needs beyond that, so it is a yardstick and not a design.
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

use super::meter::fault;
use super::site::Site;
use super::work;
use crate::failure::Failure;

/// The script of a submit.
pub(super) const ENQUEUE: &str = include_str!("floor/enqueue.lua");
const CLAIM: &str = include_str!("floor/claim.lua");
const SETTLE: &str = include_str!("floor/settle.lua");

/// Jobs of a call.
const BATCH: usize = 100;
/// The name of the worker.
const WORKER: &str = "host-4f2a91";
/// The result of each job.
const RESULT: &str = "{\"ok\":true}";

/// What the floor cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    /// CPU time of Redis for each job, µs, of the submit.
    pub enqueue_us: f64,
    /// The same of claim and settle.
    pub drain_us: f64,
    /// Bytes of a queued job.
    pub queued_bytes: f64,
    /// Bytes of a finished job.
    pub kept_bytes: f64,
}

/// A job that was claimed.
struct Claimed {
    id: String,
    token: String,
}

/// The key of a job.
pub(super) fn job_key(id: &str) -> String {
    format!("fl:{{0}}:job:{id}")
}

/// Loads a script; returns its digest.
pub(super) async fn load(connection: &mut MultiplexedConnection, script: &str) -> RedisResult<String> {
    redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(connection).await
}

/// Runs the lives of `jobs` jobs on an empty Redis.
pub(super) async fn measure(site: &Site, jobs: usize) -> Result<Floor, Failure> {
    let mut connection = site.meter.connection();
    let before = site.meter.read().await?;
    enqueue(&mut connection, jobs).await.map_err(fault)?;
    let queued = site.meter.read().await?;
    let settled = drain(&mut connection).await.map_err(fault)?;
    let after = site.meter.read().await?;
    if settled != jobs {
        return Err(Failure::Failed(format!("the floor settled {settled} of {jobs} jobs")));
    }
    let each = |difference: f64| difference / jobs as f64;
    Ok(Floor {
        enqueue_us: each(queued.cpu_us - before.cpu_us),
        drain_us: each(after.cpu_us - queued.cpu_us),
        queued_bytes: each(queued.memory - before.memory),
        kept_bytes: each(after.memory - before.memory),
    })
}

async fn enqueue(connection: &mut MultiplexedConnection, jobs: usize) -> RedisResult<()> {
    let (script, payload) = (load(connection, ENQUEUE).await?, work::payload());
    for first in (0..jobs).step_by(BATCH) {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&script).arg(0);
        for _ in 0..BATCH.min(jobs - first) {
            command.arg(uuid::Uuid::now_v7().to_string()).arg(&payload);
        }
        let _: u64 = command.query_async(connection).await?;
    }
    Ok(())
}

/// Claims and settles until the queue is empty. The settles of a batch and the claim of the next one travel together.
async fn drain(connection: &mut MultiplexedConnection) -> RedisResult<usize> {
    let (claim, settle) = (load(connection, CLAIM).await?, load(connection, SETTLE).await?);
    let (mut held, mut settled, mut request) = (Vec::new(), 0, 0_u64);
    loop {
        request += 1;
        let mut pipeline = redis::pipe();
        if !held.is_empty() {
            pipeline.cmd("EVALSHA").arg(&settle).arg(0).arg(WORKER);
            for Claimed { id, token } in &held {
                pipeline.arg(id).arg(token).arg(RESULT);
            }
        }
        pipeline.cmd("EVALSHA").arg(&claim).arg(0).arg(BATCH).arg(WORKER).arg(request);
        let mut replies: Vec<Value> = pipeline.query_async(connection).await?;
        let claimed = claimed(&replies.pop().unwrap_or(Value::Nil))?;
        if let Some(reply) = replies.pop() {
            let words: Vec<String> = Vec::from_redis_value(reply)?;
            settled += words.iter().filter(|word| *word == "completed").count();
        }
        held = claimed;
        if held.is_empty() {
            return Ok(settled);
        }
    }
}

/// The jobs of a claim's reply; none when the queue is empty.
fn claimed(reply: &Value) -> Result<Vec<Claimed>, RedisError> {
    let Value::Array(entries) = reply else { return Ok(Vec::new()) };
    let jobs = entries.iter().filter_map(|entry| match entry {
        Value::Array(fields) => fields.get(..2),
        _ => None,
    });
    let text = |value: &Value| String::from_redis_value_ref(value);
    jobs.map(|fields| Ok(Claimed { id: text(&fields[0])?, token: text(&fields[1])? })).collect()
}
