//! Extractors: the parts of a request that handlers take as arguments.
//!
//! The fields of a JSON body are read by [`crate::fields`], since submissions know no HTTP.
pub mod accept;
pub mod body;
pub mod disposition;
pub mod from;
pub mod headers;
pub mod query;
pub mod range;
pub mod upload;
