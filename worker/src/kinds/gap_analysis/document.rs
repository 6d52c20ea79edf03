//! Extracts the statements of gaps, and the links, from a fetched document.
use encoding_rs::Encoding;
use leasehold::limits;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::html;
use super::prose::Prose;
use crate::fetch::FetchError;
use crate::kinds::process_files::content::{self, Refusal};
use crate::reader::ReadError;

/// How far into a document HTML tags and the encoding declared in them are searched for, in bytes.
const HEAD_BYTES: usize = 1024;

/// The statements and links of a document.
#[derive(Debug)]
pub(super) struct Document {
    /// Its URL after redirects.
    pub url: Url,
    /// The sentences that state a gap, in their order.
    pub statements: Vec<String>,
    /// Its http and https links, in their order.
    pub links: Vec<Url>,
}

/// Why a document was not read. The text follows the URL.
#[derive(Debug)]
pub(super) struct Fault {
    pub reason: String,
    pub is_retryable: bool,
}

impl Fault {
    pub fn for_good(reason: String) -> Self {
        Self { reason, is_retryable: false }
    }
}

impl From<FetchError> for Fault {
    fn from(error: FetchError) -> Self {
        Self { reason: error.to_string(), is_retryable: error.is_retryable() }
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self { reason: format!("cannot be read: {error}"), is_retryable: error.is_retryable() }
    }
}

/// Reads a document of any content, as the fuzzers do.
pub(crate) fn read_any(body: Vec<u8>, content_type: &str) {
    drop(read(body, content_type));
}

/// What the reader finds in a document.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Extract {
    statements: Vec<String>,
    /// As written, relative to `base` if there is one, else to the document's URL.
    links: Vec<String>,
    base: Option<String>,
}

impl Extract {
    /// As the document at this URL.
    pub fn at(self, url: Url) -> Document {
        let base = self.base.and_then(|base| url.join(&base).ok()).unwrap_or_else(|| url.clone());
        let links = self.links.iter().filter_map(|link| base.join(link).ok());
        let links = links.filter(|link| matches!(link.scheme(), "http" | "https")).collect();
        Document { url, statements: self.statements, links }
    }
}

/// Reads a document: PDF, HTML or plain text, detected by its content, or by the content type where that is ambiguous.
/// The error follows the URL; the document is unreadable for good.
pub(super) fn read(body: Vec<u8>, content_type: &str) -> Result<Extract, String> {
    let mut prose = Prose::of_lines();
    let (mut links, mut base) = (Vec::new(), None);
    if content::is_pdf(&body) {
        content::read_pdf(body, &mut prose, &mut |_| {}).map_err(|refusal| match refusal {
            Refusal::Encrypted => "cannot be read: the PDF is encrypted and needs a password".to_owned(),
            Refusal::Broken(reason) => format!("cannot be read: the PDF is damaged: {reason}"),
            Refusal::TooCostly(reason) => format!("cannot be read: the PDF asks for too much memory: {reason}"),
        })?;
    } else if is_html(&body, content_type) {
        prose = Prose::of_markup();
        base = html::read(&decoded(&body, content_type), &mut prose, &mut links);
    } else {
        plain(&body, content_type, &mut prose).map_err(|reason| format!("is neither HTML, text nor PDF: {reason}"))?;
    }
    let (statements, urls) = prose.finish();
    // In text a link is a whole URL; in a page it is a tag.
    links.extend(urls.into_iter().filter(|url| Url::parse(url).is_ok()));
    links.retain(|link| link.len() <= limits::URL_BYTES_MAX);
    base = base.filter(|base| base.len() <= limits::URL_BYTES_MAX);
    Ok(Extract { statements, links, base })
}

/// Whether it is HTML: by its beginning (as browsers do, https://mimesniff.spec.whatwg.org), or by the content type if
/// it is text.
fn is_html(body: &[u8], content_type: &str) -> bool {
    let wide = wide(body);
    let head = &body[..body.len().min(HEAD_BYTES)];
    let head = wide.unwrap_or(encoding_rs::UTF_8).decode(head).0.to_ascii_lowercase();
    let head = head.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n', '\u{c}']);
    let tags = [
        "!doctype html",
        "html",
        "head",
        "body",
        "title",
        "meta",
        "script",
        "style",
        "div",
        "p",
        "h1",
        "a",
        "table",
        "br",
    ];
    let begins = head.strip_prefix('<').is_some_and(|rest| {
        let after = |tag: &&str| {
            rest.strip_prefix(*tag).is_some_and(|rest| rest.starts_with([' ', '>', '\n', '\r', '\t', '/']))
        };
        rest.starts_with("!--") || tags.iter().any(after) || (rest.starts_with("?xml") && rest.contains("<html"))
    });
    let declared = content_type.to_ascii_lowercase();
    begins
        || ((declared.starts_with("text/html") || declared.starts_with("application/xhtml+xml"))
            && (wide.is_some() || !body.contains(&0) || is_wide(content_type)))
}

/// UTF-16, by its byte order mark or by the form that a first `<` has in it.
fn wide(body: &[u8]) -> Option<&'static Encoding> {
    match body {
        [0xFF, 0xFE, ..] | [b'<', 0, ..] => Some(encoding_rs::UTF_16LE),
        [0xFE, 0xFF, ..] | [0, b'<', ..] => Some(encoding_rs::UTF_16BE),
        _ => None,
    }
}

/// Whether the server declares UTF-16.
fn is_wide(content_type: &str) -> bool {
    charset(content_type).is_some_and(|encoding| [encoding_rs::UTF_16LE, encoding_rs::UTF_16BE].contains(&encoding))
}

/// The text of an HTML page, in the encoding given by its byte order mark, the content type or the page itself, in this
/// order; otherwise UTF-8 if valid, else Windows-1252. A page whose tags can be read byte by byte is not UTF-16, even
/// if it says so.
fn decoded(body: &[u8], content_type: &str) -> String {
    let head = String::from_utf8_lossy(&body[..body.len().min(HEAD_BYTES)]);
    let declared = charset(&head).map(|encoding| encoding.output_encoding());
    let encoding = wide(body).or_else(|| charset(content_type)).or(declared);
    let encoding = encoding.unwrap_or(match str::from_utf8(body) {
        Ok(_) => encoding_rs::UTF_8,
        Err(_) => encoding_rs::WINDOWS_1252,
    });
    encoding.decode(body).0.into_owned()
}

/// The encoding named after `charset=`.
fn charset(text: &str) -> Option<&'static Encoding> {
    let text = text.to_ascii_lowercase();
    let label = text.split_once("charset=")?.1.trim_start_matches(['"', '\'', ' ']);
    let end = label.find(|c: char| !(c.is_ascii_alphanumeric() || "-_:.".contains(c))).unwrap_or(label.len());
    Encoding::for_label(&label.as_bytes()[..end])
}

/// Reads plain text, in the encoding of the content type, otherwise in a detected one.
fn plain(body: &[u8], content_type: &str, prose: &mut Prose) -> Result<(), String> {
    let plain = [encoding_rs::UTF_8, encoding_rs::WINDOWS_1252];
    match charset(content_type).filter(|encoding| !plain.contains(encoding)) {
        Some(encoding) => {
            let (text, _, is_damaged) = encoding.decode(body);
            if is_damaged || text.contains('\0') {
                return Err(format!("it is not in {}, the encoding that the server declares", encoding.name()));
            }
            text.chars().for_each(|character| prose.push(character));
            Ok(())
        }
        None => content::read_text(body, |character| prose.push(character)),
    }
}
