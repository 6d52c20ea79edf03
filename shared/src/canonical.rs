//! Canonical forms: parts of a JSON text, so that equal values have equal texts, and the digest of a request. Pure.
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::Json;

/// Why `pointer` is not a JSON pointer (RFC 6901); `None` when it is one.
pub fn pointer_fault(pointer: &str) -> Option<&'static str> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Some("a JSON pointer begins with /, as \"/url\"");
    }
    let mut escapes = pointer.split('~').skip(1);
    let is_wrong = escapes.any(|rest| !rest.starts_with(['0', '1']));
    is_wrong.then_some("~ in a JSON pointer is written ~0, and / in a name ~1")
}

/// The canonical text at `pointer`: members sorted by name, strings escaped uniformly, numbers unchanged. `None`
/// when there is no value at `pointer`.
pub fn member(json: &Json, pointer: &str) -> Option<String> {
    let mut at: &RawValue = serde_json::from_str(json.as_str()).ok()?;
    for step in pointer.split('/').skip(1) {
        let name = step.replace("~1", "/").replace("~0", "~");
        at = if at.get().starts_with('{') {
            serde_json::from_str::<BTreeMap<String, &RawValue>>(at.get()).ok()?.get(&name).copied()?
        } else {
            let number = name.parse::<usize>().ok().filter(|number| number.to_string() == name)?;
            serde_json::from_str::<Vec<&RawValue>>(at.get()).ok()?.get(number).copied()?
        };
    }
    let mut text = String::with_capacity(at.get().len());
    write(at, &mut text);
    Some(text)
}

/// Recursive: its depth is bounded by the limit on nesting.
fn write(value: &RawValue, text: &mut String) {
    let raw = value.get();
    if let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw) {
        for (at, (name, value)) in members.iter().enumerate() {
            text.push(if at == 0 { '{' } else { ',' });
            quote(name, text);
            text.push(':');
            write(value, text);
        }
        text.push_str(if members.is_empty() { "{}" } else { "}" });
    } else if let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(raw) {
        for (at, value) in elements.iter().enumerate() {
            text.push(if at == 0 { '[' } else { ',' });
            write(value, text);
        }
        text.push_str(if elements.is_empty() { "[]" } else { "]" });
    } else if let Ok(string) = serde_json::from_str::<String>(raw) {
        quote(&string, text);
    } else {
        text.push_str(raw);
    }
}

fn quote(string: &str, text: &mut String) {
    text.push_str(&serde_json::Value::from(string).to_string());
}

/// A digest of a request: 32 hex digits of the SHA-256 of its parts, each preceded by its length. Idempotency-Keys,
/// cursors and caches compare requests by it.
pub fn request_digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, pointer: &str) -> Option<String> {
        member(&Json::parse(text, 64, 1 << 20).unwrap(), pointer)
    }

    #[test]
    fn what_means_the_same_is_the_same_text() {
        let one = at(r#"{"config": {"width": 1, "name": "\u00e9/"}, "x": [1, {"b": [], "a": {}}]}"#, "");
        let other = at(r#"{"x":[1,{"a":{},"b":[]}],"config":{"name":"é\/","width":1}}"#, "");
        assert_eq!(one, other);
        assert_eq!(one.unwrap(), r#"{"config":{"name":"é/","width":1},"x":[1,{"a":{},"b":[]}]}"#);
        // Two that a float would make one.
        assert_ne!(at("12345678901234567890", ""), at("12345678901234567891", ""));
        assert_ne!(at(r#""1""#, ""), at("1", ""));
    }

    #[test]
    fn a_pointer_leads_where_it_says() {
        let text = r#"{"a": {"b": [10, {"c~/d": null}]}, "": 5}"#;
        for (pointer, leads) in [
            ("/a/b/0", Some("10")),
            ("/a/b/1/c~0~1d", Some("null")),
            ("/", Some("5")),
            ("/a/b/00", None),
            ("/a/b/2", None),
            ("/a/x", None),
            ("/a/b/0/y", None),
        ] {
            assert_eq!(at(text, pointer).as_deref(), leads, "{pointer}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_told() {
        assert!(["", "/", "/a~0b", "/a/~1"].iter().all(|pointer| pointer_fault(pointer).is_none()));
        assert!(["url", "/a~", "/a~2"].iter().all(|pointer| pointer_fault(pointer).is_some()));
    }
}
