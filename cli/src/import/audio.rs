//! Audio analysis: a table of jobs in a SQLite file, and the uploads in a folder beside.
use std::path::{Path, PathBuf};

use leasehold::files::name;
use leasehold::store::Ending;
use leasehold::{JobId, Json, Timestamp};
use serde_json::{Map, Value, json};

use super::database::{Database, locked_by};
use super::fields::{Fields, meaning, shown};
use super::found::{Attachment, Flow, Found, OldJob, Out, Place};
use super::input;
use super::old::{Status, cannot_run};
use crate::print;

const WORDS: [(&str, Status); 5] = [
    ("pending", Status::Open),
    ("processing", Status::Open),
    ("completed", Status::Completed),
    ("failed", Status::Failed),
    ("cancelled", Status::Cancelled),
];
/// Columns that may say where the upload is.
const PATHS: [&str; 7] = ["file_path", "filepath", "path", "upload_path", "input_path", "audio_path", "input_file"];

pub(super) fn read(paths: &[PathBuf], out: &Out) -> Flow {
    let mut databases = Vec::new();
    for path in paths {
        let candidates = ["jobs.db", "output/jobs.db", "backend/output/jobs.db"];
        let inner = candidates.iter().map(|name| path.join(name)).find(|path| path.symlink_metadata().is_ok());
        if let Some(inner) = inner.filter(|_| path.is_dir()) {
            databases.push(inner);
        } else if !path.is_dir() {
            databases.push(path.clone());
        } else if paths.len() == 1 {
            out.skip(Place::of(path), "the folder has no jobs.db")?;
        }
    }
    for path in &databases {
        if let Some(process) = locked_by(path) {
            let advice = "its present content is read; stop its service and import again";
            out.skip(Place::of(path), format!("the database is locked by process {process}: {advice}"))?;
        }
        match Database::open(path) {
            Ok(database) => rows(&database, path, &folders(path, paths), out)?,
            Err(reason) => out.skip(Place::of(path), reason)?,
        }
    }
    Ok(())
}

/// Where uploads may be: the database's folder, the one above it, and the other paths.
fn folders(database: &Path, paths: &[PathBuf]) -> Vec<PathBuf> {
    let own = input::parent(database);
    let above = input::parent(&own);
    paths.iter().filter(|path| path.is_dir()).cloned().chain([own, above]).collect()
}

fn rows(database: &Database, path: &Path, folders: &[PathBuf], out: &Out) -> Flow {
    out.send(Found::Total(database.count().unwrap_or(0)))?;
    if !["job_id", "id"].iter().any(|name| database.has(name)) {
        return out.skip(Place::of(path), "its table \"jobs\" has no column \"job_id\" or \"id\"");
    }
    let faults = database.rows(|(number, row)| {
        let place = Place::at(path, number);
        match row.and_then(|record| job(place.clone(), record, folders, out)) {
            Ok(job) => out.send(Found::Job(Box::new(job))),
            Err(reason) => out.skip(place, reason),
        }
    })?;
    faults
        .into_iter()
        .try_for_each(|fault| out.skip(Place::of(path), format!("{fault}; the rows that can be read are")))
}

/// A field of a table: SQLite keeps whatever it is given, so a number may be written as text.
fn text(value: Option<&&Value>, name: &str) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(other) => Err(format!("column {name:?} is {}; it must be a text", shown(other))),
    }
}

fn job(place: Place, record: Map<String, Value>, folders: &[PathBuf], out: &Out) -> Result<OldJob, String> {
    let columns = super::database::lower(&record);
    let field = |name: &str| text(columns.get(name), name);
    let id = match field("job_id")? {
        Some(id) => id,
        None => field("id")?.ok_or("column \"job_id\" is empty")?,
    };
    let id = JobId::parse(&id).map_err(|e| e.to_string())?;
    let word = field("status")?;
    let status = word.as_deref().and_then(|word| meaning(word, &WORDS)).ok_or_else(|| {
        let allowed: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        format!("column \"status\" is {}; it must be one of {}", shown(&json!(word)), allowed.join(", "))
    })?;
    if let Some(progress) = field("progress")? {
        progress.parse::<f64>().map_err(|_| format!("column \"progress\" is {progress:?}; it must be a number"))?;
    }
    let time = |names: &[&str]| names.iter().find_map(|name| super::fields::time(columns.get(*name)?));
    let created_at = time(&["created_at", "created", "updated_at"]).unwrap_or_else(print::now);
    let ended_at = time(&["completed_at", "updated_at", "created_at"]).unwrap_or(created_at);
    let filename = field("filename")?.or(field("file_name")?).or(field("original_filename")?);
    let error = field("error")?.or(field("error_message")?);
    let result = columns.get("result").copied().cloned().unwrap_or_default();
    let located = PATHS.iter().filter_map(|name| field(name).ok().flatten()).collect::<Vec<_>>();
    let record = Json::of(&record).map_err(|e| e.to_string())?;
    let record = Fields::parse(record.as_str(), &out.terms)?.json;
    let shown_name = filename.as_deref().map(|name| name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned());
    let mut payload = Json::of(&json!({"filename": shown_name})).map_err(|e| e.to_string())?;
    let (mut attachment, mut note) = (None, None);
    let ending = match status {
        Status::Open => match upload(&id, shown_name.as_deref(), &located, folders, out) {
            Ok(found) => {
                payload = Json::of(&json!({"filename": found.name})).map_err(|e| e.to_string())?;
                attachment = Some(found);
                None
            }
            Err(why) => {
                let (ending, told) = cannot_run(&why, ended_at);
                note = Some(told);
                Some(ending)
            }
        },
        Status::Completed => Some(Ending::Completed { result: result_of(result, out)?, skipped: None }),
        Status::Failed => Some(failed(error, ended_at)),
        Status::Cancelled => Some(Ending::Cancelled),
    };
    Ok(OldJob { place, id, created_at, record, payload, ending, ended_at, attachment, note })
}

fn failed(error: Option<String>, at: Timestamp) -> Ending {
    Ending::Failed { message: error.unwrap_or_else(|| "the old store has no reason".into()), at }
}

/// A result is kept as JSON in a text.
fn result_of(result: Value, out: &Out) -> Result<Json, String> {
    let terms = &out.terms;
    let parsed = match &result {
        Value::String(text) if text.trim().is_empty() => return Ok(Json::null()),
        Value::String(text) => Json::parse(&input::finite(text), terms.json_depth, terms.result_bytes),
        other => return Json::of(other).map_err(|e| e.to_string()),
    };
    parsed.map_err(|e| format!("column \"result\": {e}"))
}

/// The upload of a job that is to run.
fn upload(
    id: &JobId,
    filename: Option<&str>,
    located: &[String],
    folders: &[PathBuf],
    out: &Out,
) -> Result<Attachment, String> {
    let named = filename.into_iter().map(str::to_owned);
    let endings = filename.and_then(|name| Path::new(name).extension()?.to_str().map(str::to_owned));
    let stored = [filename.map(|name| format!("{id}_{name}")), endings.map(|ending| format!("{id}.{ending}"))];
    let under_id = filename.map(|name| format!("{id}/{name}"));
    // A plain name may be another job's upload of the same name, so what has the id in it goes first.
    let names: Vec<String> = stored.into_iter().flatten().chain(under_id).chain(named).collect();
    let inner = |folder: &PathBuf| ["uploads", "upload", "files", ""].map(|inner| folder.join(inner));
    let inner: Vec<PathBuf> = folders.iter().flat_map(inner).collect();
    let places = inner.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    // A path of the record is followed where it leads into the store, and nowhere else.
    let inside = |path: &PathBuf| {
        let real = path.canonicalize().ok();
        real.is_some_and(|real| {
            folders.iter().any(|folder| folder.canonicalize().is_ok_and(|folder| real.starts_with(folder)))
        })
    };
    let told = located.iter().flat_map(|path| folders.iter().map(move |folder| folder.join(path)));
    let found = told.chain(places).find(|path| path.is_file() && inside(path));
    let path = found.ok_or("its upload is not beside the database, nor in another PATH; send it again")?;
    if !out.terms.storage {
        return Err("without a storage_url its upload has no place; set one, or send it again".into());
    }
    let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = filename.filter(|name| name::check(name).is_ok()).unwrap_or(own).to_owned();
    name::check(&name).map_err(|e| e.to_string())?;
    Ok(Attachment { path, name, made: false })
}
