//! The whole-system tests: a real Redis, the real binaries, one test binary.
mod api;
mod ground;
mod lifecycle;
mod reference;
mod store;
