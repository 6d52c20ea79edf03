//! Rewrites a page of a PDF to what its text needs: fonts, positions and strings, with its forms expanded in place.
//!
//! It also bounds a page's bytes of content and the depth of its forms.

use std::sync::LazyLock;

use pdf_extract::content::{Content, Operation};
use pdf_extract::{Dictionary, Document, Object, ObjectId, StringFormat};

use super::unpack::{Refusal, unpacked};

/// The maximum size of a page's content, in bytes, with forms counted each time they are drawn. Parsed into operations
/// it needs 100 to 300 times as much memory, a gigabyte at worst; a page full of text has some 20 KiB.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How deep the graphics state may be saved within one stream: the library keeps a copy for each level.
const SAVED_MAX: usize = 256;
/// How deep forms may be nested, and how many levels up a page may inherit from. Real documents need 5.
const DEPTH_MAX: usize = 32;

/// The content of a page reduced to its text, and the resources it needs.
pub(super) fn text_only(document: &Document, page: ObjectId) -> Result<(Vec<u8>, Dictionary), Refusal> {
    let resources = inherited_resources(document, page)?;
    let mut content = Vec::new();
    for id in document.get_page_contents(page) {
        content.extend_from_slice(&unpacked(document.get_object(id)?.as_stream()?)?);
        content.push(b'\n');
        bounded(content.len())?;
    }
    let mut layout = Layout { document, fonts: Dictionary::new(), text: Vec::new(), bytes_read: 0 };
    let fallback = layout.fallback_font();
    layout.emit("Tf", vec![fallback, Object::Integer(1)])?;
    layout.lay_out(&content, resources, 0)?;
    let mut needed = Dictionary::new();
    needed.set("Font", layout.fonts);
    Ok((layout.text, needed))
}

/// A page being rewritten: the content kept so far, and the fonts it uses.
struct Layout<'a> {
    document: &'a Document,
    fonts: Dictionary,
    text: Vec<u8>,
    bytes_read: usize,
}

impl<'a> Layout<'a> {
    fn emit(&mut self, operator: &str, operands: Vec<Object>) -> Result<(), Refusal> {
        self.text.extend(Content { operations: [Operation::new(operator, operands)] }.encode()?);
        self.text.push(b'\n');
        Ok(())
    }

    /// Keeps the operations of a content stream that have the form which `pdf-extract` relies on.
    fn lay_out(&mut self, content: &[u8], resources: &'a Dictionary, depth: usize) -> Result<(), Refusal> {
        self.bytes_read += content.len();
        bounded(self.bytes_read)?;
        let mut saved = 0_usize;
        for Operation { operator, mut operands } in Content::decode_strict(content)?.operations {
            let numbers = operands.iter().all(|operand| operand.as_float().is_ok());
            operands.iter_mut().for_each(as_hexadecimal);
            match (operator.as_str(), operands.as_slice()) {
                ("BT" | "ET" | "T*", _) => self.emit(&operator, Vec::new())?,
                ("q", _) if saved == SAVED_MAX => {
                    return Err(Refusal::TooCostly(format!(
                        "it saves the graphics state more than {SAVED_MAX} levels deep"
                    )));
                }
                ("q", _) => {
                    saved += 1;
                    self.emit("q", Vec::new())?;
                }
                ("Q", _) if saved > 0 => {
                    saved -= 1;
                    self.emit("Q", Vec::new())?;
                }
                ("cm" | "Tm", [_, _, _, _, _, _]) | ("Td" | "TD", [_, _]) | ("Tc" | "Tw" | "Tz" | "TL" | "Ts", [_])
                    if numbers =>
                {
                    self.emit(&operator, operands)?;
                }
                ("Tj", [Object::String(..)]) | ("TJ", [Object::Array(_)]) => self.emit(&operator, operands)?,
                ("'", [text @ Object::String(..)]) => self.next_line(text)?,
                ("\"", [word, character, text @ Object::String(..)])
                    if word.as_float().is_ok() && character.as_float().is_ok() =>
                {
                    self.emit("Tw", vec![word.clone()])?;
                    self.emit("Tc", vec![character.clone()])?;
                    self.next_line(text)?;
                }
                ("Tf", [Object::Name(name), size]) if size.as_float().is_ok() => {
                    let font = self.font(resources, name);
                    self.emit("Tf", vec![font, size.clone()])?;
                }
                ("Do", [Object::Name(name)]) => self.draw(resources, name, depth)?,
                _ => {}
            }
        }
        (0..saved).try_for_each(|_| self.emit("Q", Vec::new()))
    }

    fn next_line(&mut self, text: &Object) -> Result<(), Refusal> {
        self.emit("T*", Vec::new())?;
        self.emit("Tj", vec![text.clone()])
    }

    /// Expands a form where it is drawn. Images, drawn the same way, have been emptied on loading.
    fn draw(&mut self, resources: &'a Dictionary, name: &[u8], depth: usize) -> Result<(), Refusal> {
        let drawn = resource(self.document, resources, b"XObject", name);
        let Some(form) = drawn.and_then(|object| object.as_stream().ok()) else {
            return Ok(());
        };
        if depth == DEPTH_MAX {
            return Err(Refusal::TooCostly(format!("its forms are nested more than {DEPTH_MAX} levels deep")));
        }
        let own = form.dict.get_deref(b"Resources", self.document).and_then(Object::as_dict);
        self.emit("q", Vec::new())?;
        if let Ok(matrix) = form.dict.get_deref(b"Matrix", self.document).and_then(Object::as_array)
            && matrix.len() == 6
            && matrix.iter().all(|number| number.as_float().is_ok())
        {
            self.emit("cm", matrix.clone())?;
        }
        self.lay_out(&unpacked(form)?, own.unwrap_or(resources), depth + 1)?;
        self.emit("Q", Vec::new())
    }

    /// The name of a font on the rewritten page: unique for every font, since two forms may use one name for two fonts.
    fn font(&mut self, resources: &Dictionary, name: &[u8]) -> Object {
        let fonts = resources.get_deref(b"Font", self.document).and_then(Object::as_dict);
        match fonts.and_then(|fonts| fonts.get(name)) {
            Ok(Object::Reference(id)) if self.document.get_dictionary(*id).is_ok() => {
                let name = format!("F{}-{}", id.0, id.1);
                self.fonts.set(name.as_bytes(), Object::Reference(*id));
                Object::Name(name.into_bytes())
            }
            Ok(Object::Dictionary(font)) => {
                let known = self.fonts.iter().find(|(_, other)| other.as_dict().is_ok_and(|other| other == font));
                let name =
                    known.map_or_else(|| format!("D{}", self.fonts.len()).into_bytes(), |(name, _)| name.clone());
                self.fonts.set(name.as_slice(), Object::Dictionary(font.clone()));
                Object::Name(name)
            }
            _ => self.fallback_font(),
        }
    }

    /// The font used where one is missing or none is selected.
    fn fallback_font(&mut self) -> Object {
        let mut font = Dictionary::new();
        for (key, value) in [("Type", "Font"), ("Subtype", "Type1"), ("BaseFont", "Helvetica")] {
            font.set(key, value);
        }
        self.fonts.set("Fallback", font);
        Object::from("Fallback")
    }
}

/// Strings are written in hexadecimal: the library escapes the other form in quadratic time.
fn as_hexadecimal(operand: &mut Object) {
    match operand {
        Object::String(_, format) => *format = StringFormat::Hexadecimal,
        Object::Array(elements) => elements.iter_mut().for_each(as_hexadecimal),
        _ => {}
    }
}

fn resource<'a>(document: &'a Document, resources: &'a Dictionary, class: &[u8], name: &[u8]) -> Option<&'a Object> {
    resources.get_deref(class, document).ok()?.as_dict().ok()?.get_deref(name, document).ok()
}

/// A page's resources, its own or those of the nearest ancestor that has some.
fn inherited_resources(document: &Document, page: ObjectId) -> Result<&Dictionary, Refusal> {
    static NONE: LazyLock<Dictionary> = LazyLock::new(Dictionary::new);
    let mut node = document.get_dictionary(page)?;
    for _ in 0..DEPTH_MAX {
        if let Ok(resources) = node.get_deref(b"Resources", document).and_then(Object::as_dict) {
            return Ok(resources);
        }
        match node.get_deref(b"Parent", document).and_then(Object::as_dict) {
            Ok(parent) => node = parent,
            Err(_) => break,
        }
    }
    Ok(&NONE)
}

fn bounded(page_bytes: usize) -> Result<(), Refusal> {
    if page_bytes > PAGE_BYTES_MAX {
        return Err(Refusal::TooCostly(format!("its content is larger than {} MiB", PAGE_BYTES_MAX / 1024 / 1024)));
    }
    Ok(())
}
