//! The jobs of a schedule's ticks: several sweepers that may die, a writer, and a clock that is set back.
//!
//! Time is counted in ticks. That a job is removed long before its tick comes again is not modelled: then it has
//! another.

mod model;
mod twins;

pub use twins::TWINS;
