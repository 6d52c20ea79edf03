//! Request bodies: shared with the handler, so that an unread rest can be drained after the response.
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use futures_util::StreamExt;
use leasehold::{Limits, limits};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

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
        })))
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// A problem when no data arrives for `idle`, or the client disconnects.
    pub async fn next(&self, idle: Duration) -> Result<Option<Bytes>, Problem> {
        let mut source = self.0.lock().await;
        if source.ended {
            return Ok(None);
        }
        source.touched = true;
        let next = timeout(idle, source.stream.next()).await;
        source.ended = !matches!(next, Ok(Some(Ok(_))));
        match next {
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(None) => Ok(None),
            Ok(Some(Err(e))) => Err(Problem::new(Code::InvalidRequest, format!("the body is incomplete: {e}"))),
            Err(_) => {
                let idle_ms = idle.as_millis();
                Err(Problem::new(
                    Code::BodyTimeout,
                    format!("no data arrived for {idle_ms} ms; send the request again"),
                ))
            }
        }
    }

    /// Drains what the handler has left unread, after the response, so that a client that sends its whole request
    /// before it reads can see the response. A client that waits for `100 Continue` has not sent anything.
    pub fn drop_rest(self, limits: &Limits) {
        let Ok(source) = self.0.try_lock() else { return };
        if source.ended || (source.waits_for_continue && !source.touched) {
            return;
        }
        drop(source);
        let (idle, most) = (Duration::from_millis(limits.idle_ms), limits.drain_bytes);
        tokio::spawn(async move {
            let mut dropped = 0;
            while let Ok(Some(bytes)) = self.next(idle).await {
                dropped += bytes.len();
                if dropped > most {
                    return;
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
    _share: Option<OwnedSemaphorePermit>,
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
    let lent = parts.extensions.get::<Lent>().expect("every request's body is lent");
    let clock = parts.extensions.get::<Clock>().expect("every request has a clock");
    clock.stop();
    let idle = Duration::from_millis(api.limits().idle_ms);
    let (mut text, mut share) = (Vec::new(), None);
    while let Some(bytes) = lent.next(idle).await? {
        if text.len() + bytes.len() > most {
            return Err(too_large());
        }
        take_share(&mut share, api.bodies(), text.len() + bytes.len())?;
        text.extend_from_slice(&bytes);
    }
    clock.start();
    Ok(Held { text: utf8(text)?, _share: share })
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
    share: &mut Option<OwnedSemaphorePermit>,
    bodies: &Arc<Semaphore>,
    bytes: usize,
) -> Result<(), Problem> {
    let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let more = bytes.saturating_sub(limits::BODY_FREE_BYTES).saturating_sub(held);
    if more == 0 {
        return Ok(());
    }
    // In steps larger than a frame, to call the semaphore less often.
    let more = u32::try_from(more.next_multiple_of(64 << 10)).unwrap_or(u32::MAX);
    let busy = || Problem::new(Code::Busy, "too many large bodies are being read; try again");
    let taken = bodies.clone().try_acquire_many_owned(more).map_err(|_| busy())?;
    match share {
        Some(held) => held.merge(taken),
        None => *share = Some(taken),
    }
    Ok(())
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
    if !essence.trim().eq_ignore_ascii_case("application/json") || !is_utf8 {
        return refuse(&format!("the body is {given}"));
    }
    match text_of(headers, CONTENT_ENCODING) {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
            Err(Problem::new(Code::UnsupportedMediaType, "send the body without Content-Encoding"))
        }
        _ => Ok(()),
    }
}
