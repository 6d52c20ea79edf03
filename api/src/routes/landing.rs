//! The page at `/`: what this server is, and where its API is described.
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use crate::extract::accept::wants_html;

/// Nothing may be loaded, run, framed or submitted.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = concat!(
    r#"<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Leasehold</title></head>
<body>
<h1>Leasehold "#,
    env!("CARGO_PKG_VERSION"),
    r#"</h1>
<p>A durable job system on Redis. This is its HTTP API.</p>
<ul>
<li><a href="/openapi.json">/openapi.json</a>: the API, as OpenAPI 3.1</li>
<li><a href="/api/v1/jobs">/api/v1/jobs</a>: the jobs</li>
<li><a href="/livez">/livez</a>: whether this process runs</li>
<li><a href="/readyz">/readyz</a>: whether Redis answers and accepts writes</li>
<li><a href="/metrics">/metrics</a>: metrics, for Prometheus</li>
</ul>
<p>Where tokens are configured, /api/v1/jobs and /metrics require one. The documentation is in the folder <code>docs</code> of
Leasehold's source; <code>docs/http-api.md</code> describes this API.</p>
</body>
</html>
"#
);

const INDEX: &str = concat!(
    r#"{"name":"Leasehold","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#"","openapi":"/openapi.json","jobs":"/api/v1/jobs","livez":"/livez","readyz":"/readyz","metrics":"/metrics","#,
    r#""documentation":"docs/http-api.md in Leasehold's source"}"#
);

/// `GET /`: a page for a browser, JSON for other clients.
pub async fn index(headers: HeaderMap) -> Response {
    let (content_type, body) =
        if wants_html(&headers) { ("text/html; charset=utf-8", PAGE) } else { ("application/json", INDEX) };
    let mut response = ([(CONTENT_TYPE, content_type)], body).into_response();
    for (name, value) in [(CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer"), (VARY, "accept")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
