//! The HTTP server of the API and of a worker's probe port. Connections are bounded in number and in time.
//!
//! A connection is closed when a request's head does not arrive in time, or when it is idle. At the limit of
//! connections, the one that has been idle longest is closed, so that idle connections never keep a client out.
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::TryFutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{Error, Limits, Result};

/// Bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// How long the process waits beyond the time of a request, and for a client to receive a final response.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted; the kernel may have a lower limit. Beyond it, a client is delayed by a
/// second.
const BACKLOG: u32 = 4_096;
/// The pause after a failed accept, and between closing two idle connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Marks an endless response, which ends soon after the process starts to stop.
#[derive(Clone)]
pub struct Endless;

/// State shared by the connections of a server.
struct Crowd {
    router: Router,
    idle: Duration,
    /// Wakes the connection that has been idle longest, so that it closes.
    make_room: Notify,
    stopping: CancellationToken,
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

/// Serves `router` until `stopping`, then lets requests finish for as long as a request may take. At most `connections`
/// are served at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    limits: &Limits,
    stopping: CancellationToken,
) {
    let idle = Duration::from_millis(limits.idle_ms);
    let crowd = Arc::new(Crowd { router, idle, make_room: Notify::new(), stopping: stopping.clone() });
    let slots = Arc::new(Semaphore::new(connections));
    let tasks = TaskTracker::new();
    let accepting = async {
        loop {
            let slot = slot(&slots, &crowd).await;
            let stream = accept(&listener, &crowd).await;
            let crowd = crowd.clone();
            tasks.spawn(async move {
                connection(stream, &crowd).await;
                drop(slot);
            });
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

/// A permit for one more connection.
async fn slot(slots: &Arc<Semaphore>, crowd: &Crowd) -> OwnedSemaphorePermit {
    loop {
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return slot;
        }
        crowd.make_room.notify_one();
        if let Ok(slot) = tokio::time::timeout(ACCEPT_PAUSE, slots.clone().acquire_owned()).await {
            return slot.expect("the semaphore is never closed");
        }
    }
}

/// The next connection. After a failure to accept (too many open files) it pauses and retries.
async fn accept(listener: &TcpListener, crowd: &Crowd) -> TcpStream {
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(e) if e.raw_os_error().map(Errno::from_raw).is_some_and(is_want) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("cannot accept a connection, closing an idle one: {e}");
                }
                crowd.make_room.notify_one();
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

async fn connection(stream: TcpStream, crowd: &Crowd) {
    set_options(&stream, crowd.idle);
    let (begun, endless) = (AtomicUsize::new(0), AtomicBool::new(false));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        begun.fetch_add(1, Ordering::Relaxed);
        let answering = crowd.router.clone().oneshot(request.map(Body::new));
        answering.inspect_ok(|response| {
            endless.store(response.extensions().get::<Endless>().is_some(), Ordering::Relaxed);
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(crowd.idle)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = drive(Pin::new(&mut connection), crowd, &begun) => ended,
        () = cut_off(&crowd.stopping, &endless) => return,
    };
    match ended {
        Ok(()) => {}
        Err(e) if e.is_timeout() => {
            let parts = connection.into_parts();
            // A connection that has sent nothing was only idle.
            if !parts.read_buf.is_empty() {
                refuse_late_head(parts.io.into_inner()).await;
            }
        }
        Err(e) => tracing::debug!("a connection ended: {e}"),
    }
}

/// Returns when the process stops and the client does not read the end of its endless response.
async fn cut_off(stopping: &CancellationToken, endless: &AtomicBool) {
    stopping.cancelled().await;
    tokio::time::sleep(LINGER).await;
    if !endless.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Runs a connection to its end; `begun` counts its requests. It is closed when its permit is needed or the process
/// stops: at once when it is idle, otherwise after its response.
async fn drive<C>(mut connection: Pin<&mut C>, crowd: &Crowd, begun: &AtomicUsize) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>> + Graceful,
{
    let mut room = pin!(crowd.make_room.notified());
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
            room.set(crowd.make_room.notified());
        }
        if !asked && (stopping.as_mut().poll(cx).is_ready() || room.as_mut().poll(cx).is_ready()) {
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

impl<S> Graceful for http1::Connection<TokioIo<TcpStream>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    fn close_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Sets no delay for small responses, and timeouts for a peer that disappears or does not read.
fn set_options(stream: &TcpStream, idle: Duration) {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new().with_time(idle).with_interval(Duration::from_secs(5)).with_retries(3);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive))
        .and_then(|()| socket.set_tcp_user_timeout(Some(idle)));
    if let Err(e) = set {
        tracing::debug!("setting a connection's options failed: {e}");
    }
}

/// Responds to a client that started a request and did not finish its head.
async fn refuse_late_head(mut stream: TcpStream) {
    let body = "{\"type\":\"urn:leasehold:problem:head_timeout\",\"title\":\"The head did not arrive in time\",\
                \"status\":408,\"detail\":\"send the request again\",\"code\":\"head_timeout\"}";
    let head = format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    // A client that does not read the response is disconnected.
    drop(tokio::time::timeout(LINGER, stream.write_all(format!("{head}{body}").as_bytes())).await);
}
