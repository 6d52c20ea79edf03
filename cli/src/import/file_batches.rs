//! File batches: the metadata of a job in a JSON file, its results in JSON Lines. Either may be missing.
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use leasehold::store::{Ending, ImportedItem, Past};
use leasehold::{JobId, Json, Timestamp};
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::found::{Flow, Found, OldItem, OldJob, Out, Place};
use super::input::{self, Lines};
use super::old::{Status, ended_or, is_copy, is_record, named, skipped};
use crate::print;

const METADATA: &str = "job_metadata";
const RESULTS: &str = "job_results";
/// Skipped files that a record may tell of beyond its lines: each becomes an item.
const SKIPPED_MAX: u64 = 1_000_000;

const WORDS: [(&str, Status); 5] = [
    ("Pending", Status::Open),
    ("Processing", Status::Open),
    ("Completed", Status::Completed),
    ("Failed", Status::Failed),
    ("Cancelled", Status::Cancelled),
];
/// Under which a record may list its files.
const LISTS: [&str; 4] = ["files", "file_list", "filenames", "file_paths"];

/// The folders of a store, and the results files that have been read.
struct Store<'a> {
    metadata: Vec<PathBuf>,
    results: Vec<PathBuf>,
    read: HashSet<PathBuf>,
    out: &'a Out,
}

pub(super) fn read(paths: &[PathBuf], out: &Out) -> Flow {
    let folders = |name: &str| -> Vec<PathBuf> {
        let own = paths.iter().filter(|path| path.is_dir()).cloned();
        let mut all: Vec<PathBuf> = own.chain(paths.iter().flat_map(|path| input::nearby(path, name))).collect();
        all.dedup();
        all
    };
    let mut store = Store { metadata: folders(METADATA), results: folders(RESULTS), read: HashSet::new(), out };
    let (mut whole, mut files) = (Vec::new(), Vec::new());
    for path in paths {
        if path.is_dir() && !is_record(path) {
            let inner = [METADATA, RESULTS].map(|name| path.join(name));
            let is_root = inner.iter().any(|folder| folder.is_dir());
            for folder in inner.iter().filter(|folder| is_root && folder.exists() && !folder.is_dir()) {
                out.skip(Place::of(folder), "it is a file in place of a folder")?;
            }
            whole.extend(if is_root { inner.to_vec() } else { vec![path.clone()] });
            // The other half of the store is beside it.
            whole.extend(input::nearby(path, RESULTS));
        } else {
            files.push(path.clone());
        }
    }
    let mut seen = HashSet::new();
    whole.retain(|folder| folder.is_dir() && seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.clone())));
    input::announce(whole.iter().map(PathBuf::as_path), out, ".json")?;
    for path in &files {
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            store.lines_alone(path)?
        } else {
            store.metadata(path)?
        }
    }
    for folder in &whole {
        input::entries(folder, out, |path, name| if name.ends_with(".json") { store.metadata(path) } else { Ok(()) })?;
    }
    for folder in &whole {
        input::entries(
            folder,
            out,
            |path, name| if name.ends_with(".jsonl") { store.lines_alone(path) } else { Ok(()) },
        )?;
    }
    Ok(())
}

/// The id in the name of a results file.
fn id_of(results: &Path) -> Option<&str> {
    let name = results.file_name()?.to_str()?;
    name.strip_prefix("job_")?.strip_suffix("_results.jsonl")
}

/// A path by which a file is known, however it is reached.
fn same(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

impl Store<'_> {
    fn lines_of(&self, id: &str) -> Option<PathBuf> {
        let name = format!("job_{id}_results.jsonl");
        self.results.iter().map(|folder| folder.join(&name)).find(|path| path.symlink_metadata().is_ok())
    }

    /// A job by its metadata, with its results if they are there.
    fn metadata(&mut self, path: &Path) -> Flow {
        let terms = &self.out.terms;
        let record =
            input::text(path, terms.record_bytes).and_then(|text| Head::of(Fields::parse(&text, terms)?, path));
        let lines = match &record {
            Ok(head) => self.lines_of(head.id.as_str()),
            Err(_) => named(path, "").and_then(|id| self.lines_of(id)),
        };
        match (record, lines) {
            (Ok(head), lines) => self.batch(head, lines.as_deref()),
            (Err(reason), None) => self.out.skip(Place::of(path), reason),
            (Err(reason), Some(lines)) => {
                self.out.skip(Place::of(path), format!("{reason}; its job is made from its results alone"))?;
                self.rebuild(&lines)
            }
        }
    }

    /// A results file whose metadata is missing.
    fn lines_alone(&mut self, path: &Path) -> Flow {
        let Some(id) = id_of(path) else {
            return self.out.skip(Place::of(path), "a results file is called job_{id}_results.jsonl");
        };
        if self.read.contains(&same(path)) {
            return Ok(());
        }
        let name = format!("{id}.json");
        match self.metadata.iter().map(|folder| folder.join(&name)).find(|path| path.symlink_metadata().is_ok()) {
            Some(metadata) => self.metadata(&metadata),
            None => self.rebuild(path),
        }
    }

    /// A job from its results alone.
    fn rebuild(&mut self, lines: &Path) -> Flow {
        match Head::from_lines(lines, self.out) {
            Ok(head) => self.batch(head, Some(lines)),
            Err(reason) => {
                self.read.insert(same(lines));
                self.out.skip(Place::of(lines), reason)
            }
        }
    }

    fn batch(&mut self, head: Head, lines: Option<&Path>) -> Flow {
        if lines.is_some_and(|lines| !self.read.insert(same(lines))) {
            return self
                .out
                .skip(head.place, format!("another record of this store has the id {} too, and was taken", head.id));
        }
        let opened = lines.map(|path| (path, Lines::open(path, self.out.terms.payload_bytes as u64 * 2)));
        let mut lost = None;
        let lines = match opened {
            Some((path, Ok(lines))) => Some((path, lines)),
            Some((path, Err(reason))) => {
                lost = Some((path, reason));
                None
            }
            None => None,
        };
        if let Some((path, reason)) = lost {
            self.out.skip(Place::of(path), format!("the results of job {}: {reason}", head.id))?;
        }
        let Head { place, id, record, status, created_at, ended_at, total, skipped, files, message } = head;
        let job = OldJob {
            place: place.clone(),
            id,
            created_at,
            record,
            payload: Json::null(),
            ending: None,
            ended_at,
            attachment: None,
            note: None,
        };
        self.out.send(Found::Batch(Box::new(job)))?;
        let mut items =
            Items { out: self.out, created_at, ended_at, sent: 0, done: HashSet::new(), hasher: RandomState::new() };
        if let Some((path, lines)) = lines {
            items.lines(path, lines, !files.is_empty())?;
        }
        let rest = |sent: u64| total.map_or(0, |total| total.saturating_sub(sent));
        if status == Status::Open && !files.is_empty() {
            items.rest(&files)?;
        } else {
            items.skipped(skipped.min(rest(items.sent)).min(SKIPPED_MAX))?;
        }
        let ending = match status {
            Status::Completed => Some(Ending::Completed { result: Json::null(), skipped: None }),
            Status::Failed => Some(Ending::Failed { message, at: ended_at }),
            Status::Cancelled => Some(Ending::Cancelled),
            Status::Open if rest(items.sent) == 0 && (items.sent > 0 || total == Some(0)) => None,
            Status::Open => {
                let (lost, done) = (rest(items.sent), items.sent);
                let lost = if total.is_some() { lost.to_string() } else { "any".to_owned() };
                let why = format!(
                    "the old store does not name {lost} of its files that are not done; {done} are; submit the others again"
                );
                let (ending, note) = super::old::cannot_run(&why, ended_at);
                return self.out.send(Found::End(Some(ending), Some(place.told(note))));
            }
        };
        self.out.send(Found::End(ending, None))
    }
}

/// What is known of a job before its lines.
struct Head {
    place: Place,
    id: JobId,
    record: Json,
    status: Status,
    created_at: Timestamp,
    ended_at: Timestamp,
    total: Option<u64>,
    skipped: u64,
    /// All its files, if the record lists them.
    files: Vec<String>,
    message: String,
}

impl Head {
    fn of(fields: Fields, path: &Path) -> Result<Self, String> {
        let stem = id_of(path).or_else(|| named(path, ""));
        let id = fields.id(&["job_id", "id"], stem)?;
        let ended = fields.time("end_time")?;
        let status = fields.word("status", &WORDS)?;
        let status = ended_or(status.unwrap_or(Status::Open), &fields, "end_time");
        let created_at = fields.first_time(&["start_time", "created_at", "end_time"])?;
        let created_at = created_at.or_else(|| input::changed_at(path)).unwrap_or_else(print::now);
        for name in ["progress_percentage", "processing_time"] {
            fields.number(name)?;
        }
        for name in ["successful_files", "failed_files"] {
            fields.count(name)?;
        }
        let (total, skipped) = (fields.count("total_files")?, fields.count("skipped_files")?.unwrap_or(0));
        let message = ["error", "error_message"].iter().find_map(|name| fields.get(name)?.as_str());
        let message = message.unwrap_or("the old store has no reason").to_owned();
        let files = LISTS.iter().find_map(|name| files(fields.get(name)?)).unwrap_or_default();
        if path.extension().is_some_and(|ending| ending == "json")
            && let Some(reason) = is_copy(path, &format!("{id}.json"))
        {
            return Err(reason);
        }
        let (place, ended_at) = (Place::of(path), ended.unwrap_or(created_at));
        Ok(Self { place, id, record: fields.json, status, created_at, ended_at, total, skipped, files, message })
    }

    /// From the results alone: their summary line, or what they add up to.
    fn from_lines(path: &Path, out: &Out) -> Result<Self, String> {
        let terms = &out.terms;
        let (mut count, mut succeeded, mut times) = (0_u64, 0_u64, Vec::new());
        for (number, line) in Lines::open(path, terms.payload_bytes as u64 * 2)? {
            let Ok(fields) = line.and_then(|line| Fields::parse(&line, terms)) else { continue };
            if number == 1 && is_summary(&fields) {
                if let Ok(head) = Self::of(fields, path) {
                    return Ok(head);
                }
                continue;
            }
            if let Ok(line) = Line::of(&fields) {
                count += 1;
                succeeded += u64::from(line.success);
                if let Some(time) = fields.get("timestamp").filter(|time| super::fields::time(time).is_some()) {
                    times.truncate(1);
                    times.push(time.clone());
                }
            }
        }
        if count == 0 {
            return Err("none of its lines is the result of a file".into());
        }
        let mut record = Map::new();
        record.insert("job_id".into(), json!(id_of(path)));
        record.insert("status".into(), json!("Completed"));
        record.insert("progress_percentage".into(), json!(100));
        record.insert("total_files".into(), json!(count));
        record.insert("successful_files".into(), json!(succeeded));
        record.insert("failed_files".into(), json!(count - succeeded));
        record.insert("skipped_files".into(), json!(0));
        record.insert("start_time".into(), times.first().cloned().unwrap_or_default());
        record.insert("end_time".into(), times.last().cloned().unwrap_or_default());
        Self::of(Fields::built(record, terms)?, path)
    }
}

/// The names of files in a list of texts or of objects.
fn files(list: &Value) -> Option<Vec<String>> {
    let name = |file: &Value| match file {
        Value::String(name) => Some(name.clone()),
        file => ["filename", "file", "path", "name"].iter().find_map(|key| file.get(key)?.as_str().map(str::to_owned)),
    };
    list.as_array().map(|list| list.iter().filter_map(name).collect())
}

/// Whether a line is the summary of its job, and no file.
fn is_summary(fields: &Fields) -> bool {
    !fields.has("filename") && ["job_id", "total_files", "status"].iter().any(|name| fields.has(name))
}

/// The result of a file.
struct Line {
    filename: String,
    success: bool,
    error: Option<String>,
    at: Option<Timestamp>,
}

impl Line {
    fn of(fields: &Fields) -> Result<Self, String> {
        let filename = fields.text("filename")?.ok_or("field \"filename\" is missing")?.to_owned();
        let error = fields.text("error")?.filter(|error| !error.is_empty()).map(str::to_owned);
        let success = match fields.flag("success")? {
            Some(success) => success,
            None if error.is_some() => false,
            None => return Err("field \"success\" is missing; it must be true or false".into()),
        };
        Ok(Self { filename, success, error, at: fields.time("timestamp")? })
    }
}

/// The items of a batch on their way.
struct Items<'a> {
    out: &'a Out,
    created_at: Timestamp,
    ended_at: Timestamp,
    sent: u64,
    /// Hashes of the files that are done.
    done: HashSet<u64>,
    hasher: RandomState,
}

impl Items<'_> {
    fn send(&mut self, payload: &Value, record: Option<Json>, ending: Option<Ending>, at: Option<Timestamp>) -> Flow {
        self.sent += 1;
        let payload = Json::of(payload).expect("it is plain JSON");
        let ended_at = ending.as_ref().and(at).map(|at| at.max(self.created_at));
        let past = Past { created_at: self.created_at, record, ending, ended_at, output: Vec::new() };
        self.out.send(Found::Item(Box::new(OldItem { item: ImportedItem { payload, past }, note: None })))
    }

    /// What is done, a line each.
    fn lines(&mut self, path: &Path, lines: Lines, listed: bool) -> Flow {
        for (number, line) in lines {
            let read = line.and_then(|line| {
                let fields = Fields::parse(&line, &self.out.terms)?;
                if number == 1 && is_summary(&fields) {
                    return Ok(None);
                }
                Ok(Some((Line::of(&fields)?, fields.json)))
            });
            let (line, record) = match read {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(reason) => {
                    self.out.skip(Place::at(path, number), reason)?;
                    continue;
                }
            };
            if listed {
                self.done.insert(self.hasher.hash_one(&line.filename));
            }
            let at = line.at.unwrap_or(self.created_at);
            let ending = if line.success {
                Ending::Completed { result: Json::null(), skipped: None }
            } else {
                Ending::Failed { message: line.error.unwrap_or_else(|| "the old store has no reason".into()), at }
            };
            self.send(&json!({"file": line.filename}), Some(record), Some(ending), Some(at))?;
        }
        Ok(())
    }

    /// The files of the list that are not done are to be done here; one without a name, or named twice, is skipped.
    fn rest(&mut self, files: &[String]) -> Flow {
        let mut met = HashSet::new();
        for file in files {
            let again = !met.insert(file);
            if again || file.is_empty() {
                let reason = if again { "it is named twice in this batch" } else { "its name is empty" };
                self.send(&json!({"file": file, "skip": reason}), None, Some(skipped(reason)), None)?;
            } else if !self.done.contains(&self.hasher.hash_one(file)) {
                self.send(&json!({"file": file}), None, None, None)?;
            }
        }
        Ok(())
    }

    /// Files that had been skipped: the old store counts them, and has no names.
    fn skipped(&mut self, count: u64) -> Flow {
        for _ in 0..count {
            let reason = "it was skipped in the old store";
            self.send(&json!({"file": "", "skip": reason}), None, Some(skipped(reason)), Some(self.ended_at))?;
        }
        Ok(())
    }
}
