//! What the whole-system tests stand on: a real Redis, the real binaries, and a network that breaks
//! when told to.
//!
//! A test that needs more than Redis starts a [`System`], which gives it a Redis server of its own,
//! an API and workers, and ends with [`System::finish`], which walks the keys and checks the
//! invariants. Faults are injected by signals ([`Process`], [`RedisServer`]) and by a [`Proxy`]
//! between a process and Redis. A test never sleeps to let something happen: it waits on a signal
//! ([`proxy::Rule::fired`]) or on a condition with a limit ([`eventually`]).
//!
//! Nothing the harness starts survives it, not even when the test process is killed.

pub mod api;
pub mod binary;
pub mod chaos;
pub mod cluster;
pub mod contract;
pub mod fuzz;
pub mod port;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod s3;
pub mod seed;
pub mod sentinel;
pub mod shim;
mod spawner;
pub mod system;
pub mod wait;

pub use api::{Answer, Api};
pub use binary::{Output, next_path, run};
pub use cluster::RedisCluster;
pub use port::Port;
pub use process::Process;
pub use proxy::{Proxy, Then, Way};
pub use redis::RedisServer;
pub use s3::S3Server;
pub use seed::seed;
pub use sentinel::SentinelGroup;
pub use shim::Shim;
pub use system::{System, Worker, check_invariants};
pub use wait::eventually;
