//! A TCP proxy that breaks the network between a client and Redis, on command.
//!
//! It breaks connections (cut, black hole, freeze, refuse), shapes traffic (delay, jitter, rate,
//! fragments), and reads RESP, so that a [`Rule`] can strike one certain command: lose its reply
//! after Redis has run it, lose it before, hold it, send it twice. `CLIENT REPLY` and `MONITOR`,
//! which break the pairing of commands and replies, are not understood.

mod link;
mod network;
mod resp;
mod rule;
mod shape;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::port::{Port, loopback};
use link::Flow;
use network::{Doorman, Shared};
use rule::{Action, Armed};

pub use resp::Command;
pub use rule::{Matcher, Rule, Then, command, containing, script};
pub use shape::Shape;

/// Which way bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Requests,
    /// From the server to the client.
    Replies,
    /// Both.
    Both,
}

impl Way {
    fn includes(self, one: Way) -> bool {
        self == Way::Both || self == one
    }
}

/// A proxy on a port of its own. Dropping it cuts all connections.
pub struct Proxy {
    port: Arc<Port>,
    shared: Arc<Shared>,
    accepting: watch::Sender<bool>,
    listening: watch::Receiver<bool>,
    _stop: DropGuard,
}

impl Proxy {
    /// Starts a proxy in front of a Redis on this port of 127.0.0.1.
    pub async fn start(upstream_port: u16) -> Proxy {
        Proxy::open(upstream_port, true).await
    }

    /// Starts a proxy in front of any server; rules see nothing there.
    pub async fn start_raw(upstream_port: u16) -> Proxy {
        Proxy::open(upstream_port, false).await
    }

    async fn open(upstream_port: u16, is_resp: bool) -> Proxy {
        let port = Arc::new(Port::reserve());
        let shared = Arc::new(Shared::new(is_resp));
        let (accepting, orders) = watch::channel(true);
        let (report, listening) = watch::channel(false);
        let stop = CancellationToken::new();
        let doorman = Doorman {
            port: port.clone(),
            shared: shared.clone(),
            upstream: loopback(upstream_port),
            stop: stop.clone(),
        };
        tokio::spawn(doorman.serve(orders, report));
        let proxy = Proxy { port, shared, accepting, listening, _stop: stop.drop_guard() };
        proxy.accept(true).await;
        proxy
    }

    /// Its address as a Redis, for `LEASEHOLD_REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.port.address())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// How many connections go through it now.
    pub fn connections(&self) -> usize {
        self.shared.links()
    }

    /// Cuts all connections: both ends get a reset.
    pub fn cut(&self) {
        self.shared.each(|link| link.cut());
    }

    /// Refuses new connections (`false`) or takes them again (`true`); returns when that holds.
    /// Those there are go on.
    pub async fn accept(&self, takes: bool) {
        self.accepting.send_replace(takes);
        let mut listening = self.listening.clone();
        listening.wait_for(|now| *now == takes).await.expect("the doorman lives as long as the proxy");
    }

    /// Swallows what the existing connections carry this way, from now; they stay open, and new
    /// ones work: the half-open connection that only a watchdog notices.
    pub fn black_hole(&self, way: Way) {
        self.shared.each(|link| link.set(way, Flow::Discard));
    }

    /// Swallows what goes this way on existing and on new connections, until [`Proxy::heal`].
    pub fn partition(&self, way: Way) {
        self.shared.set_all(way, Flow::Discard);
    }

    /// Keeps back what goes this way, on existing and on new connections, until [`Proxy::heal`]:
    /// then it arrives, late.
    pub fn freeze(&self, way: Way) {
        self.shared.set_all(way, Flow::Freeze);
    }

    /// Shapes the traffic from now on.
    pub fn shape(&self, shape: Shape) {
        self.shared.set_shape(shape);
    }

    /// Ends all faults: what was frozen or held passes, connections that have lost bytes are cut,
    /// rules are ended, the shape is the default, new connections are taken.
    pub async fn heal(&self) {
        self.shared.end_rules();
        self.shape(Shape::default());
        self.shared.each(|link| {
            if link.loses(Way::Both) {
                link.cut();
            }
        });
        self.shared.set_all(Way::Both, Flow::Pass);
        self.accept(true).await;
    }

    /// Loses the reply to the nth matching command, after Redis has run it.
    ///
    /// Counted from 1 over all connections, and only replies that say something was done: a null
    /// (a pop that timed out) and NOSCRIPT are not counted.
    pub fn drop_reply_to(&self, matcher: impl Matcher, nth: usize, then: Then) -> Rule {
        self.cut_reply_to(matcher, nth, 0, then)
    }

    /// As [`Proxy::drop_reply_to`], but the first bytes of the reply arrive.
    pub fn cut_reply_to(&self, matcher: impl Matcher, nth: usize, keep_bytes: usize, then: Then) -> Rule {
        self.add(matcher, nth, Action::LoseReply { keep_bytes, then })
    }

    /// Loses the nth matching command before it reaches Redis, but for its first bytes.
    pub fn cut_request_to(&self, matcher: impl Matcher, nth: usize, keep_bytes: usize, then: Then) -> Rule {
        self.add(matcher, nth, Action::LoseRequest { keep_bytes, then })
    }

    /// Sends the nth matching command to Redis twice in a row; the second reply is swallowed.
    pub fn replay(&self, matcher: impl Matcher, nth: usize) -> Rule {
        self.add(matcher, nth, Action::Replay)
    }

    /// Holds the nth matching command, and its connection's later ones, until [`Rule::release`].
    pub fn hold(&self, matcher: impl Matcher, nth: usize) -> Rule {
        self.add(matcher, nth, Action::Hold)
    }

    /// Changes nothing: tells when the nth matching command has been sent on to Redis.
    pub fn observe(&self, matcher: impl Matcher, nth: usize) -> Rule {
        self.add(matcher, nth, Action::Observe)
    }

    fn add(&self, matcher: impl Matcher, nth: usize, action: Action) -> Rule {
        let rule = Armed::new(matcher, nth, action);
        self.shared.add_rule(rule.clone());
        Rule(rule)
    }
}
