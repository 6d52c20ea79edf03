//! The handle with which a worker is asked to end.
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Asks a worker to end. Clones share state.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    pub(crate) begun: CancellationToken,
    pub(crate) hurried: CancellationToken,
}

impl Shutdown {
    /// A handle on which no shutdown has been requested.
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims no more jobs, lets running ones end within `worker.grace_ms`, and releases the rest.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Releases all jobs at once and ends within two seconds.
    pub fn hurry(&self) {
        self.begun.cancel();
        self.hurried.cancel();
    }

    /// The first SIGTERM or SIGINT begins the shutdown, the second hurries it. A dedicated thread receives the signals,
    /// so handlers that block every thread of the runtime cannot delay them.
    ///
    /// # Errors
    /// When the system refuses the thread or the signal handlers.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let requested = shutdown.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut terminate, mut interrupt) = {
            let _entered = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        let listen = async move {
            loop {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                if requested.begun.is_cancelled() {
                    requested.hurry();
                    return tracing::warn!("second signal: releasing all jobs and ending at once");
                }
                requested.begin();
                tracing::info!("signal received: claiming no more jobs, waiting for running ones to end");
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(listen))?;
        Ok(shutdown)
    }
}
