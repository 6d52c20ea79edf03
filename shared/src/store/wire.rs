//! The wire: everything between a verb and Redis. Nothing here knows a verb.
//!
//! `call` is one call with its repetition over an outage, `connection` the pool below it, `group` the group commit above it.
//! `keys` names every key, `scripts` every script; `reply` reads what comes back; `metrics` counts it all.
mod call;
pub(super) mod connection;
mod group;
pub(super) mod keys;
pub(super) mod metrics;
pub(super) mod reply;
pub(super) mod scripts;

pub(super) use call::{Args, Repeat, Wire};
pub(super) use group::{Group, split};
