//! Shutdown is a value that is passed in: whoever holds a clone can ask a worker to end.
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Asks a worker to end. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    pub(crate) begun: CancellationToken,
    pub(crate) hurried: CancellationToken,
}

impl Shutdown {
    /// Nothing asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Take no more jobs, let the running ones end within `worker.grace_ms`, give the rest back.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Give all jobs back at once and end, within two seconds.
    pub fn hurry(&self) {
        self.begun.cancel();
        self.hurried.cancel();
    }

    /// The first SIGTERM or SIGINT begins the shutdown, the second hurries it. They are heard on a thread of their own, so
    /// that handlers which hold every thread of the runtime cannot keep them away.
    ///
    /// # Errors
    /// When the system refuses the thread or the signal handlers.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let heard = shutdown.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut terminate, mut interrupt) = {
            let _entered = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        let listen = async move {
            loop {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                if heard.begun.is_cancelled() {
                    heard.hurry();
                    return tracing::warn!("a second signal: giving all jobs back and ending at once");
                }
                heard.begin();
                tracing::info!("a signal: taking no more jobs, letting the running ones end");
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(listen))?;
        Ok(shutdown)
    }
}
