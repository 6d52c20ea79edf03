//! Writing a file. In a folder it is staged beside its final path, and renamed once it is complete; in a bucket a small
//! file is one request, and a larger one is sent in parts that become an object once they are complete.
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::path::Path as ObjectPath;
use object_store::{
    Attribute, Attributes, GetOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutPayload,
};
use sha2::Digest;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::client::brief;
use super::{FileEntry, FileError, FileStore, Place, blocking, bucket, failed, object};
use crate::JobId;
use crate::limits::{BUCKET_PART_BYTES, BUCKET_PARTS_MAX, FILE_PART_BYTES};

/// The metadata of an object by which a writer knows its own.
const WRITER: &str = "writer";

/// A file being written. It is not visible before [`FileWriter::finish`]; dropped earlier, it leaves nothing behind.
pub struct FileWriter {
    /// `None` in a bucket until there is a whole part to send, and once the upload has ended.
    upload: Option<Box<dyn MultipartUpload>>,
    /// For a file in a bucket.
    remote: Option<Remote>,
    name: String,
    buffer: BytesMut,
    bytes: u64,
    hash: sha2::Sha256,
}

/// An object being written.
struct Remote {
    objects: Arc<dyn ObjectStore>,
    path: ObjectPath,
    /// Identifies this writer; stored with the object.
    writer: String,
    parts: usize,
}

impl FileStore {
    /// Starts a file. It exists once [`FileWriter::finish`] has returned; a dropped writer leaves nothing behind.
    ///
    /// # Errors
    /// [`FileError::Name`]; [`FileError::Failed`].
    pub async fn create(&self, id: &JobId, place: Place, name: &str) -> Result<FileWriter, FileError> {
        let (path, objects) = (object(id, place, name)?, Arc::clone(&self.objects));
        if self.is_remote() {
            let writer = uuid::Uuid::now_v7().to_string();
            return Ok(FileWriter::new(None, Some(Remote { objects, path, writer, parts: 0 }), name));
        }
        let runtime = tokio::runtime::Handle::current();
        // It creates the folders and the staged file before it first yields.
        let upload = blocking(move || runtime.block_on(objects.put_multipart(&path)));
        let upload = upload.await?.map_err(|e| failed(&e, name))?;
        Ok(FileWriter::new(Some(upload), None, name))
    }
}

impl Remote {
    async fn start(&self) -> object_store::Result<Box<dyn MultipartUpload>> {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::Metadata(WRITER.into()), self.writer.clone().into());
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        self.objects.put_multipart_opts(&self.path, options).await
    }

    /// Whether the object is there, and from this writer: a repeated request to complete an upload finds no upload when
    /// the first has completed it and its reply was lost.
    async fn is_written(&self, bytes: u64) -> bool {
        let options = GetOptions { head: true, ..GetOptions::default() };
        self.objects.get_opts(&self.path, options).await.is_ok_and(|found| {
            let writer = found.attributes.get(&Attribute::Metadata(WRITER.into()));
            found.meta.size == bytes && writer.is_some_and(|writer| **writer == *self.writer)
        })
    }
}

impl FileWriter {
    fn new(upload: Option<Box<dyn MultipartUpload>>, remote: Option<Remote>, name: &str) -> Self {
        Self { upload, remote, name: name.to_owned(), buffer: BytesMut::new(), bytes: 0, hash: sha2::Sha256::new() }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes in memory that have not been sent or written yet.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn part_bytes(&self) -> usize {
        if self.remote.is_some() { BUCKET_PART_BYTES } else { FILE_PART_BYTES }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// [`FileError::Failed`], or [`FileError::OverLimit`] in a bucket: the file must not be finished.
    pub async fn push(&mut self, piece: &Bytes) -> Result<(), FileError> {
        self.bytes += piece.len() as u64;
        self.hash.update(piece);
        self.buffer.extend_from_slice(piece);
        let part = self.part_bytes();
        while self.buffer.len() >= part {
            self.put(part).await?;
        }
        Ok(())
    }

    async fn put(&mut self, bytes: usize) -> Result<(), FileError> {
        let part = PutPayload::from_bytes(self.buffer.split_to(bytes).freeze());
        if let Some(remote) = &mut self.remote {
            if remote.parts == BUCKET_PARTS_MAX {
                let (name, most) = (&self.name, bucket::bytes_max());
                return Err(FileError::OverLimit(format!(
                    "file {name:?} is larger than {most} bytes, the most that a file in object storage may have"
                )));
            }
            remote.parts += 1;
            if self.upload.is_none() {
                self.upload = Some(remote.start().await.map_err(|e| unwritten(&e))?);
            }
        }
        let upload = self.upload.as_mut().expect("it has been started");
        upload.put_part(part).await.map_err(|e| unwritten(&e))
    }

    /// Adds everything from `reader`, and fails when the file would exceed `bytes_max`.
    ///
    /// # Errors
    /// [`FileError::OverLimit`], or [`FileError::Failed`].
    pub async fn push_all(&mut self, mut reader: impl AsyncRead + Unpin, bytes_max: u64) -> Result<(), FileError> {
        let mut buffer = BytesMut::with_capacity(FILE_PART_BYTES);
        loop {
            buffer.reserve(FILE_PART_BYTES);
            let read = reader.read_buf(&mut buffer).await.map_err(|e| FileError::Unread(e.to_string()))?;
            if read == 0 {
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
        match &self.remote {
            Some(remote) if self.upload.is_none() => {
                let whole = PutPayload::from_bytes(std::mem::take(&mut self.buffer).freeze());
                remote.objects.put(&remote.path, whole).await.map_err(|e| unwritten(&e))?;
            }
            _ => self.complete().await?,
        }
        let sha256 = self.hash.finalize_reset().iter().map(|b| format!("{b:02x}")).collect();
        Ok(FileEntry { name: std::mem::take(&mut self.name), bytes: self.bytes, content_type, sha256 })
    }

    async fn complete(&mut self) -> Result<(), FileError> {
        if !self.buffer.is_empty() {
            self.put(self.buffer.len()).await?;
        }
        let upload = self.upload.as_mut().expect("it has been started");
        let Err(error) = upload.complete().await else {
            self.upload = None;
            return Ok(());
        };
        match &self.remote {
            Some(remote) if remote.is_written(self.bytes).await => {
                self.upload = None;
                Ok(())
            }
            _ => Err(unwritten(&error)),
        }
    }

    /// Aborts the write, and returns once the staged file is deleted.
    pub async fn abort(mut self) {
        if let Some(upload) = self.upload.take() {
            abort(upload).await;
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // A file in a folder is deleted when its upload is dropped; a bucket keeps the parts until it is aborted.
        if self.remote.is_some()
            && let Some(upload) = self.upload.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(abort(upload));
        }
    }
}

async fn abort(mut upload: Box<dyn MultipartUpload>) {
    if let Err(e) = upload.abort().await {
        tracing::warn!("an unfinished file is left to the file sweep, or the bucket's lifecycle rule: {}", brief(&e));
    }
}

/// The error of a write: a bucket that is gone is "not found", but not the file.
fn unwritten(error: &object_store::Error) -> FileError {
    FileError::Failed(brief(error))
}
