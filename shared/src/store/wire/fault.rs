//! What the errors of Redis and of connections mean.
use redis::{RedisError, Value};

use crate::Error;

/// Classifies a Redis error.
pub(crate) fn classify(error: &RedisError) -> Error {
    let reason = error.to_string();
    match error.code() {
        Some("OOM") => return Error::Full(reason),
        // Errors before execution: loading, a slow script, no disk, a replica, too many clients; a pop that ended
        // because its server became a replica; a slot that is being moved or has no node.
        Some(
            "LOADING" | "BUSY" | "MISCONF" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "NOREPLICAS"
            | "UNBLOCKED" | "ASK",
        ) => {
            return Error::Unavailable(reason);
        }
        // A cluster's connections follow a move before they come here.
        Some("MOVED") => {
            return Error::Config(format!("redis_url names one node of a Redis Cluster; {CLUSTER_ADVICE}"));
        }
        Some("NOAUTH" | "WRONGPASS") => return unauthenticated(&reason),
        Some("NOPERM") => return Error::Config(format!("Redis refuses this user: {reason}; {ACL_ADVICE}")),
        _ => {}
    }
    // What Redis answers to a large command without a password.
    if reason.contains("unauthenticated") {
        return unauthenticated(&reason);
    }
    // A command inside of a script, by the versions.
    if reason.contains("The user executing the script") || reason.contains("ACL failure in script") {
        return Error::Config(format!("Redis refuses this user: {reason}; {ACL_ADVICE}"));
    }
    // What a new connection meets has no code: its error is that of the connection.
    let busy = ["max number of clients", "busy running a script", "loading the dataset"];
    if busy.iter().any(|words| reason.contains(words)) || error.is_connection_refusal() {
        return Error::Unavailable(reason);
    }
    if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error() {
        return Error::OutcomeUnknown(reason);
    }
    if error.code() == Some("WRONGTYPE") {
        return Error::Corrupt { key: "a key of this call".into(), reason };
    }
    Error::Config(format!("Redis refuses a call: {reason}"))
}

fn unauthenticated(reason: &str) -> Error {
    Error::Config(format!("Redis refuses this user: {reason}; give user and password in redis_url"))
}

/// What a user needs.
pub(crate) const ACL_ADVICE: &str = "give it all keys, channels and commands of Leasehold, with the ACL rules \
                                     `~lh:* &lh:* +@all`";

/// What to write for a cluster.
pub(crate) const CLUSTER_ADVICE: &str = "write redis+cluster://host:port, with more nodes after commas";

/// Whether the connection must not be used again. Redis closes one after a protocol error, such as a large command
/// without a password; only a new connection gives its password.
pub(crate) fn ends_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_unrecoverable_error()
        || is_of_a_replica(error.code())
        || error.code() == Some("NOAUTH")
        || error.to_string().contains("Protocol error")
}

/// Whether another server may be the master now.
pub(crate) fn doubts_master(error: &RedisError) -> bool {
    ends_connection(error) || matches!(error.code(), Some("LOADING" | "NOREPLICAS"))
}

/// Whether the server that answers so is a replica, or has just become one.
fn is_of_a_replica(code: Option<&str>) -> bool {
    matches!(code, Some("READONLY" | "MASTERDOWN" | "UNBLOCKED"))
}

/// The first refusal among replies that is about the server, not about the type of a key.
pub(crate) fn refusal(replies: &[Value]) -> Option<RedisError> {
    replies.iter().find_map(|reply| match reply {
        Value::ServerError(e) if e.code() != "WRONGTYPE" => Some(e.clone().into()),
        _ => None,
    })
}
