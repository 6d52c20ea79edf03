//! Request bodies: shared with the handler, so that an unread rest can be drained after the response.
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use futures_util::StreamExt;
use leasehold::limits;
use leasehold::server::{Client, Cut};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::budget::{Budget, Share};
use crate::deadline::Clock;
use crate::error::{Code, Problem};
use crate::state::Api;

/// A request's body, shared between its handler and the drain after the response.
#[derive(Clone)]
pub struct Lent(Arc<Mutex<Source>>);

struct Source {
    stream: BodyDataStream,
    ended: bool,
    touched: bool,
    waits_for_continue: bool,
    /// The bytes that were read, and the time spent waiting for them.
    read: u64,
    waited: Duration,
}

impl Lent {
    /// Takes the body out of `request`.
    pub fn take(request: &mut Request) -> Self {
        let waits_for_continue = request.headers().contains_key(EXPECT);
        let body = std::mem::take(request.body_mut());
        let ended = body.is_end_stream();
        Self(Arc::new(Mutex::new(Source {
            stream: Body::into_data_stream(body),
            ended,
            touched: false,
            waits_for_continue,
            read: 0,
            waited: Duration::ZERO,
        })))
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// A problem when no data arrives for `idle`, the client has been slower than a minimal rate for that time, or
    /// disconnects.
    pub async fn next(&self, idle: Duration) -> Result<Option<Bytes>, Problem> {
        let mut source = self.0.lock().await;
        if source.ended {
            return Ok(None);
        }
        source.touched = true;
        // Without a minimal rate, a body of a byte every few seconds would occupy its connection for days.
        let allowed = idle + Duration::from_millis(source.read * 1_000 / limits::BODY_BYTES_PER_S_MIN);
        let (begun, limit) = (Instant::now(), idle.min(allowed.saturating_sub(source.waited)));
        let next = timeout(limit, source.stream.next()).await;
        source.waited += begun.elapsed();
        source.ended = !matches!(next, Ok(Some(Ok(_))));
        if let Ok(Some(Ok(bytes))) = &next {
            source.read += bytes.len() as u64;
        }
        match next {
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(None) => Ok(None),
            Ok(Some(Err(e))) => Err(Problem::new(Code::InvalidRequest, format!("the body is incomplete: {e}"))),
            Err(_) => {
                let idle_ms = idle.as_millis();
                Err(Problem::new(
                    Code::BodyTimeout,
                    format!("it did not arrive, or too slowly, for {idle_ms} ms; send the request again"),
                ))
            }
        }
    }

    /// Drains what the handler has left unread, after the response, so that a client that sends its whole request
    /// before it reads can see the response. It ends after 2 s, with the connection: anybody may send what is refused.
    /// A client that waits for `100 Continue` has not sent anything.
    pub fn drop_rest(self, api: &Api) {
        let Ok(source) = self.0.try_lock() else { return };
        if source.ended || (source.waits_for_continue && !source.touched) {
            return;
        }
        drop(source);
        let api = api.clone();
        tokio::spawn(async move {
            let (limit, mut dropped) = (Duration::from_millis(limits::DRAIN_MS), 0);
            let dropping = async {
                while let Some(bytes) = self.next(limit).await? {
                    dropped += bytes.len();
                    if dropped > api.limits().drain_bytes {
                        return Ok(false);
                    }
                }
                Ok::<_, Problem>(true)
            };
            if !matches!(timeout(limit, dropping).await, Ok(Ok(true))) {
                api.metrics().of_connections().count(Cut::SlowBody);
                if let Some(count) = api.slow_bodies().due() {
                    tracing::warn!(count, "connections were closed: refused bodies did not end in time");
                }
            }
        });
    }
}

/// The text of a JSON body within `limits.body_bytes`.
pub struct JsonText(Held);

/// The text of a JSON body within `limits.bulk_body_bytes`.
pub struct BulkText(Held);

struct Held {
    text: String,
    // Its share of the memory for bodies.
    share: Option<Share>,
}

impl JsonText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl BulkText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Drops the text and keeps its share of the memory, for what was made of it.
    pub fn into_share(self) -> Option<Share> {
        self.0.share
    }
}

impl FromRequestParts<Api> for JsonText {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        read(parts, api, api.limits().body_bytes).await.map(Self)
    }
}

impl FromRequestParts<Api> for BulkText {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        read(parts, api, api.limits().bulk_body_bytes).await.map(Self)
    }
}

async fn read(parts: &Parts, api: &Api, most: usize) -> Result<Held, Problem> {
    check_type(&parts.headers)?;
    let too_large = || {
        let advice = "send less, or larger data by reference";
        Problem::new(Code::BodyTooLarge, format!("the body is larger than {most} bytes; {advice}"))
    };
    if announced(&parts.headers).is_some_and(|bytes| bytes > most as u64) {
        return Err(too_large());
    }
    let client = client(parts);
    let lent = parts.extensions.get::<Lent>().expect("every request's body is lent");
    let clock = parts.extensions.get::<Clock>().expect("every request has a clock");
    clock.stop();
    let idle = Duration::from_millis(api.limits().idle_ms);
    let (mut text, mut share) = (Vec::new(), None);
    while let Some(bytes) = lent.next(idle).await? {
        if text.len() + bytes.len() > most {
            return Err(too_large());
        }
        take_share(&mut share, api.bodies(), client, text.len() + bytes.len())?;
        text.extend_from_slice(&bytes);
    }
    clock.start();
    Ok(Held { text: utf8(text)?, share })
}

/// The bytes of JSON as text.
///
/// # Errors
/// A problem with the position of the first invalid byte.
pub fn utf8(text: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(text).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Problem::new(Code::InvalidJson, format!("byte {at} of the body is not UTF-8, which JSON must be"))
    })
}

/// Who sent a request; unknown in tests that have no connection.
pub fn client(parts: &Parts) -> Client {
    parts.extensions.get().copied().unwrap_or(Client(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// The length of the body, if the client announces it.
pub fn announced(headers: &HeaderMap) -> Option<u64> {
    text_of(headers, CONTENT_LENGTH)?.parse().ok()
}

/// Extends a body's share of memory to `bytes`. A body that finds no room is refused rather than made to wait: bodies
/// that are half read would otherwise wait for each other.
///
/// # Errors
/// [`Code::Busy`] when there is no room.
pub fn take_share(
    share: &mut Option<Share>,
    bodies: &Arc<Budget>,
    client: Client,
    bytes: usize,
) -> Result<(), Problem> {
    let held = share.as_ref().map_or(0, Share::units);
    let more = bytes.saturating_sub(limits::BODY_FREE_BYTES).saturating_sub(held);
    if more == 0 {
        return Ok(());
    }
    let busy = |_| Problem::new(Code::Busy, "too many large bodies are being read; try again");
    match share {
        Some(held) => held.grow(more).map_err(busy),
        None => bodies.take(client, more).map(|taken| *share = Some(taken)).map_err(busy),
    }
}

/// A header as text; `None` when it is absent or not ASCII.
pub fn text_of(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |given: &str| {
        let given: String = given.chars().take(80).collect();
        Err(Problem::new(Code::UnsupportedMediaType, format!("{given}; send Content-Type: application/json")))
    };
    let Some(given) = text_of(headers, CONTENT_TYPE) else { return refuse("the body has no Content-Type") };
    let (essence, parameters) = given.split_once(';').unwrap_or((given, ""));
    let charset =
        parameters.split(';').find_map(|p| p.trim().to_ascii_lowercase().strip_prefix("charset=").map(str::to_owned));
    let is_utf8 = charset.is_none_or(|c| matches!(c.trim_matches('"'), "utf-8" | "utf8"));
    let essence = essence.trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || essence.starts_with("application/") && essence.ends_with("+json");
    if !is_json || !is_utf8 {
        return refuse(&format!("the body is {given}"));
    }
    match text_of(headers, CONTENT_ENCODING) {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
            Err(Problem::new(Code::UnsupportedMediaType, "send the body without Content-Encoding"))
        }
        _ => Ok(()),
    }
}
