//! Which requests a web page may send to an API without tokens, which trusts everybody who reaches its port: a browser
//! on the same machine reaches it for any page that it shows.
//!
//! Two guards. The Host must be a name of this machine or of `api.hosts`, since a page can point a name of its own here
//! (DNS rebinding). And a request that a page of another site has caused is refused, which browsers say themselves. An
//! API with tokens needs neither: a page does not know them, and browsers do not add them.
use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leasehold::server::TwoLengths;

use crate::error::{Code, Problem};
use crate::fault::Fault;
use crate::state::Api;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Refuses what a page of another site has sent, and requests whose address or length is ambiguous.
pub async fn check(State(api): State<Api>, request: Request, next: Next) -> Response {
    let checked = unambiguous(&request).and_then(|host| match api.guard() {
        Some(_) => Ok(()),
        None => ours(host.as_ref(), &api).and_then(|()| not_foreign(&request, host.as_ref())),
    });
    match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// The Host of a request; `None` for a client of HTTP/1.0 that sends none, which browsers do not.
fn unambiguous(request: &Request) -> Result<Option<Authority>, Problem> {
    if request.extensions().get::<TwoLengths>().is_some() {
        let detail = "Transfer-Encoding and Content-Length exclude each other; send one of them";
        return Err(Problem::invalid(vec![Fault::header("Transfer-Encoding", detail)]));
    }
    let invalid = |detail: &str| Problem::invalid(vec![Fault::header("Host", detail)]);
    let mut given = request.headers().get_all(HOST).iter();
    let Some(value) = given.next() else {
        let optional = request.version() == Version::HTTP_10;
        return if optional { Ok(None) } else { Err(invalid("required: the host and port of this API")) };
    };
    if given.next().is_some() {
        return Err(invalid("given more than once"));
    }
    let host: Option<Authority> =
        Authority::try_from(value.as_bytes()).ok().filter(|host| !host.as_str().contains('@'));
    let host = host.ok_or_else(|| invalid("write a host and optionally a port, such as localhost:8080"))?;
    let named = request.uri().authority();
    if named.is_some_and(|named| !named.as_str().eq_ignore_ascii_case(host.as_str())) {
        return Err(invalid("it differs from the address in the request line"));
    }
    Ok(Some(host))
}

/// Whether the Host is a name of this machine or of `api.hosts`.
fn ours(host: Option<&Authority>, api: &Api) -> Result<(), Problem> {
    let Some(host) = host else { return Ok(()) };
    let name = name_of(host.as_str());
    let config = &api.config().api;
    let is_known = is_loopback(&name)
        || name == name_of(&config.listen)
        || config.hosts.iter().any(|known| known.eq_ignore_ascii_case(&name));
    if is_known {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Problem::new(
        Code::ForeignHost,
        format!(
            "the Host {shown:?} is not a name of this API, which requires no token; use localhost, or add the name to \
             api.hosts (LEASEHOLD_API__HOSTS)"
        ),
    ))
}

/// The name without its port, brackets, and the dot of a fully qualified name; in lower case.
fn name_of(host: &str) -> String {
    let has_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| has_port(port)).map_or(host, |(name, _)| name);
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_loopback(name: &str) -> bool {
    let address = name.parse::<IpAddr>().map(|ip| ip.to_canonical().is_loopback());
    address.unwrap_or_else(|_| name == "localhost" || name.ends_with(".localhost"))
}

/// Whether no page of another site has caused the request. Reading is left to the pages of this site (a page on another
/// port of the same host can show an image, and read nothing else) and to links.
fn not_foreign(request: &Request, host: Option<&Authority>) -> Result<(), Problem> {
    let headers = request.headers();
    let (site, changes) = (word(headers, &SITE), !request.method().is_safe());
    let is_link = word(headers, &MODE) == Some("navigate") && word(headers, &DESTINATION) == Some("document");
    let is_foreign = match site {
        None | Some("same-origin" | "none") => changes && has_foreign_origin(headers, host),
        Some("same-site") => changes,
        Some(_) => changes || !is_link,
    };
    if !is_foreign {
        return Ok(());
    }
    Err(Problem::new(
        Code::CrossSite,
        "a web page of another origin sent this, and this API requires no token; call it from a program, or require \
         tokens (LEASEHOLD_API__TOKENS)",
    ))
}

fn word<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    // A header that is not text names no origin.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn has_foreign_origin(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let uri = Uri::try_from(origin.as_bytes()).ok();
    let default =
        uri.as_ref().and_then(Uri::scheme_str).map_or("", |scheme| if scheme == "https" { "443" } else { "80" });
    let plain = |authority: &Authority| {
        let port = authority.port().map_or(default.to_owned(), |port| port.as_str().to_owned());
        (name_of(authority.as_str()), port)
    };
    let origin = uri.as_ref().and_then(Uri::authority).map(&plain);
    origin.is_none() || origin != host.map(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_without_what_may_vary() {
        for (host, name) in [
            ("localhost", "localhost"),
            ("LocalHost.:8080", "localhost"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "::1"),
            ("[::1]", "::1"),
            ("evil.example:", "evil.example"),
        ] {
            assert_eq!(name_of(host), name, "{host}");
        }
        for name in ["localhost", "api.localhost", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in [
            "",
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "10.0.0.1",
        ] {
            assert!(!is_loopback(name), "{name}");
        }
    }

    #[test]
    fn an_origin_is_ours_when_it_is_the_host() {
        let foreign = |origin: &str, host: &str| {
            let headers = HeaderMap::from_iter([(ORIGIN, origin.parse().unwrap())]);
            has_foreign_origin(&headers, Some(&host.parse().unwrap()))
        };
        for (origin, host) in [
            ("http://localhost:8080", "localhost:8080"),
            ("http://LOCALHOST:8080", "localhost:8080"),
            ("https://jobs.example", "jobs.example"),
            ("https://jobs.example", "jobs.example:443"),
            ("http://jobs.example:80", "jobs.example"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert!(!foreign(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("null", "localhost:8080"),
            ("", "localhost:8080"),
            ("http://localhost:3000", "localhost:8080"),
            ("http://evil.example", "localhost:8080"),
            ("http://localhost", "localhost:8080"),
            ("http://127.0.0.1:8080", "localhost:8080"),
            ("http://localhost:8080.evil.example", "localhost:8080"),
        ] {
            assert!(foreign(origin, host), "{origin} {host}");
        }
    }
}
