//! Job status: a JSON file a job, or a folder with a log of its events.
use std::path::{Path, PathBuf};

use leasehold::store::Ending;
use leasehold::{JobId, Json};
use serde_json::{Map, Value, json};

use super::fields::{Fields, meaning, time};
use super::found::{Flow, OldJob, Out, Place};
use super::input::{self, Lines};
use super::old::{Status, cannot_run, is_copy, is_record, named};
use crate::print;

const LOG: &str = "events.log";

const WORDS: [(&str, Status); 5] = [
    ("queued", Status::Open),
    ("running", Status::Open),
    ("completed", Status::Completed),
    ("failed", Status::Failed),
    ("cancelled", Status::Cancelled),
];
/// What an event without a status says of it.
const EVENTS: [(&str, &str); 17] = [
    ("queued", "queued"),
    ("created", "queued"),
    ("submitted", "queued"),
    ("enqueued", "queued"),
    ("running", "running"),
    ("started", "running"),
    ("start", "running"),
    ("processing", "running"),
    ("completed", "completed"),
    ("complete", "completed"),
    ("finished", "completed"),
    ("done", "completed"),
    ("failed", "failed"),
    ("error", "failed"),
    ("cancelled", "cancelled"),
    ("canceled", "cancelled"),
    ("cancel", "cancelled"),
];

pub(super) fn read(paths: &[PathBuf], out: &Out) -> Flow {
    for path in paths {
        let inner = path.join("jobs");
        let folder = if inner.is_dir() && !inner.join(LOG).exists() { &inner } else { path };
        if folder.join(LOG).symlink_metadata().is_ok() {
            logged(folder, out)?;
        } else if folder.is_dir() && !is_record(folder) {
            input::announce([folder.as_path()], out, "")?;
            input::entries(folder, out, |path, name| entry(path, name, out))?;
        } else if folder.file_name().is_some_and(|name| name == LOG) {
            logged(&input::parent(folder), out)?;
        } else {
            out.job(folder, file(folder, out))?;
        }
    }
    Ok(())
}

fn entry(path: &Path, name: &str, out: &Out) -> Flow {
    if name.ends_with(".json") {
        return out.job(path, file(path, out));
    }
    match path.is_dir() {
        true if path.with_file_name(format!("{name}.json")).is_file() => {
            out.skip(Place::of(path), format!("its job has another file, {name}.json, which is used"))
        }
        true => logged(path, out),
        false => Ok(()),
    }
}

fn file(path: &Path, out: &Out) -> Result<OldJob, String> {
    let fields = Fields::parse(&input::text(path, out.terms.record_bytes)?, &out.terms)?;
    let id = fields.id(&["job_id", "id"], named(path, ""))?;
    if let Some(reason) = is_copy(path, &format!("{id}.json")) {
        return Err(reason);
    }
    job(path, id, fields, true)
}

fn job(path: &Path, id: JobId, fields: Fields, is_whole: bool) -> Result<OldJob, String> {
    let status = fields.needed_word("status", &WORDS)?;
    // `result` is the last field that its service writes.
    let status = match status {
        Status::Open if fields.get("result").is_some() => Status::Completed,
        status => status,
    };
    fields.number("progress")?;
    let created_at = fields.first_time(&["created_at", "updated_at"])?;
    let created_at = created_at.or_else(|| input::changed_at(path)).unwrap_or_else(print::now);
    let ended_at = fields.first_time(&["updated_at", "created_at"])?.unwrap_or(created_at);
    let message = fields.text("error_message")?.or(fields.text("error")?).unwrap_or("the old store has no reason");
    let text = text(&fields).map(str::to_owned);
    let payload = Json::of(&json!({"text": text})).map_err(|e| e.to_string())?;
    let mut note = None;
    let ending = match status {
        Status::Open if text.is_some() && is_whole => None,
        Status::Open => {
            let why = match is_whole {
                true => "the old store has not kept its text; submit it again",
                false => "the end of its log cannot be read, so it may have ended; submit it again",
            };
            let (ending, told) = cannot_run(why, ended_at);
            note = Some(told);
            Some(ending)
        }
        Status::Completed => {
            let result = fields.get("result").map_or(Ok(Json::null()), Json::of).map_err(|e| e.to_string())?;
            Some(Ending::Completed { result, skipped: None })
        }
        Status::Failed => Some(Ending::Failed { message: message.to_owned(), at: ended_at }),
        Status::Cancelled => Some(Ending::Cancelled),
    };
    let (place, record) = (Place::of(path), fields.json);
    Ok(OldJob { place, id, created_at, record, payload, ending, ended_at, attachment: None, note })
}

/// The text to work on, if the record has it.
fn text(fields: &Fields) -> Option<&str> {
    let inner = ["request", "input", "payload", "data", "params"].iter();
    let nested = || inner.clone().find_map(|name| fields.get(name)?.get("text")?.as_str());
    fields.get("text").and_then(Value::as_str).or_else(nested)
}

/// A job from the log of its events.
fn logged(folder: &Path, out: &Out) -> Flow {
    let path = folder.join(LOG);
    let mut dropped = Vec::new();
    let job = events(folder, &path, out, &mut dropped).map(|mut job| {
        if !dropped.is_empty() {
            let lines: Vec<String> =
                dropped.iter().map(|(number, reason)| format!("line {number}: {reason}")).collect();
            let note = format!("what could not be read of its log is left out: {}", lines.join("; "));
            job.note = Some(job.note.map_or(note.clone(), |first| format!("{first}; {note}")));
        }
        job
    });
    out.job(if path.symlink_metadata().is_ok() { &path } else { folder }, job)
}

/// Lines of a log whose faults are reported; the others are counted.
const DROPPED_MAX: usize = 3;
/// Fields that the events of a job may have.
const FIELDS_MAX: usize = 1_000;

fn events(folder: &Path, path: &Path, out: &Out, dropped: &mut Vec<(u64, String)>) -> Result<OldJob, String> {
    if path.symlink_metadata().is_err() {
        return Err(format!("the folder has no {LOG}"));
    }
    let (mut record, mut status, mut is_whole) = (Map::new(), None, true);
    let (mut first, mut last): (Option<Value>, Option<Value>) = (None, None);
    for (number, line) in Lines::open(path, out.terms.payload_bytes as u64 * 2)? {
        let fields = match line.and_then(|line| Fields::parse(&line, &out.terms)) {
            Ok(fields) => {
                is_whole = true;
                fields
            }
            Err(reason) => {
                is_whole = false;
                if dropped.len() < DROPPED_MAX {
                    dropped.push((number, reason));
                }
                continue;
            }
        };
        for (name, value) in fields.map() {
            match name.as_str() {
                "timestamp" if time(value).is_some() => {
                    first.get_or_insert_with(|| value.clone());
                    last = Some(value.clone());
                }
                "timestamp" | "event" => {}
                "status" => status = Some(value.clone()),
                _ => drop(record.insert(name.clone(), value.clone())),
            }
        }
        if record.len() > FIELDS_MAX {
            return Err(format!("its log has more than {FIELDS_MAX} fields"));
        }
        if !fields.has("status") {
            let event = fields.get("event").and_then(Value::as_str).and_then(|event| meaning(event, &EVENTS));
            status = event.map(Value::from).or(status);
        }
    }
    status.map(|status| record.insert("status".into(), status));
    for (name, at) in [("created_at", first), ("updated_at", last)] {
        if let (false, Some(at)) = (record.contains_key(name), at) {
            record.insert(name.into(), at);
        }
    }
    let named = folder.canonicalize().ok().and_then(|folder| Some(folder.file_name()?.to_str()?.to_owned()));
    let fields = Fields::built(record.clone(), &out.terms)?;
    let id = fields.id(&["job_id", "id"], named.as_deref())?;
    record.insert("job_id".into(), json!(id));
    job(path, id, Fields::built(record, &out.terms)?, is_whole)
}
