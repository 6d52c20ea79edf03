//! Finds, step by step, what a crash has left in the store: folders of jobs that do not exist, and of attempts that did
//! not complete their job. Recent folders are skipped, since a submit or an attempt may still be using them.
use std::fs::{DirEntry, Metadata, ReadDir};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::bucket::Scan;
use super::name::token_of;
use super::{FileError, FileStore, Home, OldFolder, blocking};
use crate::JobId;

/// A scan over the folders of a store.
pub struct Walk(Inner);

enum Inner {
    Folder { folders: ReadDir, older_than: Duration },
    Bucket(Scan),
}

impl FileStore {
    /// Starts a scan over folders in which nothing has changed for `older_than`.
    ///
    /// # Errors
    /// [`FileError::Failed`].
    pub async fn walk(&self, older_than: Duration) -> Result<Walk, FileError> {
        Ok(Walk(match &self.home {
            Home::Folder(root) => {
                let root = root.clone();
                Inner::Folder { folders: blocking(move || std::fs::read_dir(root)).await??, older_than }
            }
            Home::Bucket => Inner::Bucket(Scan::new(&self.objects, older_than)),
        }))
    }
}

impl Walk {
    /// Examines up to `most` folders; `None` at the end.
    ///
    /// # Errors
    /// [`FileError::Failed`].
    pub async fn next(self, most: usize) -> Result<Option<(Vec<OldFolder>, Self)>, FileError> {
        match self.0 {
            Inner::Bucket(scan) => Ok(scan.next(most).await?.map(|(old, scan)| (old, Self(Inner::Bucket(scan))))),
            Inner::Folder { mut folders, older_than } => {
                blocking(move || {
                    let (mut looked, mut old) = (0, Vec::new());
                    while looked < most {
                        let Some(entry) = folders.next() else { break };
                        looked += 1;
                        old.extend(old_folder(&entry?, older_than));
                    }
                    Ok((looked > 0).then_some((old, Self(Inner::Folder { folders, older_than }))))
                })
                .await?
            }
        }
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
        // A time in the future, from before the clock was set back, does not count as old.
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
