//! Fetches URLs that clients name, without giving clients access to the worker's own network.
//!
//! Every address is checked where the connection is made: names in the resolver that the HTTP client uses (so that a
//! second DNS answer changes nothing), literal addresses before each request, since they bypass the resolver. Redirects
//! are followed here, one at a time; proxies from the environment are not used, since they would make the connection
//! instead. Everything is bounded: bytes received and decompressed, total time, time without data, redirects.
mod address;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use leasehold::limits;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::OnceCell;

use address::Gate;

/// The `Accept` header: readable documents first, then anything.
const ACCEPTED: &str = "text/html, application/xhtml+xml, application/pdf, text/plain, */*;q=0.1";

/// Why a fetch failed. The text follows the URL: "https://… answered 404 Not Found".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    /// The URL, or one it redirects to, is not valid for a fetch.
    #[error("cannot be fetched: {0}")]
    Url(String),
    /// The host has only private addresses.
    #[error("leads to a private address ({0}); set LEASEHOLD_FETCH__ALLOW_PRIVATE=true to allow it")]
    Private(IpAddr),
    /// The status is neither a success nor a redirect.
    #[error("answered {0}")]
    Status(StatusCode),
    /// Over `limits::FETCH_REDIRECTS_MAX`.
    #[error("redirects more than {} times", limits::FETCH_REDIRECTS_MAX)]
    Redirects,
    /// Over `limits::FETCH_BYTES_MAX`.
    #[error("is larger than {} MiB", limits::FETCH_BYTES_MAX >> 20)]
    TooLarge,
    /// The content encoding was not requested, or the data is damaged.
    #[error("has an unreadable content encoding: {0}")]
    Packed(String),
    /// The server, or the network between, failed.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Over `limits::FETCH_MS_MAX`.
    #[error("took longer than {} s", limits::FETCH_MS_MAX / 1_000)]
    TimedOut,
}

impl FetchError {
    /// Whether a later fetch of the same URL may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status(status) => status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429),
            Self::Unreachable(_) | Self::TimedOut => true,
            _ => false,
        }
    }
}

/// A fetched document.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Its URL after all redirects.
    pub url: Url,
    /// The `Content-Type` header; empty if there is none.
    pub content_type: String,
    /// The body, decompressed.
    pub body: Vec<u8>,
}

/// Fetches documents. Clones share one client.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    gate: Gate,
    /// Made by the first fetch: a worker that fetches nothing needs no certificates.
    client: Arc<OnceCell<Client>>,
}

impl Fetcher {
    /// With `allow_private`, private addresses are allowed too.
    pub fn new(allow_private: bool) -> Self {
        Self { gate: Gate::new(allow_private), client: Arc::default() }
    }

    /// Fetches a document. Cancel-safe.
    pub async fn fetch(&self, url: &Url) -> Result<Fetched, FetchError> {
        let most = Duration::from_millis(limits::FETCH_MS_MAX);
        tokio::time::timeout(most, self.follow(url.clone())).await.unwrap_or(Err(FetchError::TimedOut))
    }

    async fn follow(&self, mut url: Url) -> Result<Fetched, FetchError> {
        for _ in 0..=limits::FETCH_REDIRECTS_MAX {
            self.admit(&url)?;
            let client = self.client.get_or_try_init(|| async { client(self.gate) }).await?;
            let request = client.get(url.clone()).header(ACCEPT, ACCEPTED).header(ACCEPT_ENCODING, "gzip");
            let response = request.send().await.map_err(client_error)?;
            match response.status() {
                status if status.is_success() => {
                    let content_type = header(response.headers(), CONTENT_TYPE.as_str()).to_owned();
                    return Ok(Fetched { url, content_type, body: body(response).await? });
                }
                status if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) => {
                    let location = header(response.headers(), LOCATION.as_str());
                    url = url
                        .join(location)
                        .map_err(|_| FetchError::Url(format!("it answered {status} without a valid Location")))?;
                }
                status => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::Redirects)
    }

    /// Checks that a URL may be requested. A host that is a literal address is checked here, since it bypasses the
    /// resolver.
    pub fn admit(&self, url: &Url) -> Result<(), FetchError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Url(format!("{} is neither http nor https", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Url("a URL with a user name or password is not allowed".to_owned()));
        }
        let host = url.host_str().unwrap_or_default();
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match literal.parse::<IpAddr>() {
            Ok(address) if !self.gate.admits(address) => Err(FetchError::Private(address)),
            _ => Ok(()),
        }
    }
}

fn client(gate: Gate) -> Result<Client, FetchError> {
    // A Rust program with its own handlers may not have installed a provider; this fails only if one is installed
    // already.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .dns_resolver(GuardedResolver(gate))
        .connect_timeout(Duration::from_millis(limits::FETCH_CONNECT_MS))
        .read_timeout(Duration::from_millis(limits::FETCH_IDLE_MS))
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|e| FetchError::Unreachable(reason(&e)))
}

/// Resolves names to those of their addresses that may be connected to.
struct GuardedResolver(Gate);

/// All addresses of a name are refused.
#[derive(Debug, thiserror::Error)]
#[error("{0} is private")]
struct PrivateOnly(IpAddr);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let gate = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (public, private): (Vec<_>, Vec<_>) = found.partition(|at| gate.admits(at.ip()));
            match private.first() {
                Some(address) if public.is_empty() => Err(PrivateOnly(address.ip()).into()),
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

/// The whole body; an error if it exceeds the limit, as received or decompressed.
async fn body(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let packed = header(response.headers(), CONTENT_ENCODING.as_str()).trim().to_ascii_lowercase();
    if response.content_length().is_some_and(|bytes| bytes > limits::FETCH_BYTES_MAX) {
        return Err(FetchError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(client_error)? {
        if (body.len() + chunk.len()) as u64 > limits::FETCH_BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    match packed.as_str() {
        "" | "identity" => Ok(body),
        "gzip" | "x-gzip" => {
            let unpacking = tokio::task::spawn_blocking(move || unpacked(&body));
            unpacking.await.map_err(|e| FetchError::Unreachable(e.to_string()))?
        }
        _ => Err(FetchError::Packed(leasehold::job::cut(&packed, 100).to_owned())),
    }
}

fn unpacked(packed: &[u8]) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    let read = MultiGzDecoder::new(packed).take(limits::FETCH_BYTES_MAX + 1).read_to_end(&mut body);
    match read {
        Ok(bytes) if bytes as u64 > limits::FETCH_BYTES_MAX => Err(FetchError::TooLarge),
        Ok(_) => Ok(body),
        Err(_) => Err(FetchError::Packed("damaged gzip".to_owned())),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Converts an error of the client; finds a refusal of the resolver among its causes.
fn client_error(error: reqwest::Error) -> FetchError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(here) = cause {
        if let Some(PrivateOnly(address)) = here.downcast_ref() {
            return FetchError::Private(*address);
        }
        cause = here.source();
    }
    FetchError::Unreachable(reason(&error.without_url()))
}

/// The texts of an error and its causes, without repetitions.
fn reason(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(here) = cause {
        let text = here.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = here.source();
    }
    leasehold::job::cut(&message, 300).to_owned()
}
