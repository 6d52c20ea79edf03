//! The file as the decoder reads it: it tells how far it has come, and can be stopped in the middle of any search.
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use symphonia::core::io::MediaSource;

/// What a read says once it is to stop; never a truncated file's `UnexpectedEof`.
const STOPPED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// A file that is being decoded.
pub(super) struct Source<'a> {
    file: File,
    bytes: u64,
    at: u64,
    furthest: Arc<AtomicU64>,
    should_stop: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Source<'a> {
    /// With the number of bytes that have been read, which it keeps up to date.
    pub fn new(file: File, should_stop: &'a (dyn Fn() -> bool + Sync)) -> io::Result<(Self, Arc<AtomicU64>)> {
        let (bytes, furthest) = (file.metadata()?.len(), Arc::<AtomicU64>::default());
        Ok((Self { file, bytes, at: 0, furthest: Arc::clone(&furthest), should_stop }, furthest))
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn check_stop(&self) -> io::Result<()> {
        if (self.should_stop)() { Err(STOPPED.into()) } else { Ok(()) }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check_stop()?;
        let count = self.file.read(buffer)?;
        self.at += count as u64;
        self.furthest.store(self.at, Ordering::Relaxed);
        Ok(count)
    }
}

impl Seek for Source<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.check_stop()?;
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

impl MediaSource for Source<'_> {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.bytes)
    }
}
