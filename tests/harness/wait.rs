//! Waiting for a condition, with a limit.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How long to let things be between two looks.
const POLL: Duration = Duration::from_millis(10);

/// What one look at the world can answer: `bool`, `Option` or `Result`.
pub trait Probe {
    /// What the wait returns in the end.
    type Found;

    /// What was found, or why it is not there yet.
    fn found(self) -> Result<Self::Found, String>;
}

impl Probe for bool {
    type Found = ();

    fn found(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "false".to_owned())
    }
}

impl<T> Probe for Option<T> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "none".to_owned())
    }
}

impl<T, E: Debug> Probe for Result<T, E> {
    type Found = T;

    fn found(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

/// Looks every 10 ms until the probe finds what it looks for, and returns it.
///
/// # Panics
/// When it has not been found within `limit` (a probe that hangs is given up too), with `what` was
/// waited for and the last answer.
pub async fn eventually<P: Probe>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> P) -> P::Found {
    let end = Instant::now() + limit;
    let mut last = "the first look was never answered".to_owned();
    loop {
        match timeout_at(end, probe()).await.map(Probe::found) {
            Ok(Ok(found)) => return found,
            Ok(Err(reason)) => last = reason,
            Err(_) => last.push_str(" (and the last look hung)"),
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}; last: {last}");
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_returns_what_its_probe_found() {
        let mut looks = 0;
        let found = eventually(Duration::from_secs(5), "a third look", async || {
            looks += 1;
            (looks == 3).then_some("here")
        })
        .await;
        assert_eq!(found, "here");
    }

    #[tokio::test]
    #[should_panic(expected = "not within 30ms: a pig that flies; last: false")]
    async fn a_wait_ends_at_its_limit() {
        eventually(Duration::from_millis(30), "a pig that flies", async || false).await;
    }

    #[tokio::test]
    #[should_panic(expected = "the last look hung")]
    async fn a_probe_that_hangs_does_not_hang_the_wait() {
        let hang = async || std::future::pending::<bool>().await;
        eventually(Duration::from_millis(30), "an answer", hang).await;
    }
}
