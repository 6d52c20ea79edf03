//! Reading replies: arrays, texts and whole numbers, whatever form Redis gives them.
use redis::Value;

/// The elements of a reply that is an array; none for any other.
pub(crate) fn array(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        _ => &[],
    }
}

/// A reply as text; empty for nil.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Int(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Okay => "OK".into(),
        _ => String::new(),
    }
}

/// A reply that is text, without a copy; `None` for any other, and for bytes that are no text.
pub(crate) fn str_of(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// A reply as a whole number.
pub(crate) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        other => text(other).parse().ok(),
    }
}

/// A reply as a count; 0 for anything else.
pub(crate) fn count(value: &Value) -> u64 {
    number(value).and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}
