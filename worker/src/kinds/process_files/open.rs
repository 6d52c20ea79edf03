//! Finds a document below the root and opens it safely; and reads it, in the reader.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

use super::{FILE_BYTES_MAX, ProcessError};

const SHOWN_CHARS_MAX: usize = 200;

/// The file below `root`, opened. Its size is checked here and again by the reader: it may grow.
pub(super) fn find(root: &Path, file: &str) -> Result<File, ProcessError> {
    let (root, path) = resolve(root, file)?;
    let opened = open(&root, &path, file)?;
    match opened.metadata().map_err(|error| refused(file, error))?.len() {
        0..=FILE_BYTES_MAX => Ok(opened),
        _ => Err(ProcessError::TooLarge { file: shown(file) }),
    }
}

/// A file's bytes, and their SHA-256 in hexadecimal.
pub(super) struct Content {
    pub bytes: Vec<u8>,
    pub sha256: String,
}

/// Reads all of a file; `None`: it is over [`FILE_BYTES_MAX`].
pub(super) fn read(file: &mut dyn Read) -> io::Result<Option<Content>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Ok(None);
    }
    let sha256 = Sha256::digest(&bytes).iter().fold(String::with_capacity(64), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a String takes every write");
        digits
    });
    Ok(Some(Content { bytes, sha256 }))
}

/// A name, or a library's text about a file, for use in an error: control characters are escaped, so that it cannot
/// forge log lines, and it is cut to a length that fits a log line.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == SHOWN_CHARS_MAX {
            shown.push('…');
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The real paths of the root and of the file in it.
pub(super) fn resolve(root: &Path, file: &str) -> Result<(PathBuf, PathBuf), ProcessError> {
    if file.is_empty() {
        return Err(ProcessError::EmptyName);
    }
    if !stays_below(Path::new(file)) {
        return Err(ProcessError::NotFound { file: shown(file) });
    }
    let root = fs::canonicalize(root).map_err(|source| ProcessError::RootUnreadable { source })?;
    let path = fs::canonicalize(root.join(file)).map_err(|error| refused(file, error))?;
    if path.starts_with(&root) { Ok((root, path)) } else { Err(ProcessError::NotFound { file: shown(file) }) }
}

/// Whether the name alone stays below the root. Checked before the file system is used, whose errors would reveal what
/// exists outside.
fn stays_below(file: &Path) -> bool {
    let mut depth = 0_usize;
    file.components().all(|component| match component {
        Component::CurDir => true,
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::ParentDir if depth > 0 => {
            depth -= 1;
            true
        }
        Component::ParentDir | Component::RootDir | Component::Prefix(_) => false,
    })
}

/// Opens a regular file. The path may have changed since it was resolved, so the open file is checked again: the
/// kernel's path of it must be below the root.
pub(super) fn open(root: &Path, path: &Path, file: &str) -> Result<File, ProcessError> {
    // Checked before opening, since opening a device can have side effects.
    let before = fs::symlink_metadata(path).map_err(|error| refused(file, error))?;
    if !before.is_file() {
        return Err(ProcessError::NotAFile { file: shown(file) });
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
    let opened =
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(|error| refused(file, error))?;
    let found = opened.metadata().map_err(|error| refused(file, error))?;
    if !found.is_file() {
        return Err(ProcessError::NotAFile { file: shown(file) });
    }
    let real = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))
        .map_err(|source| ProcessError::Unreadable { file: shown(file), source })?;
    if !real.starts_with(root) {
        return Err(ProcessError::NotFound { file: shown(file) });
    }
    Ok(opened)
}

/// Classifies a system error: a name that cannot exist (with NUL, too long, through a file, a loop of links) is not
/// found; any other error may be temporary.
fn refused(file: &str, error: io::Error) -> ProcessError {
    let ring = error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32);
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput | ErrorKind::InvalidFilename => {
            ProcessError::NotFound { file: shown(file) }
        }
        _ if ring => ProcessError::NotFound { file: shown(file) },
        _ => ProcessError::Unreadable { file: shown(file), source: error },
    }
}
