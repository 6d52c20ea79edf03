//! The whole-system tests: a real Redis, the real binaries, one test binary.
// A test may unwrap, and so may what only tests call: its panic is the message.
#![allow(clippy::unwrap_used)]

mod api;
mod batches;
mod behaviour;
mod chaos;
mod cli;
mod clients;
mod docs;
mod doctor;
mod examples;
mod faults;
mod files;
mod ground;
mod hardening;
mod import;
mod lifecycle;
mod metrics;
mod openapi;
mod reference;
mod retention;
mod start;
mod store;
mod views;
mod work;
mod work_of_five;
