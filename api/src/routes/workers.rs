//! Workers: list.
use axum::extract::State;

use super::{Answer, object};
use crate::error::Problem;
use crate::extract::query::NoQuery;
use crate::state::Api;

/// `GET /api/v1/workers`: live workers, and those gone within the last hour.
pub async fn list(State(api): State<Api>, _: NoQuery) -> Answer {
    Ok(object("workers", api.store().await?.workers().await.map_err(Problem::reading)?))
}
