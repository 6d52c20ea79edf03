//! Fonts: which characters a string shows, and how wide they are.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use hayro_cmap::{BfString, CMap, CMapName, CidFamily, load_embedded};
use hayro_font::{CMapResolverFn, Font, FontCache, FontGlyph, FontQuery, FontResolverFn, StandardFont};
use hayro_syntax::object::{Array, Dict, Name, Object, ObjectIdentifier, String as Bytes};

use super::Refusal;
use super::document::Document;
use super::stream;

/// The fonts of a document.
pub(super) struct Fonts<'a> {
    document: &'a Document,
    cache: FontCache<'a>,
    programs: FontResolverFn,
    maps: CMapResolverFn,
    by_object: HashMap<ObjectIdentifier, Rc<Face<'a>>>,
}

/// A font, ready to read strings.
pub(super) struct Face<'a> {
    font: Font<'a>,
    /// Whether codes have any length, and are mapped by [`Composite`].
    composite: Option<Composite>,
}

/// What a composite font says of its characters without a `ToUnicode` map.
#[derive(Default)]
struct Composite {
    /// From codes to the characters of a collection.
    encoding: Option<CMap>,
    /// From the characters of a collection to Unicode.
    to_unicode: Option<CMap>,
    /// Whether the codes are Unicode: the `ToUnicode` map is the name of an identity.
    is_unicode: bool,
}

/// One character of a string.
pub(super) struct Shown {
    pub text: String,
    /// How far it moves the pen, in thousandths of the font size: rightwards, or downwards in vertical writing.
    pub advance: f64,
    /// Whether it is the single byte 32, to which word spacing applies.
    pub is_space_code: bool,
}

impl<'a> Fonts<'a> {
    pub fn new(document: &'a Document) -> Self {
        let programs: FontResolverFn = Arc::new(|query| match query {
            FontQuery::Standard(font) => Some(font.get_font_data()),
            FontQuery::Fallback(query) => Some(query.pick_standard_font().get_font_data()),
        });
        let maps: CMapResolverFn = Arc::new(load_embedded);
        Self { document, cache: FontCache::new(), programs, maps, by_object: HashMap::new() }
    }

    /// The font used where one is missing or none is selected.
    pub fn fallback(&self) -> Result<Rc<Face<'a>>, Refusal> {
        let font = self.cache.standard_font(StandardFont::Helvetica, &self.programs);
        let font = font.ok_or_else(|| Refusal::Broken("the standard font cannot be read".to_owned()))?;
        Ok(Rc::new(Face { font, composite: None }))
    }

    /// The font of this name in the resources.
    pub fn named(&mut self, resources: &Dict<'a>, name: &[u8]) -> Result<Rc<Face<'a>>, Refusal> {
        let Some(fonts) = self.document.dict(resources, "Font")? else { return self.fallback() };
        self.entry(&fonts, name, &String::from_utf8_lossy(name))
    }

    /// The font that is the value of a key; `shown` is its name in errors.
    fn entry(&mut self, fonts: &Dict<'a>, key: &[u8], shown: &str) -> Result<Rc<Face<'a>>, Refusal> {
        let id = fonts.get_ref(key).map(ObjectIdentifier::from);
        if let Some(face) = id.and_then(|id| self.by_object.get(&id)) {
            return Ok(Rc::clone(face));
        }
        let face = match self.document.get(fonts, key)? {
            Some(Object::Dict(dict)) => self.load(&dict, shown)?,
            None | Some(Object::Null(_)) => self.fallback()?,
            Some(_) => return Err(Refusal::Broken(format!("the font {shown} is not a font"))),
        };
        if let Some(id) = id {
            self.by_object.insert(id, Rc::clone(&face));
        }
        Ok(face)
    }

    /// The font of a graphics state, from its array of font and size.
    pub fn of_array(&mut self, array: &Array<'a>) -> Result<Option<Rc<Face<'a>>>, Refusal> {
        let Some(dict) = array.iter::<Object<'a>>().next().and_then(Object::into_dict) else { return Ok(None) };
        self.load(&dict, "of a graphics state").map(Some)
    }

    fn load(&self, dict: &Dict<'a>, shown: &str) -> Result<Rc<Face<'a>>, Refusal> {
        let refused = |reason: &str| Refusal::Broken(format!("the font {shown} cannot be read: {reason}"));
        let map = self.document.get(dict, "ToUnicode")?;
        if let Some(Object::Stream(map)) = &map {
            stream::unpack(map).map_err(|refusal| match refusal {
                Refusal::Broken(reason) => refused(&reason),
                refusal => refusal,
            })?;
        }
        let is_composite = dict.get::<Name<'_>>("Subtype").is_some_and(|subtype| subtype.as_ref() == b"Type0");
        let composite = is_composite.then(|| self.composite(dict, map.as_ref()));
        match self.cache.font(dict, &self.programs, &self.maps) {
            Some(font) => Ok(Rc::new(Face { font, composite })),
            None if is_composite => Err(refused(&self.fault(dict))),
            // Of a kind that does not exist, or with ranges that make no sense: all readers show it in another font.
            None => self.fallback(),
        }
    }

    fn composite(&self, dict: &Dict<'a>, map: Option<&Object<'a>>) -> Composite {
        let is_unicode = matches!(map, Some(Object::Name(name)) if name.as_ref().starts_with(b"Identity"));
        let encoding = match dict.get::<Object<'_>>("Encoding") {
            Some(Object::Name(name)) => match CMapName::from_bytes(name.as_ref()) {
                CMapName::IdentityH => Some(CMap::identity_h()),
                CMapName::IdentityV => Some(CMap::identity_v()),
                name => load_embedded(name).and_then(|data| CMap::parse(data, load_embedded)),
            },
            Some(Object::Stream(map)) => stream::unpack(&map).ok().and_then(|data| CMap::parse(&data, load_embedded)),
            _ => None,
        };
        let of_encoding = encoding.as_ref().and_then(|encoding| encoding.metadata().character_collection.clone());
        let family = of_encoding
            .map(|collection| collection.family)
            .filter(|family| family.ucs2_cmap().is_some())
            .or_else(|| self.collection(dict));
        let to_unicode = family
            .and_then(|family| family.ucs2_cmap())
            .and_then(load_embedded)
            .and_then(|data| CMap::parse(data, load_embedded));
        Composite { encoding, to_unicode, is_unicode }
    }

    /// The collection of characters that the font says it uses.
    fn collection(&self, dict: &Dict<'a>) -> Option<CidFamily> {
        let descendant = dict.get::<Array<'_>>("DescendantFonts")?.iter::<Dict<'_>>().next()?;
        let info = descendant.get::<Dict<'_>>("CIDSystemInfo")?;
        let (registry, ordering) = (info.get::<Bytes<'_>>("Registry")?, info.get::<Bytes<'_>>("Ordering")?);
        Some(CidFamily::from_registry_ordering(registry.as_bytes(), ordering.as_bytes()))
    }

    /// What is wrong with a composite font.
    fn fault(&self, dict: &Dict<'a>) -> String {
        match dict.get::<Object<'_>>("Encoding") {
            None => return "it has no encoding".to_owned(),
            Some(Object::Name(name)) => {
                let known = CMapName::from_bytes(name.as_ref());
                let is_identity = matches!(known, CMapName::IdentityH | CMapName::IdentityV);
                if !is_identity && load_embedded(known).is_none() {
                    return format!("its encoding {} is not known", name.as_str());
                }
            }
            Some(_) => {}
        }
        let descendants = dict.get::<Array<'_>>("DescendantFonts");
        if descendants.is_none_or(|fonts| fonts.iter::<Dict<'_>>().next().is_none()) {
            return "its descendant font is missing".to_owned();
        }
        "it is damaged".to_owned()
    }
}

impl Face<'_> {
    pub fn is_vertical(&self) -> bool {
        !self.font.is_horizontal()
    }

    /// The characters that a string shows.
    pub fn show(&self, string: &[u8], mut take: impl FnMut(Shown)) {
        let mut at = 0;
        while at < string.len() {
            let (code, length) = self.font.read_code(string, at);
            let length = length.max(1);
            let advance = self.font.code_advance(code);
            let advance = if self.is_vertical() { -advance.y } else { advance.x };
            let is_space_code = length == 1 && string[at] == b' ';
            at += length;
            take(Shown { text: self.unicode(code, length), advance, is_space_code });
        }
    }

    /// The text of a code. A code without a known character is U+FFFD, so that it is counted.
    fn unicode(&self, code: u32, length: usize) -> String {
        let known = match self.font.glyph(self.font.map_code(code), code) {
            FontGlyph::Outline(glyph) => glyph.as_unicode(),
            FontGlyph::Type3(glyph) => glyph.as_unicode(),
        };
        let guessed = || match &self.composite {
            Some(composite) => composite.unicode(code, length),
            // As other readers: an unnamed character of a simple font has the code of its ASCII character.
            None => char::from_u32(code).filter(|c| (' '..='~').contains(c)).map(BfString::Char),
        };
        match known.or_else(guessed) {
            Some(BfString::Char(character)) => readable(character),
            Some(BfString::String(text)) => text.chars().map(readable).collect(),
            None => char::REPLACEMENT_CHARACTER.to_string(),
        }
    }
}

impl Composite {
    fn unicode(&self, code: u32, length: usize) -> Option<BfString> {
        if self.is_unicode {
            return char::from_u32(code).map(BfString::Char);
        }
        let cid = self.encoding.as_ref()?.lookup_cid_code(code, u8::try_from(length).ok()?)?;
        let map = self.to_unicode.as_ref()?;
        let as_code = || (1..=4).find_map(|length| map.lookup_cid_code(cid, length)).and_then(char::from_u32);
        map.lookup_bf_string(cid).or_else(|| as_code().map(BfString::Char))
    }
}

/// A character as it is read: ligatures are their letters, a control character that moves the pen is a space.
fn readable(character: char) -> String {
    let letters = match character {
        '\u{fb00}' => "ff",
        '\u{fb01}' => "fi",
        '\u{fb02}' => "fl",
        '\u{fb03}' => "ffi",
        '\u{fb04}' => "ffl",
        '\u{fb05}' | '\u{fb06}' => "st",
        '\t' | '\n' | '\r' => " ",
        character if character.is_control() => "\u{fffd}",
        character => return character.to_string(),
    };
    letters.to_owned()
}
