//! The items of a batch.
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use leasehold::store::ListQuery;
use leasehold::{JobId, limits};

use super::jobs::{existing, page, page_of};
use super::{Answer, changed};
use crate::error::Problem;
use crate::extract::accept::wants_json_lines;
use crate::extract::body::BulkText;
use crate::extract::query::{Named, NoQuery, Query};
use crate::fields::Reader;
use crate::state::Api;
use crate::stream::json_lines;

/// `GET /api/v1/jobs/{id}/items`: a page of items in order; or, with `Accept: application/x-ndjson`, all current items,
/// one per line.
pub async fn list(State(api): State<Api>, Named(id): Named<JobId>, headers: HeaderMap, mut query: Query) -> Answer {
    if wants_json_lines(&headers) {
        for name in ["state", "limit", "cursor"] {
            if query.text(name).is_some() {
                query.fault(name, "a stream of JSON Lines has all items; leave it out, or ask for application/json");
            }
        }
        query.finish()?;
        let store = api.store().await?;
        return json_lines(&api, &store, Box::pin(store.items(&id))).await;
    }
    let wanted = page_of(ListQuery { parent: Some(id.clone()), ..ListQuery::default() }, query)?;
    let store = api.store().await?;
    existing(&store, &id).await?;
    page(&api, &store, &wanted).await
}

/// `POST /api/v1/jobs/{id}/items`: adds a part of the items; a part sent twice changes nothing.
pub async fn add(State(api): State<Api>, Named(id): Named<JobId>, _: NoQuery, body: BulkText) -> Answer {
    let mut reader = Reader::open(body.as_str())?;
    let first = reader.whole("first", 0, u64::from(u32::MAX));
    let items = reader.payloads("items", limits::ITEMS_PER_CALL_MAX, api.limits());
    let last = reader.flag("last");
    if first.is_none() && !reader.is_faulty("first") {
        reader.fault("first", "required: the number of the first of these items, counted from 0");
    }
    if items.is_none() && !last && !reader.is_faulty("items") {
        reader.fault("items", "required, unless last is true");
    }
    reader.finish()?;
    drop(body);
    let (first, items) = (first.unwrap_or_default(), items.unwrap_or_default());
    let store = api.store().await?;
    store.add_items(&id, first, &items, last).await.map_err(Problem::changing)?;
    changed(&api, &store, StatusCode::OK, &id).await
}
