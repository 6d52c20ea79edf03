//! Human-readable durations: a whole number and a unit.
use std::time::Duration;

/// Reads `500ms`, `5s`, `2m` (or `2min`), `1h` or `7d`.
///
/// # Errors
/// A sentence with examples.
pub fn parse(text: &str) -> Result<Duration, String> {
    let advice =
        || format!("{text:?} is not a duration; write a whole number and a unit, as in 500ms, 5s, 2m, 1h or 7d");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| advice())?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(advice()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(advice)
}

/// [`parse`], in ms.
///
/// # Errors
/// [`parse`]'s.
pub fn parse_ms(text: &str) -> Result<u64, String> {
    // `parse` counts in ms, so the value fits.
    parse(text).map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        for (text, ms) in [("0s", 0), ("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5 s", "1.5s", "5S", "5sec", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(parse(text).is_err_and(|e| e.contains("500ms")), "{text}");
        }
    }
}
