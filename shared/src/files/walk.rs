//! What a death has left in the store, found step by step: folders of jobs that are not there, and of attempts that did
//! not complete their job. What is young is passed over, since a submit or an attempt may still be at it.
use std::fs::{DirEntry, Metadata, ReadDir};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::name::token_of;
use super::{FileError, FileStore, blocking};
use crate::JobId;

/// A folder of a job that nobody has written to for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldFolder {
    /// The job it is named after.
    pub id: JobId,
    /// Tokens under which attempts left something, as long ago.
    pub tokens: Vec<u64>,
}

/// A walk over the folders of a store.
pub struct Walk {
    folders: ReadDir,
    older_than: Duration,
}

impl FileStore {
    /// Begins a walk over folders in which nothing has changed for `older_than`.
    ///
    /// # Errors
    /// [`FileError::Failed`].
    pub async fn walk(&self, older_than: Duration) -> Result<Walk, FileError> {
        let root = self.root.clone();
        let folders = blocking(move || std::fs::read_dir(root)).await??;
        Ok(Walk { folders, older_than })
    }
}

impl Walk {
    /// Looks at up to `most` folders; `None` at the end.
    ///
    /// # Errors
    /// [`FileError::Failed`].
    pub async fn next(mut self, most: usize) -> Result<Option<(Vec<OldFolder>, Self)>, FileError> {
        blocking(move || {
            let (mut looked, mut old) = (0, Vec::new());
            while looked < most {
                let Some(entry) = self.folders.next() else { break };
                looked += 1;
                old.extend(old_folder(&entry?, self.older_than));
            }
            Ok((looked > 0).then_some((old, self)))
        })
        .await?
    }
}

fn old_folder(entry: &DirEntry, older_than: Duration) -> Option<OldFolder> {
    let id = JobId::parse(entry.file_name().to_str()?).ok()?;
    let path = entry.path();
    if !entry.file_type().ok()?.is_dir() || !is_old(&path, 3, older_than) {
        return None;
    }
    let outputs = std::fs::read_dir(path.join("out")).into_iter().flatten().flatten();
    Some(OldFolder { id, tokens: outputs.filter_map(|entry| token_of(&entry.path())).collect() })
}

/// Whether neither a folder nor anything in it, `depth` levels down, has changed since.
fn is_old(path: &PathBuf, depth: usize, older_than: Duration) -> bool {
    let aged = |meta: Metadata| {
        let changed = meta.modified().ok()?;
        // A time to come, of a clock that was set back, is no old one.
        SystemTime::now().duration_since(changed).ok()
    };
    let age = std::fs::symlink_metadata(path).ok().and_then(aged);
    if age.is_none_or(|age| age < older_than) {
        return false;
    }
    depth == 0
        || std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .all(|entry| is_old(&entry.path(), depth - 1, older_than))
}
