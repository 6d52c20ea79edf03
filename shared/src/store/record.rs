//! A job's record: reading its hash as a [`Job`].
use std::collections::HashMap;

use redis::Value;

use super::wire::reply::{array, number, text};
use super::wire::{Args, Home, Repeat, keys, scripts};
use super::{Store, by_partition};
use crate::files::FileEntry;
use crate::job::{ErrorCode, Items, JobError, Priority, Progress};
use crate::{Error, Job, JobId, Json, Kind, QueueName, Result, ScheduleName, State, Timestamp, WorkerId};

/// Jobs that one call reads: their payloads and results may be large.
pub(super) const READ_MAX: usize = 50;

impl Store {
    /// One job, as it is now; read together with whatever else is being read.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its record is unreadable, or was and has been set aside; those of any call.
    pub async fn get(&self, id: &JobId) -> Result<Option<Job>> {
        let partition = self.places(std::slice::from_ref(id)).await?[0];
        let entry = Args::default().text(id.as_str());
        let reply = self.inner.reads.of(partition).call(Args::default(), entry, 0).await?;
        let corrupt = |reason| Error::Corrupt { key: keys::job(partition, id), reason };
        let job = job(id, partition, &reply).map_err(corrupt)?;
        if job.is_none() {
            self.refuse_aside(id).await?;
        }
        Ok(job)
    }

    /// An error, which names where, when the record of `id` was set aside and no operator has accepted that.
    async fn refuse_aside(&self, id: &JobId) -> Result<()> {
        let (home, others) = self.sizes().homes(id);
        for partition in std::iter::once(home).chain(others) {
            let (key, mut pipeline) = (keys::job(partition, id), redis::pipe());
            pipeline.cmd("HGET").arg(keys::fixed(partition, "quarantine")).arg(&key);
            let replies = self.inner.wire.pipe_leniently(Home::Partition(partition), &pipeline).await?;
            if let Some((_, why)) = text(&replies[0]).split_once(' ') {
                let reason = format!("the record of job {id} was set aside: {why}");
                return Err(Error::Corrupt { key: keys::aside(&key), reason });
            }
        }
        Ok(())
    }

    /// Many jobs, in the order of `ids`; `None` for a missing job.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_many(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>> {
        self.read_many(ids, Repeat::Safe).await?.into_iter().collect()
    }

    /// [`Store::get_many`], with the error of each unreadable record in its place.
    pub(super) async fn read_many(&self, ids: &[JobId], repeat: Repeat) -> Result<Vec<Result<Option<Job>>>> {
        let mut jobs: Vec<Result<Option<Job>>> = ids.iter().map(|_| Ok(None)).collect();
        let places = self.places(ids).await?;
        for (partition, share) in by_partition(ids, |at, _| places[at]) {
            for chunk in share.chunks(READ_MAX) {
                let args = |part: &[(usize, &JobId)]| {
                    Args::default().count(part.len()).texts(part.iter().map(|(_, id)| id.as_str()))
                };
                let reply = self.inner.wire.read_each(&scripts::GET, partition, chunk, args, repeat).await?;
                for ((at, id), value) in chunk.iter().zip(&reply) {
                    jobs[*at] = job(id, partition, value)
                        .map_err(|reason| Error::Corrupt { key: keys::job(partition, id), reason });
                }
            }
        }
        Ok(jobs)
    }
}

/// Builds a job from the reply of `get.lua`.
fn job(id: &JobId, partition: u16, reply: &Value) -> Result<Option<Job>, String> {
    let reply = array(reply);
    if reply.is_empty() {
        return Ok(None);
    }
    if reply.len() == 2 {
        return Err("it is not a hash".into());
    }
    let fields: HashMap<String, String> = reply[4..].chunks_exact(2).map(|p| (text(&p[0]), text(&p[1]))).collect();
    let field = |name: &str| fields.get(name).map(String::as_str);
    let need = |name: &str| field(name).ok_or_else(|| format!("field {name} is missing"));
    let count = |name: &str| field(name).and_then(|v| v.parse::<u64>().ok());
    let small = |name: &str| count(name).and_then(|n| u32::try_from(n).ok());
    let time = |name: &str| field(name).and_then(|v| v.parse().ok()).map(Timestamp);
    let score = |at: usize| text(&reply[at]).parse::<f64>().ok().map(|ms| Timestamp(ms as i64));
    let record = text(&reply[0]);
    let record: Vec<&str> = record.split(' ').collect();
    let running = record.len() >= 3;
    let valid = |word| State::parse(word).ok_or_else(|| format!("state {word:?} is not valid"));
    let stored = field("state").map(valid).transpose()?;
    let state = stored.unwrap_or(if running { State::Running } else { State::Queued });
    let max_attempts = small("max_attempts").unwrap_or(1);
    let (failures, error) = (small("attempts").unwrap_or(0), field("error").map(stored_error));
    // For a failed job, the attempt that failed; for a job that lost its worker, the lost attempt.
    let by_attempt = state == State::Failed && error.as_ref().is_some_and(|e| e.code != ErrorCode::Crashed);
    let attempt = if by_attempt { failures.max(1) } else { failures.saturating_add(1).min(max_attempts) };
    let created_at = time("created_at").ok_or("field created_at is missing")?;
    let started_at = if running { record[2].parse().ok().map(Timestamp) } else { time("started_at") };
    // Redis's clock may have been set back in between.
    let started_at = started_at.map(|at| at.max(created_at));
    let finished_at = time("finished_at").map(|at| at.max(started_at.unwrap_or(created_at)));
    let updated = [Some(created_at), started_at, time("updated_at"), finished_at];
    let due = if state == State::Retrying { score(2) } else { time("scheduled_at") };
    let items = items_of(field);
    Ok(Some(Job {
        id: id.clone(),
        partition,
        kind: Kind::parse(need("kind")?).map_err(|e| e.to_string())?,
        queue: QueueName::parse(need("queue")?).map_err(|e| e.to_string())?,
        state,
        priority: field("priority").and_then(Priority::parse).unwrap_or_default(),
        payload: Json::of_field("payload", need("payload")?)?,
        attempt,
        max_attempts,
        crashes: small("crashes").unwrap_or(0),
        token: if running { record[0].parse().ok() } else { count("token") },
        worker: WorkerId::parse(if running { record[1] } else { field("worker").unwrap_or_default() }).ok(),
        cancel_requested: number(&reply[3]) == Some(1),
        progress: (field("percent").is_some() || field("message").is_some()).then(|| Progress {
            percent: field("percent").and_then(|v| v.parse().ok()).filter(|percent| (0.0..=100.0).contains(percent)),
            message: field("message").map(str::to_owned),
        }),
        result: field("result").map(|v| Json::of_field("result", v)).transpose()?,
        skipped: field("skipped").map(str::to_owned),
        error,
        parent: field("parent").and_then(|v| JobId::parse(v).ok()),
        items,
        created_at,
        schedule: field("schedule").and_then(|v| ScheduleName::parse(v).ok()),
        scheduled_for: time("scheduled_for"),
        scheduled_at: due,
        started_at,
        updated_at: updated.into_iter().flatten().max().unwrap_or(created_at),
        finished_at,
        lease_expires_at: if running { score(1) } else { None },
        served: None,
        imported: field("imported").map(|v| Json::of_field("imported", v)).transpose()?,
    }))
}

/// A parent's counts, as stored in its record; `None` when it is not a parent.
pub(super) fn items_of<'a>(field: impl Fn(&str) -> Option<&'a str>) -> Option<Items> {
    let count = |name: &str| field(name).and_then(|v| v.parse().ok());
    count("items_total").map(|total| Items {
        total,
        succeeded: count("items_succeeded").unwrap_or(0),
        failed: count("items_failed").unwrap_or(0),
        skipped: count("items_skipped").unwrap_or(0),
        cancelled: count("items_cancelled").unwrap_or(0),
        open: field("sealed").is_none(),
    })
}

/// A stored error; a damaged error is shown as text rather than hiding the job.
fn stored_error(text: &str) -> JobError {
    serde_json::from_str(text).unwrap_or_else(|_| JobError {
        code: ErrorCode::Failed,
        message: text.to_owned(),
        at: Timestamp(0),
    })
}

/// A record's list of files; empty when it cannot be read.
pub(super) fn files_of(text: &str) -> Vec<FileEntry> {
    serde_json::from_str(text).unwrap_or_default()
}
