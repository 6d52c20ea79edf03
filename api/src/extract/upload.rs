//! Uploads: a submit whose body is `multipart/form-data`. Part `job` is the JSON, every other part a file, streamed to
//! the file store before the job is submitted.
//!
//! `job` must come first: the files are written under the job's id, which depends on its kind and key.
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::request::Parts;
use bytes::Bytes;
use futures_util::Stream;
use leasehold::files::{FileStore, Place, name};
use leasehold::server::Client;
use leasehold::{FileEntry, FileError, JobId, NewJob, Store, draft, limits};
use multer::{Field, Multipart};

use super::body::{self, JsonText, Lent};
use super::disposition::Disposition;
use crate::budget::{Budget, Share};
use crate::deadline::Clock;
use crate::error::{Code, Problem};
use crate::fields::Reader;
use crate::state::Api;
use crate::submission;

/// Advice when part `job` does not come first.
const JOB_FIRST: &str = "send the submit's JSON as the first part, named `job`, and each file as a part after it";

/// Parts of a form, for the clients of forms with one file.
const PARTS_MAX: usize = 1_000;

/// Creates a job from the name of its file.
pub type MakeJob = Box<dyn Fn(&str) -> Result<NewJob, Problem> + Send + Sync>;

/// The parts that an upload consists of.
pub enum Form {
    /// The part `job` with the submission, then any number of files.
    Submit {
        /// The Idempotency-Key of the submission.
        key: Option<String>,
    },
    /// A single file.
    One {
        /// The name of its part.
        part: &'static str,
        /// Creates the job.
        job: MakeJob,
    },
}

/// The upload of a request; `None` when its body is of another type.
pub struct Announced(pub Option<Upload>);

impl FromRequestParts<Api> for Announced {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Upload::announced(parts, api).map(Self)
    }
}

/// The body of a submission: JSON, or an upload.
pub enum SubmitBody {
    /// The job alone.
    Json(JsonText),
    /// The job with its files.
    Upload(Upload),
}

impl FromRequestParts<Api> for SubmitBody {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Upload::announced(parts, api)? {
            Some(upload) => Ok(Self::Upload(upload)),
            None => JsonText::from_request_parts(parts, api).await.map(Self::Json),
        }
    }
}

/// A `multipart/form-data` body that has not been read yet.
pub struct Upload {
    lent: Lent,
    clock: Clock,
    client: Client,
    boundary: String,
}

impl Upload {
    /// The upload of a request; `None` when its body is of another type.
    ///
    /// # Errors
    /// A problem when it has no boundary, or is larger than an upload may be.
    pub fn announced(parts: &Parts, api: &Api) -> Result<Option<Self>, Problem> {
        let content_type = body::text_of(&parts.headers, CONTENT_TYPE).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("multipart/form-data") {
            return Ok(None);
        }
        let no_boundary =
            |_| Problem::new(Code::InvalidRequest, "the Content-Type multipart/form-data has no boundary");
        let boundary = multer::parse_boundary(content_type).map_err(no_boundary)?;
        if body::announced(&parts.headers).is_some_and(|bytes| bytes > api.limits().upload_bytes) {
            return Err(too_large(api));
        }
        let lent = parts.extensions.get::<Lent>().expect("every request's body is lent").clone();
        let clock = parts.extensions.get::<Clock>().expect("every request has a clock").clone();
        Ok(Some(Self { lent, clock, client: body::client(parts), boundary }))
    }

    /// Reads the whole upload: stores its files and returns its job. On failure the stored files are deleted.
    ///
    /// # Errors
    /// A problem that names what is wrong.
    pub async fn receive(self, api: &Api, store: &Store, form: Form) -> Result<NewJob, Problem> {
        let mut share = None;
        body::take_share(&mut share, api.bodies(), self.client, 2 * limits::FILE_PART_BYTES)?;
        self.clock.stop();
        let limit = Duration::from_millis(api.limits().upload_ms);
        let mut id = None;
        let reading = async {
            match form {
                Form::Submit { key } => self.read(api, store, key, &mut id).await,
                Form::One { part, job } => self.read_one(api, store, part, job, &mut id).await,
            }
        };
        let reading = tokio::time::timeout(limit, reading).await;
        let late = || Problem::new(Code::BodyTimeout, format!("the upload took longer than {} ms", limit.as_millis()));
        let job = reading.unwrap_or_else(|_| Err(late()));
        if let (Err(_), Some(files), Some(id)) = (&job, store.files(), id) {
            files.remove(vec![id]).await;
        }
        self.clock.start();
        job
    }

    /// Reads part `job` and the files; `id` is set once files may have been written under it.
    async fn read(
        &self,
        api: &Api,
        store: &Store,
        key: Option<String>,
        id: &mut Option<JobId>,
    ) -> Result<NewJob, Problem> {
        let mut reading = Reading::new(self, api);
        let mut job = match reading.next().await? {
            Some(part) if part.name() == Some("job") => {
                let text = reading.text(part, api).await?;
                submission::read(Reader::open(&text)?, key, &api.rules())?
            }
            Some(part) => {
                let shown: String = part.name().unwrap_or_default().chars().take(80).collect();
                return Err(Problem::new(Code::InvalidRequest, format!("the first part is {shown:?}; {JOB_FIRST}")));
            }
            None => return Err(Problem::new(Code::InvalidRequest, format!("the body has no part `job`; {JOB_FIRST}"))),
        };
        let minted = id.insert(store.mint_id(&job)).clone();
        let (mut files, mut names) = (Vec::new(), BTreeSet::new());
        while let Some(part) = reading.next().await? {
            let file_name = file_name(&part)?;
            let invalid = |why: &str| Problem::new(Code::InvalidRequest, format!("file {file_name:?}: {why}"));
            if !names.insert(file_name.clone()) {
                return Err(invalid("two parts have this name; give each file its own"));
            }
            if files.len() == limits::FILES_MAX {
                return Err(invalid(&format!("a job may have {} files; pack them into one", limits::FILES_MAX)));
            }
            let store = store.files().ok_or_else(|| Problem::of_file(FileError::NoStore))?;
            files.push(reading.file(part, store, &minted, &file_name).await?);
        }
        draft::attach(&mut job, minted, files);
        Ok(job)
    }

    /// Reads a single file; `id` is set once it may have been written under it. Of several with the wanted name the
    /// last counts, and other parts are discarded, as by the form parsers that these clients were written for.
    async fn read_one(
        &self,
        api: &Api,
        store: &Store,
        wanted: &str,
        job: MakeJob,
        id: &mut Option<JobId>,
    ) -> Result<NewJob, Problem> {
        let mut reading = Reading::new(self, api);
        let invalid =
            |what: String| Problem::new(Code::InvalidRequest, format!("{what}; send one file, in the part `{wanted}`"));
        let (mut read, mut others, mut count) = (None, String::new(), 0);
        while let Some(mut part) = reading.next().await? {
            count += 1;
            if count > PARTS_MAX {
                return Err(invalid(format!("more than {PARTS_MAX} parts")));
            }
            let header = part.headers().get(CONTENT_DISPOSITION).map_or(&b""[..], |value| value.as_bytes());
            let Disposition { name, file_name } = Disposition::parse(header);
            if name.as_deref() != Some(wanted) {
                others = name.unwrap_or_default().chars().take(80).collect();
                while reading.chunk(&mut part).await?.is_some() {}
                continue;
            }
            let sent = file_name.filter(|name| !name.is_empty());
            let sent = sent.ok_or_else(|| invalid("no file: the part has no filename".into()))?;
            let job = job(&sent)?;
            let files = store.files().ok_or_else(|| Problem::of_file(FileError::NoStore))?;
            if let Some(before) = id.take() {
                files.remove(vec![before]).await;
            }
            let minted = id.insert(store.mint_id(&job)).clone();
            let file = reading.file(part, files, &minted, &stored_name(&sent)).await?;
            read = Some((job, minted, file));
        }
        let what = if count == 0 { "no file".to_owned() } else { format!("no file; the last part is {others:?}") };
        let (mut job, minted, file) = read.ok_or_else(|| invalid(what))?;
        draft::attach(&mut job, minted, vec![file]);
        Ok(job)
    }
}

/// The name to store a file by: what was sent, without folders; a name of our own when that is not allowed.
fn stored_name(sent: &str) -> String {
    let last = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    if name::check(last).is_ok() {
        return last.to_owned();
    }
    let ending = last.rsplit_once('.').map_or("", |(_, ending)| ending);
    let is_plain = (1..=16).contains(&ending.len()) && ending.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_plain { format!("upload.{ending}") } else { "upload".to_owned() }
}

/// A body on its way through the parser.
struct Reading {
    parts: Multipart<'static>,
    /// Bytes read since the parser last yielded something.
    unparsed: Arc<AtomicUsize>,
    /// Why reading the body failed; the parser cannot carry it.
    fault: Arc<Mutex<Option<Problem>>>,
    /// The memory for all bodies.
    bodies: Arc<Budget>,
    client: Client,
}

impl Reading {
    fn new(upload: &Upload, api: &Api) -> Self {
        let (unparsed, fault) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let feed = Feed {
            lent: upload.lent.clone(),
            idle: Duration::from_millis(api.limits().idle_ms),
            left: api.limits().upload_bytes,
            too_large: too_large(api),
            unparsed: unparsed.clone(),
        };
        let parts = Multipart::new(feed.stream(fault.clone()), &upload.boundary);
        Self { parts, unparsed, fault, bodies: api.bodies().clone(), client: upload.client }
    }

    /// The failure of reading the body, or else of parsing it.
    fn fault(&self, error: &multer::Error) -> Problem {
        let known = self.fault.lock().expect("lock not poisoned").take();
        known.unwrap_or_else(|| {
            use multer::Error as E;
            let cut = matches!(error, E::IncompleteFieldData { .. } | E::IncompleteHeaders | E::IncompleteStream);
            let what = if cut {
                "the upload ended before its last boundary"
            } else {
                "the upload is not valid multipart/form-data"
            };
            Problem::new(Code::InvalidRequest, format!("{what}: {error}"))
        })
    }

    async fn next(&mut self) -> Result<Option<Field<'static>>, Problem> {
        self.unparsed.store(0, Ordering::Relaxed);
        self.parts.next_field().await.map_err(|e| self.fault(&e))
    }

    async fn chunk(&self, part: &mut Field<'static>) -> Result<Option<Bytes>, Problem> {
        let chunk = part.chunk().await.map_err(|e| self.fault(&e))?;
        self.unparsed.store(0, Ordering::Relaxed);
        Ok(chunk)
    }

    /// The text of part `job`.
    async fn text(&self, mut part: Field<'static>, api: &Api) -> Result<String, Problem> {
        let (most, mut text, mut share) = (api.limits().body_bytes, Vec::new(), None);
        while let Some(bytes) = self.chunk(&mut part).await? {
            if text.len() + bytes.len() > most {
                return Err(Problem::new(Code::BodyTooLarge, format!("part `job` is larger than {most} bytes")));
            }
            body::take_share(&mut share, api.bodies(), self.client, text.len() + bytes.len())?;
            text.extend_from_slice(&bytes);
        }
        body::utf8(text)
    }

    fn take_share(&self, share: &mut Option<Share>, store: &FileStore, bytes: usize) -> Result<(), Problem> {
        if store.is_remote() { body::take_share(share, &self.bodies, self.client, bytes) } else { Ok(()) }
    }

    async fn file(
        &self,
        mut part: Field<'static>,
        store: &FileStore,
        id: &JobId,
        file_name: &str,
    ) -> Result<FileEntry, Problem> {
        let content_type = content_type(&part, file_name);
        let mut writer = store.create(id, Place::In, file_name).await.map_err(Problem::of_file)?;
        let mut share = None;
        loop {
            let pushed = match self.chunk(&mut part).await {
                // Parts of a file in a bucket are larger than the share that every upload has.
                Ok(Some(bytes)) => match self.take_share(&mut share, store, writer.buffered() + bytes.len()) {
                    Ok(()) => writer.push(&bytes).await.map_err(Problem::of_file),
                    Err(problem) => Err(problem),
                },
                Ok(None) => return writer.finish(content_type).await.map_err(Problem::of_file),
                Err(problem) => Err(problem),
            };
            if let Err(problem) = pushed {
                writer.abort().await;
                return Err(problem);
            }
        }
    }
}

/// The body as a stream for the parser, within its limits.
struct Feed {
    lent: Lent,
    idle: Duration,
    left: u64,
    too_large: Problem,
    unparsed: Arc<AtomicUsize>,
}

impl Feed {
    fn stream(self, fault: Arc<Mutex<Option<Problem>>>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        futures_util::stream::unfold(Some(self), move |feed| {
            let fault = fault.clone();
            async move {
                let mut feed = feed?;
                // The parser buffers all that is ready before it yields anything: give it a pause.
                tokio::task::yield_now().await;
                match feed.next().await {
                    Ok(bytes) => bytes.map(|bytes| (Ok(bytes), Some(feed))),
                    Err(problem) => {
                        *fault.lock().expect("lock not poisoned") = Some(problem);
                        Some((Err(io::ErrorKind::Other.into()), None))
                    }
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let Some(bytes) = self.lent.next(self.idle).await? else { return Ok(None) };
        let left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| self.too_large.clone())?;
        self.left = left;
        let unparsed = self.unparsed.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        if unparsed > limits::PART_HEAD_BYTES_MAX {
            let most = limits::PART_HEAD_BYTES_MAX;
            return Err(Problem::new(
                Code::InvalidRequest,
                format!("no part begins within {most} bytes of the upload"),
            ));
        }
        Ok(Some(bytes))
    }
}

fn too_large(api: &Api) -> Problem {
    let most = api.limits().upload_bytes;
    Problem::new(Code::BodyTooLarge, format!("the upload is larger than {most} bytes (limits.upload_bytes)"))
}

/// The name of a file: the filename of its part, or else the name of the part.
fn file_name(part: &Field<'_>) -> Result<String, Problem> {
    let disposition = part.headers().get(CONTENT_DISPOSITION).is_some();
    let given = part.file_name().or(part.name()).filter(|_| disposition).unwrap_or_default();
    if part.name() == Some("job") {
        return Err(Problem::new(
            Code::InvalidRequest,
            "the part `job` is given twice; give a file's part another name",
        ));
    }
    name::check(given).map_err(|e| Problem::of_file(e.into()))?;
    Ok(given.to_owned())
}

/// The type of a file: as its part says, or else by its name.
fn content_type(part: &Field<'_>, file_name: &str) -> String {
    let given = part.content_type().map(ToString::to_string);
    let fit = |text: &String| {
        text.len() <= limits::CONTENT_TYPE_BYTES_MAX && text.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    given.filter(fit).unwrap_or_else(|| name::content_type_of(file_name))
}
