//! Durations of a kinds file, in ms or as text with a unit.
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::duration;

/// A duration as text with a unit, in ms.
pub(super) struct Text(u64);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Units;
        impl Visitor<'_> for Units {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with a unit, as in \"60s\"; for a number of ms use the name that ends in _ms")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                duration::parse_ms(text).map(Text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Units)
    }
}

/// The value of a duration that may be written in two ways.
pub(super) fn either(name: &str, ms: Option<u64>, text: Option<Text>) -> Result<Option<u64>, String> {
    match (ms, text) {
        (Some(_), Some(_)) => Err(format!("{name} and {name}_ms are the same setting; write one of them")),
        (ms, text) => Ok(ms.or(text.map(|Text(ms)| ms))),
    }
}
