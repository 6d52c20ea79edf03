//! The bare route: axum, and one Redis call a request, with nothing checked, limited or reported.
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use redis::aio::MultiplexedConnection;
use std::collections::BTreeMap;

use super::floor;
use super::meter::{client, connect, fault};
use crate::failure::Failure;

/// Where it listens, and its Redis.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The address to listen on.
    #[arg(long)]
    listen: String,
    /// The Redis.
    #[arg(long)]
    redis_url: String,
}

#[derive(Clone)]
struct Shared {
    connection: MultiplexedConnection,
    /// The digest of the script that enqueues.
    enqueue: String,
}

/// Serves until it is killed.
pub(super) fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = connect(&client(&arguments.redis_url)?).await?;
        let enqueue = floor::load(&mut connection, floor::ENQUEUE).await.map_err(fault)?;
        let router = Router::new()
            .route("/readyz", get(|| async { "ready" }))
            .route("/jobs", post(submit))
            .route("/jobs/{id}", get(read))
            .with_state(Shared { connection, enqueue });
        let listener = tokio::net::TcpListener::bind(&arguments.listen).await?;
        Ok(axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), router)
            .await?)
    })
}

type Answer = Result<(StatusCode, Json<BTreeMap<String, String>>), StatusCode>;

async fn submit(State(mut shared): State<Shared>, body: Bytes) -> Answer {
    let id = uuid::Uuid::now_v7().to_string();
    let mut command = redis::cmd("EVALSHA");
    command.arg(&shared.enqueue).arg(0).arg(&id).arg(&body[..]);
    match command.query_async::<u64>(&mut shared.connection).await {
        Ok(1) => Ok((StatusCode::ACCEPTED, Json(BTreeMap::from([("id".into(), id)])))),
        _ => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn read(State(mut shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut command = redis::cmd("HGETALL");
    command.arg(floor::job_key(&id));
    match command.query_async::<BTreeMap<String, String>>(&mut shared.connection).await {
        Ok(job) if !job.is_empty() => Ok((StatusCode::OK, Json(job))),
        Ok(_) => Err(StatusCode::NOT_FOUND),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
