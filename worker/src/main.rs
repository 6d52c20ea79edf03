//! The binary `leasehold-worker`: reads the configuration, and runs a [`Worker`] until a signal.
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use leasehold::{Config, log};
use leasehold_worker::{Error, Shutdown, Worker};

/// Runs Leasehold's jobs. The first SIGTERM or SIGINT lets running jobs end, the second releases them at once.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file [default: leasehold.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of Redis
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// The kinds file
    #[arg(long, value_name = "FILE")]
    kinds: Option<String>,
    /// Queues to claim from, as name:weight,…
    #[arg(long, value_name = "QUEUES")]
    queues: Option<String>,
    /// Number of jobs to run at once
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<usize>,
    /// Address for /livez, /readyz and /metrics, e.g. 127.0.0.1:9090
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// How long running jobs may continue after SIGTERM, ms
    #[arg(long, value_name = "MS")]
    grace_ms: Option<u64>,
}

impl Arguments {
    /// The settings given by flags, by key.
    fn settings(self) -> (Option<PathBuf>, Vec<(&'static str, String)>) {
        let settings = [
            ("redis_url", self.redis_url),
            ("kinds", self.kinds),
            ("worker.queues", self.queues),
            ("worker.concurrency", self.concurrency.map(|n| n.to_string())),
            ("worker.listen", self.listen),
            ("worker.grace_ms", self.grace_ms.map(|ms| ms.to_string())),
        ];
        (self.config, settings.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }
}

fn main() -> ExitCode {
    leasehold_worker::become_reader();
    leasehold::secrets::protect();
    leasehold::init::leave_process_one();
    let code = match run(Arguments::parse()) {
        Ok(()) => 0,
        Err(e) => {
            log::say(format_args!("leasehold-worker: {e}"));
            1
        }
    };
    // Returning would wait for handlers that never yield.
    std::process::exit(code)
}

fn run(arguments: Arguments) -> Result<(), Error> {
    // Fails only if a provider is already installed.
    drop(rustls::crypto::ring::default_provider().install_default());
    let (file, flags) = arguments.settings();
    let config = Config::load(file.as_deref(), &flags)?;
    log::init(&config.log)?;
    let kinds = config.load_kinds()?;
    for (kind, program) in kinds.missing_programs() {
        tracing::warn!(%kind, "the program {program:?} of this kind's command cannot be found: its jobs will fail");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shutdown = Shutdown::on_signals()?;
    let result = runtime.block_on(Worker::new(config, kinds).run(shutdown));
    runtime.shutdown_background();
    result
}
