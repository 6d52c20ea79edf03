//! PDF: reads a file's pages and text, with safeguards around the PDF library.
//!
//! `pdf-extract` panics on unsupported features and on much malformed input, some of it in good documents: a colour
//! space, an image drawn as a form. So it gets each page alone, reduced to its text (see [`page`]), and its panics are
//! caught and kept off stderr. A page that cannot be read fails the document: a count that silently omits text would be
//! worse.

use pdf_extract::{
    Document, LoadOptions, Object, ObjectId, OutputDev, OutputError, Stream, Transform, output_doc_page,
};

use super::text::{self, Sink};
use super::unpack::{self, Refusal};
use super::{ProcessError, open, page};
use crate::panics;

/// How far from the start the header of a PDF may be, in bytes, as in other PDF readers.
const HEADER_BYTES: usize = 1024;
const MAGIC: &[u8] = b"%PDF-";

/// Whether this is a PDF by its content. A text that only mentions the header within a line is not one.
pub(in crate::kinds) fn is_pdf(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(HEADER_BYTES)];
    match head.windows(MAGIC.len()).position(|window| window == MAGIC) {
        None => false,
        Some(0) => true,
        Some(at) => matches!(head[at - 1], b'\n' | b'\r') || text::count(bytes).is_err(),
    }
}

/// Reads a PDF's text into `sink` and returns its number of pages. `should_stop` is called once per piece of text and
/// ends it; `progress` gets the fraction done, from 0 to 1, after each page.
pub(in crate::kinds) fn read(
    file: &str,
    bytes: &[u8],
    should_stop: &dyn Fn() -> bool,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(f64),
) -> Result<u64, ProcessError> {
    let refused = |refusal: Refusal, at: Option<usize>| refusal.into_error(open::shown(file), at);
    let (mut document, pages) = quietly(|| load(bytes)).map_err(|refusal| refused(refusal, None))?;
    for (index, id) in pages.iter().enumerate() {
        let mut page_text =
            PageText { sink: &mut *sink, should_stop, end: (0.0, 0.0), at_start: true, piece_begins: true };
        quietly(|| read_page(&mut document, *id, &mut page_text))
            .map_err(|refusal| refused(refusal, Some(index + 1)))?;
        sink.end_page();
        progress((index + 1) as f64 / pages.len() as f64);
    }
    Ok(pages.len() as u64)
}

/// The document, decrypted if the empty password suffices, and its pages in order.
fn load(bytes: &[u8]) -> Result<(Document, Vec<ObjectId>), Refusal> {
    unpack::clear_refusal();
    let options = LoadOptions { filter: Some(unpack::admit), ..LoadOptions::default() };
    let mut document = Document::load_mem_with_options(bytes, options)?;
    unpack::take_refusal()?;
    if document.is_encrypted() {
        document.decrypt("").map_err(|_| Refusal::Encrypted)?;
    }
    unpack::check_streams(&mut document)?;
    let pages: Vec<ObjectId> = document.page_iter().collect();
    let promised = document
        .catalog()
        .and_then(|catalog| catalog.get_deref(b"Pages", &document))
        .and_then(|root| root.as_dict()?.get_deref(b"Count", &document)?.as_i64());
    match promised {
        _ if pages.is_empty() => Err(Refusal::Broken("it has no pages".to_owned())),
        Ok(promised) if promised > pages.len() as i64 => {
            Err(Refusal::Broken(format!("only {} of its {promised} pages can be found", pages.len())))
        }
        _ => Ok((document, pages)),
    }
}

/// Reads one page with the library: the rewritten page, alone in the tree, so that finding it costs the same in any
/// document.
fn read_page(document: &mut Document, id: ObjectId, page_text: &mut PageText<'_>) -> Result<(), Refusal> {
    if (page_text.should_stop)() {
        return Err(Refusal::OutOfTime);
    }
    let (content, resources) = page::text_only(document, id)?;
    let content = document.add_object(Stream::new(Default::default(), content));
    let mut page = pdf_extract::Dictionary::new();
    page.set("Type", "Page");
    page.set("MediaBox", vec![Object::from(0), Object::from(0), Object::from(612), Object::from(792)]);
    page.set("Resources", resources);
    page.set("Contents", content);
    let page = document.add_object(page);
    let root = document.catalog()?.get(b"Pages")?.as_reference()?;
    let tree = document.get_dictionary_mut(root)?;
    tree.set("Kids", vec![Object::Reference(page)]);
    let read = output_doc_page(document, page_text, 1);
    document.objects.remove(&content);
    document.objects.remove(&page);
    read.map_err(|error| match error {
        OutputError::FormatError(_) => Refusal::OutOfTime,
        error => Refusal::Broken(error.to_string()),
    })
}

/// Collects the characters of a page, with a space or a line end at each gap. Gaps are measured along and across the
/// baseline, in any direction of the text.
struct PageText<'a> {
    sink: &'a mut dyn Sink,
    should_stop: &'a dyn Fn() -> bool,
    /// Where the last character ended, in the page's units.
    end: (f64, f64),
    at_start: bool,
    piece_begins: bool,
}

impl OutputDev for PageText<'_> {
    fn begin_page(
        &mut self,
        _: u32,
        _: &pdf_extract::MediaBox,
        _: Option<(f64, f64, f64, f64)>,
    ) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_page(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn output_character(
        &mut self,
        at: &Transform,
        width: f64,
        _: f64,
        size: f64,
        text: &str,
    ) -> Result<(), OutputError> {
        let stretch = at.m11.hypot(at.m12);
        let (right, up) = (at.m11 / stretch, at.m12 / stretch);
        let size = (size * (at.m11 * at.m22 - at.m12 * at.m21).abs().sqrt()).abs();
        if self.piece_begins && !self.at_start {
            let (x, y) = (at.m31 - self.end.0, at.m32 - self.end.1);
            let (along, across) = (x * right + y * up, (y * right - x * up).abs());
            if across > size * 1.5 || (across > size * 0.5 && along < 0.0) {
                self.sink.push('\n');
            } else if along > size * 0.1 || along < -size {
                self.sink.push(' ');
            }
        }
        text.chars().for_each(|character| self.sink.push(character));
        self.end = (at.m31 + right * width * size, at.m32 + up * width * size);
        (self.at_start, self.piece_begins) = (false, false);
        Ok(())
    }

    fn begin_word(&mut self) -> Result<(), OutputError> {
        self.piece_begins = true;
        if (self.should_stop)() { Err(std::fmt::Error.into()) } else { Ok(()) }
    }

    fn end_word(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

/// Runs `work`, turning a panic in it into a refusal.
fn quietly<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    panics::quietly(work).unwrap_or_else(|panic| Err(Refusal::Broken(format!("the PDF library failed: {panic}"))))
}
