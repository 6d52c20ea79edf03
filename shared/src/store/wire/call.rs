//! A call to Redis: its arguments, and its attempts during an outage.
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use redis::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::connection::Connections;
use super::fault::classify;
use super::keys::Home;
use super::metrics::Metrics;
use super::scripts::Script;
use crate::config::RedisDurability;
use crate::{Config, Error, Result};

/// The state shared by all calls.
pub(crate) struct Wire {
    connections: Arc<Connections>,
    /// `redis.outage_ms`: how long an idempotent call is repeated.
    outage: Duration,
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
        Ok(Self { connections, outage, clock, durability, waits })
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
        let _turn = match replicas {
            0 => None,
            _ => Some(self.waits.acquire().await.expect("never closed")),
        };
        self.call(script, partition, args, Repeat::Safe, replicas).await
    }

    async fn call(&self, script: &Script, partition: u16, args: &Args, repeat: Repeat, replicas: u8) -> Result<Value> {
        let now = self.clock.as_ref().map(|c| c.load(Ordering::SeqCst).to_string()).unwrap_or_default();
        let mut patience = Patience::new(self.outage, repeat);
        loop {
            match self.connections.eval(script, partition, &now, &args.0, replicas).await {
                Err(e) => patience.bear(e).await?,
                reply => return reply,
            }
        }
    }

    /// Runs a script that takes a head, a count and that many entries, and answers each entry; safe to repeat. The
    /// answers come once so many replicas have what it wrote; 0: at once.
    pub(crate) async fn run_many(
        &self,
        script: &Script,
        partition: u16,
        head: Args,
        entries: Vec<Args>,
        replicas: u8,
    ) -> Result<Vec<Value>> {
        let mut args = head.count(entries.len());
        args.0.extend(entries.into_iter().flat_map(|entry| entry.0));
        match self.run_on_replicas(script, partition, &args, replicas).await? {
            Value::Array(replies) => Ok(replies),
            _ => Ok(Vec::new()),
        }
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
            match attempt().await {
                Err(e) => patience.bear(e).await?,
                done => return done,
            }
        }
    }
}

/// Whether a call with an unknown outcome may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Idempotent.
    Safe,
    /// Not idempotent: a single attempt.
    Never,
}

/// The arguments of a script call, after the time.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Args(Vec<Vec<u8>>);

impl Args {
    pub(crate) fn text(mut self, text: impl AsRef<str>) -> Self {
        self.0.push(text.as_ref().as_bytes().to_vec());
        self
    }

    pub(crate) fn number(self, number: impl Into<i128>) -> Self {
        self.text(number.into().to_string())
    }

    pub(crate) fn count(self, number: usize) -> Self {
        self.text(number.to_string())
    }

    pub(crate) fn texts<T: AsRef<str>>(mut self, texts: impl IntoIterator<Item = T>) -> Self {
        self.0.extend(texts.into_iter().map(|t| t.as_ref().as_bytes().to_vec()));
        self
    }

    /// The size of the arguments in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

/// The replies, or the first error among them.
fn strict(replies: Vec<Value>) -> Result<Vec<Value>> {
    replies.into_iter().map(|v| v.extract_error().map_err(|e| classify(&e))).collect()
}

/// The state of a repeated call.
struct Patience {
    /// When the outage has lasted too long.
    end: Instant,
    /// The pause before the next attempt; it grows.
    pause: Duration,
    repeat: Repeat,
    /// An attempt may have been executed, so a later refusal does not mean that nothing happened.
    unknown: bool,
}

impl Patience {
    fn new(outage: Duration, repeat: Repeat) -> Self {
        Self { end: Instant::now() + outage, pause: Duration::from_millis(10), repeat, unknown: false }
    }

    /// Waits before the next attempt; returns the error when there is none.
    async fn bear(&mut self, error: Error) -> Result<()> {
        self.unknown |= matches!(error, Error::OutcomeUnknown(_));
        let passing = matches!(error, Error::Unavailable(_) | Error::OutcomeUnknown(_));
        if !passing || self.repeat == Repeat::Never || Instant::now() + self.pause >= self.end {
            // An earlier attempt may have been executed, whatever the last error is.
            return Err(if self.unknown { error.after_a_change() } else { error });
        }
        // Jitter keeps clients that lost Redis together from returning together.
        tokio::time::sleep(self.pause.mul_f64(rand::random_range(0.5..1.0))).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(500));
        Ok(())
    }
}
