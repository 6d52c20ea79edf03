//! Request headers that carry arguments: Idempotency-Key and Prefer.
use std::time::Duration;

use axum::http::HeaderMap;
use leasehold::limits;

use crate::error::Problem;
use crate::fault::Fault;

/// The Idempotency-Key, bare or as a quoted string; both forms name the same key.
///
/// # Errors
/// A problem when it is empty, too long, not printable ASCII, badly quoted, or given twice.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const NAME: &str = "Idempotency-Key";
    let invalid = |detail: String| Problem::invalid(vec![Fault::header(NAME, detail)]);
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(invalid("given twice; send one".into()));
    }
    let text = value.to_str().map_err(|_| invalid(key_rule().into()))?.trim();
    let key = unquote(text).ok_or_else(|| invalid("its quotes do not match; send it bare or as \"key\"".into()))?;
    check_key(&key).map_err(invalid)?;
    Ok(Some(key))
}

fn key_rule() -> &'static str {
    "it must be 1 to 255 printable ASCII characters"
}

/// Checks a key from a header or, in a bulk, from the body.
///
/// # Errors
/// The rule, as a sentence.
pub fn check_key(key: &str) -> Result<(), String> {
    let printable = key.bytes().all(|b| (b' '..=b'~').contains(&b));
    if printable && (1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    Err(key_rule().into())
}

/// A bare text as it is, a quoted string (RFC 9651) without its quotes and escapes; `None` when the quotes do not
/// match.
fn unquote(text: &str) -> Option<String> {
    let Some(rest) = text.strip_prefix('"') else { return Some(text.to_owned()) };
    let mut key = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(key),
            '\\' => key.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            c => key.push(c),
        }
    }
}

/// How long the client prefers to wait (`Prefer: wait=30`), at most `most_s`. Preferences are not requirements (RFC
/// 7240): a longer wait is shortened, a malformed one ignored, as are other preferences.
pub fn prefer_wait(headers: &HeaderMap, most_s: u64) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split(',')).map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        preference.split_once('=').unwrap_or((preference, ""))
    });
    let mut waits = preferences.filter(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
    let digits = unquote(waits.next()?.1.trim())?;
    let is_whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // A number too large for the machine is beyond any limit.
    is_whole.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::MAX).min(most_s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        values.iter().map(|v| (name.parse().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        let key = |text: &str| idempotency_key(&headers("idempotency-key", &[text])).unwrap();
        assert_eq!(key("abc"), Some("abc".into()));
        assert_eq!(key("\"abc\""), Some("abc".into()));
        assert_eq!(key(r#""a\"b\\c""#), Some(r#"a"b\c"#.into()));
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        for bad in ["", "\"\"", "\"a", "\"a\"b", "\"\\x\"", &"x".repeat(256)] {
            assert!(idempotency_key(&headers("idempotency-key", &[bad])).is_err(), "{bad}");
        }
        let mut latin = HeaderMap::new();
        latin.insert("idempotency-key", axum::http::HeaderValue::from_bytes(b"caf\xe9").unwrap());
        assert!(idempotency_key(&latin).is_err());
        assert!(idempotency_key(&headers("idempotency-key", &["a", "a"])).is_err());
    }

    fn wait(texts: &[&str]) -> Option<u64> {
        prefer_wait(&headers("prefer", texts), 60).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        assert_eq!(wait(&["wait=30"]), Some(30));
        assert_eq!(wait(&["respond-async, Wait=\"5\"; x=y"]), Some(5));
        assert_eq!(wait(&["respond-async", "wait=0"]), Some(0));
        assert_eq!(wait(&["respond-async"]), None);
        assert_eq!(wait(&["wait=1, wait=2"]), Some(1));
    }

    #[test]
    fn a_wait_beyond_the_limit_is_shortened_and_a_malformed_one_ignored() {
        for long in ["wait=60", "wait=61", "wait=1000", "wait=99999999999999999999"] {
            assert_eq!(wait(&[long]), Some(60), "{long}");
        }
        for malformed in ["wait", "wait=", "wait=-1", "wait=+1", "wait=1.5", "wait=x", "wait=\"1"] {
            assert_eq!(wait(&[malformed]), None, "{malformed}");
        }
    }
}
