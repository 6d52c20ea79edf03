//! `leasehold-api`: reads the configuration, listens, and serves until it is stopped.
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use leasehold::server::{Bounds, LOBBY, listen, serve};
use leasehold::tokens::Tokens;
use leasehold::{Config, Error};
use leasehold_api::{Api, router};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Open files reserved for everything but clients: the log, the listener, and what a library opens briefly.
const FILES_KEPT: u64 = 64;
/// Why it listens on loopback only: without tokens, anybody who reaches the port may do everything.
const CLOSED: &str = "and without tokens anybody there could submit and cancel jobs: make one (`leasehold tokens new NAME \
                      admin >> FILE`) and name the file in LEASEHOLD_API__TOKENS";

/// Leasehold's HTTP API. Flags take precedence over LEASEHOLD_ variables, and those over the configuration file.
#[derive(Parser)]
#[command(name = "leasehold-api", version)]
struct Flags {
    /// Configuration file (default: leasehold.toml, if it exists)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on, e.g. 127.0.0.1:8080, or :8080 for that port on 127.0.0.1
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of Redis, e.g. redis://127.0.0.1:6379
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// Number of partitions, when the key space is set up for the first time
    #[arg(long, value_name = "N")]
    partitions: Option<u16>,
    /// The kinds file
    #[arg(long, value_name = "FILE")]
    kinds: Option<String>,
    /// Log filter, e.g. info or leasehold=debug,warn
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl Flags {
    fn load(self) -> Result<Config, Error> {
        let flags = [
            ("api.listen", self.listen),
            ("redis_url", self.redis_url),
            ("partitions", self.partitions.map(|n| n.to_string())),
            ("kinds", self.kinds),
            ("log.filter", self.log),
        ];
        let given: Vec<(&str, String)> = flags.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Config::load(self.config.as_deref(), &given)
    }
}

fn main() -> ExitCode {
    leasehold::secrets::protect();
    leasehold::init::leave_process_one();
    // A process has one provider of cryptography; none has been installed before.
    drop(rustls::crypto::ring::default_provider().install_default());
    match Flags::parse().load().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            leasehold::log::say(format_args!("leasehold-api: {e}"));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> Result<(), Error> {
    leasehold::log::init(&config.log)?;
    let file = config.kinds_file()?;
    let kinds = file.as_ref().map(|file| (*file.now()).clone()).unwrap_or_default();
    let connections = connections(&config);
    let bounds = Bounds { connections, of_a_client: config.limits.of_a_client(connections) };
    let stopping = CancellationToken::new();
    stop_on_signals(stopping.clone())?;
    let guard = config.api.tokens.as_deref().map(Tokens::open).transpose()?;
    let listener = listen("api.listen", &config.api.listen, guard.is_none().then_some(CLOSED)).await?;
    let limits = config.limits.clone();
    let api = Api::guarded(config, kinds, guard.clone(), stopping.clone());
    if let Some(guard) = guard {
        tokio::spawn(guard.follow(hangup()?, |_| {}));
    }
    if let Some(file) = file {
        let api = api.clone();
        tokio::spawn(file.follow(hangup()?, move |kinds| api.set_kinds(kinds)));
    }
    let cut = api.metrics().of_connections().clone();
    let mut serving = std::pin::pin!(serve(listener, router(api.clone()), bounds, &limits, cut, stopping));
    tokio::select! {
        connected = api.connect() => connected?,
        () = &mut serving => return Ok(()),
    }
    serving.await;
    tracing::info!("stopped");
    Ok(())
}

/// SIGHUP, for files that are then read again.
fn hangup() -> Result<Option<Signal>, Error> {
    signal(SignalKind::hangup()).map(Some).map_err(|e| Error::Config(format!("signals cannot be handled: {e}")))
}

/// How many connections can be served: `limits.connections`, or fewer if the limit of open files requires it.
fn connections(config: &Config) -> usize {
    let wanted = config.limits.connections;
    let soft = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(Ok(soft), |()| Ok(hard)));
    let kept = FILES_KEPT + LOBBY as u64 + config.redis.connections as u64;
    let possible = soft.map_or(wanted, |files| usize::try_from(files.saturating_sub(kept)).unwrap_or(usize::MAX));
    if possible < wanted {
        let advice = "raise the limit of open files (ulimit -n) or lower limits.connections";
        tracing::warn!("serving at most {possible} connections, not limits.connections = {wanted}: {advice}");
    }
    wanted.min(possible).max(1)
}

/// The first SIGTERM or SIGINT starts a graceful shutdown, the second ends the process at once.
fn stop_on_signals(stopping: CancellationToken) -> Result<(), Error> {
    let fault = |e: std::io::Error| Error::Config(format!("signals cannot be handled: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(fault)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stopping.is_cancelled() {
                leasehold::log::say("leasehold-api: second signal, requests are aborted");
                std::process::exit(1);
            }
            stopping.cancel();
        }
    });
    Ok(())
}
