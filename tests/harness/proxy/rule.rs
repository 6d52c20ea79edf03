//! A fault aimed at one command, and the signal that it has struck.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::resp::Command;

/// How long a test waits for a rule to strike.
const FIRE_LIMIT: Duration = Duration::from_secs(60);

/// What happens to the connection after a fault has struck on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Both sides get a reset at once.
    Cut,
    /// It stays open, and nothing passes any more, either way.
    BlackHole,
}

/// What a rule does to the command it strikes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// Nothing; it only tells.
    Observe,
    /// It passes when released.
    Hold,
    /// It reaches Redis twice; the second reply is swallowed.
    Replay,
    /// Only its first bytes reach Redis.
    LoseRequest { keep_bytes: usize, then: Then },
    /// Redis runs it; only the first bytes of its reply come back.
    LoseReply { keep_bytes: usize, then: Then },
}

/// Says of a command whether a rule is about it: any such function or closure.
pub trait Matcher: Fn(&Command) -> bool + Send + Sync + 'static {}

impl<F: Fn(&Command) -> bool + Send + Sync + 'static> Matcher for F {}

/// What the proxy keeps of a rule.
pub(super) struct Armed {
    matcher: Box<dyn Matcher>,
    nth: usize,
    pub(super) action: Action,
    seen: AtomicUsize,
    struck: watch::Sender<Option<Command>>,
    over: CancellationToken,
}

impl Armed {
    pub(super) fn new(matcher: impl Matcher, nth: usize, action: Action) -> Arc<Armed> {
        assert!(nth > 0, "the first command is number 1");
        Arc::new(Armed {
            matcher: Box::new(matcher),
            nth,
            action,
            seen: AtomicUsize::new(0),
            struck: watch::channel(None).0,
            over: CancellationToken::new(),
        })
    }

    pub(super) fn matches(&self, command: &Command) -> bool {
        (self.matcher)(command)
    }

    /// Counts a match; true when it is the one to strike.
    pub(super) fn count(&self) -> bool {
        let seen = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        seen == self.nth && !self.over.is_cancelled()
    }

    pub(super) fn strike(&self, command: &Command) {
        self.struck.send_replace(Some(command.clone()));
    }

    /// Ends the rule: what it holds passes, and it strikes no more.
    pub(super) fn end(&self) {
        self.over.cancel();
    }

    /// Waits until the rule has been ended.
    pub(super) async fn ended(&self) {
        self.over.cancelled().await;
    }
}

impl fmt::Debug for Armed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "rule for match {}: {:?}", self.nth, self.action)
    }
}

/// A rule given to a proxy. It strikes once, and stays armed when this is dropped.
#[derive(Debug)]
#[must_use = "wait for it to strike, or nobody knows that the fault happened"]
pub struct Rule(pub(super) Arc<Armed>);

impl Rule {
    /// Waits until it has struck, and returns the command it struck.
    ///
    /// A lost reply has struck when Redis has run the command and the reply was thrown away; a
    /// replay when both copies have been answered; a held command when it is held.
    ///
    /// # Panics
    /// When it has not struck within a minute.
    pub async fn fired(&self) -> Command {
        let mut struck = self.0.struck.subscribe();
        let wait = struck.wait_for(Option::is_some);
        let Ok(command) = timeout(FIRE_LIMIT, wait).await else {
            panic!("{:?}: {} matched in {FIRE_LIMIT:?}", self.0, self.seen());
        };
        let command = command.expect("the rule holds the sender");
        command.clone().expect("waited for")
    }

    /// Whether it has struck.
    pub fn has_fired(&self) -> bool {
        self.0.struck.borrow().is_some()
    }

    /// How many commands have matched so far, the ones before and after it struck included.
    pub fn seen(&self) -> usize {
        self.0.seen.load(Ordering::SeqCst)
    }

    /// Lets a held command pass now; a rule that has not struck yet never will.
    pub fn release(&self) {
        self.0.end();
    }
}

/// Matches commands by name: `command("BRPOPLPUSH")`.
pub fn command(name: &str) -> impl Matcher + use<> {
    let name = name.to_owned();
    move |command: &Command| command.is(&name)
}

/// Matches a script by its SHA-1 (EVALSHA).
pub fn script(sha: &str) -> impl Matcher + use<> {
    let sha = sha.to_owned();
    move |command: &Command| command.runs(&sha)
}

/// Matches commands with a word that contains these bytes: an id, a key.
pub fn containing(bytes: &[u8]) -> impl Matcher + use<> {
    let bytes = bytes.to_owned();
    move |command: &Command| command.contains(&bytes)
}
