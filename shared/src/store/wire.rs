//! The layer between the verbs and Redis. It is independent of the verbs.
//!
//! `call` makes a call and repeats it during an outage, `connection` is the pool below it, `group` the group commit
//! above it. `keys` names every key, `scripts` every script; `reply` reads what comes back; `metrics` counts it all.
mod call;
pub(super) mod connection;
mod group;
pub(super) mod keys;
pub(super) mod metrics;
pub(super) mod reply;
pub(super) mod scripts;

pub(super) use call::{Args, Repeat, Wire};
pub(super) use group::{Group, split};
