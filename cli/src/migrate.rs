//! `leasehold migrate`: the step from the layout of an earlier version.
use leasehold::Store;
use leasehold::store::Migrated;

use crate::arguments::{NotVia, Source, reached};
use crate::failure::Failure;
use crate::print::{self, age};

/// Prepares the jobs in Redis for this version, once every API and worker of an earlier one has been stopped.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    not_via: NotVia,
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.not_via.check("it works on Redis itself; name it with --redis-url")?;
    let config = arguments.source.load_for_command()?;
    let store = reached(Store::connect_unchecked(&config).await, &config)?;
    let version = env!("CARGO_PKG_VERSION");
    let said = match store.migrate().await? {
        Migrated::Done { moved: 0 } => format!("Redis at {} is ready for Leasehold {version}", store.address()),
        Migrated::Done { moved } => {
            format!("Redis at {} is ready for Leasehold {version}; {moved} ended jobs were moved", store.address())
        }
        Migrated::Already => format!("Redis at {} was ready for Leasehold {version} before", store.address()),
        Migrated::Alive(workers) => {
            let named: Vec<String> = workers
                .iter()
                .map(|w| {
                    format!("{} (version {}, pid {} on {}, seen {})", w.id, w.version, w.pid, w.host, age(w.seen_at))
                })
                .collect();
            let lease_s = workers.iter().map(|worker| worker.lease_ms / 1_000).max().unwrap_or_default();
            return Err(Failure::Failed(format!(
                "nothing was changed: these workers are alive: {}; stop them, and every API of the earlier version \
                 (a worker that was killed counts as alive for {lease_s} s), then run this again",
                named.join(", ")
            )));
        }
    };
    Ok(print::line(format_args!("{said}"))?)
}
