//! One connection through the proxy: two readers that decide, two writers that deliver.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::Way;
use super::network::Shared;
use super::resp::{Malformed, take_command, take_reply};
use super::rule::Then;
use super::shape::{Outbox, Piece, QUEUE_PIECES};
use super::verdict::{Expected, pass_reply, pass_request};
use crate::spawner::no_fork;

/// What becomes of the bytes that go one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Pass,
    /// They wait, and pass later.
    Freeze,
    /// They are swallowed, the end of the stream too. For good: with bytes missing, what follows
    /// could not be read any more.
    Discard,
}

/// A connection through the proxy, as seen by those who break it.
pub(super) struct Link {
    cut: CancellationToken,
    requests: watch::Sender<Flow>,
    replies: watch::Sender<Flow>,
    expected: Mutex<VecDeque<Expected>>,
    pub(super) has_subscribed: AtomicBool,
}

impl Link {
    pub(super) fn new(requests: Flow, replies: Flow) -> Link {
        Link {
            cut: CancellationToken::new(),
            requests: watch::channel(requests).0,
            replies: watch::channel(replies).0,
            expected: Mutex::default(),
            has_subscribed: AtomicBool::new(false),
        }
    }

    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    pub(super) fn set(&self, way: Way, flow: Flow) {
        for (one, sender) in [(Way::Requests, &self.requests), (Way::Replies, &self.replies)] {
            if way.includes(one) {
                sender.send_if_modified(|now| {
                    let changes = *now != Flow::Discard;
                    *now = if changes { flow } else { *now };
                    changes
                });
            }
        }
    }

    pub(super) fn loses(&self, way: Way) -> bool {
        let loses = |sender: &watch::Sender<Flow>| *sender.borrow() == Flow::Discard;
        way.includes(Way::Requests) && loses(&self.requests) || way.includes(Way::Replies) && loses(&self.replies)
    }

    /// Writes down what the reply to the command that goes out next will be.
    pub(super) fn expect(&self, expected: Expected) {
        let mut queue = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(expected);
    }

    pub(super) fn next_expected(&self) -> Option<Expected> {
        let mut queue = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    }
}

/// Carries bytes between the client and the server until both have said all, or one is lost.
pub(super) async fn carry(shared: &Shared, link: &Link, mut client: TcpStream, upstream: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        reset([client]);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));

    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let (requests, requests_queue) = mpsc::channel(QUEUE_PIECES);
    let (replies, replies_queue) = mpsc::channel(QUEUE_PIECES);
    let exchange = async {
        tokio::try_join!(
            read_requests(shared, link, from_client, Outbox::new(requests, shared)),
            write(shared, link, &link.requests, requests_queue, to_server),
            read_replies(shared, link, from_server, Outbox::new(replies, shared)),
            write(shared, link, &link.replies, replies_queue, to_client),
        )
    };
    let lost = tokio::select! {
        () = link.cut.cancelled() => true,
        ended = exchange => ended.is_err(),
    };
    if lost {
        reset([client, server]);
    }
}

/// Closes connections so that the other ends get a reset.
fn reset<const N: usize>(streams: [TcpStream; N]) {
    for stream in &streams {
        // It fails only when the connection is gone already.
        let _ = stream.set_zero_linger();
    }
    let _closing = no_fork();
    drop(streams);
}

async fn read_requests(shared: &Shared, link: &Link, mut from: ReadHalf<'_>, mut out: Outbox<'_>) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut is_resp = shared.is_resp;
    while from.read_buf(&mut buffer).await? > 0 {
        while is_resp {
            match take_command(&mut buffer) {
                Ok(Some(command)) => pass_request(shared, link, command, &mut out).await?,
                Ok(None) => break,
                Err(error) => is_resp = not_resp(&error),
            }
        }
        if !is_resp {
            out.add(&buffer.split());
        }
        out.flush().await?;
    }
    out.add(&buffer);
    out.flush().await
}

async fn read_replies(shared: &Shared, link: &Link, mut from: ReadHalf<'_>, mut out: Outbox<'_>) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut is_resp = shared.is_resp;
    while from.read_buf(&mut buffer).await? > 0 {
        while is_resp {
            match take_reply(&mut buffer) {
                Ok(Some(reply)) => pass_reply(link, reply, &mut out).await?,
                Ok(None) => break,
                Err(error) => is_resp = not_resp(&error),
            }
        }
        if !is_resp {
            out.add(&buffer.split());
        }
        out.flush().await?;
    }
    out.add(&buffer);
    out.flush().await
}

fn not_resp(error: &Malformed) -> bool {
    eprintln!("proxy: {error}; the rest of this connection passes unread, no rule sees it");
    false
}

/// Delivers what goes one way, each piece when its time has come.
async fn write(
    shared: &Shared,
    link: &Link,
    flow: &watch::Sender<Flow>,
    mut queue: mpsc::Receiver<Piece>,
    mut to: WriteHalf<'_>,
) -> io::Result<()> {
    let mut flow = flow.subscribe();
    while let Some(piece) = queue.recv().await {
        sleep_until(piece.at).await;
        if passes(&mut flow).await {
            shared.shape().send(&mut to, &piece.bytes).await?;
        }
        if let Some(strike) = piece.strike {
            match strike.then {
                Some(Then::Cut) => link.cut(),
                Some(Then::BlackHole) => link.set(Way::Both, Flow::Discard),
                None => {}
            }
            strike.rule.strike(&strike.command);
        }
    }
    if !passes(&mut flow).await {
        pending::<()>().await;
    }
    to.shutdown().await
}

/// Waits while the flow is frozen; whether bytes pass then.
async fn passes(flow: &mut watch::Receiver<Flow>) -> bool {
    let now = flow.wait_for(|now| *now != Flow::Freeze).await;
    *now.expect("the link outlives its writers") == Flow::Pass
}
