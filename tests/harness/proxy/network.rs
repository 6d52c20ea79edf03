//! What all connections of a proxy have in common, and the task that takes them in.

use std::collections::HashMap;
use std::mem::take;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Way;
use super::link::{Flow, Link, carry};
use super::resp::Command;
use super::rule::Armed;
use super::shape::Shape;
use crate::port::Port;
use crate::seed::generator;
use crate::spawner::no_fork;

/// What the proxy and its connections share.
pub(super) struct Shared {
    pub(super) is_resp: bool,
    state: Mutex<State>,
}

struct State {
    links: HashMap<u64, Arc<Link>>,
    links_ever: u64,
    /// What becomes of bytes on new connections.
    requests: Flow,
    replies: Flow,
    shape: Shape,
    rules: Vec<Arc<Armed>>,
    random: StdRng,
}

impl Shared {
    pub(super) fn new(is_resp: bool) -> Shared {
        Shared {
            is_resp,
            state: Mutex::new(State {
                links: HashMap::new(),
                links_ever: 0,
                requests: Flow::Pass,
                replies: Flow::Pass,
                shape: Shape::default(),
                rules: Vec::new(),
                random: generator(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shape(&self) -> Shape {
        self.lock().shape
    }

    pub(super) fn set_shape(&self, shape: Shape) {
        self.lock().shape = shape;
    }

    /// A random number from 0 to 1.
    pub(super) fn draw(&self) -> f64 {
        self.lock().random.random()
    }

    pub(super) fn add_rule(&self, rule: Arc<Armed>) {
        self.lock().rules.push(rule);
    }

    pub(super) fn end_rules(&self) {
        for rule in take(&mut self.lock().rules) {
            rule.end();
        }
    }

    /// The rules that match a command, oldest first.
    pub(super) fn rules_for(&self, command: &Command) -> Vec<Arc<Armed>> {
        let state = self.lock();
        let matching = state.rules.iter().filter(|rule| rule.matches(command));
        matching.cloned().collect()
    }

    /// How many connections there are.
    pub(super) fn links(&self) -> usize {
        self.lock().links.len()
    }

    pub(super) fn each(&self, act: impl Fn(&Link)) {
        self.lock().links.values().for_each(|link| act(link));
    }

    pub(super) fn set_all(&self, way: Way, flow: Flow) {
        let mut state = self.lock();
        if way.includes(Way::Requests) {
            state.requests = flow;
        }
        if way.includes(Way::Replies) {
            state.replies = flow;
        }
        state.links.values().for_each(|link| link.set(way, flow));
    }

    fn open_link(&self) -> (u64, Arc<Link>) {
        let mut state = self.lock();
        let link = Arc::new(Link::new(state.requests, state.replies));
        state.links_ever += 1;
        let number = state.links_ever;
        state.links.insert(number, link.clone());
        (number, link)
    }
}

/// The task that takes connections in.
pub(super) struct Doorman {
    pub(super) port: Arc<Port>,
    pub(super) shared: Arc<Shared>,
    pub(super) upstream: SocketAddr,
    pub(super) stop: CancellationToken,
}

impl Doorman {
    pub(super) async fn serve(self, mut orders: watch::Receiver<bool>, report: watch::Sender<bool>) {
        let stop = self.stop.clone();
        let _ = stop
            .run_until_cancelled(async {
                loop {
                    if orders.wait_for(|accepts| *accepts).await.is_err() {
                        return;
                    }
                    let listener = self.port.listen().expect("the port is reserved for us");
                    report.send_replace(true);
                    let refused = async { orders.wait_for(|accepts| !*accepts).await.is_err() };
                    tokio::pin!(refused);
                    loop {
                        tokio::select! {
                            accepted = listener.accept() => {
                                if let Ok((client, _)) = accepted {
                                    self.take(client);
                                }
                            }
                            _ = &mut refused => break,
                        }
                    }
                    {
                        let _closing = no_fork();
                        drop(listener);
                    }
                    report.send_replace(false);
                }
            })
            .await;
        self.shared.each(|link| link.cut());
    }

    fn take(&self, client: TcpStream) {
        let (number, link) = self.shared.open_link();
        let (shared, upstream) = (self.shared.clone(), self.upstream);
        tokio::spawn(async move {
            carry(&shared, &link, client, upstream).await;
            shared.lock().links.remove(&number);
        });
    }
}
