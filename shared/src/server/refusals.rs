//! A connection's options, and how one is refused below the router.
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a client may take to receive a response.
const LINGER: Duration = Duration::from_secs(1);
/// How long, and how much, a refused client's body is discarded, so that it receives the response.
const DISCARD: (Duration, usize) = (Duration::from_millis(250), 256 << 10);

/// Sets no delay for small responses, and timeouts for a peer that disappears or does not read.
pub fn set_options(stream: &TcpStream, idle: Duration) {
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
pub async fn refuse_late_head(mut stream: TcpStream) {
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

/// The response to a request for which there is no place.
pub fn busy() -> Response {
    let body = "{\"type\":\"urn:leasehold:problem:busy\",\"title\":\"The API is busy\",\"status\":503,\
                \"detail\":\"too many connections are open; close some, or try again\",\"code\":\"busy\"}";
    let head = [("content-type", "application/problem+json"), ("retry-after", "1"), ("connection", "close")];
    (StatusCode::SERVICE_UNAVAILABLE, head, body).into_response()
}

/// Discards a little of what a refused client still sends: closing a connection with unread bytes would reset it, and
/// the client would not see the response.
pub async fn linger(mut stream: TcpStream) {
    let (limit, most) = DISCARD;
    let discarding = async {
        let (mut buffer, mut read) = (vec![0; 16 << 10], 0);
        while read < most {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => read += bytes,
            }
        }
    };
    drop(tokio::time::timeout(limit, discarding).await);
}
