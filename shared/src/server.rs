//! The HTTP server of the API and of a worker's probe port. Connections are bounded in number, for each client and in
//! all, and in time.
//!
//! A connection is closed when a request's head does not arrive in time, or when it is idle. At a limit of connections,
//! the one that has been idle longest is closed, so that idle connections never keep a client out. A connection beyond
//! the limits is kept just long enough to answer a probe or a scrape: a crowd never makes the process look dead.
mod heads;
mod marks;
mod places;
mod refusals;
mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Method;
use axum::http::header::{CONNECTION, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::log::Seldom;
use crate::{Error, Limits, Result};
use places::{Full, Place, Places, wake_longest_idle};
use refusals::{busy, linger, refuse_late_head, set_options};
use wire::{Seen, Wire};

pub use marks::{Cut, Endless, Metrics, Relief, TwoLengths};
pub use places::{Bounds, Client};

/// Bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// How long the process waits beyond the time of a request, and for a client to receive a final response.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted; the kernel may have a lower limit. Beyond it, a client is delayed by a
/// second.
const BACKLOG: u32 = 4_096;
/// The pause after a failed accept, and between closing two idle connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// How long a connection waits for an idle one to be closed for it.
const ENTER_WITHIN: Duration = Duration::from_millis(50);
/// Connections in the lobby, beyond those that are served.
pub const LOBBY: usize = 64;
/// How long the head of a request may take there.
const LOBBY_HEAD: Duration = Duration::from_secs(2);

/// State shared by the connections of a server.
struct Crowd {
    router: Router,
    idle: Duration,
    places: Arc<Places>,
    /// The connections that have no place yet, or will not have one.
    lobby: Arc<Semaphore>,
    /// Wakes the connection that has been longest in the lobby, so that it closes.
    lobby_room: [Arc<Notify>; 1],
    stopping: CancellationToken,
    relief: Relief,
    metrics: Metrics,
    refused: Seldom,
}

/// Listens on `address`, the value of the setting `key`; other than loopback only when `closed` is `None`, else it has
/// the reason.
///
/// # Errors
/// [`Error::Config`] names the key, and what to write instead.
pub async fn listen(key: &str, address: &str, closed: Option<&str>) -> Result<TcpListener> {
    let fault = |reason: String| Error::Config(format!("{key} is {address:?}: {reason}"));
    let resolved =
        tokio::net::lookup_host(address).await.map_err(|e| fault(format!("{e}; write 127.0.0.1:8080 or :8080")))?;
    let resolved: Vec<SocketAddr> = resolved.collect();
    let outside = resolved.iter().find(|a| !a.ip().is_loopback());
    if let Some((outside, reason)) = outside.zip(closed) {
        let port = outside.port();
        return Err(fault(format!(
            "{outside} can be reached from other machines, {reason}, or write 127.0.0.1:{port}"
        )));
    }
    let first = *resolved.first().ok_or_else(|| fault("it has no address; write 127.0.0.1:8080".into()))?;
    let listener = bind(first).map_err(|e| fault(format!("{e}; is the port taken?")))?;
    let bound = listener.local_addr().map_err(|e| fault(e.to_string()))?;
    tracing::info!("listening on http://{bound}");
    Ok(listener)
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `router` until `stopping`, then lets requests finish for as long as a request may take.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    limits: &Limits,
    metrics: Metrics,
    stopping: CancellationToken,
) {
    let crowd = Arc::new(Crowd {
        router,
        idle: Duration::from_millis(limits.idle_ms),
        places: Places::new(bounds),
        lobby: Arc::new(Semaphore::new(LOBBY)),
        lobby_room: [Arc::default()],
        stopping: stopping.clone(),
        relief: Relief::default(),
        metrics,
        refused: Seldom::default(),
    });
    let tasks = TaskTracker::new();
    let accepting = async {
        loop {
            let entrance = entrance(&crowd).await;
            let (stream, address) = accept(&listener, &crowd).await;
            tasks.spawn(welcome(stream, Client::at(address), entrance, crowd.clone()));
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stopping.cancelled() => {}
    }
    drop(listener);
    tasks.close();
    tracing::info!(connections = tasks.len(), "stopping: accepting no new connections, waiting for requests to finish");
    let finished = tokio::time::timeout(Duration::from_millis(limits.request_ms) + LINGER, tasks.wait()).await;
    if finished.is_err() {
        tracing::warn!(connections = tasks.len(), "requests did not finish in time; closing their connections");
    }
}

/// A permit for one more connection in the lobby.
async fn entrance(crowd: &Crowd) -> OwnedSemaphorePermit {
    loop {
        if let Ok(entrance) = crowd.lobby.clone().try_acquire_owned() {
            return entrance;
        }
        wake_longest_idle(&crowd.lobby_room[0]);
        if let Ok(entrance) = tokio::time::timeout(ACCEPT_PAUSE, crowd.lobby.clone().acquire_owned()).await {
            return entrance.expect("the semaphore is never closed");
        }
    }
}

/// Serves a new connection: as any other when there is a place for it, or else only its first request, if that is a
/// probe.
async fn welcome(stream: TcpStream, client: Client, entrance: OwnedSemaphorePermit, crowd: Arc<Crowd>) {
    let entered = tokio::select! {
        entered = crowd.places.enter(client, ENTER_WITHIN, ACCEPT_PAUSE) => entered,
        // Others wait to be accepted: a probe may be among them.
        () = crowd.lobby_room[0].notified() => crowd.places.enter(client, Duration::ZERO, ACCEPT_PAUSE).await,
    };
    match entered {
        Ok(place) => {
            drop(entrance);
            connection(stream, client, Some(&place), &crowd).await;
        }
        Err(full) => {
            crowd.metrics.count(if full == Full::All { Cut::Limit } else { Cut::ClientLimit });
            if let Some(count) = crowd.refused.due() {
                let setting = match full {
                    Full::All => "limits.connections",
                    Full::Client => "limits.client_connections",
                };
                let client = client.0;
                let said = format!("connections are refused, and only probes answered: {setting} is reached");
                tracing::warn!(%client, count, "{said}");
            }
            connection(stream, client, None, &crowd).await;
            drop(entrance);
        }
    }
}

/// The next connection. After a failure to accept (too many open files) it pauses and retries.
async fn accept(listener: &TcpListener, crowd: &Crowd) -> (TcpStream, SocketAddr) {
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(e) if e.raw_os_error().map(Errno::from_raw).is_some_and(is_want) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("cannot accept a connection, closing an idle one: {e}");
                }
                crowd.places.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The client disconnected before it was accepted.
            Err(e) => tracing::debug!("a connection was not accepted: {e}"),
        }
    }
}

/// Whether the process or the machine is out of file descriptors or memory for connections.
fn is_want(error: Errno) -> bool {
    matches!(error, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
}

/// Serves a connection; without a place, only a probe, and only one.
async fn connection(stream: TcpStream, client: Client, place: Option<&Place>, crowd: &Crowd) {
    set_options(&stream, crowd.idle);
    let (begun, endless, turned_endless) = (AtomicUsize::new(0), AtomicBool::new(false), Notify::new());
    let seen = Seen::new(HEAD_BYTES);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        begun.fetch_add(1, Ordering::Relaxed);
        let head = seen.next_head();
        let mut last = head.chunked || place.is_none();
        let refused = place.is_none() && !is_probe(&request);
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(crowd.relief.clone());
        if head.two_lengths {
            request.extensions_mut().insert(TwoLengths);
        }
        let (endless, turned_endless, router) = (&endless, &turned_endless, crowd.router.clone());
        async move {
            if refused {
                return Ok(busy());
            }
            let mut response = router.oneshot(request.map(Body::new)).await?;
            let is_endless = response.extensions().get::<Endless>().is_some();
            endless.store(is_endless, Ordering::Relaxed);
            if is_endless {
                turned_endless.notify_one();
            }
            last |= head.two_lengths;
            if last {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if place.is_some() { crowd.idle } else { crowd.idle.min(LOBBY_HEAD) })
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Wire::new(stream, seen.clone())), service);
    let room = place.map_or(&crowd.lobby_room[..], |place| &place.make_room);
    let ended = tokio::select! {
        ended = drive(Pin::new(&mut connection), crowd, room, &begun) => ended,
        () = cut_off(&crowd.stopping, &endless) => return,
        () = stalled(&seen, &turned_endless, &crowd.relief, crowd.idle / 3) => {
            crowd.metrics.count(Cut::SlowReader);
            return;
        }
    };
    match ended {
        Ok(()) if place.is_none() => {
            let stream = connection.into_parts().io.into_inner().into_inner();
            tokio::select! {
                () = linger(stream) => {}
                () = crowd.lobby_room[0].notified() => {}
            }
        }
        Ok(()) => {}
        Err(e) if e.is_timeout() => {
            let parts = connection.into_parts();
            // A connection that has sent nothing was only idle.
            if !parts.read_buf.is_empty() && place.is_some() {
                refuse_late_head(parts.io.into_inner().into_inner()).await;
            }
        }
        Err(e) => tracing::debug!("a connection ended: {e}"),
    }
}

/// Whether a request is answered even when no place is left.
fn is_probe(request: &hyper::Request<Incoming>) -> bool {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    reads && ["/livez", "/readyz", "/metrics"].contains(&request.uri().path())
}

/// Returns when the process stops and the client does not read the end of its endless response.
async fn cut_off(stopping: &CancellationToken, endless: &AtomicBool) {
    stopping.cancelled().await;
    tokio::time::sleep(LINGER).await;
    if !endless.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Returns when the client has not read its endless response for `limit`: what it does not read occupies memory.
async fn stalled(seen: &Seen, turned_endless: &Notify, relief: &Relief, limit: Duration) {
    turned_endless.notified().await;
    loop {
        let limit = tokio::select! {
            () = tokio::time::sleep(limit / 2) => limit,
            () = relief.asked() => limit.min(Relief::PATIENCE),
        };
        if seen.blocked_for() >= limit {
            return;
        }
    }
}

/// Runs a connection to its end; `begun` counts its requests. It is closed when its place is needed (`room` wakes it)
/// or the process stops: at once when it is idle, otherwise after its response.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    crowd: &Crowd,
    room: &[Arc<Notify>],
    begun: &AtomicUsize,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>> + Graceful,
{
    let waiting = || room.iter().map(|room| Box::pin(room.notified())).collect::<Vec<_>>();
    let mut rooms = waiting();
    let mut stopping = pin!(crowd.stopping.cancelled());
    let (mut known, mut asked) = (0, false);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        let begun = begun.load(Ordering::Relaxed);
        if begun != known {
            // A request moves the connection to the end of the order in which idle connections are closed.
            known = begun;
            rooms = waiting();
        }
        let mut is_needed = || rooms.iter_mut().any(|room| room.as_mut().poll(cx).is_ready());
        if !asked && (is_needed() || stopping.as_mut().poll(cx).is_ready()) {
            if begun == 0 {
                // hyper would continue to wait for the rest of a first head.
                return Poll::Ready(Ok(()));
            }
            asked = true;
            connection.as_mut().close_gracefully();
            return connection.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await
}

/// A connection that can be closed gracefully after its request.
trait Graceful {
    fn close_gracefully(self: Pin<&mut Self>);
}

impl<S> Graceful for http1::Connection<TokioIo<Wire>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    fn close_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
