//! Connecting: the checks and agreements before the first call.
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::sizes::Known;
use super::wire::Wire;
use super::wire::metrics::Metrics;
use super::{Store, files, meta, partitions, server};
use crate::{Config, Error, Result};

impl Store {
    /// Connects, checks that Redis is fit to keep jobs, and agrees on the layout of the keys and the number of
    /// partitions.
    ///
    /// # Errors
    /// [`Error::Config`] says what to write instead: a Redis too old, with its AOF off or eviction on, another number
    /// of partitions, a folder for files that is not this Redis's. [`Error::Unavailable`] when there is no Redis within
    /// `redis.outage_ms`.
    pub async fn connect(config: &Config) -> Result<Self> {
        Self::connect_with(config, None).await
    }

    /// [`Store::connect`], counting its calls in `metrics`, failed attempts included.
    ///
    /// # Errors
    /// [`Store::connect`]'s.
    pub async fn connect_counted(config: &Config, metrics: &Metrics) -> Result<Self> {
        Self::connect_over(Wire::open(config, None, metrics.clone())?, config).await
    }

    /// [`Store::connect`] with a clock of the test's choosing, in ms, in place of Redis's.
    ///
    /// # Errors
    /// [`Store::connect`]'s.
    pub async fn connect_with(config: &Config, clock: Option<Arc<AtomicI64>>) -> Result<Self> {
        Self::connect_over(Wire::open(config, clock, Metrics::default())?, config).await
    }

    async fn connect_over(wire: Wire, config: &Config) -> Result<Self> {
        let checked = Arc::new(server::check(&wire).await?);
        meta::agree_layout(&wire).await?;
        let sizes = partitions::agree(&wire, config.partitions, true).await?;
        let files = files::open(&wire, config, false).await?;
        Ok(Self::new(wire, Known::new(sizes), files, checked))
    }

    /// [`Store::connect`] for the doctor: accepts a Redis that is not fit ([`Store::server_faults`] reports why), and
    /// writes nothing.
    ///
    /// # Errors
    /// [`Error::Config`] for another number of partitions; [`Error::Unavailable`].
    pub async fn connect_unchecked(config: &Config) -> Result<Self> {
        let wire = Wire::open(config, None, Metrics::default())?;
        let sizes = partitions::agree(&wire, config.partitions, false).await?;
        let files = match files::open(&wire, config, true).await {
            // The keys are checked nevertheless.
            Err(Error::Config(reason)) => {
                tracing::warn!("the file store is not checked: {reason}");
                None
            }
            opened => opened?,
        };
        Ok(Self::new(wire, Known::new(sizes), files, Arc::default()))
    }

    /// The same connections, without repetitions during an outage: for calls that are made again soon anyway.
    pub fn impatient(&self) -> Self {
        let (wire, checked) = (self.inner.wire.impatient(), Arc::clone(&self.inner.checked));
        Self::new(wire, Arc::clone(&self.inner.known), self.inner.files.clone(), checked)
    }

    /// The same key space over separate connections, as `config` has them: for another runtime, or other timeouts. Its
    /// calls are counted with this one's.
    ///
    /// # Errors
    /// [`Error::Config`] when the address cannot be read.
    pub fn apart(&self, config: &Config) -> Result<Self> {
        let (wire, checked) = (self.inner.wire.apart(config)?, Arc::clone(&self.inner.checked));
        Ok(Self::new(wire, Arc::clone(&self.inner.known), self.inner.files.clone(), checked))
    }
}
