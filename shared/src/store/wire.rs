//! The layer between the verbs and Redis. It is independent of the verbs.
//!
//! `call` makes a call and repeats it during an outage (`patience`); `group` is the group commit above it. Below it
//! `connection` finds the server of a call, with `sentinel` or `cluster` where the server changes; `node` is one server
//! with its `pool`, `address` how it is reached, `fault` what its errors mean. `keys` names every key, `scripts` every
//! script, `permissions` what a user must be allowed; `reply` reads what comes back; `metrics` counts it all.
pub(super) mod address;
mod args;
mod call;
mod cluster;
pub(super) mod connection;
pub(super) mod fault;
mod group;
pub(super) mod keys;
pub(super) mod metrics;
mod node;
mod patience;
pub(super) mod permissions;
mod pool;
pub(super) mod reply;
pub(super) mod scripts;
mod sentinel;

pub(super) use args::Args;
pub(super) use call::Wire;
pub(super) use group::{Groups, split};
pub(super) use keys::Home;
pub(super) use node::Node;
pub(super) use patience::Repeat;
pub use patience::within_one_outage;
