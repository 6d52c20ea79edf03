//! Points in time, by Redis's clock.
use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the Unix epoch, UTC; in JSON an RFC 3339 string with milliseconds and `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads RFC 3339 with any offset.
    ///
    /// # Errors
    /// A sentence with an example.
    pub fn parse(text: &str) -> Result<Self, String> {
        DateTime::parse_from_rfc3339(text)
            .map(|t| Self(t.timestamp_millis()))
            .map_err(|e| format!("{text:?} is not an RFC 3339 time such as 2026-11-22T06:00:00.000Z ({e})"))
    }
}

/// Reads a time in any of the forms that SQLite, Python and JavaScript write, as microseconds since 1970: ISO 8601 with
/// or without a zone (without one it is UTC), the dates of `asctime`, of mail and of `Date`, or a number: a Julian day,
/// or the seconds, milliseconds, microseconds or nanoseconds since 1970, by its size. `None`: it is not a time.
pub fn foreign(value: &serde_json::Value) -> Option<i64> {
    match value {
        serde_json::Value::Number(number) => of_number(number.as_f64()?),
        serde_json::Value::String(text) => of_text(text.trim()).or_else(|| of_number(text.trim().parse().ok()?)),
        _ => None,
    }
}

fn of_number(number: f64) -> Option<i64> {
    /// Of the days that SQLite counts, those of the years 1858 to 2132; as seconds they would be in January 1970.
    const JULIAN_DAYS: std::ops::Range<f64> = 2_400_000.5..2_500_000.0;
    const JULIAN_DAY_OF_1970: f64 = 2_440_587.5;
    if JULIAN_DAYS.contains(&number) {
        // A day has more microseconds than a float of that size has digits: milliseconds are what SQLite keeps.
        return Some(((number - JULIAN_DAY_OF_1970) * 86_400_000.0).round() as i64 * 1_000);
    }
    let in_seconds = match number {
        n if !(0.0..1e20).contains(&n) => return None,
        n if n < 1e11 => n,
        n if n < 1e14 => n / 1e3,
        n if n < 1e17 => n / 1e6,
        n => n / 1e9,
    };
    Some((in_seconds * 1e6).round() as i64)
}

fn of_text(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc2822(text) {
        return Some(time.timestamp_micros());
    }
    // `Date.toString()` ends with the name of the zone.
    let text = text.split_once(" (").map_or(text, |(time, _)| time);
    let utc = ["Z", "z", " UTC", " GMT"].iter().find_map(|zone| text.strip_suffix(zone)).map(str::trim_end);
    for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y%m%dT%H%M%S%.f", "%a %b %e %H:%M:%S %Y"] {
        // With a comma before the fraction, too, as Python's logging writes it.
        let plain = |text: &str| match text.as_bytes().get(10) {
            Some(b' ' | b't') if text.starts_with(|c: char| c.is_ascii_digit()) => {
                format!("{}T{}", &text[..10], text[11..].replacen(',', ".", 1))
            }
            _ => text.replacen(',', ".", 1),
        };
        if let Ok(time) = NaiveDateTime::parse_from_str(&plain(utc.unwrap_or(text)), form) {
            return Some(time.and_utc().timestamp_micros());
        }
        for zone in ["%#z", " %#z"] {
            if let Ok(time) = DateTime::parse_from_str(&plain(text), &format!("{form}{zone}")) {
                return Some(time.timestamp_micros());
            }
        }
    }
    if let Ok(time) = DateTime::parse_from_str(text, "%a %b %d %Y %H:%M:%S GMT%z") {
        return Some(time.timestamp_micros());
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros())
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(t) => f.write_str(&t.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads RFC 3339, or ms as the scripts write them.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl serde::de::Visitor<'_> for Reader {
            type Value = Timestamp;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an RFC 3339 time, or ms since 1970")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
            fn visit_i64<E>(self, ms: i64) -> Result<Timestamp, E> {
                Ok(Timestamp(ms))
            }
            fn visit_u64<E: serde::de::Error>(self, ms: u64) -> Result<Timestamp, E> {
                i64::try_from(ms).map(Timestamp).map_err(E::custom)
            }
            fn visit_f64<E>(self, ms: f64) -> Result<Timestamp, E> {
                Ok(Timestamp(ms as i64))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_other_programs_are_read() {
        use serde_json::json;
        const NOON: i64 = 1_704_110_400_000_000;
        for (value, micros) in [
            (json!("2024-01-01T12:00:00"), NOON),
            (json!("2024-01-01 12:00:00"), NOON),
            (json!("2024-01-01 12:00"), NOON),
            (json!("2024-01-01 12:00:00.123"), NOON + 123_000),
            (json!("2024-01-01 12:00:00,123"), NOON + 123_000),
            (json!("2024-01-01T12:00:00.123456"), NOON + 123_456),
            (json!("2024-01-01T12:00:00.123456789"), NOON + 123_456),
            (json!("2024-01-01T12:00:00Z"), NOON),
            (json!("2024-01-01T12:00:00.5Z"), NOON + 500_000),
            (json!("2024-01-01 12:00:00Z"), NOON),
            (json!("2024-01-01 12:00:00 UTC"), NOON),
            (json!("2024-01-01T13:00:00+01:00"), NOON),
            (json!("2024-01-01 12:00:00.25+00:00"), NOON + 250_000),
            (json!("2024-01-01T17:30:00+0530"), NOON),
            (json!("2024-01-01 10:00:00 -0200"), NOON),
            (json!("2024-01-01 12:00:00+00"), NOON),
            (json!("2024-01-01T13:00+01:00"), NOON),
            (json!("20240101T120000Z"), NOON),
            (json!("Mon Jan  1 12:00:00 2024"), NOON),
            (json!("Mon, 01 Jan 2024 12:00:00 GMT"), NOON),
            (json!("Mon, 01 Jan 2024 13:00:00 +0100"), NOON),
            (json!("Mon Jan 01 2024 13:00:00 GMT+0100 (Central European Standard Time)"), NOON),
            (json!("2024-01-01"), NOON - 43_200_000_000),
            (json!(1_704_110_400), NOON),
            (json!(1_704_110_400.25), NOON + 250_000),
            (json!("1704110400.5"), NOON + 500_000),
            (json!(1_704_110_400_123_i64), NOON + 123_000),
            (json!(1_704_110_400_123_456_i64), NOON + 123_456),
            (json!(1_704_110_400_000_000_000_i64), NOON),
            (json!(2_460_311.0), NOON),
        ] {
            assert_eq!(foreign(&value), Some(micros), "{value}");
        }
        for value in [json!("yesterday"), json!(""), json!(-5), json!(1e300), json!(null), json!([1]), json!("12:00")] {
            assert_eq!(foreign(&value), None, "{value}");
        }
    }

    #[test]
    fn a_time_reads_back_to_the_millisecond() {
        let t = Timestamp(1_732_255_200_007);
        assert_eq!(t.to_string(), "2024-11-22T06:00:00.007Z");
        assert_eq!(Timestamp::parse("2024-11-22T07:00:00.007+01:00"), Ok(t));
        assert!(Timestamp::parse("2024-11-22").is_err());
    }
}
