//! Runs the operators of a page that show text.

use std::rc::Rc;

use hayro_syntax::content::UntypedIter;
use hayro_syntax::object::{Dict, Name, Object, ObjectIdentifier, Rect, Stream, String as Bytes};

use super::Refusal;
use super::document::{Document, Page};
use super::font::{Face, Fonts};
use super::layout::{PageText, Place, Point};
use super::pen::{Mark, Pen, State, UNIT, number, product};
use super::repair;
use super::stream::unpack;
use crate::kinds::process_files::text::Sink;

/// The maximum size of a page's content, in bytes, with forms counted each time they are drawn.
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often forms may be drawn on a page.
const FORMS_MAX: usize = 20_000;
/// How deep forms may be nested. Real documents need 5.
const DEPTH_MAX: usize = 32;
/// The flags of an annotation that is not shown: hidden, and not to be viewed.
const HIDDEN: i32 = 1 << 1 | 1 << 5;
/// The size of the text in a field that does not say what it looks like.
const FIELD_SIZE: f64 = 10.0;
/// An operator behind each content: where it is not reached, the content could not be parsed.
const END: &[u8] = b"LeaseholdEnd";

/// Reads the pages of one document.
pub(super) struct Reader<'a> {
    document: &'a Document,
    fonts: Fonts<'a>,
}

impl<'a> Reader<'a> {
    pub fn new(document: &'a Document) -> Self {
        Self { document, fonts: Fonts::new(document) }
    }

    /// Reads one page's text into `sink`.
    pub fn read_page(&mut self, page: &Page<'a>, sink: &mut dyn Sink) -> Result<(), Refusal> {
        let mut content = Vec::new();
        for part in self.document.contents(&page.dict)? {
            content.extend_from_slice(&unpack(&part)?);
            content.push(b'\n');
            bounded(content.len())?;
        }
        let mut text = PageText::new(sink);
        let mut run = Run {
            document: self.document,
            fonts: &mut self.fonts,
            text: &mut text,
            bytes: 0,
            forms: 0,
            drawn: Vec::new(),
        };
        run.content(content, &page.resources, State::new())?;
        run.annotations(&page.dict)?;
        text.finish();
        Ok(())
    }
}

/// Reading one page.
struct Run<'r, 'a, 's> {
    document: &'a Document,
    fonts: &'r mut Fonts<'a>,
    text: &'r mut PageText<'s>,
    bytes: usize,
    forms: usize,
    /// The forms being drawn, the innermost last.
    drawn: Vec<ObjectIdentifier>,
}

impl<'a> Run<'_, 'a, '_> {
    /// Runs a content; once more without what cannot be parsed, if there is such.
    fn content(&mut self, mut content: Vec<u8>, resources: &Dict<'a>, state: State<'a>) -> Result<(), Refusal> {
        self.bytes += content.len();
        bounded(self.bytes)?;
        content.push(b'\n');
        content.extend_from_slice(END);
        if !is_parsed_to_the_end(&content) {
            let broken = || Refusal::Broken("its content cannot be parsed to the end".to_owned());
            content = repair::without_stray_delimiters(&content).ok_or_else(broken)?;
            if !is_parsed_to_the_end(&content) {
                return Err(broken());
            }
        }
        self.operations(&content, resources, state)
    }

    fn operations(&mut self, content: &[u8], resources: &Dict<'a>, state: State<'a>) -> Result<(), Refusal> {
        let mut pen = Pen { state, saved: Vec::new(), text_matrix: UNIT, line_matrix: UNIT, marks: Vec::new() };
        let mut operations = UntypedIter::new(content);
        while let Some(operation) = operations.next() {
            let operator: &[u8] = operation.operator;
            let operands: Vec<&Object<'_>> = operation.operands().collect();
            match operator {
                b"Do" => self.draw(&operands, resources, &pen)?,
                b"Tf" => self.select_font(&operands, resources, &mut pen)?,
                b"gs" => self.set_state(&operands, resources, &mut pen)?,
                b"Tj" => self.show(&operands, &mut pen)?,
                b"TJ" => self.show_spaced(&operands, &mut pen)?,
                b"'" => {
                    pen.next_line(0.0, -pen.state.leading);
                    self.show(&operands, &mut pen)?;
                }
                b"\"" => {
                    if let [word, character, _] = operands[..] {
                        pen.state.word_spacing = number(word).unwrap_or(pen.state.word_spacing);
                        pen.state.character_spacing = number(character).unwrap_or(pen.state.character_spacing);
                    }
                    pen.next_line(0.0, -pen.state.leading);
                    self.show(&operands, &mut pen)?;
                }
                b"BMC" => pen.marks.push(None),
                b"BDC" => {
                    let mark = self.mark(&operands, resources)?;
                    pen.marks.push(mark);
                }
                b"EMC" => self.end_mark(&mut pen),
                _ => pen.apply(operator, &operands)?,
            }
        }
        Ok(())
    }

    /// Draws what the annotations of a page look like: above all what a form's fields were filled in with.
    fn annotations(&mut self, page: &Dict<'a>) -> Result<(), Refusal> {
        let Some(Object::Array(annotations)) = self.document.get(page, "Annots")? else { return Ok(()) };
        for annotation in annotations.iter::<Dict<'a>>() {
            let is_hidden = annotation.get::<i32>("F").is_some_and(|flags| flags & HIDDEN != 0);
            let is_popup = annotation.get::<Name<'_>>("Subtype").is_some_and(|kind| kind.as_ref() == b"Popup");
            if is_hidden || is_popup {
                continue;
            }
            let looks = self.document.dict(&annotation, "AP")?.unwrap_or_default();
            let look = match (self.document.get(&looks, "N")?, annotation.get::<Name<'_>>("AS")) {
                (Some(Object::Dict(states)), Some(state)) => self.document.get(&states, &state)?,
                (look, _) => look,
            };
            let corner =
                |dict: &Dict<'_>, key| dict.get::<Rect>(key).map_or((0.0, 0.0), |corners| (corners.x0, corners.y0));
            let to = corner(&annotation, "Rect");
            let Some(Object::Stream(look)) = look else {
                self.field(&annotation, to);
                continue;
            };
            let from = corner(look.dict(), "BBox");
            let mut state = State::new();
            state.matrix = [1.0, 0.0, 0.0, 1.0, to.0 - from.0, to.1 - from.1];
            self.draw_form(&look, "of an annotation", &Dict::empty(), state)?;
        }
        Ok(())
    }

    /// Shows the value of a field that does not say what it looks like, as a program that fills in a form may leave it.
    fn field(&mut self, annotation: &Dict<'a>, at: Point) {
        let parent = annotation.get::<Dict<'_>>("Parent").unwrap_or_default();
        let is_text =
            |dict: &Dict<'_>| dict.get::<Name<'_>>("FT").is_some_and(|kind| matches!(kind.as_ref(), b"Tx" | b"Ch"));
        let value = annotation.get::<Bytes<'_>>("V").or_else(|| parent.get::<Bytes<'_>>("V"));
        if let Some(value) = value.filter(|_| is_text(annotation) || is_text(&parent)) {
            let text = decoded(value.as_bytes());
            self.text.push(&text, Place { start: at, end: at, along: (1.0, 0.0), size: FIELD_SIZE }, true);
        }
    }

    /// Draws a form: its content with the page's or its own resources.
    fn draw(&mut self, operands: &[&Object<'_>], resources: &Dict<'a>, pen: &Pen<'a>) -> Result<(), Refusal> {
        let Some(Object::Name(name)) = operands.last() else { return Ok(()) };
        let Some(drawings) = self.document.dict(resources, "XObject")? else { return Ok(()) };
        let is_image = |dict: &Dict<'_>| dict.get::<Name<'_>>("Subtype").is_some_and(|kind| kind.as_ref() != b"Form");
        let form = match self.document.get(&drawings, name)? {
            Some(Object::Stream(form)) if !is_image(form.dict()) => form,
            Some(Object::Stream(_) | Object::Null(_)) | None => return Ok(()),
            Some(_) => return Err(Refusal::Broken(format!("form {}: it is not a stream", name.as_str()))),
        };
        self.draw_form(&form, name.as_str(), resources, pen.state.clone())
    }

    /// `shown` is the form's name in errors.
    fn draw_form(
        &mut self,
        form: &Stream<'a>,
        shown: &str,
        resources: &Dict<'a>,
        mut state: State<'a>,
    ) -> Result<(), Refusal> {
        // A form within itself: all readers leave it out there.
        if self.drawn.contains(&form.obj_id()) {
            return Ok(());
        }
        self.forms += 1;
        if self.drawn.len() == DEPTH_MAX {
            return Err(Refusal::TooCostly(format!("its forms are nested more than {DEPTH_MAX} levels deep")));
        }
        if self.forms > FORMS_MAX {
            return Err(Refusal::TooCostly(format!("it draws more than {FORMS_MAX} forms")));
        }
        let shown = |refusal| match refusal {
            Refusal::Broken(reason) => Refusal::Broken(format!("form {shown}: {reason}")),
            refusal => refusal,
        };
        if let Some(matrix) = form.dict().get::<[f64; 6]>("Matrix") {
            state.matrix = product(matrix, state.matrix);
        }
        let own = self.document.dict(form.dict(), "Resources").map_err(shown)?;
        let content = unpack(form).map_err(shown)?.into_owned();
        self.drawn.push(form.obj_id());
        let ran = self.content(content, own.as_ref().unwrap_or(resources), state).map_err(shown);
        self.drawn.pop();
        ran
    }

    fn select_font(
        &mut self,
        operands: &[&Object<'_>],
        resources: &Dict<'a>,
        pen: &mut Pen<'a>,
    ) -> Result<(), Refusal> {
        let [.., Object::Name(name), size] = operands else { return Ok(()) };
        let Some(size) = number(size) else { return Ok(()) };
        pen.state.size = size;
        pen.state.font = Some(self.fonts.named(resources, name)?);
        Ok(())
    }

    fn set_state(&mut self, operands: &[&Object<'_>], resources: &Dict<'a>, pen: &mut Pen<'a>) -> Result<(), Refusal> {
        let Some(Object::Name(name)) = operands.last() else { return Ok(()) };
        let Some(states) = self.document.dict(resources, "ExtGState")? else { return Ok(()) };
        let Some(state) = self.document.dict(&states, name)? else { return Ok(()) };
        if let Some(Object::Array(font)) = self.document.get(&state, "Font")?
            && let Some(face) = self.fonts.of_array(&font)?
        {
            pen.state.font = Some(face);
            let size = font.iter::<Object<'_>>().nth(1);
            pen.state.size = size.and_then(|size| number(&size)).unwrap_or(pen.state.size);
        }
        Ok(())
    }

    fn show(&mut self, operands: &[&Object<'_>], pen: &mut Pen<'a>) -> Result<(), Refusal> {
        match operands.last() {
            Some(Object::String(string)) => self.show_string(string.as_bytes(), pen),
            _ => Ok(()),
        }
    }

    fn show_spaced(&mut self, operands: &[&Object<'_>], pen: &mut Pen<'a>) -> Result<(), Refusal> {
        let Some(Object::Array(parts)) = operands.last() else { return Ok(()) };
        for part in parts.iter::<Object<'_>>() {
            match part {
                Object::String(string) => self.show_string(string.as_bytes(), pen)?,
                Object::Number(back) => {
                    let face = self.face(pen)?;
                    pen.advance(-back.as_f64() / 1000.0 * pen.state.size, face.is_vertical());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn face(&self, pen: &mut Pen<'a>) -> Result<Rc<Face<'a>>, Refusal> {
        if pen.state.font.is_none() {
            pen.state.font = Some(self.fonts.fallback()?);
        }
        Ok(Rc::clone(pen.state.font.as_ref().expect("just set")))
    }

    fn show_string(&mut self, string: &[u8], pen: &mut Pen<'a>) -> Result<(), Refusal> {
        let face = self.face(pen)?;
        let is_vertical = face.is_vertical();
        let mut may_jump = true;
        face.show(string, |shown| {
            let start = pen.place();
            let spacing = pen.state.character_spacing + if shown.is_space_code { pen.state.word_spacing } else { 0.0 };
            pen.advance(shown.advance / 1000.0 * pen.state.size + spacing, is_vertical);
            let place = pen.line(start, is_vertical);
            match pen.marks.iter_mut().flatten().next() {
                Some(mark) => {
                    mark.place = Some(Place { start: mark.place.map_or(place.start, |first| first.start), ..place })
                }
                None => {
                    self.text.push(&shown.text, place, may_jump);
                    may_jump = false;
                }
            }
        });
        Ok(())
    }

    /// The text of a marked content, if it has one.
    fn mark(&self, operands: &[&Object<'_>], resources: &Dict<'a>) -> Result<Option<Mark>, Refusal> {
        let text = match operands.last() {
            Some(Object::Dict(properties)) => {
                properties.get::<Bytes<'_>>("ActualText").map(|text| decoded(text.as_bytes()))
            }
            Some(Object::Name(name)) => {
                let properties = self.document.dict(resources, "Properties")?;
                let properties = match properties {
                    Some(all) => self.document.dict(&all, name)?,
                    None => None,
                };
                properties.and_then(|own| own.get::<Bytes<'_>>("ActualText")).map(|text| decoded(text.as_bytes()))
            }
            _ => None,
        };
        Ok(text.map(|text| Mark { text, place: None }))
    }

    fn end_mark(&mut self, pen: &mut Pen<'a>) {
        let Some(Some(mark)) = pen.marks.pop() else { return };
        let is_outermost = pen.marks.iter().all(Option::is_none);
        if let (true, Some(place)) = (is_outermost, mark.place) {
            self.text.push(&mark.text, place, true);
        }
    }
}

/// Whether the operator at the end is reached.
fn is_parsed_to_the_end(content: &[u8]) -> bool {
    let mut operations = UntypedIter::new(content);
    let mut is_reached = false;
    while let Some(operation) = operations.next() {
        let operator: &[u8] = operation.operator;
        is_reached = operator == END;
    }
    is_reached
}

fn bounded(page_bytes: usize) -> Result<(), Refusal> {
    if page_bytes > PAGE_BYTES_MAX {
        return Err(Refusal::TooCostly(format!("its content is larger than {} MiB", PAGE_BYTES_MAX / 1024 / 1024)));
    }
    Ok(())
}

/// A text string of the format: UTF-16 or UTF-8 with a mark, otherwise nearly Latin-1.
fn decoded(bytes: &[u8]) -> String {
    match bytes {
        [0xFE, 0xFF, rest @ ..] => {
            let units = rest.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair));
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}
