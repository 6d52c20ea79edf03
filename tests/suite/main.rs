//! The whole-system tests: a real Redis, the real binaries, one test binary.
// A test may unwrap, and so may what only tests call: its panic is the message.
#![allow(clippy::unwrap_used)]

mod api;
mod batch_cascades;
mod batches;
mod built_in_kinds;
mod chaos;
mod cli;
mod clients;
mod clock_gaps;
mod clocked_store;
mod cluster;
mod command_processes;
mod command_results;
mod crash_points;
mod denied_commands;
mod docs;
mod doctor;
mod examples;
mod faults;
mod files;
mod fuzz;
mod health;
mod idle;
mod import;
mod kinds_agreement;
mod lease_tokens;
mod lifecycle;
mod manifests;
mod metrics;
mod openapi;
mod partitions;
mod process_one;
mod reference_model;
mod retention;
mod running_jobs;
mod scaling;
mod sentinel;
mod set_aside;
mod start;
mod steered_command;
mod store;
mod tidy;
mod upgrade;
mod views;
mod worker_robustness;
