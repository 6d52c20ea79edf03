//! Redis's clock and the grace: two jobs on lease, and a Redis that is away, a clock that steps.
//!
//! A tick is the time between two renewals, a sixth of a lease. Every time is kept as seen from
//! now, in Redis's clock, so a step of the clock moves all of them. In each tick in which Redis can
//! be reached every live worker renews, somebody sweeps, and what may be reclaimed is.

mod model;
mod state;
mod twins;

pub use twins::TWINS;
