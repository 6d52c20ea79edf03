//! Gap analysis: a JSON file a job, and its result in a folder beside.
use std::fmt;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use leasehold::Json;
use leasehold::files::name;
use leasehold::store::Ending;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::json;

use super::fields::Fields;
use super::found::{Attachment, Flow, OldJob, Out, Place};
use super::input;
use super::old::{Status, cannot_run, ended_or, is_copy, is_record, named};
use crate::print;

const JOBS: &str = "gap_analysis_jobs";
const RESULTS: &str = "gap_analysis_results";

const WORDS: [(&str, Status); 5] = [
    ("pending", Status::Open),
    ("running", Status::Open),
    ("completed", Status::Completed),
    ("failed", Status::Failed),
    ("cancelled", Status::Cancelled),
];

pub(super) fn read(paths: &[PathBuf], out: &Out) -> Flow {
    let results: Vec<PathBuf> = paths.iter().flat_map(|path| beside(path)).collect();
    for path in paths {
        let inner = path.join(JOBS);
        let folder = if inner.is_dir() { &inner } else { path };
        if folder.is_dir() && !is_record(folder) {
            input::announce([folder.as_path()], out, ".json")?;
            input::entries(folder, out, |path, name| {
                let is_job = name.ends_with(".json") && !name.starts_with("gap_analysis_");
                if is_job { one(path, &results, out) } else { Ok(()) }
            })?;
        } else {
            one(path, &results, out)?;
        }
    }
    Ok(())
}

/// Folders that may hold results.
fn beside(path: &Path) -> Vec<PathBuf> {
    let mut folders = input::nearby(path, RESULTS);
    folders.extend(path.is_dir().then(|| path.to_owned()));
    folders
}

fn one(path: &Path, results: &[PathBuf], out: &Out) -> Flow {
    let mut lost = None;
    out.job(path, job(path, results, out, &mut lost))?;
    lost.map_or(Ok(()), |(place, reason)| out.skip(Place::of(&place), reason))
}

fn job(path: &Path, results: &[PathBuf], out: &Out, lost: &mut Option<(PathBuf, String)>) -> Result<OldJob, String> {
    let terms = &out.terms;
    let fields = Fields::parse(&input::text(path, terms.record_bytes)?, terms)?;
    let id = fields.id(&["job_id", "id"], named(path, "job_"))?;
    let status = ended_or(fields.needed_word("status", &WORDS)?, &fields, "completed_at");
    fields.text("progress_message")?;
    let created_at = fields.first_time(&["created_at", "started_at", "completed_at"])?;
    let created_at = created_at.or_else(|| input::changed_at(path)).unwrap_or_else(print::now);
    let ended_at = fields.first_time(&["completed_at", "started_at", "created_at"])?.unwrap_or(created_at);
    let message = fields.text("error_message")?.unwrap_or("the old store has no reason").to_owned();
    let result_file = fields.text("result_file")?.map(str::to_owned);
    if let Some(reason) = is_copy(path, &format!("job_{id}.json")) {
        return Err(reason);
    }
    let (payload, fault) = match payload(&fields) {
        // The request of a job that has ended does not matter.
        Err(_) if status != Status::Open => (Json::null(), None),
        read => read?,
    };
    let (mut attachment, mut note) = (None, None);
    let ending = match status {
        Status::Open => fault.map(|fault| {
            let (ending, told) = cannot_run(&fault, ended_at);
            note = Some(told);
            ending
        }),
        Status::Completed => {
            let mut result = Json::null();
            match found(result_file.as_deref(), path, results, out) {
                Ok(Some((json, file))) => (result, attachment) = (json, file),
                Ok(None) => {}
                Err(told) => *lost = Some(told),
            }
            Some(Ending::Completed { result, skipped: None })
        }
        Status::Failed => Some(Ending::Failed { message, at: ended_at }),
        Status::Cancelled => Some(Ending::Cancelled),
    };
    let (place, record) = (Place::of(path), fields.json);
    Ok(OldJob { place, id, created_at, record, payload, ending, ended_at, attachment, note })
}

/// The payload for the handler, and why it could not run with it.
fn payload(fields: &Fields) -> Result<(Json, Option<String>), String> {
    let request = fields.object("request")?;
    let field = |name: &str| request.and_then(|request| request.get(name)).filter(|value| !value.is_null());
    let url = match field("url") {
        None => None,
        Some(url) => Some(
            url.as_str()
                .ok_or_else(|| format!("field \"request.url\" is {}; it must be a text", super::fields::shown(url)))?,
        ),
    };
    let count = |name: &str, default: u64| match field(name) {
        None => Ok(default),
        Some(value) => value.as_u64().filter(|n| (1..=1_000_000).contains(n)).ok_or_else(|| {
            let value = super::fields::shown(value);
            format!("field \"request.{name}\" is {value}; it must be a whole number, 1 or more")
        }),
    };
    let payload = json!({
        "url": url,
        "max_papers": count("max_papers", 10)?,
        "validation_threshold": count("validation_threshold", 2)?,
    });
    let fault = match url {
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => None,
        Some(url) => Some(format!("its url {url:?} is not an http or https URL")),
        None => Some("the old store has no url for it".to_owned()),
    };
    let payload = Json::of(&payload).map_err(|e| e.to_string())?;
    Ok((payload, fault))
}

/// The result of a completed job and its file, or where and why it cannot be imported.
type Made = Result<Option<(Json, Option<Attachment>)>, (PathBuf, String)>;

fn found(file: Option<&str>, record: &Path, results: &[PathBuf], out: &Out) -> Made {
    let Some(file) = file else { return Ok(None) };
    // Some records have the folder too.
    let name = file.rsplit('/').next().unwrap_or(file);
    let lost = |path: &Path, reason: String| (path.to_owned(), format!("this result is not imported: {reason}"));
    name::check(name).map_err(|e| lost(record, e.to_string()))?;
    let path = results.iter().map(|folder| folder.join(name)).find(|path| path.symlink_metadata().is_ok());
    let path = path.ok_or_else(|| lost(record, format!("there is no {name} in {RESULTS}, nor in another PATH")))?;
    let shape = shape(&path, out.terms.upload_bytes).map_err(|reason| lost(&path, reason))?;
    if out.terms.storage {
        let result = json!({"result_file": name, "gaps": shape.gaps.0, "documents": shape.documents.0});
        let result = Json::of(&result).expect("it is plain JSON");
        return Ok(Some((result, Some(Attachment { path, name: name.to_owned(), made: true }))));
    }
    let advice = "without a storage_url a result must fit into the job";
    let text =
        input::text(&path, out.terms.result_bytes as u64 * 4).map_err(|e| lost(&path, format!("{e}; {advice}")))?;
    let result = Json::parse(&text, out.terms.json_depth, out.terms.result_bytes);
    result.map(|result| Some((result, None))).map_err(|e| lost(&path, format!("{e}; {advice}")))
}

/// What is counted of a result.
#[derive(Deserialize)]
struct Shape {
    #[serde(default)]
    gaps: Count,
    #[serde(default)]
    documents: Count,
}

/// The number of elements; anything but a list has none.
#[derive(Default)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_any(Counter)
    }
}

/// Reads a whole result, which must be complete.
fn shape(path: &Path, bytes_max: u64) -> Result<Shape, String> {
    let file = input::open(path)?;
    if file.metadata().map_err(|e| e.to_string())?.len() > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes"));
    }
    serde_json::from_reader(BufReader::new(file.take(bytes_max)))
        .map_err(|e| format!("not a result in valid JSON: {e}"))
}
