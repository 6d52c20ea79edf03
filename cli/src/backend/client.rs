//! The transport of the HTTP backend: requests are retried during a short outage, the token is never shown, and errors
//! are one sentence.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::print::without_password;
use crate::problem::Problem;

/// How long a request may take; the API gives itself 30 s.
const REQUEST_LIMIT: Duration = Duration::from_secs(45);
/// How long to wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a call is retried during an outage.
const OUTAGE: Duration = Duration::from_secs(10);
/// How long a call is retried when the API has never answered: perhaps there is none.
const FIRST_OUTAGE: Duration = Duration::from_secs(2);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// May a request whose outcome is not known be sent again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// A repetition changes nothing.
    Safe,
    /// Only when nothing was done.
    Undone,
}

/// A client of one API.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    with_token: bool,
    outage: Duration,
    /// Whether it has answered once.
    met: Arc<AtomicBool>,
}

impl Client {
    /// A client of the API at `base`; nothing is sent yet.
    pub(super) fn new(base: &str, token: Option<&str>) -> Result<Self, Failure> {
        let advice = || Failure::Usage(format!("--api: {base:?} is not an address such as http://127.0.0.1:8080"));
        let url = Url::parse(base).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let url = url.filter(|url| url.query().is_none() && url.fragment().is_none()).ok_or_else(advice)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let rule = "the token must be one word of printable ASCII characters";
            let printable = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
            let value = printable.then(|| HeaderValue::from_str(&format!("Bearer {token}")).ok()).flatten();
            let mut value = value.ok_or_else(|| Failure::Usage(rule.into()))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_LIMIT)
            // The token is sent to the configured address only.
            .redirect(reqwest::redirect::Policy::none());
        if url.host_str().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host)) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| Failure::Failed(format!("HTTP client: {}", reason(&e))))?;
        Ok(Self { http, base: url, with_token: token.is_some(), outage: OUTAGE, met: Arc::default() })
    }

    /// A client that retries during outages of this length.
    pub(super) fn patient(&self, outage: Duration) -> Self {
        Self { outage, ..self.clone() }
    }

    /// The address, as it may be shown.
    pub(super) fn address(&self) -> String {
        without_password(self.base.as_str().trim_end_matches('/'))
    }

    /// A request to the path of those segments below `/api/v1`.
    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.request_with(method, path, &[])
    }

    /// A request with query parameters.
    pub(super) fn request_with(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        let segments = ["api", "v1"].iter().chain(path);
        url.path_segments_mut().expect("http addresses have paths").pop_if_empty().extend(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url).timeout(REQUEST_LIMIT)
    }

    /// Reads JSON.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, Failure> {
        let answer = self.send(Repeat::Safe, || Ok(self.request_with(Method::GET, path, query))).await?;
        self.json(answer).await
    }

    /// The body of an answer, as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, answer: Response) -> Result<T, Failure> {
        let fault = |e: String| {
            Failure::Failed(format!("the API at {} did not answer as Leasehold's API does: {e}", self.address()))
        };
        let body = answer.bytes().await.map_err(|e| fault(reason(&e)))?;
        serde_json::from_slice(&body).map_err(|e| fault(e.to_string()))
    }

    /// Sends the request that `build` makes, and retries it during a short outage where that is safe.
    pub(super) async fn send(
        &self,
        repeat: Repeat,
        build: impl Fn() -> Result<RequestBuilder, Failure>,
    ) -> Result<Response, Failure> {
        let begun = Instant::now();
        let (mut pause, mut unknown) = (Duration::from_millis(50), false);
        loop {
            let sent = build()?.send().await;
            let met = self.met.fetch_or(sent.is_ok(), Ordering::Relaxed) || sent.is_ok();
            let (failure, again, wait) = match sent {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let wait = retry_after(answer.headers());
                    let problem = Problem::read(answer, &self.address(), self.with_token).await;
                    unknown |= problem.is_passing() && !problem.nothing_done();
                    let again = problem.is_passing() && (repeat == Repeat::Safe || problem.nothing_done());
                    (Failure::Refused(Box::new(problem)), again, wait)
                }
                Err(e) => {
                    unknown |= !e.is_connect() && !e.is_builder();
                    let again = !e.is_builder() && (repeat == Repeat::Safe || e.is_connect());
                    (self.unanswered(&e, unknown && repeat == Repeat::Undone), again, None)
                }
            };
            let wait = wait.unwrap_or(pause).min(PAUSE_MAX);
            let outage = if met { self.outage } else { self.outage.min(FIRST_OUTAGE) };
            if !again || begun.elapsed() + wait >= outage {
                return Err(failure);
            }
            sleep(wait).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// The failure for a request without a complete answer.
    pub(super) fn unanswered(&self, error: &reqwest::Error, unknown: bool) -> Failure {
        let (address, reason) = (self.address(), reason(error));
        if error.is_connect() && !unknown {
            let advice = "start one (`leasehold up` does), or name yours with --api or LEASEHOLD_API_URL";
            return Failure::Failed(format!("no API answers at {address} ({reason}); {advice}"));
        }
        let outcome = if unknown { "; whether it was done is not known" } else { "" };
        Failure::Failed(format!("the API at {address} did not answer ({reason}){outcome}"))
    }
}

/// The innermost cause, which says what happened. It has no address, and so no password.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let text = cause.to_string();
    text.split(" for url (").next().unwrap_or_default().to_owned()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}
