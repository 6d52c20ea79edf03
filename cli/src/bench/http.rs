//! An HTTP load: requests over a number of connections, each with one request at a time.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::figure::percentile;
use crate::failure::Failure;

/// Connections.
pub(super) const CONNECTIONS: usize = 64;

/// Requests to send.
#[derive(Clone)]
pub(super) enum Requests {
    /// `POST` this body to this path.
    Submit { path: String, body: String },
    /// `GET` these paths in turn.
    Read { paths: Arc<Vec<String>> },
}

/// What a load measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Requests a second.
    pub rate: f64,
    /// The middle of the times of requests, ms.
    pub p50_ms: f64,
    /// The time that 99 % of the requests do not exceed, ms.
    pub p99_ms: f64,
    /// Requests answered.
    pub requests: usize,
}

fn fault(address: &str, e: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("HTTP to {address}: {e}"))
}

/// Sends requests for `time`.
pub(super) async fn load(address: &str, requests: &Requests, time: Duration) -> Result<Load, Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let connections = (0..CONNECTIONS).map(|_| connection(address, requests, begun + time, Arc::clone(&next)));
    let times: Vec<f64> = try_join_all(connections).await?.into_iter().flatten().collect();
    Ok(Load {
        rate: times.len() as f64 / begun.elapsed().as_secs_f64(),
        p50_ms: percentile(&times, 50.0),
        p99_ms: percentile(&times, 99.0),
        requests: times.len(),
    })
}

/// Sends requests over one connection; how long each took, ms.
async fn connection(
    address: &str,
    requests: &Requests,
    end: Instant,
    next: Arc<AtomicUsize>,
) -> Result<Vec<f64>, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|e| fault(address, e))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| fault(address, e))?;
    let driver = tokio::spawn(connection);
    let mut times = Vec::new();
    while Instant::now() < end {
        let request = request(address, requests, next.fetch_add(1, Ordering::Relaxed));
        let begun = Instant::now();
        sender.ready().await.map_err(|e| fault(address, e))?;
        let response = sender.send_request(request).await.map_err(|e| fault(address, e))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| fault(address, e))?.to_bytes();
        if !status.is_success() {
            return Err(fault(address, format_args!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    driver.abort();
    Ok(times)
}

fn request(address: &str, requests: &Requests, number: usize) -> Request<Full<Bytes>> {
    let request = match requests {
        Requests::Submit { path, body } => {
            let head = Request::post(path).header("content-type", "application/json");
            head.header("host", address).body(Full::new(Bytes::from(body.clone())))
        }
        Requests::Read { paths } => {
            Request::get(&paths[number % paths.len()]).header("host", address).body(Full::default())
        }
    };
    request.expect("the paths of a measurement are valid")
}
