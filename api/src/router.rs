//! Every route, but for those of the views, and the layers around them.
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::routes::{
    events, files, health, items, jobs, landing, no_method, no_route, queues, schedules, submit, workers,
};
use crate::state::Api;
use crate::{access, openapi, origin, request, views};

/// The API as a service.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(landing::index))
        .route("/api/v1/jobs", get(jobs::list).post(submit::submit).delete(jobs::prune))
        .route("/api/v1/jobs/bulk", post(submit::bulk))
        .route("/api/v1/jobs/{id}", get(jobs::get).delete(jobs::remove))
        .route("/api/v1/jobs/{id}/events", get(events::events))
        .route("/api/v1/jobs/{id}/history", get(jobs::history))
        .route("/api/v1/jobs/{id}/files", get(files::list))
        .route("/api/v1/jobs/{id}/files/{name}", get(files::get))
        .route("/api/v1/jobs/{id}/items", get(items::list).post(items::add))
        .route("/api/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/api/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/api/v1/queues", get(queues::list))
        .route("/api/v1/queues/{queue}", get(queues::get).delete(queues::remove))
        .route("/api/v1/queues/{queue}/pause", post(queues::pause))
        .route("/api/v1/queues/{queue}/resume", post(queues::resume))
        .route("/api/v1/schedules", get(schedules::list))
        .route("/api/v1/schedules/{name}", get(schedules::get).put(schedules::put).delete(schedules::remove))
        .route("/api/v1/schedules/{name}/trigger", post(schedules::trigger))
        .route("/api/v1/schedules/{name}/pause", post(schedules::pause))
        .route("/api/v1/schedules/{name}/resume", post(schedules::resume))
        .route("/api/v1/workers", get(workers::list))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::describe))
        .route("/openapi-views.json", get(openapi::describe_views))
        .merge(views::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(api.clone(), access::check))
        .layer(from_fn_with_state(api.clone(), views::hide))
        .layer(from_fn_with_state(api.clone(), origin::check))
        .layer(from_fn_with_state(api.clone(), request::handle))
        .layer(from_fn_with_state(api.clone(), views::refuse))
        .with_state(api)
}
