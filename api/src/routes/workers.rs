//! Workers: who is there, and what each runs.
use axum::extract::State;
use leasehold::store::WorkerStatus;
use leasehold::{JobId, Kind, QueueName, Timestamp, WorkerId};
use serde::Serialize;

use super::{Answer, object};
use crate::error::Problem;
use crate::query::NoQuery;
use crate::state::Api;

#[derive(Serialize)]
struct WorkerView {
    id: WorkerId,
    host: String,
    pid: u32,
    version: String,
    alive: bool,
    started_at: Timestamp,
    seen_at: Timestamp,
    queues: Vec<QueueName>,
    kinds: Vec<Kind>,
    slots: usize,
    running: Vec<JobId>,
}

impl From<WorkerStatus> for WorkerView {
    fn from(worker: WorkerStatus) -> Self {
        Self {
            id: worker.info.id,
            host: worker.info.host,
            pid: worker.info.pid,
            version: worker.info.version,
            alive: worker.alive,
            started_at: worker.info.started_at,
            seen_at: worker.seen_at,
            queues: worker.info.queues,
            kinds: worker.info.kinds,
            slots: worker.info.slots,
            running: worker.running,
        }
    }
}

/// `GET /api/v1/workers`: those alive, and those gone within the hour.
pub async fn list(State(api): State<Api>, _: NoQuery) -> Answer {
    let workers = api.store().await?.workers().await.map_err(Problem::reading)?;
    let workers: Vec<WorkerView> = workers.into_iter().map(WorkerView::from).collect();
    Ok(object("workers", workers))
}
