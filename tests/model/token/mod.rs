//! The tokens of claims when Redis loses its last writes (a lost second of the AOF, a failover, a restored backup), or
//! continues on a machine whose clock is behind.
//!
//! Time is counted in claims: a claim takes longer than the microsecond by which it advances the counter.

mod model;
mod twins;

pub use twins::{SEEN, TWINS};
