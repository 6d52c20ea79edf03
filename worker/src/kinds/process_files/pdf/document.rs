//! The objects and the pages of a PDF.

use std::cell::RefCell;
use std::collections::HashSet;

use hayro_syntax::object::{Array, Dict, MaybeRef, Name, Number, Object, ObjectIdentifier, Stream};
use hayro_syntax::{DecryptionError, LoadPdfError, Pdf};

use super::Refusal;
use super::stream::{self, find};

/// Ends a last stream that was cut off; ignored behind a whole document.
const LAST_RESORT: &[u8] = b"\nendstream\nendobj\n";

/// A loaded document, decrypted if the empty password suffices.
pub(super) struct Document {
    pdf: Pdf,
    /// Whether the file's end, which says where everything is, was found.
    is_whole: bool,
    /// References to objects that the file does not have, which the format defines as null.
    absent: RefCell<HashSet<ObjectIdentifier>>,
}

/// A page, and its resources or those that it inherits.
pub(super) struct Page<'a> {
    pub dict: Dict<'a>,
    pub resources: Dict<'a>,
}

impl Document {
    pub fn open(mut bytes: Vec<u8>) -> Result<Self, Refusal> {
        let is_whole = find(&bytes, b"startxref").is_some();
        if count(&bytes, b"endstream") * 2 < count(&bytes, b"stream") {
            bytes.extend_from_slice(LAST_RESORT);
        }
        let pdf = Pdf::new(bytes).map_err(|error| match error {
            LoadPdfError::Decryption(DecryptionError::PasswordProtected) => Refusal::Encrypted,
            LoadPdfError::Decryption(DecryptionError::UnsupportedAlgorithm) => {
                Refusal::Broken("it is encrypted in a way that is not supported".to_owned())
            }
            LoadPdfError::Decryption(_) => Refusal::Broken("its encryption is damaged".to_owned()),
            LoadPdfError::Invalid => Refusal::Broken("it has no table of objects, or no pages".to_owned()),
        })?;
        Ok(Self { pdf, is_whole, absent: RefCell::default() })
    }

    /// The pages in order.
    pub fn pages(&self) -> Result<Vec<Page<'_>>, Refusal> {
        let lost = || Refusal::Broken("its page tree cannot be found".to_owned());
        let catalog = self.object(self.pdf.xref().root_id())?.and_then(Object::into_dict).ok_or_else(lost)?;
        let root = self.get(&catalog, "Pages")?.and_then(Object::into_dict).ok_or_else(lost)?;
        let promised = root.get::<Number>("Count").map(|count| count.as_i64());
        let mut seen: HashSet<ObjectIdentifier> = catalog.get_ref("Pages").map(Into::into).into_iter().collect();
        let mut pages = Vec::new();
        // Kids still to visit, the next one last, with the resources that they inherit.
        let mut open: Vec<(MaybeRef<Object<'_>>, Dict<'_>)> = Vec::new();
        self.push_kids(&root, Dict::empty(), &mut open)?;
        while let Some((kid, inherited)) = open.pop() {
            let node = match kid {
                // A node that is its own ancestor, or named twice, counts once.
                MaybeRef::Ref(id) if !seen.insert(id.into()) => continue,
                MaybeRef::Ref(id) => match self.object(id.into())? {
                    Some(Object::Dict(node)) => node,
                    _ => {
                        return Err(Refusal::Broken(format!(
                            "its page {} {} R is missing",
                            id.obj_number, id.gen_number
                        )));
                    }
                },
                MaybeRef::NotRef(Object::Dict(node)) => node,
                MaybeRef::NotRef(_) => continue,
            };
            if is_node(&node) {
                self.push_kids(&node, inherited, &mut open)?;
            } else {
                let resources = self.get(&node, "Resources")?.and_then(Object::into_dict).unwrap_or(inherited);
                pages.push(Page { dict: node, resources });
            }
        }
        match promised {
            _ if pages.is_empty() => Err(Refusal::Broken("it has no pages".to_owned())),
            Some(promised) if promised > pages.len() as i64 => {
                Err(Refusal::Broken(format!("only {} of its {promised} pages can be found", pages.len())))
            }
            _ => Ok(pages),
        }
    }

    fn push_kids<'a>(
        &'a self,
        node: &Dict<'a>,
        inherited: Dict<'a>,
        open: &mut Vec<(MaybeRef<Object<'a>>, Dict<'a>)>,
    ) -> Result<(), Refusal> {
        let resources = self.get(node, "Resources")?.and_then(Object::into_dict).unwrap_or(inherited);
        let Some(Object::Array(kids)) = self.get(node, "Kids")? else {
            return Err(Refusal::Broken("a part of its page tree cannot be read".to_owned()));
        };
        let at = open.len();
        open.extend(kids.raw_iter().map(|kid| (kid, resources.clone())));
        open[at..].reverse();
        Ok(())
    }

    /// The value of a key; `None` if there is none, or a reference to an object that the file does not have.
    ///
    /// # Errors
    /// The object is there but cannot be read.
    pub fn get<'a>(&'a self, dict: &Dict<'a>, key: impl AsRef<[u8]>) -> Result<Option<Object<'a>>, Refusal> {
        match dict.get_raw::<Object<'a>>(key) {
            Some(value) => self.value(value),
            None => Ok(None),
        }
    }

    /// As [`Document::get`], for a dictionary.
    pub fn dict<'a>(&'a self, dict: &Dict<'a>, key: impl AsRef<[u8]>) -> Result<Option<Dict<'a>>, Refusal> {
        Ok(self.get(dict, key)?.and_then(Object::into_dict))
    }

    /// The streams of a page's content.
    pub fn contents<'a>(&'a self, page: &Dict<'a>) -> Result<Vec<Stream<'a>>, Refusal> {
        match self.get(page, "Contents")? {
            Some(Object::Stream(stream)) => Ok(vec![stream]),
            Some(Object::Array(parts)) => self.streams(&parts),
            None | Some(Object::Null(_)) => Ok(Vec::new()),
            Some(_) => Err(Refusal::Broken("its content is not a stream".to_owned())),
        }
    }

    fn streams<'a>(&'a self, parts: &Array<'a>) -> Result<Vec<Stream<'a>>, Refusal> {
        let mut streams = Vec::new();
        for part in parts.raw_iter() {
            match self.value(part)? {
                Some(Object::Stream(stream)) => streams.push(stream),
                None | Some(Object::Null(_)) => {}
                Some(_) => return Err(Refusal::Broken("a part of its content is not a stream".to_owned())),
            }
        }
        Ok(streams)
    }

    fn value<'a>(&'a self, value: MaybeRef<Object<'a>>) -> Result<Option<Object<'a>>, Refusal> {
        match value {
            MaybeRef::Ref(id) => self.object(id.into()),
            MaybeRef::NotRef(value) => Ok(Some(value)),
        }
    }

    fn object(&self, id: ObjectIdentifier) -> Result<Option<Object<'_>>, Refusal> {
        let object = self.pdf.xref().get::<Object<'_>>(id);
        if object.is_none() && !self.absent.borrow().contains(&id) {
            self.check_absent(id)?;
            self.absent.borrow_mut().insert(id);
        }
        Ok(object)
    }

    /// Whether an object that was not found is really not in the file, and not damaged.
    fn check_absent(&self, id: ObjectIdentifier) -> Result<(), Refusal> {
        let shown = format!("object {} {}", id.obj_number, id.gen_number);
        if !self.is_whole {
            return Err(Refusal::Broken(format!("{shown} is missing, and so is the end of the file")));
        }
        let bytes = self.pdf.data().as_ref();
        let head = format!("{} {} obj", id.obj_number, id.gen_number);
        if is_defined(bytes, head.as_bytes()) {
            return Err(Refusal::Broken(format!("{shown} is damaged")));
        }
        // It may have been in a stream of objects.
        let mut rest = bytes;
        while let Some(at) = find(rest, b"/ObjStm") {
            let holder = owner(&bytes[..bytes.len() - rest.len() + at]);
            let stream = holder.and_then(|holder| self.pdf.xref().get::<Stream<'_>>(holder));
            let is_readable = stream.is_some_and(|stream| stream::unpack(&stream).is_ok());
            if !is_readable {
                return Err(Refusal::Broken(format!("{shown} is missing, and a stream of objects is damaged")));
            }
            rest = &rest[at + 1..];
        }
        Ok(())
    }
}

/// Whether a node of the page tree has kids, and is no page.
fn is_node(node: &Dict<'_>) -> bool {
    match node.get::<Name<'_>>("Type") {
        Some(kind) if kind.as_ref() == b"Pages" => true,
        Some(kind) if kind.as_ref() == b"Page" => false,
        _ => node.contains_key("Kids"),
    }
}

/// Whether an object with this head, such as `7 0 obj`, begins anywhere.
fn is_defined(bytes: &[u8], head: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = find(rest, head) {
        let start = bytes.len() - rest.len() + at;
        if start == 0 || !bytes[start - 1].is_ascii_digit() {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// The object whose text ends with these bytes.
fn owner(before: &[u8]) -> Option<ObjectIdentifier> {
    let at = before.windows(4).rposition(|window| window == b" obj")?;
    let mut words = before[..at].rsplit(|byte| byte.is_ascii_whitespace());
    let number = |word: &[u8]| str::from_utf8(word).ok()?.parse::<i32>().ok();
    let (generation, object) = (number(words.next()?)?, number(words.next()?)?);
    Some(ObjectIdentifier::new(u32::try_from(object).ok()?, generation))
}

fn count(bytes: &[u8], word: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, word).count()
}
