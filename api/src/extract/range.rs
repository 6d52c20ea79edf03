//! The header Range: which part of a file is requested. Pure.
use axum::http::HeaderValue;

/// The requested part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// The whole file; also for headers that may be ignored (several ranges, another unit, malformed).
    Whole,
    /// Part of it, in bytes.
    Part(std::ops::Range<u64>),
    /// Nothing: the range begins beyond the end of the file.
    Beyond,
}

/// The part of a file of `bytes` bytes that a header requests.
pub fn requested(header: &HeaderValue, bytes: u64) -> Range {
    let read = || {
        let text = header.to_str().ok()?.trim();
        let (unit, range) = text.split_once('=')?;
        let (first, last) = range.split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes"))?;
        match (first.trim(), last.trim()) {
            ("", last) => {
                let length = number(last)?;
                Some((bytes.saturating_sub(length), if length == 0 { 0 } else { bytes }))
            }
            (first, "") => Some((number(first)?, bytes)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then(|| (first, bytes.min(last.saturating_add(1))))
            }
        }
    };
    match read() {
        None => Range::Whole,
        Some((first, end)) if first < end => Range::Part(first..end),
        Some(_) => Range::Beyond,
    }
}

/// A whole number; one too large for `u64` counts as its maximum.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_meant() {
        let of_ten = |text: &'static str| requested(&HeaderValue::from_static(text), 10);
        for (text, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-", 0..10),
            ("bytes=3-5", 3..6),
            ("Bytes = 3 - 500", 3..10),
            ("bytes=9-99999999999999999999999", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-300", 0..10),
        ] {
            assert_eq!(of_ten(text), Range::Part(part), "{text}");
        }
        for text in ["bytes=10-", "bytes=11-12", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(of_ten(text), Range::Beyond, "{text}");
        }
        for text in
            ["", "bytes", "bytes=", "bytes=-", "lines=1-2", "bytes=5-3", "bytes=0-1,3-4", "bytes=a-b", "bytes=+1-2"]
        {
            assert_eq!(of_ten(text), Range::Whole, "{text}");
        }
        assert_eq!(requested(&HeaderValue::from_static("bytes=0-"), 0), Range::Beyond);
    }
}
