//! The cache of a command: the result and the files of an earlier job with the same work are copied instead of running
//! the command again.
//!
//! The cache is only a hint: if a copy fails for any reason, the command is run.
use std::collections::BTreeMap;

use leasehold::kinds::Cache;
use leasehold::store::request_digest;
use leasehold::{Error, FileEntry, FileError, JobId, Json, Limits, State, canonical};
use serde_json::value::RawValue;

use crate::attempt::context::{CacheEntry, Context};
use crate::failure::Failure;
use crate::handler::{Completion, parse_result};

/// Why nothing is copied.
#[derive(Debug, thiserror::Error)]
enum Miss {
    #[error("no entry")]
    Unknown,
    #[error("job {0} no longer exists, or did not complete this work")]
    Gone(JobId),
    #[error(transparent)]
    Store(#[from] Error),
    #[error(transparent)]
    Files(#[from] FileError),
    #[error("{}", .0.message)]
    Result(Failure),
}

/// A copy of the outcome of an earlier job with the same payload and files. `None`: the command must be run, and its
/// outcome is cached. The `then` of a batch also depends on the items, which are not part of the payload: it is always
/// run.
pub(super) async fn find(
    cache: Option<&Cache>,
    context: &Context,
    payload: &Json,
    limits: &Limits,
) -> Option<Completion> {
    let cache = cache.filter(|_| context.batch().is_none())?;
    let digest = digest(cache, payload, context.files());
    if canonical::member(payload, "/cache").as_deref() != Some("false") {
        let copied = tokio::select! {
            copied = copy(cache, context, &digest, limits) => copied,
            () = context.cancelled() => Err(Miss::Unknown),
        };
        match copied {
            Ok(made) => return Some(made),
            Err(miss) => {
                tracing::debug!(job = %context.job_id(), "not from the cache: {miss}");
                context.shared.files.forget().await;
            }
        }
    }
    // A copy is not cached again: entries would never expire. The cell is empty, since an attempt looks up once.
    drop(context.shared.cache_entry.set(CacheEntry { digest, ms: cache.ms }));
    None
}

async fn copy(cache: &Cache, context: &Context, digest_sought: &str, limits: &Limits) -> Result<Completion, Miss> {
    let store = &context.shared.store;
    let id = store.remembered(context.kind(), digest_sought).await?.ok_or(Miss::Unknown)?;
    let gone = || Miss::Gone(id.clone());
    let job = store.get(&id).await?.ok_or_else(gone)?;
    let files = store.job_files(&id).await?.ok_or_else(gone)?;
    let does_the_same = job.kind == *context.kind() && digest(cache, &job.payload, &files.input) == digest_sought;
    if job.state != State::Completed || job.skipped.is_some() || !does_the_same {
        return Err(gone());
    }
    let result = parse_result(&marked(&job.result.unwrap_or_else(Json::null)), limits).map_err(Miss::Result)?;
    if let Some(output) = &files.output {
        context.shared.files.copy_output(&id, output).await?;
    }
    tracing::debug!(job = %context.job_id(), from = %id, "copied from the cache");
    Ok((result, None))
}

/// Identifies the work: the payload's members at the configured pointers, and the input files.
fn digest(cache: &Cache, payload: &Json, files: &[FileEntry]) -> String {
    let members = cache.by.iter().flat_map(|pointer| {
        let member = canonical::member(payload, pointer);
        // An absent member differs from every present one, null included.
        [pointer.clone(), member.unwrap_or_default()]
    });
    let mut named: Vec<[String; 2]> = files.iter().map(|file| [file.name.clone(), file.sha256.clone()]).collect();
    named.sort();
    let parts: Vec<String> = members.chain(named.into_iter().flatten()).collect();
    request_digest(parts.iter().map(String::as_str))
}

/// The result; an object gets the member `"cached": true`.
fn marked(result: &Json) -> String {
    let members: Option<BTreeMap<String, Box<RawValue>>> = result.to().ok();
    let marked = members.and_then(|mut members| {
        members.insert("cached".into(), serde_json::value::to_raw_value(&true).ok()?);
        serde_json::to_string(&members).ok()
    });
    marked.unwrap_or_else(|| result.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text, 64, 1 << 20).unwrap()
    }

    fn file(name: &str, sha256: &str) -> FileEntry {
        FileEntry { name: name.into(), bytes: 1, content_type: "text/plain".into(), sha256: sha256.into() }
    }

    #[test]
    fn work_is_told_apart_by_what_the_pointers_lead_to_and_by_files() {
        let cache = Cache { ms: 1, by: vec!["/url".into(), "/config".into()] };
        let of = |text: &str, files: &[FileEntry]| digest(&cache, &json(text), files);
        let one = of(r#"{"id": 1, "url": "a", "config": {"width": 1, "height": 2}}"#, &[]);
        assert_eq!(one, of(r#"{"id": 2, "config": {"height": 2, "width": 1}, "url": "\u0061", "cache": false}"#, &[]));
        assert_ne!(one, of(r#"{"url": "a", "config": {"width": 1, "height": 3}}"#, &[]));
        assert_ne!(of("{}", &[]), of(r#"{"url": null}"#, &[]));
        assert_ne!(of(r#"{"url": {}}"#, &[]), of(r#"{"config": {}}"#, &[]));
        let (a, b) = (file("a", "1"), file("b", "2"));
        assert_eq!(of("{}", &[a.clone(), b.clone()]), of("{}", &[b.clone(), a.clone()]));
        assert_ne!(of("{}", &[a]), of("{}", &[b]));
    }

    #[test]
    fn a_copied_object_says_that_it_is_one() {
        for (result, copied) in [
            (r#"{"file":"x","cached":false,"n":1.50}"#, r#"{"cached":true,"file":"x","n":1.50}"#),
            ("{}", r#"{"cached":true}"#),
            ("[1]", "[1]"),
            ("null", "null"),
        ] {
            assert_eq!(marked(&json(result)), copied);
        }
    }
}
