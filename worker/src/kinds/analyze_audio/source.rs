//! The file as the decoder reads it: counts the bytes read, and can stop the decoder during any read.
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use symphonia::core::io::MediaSource;

/// The error of a read after a stop; differs from the `UnexpectedEof` of a truncated file.
const STOPPED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// A file being decoded.
pub(super) struct Source<'a> {
    file: File,
    bytes: u64,
    at: u64,
    furthest: Arc<AtomicU64>,
    should_stop: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Source<'a> {
    /// Keeps the number of bytes read up to date in the given counter.
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
