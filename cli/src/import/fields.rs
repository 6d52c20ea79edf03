//! A record of an old store, read field by field: a field of a wrong type is named, with what it must be.
use leasehold::{JobId, Json, Timestamp};
use serde_json::{Map, Value};

use super::found::Terms;
use crate::print;

/// How far ahead of this machine's clock a time may be, ms: a day.
const AHEAD_MS: i64 = 86_400_000;

/// A record, as it stood and by its fields.
pub(super) struct Fields {
    pub json: Json,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads a JSON object that is small enough to be kept.
    pub(super) fn parse(text: &str, terms: &Terms) -> Result<Self, String> {
        let json = Json::parse(text, terms.json_depth, terms.payload_bytes).map_err(|e| e.to_string())?;
        Self::of(json)
    }

    /// [`Fields::parse`] for JSON whose size has been checked.
    pub(super) fn of(json: Json) -> Result<Self, String> {
        match json.to::<Value>() {
            Ok(Value::Object(map)) => Ok(Self { json, map }),
            Ok(other) => Err(format!("it is {}; a record is a JSON object", shown(&other))),
            Err(e) => Err(format!("not valid JSON: {e}")),
        }
    }

    /// A record that is put together here.
    pub(super) fn built(map: Map<String, Value>, terms: &Terms) -> Result<Self, String> {
        let text = Value::Object(map).to_string();
        Self::parse(&text, terms)
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// All of it.
    pub(super) fn map(&self) -> &Map<String, Value> {
        &self.map
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        must_be: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let wrong = |value: &Value| format!("field {name:?} is {}; it must be {must_be}", shown(value));
        self.get(name).map(|value| read(value).ok_or_else(|| wrong(value))).transpose()
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, String> {
        self.typed(name, "a text", Value::as_str)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, String> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// A number of things.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, String> {
        let whole = |value: &Value| {
            let float = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..9e15).contains(n)).map(|n| n as u64);
            value.as_u64().or_else(float)
        };
        self.typed(name, "a whole number, 0 or more", whole)
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, String> {
        self.typed(name, "an object", Value::as_object)
    }

    /// A time; one of an odd form is none.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, String> {
        let read = |value: &Value| (value.is_string() || value.is_number()).then(|| time(value));
        Ok(self.typed(name, "a time", read)?.flatten())
    }

    /// The first of these times that can be read.
    pub(super) fn first_time(&self, names: &[&str]) -> Result<Option<Timestamp>, String> {
        let times: Vec<Option<Timestamp>> = names.iter().map(|name| self.time(name)).collect::<Result<_, _>>()?;
        Ok(times.into_iter().flatten().next())
    }

    /// The id, or what the name of its file says.
    pub(super) fn id(&self, names: &[&str], named: Option<&str>) -> Result<JobId, String> {
        for name in names {
            if let Some(id) = self.text(name)? {
                return JobId::parse(id).map_err(|e| e.to_string());
            }
        }
        let named = named.ok_or_else(|| format!("field {:?} is missing", names[0]))?;
        JobId::parse(named).map_err(|e| e.to_string())
    }

    /// What a word of the field means.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, String> {
        let Some(word) = self.text(name)? else { return Ok(None) };
        meaning(word, words).map(Some).ok_or_else(|| {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("field {name:?} is {}; it must be one of {}", shown(&word.into()), allowed.join(", "))
        })
    }

    /// A word of a field that must be present.
    pub(super) fn needed_word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, String> {
        self.word(name, words)?.ok_or_else(|| {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("field {name:?} is missing; it must be one of {}", allowed.join(", "))
        })
    }
}

/// What a word means, however it is capitalised.
pub(super) fn meaning<T: Copy>(word: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(known, _)| known.eq_ignore_ascii_case(word.trim())).map(|(_, meaning)| *meaning)
}

/// A value, short enough for a line.
pub(super) fn shown(value: &Value) -> String {
    let text = print::plain(&value.to_string());
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Reads a time in any form that an old service may have written. `None` for anything else is not a time.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    let ms = leasehold::time::foreign(value)?.div_euclid(1_000);
    (0..=print::now().0.saturating_add(AHEAD_MS)).contains(&ms).then_some(Timestamp(ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_read_as_the_old_services_wrote_them() {
        for (value, ms) in [
            (json!("2024-01-01T12:00:00"), Some(1_704_110_400_000)),
            (json!("2024-01-01 12:00:00"), Some(1_704_110_400_000)),
            (json!("2024-01-01T12:00:00Z"), Some(1_704_110_400_000)),
            (json!("2024-01-01T13:00:00+01:00"), Some(1_704_110_400_000)),
            (json!("2025-09-16T20:44:07.533700"), Some(1_758_055_447_533)),
            (json!(1_703_123_456.789), Some(1_703_123_456_789)),
            (json!("2024-01-01"), Some(1_704_067_200_000)),
            (json!("yesterday"), None),
            (json!("1600-01-01T00:00:00"), None),
            (json!("9999-01-01T00:00:00"), None),
            (json!(-5), None),
            (json!(1e300), None),
        ] {
            assert_eq!(time(&value), ms.map(Timestamp), "{value}");
        }
    }
}
