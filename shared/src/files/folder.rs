//! The owner of a folder. The sweep deletes whatever does not belong to a job, so a folder with other contents, or
//! another Redis's folder, must never be used: a file in it names its owner, and Redis stores the same name.
use std::io;
use std::path::{Path, PathBuf};

use super::{FileStore, blocking};
use crate::{Error, Result};

/// The file that makes a folder a file store: the name of its owner.
pub(super) const OWNER: &str = ".leasehold-files";

/// The folder that a `storage_url` names.
///
/// # Errors
/// A sentence with what to write.
pub fn path_of(url: &str) -> Result<PathBuf, String> {
    let refuse = |why: &str| Err(format!("storage_url is {url:?}: {why}; write file:///an/absolute/folder"));
    let Some(path) = url.strip_prefix("file://") else { return refuse("only local folders are supported") };
    if !path.starts_with('/') {
        return refuse("it is not an absolute path");
    }
    match unescaped(path) {
        Some(path) if !path.contains('\0') => Ok(path.into()),
        _ => refuse("its escapes (%20) are not valid"),
    }
}

/// The `storage_url` of a folder.
pub fn url_of(folder: &Path) -> String {
    format!("file://{}", folder.display().to_string().replace('%', "%25"))
}

fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

impl FileStore {
    /// Opens a folder for an owner, and creates it if necessary. `agree` receives the owner that the folder names, if
    /// it does, and returns the owner stored in Redis.
    pub(crate) async fn open<F>(root: PathBuf, agree: impl FnOnce(Option<String>) -> F) -> Result<Self>
    where
        F: Future<Output = Result<String>>,
    {
        let shown = root.display().to_string();
        let fault = |why: String| Error::Config(format!("storage_url names {shown}: {why}"));
        let found = blocking({
            let root = root.clone();
            move || prepare(&root)
        });
        let found = found.await.map_err(|e| fault(e.to_string()))?.map_err(|e| fault(e.to_string()))?;
        let named = match found {
            Found::Owned(owner) => Some(owner),
            Found::Empty => None,
            Found::Foreign(what) => {
                return Err(fault(foreign(&what, "a folder that is empty or does not exist yet")));
            }
        };
        let owner = agree(named.clone()).await?;
        match named {
            Some(named) if named != owner => {
                return Err(fault(of_another(&named, &owner)));
            }
            Some(_) => {}
            None => {
                let root = root.clone();
                let claimed = blocking(move || claim(&root, &owner)).await;
                claimed.map_err(|e| fault(e.to_string()))?.map_err(|e| fault(e.to_string()))?;
            }
        }
        Self::at(root).map_err(|e| fault(e.to_string()))
    }
}

/// The refusal of a place that has content but no owner. `instead` is what to name.
pub(super) fn foreign(what: &str, instead: &str) -> String {
    format!("{what} is in it but no file {OWNER}; files that belong to no job are deleted there, so name {instead}")
}

/// The refusal of a place that another Redis uses.
pub(super) fn of_another(named: &str, owner: &str) -> String {
    format!(
        "it belongs to another Redis (its {OWNER} says {named}, this Redis {owner}); name the folder of this Redis, or \
         an empty one"
    )
}

enum Found {
    Owned(String),
    Empty,
    Foreign(String),
}

fn prepare(root: &Path) -> io::Result<Found> {
    std::fs::create_dir_all(root)?;
    match std::fs::read_to_string(root.join(OWNER)) {
        Ok(owner) => return Ok(Found::Owned(owner.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    for entry in std::fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Another process may be claiming the folder at this moment.
        if !name.starts_with(OWNER) {
            return Ok(Found::Foreign(name));
        }
    }
    Ok(Found::Empty)
}

/// Concurrent processes of one Redis write the same content.
fn claim(root: &Path, owner: &str) -> io::Result<()> {
    let staged = root.join(format!("{OWNER}-{}", uuid::Uuid::now_v7()));
    std::fs::write(&staged, format!("{owner}\n"))?;
    std::fs::File::open(&staged)?.sync_all()?;
    std::fs::rename(&staged, root.join(OWNER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_absolute_folder_of_this_machine() {
        for (url, path) in
            [("file:///srv/files", "/srv/files"), ("file:///a%20b/%C3%A4", "/a b/ä"), ("file:///a b", "/a b")]
        {
            assert_eq!(path_of(url), Ok(PathBuf::from(path)));
        }
        assert_eq!(path_of(&url_of(Path::new("/50% off/ä"))), Ok(PathBuf::from("/50% off/ä")));
        for bad in [
            "",
            "/srv/files",
            "s3://bucket",
            "file://host/x",
            "file://x",
            "file:x",
            "file:///%zz",
            "file:///%2",
            "file:///%00",
        ] {
            let error = path_of(bad).expect_err(bad);
            assert!(error.contains("write file:///"), "{error}");
        }
    }

    async fn open(root: &Path, redis: &str) -> Result<FileStore> {
        let redis = redis.to_owned();
        FileStore::open(root.into(), |named| async move {
            Ok(if redis.is_empty() { named.unwrap_or("new".into()) } else { redis })
        })
        .await
    }

    #[tokio::test]
    async fn only_an_empty_folder_or_ones_own_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("a/b");
        open(&root, "one").await.expect("it is made");
        open(&root, "one").await.expect("it is ours");
        let error = open(&root, "two").await.expect_err("it is another's").to_string();
        assert!(error.contains("belongs to another Redis"), "{error}");
        let error = open(folder.path(), "one").await.expect_err("there is a folder in it").to_string();
        assert!(error.contains("a is in it") && error.contains("empty"), "{error}");
    }
}
