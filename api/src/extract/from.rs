//! Who sent a request.
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use leasehold::server::Client;

use super::body::client;

/// The client of the request's connection.
pub struct From(pub Client);

impl<S: Sync> FromRequestParts<S> for From {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(client(parts)))
    }
}
