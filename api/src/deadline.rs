//! The deadline of a request. It is suspended while the body is read and during a requested wait, which have their own
//! limits.
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Problem;

/// The clock of a request; clones share state.
#[derive(Clone)]
pub struct Clock {
    limit: Duration,
    end: Arc<watch::Sender<Option<Instant>>>,
}

impl Clock {
    /// A running clock that expires after `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, end: Arc::new(watch::Sender::new(Some(Instant::now() + limit))) }
    }

    /// Suspends the clock.
    pub fn stop(&self) {
        self.end.send_replace(None);
    }

    /// Starts the clock again, with the full limit.
    pub fn start(&self) {
        self.end.send_replace(Some(Instant::now() + self.limit));
    }

    /// Returns when the clock has expired.
    pub async fn run_out(&self) {
        let mut end = self.end.subscribe();
        loop {
            let until = *end.borrow_and_update();
            let changed = async {
                if end.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let Some(until) = until else {
                changed.await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = changed => {}
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Clock {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Clock>().expect("every request has a clock").clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stopped_clock_does_not_run_out_until_it_is_started() {
        let clock = Clock::new(Duration::from_millis(20));
        clock.stop();
        let out = tokio::spawn({
            let clock = clock.clone();
            async move { clock.run_out().await }
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(100), async {
                while !out.is_finished() {
                    tokio::task::yield_now().await
                }
            })
            .await
            .is_err()
        );
        clock.start();
        tokio::time::timeout(Duration::from_secs(10), out).await.unwrap().unwrap();
    }
}
