//! Runs the operators of a page that show text.

use std::rc::Rc;

use hayro_syntax::content::UntypedIter;
use hayro_syntax::object::{Dict, Name, Object, ObjectIdentifier, Rect, Stream, String as Bytes};

use super::Refusal;
use super::document::{Document, Page};
use super::font::{Face, Fonts};
use super::layout::{PageText, Place, Point};
use super::repair;
use super::stream::unpack;
use crate::kinds::process_files::text::Sink;

/// The maximum size of a page's content, in bytes, with forms counted each time they are drawn.
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often forms may be drawn on a page.
const FORMS_MAX: usize = 20_000;
/// How deep the graphics state may be saved within one stream.
const SAVED_MAX: usize = 10_000;
/// How deep forms may be nested. Real documents need 5.
const DEPTH_MAX: usize = 32;
/// The flags of an annotation that is not shown: hidden, and not to be viewed.
const HIDDEN: i32 = 1 << 1 | 1 << 5;
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

/// The graphics state, as far as text needs it.
#[derive(Clone)]
struct State<'a> {
    /// From user space to the page.
    matrix: Matrix,
    font: Option<Rc<Face<'a>>>,
    size: f64,
    character_spacing: f64,
    word_spacing: f64,
    /// Horizontal scaling, 1 if there is none.
    stretch: f64,
    leading: f64,
}

impl State<'_> {
    fn new() -> Self {
        let (character_spacing, word_spacing, leading) = (0.0, 0.0, 0.0);
        Self { matrix: UNIT, font: None, size: 1.0, character_spacing, word_spacing, stretch: 1.0, leading }
    }
}

type Matrix = [f64; 6];
const UNIT: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// The matrix that applies `first`, then `second`.
fn product(first: Matrix, second: Matrix) -> Matrix {
    let [a, b, c, d, e, f] = first;
    let [p, q, r, s, t, u] = second;
    [a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s, e * p + f * r + t, e * q + f * s + u]
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

/// Reading one stream of a page: its content, or a form.
struct Pen<'a> {
    state: State<'a>,
    saved: Vec<State<'a>>,
    text_matrix: Matrix,
    line_matrix: Matrix,
    marks: Vec<Option<Mark>>,
}

/// Marked content that has a text of its own instead of what is drawn.
struct Mark {
    text: String,
    place: Option<Place>,
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
            let Some(looks) = self.document.dict(&annotation, "AP")?.filter(|_| !is_hidden && !is_popup) else {
                continue;
            };
            let look = match (self.document.get(&looks, "N")?, annotation.get::<Name<'_>>("AS")) {
                (Some(Object::Dict(states)), Some(state)) => self.document.get(&states, &state)?,
                (look, _) => look,
            };
            let Some(Object::Stream(look)) = look else { continue };
            let corner =
                |dict: &Dict<'_>, key| dict.get::<Rect>(key).map_or((0.0, 0.0), |corners| (corners.x0, corners.y0));
            let (to, from) = (corner(&annotation, "Rect"), corner(look.dict(), "BBox"));
            let mut state = State::new();
            state.matrix = [1.0, 0.0, 0.0, 1.0, to.0 - from.0, to.1 - from.1];
            self.draw_form(&look, "of an annotation", &Dict::empty(), state)?;
        }
        Ok(())
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

impl Pen<'_> {
    /// Applies an operator that changes the state; one with wrong operands, or of another kind, does nothing.
    fn apply(&mut self, operator: &[u8], operands: &[&Object<'_>]) -> Result<(), Refusal> {
        let last = || operands.last().and_then(|operand| number(operand));
        match operator {
            b"q" if self.saved.len() == SAVED_MAX => {
                let reason = format!("it saves its graphics state more than {SAVED_MAX} times");
                return Err(Refusal::TooCostly(reason));
            }
            b"q" => self.saved.push(self.state.clone()),
            b"Q" => {
                if let Some(saved) = self.saved.pop() {
                    self.state = saved;
                }
            }
            b"cm" => {
                if let Some(matrix) = matrix(operands) {
                    self.state.matrix = product(matrix, self.state.matrix);
                }
            }
            b"BT" => (self.text_matrix, self.line_matrix) = (UNIT, UNIT),
            b"Tm" => {
                if let Some(matrix) = matrix(operands) {
                    (self.text_matrix, self.line_matrix) = (matrix, matrix);
                }
            }
            b"Td" | b"TD" => {
                if let [.., x, y] = operands
                    && let (Some(x), Some(y)) = (number(x), number(y))
                {
                    self.state.leading = if operator == b"TD" { -y } else { self.state.leading };
                    self.next_line(x, y);
                }
            }
            b"T*" => self.next_line(0.0, -self.state.leading),
            b"Tc" => self.state.character_spacing = last().unwrap_or(self.state.character_spacing),
            b"Tw" => self.state.word_spacing = last().unwrap_or(self.state.word_spacing),
            b"Tz" => self.state.stretch = last().map_or(self.state.stretch, |percent| percent / 100.0),
            b"TL" => self.state.leading = last().unwrap_or(self.state.leading),
            _ => {}
        }
        Ok(())
    }

    fn next_line(&mut self, x: f64, y: f64) {
        self.line_matrix = product([1.0, 0.0, 0.0, 1.0, x, y], self.line_matrix);
        self.text_matrix = self.line_matrix;
    }

    /// Moves the pen along the line, in units of text space.
    fn advance(&mut self, by: f64, is_vertical: bool) {
        let (x, y) = if is_vertical { (0.0, -by) } else { (by * self.state.stretch, 0.0) };
        self.text_matrix = product([1.0, 0.0, 0.0, 1.0, x, y], self.text_matrix);
    }

    /// Where the pen is on the page.
    fn place(&self) -> Point {
        let [.., x, y] = product(self.text_matrix, self.state.matrix);
        (x, y)
    }

    /// The place of what was drawn from `start` to the pen.
    fn line(&self, start: Point, is_vertical: bool) -> Place {
        let [a, b, c, d, ..] = product(self.text_matrix, self.state.matrix);
        let forwards = self.state.size.signum();
        let (x, y) =
            if is_vertical { (-c, -d) } else { (a * self.state.stretch.signum(), b * self.state.stretch.signum()) };
        let length = x.hypot(y).max(f64::MIN_POSITIVE);
        let along = (x / length * forwards, y / length * forwards);
        let size = self.state.size.abs() * (a * d - b * c).abs().sqrt();
        Place { start, end: self.place(), along, size }
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

fn number(operand: &Object<'_>) -> Option<f64> {
    match operand {
        Object::Number(number) => Some(number.as_f64()).filter(|number| number.is_finite()),
        _ => None,
    }
}

fn matrix(operands: &[&Object<'_>]) -> Option<Matrix> {
    let numbers: Vec<f64> = operands.iter().filter_map(|operand| number(operand)).collect();
    numbers.try_into().ok()
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
