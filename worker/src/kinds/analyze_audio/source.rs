//! A part of the file as the decoder reads it: counts the bytes read, and can stop the decoder during any read.
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use symphonia::core::io::MediaSource;

/// The error of a read after a stop; differs from the `UnexpectedEof` of a truncated file.
const STOPPED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// What is decoded at once: bytes of the file after a header that need not be in it.
pub(super) struct Part {
    pub header: Vec<u8>,
    /// Where its bytes begin in the file.
    pub at: u64,
    pub bytes: u64,
    /// How many frames it has at most; `None`: as many as are decoded.
    pub frames: Option<u64>,
}

/// A part being decoded.
pub(super) struct Source<'a> {
    file: &'a File,
    part: &'a Part,
    at: u64,
    /// Updated to the furthest place in the file that has been read.
    furthest: &'a AtomicU64,
    should_stop: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Source<'a> {
    pub fn new(
        file: &'a File,
        part: &'a Part,
        furthest: &'a AtomicU64,
        should_stop: &'a (dyn Fn() -> bool + Sync),
    ) -> Self {
        Self { file, part, at: 0, furthest, should_stop }
    }

    fn len(&self) -> u64 {
        self.part.header.len() as u64 + self.part.bytes
    }

    fn check_stop(&self) -> io::Result<()> {
        if (self.should_stop)() { Err(STOPPED.into()) } else { Ok(()) }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check_stop()?;
        let header = self.part.header.get(usize::try_from(self.at).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = if header.is_empty() {
            let within = self.at - self.part.header.len() as u64;
            let room = usize::try_from(self.part.bytes.saturating_sub(within)).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.file.read_at(&mut buffer[..room], self.part.at + within)?;
            self.furthest.fetch_max(self.part.at + within + count as u64, Ordering::Relaxed);
            count
        } else {
            let count = header.len().min(buffer.len());
            buffer[..count].copy_from_slice(&header[..count]);
            count
        };
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Source<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.check_stop()?;
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl MediaSource for Source<'_> {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len())
    }
}
