//! Writing a file: staged beside its final path, and renamed once it is complete.
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use sha2::Digest;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{FileEntry, FileError, FileStore, Place, blocking, failed, object};
use crate::JobId;
use crate::limits::FILE_PART_BYTES;

/// A file being written. It is not visible before [`FileWriter::finish`]; dropped earlier, it leaves nothing behind.
pub struct FileWriter {
    upload: Box<dyn MultipartUpload>,
    name: String,
    buffer: BytesMut,
    bytes: u64,
    hash: sha2::Sha256,
}

impl FileStore {
    /// Starts a file. It exists once [`FileWriter::finish`] has returned; a dropped writer leaves nothing behind.
    ///
    /// # Errors
    /// [`FileError::Name`]; [`FileError::Failed`].
    pub async fn create(&self, id: &JobId, place: Place, name: &str) -> Result<FileWriter, FileError> {
        let path = object(id, place, name)?;
        let (objects, runtime) = (Arc::clone(&self.objects), tokio::runtime::Handle::current());
        // It creates the folders and the staged file before it first yields.
        let upload = blocking(move || runtime.block_on(objects.put_multipart(&path)));
        let upload = upload.await?.map_err(|e| failed(&e, name))?;
        Ok(FileWriter::new(upload, name))
    }
}

impl FileWriter {
    fn new(upload: Box<dyn MultipartUpload>, name: &str) -> Self {
        Self { upload, name: name.to_owned(), buffer: BytesMut::new(), bytes: 0, hash: sha2::Sha256::new() }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// [`FileError::Failed`]: the file must not be finished.
    pub async fn push(&mut self, piece: &Bytes) -> Result<(), FileError> {
        self.bytes += piece.len() as u64;
        self.hash.update(piece);
        self.buffer.extend_from_slice(piece);
        while self.buffer.len() >= FILE_PART_BYTES {
            self.put(FILE_PART_BYTES).await?;
        }
        Ok(())
    }

    async fn put(&mut self, bytes: usize) -> Result<(), FileError> {
        let part = self.buffer.split_to(bytes).freeze();
        self.upload.put_part(PutPayload::from_bytes(part)).await.map_err(|e| failed(&e, &self.name))
    }

    /// Adds everything from `reader`, and fails when the file would exceed `bytes_max`.
    ///
    /// # Errors
    /// [`FileError::OverLimit`], or [`FileError::Failed`].
    pub async fn push_all(&mut self, mut reader: impl AsyncRead + Unpin, bytes_max: u64) -> Result<(), FileError> {
        let mut buffer = BytesMut::with_capacity(FILE_PART_BYTES);
        loop {
            buffer.reserve(FILE_PART_BYTES);
            if reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            if self.bytes + buffer.len() as u64 > bytes_max {
                let name = &self.name;
                return Err(FileError::OverLimit(format!(
                    "file {name:?} is larger than the remaining {bytes_max} bytes"
                )));
            }
            let piece = buffer.split().freeze();
            self.push(&piece).await?;
        }
    }

    /// Completes the file and makes it visible.
    ///
    /// # Errors
    /// [`FileError::Failed`]: nothing is left behind.
    pub async fn finish(mut self, content_type: String) -> Result<FileEntry, FileError> {
        if !self.buffer.is_empty() {
            self.put(self.buffer.len()).await?;
        }
        self.upload.complete().await.map_err(|e| failed(&e, &self.name))?;
        let sha256 = self.hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(FileEntry { name: self.name, bytes: self.bytes, content_type, sha256 })
    }

    /// Aborts the write, and returns once the staged file is deleted.
    pub async fn abort(mut self) {
        if let Err(e) = self.upload.abort().await {
            tracing::warn!("an unfinished file is left to the file sweep: {e}");
        }
    }
}
