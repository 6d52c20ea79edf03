//! The binary `leasehold-worker`: reads the configuration, and runs a [`Worker`] until a signal.
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use leasehold::{Config, log};
use leasehold_worker::{Error, Shutdown, Worker};

/// Runs Leasehold's jobs. The first SIGTERM or SIGINT lets running jobs end, the second gives them back at once.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file [default: leasehold.toml, when it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of Redis
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// The kinds file
    #[arg(long, value_name = "FILE")]
    kinds: Option<String>,
    /// The queues to take from, name:weight,…
    #[arg(long, value_name = "QUEUES")]
    queues: Option<String>,
    /// Jobs to run at once
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<usize>,
    /// Where to serve /livez, /readyz and /metrics, as 127.0.0.1:9090
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// How long running jobs may go on after SIGTERM, ms
    #[arg(long, value_name = "MS")]
    grace_ms: Option<u64>,
}

impl Arguments {
    /// What the flags set, by key.
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
    let code = match run(Arguments::parse()) {
        Ok(()) => 0,
        Err(e) => {
            log::say(format_args!("leasehold-worker: {e}"));
            1
        }
    };
    // Not by returning: a handler that never yields would keep its thread, and the process with it.
    std::process::exit(code)
}

fn run(arguments: Arguments) -> Result<(), Error> {
    // Fails only when there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let (file, flags) = arguments.settings();
    let config = Config::load(file.as_deref(), &flags)?;
    log::init(&config.log)?;
    let kinds = config.load_kinds()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shutdown = Shutdown::on_signals()?;
    let result = runtime.block_on(Worker::new(config, kinds).run(shutdown));
    runtime.shutdown_background();
    result
}
