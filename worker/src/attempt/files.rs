//! The files of one attempt: what came with the job, and what the attempt leaves, which stands under its token and
//! becomes the job's only when its settle says so.
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use leasehold::files::{Output, Place, name};
use leasehold::store::Held;
use leasehold::{FileEntry, FileError, FileStore, JobId, limits};
use nix::fcntl::OFlag;
use tokio::io::AsyncRead;
use tokio::sync::Mutex;
use tokio_util::io::StreamReader;

use crate::failure::Failure;

/// What an attempt has of files.
pub(crate) struct Files {
    store: Option<FileStore>,
    held: Held,
    input: Vec<FileEntry>,
    bytes_max: u64,
    /// Something may stand under the token.
    touched: AtomicBool,
    left: Mutex<Left>,
}

/// What the attempt has left so far.
#[derive(Default)]
struct Left {
    files: Vec<FileEntry>,
    /// The list has been taken: what comes later is nobody's.
    closed: bool,
}

impl Files {
    pub fn new(store: Option<FileStore>, held: Held, input: Vec<FileEntry>, bytes_max: u64) -> Self {
        Self { store, held, input, bytes_max, touched: AtomicBool::new(false), left: Mutex::default() }
    }

    pub fn input(&self) -> &[FileEntry] {
        &self.input
    }

    pub fn store(&self) -> Result<&FileStore, FileError> {
        self.store.as_ref().ok_or(FileError::NoStore)
    }

    pub async fn open(&self, name: &str) -> Result<impl AsyncRead + Send + Unpin + use<>, FileError> {
        if !self.input.iter().any(|file| file.name == name) {
            return Err(FileError::Missing(name.to_owned()));
        }
        Ok(StreamReader::new(self.store()?.read(&self.held.id, Place::In, name, None).await?))
    }

    /// Copies what came with the job into a folder. Not linked: a command that writes into its copy must not change what
    /// the next attempt is given.
    pub async fn copy_input(&self, folder: &Path) -> Result<(), FileError> {
        for file in &self.input {
            let (store, to) = (self.store()?, folder.join(&file.name));
            store.copy_to(&self.held.id, Place::In, &file.name, to).await?;
        }
        Ok(())
    }

    /// Writes a file under the attempt's token; another of the same name is replaced.
    pub async fn write(&self, file_name: &str, from: impl AsyncRead + Unpin) -> Result<FileEntry, FileError> {
        name::check(file_name)?;
        let store = self.store()?;
        self.touched.store(true, Ordering::SeqCst);
        let mut writer = store.create(&self.held.id, Place::Out(self.held.token), file_name).await?;
        if let Err(e) = writer.push_all(from, self.bytes_max).await {
            writer.abort().await;
            return Err(e);
        }
        let mut left = self.left.lock().await;
        let others = left.files.iter().filter(|file| file.name != file_name);
        let (count, bytes) = others.fold((1, writer.bytes()), |(n, bytes), file| (n + 1, bytes + file.bytes));
        let fault = if left.closed {
            Some(format!("file {file_name:?} was written after the attempt had ended"))
        } else if count > limits::FILES_MAX {
            Some(format!("an attempt may leave {} files, and {file_name:?} is one more", limits::FILES_MAX))
        } else if bytes > self.bytes_max {
            Some(format!(
                "with {file_name:?} the attempt leaves more than {} bytes (limits.upload_bytes)",
                self.bytes_max
            ))
        } else {
            None
        };
        if let Some(fault) = fault {
            writer.abort().await;
            return Err(FileError::OverLimit(fault));
        }
        let entry = writer.finish(name::content_type_of(file_name)).await?;
        left.files.retain(|file| file.name != file_name);
        left.files.push(entry.clone());
        Ok(entry)
    }

    /// Copies the files that another job's attempt left. After a failure, [`Files::forget`] must follow.
    pub async fn copy_output(&self, from: &JobId, output: &Output) -> Result<(), FileError> {
        for file in &output.files {
            let bytes = self.store()?.read(from, Place::Out(output.token), &file.name, None).await?;
            let copy = self.write(&file.name, StreamReader::new(bytes)).await?;
            if copy.sha256 != file.sha256 {
                return Err(FileError::Failed(format!("file {:?} of job {from} is not what it was", file.name)));
            }
        }
        Ok(())
    }

    /// Deletes what the attempt has left so far; it may leave other files.
    pub async fn forget(&self) {
        self.left.lock().await.files.clear();
        if let Some(store) = self.store.as_ref().filter(|_| self.touched.swap(false, Ordering::SeqCst)) {
            store.remove_output(&self.held.id, self.held.token).await;
        }
    }

    /// Keeps what a command has left in its folder: regular files, none in folders of their own.
    pub async fn keep(&self, folder: PathBuf) -> Result<(), Failure> {
        let listing = tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || names_in(&folder)
        });
        for file_name in listing.await.map_err(|e| Failure::new(e.to_string()))?? {
            name::check(&file_name).map_err(|e| Failure::fatal(format!("what it left in out/ is not kept: {e}")))?;
            let file = open_regular(folder.join(&file_name)).await?;
            self.write(&file_name, file).await.map_err(|e| match e {
                FileError::OverLimit(_) => Failure::fatal(format!("what it left in out/ is not kept: {e}")),
                e => Failure::new(format!("what it left in out/ is not kept: {e}")),
            })?;
        }
        Ok(())
    }

    /// What the attempt leaves, for its settle; nothing is added from now on.
    pub async fn take(&self) -> Vec<FileEntry> {
        let mut left = self.left.lock().await;
        left.closed = true;
        left.files.sort_by(|a, b| a.name.cmp(&b.name));
        std::mem::take(&mut left.files)
    }

    /// Deletes what the attempt left, since it will never be the job's.
    pub async fn discard(&self) {
        self.left.lock().await.closed = true;
        if let Some(store) = self.store.as_ref().filter(|_| self.touched.load(Ordering::SeqCst)) {
            store.remove_output(&self.held.id, self.held.token).await;
        }
    }

    /// Deletes what attempts before this one, which completed the job, have left.
    pub async fn discard_older(&self) {
        if let Some(store) = &self.store {
            store.remove_outputs_before(&self.held.id, self.held.token).await;
        }
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Failure::new(format!("out/ cannot be read: {e}")))? {
        let entry = entry.map_err(|e| Failure::new(format!("out/ cannot be read: {e}")))?;
        let shown = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().is_ok_and(|sort| sort.is_file()) {
            return Err(no_file(&shown));
        }
        let name = entry.file_name().into_string();
        names.push(name.map_err(|_| Failure::fatal(format!("out/{shown} is not kept: its name is not UTF-8")))?);
        if names.len() > limits::FILES_MAX {
            let most = limits::FILES_MAX;
            return Err(Failure::fatal(format!("it left more than {most} files in out/; pack them into one")));
        }
    }
    names.sort();
    Ok(names)
}

fn no_file(shown: &str) -> Failure {
    Failure::fatal(format!(
        "out/{shown} is a folder, a link or a device; only regular files directly in out/ are kept, so pack a folder into one"
    ))
}

/// Opens what was a file a moment ago; what has taken its place since is neither followed nor waited for.
async fn open_regular(path: PathBuf) -> Result<tokio::fs::File, Failure> {
    let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let opening = tokio::task::spawn_blocking(move || {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    });
    let opened: Result<std::fs::File, io::Error> = opening.await.map_err(|e| Failure::new(e.to_string()))?;
    match opened {
        Ok(file) => Ok(tokio::fs::File::from_std(file)),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(no_file(&shown)),
        Err(e) => Err(Failure::new(format!("out/{shown} cannot be read: {e}"))),
    }
}
