//! The token file, reloaded when it changes and on SIGHUP; an invalid file leaves the previous tokens in force.
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold::Error;
use leasehold::tokens::Tokens;
use tokio::signal::unix::{SignalKind, signal};

/// How often the file is checked for changes.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Maximum size of the file, in bytes.
const FILE_BYTES: usize = 1 << 20;

/// The tokens of a file, kept up to date; cheap to clone, clones share state.
#[derive(Clone)]
pub struct Guard(Arc<File>);

struct File {
    path: PathBuf,
    now: Mutex<Now>,
}

struct Now {
    tokens: Arc<Tokens>,
    /// The result of the last read, valid or not: an unchanged file is not parsed or logged again.
    text: Result<String, String>,
}

impl Guard {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::Config`] names the file, the line, and what is expected.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let fault = |reason: String| Error::Config(format!("api.tokens {}: {reason}", path.display()));
        let text = read(path).map_err(fault)?;
        let tokens = Arc::new(Tokens::parse(&text).map_err(fault)?);
        let now = Mutex::new(Now { tokens, text: Ok(text) });
        Ok(Self(Arc::new(File { path: path.to_owned(), now })))
    }

    /// Starts a task that reloads the file whenever it changes.
    ///
    /// # Errors
    /// [`Error::Config`] when no handler for SIGHUP can be installed.
    pub fn follow(self) -> Result<(), Error> {
        let fault = |e| Error::Config(format!("signals cannot be handled: {e}"));
        let mut hangup = signal(SignalKind::hangup()).map_err(fault)?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = hangup.recv() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let guard = self.clone();
                // A file on a slow disk must not hold up requests.
                drop(tokio::task::spawn_blocking(move || guard.look()).await);
            }
        });
        Ok(())
    }

    fn look(&self) {
        let text = read(&self.0.path);
        let mut now = self.0.now.lock().expect("lock not poisoned");
        if now.text == text {
            return;
        }
        let path = self.0.path.display();
        match text.as_deref().map_err(ToOwned::to_owned).and_then(Tokens::parse) {
            Ok(tokens) => {
                tracing::info!(tokens = tokens.count(), "api.tokens {path} reloaded");
                now.tokens = Arc::new(tokens);
            }
            Err(reason) => {
                tracing::error!("api.tokens {path} is not valid, the previous tokens stay in force: {reason}")
            }
        }
        now.text = text;
    }

    /// The tokens in force.
    pub fn tokens(&self) -> Arc<Tokens> {
        self.0.now.lock().expect("lock not poisoned").tokens.clone()
    }
}

fn read(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > FILE_BYTES as u64 {
        return Err(format!("it has {length} bytes; at most {FILE_BYTES} are allowed"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}
