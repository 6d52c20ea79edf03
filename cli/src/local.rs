//! Local processes for `up` and `demo`: starting and restarting programs, a private Redis, free ports.
pub(crate) mod child;
pub(crate) mod keeper;
pub(crate) mod port;
pub(crate) mod redis_server;
pub(crate) mod system;
