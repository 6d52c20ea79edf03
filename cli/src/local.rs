//! What `up` and `demo` need of this machine: programs that are started and kept up, a Redis, free ports.
pub(crate) mod child;
pub(crate) mod keeper;
pub(crate) mod port;
pub(crate) mod redis_server;
pub(crate) mod system;
