//! A bucket as the file store: its owner, removal below a prefix, and the walk over its objects.
//!
//! Nothing is renamed: an object appears whole when its upload is completed, or not at all. Parts of uploads that a
//! crash has left are not objects and cannot be listed here; the bucket's lifecycle rule removes them
//! (docs/storage.md).
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{Error as ObjectError, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::client::{self, brief, explain};
use super::folder::{OWNER, foreign, of_another};
use super::location::BucketUrl;
use super::{FileError, FileStore, Home, OldFolder, failed};
use crate::{Error, JobId, Result, limits};

/// How long a bucket may take to answer at start, its repeated requests included.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// How long a removal may hold up whoever waits for it, and how much longer for each folder; the sweep finds what is
/// left.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);
const REMOVE_LIMIT_EACH: Duration = Duration::from_millis(50);
/// Folders removed at once.
const REMOVE_AT_ONCE: usize = 16;

impl FileStore {
    /// Opens a bucket for an owner, after [`FileStore::open`]'s rules. Unless `is_reading`, it checks that objects can
    /// be written and deleted.
    pub(crate) async fn open_bucket<F>(
        url: &BucketUrl,
        is_reading: bool,
        agree: impl FnOnce(Option<String>) -> F,
    ) -> Result<Self>
    where
        F: Future<Output = Result<String>>,
    {
        let fault = |why: String| Error::Config(format!("storage_url names {url}: {why}"));
        let mut objects = client::connect(url).map_err(fault)?;
        if !url.prefix.is_empty() {
            let prefix = ObjectPath::parse(&url.prefix).map_err(|e| fault(e.to_string()))?;
            objects = Arc::new(PrefixStore::new(objects, prefix));
        }
        let opening = async {
            let named = owner(url, &objects).await.map_err(fault)?;
            let owner = agree(named.clone()).await?;
            let named = match named {
                None if is_reading => owner.clone(),
                None => claim(url, &objects, &owner).await.map_err(fault)?,
                Some(named) => named,
            };
            if named != owner {
                return Err(fault(of_another(&named, &owner)));
            }
            if !is_reading {
                probe(url, &objects).await.map_err(fault)?;
            }
            Ok(())
        };
        let opened = tokio::time::timeout(OPEN_LIMIT, opening).await;
        opened.unwrap_or_else(|_| Err(fault(format!("it did not answer within {} s", OPEN_LIMIT.as_secs()))))?;
        Ok(Self { objects, home: Home::Bucket, later: Default::default(), health: Default::default() })
    }

    /// Removes everything below these prefixes. Whatever could not be removed is left to the sweep.
    pub(super) async fn remove_below(&self, prefixes: Vec<String>) {
        let limit = REMOVE_LIMIT + REMOVE_LIMIT_EACH * u32::try_from(prefixes.len()).unwrap_or(u32::MAX);
        let removing = futures_util::stream::iter(prefixes).for_each_concurrent(REMOVE_AT_ONCE, |prefix| async move {
            let listed = self.objects.list(Some(&at(&prefix))).map_ok(|object| object.location);
            let mut removed = self.objects.delete_stream(listed.boxed());
            while let Some(each) = removed.next().await {
                match each {
                    Ok(_) | Err(ObjectError::NotFound { .. }) => {}
                    Err(e) => {
                        let why = brief(&e);
                        return tracing::warn!("{prefix}/ was not removed and is left to the file sweep: {why}");
                    }
                }
            }
        });
        if tokio::time::timeout(limit, removing).await.is_err() {
            tracing::warn!("files were not removed within {} s and are left to the file sweep", limit.as_secs());
        }
    }

    /// The outputs of attempts of a job with a smaller token.
    pub(super) async fn outputs_before(&self, id: &JobId, token: u64) -> Vec<u64> {
        let below = at(&format!("{id}/out"));
        match self.objects.list_with_delimiter(Some(&below)).await {
            Ok(listed) => {
                let tokens = listed.common_prefixes.iter().filter_map(|folder| folder.filename()?.parse::<u64>().ok());
                tokens.filter(|found| *found < token).collect()
            }
            Err(e) => {
                tracing::warn!("outputs of earlier attempts are left to the file sweep: {}", brief(&e));
                Vec::new()
            }
        }
    }
}

/// The owner that a bucket names; `None`: there is nothing in it.
async fn owner(url: &BucketUrl, objects: &Arc<dyn ObjectStore>) -> Result<Option<String>, String> {
    let mut listed = objects.list(None);
    let mut other = None;
    // Markers and probes of other processes come first, if at all.
    while let Some(object) = listed.try_next().await.map_err(|e| explain(url, "listing its objects", &e))? {
        let key = object.location.as_ref();
        if !key.starts_with(OWNER) {
            other = Some(key.to_owned());
            break;
        }
    }
    match objects.get(&at(OWNER)).await {
        Ok(found) => {
            let bytes = found.bytes().await.map_err(|e| explain(url, "reading an object", &e))?;
            Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
        }
        Err(ObjectError::NotFound { .. }) => match other {
            Some(other) => Err(foreign(&other, "a prefix under which there is nothing")),
            None => Ok(None),
        },
        Err(e) => Err(explain(url, "reading an object", &e)),
    }
}

/// Writes the owner, unless another process is faster, and returns the owner that the bucket then names.
async fn claim(url: &BucketUrl, objects: &Arc<dyn ObjectStore>, owner: &str) -> Result<String, String> {
    let (path, payload) = (at(OWNER), PutPayload::from(format!("{owner}\n")));
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let claimed = match objects.put_opts(&path, payload.clone(), create).await {
        // Servers without conditional writes.
        Err(ObjectError::NotSupported { .. } | ObjectError::NotImplemented { .. }) => objects.put(&path, payload).await,
        claimed => claimed,
    };
    match claimed {
        Ok(_) | Err(ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. }) => {}
        Err(e) => return Err(explain(url, "writing an object", &e)),
    }
    let named = objects.get(&path).await.map_err(|e| explain(url, "reading an object", &e))?.bytes().await;
    let named = named.map_err(|e| explain(url, "reading an object", &e))?;
    Ok(String::from_utf8_lossy(&named).trim().to_owned())
}

/// Writes and deletes an object, so that missing permissions are seen at start and not by a job.
async fn probe(url: &BucketUrl, objects: &Arc<dyn ObjectStore>) -> Result<(), String> {
    // Another name each time: stores limit how often one object may be written.
    let path = at(&format!("{OWNER}-probe-{}", uuid::Uuid::now_v7()));
    objects.put(&path, PutPayload::from_static(b"probe\n")).await.map_err(|e| explain(url, "writing an object", &e))?;
    objects.delete(&path).await.map_err(|e| explain(url, "deleting an object", &e))
}

/// A scan over the objects of a bucket, in the order of their names, so that those of a job follow each other.
pub(super) struct Scan {
    objects: BoxStream<'static, object_store::Result<ObjectMeta>>,
    /// The job whose objects are being listed.
    current: Option<Seen>,
    older_than: Duration,
}

/// What the scan has seen of a job.
struct Seen {
    folder: OldFolder,
    is_old: bool,
}

impl Scan {
    pub(super) fn new(objects: &Arc<dyn ObjectStore>, older_than: Duration) -> Self {
        Self { objects: objects.list(None).fuse().boxed(), current: None, older_than }
    }

    /// Examines the objects of up to `most` jobs; `None` at the end.
    pub(super) async fn next(mut self, most: usize) -> Result<Option<(Vec<OldFolder>, Self)>, FileError> {
        let (mut looked, mut old) = (0, Vec::new());
        while looked < most {
            let Some(object) = self.objects.try_next().await.map_err(|e| failed(&e, ""))? else {
                let last = self.current.take();
                looked += usize::from(last.is_some());
                old.extend(last.filter(|seen| seen.is_old).map(|seen| seen.folder));
                break;
            };
            let Some((id, token)) = place_of(&object.location) else { continue };
            let age = (chrono::Utc::now() - object.last_modified).to_std();
            // A time in the future does not count as old.
            let is_old = age.is_ok_and(|age| age >= self.older_than);
            match &mut self.current {
                Some(seen) if seen.folder.id == id => seen.add(token, is_old),
                current => {
                    looked += 1;
                    let mut seen = Seen { folder: OldFolder { id, tokens: Vec::new() }, is_old: true };
                    seen.add(token, is_old);
                    let before = current.replace(seen);
                    old.extend(before.filter(|seen| seen.is_old).map(|seen| seen.folder));
                }
            }
        }
        Ok((looked > 0).then_some((old, self)))
    }
}

impl Seen {
    fn add(&mut self, token: Option<u64>, is_old: bool) {
        self.is_old &= is_old;
        let known = token.is_none_or(|token| self.folder.tokens.contains(&token));
        self.folder.tokens.extend(token.filter(|_| !known));
    }
}

/// The path as it is: ids and tokens have nothing that must be escaped.
fn at(path: &str) -> ObjectPath {
    ObjectPath::parse(path).expect("no part is empty")
}

/// The job whose object it is, and the token for an output; `None`: not a file of a job.
fn place_of(path: &ObjectPath) -> Option<(JobId, Option<u64>)> {
    let parts: Vec<&str> = path.as_ref().split('/').collect();
    let id = JobId::parse(parts.first()?).ok()?;
    match parts[1..] {
        ["in", _] => Some((id, None)),
        ["out", token, _] => Some((id, Some(token.parse().ok()?))),
        _ => None,
    }
}

/// The most that a file may have in a bucket, bytes.
pub(super) fn bytes_max() -> u64 {
    limits::BUCKET_PARTS_MAX as u64 * limits::BUCKET_PART_BYTES as u64
}
