//! Screenshots: a JSON file a batch, with its items in it.
use std::fmt;
use std::path::{Path, PathBuf};

use leasehold::store::{Ending, ImportedItem, Past};
use leasehold::{JobId, Json, Timestamp};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::found::{Flow, Found, OldItem, OldJob, Out, Place, Terms};
use super::input;
use super::old::{Status, cannot_run, ended_or, is_copy, is_record, named};
use crate::print;

const WORDS: [(&str, Status); 5] = [
    ("pending", Status::Open),
    ("processing", Status::Open),
    ("completed", Status::Completed),
    ("failed", Status::Failed),
    ("cancelled", Status::Cancelled),
];

/// How an item stood.
#[derive(Clone, Copy, PartialEq)]
enum ItemStatus {
    Open,
    Success,
    Failed,
    Skipped,
    Cancelled,
}

const ITEM_WORDS: [(&str, ItemStatus); 5] = [
    ("pending", ItemStatus::Open),
    ("success", ItemStatus::Success),
    ("failed", ItemStatus::Failed),
    ("skipped", ItemStatus::Skipped),
    ("cancelled", ItemStatus::Cancelled),
];

pub(super) fn read(paths: &[PathBuf], out: &Out) -> Flow {
    for path in paths {
        let inner = path.join("jobs");
        let folder = if inner.is_dir() { &inner } else { path };
        if folder.is_dir() && !is_record(folder) {
            input::announce([folder.as_path()], out, ".json")?;
            input::entries(folder, out, |path, name| if name.ends_with(".json") { one(path, out) } else { Ok(()) })?;
        } else {
            one(folder, out)?;
        }
    }
    Ok(())
}

fn one(path: &Path, out: &Out) -> Flow {
    let text = match input::text(path, out.terms.batch_bytes) {
        Ok(text) => text,
        Err(reason) => return out.skip(Place::of(path), reason),
    };
    match Batch::of(&text, path, &out.terms) {
        Ok(batch) => batch.send(path, out),
        Err(reason) => out.skip(Place::of(path), reason),
    }
}

/// The entries of a JSON object in their order, unread.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, &RawValue>()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A batch whose record has been read.
struct Batch<'a> {
    job: OldJob,
    status: Status,
    ended_at: Timestamp,
    message: String,
    config: Map<String, Value>,
    items: Vec<(String, &'a RawValue)>,
}

impl<'a> Batch<'a> {
    fn of(text: &'a str, path: &Path, terms: &Terms) -> Result<Self, String> {
        let Pairs(pairs) = serde_json::from_str(text).map_err(|e| format!("not valid JSON of a batch: {e}"))?;
        let items = pairs.iter().rev().find(|(name, _)| name == "items").map(|(_, items)| *items);
        // The items are in their own jobs.
        let rest: std::collections::BTreeMap<&str, &RawValue> =
            pairs.iter().filter(|(name, _)| name != "items").map(|(name, value)| (name.as_str(), *value)).collect();
        let rest = Json::of(&rest).map_err(|e| e.to_string())?;
        let fields = Fields::parse(rest.as_str(), terms)?;
        let id = fields.id(&["job_id", "id"], named(path, ""))?;
        let status = ended_or(fields.needed_word("status", &WORDS)?, &fields, "completed_at");
        let created_at = fields.first_time(&["created_at", "completed_at"])?;
        let created_at = created_at.or_else(|| input::changed_at(path)).unwrap_or_else(print::now);
        let ended_at = fields.first_time(&["completed_at", "created_at"])?.unwrap_or(created_at);
        fields.number("total_processing_time")?;
        let config = config(fields.get("config").and_then(Value::as_object));
        let message = ["error", "error_message"].iter().find_map(|name| fields.get(name)?.as_str());
        let message = message.unwrap_or("the old store has no reason").to_owned();
        if let Some(reason) = is_copy(path, &format!("{id}.json")) {
            return Err(reason);
        }
        let items = items.map_or(Ok(Vec::new()), pairs_of)?;
        let (place, payload) = (Place::of(path), Json::null());
        let record = fields.json;
        let (ending, attachment, note) = (None, None, None);
        let job = OldJob { place, id, created_at, record, payload, ending, ended_at, attachment, note };
        Ok(Self { job, status, ended_at, message, config, items })
    }

    fn send(self, path: &Path, out: &Out) -> Flow {
        let Self { job, status, ended_at, message, config, items } = self;
        let (created_at, id) = (job.created_at, job.id.clone());
        out.send(Found::Batch(Box::new(job)))?;
        for (key, raw) in items {
            let ended = (status != Status::Open).then_some(ended_at);
            match item(&id, &key, raw, &config, created_at, ended, &out.terms) {
                Ok((item, note)) => {
                    let note = note.map(|note| Place::of(path).told(format!("item {key:?}: {note}")));
                    out.send(Found::Item(Box::new(OldItem { item, note })))?;
                }
                Err(reason) => {
                    out.skip(Place::of(path), format!("item {}: {reason}", super::fields::shown(&key.into())))?
                }
            }
        }
        let ending = match status {
            Status::Open => None,
            Status::Completed => Some(Ending::Completed { result: Json::null(), skipped: None }),
            Status::Failed => Some(Ending::Failed { message, at: ended_at }),
            Status::Cancelled => Some(Ending::Cancelled),
        };
        out.send(Found::End(ending, None))
    }
}

/// The items: an object by their ids, or a list.
fn pairs_of(items: &RawValue) -> Result<Vec<(String, &RawValue)>, String> {
    let wrong = |e| format!("field \"items\" must be an object of items: {e}");
    if items.get().starts_with('[') {
        let list: Vec<&RawValue> = serde_json::from_str(items.get()).map_err(wrong)?;
        return Ok(list.into_iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect());
    }
    if items.get() == "null" {
        return Ok(Vec::new());
    }
    serde_json::from_str::<Pairs>(items.get()).map(|Pairs(pairs)| pairs).map_err(wrong)
}

/// What the images are to be like, with a fallback for what is missing or cannot be.
fn config(old: Option<&Map<String, Value>>) -> Map<String, Value> {
    let size = |name: &str, default: u64| {
        let given = old.and_then(|old| old.get(name)?.as_u64()).filter(|n| (1..=10_000).contains(n));
        json!(given.unwrap_or(default))
    };
    let format = old
        .and_then(|old| old.get("format")?.as_str())
        .filter(|format| ["png", "jpeg", "jpg", "webp"].contains(format));
    let mut config = Map::new();
    config.insert("width".into(), size("width", 1_280));
    config.insert("height".into(), size("height", 800));
    config.insert("format".into(), json!(format.unwrap_or("png")));
    config.insert("cache".into(), json!(old.and_then(|old| old.get("cache")?.as_bool()).unwrap_or(true)));
    config
}

/// An item; with `ended`, its batch had ended, and what was open in it does not run any more.
fn item(
    batch: &JobId,
    key: &str,
    raw: &RawValue,
    config: &Map<String, Value>,
    created_at: Timestamp,
    ended: Option<Timestamp>,
    terms: &Terms,
) -> Result<(ImportedItem, Option<String>), String> {
    let fields = Fields::parse(raw.get(), terms)?;
    let id = fields.text("id")?.unwrap_or(key).to_owned();
    let status = fields.needed_word("status", &ITEM_WORDS)?;
    let cached = fields.flag("cached")?;
    let nested = |name: &str| fields.get(name).and_then(|inner| inner.get("url")?.as_str());
    let url = fields.text("url")?.or_else(|| nested("request")).map(str::to_owned);
    let error = ["error", "error_message"].iter().find_map(|name| fields.get(name)?.as_str());
    let message = error.unwrap_or("the old store has no reason").to_owned();
    let mut config = config.clone();
    let cache = config.remove("cache").unwrap_or(json!(true));
    let payload = json!({"id": id, "url": url, "config": config, "cache": cache});
    let (at, mut note) = (ended.unwrap_or(created_at), None);
    let ending = match status {
        ItemStatus::Success => {
            let result = fields.get("result").cloned().unwrap_or_else(|| json!({"cached": cached.unwrap_or(false)}));
            Some(Ending::Completed { result: Json::of(&result).map_err(|e| e.to_string())?, skipped: None })
        }
        ItemStatus::Skipped => {
            let reason = error.unwrap_or("it was skipped in the old store").to_owned();
            Some(Ending::Completed { result: Json::null(), skipped: Some(reason) })
        }
        ItemStatus::Failed => Some(Ending::Failed { message, at }),
        ItemStatus::Cancelled => Some(Ending::Cancelled),
        ItemStatus::Open if ended.is_some() => {
            note = Some("it was pending in a batch that had ended, so it is cancelled; `leasehold jobs retry` of the batch runs it".to_owned());
            Some(Ending::Cancelled)
        }
        ItemStatus::Open if url.is_none() => {
            let (ending, told) = cannot_run("the old store has no url for it", at);
            note = Some(told);
            Some(ending)
        }
        ItemStatus::Open => None,
    };
    let note = note.map(|note| format!("of batch {batch}: {note}"));
    let payload = Json::of(&payload).map_err(|e| e.to_string())?;
    let ended_at = ending.as_ref().map(|_| at.max(created_at));
    let past = Past { created_at, record: Some(fields.json), ending, ended_at, output: Vec::new() };
    Ok((ImportedItem { payload, past }, note))
}
