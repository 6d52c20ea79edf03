//! Leasehold's HTTP API: stateless, so that replicas share nothing but Redis.
//!
//! Reading order: a connection arrives through [`leasehold::server`]; `request` gives each request its id, span and
//! deadline; `origin` refuses what foreign web pages send; `access` checks its token; `router` finds its handler.
//! Handlers are in `routes`, those for clients of the old systems in `views`; they take their arguments by `extract`
//! and `fields`. Submissions are validated in `submission`; every other guard is the Store's. A refusal is an
//! `error::Problem`, and `error` alone chooses its status.
mod access;
mod budget;
mod deadline;
mod error;
mod extract;
mod fault;
mod fields;
mod metrics;
mod openapi;
mod origin;
mod request;
#[cfg(test)]
mod routed;
mod router;
mod routes;
mod state;
mod stream;
mod submission;
mod sweeper;
mod views;
mod wrong_tokens;

pub use router::router;
pub use state::Api;
