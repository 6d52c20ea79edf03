//! Syntax checks of the URLs in submissions; whether one may be fetched is the worker's decision.
use std::str::FromStr;

use serde::Serialize;

/// Maximum size of a URL, in bytes; many servers refuse longer ones.
const BYTES_MAX: usize = 8 << 10;

/// An `http` or `https` URL with a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct WebUrl(String);

impl FromStr for WebUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = || text.chars().take(80).collect::<String>();
        if text.len() > BYTES_MAX {
            return Err(format!("{} bytes; at most {BYTES_MAX} are allowed", text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("{:?} contains white space; percent-encode it", shown()));
        }
        let scheme = text
            .split_once("://")
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"));
        let Some((_, rest)) = scheme else {
            return Err(format!("{:?} is not an http or https URL; write https://host/path", shown()));
        };
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if host.is_empty() || host.starts_with(':') {
            return Err(format!("{:?} has no host; write https://host/path", shown()));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_of_the_web_and_a_host() {
        for good in
            ["https://a.org/x.pdf?q=1#p", "HTTP://127.0.0.1:8080", "http://[::1]/", "https://u:p@h", "https://ü.de/ä"]
        {
            assert!(good.parse::<WebUrl>().is_ok(), "{good}");
        }
        for (bad, said) in [
            ("", "not an http"),
            ("ftp://a.org/", "not an http"),
            ("file:///etc/passwd", "not an http"),
            ("a.org/x", "not an http"),
            ("javascript:alert(1)", "not an http"),
            ("https://", "no host"),
            ("https:///x", "no host"),
            ("http://:80/", "no host"),
            ("http://u@/", "no host"),
            ("https://a.org/a b", "white space"),
            (&format!("https://a.org/{}", "x".repeat(9_000)), "at most"),
        ] {
            let error = bad.parse::<WebUrl>().expect_err(bad);
            assert!(error.contains(said), "{error}");
        }
    }
}
