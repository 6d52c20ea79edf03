//! Leasehold's HTTP API: stateless, so that replicas share nothing but Redis.
//!
//! A request comes in by [`leasehold::server`], passes `request`, is sent on by `router`, read by `body` and `fields`
//! (or `query` and `headers`), handled in `routes` or, for clients of the old systems, in `views`, and refused by `error`, where alone a status is chosen. What is
//! allowed is decided here and in `submission`, what is true by the Store.
mod access;
mod body;
mod deadline;
mod error;
mod fault;
mod fields;
mod headers;
mod metrics;
mod openapi;
mod query;
mod range;
mod raw;
mod request;
mod router;
mod routes;
mod state;
mod stream;
mod submission;
mod upload;
mod views;

pub use access::Guard;
pub use router::router;
pub use state::Api;
