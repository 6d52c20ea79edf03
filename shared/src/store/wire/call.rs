//! A call to Redis, and its attempts.
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use redis::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::args::Args;
use super::connection::Connections;
use super::fault::classify;
use super::keys::Home;
use super::metrics::Metrics;
use super::patience::{Patience, Repeat};
use super::scripts::Script;
use crate::config::RedisDurability;
use crate::{Config, Error, Result};

/// The state shared by all calls.
pub(crate) struct Wire {
    connections: Arc<Connections>,
    /// `redis.outage_ms`: how long an idempotent call is repeated.
    outage: Duration,
    /// `redis.response_ms`.
    response: Duration,
    /// A test's clock, in ms, that scripts use in place of Redis's.
    clock: Option<Arc<AtomicI64>>,
    /// `redis.durability`.
    durability: RedisDurability,
    /// Calls that may wait for replicas at once: half of the connections, so that the others stay free.
    waits: Arc<Semaphore>,
}

impl Wire {
    /// Prepares the connections; none is made yet.
    ///
    /// # Errors
    /// [`Error::Config`] when the address cannot be read.
    pub(crate) fn open(config: &Config, clock: Option<Arc<AtomicI64>>, metrics: Metrics) -> Result<Self> {
        let connections = Arc::new(Connections::open(config, metrics)?);
        let waits = Arc::new(Semaphore::new(config.redis.connections.div_ceil(2)));
        let (outage, durability) = (Duration::from_millis(config.redis.outage_ms), config.redis.durability);
        connections.metrics().durability(durability);
        let response = Duration::from_millis(config.redis.response_ms);
        Ok(Self { connections, outage, response, clock, durability, waits })
    }

    /// Separate connections, by `config`, with the same clock and metrics.
    ///
    /// # Errors
    /// [`Wire::open`]'s.
    pub(crate) fn apart(&self, config: &Config) -> Result<Self> {
        Self::open(config, self.clock.clone(), self.connections.metrics().clone())
    }

    /// The same connections, without repetitions during an outage.
    pub(crate) fn impatient(&self) -> Self {
        Self {
            connections: Arc::clone(&self.connections),
            outage: Duration::ZERO,
            response: self.response,
            clock: self.clock.clone(),
            durability: self.durability,
            waits: Arc::clone(&self.waits),
        }
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The time that scripts use, ms; `None`: Redis's.
    pub(crate) fn clock(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.load(Ordering::SeqCst))
    }

    pub(crate) fn durability(&self) -> RedisDurability {
        self.durability
    }

    pub(crate) fn outage(&self) -> Duration {
        self.outage
    }

    /// How long the reply to a call may take.
    pub(crate) fn response(&self) -> Duration {
        self.response
    }

    /// Runs a script in a partition; repeats it during an outage if that is safe.
    pub(crate) async fn run(&self, script: &Script, partition: u16, args: &Args, repeat: Repeat) -> Result<Value> {
        self.call(script, partition, args, repeat, 0).await
    }

    /// [`Wire::run`] of a script that is safe to repeat, answered once so many replicas have what it wrote; 0: at once.
    ///
    /// # Errors
    /// [`Error::TooFewReplicas`] when they have not acknowledged it in time.
    pub(crate) async fn run_on_replicas(
        &self,
        script: &Script,
        partition: u16,
        args: &Args,
        replicas: u8,
    ) -> Result<Value> {
        let _turn = self.turn_to_wait(replicas).await;
        self.call(script, partition, args, Repeat::Safe, replicas).await
    }

    /// The right to wait for replicas, if there is something to wait for.
    async fn turn_to_wait(&self, replicas: u8) -> Option<SemaphorePermit<'_>> {
        match replicas {
            0 => None,
            _ => Some(self.waits.acquire().await.expect("never closed")),
        }
    }

    async fn call(&self, script: &Script, partition: u16, args: &Args, repeat: Repeat, replicas: u8) -> Result<Value> {
        let now = self.now();
        let mut patience = Patience::new(self.outage, repeat);
        loop {
            match patience.attempt(self.connections.eval(script, partition, &now, args, &[], replicas)).await {
                Err(e) => patience.bear(e).await?,
                reply => return reply,
            }
        }
    }

    /// Runs a script that takes a head, a count and that many entries, and answers each entry; safe to repeat. The
    /// answers come once so many replicas have what it wrote; 0: at once. What did not arrive in time over a slow link
    /// is sent again in smaller parts.
    pub(crate) async fn run_many(
        &self,
        script: &Script,
        partition: u16,
        head: Args,
        entries: Vec<Args>,
        replicas: u8,
    ) -> Result<Vec<Value>> {
        let mut patience = Patience::new(self.outage, Repeat::Safe);
        let (mut parts, mut replies) = (vec![entries], Vec::new());
        while let Some(part) = parts.pop() {
            match self.try_many(script, partition, head.clone(), part, replicas).await {
                Ok(answers) => {
                    replies.extend(answers);
                    patience.progressed(self.outage);
                }
                Err((e, mut part)) => {
                    let is_late = matches!(e, Error::OutcomeUnknown(_));
                    patience.bear(e).await?;
                    if is_late && part.len() > 1 {
                        let rest = part.split_off(part.len().div_ceil(4));
                        parts.push(rest);
                    }
                    parts.push(part);
                }
            }
        }
        Ok(replies)
    }

    /// Runs a script that only reads, takes items, and answers each. What did not arrive in time over a slow link is
    /// asked for again in smaller parts.
    pub(crate) async fn read_each<T>(
        &self,
        script: &Script,
        partition: u16,
        items: &[T],
        args: impl Fn(&[T]) -> Args,
        repeat: Repeat,
    ) -> Result<Vec<Value>> {
        let mut patience = Patience::new(self.outage, repeat);
        let (mut replies, mut most) = (Vec::with_capacity(items.len()), items.len());
        while replies.len() < items.len() {
            let rest = &items[replies.len()..];
            let part = &rest[..most.min(rest.len())];
            let args = args(part);
            match patience.attempt(self.connections.eval(script, partition, &self.now(), &args, &[], 0)).await {
                Ok(Value::Array(answers)) if !answers.is_empty() => {
                    replies.extend(answers);
                    patience.renew(self.outage);
                }
                Ok(_) => break,
                Err(e) => {
                    if matches!(e, Error::OutcomeUnknown(_)) {
                        most = (part.len() / 4).max(1);
                    }
                    patience.bear(e).await?;
                }
            }
        }
        Ok(replies)
    }

    /// One attempt of [`Wire::run_many`]; an error comes with the entries.
    pub(crate) async fn try_many(
        &self,
        script: &Script,
        partition: u16,
        head: Args,
        entries: Vec<Args>,
        replicas: u8,
    ) -> Result<Vec<Value>, (Error, Vec<Args>)> {
        let _turn = self.turn_to_wait(replicas).await;
        let head = head.count(entries.len());
        match self.connections.eval(script, partition, &self.now(), &head, &entries, replicas).await {
            Ok(Value::Array(replies)) => Ok(replies),
            Ok(_) => Ok(Vec::new()),
            Err(e) => Err((e, entries)),
        }
    }

    /// The time as scripts are given it; empty: Redis's.
    fn now(&self) -> String {
        self.clock().map(|now| now.to_string()).unwrap_or_default()
    }

    /// Runs plain commands in one round trip; they must be safe to repeat.
    pub(crate) async fn pipe(&self, home: Home, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
        strict(self.pipe_leniently(home, pipeline).await?)
    }

    /// [`Wire::pipe`], with the error of each command on a key of the wrong type in its place.
    pub(crate) async fn pipe_leniently(&self, home: Home, pipeline: &redis::Pipeline) -> Result<Vec<Value>> {
        let connections = &self.connections;
        self.patiently(|| async { connections.accept(connections.pipe(home, pipeline).await?) }).await
    }

    /// [`Wire::pipe`] of commands with several homes.
    pub(crate) async fn pipe_each(&self, commands: &[(Home, redis::Cmd)]) -> Result<Vec<Value>> {
        strict(self.pipe_each_leniently(commands).await?)
    }

    /// [`Wire::pipe_each`], with the error of each command on a key of the wrong type in its place.
    pub(crate) async fn pipe_each_leniently(&self, commands: &[(Home, redis::Cmd)]) -> Result<Vec<Value>> {
        let connections = &self.connections;
        self.patiently(|| async { connections.accept(connections.pipe_each(commands).await?) }).await
    }

    /// Makes an attempt, which must be safe to repeat, and repeats it during an outage.
    pub(crate) async fn patiently<T, F: Future<Output = Result<T>>>(&self, attempt: impl Fn() -> F) -> Result<T> {
        let mut patience = Patience::new(self.outage, Repeat::Safe);
        loop {
            match patience.attempt(attempt()).await {
                Err(e) => patience.bear(e).await?,
                done => return done,
            }
        }
    }
}

/// The replies, or the first error among them.
fn strict(replies: Vec<Value>) -> Result<Vec<Value>> {
    replies.into_iter().map(|v| v.extract_error().map_err(|e| classify(&e))).collect()
}
