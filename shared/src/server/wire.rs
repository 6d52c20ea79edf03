//! A connection as hyper reads and writes it, with what hyper does not show: the heads of its requests, and how long
//! its client has not read.
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::heads::{Head, Heads};

/// What is known of a connection.
pub struct Seen {
    heads: Mutex<Heads>,
    begun: Instant,
    /// Since when a write has been waiting for the client, ms after `begun`, plus 1; 0: none is.
    blocked_since: AtomicU64,
}

impl Seen {
    /// Of a new connection; heads may have `head_bytes` bytes.
    pub fn new(head_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            heads: Mutex::new(Heads::new(head_bytes)),
            begun: Instant::now(),
            blocked_since: AtomicU64::new(0),
        })
    }

    /// The head of the next request.
    pub fn next_head(&self) -> Head {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// How long the client has not read what is to be written.
    pub fn blocked_for(&self) -> Duration {
        match self.blocked_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.begun.elapsed().saturating_sub(Duration::from_millis(since - 1)),
        }
    }

    fn written<T>(&self, poll: Poll<T>) -> Poll<T> {
        if poll.is_ready() {
            self.blocked_since.store(0, Ordering::Relaxed);
        } else if self.blocked_since.load(Ordering::Relaxed) == 0 {
            let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.blocked_since.store(now_ms + 1, Ordering::Relaxed);
        }
        poll
    }
}

/// The connection.
pub struct Wire {
    stream: TcpStream,
    seen: Arc<Seen>,
}

impl Wire {
    /// A stream whose reads and writes are noted in `seen`.
    pub fn new(stream: TcpStream, seen: Arc<Seen>) -> Self {
        Self { stream, seen }
    }

    /// The stream.
    pub fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) {
            self.seen.heads.lock().unwrap_or_else(PoisonError::into_inner).push(&buf.filled()[before..]);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.seen.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.seen.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
