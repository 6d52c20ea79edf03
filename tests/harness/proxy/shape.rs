//! How slowly and in what portions bytes travel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::WriteHalf;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::network::Shared;
use super::resp::Command;
use super::rule::{Armed, Then};

/// How many pieces may be under way one way, before the sender has to wait.
pub(super) const QUEUE_PIECES: usize = 4096;

/// The shape of the traffic, each way; the default is as fast as the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shape {
    /// How long everything takes.
    pub delay: Duration,
    /// At most how much longer some of it takes, drawn anew each time; nothing overtakes.
    pub jitter: Duration,
    /// How many bytes pass in a second; 0 = no limit.
    pub bytes_per_second: u32,
    /// How many bytes are written at once; 0 = all there are.
    pub fragment_bytes: usize,
    /// The pause after each fragment.
    pub fragment_pause: Duration,
}

impl Shape {
    pub(super) async fn send(&self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
        if self.fragment_bytes == 0 {
            return to.write_all(bytes).await;
        }
        for fragment in bytes.chunks(self.fragment_bytes) {
            to.write_all(fragment).await?;
            match self.fragment_pause {
                Duration::ZERO => yield_now().await,
                pause => sleep(pause).await,
            }
        }
        Ok(())
    }
}

/// Bytes on their way, and what happens once they are delivered.
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    pub(super) at: Instant,
    pub(super) strike: Option<Strike>,
}

/// A fault that comes right after the piece that carries it.
pub(super) struct Strike {
    pub(super) rule: Arc<Armed>,
    pub(super) command: Command,
    pub(super) then: Option<Then>,
}

impl Strike {
    pub(super) fn new(rule: Arc<Armed>, command: Command, then: Option<Then>) -> Strike {
        Strike { rule, command, then }
    }
}

/// Where a reader puts what is to be delivered, in order.
pub(super) struct Outbox<'a> {
    queue: mpsc::Sender<Piece>,
    shared: &'a Shared,
    gathered: BytesMut,
    last_at: Instant,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(queue: mpsc::Sender<Piece>, shared: &'a Shared) -> Outbox<'a> {
        Outbox { queue, shared, gathered: BytesMut::new(), last_at: Instant::now() }
    }

    /// Adds bytes to the piece that the next `flush` or `strike` sends.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
    }

    /// Sends what was added.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let bytes = self.gathered.split().freeze();
        self.send(bytes, None).await
    }

    /// Sends what was added, then these bytes and the fault that follows them.
    pub(super) async fn strike(&mut self, bytes: Bytes, strike: Strike) -> io::Result<()> {
        self.flush().await?;
        self.send(bytes, Some(strike)).await
    }

    async fn send(&mut self, bytes: Bytes, strike: Option<Strike>) -> io::Result<()> {
        let shape = self.shared.shape();
        let jitter = shape.jitter.mul_f64(self.shared.draw());
        let mut at = self.last_at.max(Instant::now() + shape.delay + jitter);
        if shape.bytes_per_second > 0 {
            let seconds = bytes.len() as f64 / f64::from(shape.bytes_per_second);
            at += Duration::from_secs_f64(seconds);
        }
        self.last_at = at;
        let piece = Piece { bytes, at, strike };
        // It fails only when the writer has ended, and then the connection ends.
        self.queue.send(piece).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
