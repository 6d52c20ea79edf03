//! `leasehold health`: whether an API or a worker is ready, as an exit code, for containers without curl and a shell.
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use reqwest::Url;
use serde_json::Value;

use crate::arguments::Source;
use crate::failure::Failure;
use crate::print;

/// How long it waits for the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Characters shown of an answer without a reason.
const SHOWN: usize = 200;

/// Which process to ask.
#[derive(Args)]
#[command(after_help = "\
Exit codes: 0 it is ready (or live); 1 it is not, or does not answer; 2 invalid usage.

Examples:
  leasehold health                                       the API at api.listen
  leasehold health --worker --live                       the worker at worker.listen: is it alive?
  leasehold health http://10.0.0.7:9190")]
pub(crate) struct Arguments {
    /// Address to ask; without a path, /readyz [default: api.listen of the settings, on this machine]
    #[arg(value_name = "URL", conflicts_with = "worker", value_parser = address)]
    url: Option<Url>,
    /// Ask the worker at worker.listen of the settings.
    #[arg(long)]
    worker: bool,
    /// Ask /livez: whether the process works, not whether Redis answers it.
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    source: Source,
}

/// Asks once, and prints the answer in one line.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let path = if arguments.live { "/livez" } else { "/readyz" };
    let mut url = match arguments.url.clone() {
        Some(url) => url,
        None => configured(&arguments).await?,
    };
    if url.path() == "/" {
        url.set_path(path);
    }
    // It asks this machine or its neighbours: no proxy, and no other address than the given one.
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().redirect(reqwest::redirect::Policy::none());
    let client = client.build().map_err(|e| Failure::Failed(e.to_string()))?;
    let unanswered = |e: reqwest::Error| Failure::Failed(format!("{url} does not answer: {}", innermost(&e)));
    let answer = client.get(url.clone()).send().await.map_err(unanswered)?;
    let status = answer.status();
    let text = answer.text().await.map_err(unanswered)?;
    if !status.is_success() {
        return Err(Failure::Failed(format!("{url} answers {}: {}", status.as_u16(), reason(&text))));
    }
    Ok(print::line(format_args!("{url}: ok"))?)
}

/// Reads an address with its scheme.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    url.ok_or_else(|| "write an address such as http://127.0.0.1:8080".to_owned())
}

/// The address in the settings, as this machine reaches it.
async fn configured(arguments: &Arguments) -> Result<Url, Failure> {
    let config = arguments.source.load([])?;
    let (key, listen) = match arguments.worker {
        true => ("worker.listen", config.worker.listen),
        false => ("api.listen", Some(config.api.listen)),
    };
    let listen = listen.ok_or_else(|| {
        Failure::Failed("worker.listen is unset, so the worker cannot be asked; set it, e.g. 127.0.0.1:9190".into())
    })?;
    let resolved = tokio::net::lookup_host(&listen).await.ok().and_then(|mut addresses| addresses.next());
    let address = resolved.map(reachable).ok_or_else(|| Failure::Failed(format!("{key} is {listen:?}")))?;
    Ok(Url::parse(&format!("http://{address}")).expect("an address and a port are a URL"))
}

/// What to connect to for a listener: loopback, when it listens on every address.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    SocketAddr::new(ip, listener.port())
}

/// The reason in an answer of an API (`detail`) or a worker (`reason`); else its beginning.
fn reason(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let reason = ["detail", "reason"].iter().find_map(|name| json.get(name)?.as_str());
    reason.map_or_else(|| text.chars().take(SHOWN).collect(), ToOwned::to_owned)
}

/// The last cause of an error; the others only repeat the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
