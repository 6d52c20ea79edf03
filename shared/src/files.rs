//! Files of jobs: those sent with a submit, and those that attempts leave. They are in a folder or in a bucket of an
//! object store ([`location`]), never in Redis, and are removed with their job.
//!
//! A job's files are at `<id>/in/<name>` and `<id>/out/<token>/<name>`: an attempt that has lost its lease cannot touch
//! the winner's. A job's record lists its files; anything else in the folder was left by a crash, and the sweep removes
//! it ([`walk`]). Names are checked where they enter ([`name`]); [`folder`] says whose a folder is. Everything is
//! streamed.
mod bucket;
mod client;
pub mod folder;
mod health;
mod later;
pub mod location;
pub mod name;
pub mod walk;
mod write;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio_util::io::StreamReader;

use crate::JobId;

pub use name::InvalidFileName;
pub use write::FileWriter;

/// A file, as its job's record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name, without any folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its content type, as given by the sender or derived from its name.
    pub content_type: String,
    /// Hex SHA-256 of its content.
    pub sha256: String,
}

/// The files of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobFiles {
    /// Files uploaded with its submit.
    pub input: Vec<FileEntry>,
    /// Files written by the attempt that completed it, and that attempt's token.
    pub output: Option<Output>,
}

/// The output files of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The attempt's token, which names their folder.
    pub token: u64,
    /// The files, at least one.
    pub files: Vec<FileEntry>,
}

/// A place in a job's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Files uploaded with the submit.
    In,
    /// Files written by the attempt with this token.
    Out(u64),
}

/// A job's folder that has not changed for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldFolder {
    /// The job it is named after.
    pub id: JobId,
    /// Tokens of attempts whose output has not changed for that time either.
    pub tokens: Vec<u64>,
}

/// An error of the file store.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file name is not allowed.
    #[error(transparent)]
    Name(#[from] InvalidFileName),
    /// There is no such file.
    #[error("there is no file {0:?}")]
    Missing(String),
    /// A limit is exceeded.
    #[error("{0}")]
    OverLimit(String),
    /// The bytes to write could not be read: the fault is the source's, not the file store's.
    #[error("the data for the file could not be read: {0}")]
    Unread(String),
    /// No file store is configured.
    #[error(
        "this process has no file store; set storage_url (LEASEHOLD_STORAGE_URL) to a folder, as \
         file:///srv/leasehold-files, or to a bucket, as s3://bucket/prefix"
    )]
    NoStore,
    /// The file system failed: no space, no permission, a disk error.
    #[error("the file store failed: {0}")]
    Failed(String),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        FileError::Failed(error.to_string())
    }
}

/// The bytes of a file, in pieces.
pub type FileBytes = BoxStream<'static, io::Result<Bytes>>;

/// The files of all jobs; cheap to clone.
#[derive(Debug, Clone)]
pub struct FileStore {
    /// Reads and writes files; each is durable before it counts as written.
    objects: Arc<dyn ObjectStore>,
    home: Home,
    later: later::Later,
    health: health::Health,
}

/// What the store is in: decides on what `ObjectStore` lacks or does in another way.
#[derive(Debug, Clone)]
enum Home {
    /// For removing a whole folder, and finding old ones.
    Folder(PathBuf),
    Bucket,
}

impl FileStore {
    /// The store in an existing folder.
    fn at(root: PathBuf) -> Result<Self, FileError> {
        // Files of an acknowledged job must be on disk, like its record.
        let objects = LocalFileSystem::new_with_prefix(&root).map_err(|e| failed(&e, ""))?.with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
            home: Home::Folder(root),
            later: later::Later::default(),
            health: health::Health::default(),
        })
    }

    /// The folder; `None` for a bucket.
    pub fn root(&self) -> Option<&Path> {
        match &self.home {
            Home::Folder(root) => Some(root),
            Home::Bucket => None,
        }
    }

    /// Opens a file, or a range within it, and returns its bytes in pieces.
    ///
    /// # Errors
    /// [`FileError::Missing`], [`FileError::Failed`].
    pub async fn read(
        &self,
        id: &JobId,
        place: Place,
        name: &str,
        part: Option<Range<u64>>,
    ) -> Result<FileBytes, FileError> {
        let options = GetOptions { range: part.map(GetRange::Bounded), ..GetOptions::default() };
        let got = self.objects.get_opts(&object(id, place, name)?, options).await.map_err(|e| failed(&e, name))?;
        Ok(got.into_stream().map_err(io::Error::other).boxed())
    }

    /// Copies a file to a local path, which must not exist yet.
    ///
    /// # Errors
    /// [`FileError::Missing`], [`FileError::Failed`].
    pub async fn copy_to(&self, id: &JobId, place: Place, name: &str, to: PathBuf) -> Result<(), FileError> {
        let path = object(id, place, name)?;
        let got = self.objects.get_opts(&path, GetOptions::default()).await.map_err(|e| failed(&e, name))?;
        match got.payload {
            GetResultPayload::File(mut from, _) => {
                let copying = blocking(move || {
                    let mut to = std::fs::File::create_new(to)?;
                    io::copy(&mut from, &mut to).map(drop)
                });
                copying.await?.map_err(FileError::from)
            }
            GetResultPayload::Stream(pieces) => {
                let mut from = StreamReader::new(pieces.map_err(io::Error::other));
                let mut to = tokio::fs::File::create_new(to).await?;
                tokio::io::copy(&mut from, &mut to).await?;
                Ok(to.flush().await?)
            }
        }
    }

    /// The size of a file; `None` when there is none.
    ///
    /// # Errors
    /// [`FileError::Name`], [`FileError::Failed`].
    pub async fn size(&self, id: &JobId, place: Place, name: &str) -> Result<Option<u64>, FileError> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.objects.get_opts(&object(id, place, name)?, options).await {
            Ok(got) => Ok(Some(got.meta.size)),
            Err(e) => match failed(&e, name) {
                FileError::Missing(_) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Removes the folders of jobs with their content. Whatever could not be removed is left to the sweep.
    pub async fn remove(&self, ids: Vec<JobId>) {
        self.remove_all(ids.iter().map(ToString::to_string).collect()).await;
    }

    /// Removes the output of an attempt.
    pub async fn remove_output(&self, id: &JobId, token: u64) {
        self.remove_all(vec![format!("{id}/out/{token}")]).await;
    }

    /// Removes the output of attempts with a smaller token: they have lost their lease, or failed.
    pub async fn remove_outputs_before(&self, id: &JobId, token: u64) {
        let older = match &self.home {
            Home::Folder(root) => {
                let folder = root.join(id.as_str()).join("out");
                let older = blocking(move || {
                    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                    entries.filter_map(|entry| name::token_of(&entry.path())).filter(|t| *t < token).collect()
                });
                older.await.unwrap_or_default()
            }
            Home::Bucket => self.outputs_before(id, token).await,
        };
        if !older.is_empty() {
            self.remove_all(older.iter().map(|token| format!("{id}/out/{token}")).collect()).await;
        }
    }

    /// Whether each call is a request over the network: one that is seldom of use is better left to the sweep.
    pub fn is_remote(&self) -> bool {
        matches!(self.home, Home::Bucket)
    }

    async fn remove_all(&self, below: Vec<String>) {
        match &self.home {
            Home::Folder(root) => self.remove_folders(below.iter().map(|path| root.join(path)).collect()).await,
            Home::Bucket => self.remove_below(below).await,
        }
    }

    async fn remove_folders(&self, folders: Vec<PathBuf>) {
        let removing = blocking(move || {
            for folder in folders {
                match std::fs::remove_dir_all(&folder) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => tracing::warn!("{} was not removed and is left to the file sweep: {e}", folder.display()),
                }
            }
        });
        // Interrupted only when the runtime shuts down.
        drop(removing.await);
    }
}

fn object(id: &JobId, place: Place, name: &str) -> Result<ObjectPath, FileError> {
    let name = name::stored(name)?;
    let path = match place {
        Place::In => format!("{id}/in/{name}"),
        Place::Out(token) => format!("{id}/out/{token}/{name}"),
    };
    ObjectPath::parse(&path).map_err(|e| FileError::Failed(e.to_string()))
}

fn failed(error: &object_store::Error, name: &str) -> FileError {
    match error {
        object_store::Error::NotFound { .. } => FileError::Missing(name.to_owned()),
        error => FileError::Failed(client::brief(error)),
    }
}

/// Runs disk operations on the blocking thread pool.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FileError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| FileError::Failed(e.to_string()))
}

#[cfg(test)]
mod tests;
