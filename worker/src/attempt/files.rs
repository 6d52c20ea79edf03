//! The files of one attempt: the job's input, and the attempt's output, which is stored under the lease's token and
//! becomes the job's only when the attempt is settled as completed.
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leasehold::files::{Output, Place, name};
use leasehold::store::{ClaimedJob, Held};
use leasehold::{FileEntry, FileError, FileStore, JobId, limits};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use tokio::io::AsyncRead;
use tokio::sync::Mutex;
use tokio_util::io::StreamReader;

use crate::failure::Failure;

/// The input and output files of an attempt.
pub(crate) struct Files {
    store: Option<FileStore>,
    held: Held,
    input: Vec<FileEntry>,
    bytes_max: u64,
    /// There was no earlier attempt.
    is_first: bool,
    /// Files may have been written under the token.
    touched: AtomicBool,
    left: Mutex<Left>,
}

/// The output files so far.
#[derive(Default)]
struct Left {
    files: Vec<FileEntry>,
    /// The list has been taken; later files are refused.
    closed: bool,
}

impl Files {
    pub fn new(store: Option<FileStore>, job: &ClaimedJob, bytes_max: u64) -> Self {
        let (held, input, is_first) = (job.held.clone(), job.files.clone(), job.is_first);
        Self { store, held, input, bytes_max, is_first, touched: AtomicBool::new(false), left: Mutex::default() }
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

    /// Copies the input files into a folder. They are not linked: a command that writes to its copy must not change the
    /// input of the next attempt.
    pub async fn copy_input(&self, folder: &Path) -> Result<(), FileError> {
        for file in &self.input {
            let (store, to) = (self.store()?, folder.join(&file.name));
            store.copy_to(&self.held.id, Place::In, &file.name, to).await?;
        }
        Ok(())
    }

    /// Writes a file under the attempt's token; a file of the same name is replaced.
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
            Some(format!("file {file_name:?} was written after the attempt ended"))
        } else if count > limits::FILES_MAX {
            Some(format!("file {file_name:?} exceeds the limit of {} output files", limits::FILES_MAX))
        } else if bytes > self.bytes_max {
            Some(format!(
                "file {file_name:?} exceeds the limit of {} bytes for all output files (limits.upload_bytes)",
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

    /// Copies the output files of another job. After a failure, [`Files::forget`] must be called.
    pub async fn copy_output(&self, from: &JobId, output: &Output) -> Result<(), FileError> {
        for file in &output.files {
            let bytes = self.store()?.read(from, Place::Out(output.token), &file.name, None).await?;
            let copy = self.write(&file.name, StreamReader::new(bytes)).await?;
            if copy.sha256 != file.sha256 {
                return Err(FileError::Failed(format!(
                    "file {:?} of job {from} does not match its checksum",
                    file.name
                )));
            }
        }
        Ok(())
    }

    /// Deletes the output files so far; the attempt may still write others.
    pub async fn forget(&self) {
        self.left.lock().await.files.clear();
        if let Some(store) = self.store.as_ref().filter(|_| self.touched.swap(false, Ordering::SeqCst)) {
            store.remove_output(&self.held.id, self.held.token).await;
        }
    }

    /// Stores the files a command left in its output folder: regular files directly in it.
    pub async fn keep(&self, folder: PathBuf) -> Result<(), Failure> {
        let listing = tokio::task::spawn_blocking(move || {
            let folder = open_folder(&folder)?;
            names_in(&folder).map(|names| (folder, names))
        });
        let (folder, names) = listing.await.map_err(|e| Failure::new(e.to_string()))??;
        let folder = Arc::new(folder);
        for file_name in names {
            name::check(&file_name).map_err(|e| Failure::fatal(format!("cannot keep the files in out/: {e}")))?;
            let file = open_regular(Arc::clone(&folder), file_name.clone()).await?;
            self.write(&file_name, file).await.map_err(|e| match e {
                FileError::OverLimit(_) => Failure::fatal(format!("cannot keep the files in out/: {e}")),
                e => Failure::of_files("cannot keep the files in out/: ", &e),
            })?;
        }
        Ok(())
    }

    /// The output files, for the settle; later files are refused.
    pub async fn take(&self) -> Vec<FileEntry> {
        let mut left = self.left.lock().await;
        left.closed = true;
        left.files.sort_by(|a, b| a.name.cmp(&b.name));
        std::mem::take(&mut left.files)
    }

    /// Deletes the output files, which will not become the job's.
    pub async fn discard(&self) {
        self.left.lock().await.closed = true;
        if let Some(store) = self.store.as_ref().filter(|_| self.touched.load(Ordering::SeqCst)) {
            store.remove_output(&self.held.id, self.held.token).await;
        }
    }

    /// Deletes the output files of earlier attempts; this one completed the job.
    pub async fn discard_older(&self) {
        if let Some(store) = self.store.as_ref().filter(|_| !self.is_first) {
            store.remove_outputs_before(&self.held.id, self.held.token).await;
        }
    }
}

/// Opens the folder itself: the command may have put a link in its place.
fn open_folder(folder: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(folder, flags, Mode::empty()).map_err(|e| match e {
        Errno::ELOOP | Errno::ENOTDIR => {
            Failure::fatal("out is a link or a file; the command must leave the folder that it was given")
        }
        e => Failure::new(format!("out/ cannot be read: {e}")),
    })
}

fn names_in(folder: &OwnedFd) -> Result<Vec<String>, Failure> {
    let fault = |e: io::Error| Failure::new(format!("out/ cannot be read: {e}"));
    let mut names = Vec::new();
    let mut listing = Dir::from_fd(folder.try_clone().map_err(fault)?).map_err(|e| fault(e.into()))?;
    for entry in listing.iter() {
        let entry = entry.map_err(|e| fault(e.into()))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let shown = name.to_string_lossy().into_owned();
        let is_file = match entry.file_type() {
            Some(sort) => sort == Type::File,
            None => fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG),
        };
        if !is_file {
            return Err(no_file(&shown));
        }
        let name =
            name.to_str().ok_or_else(|| Failure::fatal(format!("cannot keep out/{shown}: its name is not UTF-8")));
        names.push(name?.to_owned());
        if names.len() > limits::FILES_MAX {
            let most = limits::FILES_MAX;
            return Err(Failure::fatal(format!("there are more than {most} files in out/; pack them into an archive")));
        }
    }
    names.sort();
    Ok(names)
}

fn no_file(shown: &str) -> Failure {
    Failure::fatal(format!(
        "out/{shown} is a folder, a link or a device; only regular files directly in out/ are kept, so pack a folder into an \
         archive"
    ))
}

/// Opens a file that was regular when listed. If it has been replaced since, a link is not followed and a pipe not
/// waited for.
async fn open_regular(folder: Arc<OwnedFd>, shown: String) -> Result<tokio::fs::File, Failure> {
    let name = shown.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = std::fs::File::from(openat(&folder, name.as_str(), flags, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    });
    let opened: Result<std::fs::File, io::Error> = opening.await.map_err(|e| Failure::new(e.to_string()))?;
    match opened {
        Ok(file) => Ok(tokio::fs::File::from_std(file)),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(no_file(&shown)),
        Err(e) => Err(Failure::new(format!("out/{shown} cannot be read: {e}"))),
    }
}
