//! Queues: list, read, pause, resume, remove.
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use leasehold::QueueName;
use leasehold::store::QueueStatus;

use super::{Answer, object};
use crate::error::Problem;
use crate::extract::query::{Named, NoQuery};
use crate::state::Api;

/// `GET /api/v1/queues`
pub async fn list(State(api): State<Api>, _: NoQuery) -> Answer {
    let queues = api.store().await?.queues(None).await.map_err(Problem::reading)?;
    Ok(object("queues", queues))
}

/// `GET /api/v1/queues/{queue}`
pub async fn get(State(api): State<Api>, Named(name): Named<QueueName>, _: NoQuery) -> Answer {
    let store = api.store().await?;
    let queue = store.queues(Some(&name)).await.map_err(Problem::reading)?.pop();
    // Not a 404: an autoscaler asks before the first job has come.
    Ok(Json(queue.unwrap_or_else(|| QueueStatus::unused(name, store.partitions()))).into_response())
}

/// `POST /api/v1/queues/{queue}/pause`: a queue may be paused before its first job.
pub async fn pause(State(api): State<Api>, Named(name): Named<QueueName>, _: NoQuery) -> Answer {
    set_paused(&api, name, true).await
}

/// `POST /api/v1/queues/{queue}/resume`
pub async fn resume(State(api): State<Api>, Named(name): Named<QueueName>, _: NoQuery) -> Answer {
    set_paused(&api, name, false).await
}

/// `DELETE /api/v1/queues/{queue}`
pub async fn remove(State(api): State<Api>, Named(name): Named<QueueName>, _: NoQuery) -> Answer {
    api.store().await?.remove_queue(&name).await.map_err(Problem::changing)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn set_paused(api: &Api, name: QueueName, paused: bool) -> Answer {
    let store = api.store().await?;
    store.pause(&name, paused).await.map_err(Problem::changing)?;
    let queue = store.queues(Some(&name)).await.map_err(Problem::after_a_change)?.pop();
    // A queue without jobs or workers is known only while it is paused.
    let unused = QueueStatus::unused(name, store.partitions());
    let queue = queue.unwrap_or(QueueStatus { paused, ..unused });
    Ok(Json(queue).into_response())
}
