//! The header Content-Disposition of a part, read as the form parsers of Python read it: names in any case, values with
//! or without quotes, `filename*`, and Windows paths cut to their last name.

/// The name of a part, and of its file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disposition {
    /// The name of the part.
    pub name: Option<String>,
    /// The name of its file; `filename` rather than `filename*`.
    pub file_name: Option<String>,
}

impl Disposition {
    /// Reads the header.
    pub fn parse(header: &[u8]) -> Self {
        let text = String::from_utf8_lossy(header);
        let (mut found, mut extended) = (Self::default(), None);
        for parameter in split(&text).into_iter().skip(1) {
            let Some((key, value)) = parameter.split_once('=') else { continue };
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "name" => found.name = Some(unquoted(value)),
                "filename" => found.file_name = Some(unquoted(without_windows_path(value))),
                "filename*" => extended = decoded(value),
                _ => {}
            }
        }
        found.file_name = found.file_name.or(extended);
        found
    }
}

/// The parts between semicolons that are not in quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// `"C:\folder\a.wav"` without its folders, as very old browsers send it.
fn without_windows_path(value: &str) -> &str {
    let inner = value.trim_matches('"');
    let is_path = inner.get(1..3) == Some(":\\") || inner.starts_with("\\\\");
    if is_path { inner.rsplit('\\').next().unwrap_or(inner) } else { value }
}

/// A value without its quotes; within them `\"` and `\\` are escapes.
fn unquoted(value: &str) -> String {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\\", "\u{0}").replace("\\\"", "\"").replace('\u{0}', "\\"),
        None => value.to_owned(),
    }
}

/// `charset'language'percent-encoded` (RFC 8187).
fn decoded(value: &str) -> Option<String> {
    let value = unquoted(value);
    let mut parts = value.splitn(3, '\'');
    let (charset, _, text) = (parts.next()?, parts.next()?, parts.next()?);
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    Some(match charset.to_ascii_lowercase().as_str() {
        "iso-8859-1" | "latin-1" | "latin1" => bytes.into_iter().map(char::from).collect(),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_in_every_way_that_clients_do() {
        for (header, name) in [
            (r#"form-data; name="file"; filename="a.wav""#, "a.wav"),
            ("form-data; name=file; filename=a.wav", "a.wav"),
            (r#"Form-Data; Name="file"; FileName="a.wav""#, "a.wav"),
            (r#"form-data ;name = "file" ; filename = "a.wav""#, "a.wav"),
            ("form-data; name=\"file\"; filename*=utf-8''%D1%84.wav", "ф.wav"),
            ("form-data; name=\"file\"; filename*=iso-8859-1'en'%E9.wav", "é.wav"),
            ("form-data; name=\"file\"; filename*=UTF-8''100%.wav", "100%.wav"),
            ("form-data; name=\"file\"; filename*=utf-8''%D1%84; filename=\"x.wav\"", "x.wav"),
            (r#"form-data; name="file"; filename="/storage/rec/a.wav""#, "/storage/rec/a.wav"),
            (r#"form-data; name="file"; filename="C:\rec\a.wav""#, "a.wav"),
            (r#"form-data; name="file"; filename="..\a.wav""#, r"..\a.wav"),
            (r#"form-data; name="file"; filename="a\"b;c.wav""#, "a\"b;c.wav"),
            (r#"attachment; name="file"; filename="ф.wav""#, "ф.wav"),
            (r#"form-data; name="file"; filename="""#, ""),
        ] {
            let parsed = Disposition::parse(header.as_bytes());
            let expected = Disposition { name: Some("file".into()), file_name: Some(name.into()) };
            assert_eq!(parsed, expected, "{header}");
        }
        for header in ["", "form-data", "form-data; filename", "form-data; filename*=x"] {
            assert_eq!(Disposition::parse(header.as_bytes()), Disposition::default(), "{header}");
        }
    }
}
