//! Everything between a verb and Redis.
pub(super) mod connection;
pub(super) mod group;
pub(super) mod keys;
pub(super) mod metrics;
pub(super) mod scripts;
