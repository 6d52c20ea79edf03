//! The header Accept: which of an answer's forms the client prefers.
use axum::http::{HeaderMap, header};

use crate::stream::JSON_LINES;

/// Whether the client would rather have JSON Lines than JSON: it must name them, and not like JSON better.
pub fn wants_json_lines(headers: &HeaderMap) -> bool {
    let (mut lines, mut json, mut any) = (None, None, None);
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        let quality: f32 =
            quality.map_or(Some(1.0), |q| q.parse().ok()).filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
        match name.as_str() {
            JSON_LINES => lines = Some(quality),
            "application/json" => json = Some(quality),
            "application/*" | "*/*" => any = Some(any.map_or(quality, |known: f32| known.max(quality))),
            _ => {}
        }
    }
    match (lines, json, any) {
        (None, ..) => false,
        (Some(lines), Some(json), _) => lines > json,
        (Some(lines), None, any) => lines > 0.0 && lines >= any.unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_given_to_those_who_name_them() {
        for (accept, wanted) in [
            ("", false),
            ("*/*", false),
            ("application/json", false),
            ("application/x-ndjson", true),
            ("Application/X-NDJSON; q=0.5", true),
            ("application/x-ndjson, */*;q=0.1", true),
            ("application/x-ndjson, */*", true),
            ("application/x-ndjson;q=0", false),
            ("application/x-ndjson;q=0.2, */*", false),
            ("application/json, application/x-ndjson", false),
            ("application/json;q=0.5, application/x-ndjson", true),
            ("text/html, application/x-ndjson;q=nonsense", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(wants_json_lines(&headers), wanted, "{accept}");
        }
    }
}
