//! Valid JSON values that have not been parsed yet: their sort, and their parts up to a maximum number.
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON number as an integer, if it is one: `5`, and `5.0` too.
pub fn whole(text: &str) -> Option<u64> {
    let float = || text.parse::<f64>().ok().filter(|f| f.fract() == 0.0 && (0.0..1e15).contains(f));
    text.parse().ok().or_else(|| float().map(|f| f as u64))
}

/// The sort of a value, as messages name it.
pub fn sort(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The message for a value of another sort than `wanted`.
pub fn expected(wanted: &str, raw: &RawValue) -> String {
    format!("expected {wanted}, got {}", sort(raw))
}

/// The first `most` members of an object, and whether there are more.
///
/// # Errors
/// A name is not a valid string.
pub fn members(raw: &RawValue, most: usize) -> serde_json::Result<(Vec<(String, &RawValue)>, bool)> {
    serde_json::Deserializer::from_str(raw.get()).deserialize_map(Members(most))
}

/// The first `most` elements of an array, and whether there are more.
///
/// # Errors
/// The value is not an array.
pub fn elements(raw: &RawValue, most: usize) -> serde_json::Result<(Vec<&RawValue>, bool)> {
    serde_json::Deserializer::from_str(raw.get()).deserialize_seq(Elements(most))
}

struct Members(usize);

impl<'de> Visitor<'de> for Members {
    type Value = (Vec<(String, &'de RawValue)>, bool);

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut over) = (Vec::new(), false);
        while let Some(name) = map.next_key::<String>()? {
            if members.len() < self.0 {
                members.push((name, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
                over = true;
            }
        }
        Ok((members, over))
    }
}

struct Elements(usize);

impl<'de> Visitor<'de> for Elements {
    type Value = (Vec<&'de RawValue>, bool);

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut elements, mut over) = (Vec::new(), false);
        loop {
            if elements.len() == self.0 {
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    over = true;
                }
                return Ok((elements, over));
            }
            let Some(element) = seq.next_element()? else {
                return Ok((elements, over));
            };
            elements.push(element);
        }
    }
}
