//! The settings of Redis that Leasehold relies on.
use std::sync::Arc;

use super::{ServerFault, ask};
use crate::store::wire::reply::{array, text};
use crate::store::wire::{Node, Wire};
use crate::{Error, Result};

pub(super) const EVICTS: &str = "Redis would evict jobs; set `maxmemory-policy noeviction`";

/// A setting of Redis that Leasehold relies on.
struct Setting {
    name: &'static str,
    fit: fn(&str) -> bool,
    advice: &'static str,
    fatal: bool,
}

const SETTINGS: &[Setting] = &[
    Setting { name: "maxmemory-policy", fit: |v| v == "noeviction", advice: EVICTS, fatal: true },
    Setting {
        name: "appendfsync",
        fit: |v| v == "always",
        advice: "a crash of Redis's machine, or a slow disk and a kill -9, can lose the last second or two of acknowledged \
                 jobs; set `appendfsync always` to lose none",
        fatal: false,
    },
    Setting {
        name: "no-appendfsync-on-rewrite",
        fit: |v| v == "no",
        advice: "acknowledged jobs are not on disk while the AOF is rewritten; set it to no",
        fatal: false,
    },
    Setting {
        name: "timeout",
        fit: |v| v == "0",
        advice: "idle connections are closed; set `timeout 0`",
        fatal: false,
    },
    Setting {
        name: "maxmemory-clients",
        fit: |v| v == "0",
        advice: "with blocking pops it has crashed servers; set `maxmemory-clients 0`",
        fatal: false,
    },
    Setting {
        name: "tcp-keepalive",
        fit: |v| (1..=60).contains(&v.parse().unwrap_or(0)),
        advice: "a vanished worker's pop stays armed too long; set `tcp-keepalive 15`",
        fatal: false,
    },
    Setting {
        name: "hash-max-listpack-value",
        fit: |v| v.parse().unwrap_or(0) >= 512,
        advice: "a usual payload doubles a job's memory; set `hash-max-listpack-value 1024`",
        fatal: false,
    },
];

/// A setting that matters in a cluster.
const FULL_COVERAGE: Setting = Setting {
    name: "cluster-require-full-coverage",
    fit: |v| v == "no",
    advice: "while one node is down, all of them stop, and with them every partition; set it to no",
    fatal: false,
};

/// The settings of one server that are not fit, or that cannot be read.
pub(super) async fn settings_faults(wire: &Wire, node: &Arc<Node>) -> Result<Vec<ServerFault>> {
    let mut pipeline = redis::pipe();
    let of_cluster = wire.connections().is_cluster().then_some(&FULL_COVERAGE);
    let settings: Vec<&Setting> = SETTINGS.iter().chain(of_cluster).collect();
    for setting in &settings {
        pipeline.cmd("CONFIG").arg("GET").arg(setting.name);
    }
    let replies = match ask(wire, node, &pipeline).await {
        Ok(replies) => replies,
        Err(Error::Unavailable(reason) | Error::OutcomeUnknown(reason)) => return Err(Error::Unavailable(reason)),
        Err(e) => {
            let advice = "allow it with the ACL rule +config|get, or verify them yourself";
            return Ok(vec![ServerFault::warning(format!(
                "Redis denies CONFIG GET, so its settings were not checked; {advice} ({e})"
            ))]);
        }
    };
    let mut faults = Vec::new();
    for (setting, reply) in settings.iter().zip(&replies) {
        let value = array(reply).get(1).map(text).unwrap_or_default();
        if value.is_empty() || (setting.fit)(&value) {
            continue;
        }
        let problem = format!("Redis has `{} {value}`: {}", setting.name, setting.advice);
        faults.push(ServerFault { problem, fatal: setting.fatal });
    }
    Ok(faults)
}
