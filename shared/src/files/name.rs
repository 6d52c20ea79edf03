//! Names of files and folders. A file's name is checked once, where it enters, so that it cannot escape its folder.
use std::path::Path;

use crate::limits::FILE_NAME_BYTES_MAX;

/// A file name that is not allowed, and the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the file name {given:?} is not allowed: {rule}")]
pub struct InvalidFileName {
    given: String,
    rule: String,
}

/// Checks a file name.
///
/// # Errors
/// [`InvalidFileName`], with the rule.
pub fn check(name: &str) -> Result<(), InvalidFileName> {
    stored(name).map(drop)
}

/// The name as stored. While a file is being written, it is stored as `name#1`, and `C:` would be
/// taken for a drive, so `#` is stored as `%23`, `:` as `%3A`, and `%` as `%25`.
pub(super) fn stored(name: &str) -> Result<String, InvalidFileName> {
    let stored = name.replace('%', "%25").replace('#', "%23").replace(':', "%3A");
    let rule = if name.is_empty() {
        "it is empty".to_owned()
    } else if matches!(name, "." | "..") {
        "it names a folder".to_owned()
    } else if name.contains(['/', '\\']) {
        "send the name alone, without / or \\".to_owned()
    } else if name.chars().any(is_hidden) {
        "it has a control character in it".to_owned()
    } else if stored.len() > FILE_NAME_BYTES_MAX {
        format!("it is longer than {FILE_NAME_BYTES_MAX} bytes (%, # and : count as three)")
    } else {
        return Ok(stored);
    };
    Err(InvalidFileName { given: name.chars().take(80).collect(), rule })
}

/// Control characters, and those that change the direction of text: a name must not look like a different one.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The token that a folder of outputs is named after.
pub(super) fn token_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The usual content type of a file with this name.
pub fn content_type_of(name: &str) -> String {
    mime_guess::from_path(name).first_or_octet_stream().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place() {
        let long = "x".repeat(FILE_NAME_BYTES_MAX + 1);
        let hashes = "#".repeat(FILE_NAME_BYTES_MAX / 3 + 1);
        for (bad, said) in [
            ("", "empty"),
            (".", "folder"),
            ("..", "folder"),
            ("a/b", "without /"),
            ("/etc/passwd", "without /"),
            ("..\\x", "without /"),
            ("a\0b", "control"),
            ("a\nb", "control"),
            ("a\u{7f}", "control"),
            ("exe.\u{202e}txt", "control"),
            (&long, "longer"),
            (&hashes, "count as three"),
        ] {
            let error = check(bad).expect_err(bad).to_string();
            assert!(error.contains(said), "{error}");
        }
        for good in ["a", "...", ".hidden", "a b.txt", "ä-水.pdf", "a#1", "%2e%2e", "~", "C:", "-rf", "*?[]{}|<>\"'"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn no_two_names_stand_in_one_place() {
        let names = ["a#1", "a%231", "a%25231", "a"];
        let stored: std::collections::BTreeSet<String> = names.iter().map(|n| stored(n).expect("allowed")).collect();
        assert_eq!(stored.len(), names.len());
    }

    #[test]
    fn a_type_comes_from_the_name() {
        assert_eq!(content_type_of("a.PDF"), "application/pdf");
        assert_eq!(content_type_of("no-ending"), "application/octet-stream");
    }
}
