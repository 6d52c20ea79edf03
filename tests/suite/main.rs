//! The whole-system tests: a real Redis, the real binaries, one test binary.
mod api;
mod behaviour;
mod chaos;
mod cli;
mod doctor;
mod faults;
mod ground;
mod lifecycle;
mod reference;
mod start;
mod store;
mod work;
