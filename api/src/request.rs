//! The middleware around every request: its id, span, deadline and metrics, and a response even when its handler
//! panics.
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use leasehold::store::within_one_outage;
use tokio::time::Instant;
use tracing::Instrument;

use crate::deadline::Clock;
use crate::error::{Cause, Code, Problem};
use crate::extract::body::Lent;
use crate::state::Api;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Runs a request, and answers it even when `next` panics or exceeds the deadline.
pub async fn handle(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let (begun, in_flight) = (Instant::now(), api.metrics().begin(&request));
    let id = request_id(request.headers());
    let shown = id.to_str().unwrap_or_default();
    let (method, path) = (request.method(), request.uri().path());
    let span = tracing::info_span!("request", id = shown, %method, path, token = tracing::field::Empty);
    let clock = Clock::new(Duration::from_millis(api.limits().request_ms));
    let lent = Lent::take(&mut request);
    request.extensions_mut().insert(clock.clone());
    request.extensions_mut().insert(lent.clone());
    let (method, outage) = (request.method().clone(), Duration::from_millis(api.config().redis.outage_ms));
    let mut response = async {
        let running = within_one_outage(outage, next.run(request));
        tokio::select! {
            answered = AssertUnwindSafe(running).catch_unwind() => answered.unwrap_or_else(|p| panicked(&*p)),
            () = clock.run_out() => out_of_time(&method).into_response(),
        }
    }
    .instrument(span.clone())
    .await;
    in_flight.answered(response.status());
    lent.drop_rest(&api);
    span.in_scope(|| log(&response, begun.elapsed()));
    let head = response.headers_mut();
    head.insert(REQUEST_ID, id);
    // No response is a script or a page by guess, or is loaded by a page of another site.
    head.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    head.insert(RESOURCE_POLICY, HeaderValue::from_static("same-site"));
    response
}

/// The client's id if it is safe to log, or else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_safe = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
    };
    headers.get(REQUEST_ID).filter(is_safe).cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::now_v7().to_string();
        HeaderValue::from_str(&id).expect("a UUID is printable ASCII")
    })
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
    let mut response = Problem::new(Code::Internal, "the failure has been logged under the request id").into_response();
    response.extensions_mut().insert(Cause(message.to_owned()));
    response
}

fn out_of_time(method: &Method) -> Problem {
    if method.is_safe() {
        return Problem::new(Code::DeadlineExceeded, "the request exceeded limits.request_ms; try again");
    }
    let advice = "the request may or may not have been executed; repeating it is safe, for a submit only with the same \
                  Idempotency-Key";
    Problem::new(Code::OutcomeUnknown, advice)
}

/// Logs the response; the only place that logs a failed request.
fn log(response: &Response, took: Duration) {
    let (status, took_ms) = (response.status().as_u16(), took.as_millis());
    let cause = response.extensions().get::<Cause>().map_or("", |cause| cause.0.as_str());
    match status {
        ..500 => tracing::debug!(status, took_ms, "answered"),
        503 => tracing::warn!(status, took_ms, cause, "not answered"),
        _ => tracing::error!(status, took_ms, cause, "failed"),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::{any, get};
    use leasehold::{Config, Kinds};
    use tower::ServiceExt;

    use super::*;

    async fn answer(method: &str, path: &str) -> Response {
        let mut config = Config::default();
        config.limits.request_ms = 20;
        let api = Api::new(config, Kinds::default(), Default::default());
        let router = Router::new()
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("a bug")
                    }
                }),
            )
            .route("/stuck", any(std::future::pending::<()>))
            .layer(from_fn_with_state(api, handle));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_its_message_kept_for_the_log() {
        let response = answer("GET", "/panic").await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.extensions().get::<Cause>().unwrap().0, "a bug");
        assert!(response.headers().contains_key("x-request-id"));
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_answered_and_a_change_is_not_called_a_failure() {
        for (method, code) in [("GET", "deadline_exceeded"), ("POST", "outcome_unknown")] {
            let response = answer(method, "/stuck").await;
            assert_eq!(response.status(), 503);
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            assert!(String::from_utf8_lossy(&body).contains(code), "{body:?}");
        }
    }
}
