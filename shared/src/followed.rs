//! A file that a process keeps reading: it applies each valid version, and keeps the previous one when a new one is not
//! valid.
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::Signal;

use crate::{Error, Result};

/// How often the file is read.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Maximum size of the file, in bytes.
const FILE_BYTES: u64 = 1 << 20;

/// Reads the text of a file. Its errors say what is wrong and what to write instead.
type Parse<T> = Box<dyn Fn(&str) -> Result<T, String> + Send + Sync>;

/// A file and the value it was last read as. Cheap to clone; clones share state.
pub struct Followed<T>(Arc<File<T>>);

struct File<T> {
    /// The setting that names the file, for messages.
    setting: &'static str,
    path: PathBuf,
    parse: Parse<T>,
    now: Mutex<Now<T>>,
}

struct Now<T> {
    value: Arc<T>,
    /// The result of the last read, valid or not: an unchanged file is not parsed or logged again.
    text: Result<String, String>,
}

impl<T> Clone for Followed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + Sync + 'static> Followed<T> {
    /// Reads the file at `path`, the value of `setting`.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting, the file, and what `parse` or the system says.
    pub fn open(
        setting: &'static str,
        path: &Path,
        parse: impl Fn(&str) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self> {
        let fault = |reason: String| Error::Config(format!("{setting} {}: {reason}", path.display()));
        let text = read(path).map_err(fault)?;
        let value = Arc::new(parse(&text).map_err(fault)?);
        let now = Mutex::new(Now { value, text: Ok(text) });
        Ok(Self(Arc::new(File { setting, path: path.to_owned(), parse: Box::new(parse), now })))
    }

    /// The value in force.
    pub fn now(&self) -> Arc<T> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner).value.clone()
    }

    /// Reads the file again every two seconds, and when the signal `hangup` comes, for ever, and calls `changed` with
    /// each new value.
    pub async fn follow(self, mut hangup: Option<Signal>, mut changed: impl FnMut(Arc<T>)) {
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => drop(hangup.recv().await),
                    None => std::future::pending().await,
                }
            };
            let _ = tokio::time::timeout(LOOK_EVERY, asked).await;
            let file = self.clone();
            // A file on a slow disk must not hold up the runtime.
            if let Ok(Some(value)) = tokio::task::spawn_blocking(move || file.look()).await {
                changed(value);
            }
        }
    }

    /// The new value, if the file has changed and is valid.
    fn look(&self) -> Option<Arc<T>> {
        let File { setting, path, parse, now } = &*self.0;
        let text = read(path);
        let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.text == text {
            return None;
        }
        let path = path.display();
        let parsed = text.as_deref().map_err(ToOwned::to_owned).and_then(parse);
        now.text = text;
        match parsed {
            Ok(value) => {
                tracing::info!("{setting} {path} reloaded");
                now.value = Arc::new(value);
                Some(now.value.clone())
            }
            Err(reason) => {
                tracing::error!("{setting} {path} is not valid, so the previous version stays in force: {reason}");
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > FILE_BYTES {
        return Err(format!("it has {length} bytes; at most {FILE_BYTES} are allowed"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}
