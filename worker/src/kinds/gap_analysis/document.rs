//! From what was fetched to the statements of a gap in it, and to what it refers to.
use std::time::{Duration, Instant};

use encoding_rs::Encoding;
use reqwest::Url;

use super::html;
use super::prose::Prose;
use crate::fetch::{FetchError, Fetched};
use crate::kinds::process_files::{PDF_SECONDS_MAX, ProcessError, content};

/// Where the beginning of an HTML page, and what it says of its encoding, is looked for, in bytes.
const HEAD_BYTES: usize = 1024;

/// What is kept of a document.
#[derive(Debug)]
pub(super) struct Document {
    /// Where it was found.
    pub url: Url,
    /// Sentences in which something is said to be unknown, in their order.
    pub statements: Vec<String>,
    /// What it refers to, by http or https, in its order.
    pub links: Vec<Url>,
}

/// Why a document was not read; the reason reads on from its URL.
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

/// Reads a document: PDF, HTML or plain text, told by its content; what the server calls it counts where that tells nothing.
/// Blocks. `should_stop` is asked often and ends it.
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

/// Whether it is HTML: by how it begins (as browsers look, https://mimesniff.spec.whatwg.org), or because the server says so of
/// what is text.
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
    let said = content_type.to_ascii_lowercase();
    begins || ((said.starts_with("text/html") || said.starts_with("application/xhtml+xml")) && !body.contains(&0))
}

/// The text of an HTML page: its byte order mark decides, then the server, then the page itself; else UTF-8 if it is that, and
/// Windows-1252 if not.
fn decoded(body: &[u8], content_type: &str) -> String {
    let head = String::from_utf8_lossy(&body[..body.len().min(HEAD_BYTES)]);
    let encoding = charset(content_type).or_else(|| charset(&head));
    let encoding = encoding.unwrap_or(match str::from_utf8(body) {
        Ok(_) => encoding_rs::UTF_8,
        Err(_) => encoding_rs::WINDOWS_1252,
    });
    encoding.decode(body).0.into_owned()
}

/// The encoding that follows `charset=`.
fn charset(text: &str) -> Option<&'static Encoding> {
    let text = text.to_ascii_lowercase();
    let label = text.split_once("charset=")?.1.trim_start_matches(['"', '\'', ' ']);
    let end = label.find(|c: char| !(c.is_ascii_alphanumeric() || "-_:.".contains(c))).unwrap_or(label.len());
    Encoding::for_label(&label.as_bytes()[..end])
}

/// Plain text, in the encoding the server names or the one it looks like.
fn plain(body: &[u8], content_type: &str, prose: &mut Prose) -> Result<(), String> {
    let plain = [encoding_rs::UTF_8, encoding_rs::WINDOWS_1252];
    match charset(content_type).filter(|encoding| !plain.contains(encoding)) {
        Some(encoding) => {
            let (text, _, is_damaged) = encoding.decode(body);
            if is_damaged || text.contains('\0') {
                return Err(format!("it is not {}, as the server says", encoding.name()));
            }
            text.chars().for_each(|character| prose.push(character));
            Ok(())
        }
        None => content::read_text(body, |character| prose.push(character)),
    }
}
