//! Extracts the statements of gaps, and the links, from a fetched document.
use std::time::{Duration, Instant};

use encoding_rs::Encoding;
use reqwest::Url;

use super::html;
use super::prose::Prose;
use crate::fetch::{FetchError, Fetched};
use crate::kinds::process_files::{PDF_SECONDS_MAX, ProcessError, content};

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

    pub fn for_now(reason: String) -> Self {
        Self { reason, is_retryable: true }
    }
}

impl From<FetchError> for Fault {
    fn from(error: FetchError) -> Self {
        Self { reason: error.to_string(), is_retryable: error.is_retryable() }
    }
}

impl From<ProcessError> for Fault {
    fn from(error: ProcessError) -> Self {
        Self { reason: format!("cannot be read: {error}"), is_retryable: error.is_retryable() }
    }
}

/// Reads a document of any content, as the fuzzers do.
pub(crate) fn read_any(body: Vec<u8>, content_type: &str) {
    let url = Url::parse("http://example.org/a/b").expect("it is a URL");
    drop(read(Fetched { url, content_type: content_type.into(), body }, &|| false));
}

/// Reads a document: PDF, HTML or plain text, detected by its content, or by the content type where that is ambiguous.
/// Blocks. `should_stop` is called often and ends it.
pub(super) fn read(fetched: Fetched, should_stop: &dyn Fn() -> bool) -> Result<Document, Fault> {
    let deadline = Instant::now() + Duration::from_secs(PDF_SECONDS_MAX);
    let should_stop = || should_stop() || Instant::now() > deadline;
    let Fetched { url, content_type, body } = fetched;
    let mut prose;
    let mut links = Vec::new();
    if content::is_pdf(&body) {
        prose = Prose::of_lines();
        content::read_pdf("the document", &body, &should_stop, &mut prose, &mut |_| {})?;
    } else if is_html(&body, &content_type) {
        prose = Prose::of_markup();
        let base = html::read(&decoded(&body, &content_type), &should_stop, &mut prose, &mut links)
            .map_err(|reason| Fault::for_now(format!("cannot be read: {reason}")))?;
        let base = base.and_then(|base| url.join(&base).ok()).unwrap_or_else(|| url.clone());
        let links = links.iter().filter_map(|link| base.join(link).ok());
        let (statements, _) = prose.finish();
        return Ok(Document { statements, links: http_links(links), url });
    } else {
        prose = Prose::of_lines();
        plain(&body, &content_type, &mut prose)
            .map_err(|reason| Fault::for_good(format!("is neither HTML, text nor PDF: {reason}")))?;
    }
    let (statements, urls) = prose.finish();
    let links = urls.iter().filter_map(|url| Url::parse(url).ok());
    Ok(Document { statements, links: http_links(links), url })
}

fn http_links(links: impl Iterator<Item = Url>) -> Vec<Url> {
    links.filter(|link| matches!(link.scheme(), "http" | "https")).collect()
}

/// Whether it is HTML: by its beginning (as browsers do, https://mimesniff.spec.whatwg.org), or by the content type if
/// it is text.
fn is_html(body: &[u8], content_type: &str) -> bool {
    let head = String::from_utf8_lossy(&body[..body.len().min(HEAD_BYTES)]).to_ascii_lowercase();
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
        || ((declared.starts_with("text/html") || declared.starts_with("application/xhtml+xml")) && !body.contains(&0))
}

/// The text of an HTML page, in the encoding given by its byte order mark, the content type or the page itself, in this
/// order; otherwise UTF-8 if valid, else Windows-1252.
fn decoded(body: &[u8], content_type: &str) -> String {
    let head = String::from_utf8_lossy(&body[..body.len().min(HEAD_BYTES)]);
    let encoding = charset(content_type).or_else(|| charset(&head));
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
