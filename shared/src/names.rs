//! The names used in keys and routes. Each is checked once, where it enters.
use std::fmt;

use serde::{Deserialize, Serialize};

/// An invalid name, and the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not allowed: {rule}")]
pub struct InvalidName {
    what: &'static str,
    given: String,
    rule: &'static str,
}

const LABEL_RULE: &str = "1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit";
const ID_RULE: &str = "1 to 64 of A-Z a-z 0-9 _ -";

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=64).contains(&bytes.len())
        && (bytes[0].is_ascii_lowercase() || bytes[0].is_ascii_digit())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident, $rule:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against the alphabet of this name.
            ///
            /// # Errors
            /// [`InvalidName`] says what is allowed.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                if $check(text) {
                    return Ok(Self(text.to_owned()));
                }
                let given = text.chars().take(80).collect();
                Err(InvalidName { what: $what, given, rule: $rule })
            }

            /// The name as used in keys.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name!(
    /// A job's id: a UUIDv7 for new jobs; imported jobs keep the id of their old store.
    JobId, "job id", is_id, ID_RULE
);
name!(
    /// The kind of work; names its handler.
    Kind, "kind", is_label, LABEL_RULE
);
name!(
    /// A queue in which jobs wait.
    QueueName, "queue", is_label, LABEL_RULE
);
name!(
    /// A schedule.
    ScheduleName, "schedule", is_label, LABEL_RULE
);
name!(
    /// The id of one run of a worker process; never reused.
    WorkerId, "worker id", is_id, ID_RULE
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_keeps_to_its_alphabet() {
        for good in ["a", "0", "word-count", "a.b_c-9", &"x".repeat(64)] {
            assert!(Kind::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "A", "a b", "a:b", "ä", "a\n", &"x".repeat(65)] {
            assert!(Kind::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_says_what_it_may_be() {
        assert!(JobId::parse("batch-7d87a3dc").is_ok());
        let error = JobId::parse("a/b").expect_err("a slash is not allowed").to_string();
        assert!(error.contains("a/b") && error.contains("1 to 64"), "{error}");
    }
}
