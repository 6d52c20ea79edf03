//! JSON that Leasehold stores but does not interpret: payloads, results, checkpoints.
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Valid JSON text without insignificant white space; numbers and key order are preserved.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Box<str>);

/// The reason for which a text was not accepted as [`Json`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJson {
    /// Not JSON.
    #[error("not valid JSON: {0}")]
    Malformed(String),
    /// Nested deeper than the limit.
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// Longer than the limit.
    #[error("{0} bytes of compact JSON; at most {1} are allowed")]
    TooLong(usize, usize),
}

impl Json {
    /// Checks and compacts `text`: at most `depth_max` nested arrays and objects, and `bytes_max` bytes once compact.
    ///
    /// # Errors
    /// [`InvalidJson`] names the limit.
    pub fn parse(text: &str, depth_max: usize, bytes_max: usize) -> Result<Self, InvalidJson> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|e| InvalidJson::Malformed(e.to_string()))?;
        Self::from_raw(raw, depth_max, bytes_max)
    }

    /// [`Json::parse`] for a value that serde has already validated.
    ///
    /// # Errors
    /// [`InvalidJson`] names the limit.
    pub fn from_raw(raw: &RawValue, depth_max: usize, bytes_max: usize) -> Result<Self, InvalidJson> {
        if let Some(escape) = lone_surrogate(raw.get()) {
            let reason = format!("{escape} is half of a character: write both halves, or the character itself");
            return Err(InvalidJson::Malformed(reason));
        }
        Self::compact(raw, depth_max, bytes_max)
    }

    fn compact(raw: &RawValue, depth_max: usize, bytes_max: usize) -> Result<Self, InvalidJson> {
        let mut compact = String::with_capacity(raw.get().len());
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        for c in raw.get().chars() {
            if in_string {
                in_string = escaped || c != '"';
                escaped = !escaped && c == '\\';
            } else {
                match c {
                    ' ' | '\t' | '\n' | '\r' => continue,
                    '"' => in_string = true,
                    '[' | '{' => depth += 1,
                    ']' | '}' => depth -= 1,
                    _ => {}
                }
                if depth > depth_max {
                    return Err(InvalidJson::TooDeep(depth_max));
                }
            }
            compact.push(c);
        }
        if compact.len() > bytes_max {
            return Err(InvalidJson::TooLong(compact.len(), bytes_max));
        }
        Ok(Self(compact.into_boxed_str()))
    }

    /// A text read from Redis that [`Json::parse`] had accepted.
    pub(crate) fn stored(text: String) -> Self {
        Self(text.into_boxed_str())
    }

    /// A text of a record, which a hand may have changed.
    ///
    /// # Errors
    /// That the field is not JSON, and where.
    pub(crate) fn of_field(name: &str, text: &str) -> Result<Self, String> {
        let raw: Result<&RawValue, _> = serde_json::from_str(text);
        raw.map(|_| Self::stored(text.to_owned())).map_err(|e| format!("field {name} is not JSON: {e}"))
    }

    /// Any serializable value as JSON.
    ///
    /// # Errors
    /// serde_json's: a map with keys that are not strings, a number that is not finite.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(|text| Self(text.into_boxed_str()))
    }

    /// `null`.
    pub fn null() -> Self {
        Self("null".into())
    }

    /// The compact text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Deserializes it as a `T`.
    ///
    /// # Errors
    /// serde_json's, with the position.
    pub fn to<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }
}

/// The first `\\u` escape in a JSON text that is half of a surrogate pair without the other half. serde_json lets it
/// pass, and then no client that reads strings can read an answer with it.
fn lone_surrogate(text: &str) -> Option<&str> {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6).filter(|escape| escape.starts_with("\\u"))?;
        u16::from_str_radix(&escape[2..], 16).ok()
    };
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        at += found;
        match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(0xd800..=0xdfff), _) => return text.get(at..at + 6),
            (Some(_), _) => at += 6,
            // An escape of one ASCII character.
            (None, _) => at += 2,
        }
    }
    None
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        // What an earlier version has accepted can still be read.
        Self::compact(&raw, usize::MAX, usize::MAX).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json, InvalidJson> {
        Json::parse(text, 4, 64)
    }

    #[test]
    fn only_white_space_outside_strings_is_dropped() {
        let json = parse("{ \"a b\" : [ 1.50 , 12345678901234567890123 ,\n\"\\\" x\" ] }").expect("valid");
        assert_eq!(json.as_str(), r#"{"a b":[1.50,12345678901234567890123,"\" x"]}"#);
    }

    #[test]
    fn limits_are_named() {
        assert_eq!(parse("[[[[[1]]]]]"), Err(InvalidJson::TooDeep(4)));
        assert_eq!(parse("[[[[1]]]]").map(|j| j.as_str().to_owned()), Ok("[[[[1]]]]".to_owned()));
        assert_eq!(parse(&format!("\"{}\"", "x".repeat(63))), Err(InvalidJson::TooLong(65, 64)));
        assert!(matches!(parse("{\"a\":}"), Err(InvalidJson::Malformed(_))));
        assert!(matches!(parse("1 2"), Err(InvalidJson::Malformed(_))));
    }

    #[test]
    fn half_of_a_surrogate_pair_is_refused() {
        for lone in [r#""\ud800""#, r#"{"\uDC00": 1}"#, r#"["\ud800\ud800\udc00"]"#, r#""\ud83d \ude00""#] {
            let error = parse(lone).expect_err(lone).to_string();
            assert!(error.contains("is half of a character"), "{lone}: {error}");
        }
        for whole in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#""\u00e9\n\\""#, r#""\\\\\ud83d\ude00""#] {
            assert_eq!(parse(whole).map(|json| json.as_str().to_owned()), Ok(whole.to_owned()));
        }
    }

    #[test]
    fn a_deep_bomb_does_not_use_the_stack() {
        let bomb = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert_eq!(Json::parse(&bomb, 64, 1 << 20), Err(InvalidJson::TooDeep(64)));
    }
}
