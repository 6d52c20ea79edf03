//! Who sent a request.
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use leasehold::server::{Client, Relief};

use super::body::client;

/// The client of the request's connection, and how to close the connections that are not read.
pub struct From(pub Client, pub Relief);

impl<S: Sync> FromRequestParts<S> for From {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(client(parts), parts.extensions.get().cloned().unwrap_or_default()))
    }
}
