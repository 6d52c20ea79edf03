//! The header Accept: which form of an answer the client prefers.
use axum::http::{HeaderMap, header};

use crate::stream::{JSON, JSON_LINES};

const HTML: &str = "text/html";

/// Whether the client prefers JSON Lines to JSON: it must name them, and not prefer JSON.
pub fn wants_json_lines(headers: &HeaderMap) -> bool {
    prefers(headers, JSON_LINES)
}

/// Whether the client prefers a page to JSON, as a browser does.
pub fn wants_html(headers: &HeaderMap) -> bool {
    prefers(headers, HTML)
}

/// Whether the client names `wanted` and does not prefer JSON to it.
fn prefers(headers: &HeaderMap, wanted: &str) -> bool {
    let (mut named, mut json, mut any) = (None, None, None);
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        let quality: f32 =
            quality.map_or(Some(1.0), |q| q.parse().ok()).filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
        match name.as_str() {
            name if name == wanted => named = Some(quality),
            JSON => json = Some(quality),
            "application/*" | "*/*" => any = Some(any.map_or(quality, |known: f32| known.max(quality))),
            _ => {}
        }
    }
    match (named, json, any) {
        (None, ..) => false,
        (Some(named), Some(json), _) => named > json,
        (Some(named), None, any) => named > 0.0 && named >= any.unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        headers
    }

    #[test]
    fn lines_are_sent_to_clients_that_name_them() {
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
            assert_eq!(wants_json_lines(&accepting(accept)), wanted, "{accept}");
        }
    }

    #[test]
    fn a_page_is_sent_to_browsers() {
        for (accept, wanted) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", true),
            ("text/html", true),
            ("*/*", false),
            ("application/json", false),
            ("application/json, text/html", false),
            ("application/json, text/html;q=0.9", false),
        ] {
            assert_eq!(wants_html(&accepting(accept)), wanted, "{accept}");
        }
    }
}
