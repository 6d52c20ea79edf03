//! Group commit: what arrives while a call is in flight travels together in the next one. Nothing waits when nothing is
//! in flight.
use std::future::Future;

use tokio::sync::{mpsc, oneshot};

use crate::{Error, Result, limits};

/// Requests of one sort on their way to Redis, answered each alone.
pub(crate) struct Group<T, R> {
    sender: mpsc::Sender<(T, oneshot::Sender<Result<R>>)>,
}

impl<T: Send + 'static, R: Send + 'static> Group<T, R> {
    /// `run` is given up to [`limits::BATCH_MAX`] requests, bounded in `bytes` too, and answers them in order.
    pub(crate) fn spawn<F, Fut>(bytes: fn(&T) -> usize, run: F) -> Self
    where
        F: Fn(Vec<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<R>>> + Send,
    {
        let (sender, mut receiver) = mpsc::channel::<(T, oneshot::Sender<Result<R>>)>(limits::BATCH_MAX);
        tokio::spawn(async move {
            while let Some((first, answer)) = receiver.recv().await {
                let mut size = bytes(&first);
                let (mut batch, mut answers) = (vec![first], vec![answer]);
                while batch.len() < limits::BATCH_MAX && size < limits::BATCH_BYTES_MAX {
                    let Ok((next, answer)) = receiver.try_recv() else { break };
                    size += bytes(&next);
                    batch.push(next);
                    answers.push(answer);
                }
                match run(batch).await {
                    // An asker that has gone needs no answer.
                    Ok(replies) => answers.into_iter().zip(replies).for_each(|(a, r)| drop(a.send(Ok(r)))),
                    Err(e) => answers.into_iter().for_each(|a| drop(a.send(Err(e.clone())))),
                }
            }
        });
        Self { sender }
    }

    /// Sends one request with whatever else is waiting.
    pub(crate) async fn call(&self, request: T) -> Result<R> {
        let (answer, reply) = oneshot::channel();
        let gone = || Error::Unavailable("the store is shutting down".into());
        self.sender.send((request, answer)).await.map_err(|_| gone())?;
        // It may have been sent: only its repetition can tell.
        reply.await.map_err(|_| Error::OutcomeUnknown("the store stopped before the answer came".into()))?
    }
}
