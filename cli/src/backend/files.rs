//! Files of jobs, in both directions, streamed.
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use futures_util::{StreamExt, TryStreamExt};
use leasehold::files::{FileBytes, Place, name};
use leasehold::{FileEntry, FileError, Job, JobId, NewJob, Refusal, draft, limits};
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use super::client::{Client, Repeat};
use super::{Backend, Direct};
use crate::failure::Failure;

/// How long an upload or a download may take; the API gives an upload an hour.
const TRANSFER_LIMIT: Duration = Duration::from_secs(3_900);

/// Whether a file was submitted with the job, or left by an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// Submitted with the job.
    In,
    /// Left by an attempt.
    Out,
}

/// A file in a list.
#[derive(Serialize, Deserialize)]
pub(crate) struct FileView {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its media type.
    pub content_type: String,
    /// Its direction.
    pub direction: Direction,
}

#[derive(Deserialize)]
struct Files {
    files: Vec<FileView>,
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Failure::Failed(error.to_string())
    }
}

/// A file to send, by what it will be called.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    name: String,
    path: PathBuf,
}

impl Attachment {
    /// The files at those paths, if they can be sent together.
    pub(crate) fn all(paths: &[PathBuf]) -> Result<Vec<Self>, Failure> {
        let mut all: Vec<Self> = Vec::new();
        for path in paths {
            let fault = |why: String| Failure::Usage(format!("--file {}: {why}", path.display()));
            let metadata = std::fs::metadata(path).map_err(|e| fault(e.to_string()))?;
            if metadata.is_dir() {
                return Err(fault("it is a folder; pack it into one file".into()));
            }
            let name = path.file_name().unwrap_or_default();
            let name = name.to_str().ok_or_else(|| fault("its name is not UTF-8".into()))?.to_owned();
            name::check(&name).map_err(|e| fault(e.to_string()))?;
            if all.iter().any(|other| other.name == name) {
                return Err(fault("another file has this name; a job's files need names of their own".into()));
            }
            all.push(Self { name, path: path.clone() });
        }
        if all.len() > limits::FILES_MAX {
            return Err(Failure::Usage(format!(
                "--file: a job may have {} files; pack them into one",
                limits::FILES_MAX
            )));
        }
        Ok(all)
    }

    fn open(&self) -> Result<(tokio::fs::File, u64), Failure> {
        let opened = std::fs::File::open(&self.path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|e| Failure::Usage(format!("--file {}: {e}", self.path.display())))?;
        Ok((tokio::fs::File::from_std(file), bytes))
    }
}

impl Backend {
    /// The files of a job; those that an attempt left come first.
    pub(crate) async fn files(&self, id: &JobId) -> Result<Vec<FileView>, Failure> {
        match self {
            Backend::Redis(direct) => Ok(direct.files(id).await?.into_iter().map(|(_, view)| view).collect()),
            Backend::Http(api) => Ok(api.get::<Files>(&["jobs", id.as_str(), "files"], &[]).await?.files),
        }
    }

    /// The bytes of one of them.
    pub(crate) async fn file(&self, id: &JobId, file: &FileView) -> Result<FileBytes, Failure> {
        match self {
            Backend::Redis(direct) => {
                let of = |view: &FileView| view.name == file.name && view.direction == file.direction;
                let found = direct.files(id).await?.into_iter().find(|(_, view)| of(view));
                let (place, _) = found.ok_or_else(|| FileError::Missing(file.name.clone()))?;
                let files = direct.store.files().ok_or(FileError::NoStore)?;
                Ok(files.read(id, place, &file.name, None).await?)
            }
            Backend::Http(api) => {
                let direction = if file.direction == Direction::In { "in" } else { "out" };
                let path = ["jobs", id.as_str(), "files", &file.name];
                let build = || {
                    let request = api.request_with(Method::GET, &path, &[("direction", direction)]);
                    Ok(request.timeout(TRANSFER_LIMIT))
                };
                let answer = api.send(Repeat::Safe, build).await?;
                Ok(answer.bytes_stream().map_err(std::io::Error::other).boxed())
            }
        }
    }
}

impl Direct {
    async fn files(&self, id: &JobId) -> Result<Vec<(Place, FileView)>, Failure> {
        let missing = || Failure::Failed(Refusal::NotFound(id.clone()).to_string());
        let files = self.store.job_files(id).await?.ok_or_else(missing)?;
        let view =
            |direction, FileEntry { name, bytes, content_type, .. }| FileView { name, bytes, content_type, direction };
        let output = files.output.into_iter().flat_map(|output| {
            let place = Place::Out(output.token);
            output.files.into_iter().map(move |file| (place, view(Direction::Out, file)))
        });
        Ok(output.chain(files.input.into_iter().map(|file| (Place::In, view(Direction::In, file)))).collect())
    }

    /// Submits a job with files: they are written first, under the id that it will have.
    pub(super) async fn submit_with_files(&self, mut job: NewJob, attached: &[Attachment]) -> Result<JobId, Failure> {
        let files = self.store.files().ok_or(FileError::NoStore)?;
        let id = self.store.mint_id(&job);
        let written = match self.write(&id, attached).await {
            Ok(written) => written,
            Err(failure) => {
                files.remove(vec![id]).await;
                return Err(failure);
            }
        };
        draft::attach(&mut job, id, written);
        Ok(self.store.submit(job).await?.id)
    }

    async fn write(&self, id: &JobId, attached: &[Attachment]) -> Result<Vec<FileEntry>, Failure> {
        let files = self.store.files().ok_or(FileError::NoStore)?;
        let (mut written, mut left) = (Vec::new(), self.config.limits.upload_bytes);
        for file in attached {
            let mut writer = files.create(id, Place::In, &file.name).await?;
            if let Err(e) = writer.push_all(file.open()?.0, left).await {
                writer.abort().await;
                return Err(e.into());
            }
            left -= writer.bytes();
            written.push(writer.finish(name::content_type_of(&file.name)).await?);
        }
        Ok(written)
    }
}

impl Client {
    /// Submits a job with files: the submit's JSON as the first part, a part for each file.
    pub(super) async fn submit_with_files(&self, json: &str, files: &[Attachment], key: &str) -> Result<Job, Failure> {
        let build = || {
            let is_plain = "a fixed type is well formed";
            let mut form =
                Form::new().part("job", Part::text(json.to_owned()).mime_str("application/json").expect(is_plain));
            for file in files {
                let (opened, bytes) = file.open()?;
                let part = Part::stream_with_length(Body::wrap_stream(ReaderStream::new(opened)), bytes);
                let part = part.file_name(file.name.clone());
                let part = part.mime_str(&name::content_type_of(&file.name)).expect("a guessed type is well formed");
                form = form.part("file", part);
            }
            let request = self.request(Method::POST, &["jobs"]).header("idempotency-key", key);
            Ok(request.timeout(TRANSFER_LIMIT).multipart(form))
        };
        self.json(self.send(Repeat::Safe, build).await?).await
    }
}

/// The path for a file of that name, unless the name could lead elsewhere.
pub(crate) fn path_for(name: &str) -> Result<&Path, Failure> {
    name::check(name).map_err(|e| Failure::Usage(e.to_string()))?;
    Ok(Path::new(name))
}
