//! A parent and its items: who counts, who finishes, and what cancel and retry do to all of them.
//!
//! The items come in two parts, the last of which seals. What a lease protects is in
//! [`lease`](crate::lease); here a worker that lost its lease goes on, and settles too late.

mod model;
mod scripts;
mod state;
mod twins;

pub use twins::TWINS;
