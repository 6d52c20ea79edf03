//! A real `leasehold-api` on a free port, and the calls tests make to it.

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, ClientBuilder, Method, RequestBuilder};
use serde_json::Value;

use crate::binary::path;
use crate::contract;
use crate::port::Port;
use crate::process::Process;
use crate::wait::eventually;

/// How long an API may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a single look at a starting API may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// How long a request may take; longer than the longest `Prefer: wait`.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);

/// A running `leasehold-api`. Dropping it kills it.
#[derive(Debug)]
pub struct Api {
    process: Process,
    port: Port,
    client: Client,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; null when it is empty or no JSON.
    pub json: Value,
    /// The body.
    pub text: String,
}

impl Api {
    /// Starts an API on a free port, with `environment` on top, and waits until it lives
    /// (`/livez`); Redis may be away.
    ///
    /// # Panics
    /// When it is not built, ends at once, or does not answer within 30 s.
    pub async fn start(redis_url: &str, environment: &[(&str, &str)]) -> Api {
        Api::start_program(&path("leasehold-api"), redis_url, environment).await
    }

    /// The same for an API of another version.
    ///
    /// # Panics
    /// As [`Api::start`].
    pub async fn start_program(program: &Path, redis_url: &str, environment: &[(&str, &str)]) -> Api {
        let port = Port::reserve();
        let listen = port.address().to_string();
        let mut variables = vec![("LEASEHOLD_REDIS_URL", redis_url), ("LEASEHOLD_API__LISTEN", &listen)];
        variables.extend_from_slice(environment);
        let client = client().timeout(REQUEST_LIMIT).build().expect("an HTTP client can be made");
        let process = Process::start(program, &[], &variables);
        let api = Api { process, port, client };
        api.wait_for("/livez").await;
        api
    }

    /// Starts it again on the same port (killing it first when it still runs) and waits until it
    /// lives.
    pub async fn restart(&self) {
        self.process.restart();
        self.wait_for("/livez").await;
    }

    /// Waits until it says that it is ready: Redis answers it and takes writes.
    pub async fn wait_ready(&self) {
        self.wait_for("/readyz").await;
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }

    /// A request yet to be sent, for headers, files and streams.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    async fn wait_for(&self, path: &str) {
        let what = format!("the API answers 200 to {path}");
        eventually(START_LIMIT, &what, async || {
            if let Some(status) = self.process.exit_status() {
                panic!("the API ended instead of starting: {status}");
            }
            let request = self.request(Method::GET, path).timeout(LOOK_LIMIT);
            let response = request.send().await.map_err(|error| error.to_string())?;
            match response.status().as_u16() {
                200 => Ok(()),
                status => Err(format!("status {status}")),
            }
        })
        .await;
    }
}

impl Deref for Api {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// Sends a request, reads the answer, and holds it against `openapi.json`.
///
/// # Panics
/// When it is not as described, or there is none: a test that expects none sends the request itself.
pub async fn answer(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.expect("a request that can be sent");
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await.expect("the API answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("the answer has an end");
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    let answer = Answer { status, headers, json, text };
    contract::hold(method.as_str(), &path, &answer);
    answer
}

/// An HTTP client to be, without proxies. reqwest is built without a provider of cryptography and wants one before its
/// first client, TLS or not.
pub fn client() -> ClientBuilder {
    // Fails only when there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().no_proxy()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::RedisServer;

    #[tokio::test]
    async fn an_api_comes_back_on_its_port() {
        let redis = RedisServer::start().await;
        let api = Api::start(&redis.url(), &[]).await;
        api.wait_ready().await;
        let url = api.url("/livez");
        api.kill9();
        assert!(!api.is_running());
        api.restart().await;
        assert_eq!((api.url("/livez"), api.get("/livez").await.status), (url, 200));
        api.sigterm();
        assert!(api.wait_exit(START_LIMIT).await.success());
    }
}
