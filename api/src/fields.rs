//! Reads a JSON object field by field, and collects every fault before anything is done.
mod json;

use std::fmt::Display;
use std::str::FromStr;

use leasehold::json::InvalidJson;
use leasehold::{Json, Limits, Timestamp};
use serde_json::value::RawValue;

use self::json::{elements, expected, members, sort, whole};
use crate::error::{Code, Problem};
use crate::fault::{Fault, Place};

/// Maximum number of fields of an object; no valid request has as many.
const FIELDS_MAX: usize = 64;
/// Maximum number of faults that are reported.
pub const FAULTS_MAX: usize = 50;

/// A JSON object that is being read.
pub struct Reader<'a> {
    at: String,
    left: Vec<(String, &'a RawValue)>,
    asked: Vec<&'static str>,
    faults: Vec<Fault>,
    lenient: bool,
}

impl<'a> Reader<'a> {
    /// Opens a body.
    ///
    /// # Errors
    /// A problem when the body is not valid JSON, or not an object.
    pub fn open(text: &'a str) -> Result<Self, Problem> {
        if text.trim_ascii().is_empty() {
            return Err(Problem::new(Code::InvalidJson, "the body is empty; send a JSON object"));
        }
        let raw: &RawValue = serde_json::from_str(text).map_err(malformed)?;
        Self::open_at(raw, String::new())
    }

    /// Opens a body as the frameworks of the old systems did: unknown fields are ignored, of a field that is given
    /// twice the last counts, and a number or a boolean may be written as a string.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_lenient(text: &'a str) -> Result<Self, Problem> {
        Self::open(text.strip_prefix('\u{feff}').unwrap_or(text)).map(Self::lenient)
    }

    /// Reads as [`Reader::open_lenient`] says.
    #[must_use]
    pub fn lenient(self) -> Self {
        Self { lenient: true, ..self }
    }

    /// Opens an object within a body, at the JSON pointer `at`.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_at(raw: &'a RawValue, at: String) -> Result<Self, Problem> {
        if sort(raw) != "an object" {
            return Err(Problem::invalid(vec![Fault::pointer(at, expected("an object", raw))]));
        }
        let (left, over) = members(raw, FIELDS_MAX).map_err(malformed)?;
        let mut reader = Self { at, left, asked: Vec::new(), faults: Vec::new(), lenient: false };
        if over {
            reader.fault("", format!("more than {FIELDS_MAX} fields"));
        }
        Ok(reader)
    }

    /// Records a fault of a field; an empty name means the object itself.
    pub fn fault(&mut self, field: &str, detail: impl Into<String>) {
        self.push(Fault::pointer(self.pointer(field), detail));
    }

    /// Whether a fault of that field has been recorded.
    pub fn is_faulty(&self, field: &str) -> bool {
        let pointer = self.pointer(field);
        self.faults.iter().any(|f| matches!(&f.place, Place::Pointer(at) if *at == pointer))
    }

    fn push(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn pointer(&self, field: &str) -> String {
        if field.is_empty() {
            return self.at.clone();
        }
        format!("{}/{}", self.at, field.replace('~', "~0").replace('/', "~1"))
    }

    /// Finishes reading.
    ///
    /// # Errors
    /// A problem with every fault, unknown fields among them.
    pub fn finish(mut self) -> Result<(), Problem> {
        let unknown = std::mem::take(&mut self.left);
        for (name, _) in unknown.into_iter().filter(|_| !self.lenient).collect::<Vec<_>>() {
            let near = |known: &&&str| strsim::damerau_levenshtein(known, &name) <= 1 + name.chars().count() / 4;
            let nearest = self.asked.iter().filter(near).min_by_key(|k| strsim::damerau_levenshtein(k, &name));
            let shown: String = name.chars().take(80).collect();
            let advice = match nearest {
                Some(known) => format!("unknown field {shown:?}; did you mean {known:?}?"),
                None => format!("unknown field {shown:?}; known are {}", self.asked.join(", ")),
            };
            self.fault(&shown, advice);
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }

    /// Takes a field, null included; one given twice is a fault.
    fn value(&mut self, field: &'static str) -> Option<&'a RawValue> {
        self.asked.push(field);
        let mut names = self.left.iter().map(|(name, _)| name);
        let is_field = |name: &String| name == field;
        let at = if self.lenient { names.rposition(is_field) } else { names.position(is_field) }?;
        let (_, value) = self.left.remove(at);
        let before = self.left.len();
        self.left.retain(|(name, _)| name != field);
        if self.left.len() < before && !self.lenient {
            self.fault(field, "given more than once");
        }
        Some(value)
    }

    /// Takes a field that is neither absent nor null.
    fn given(&mut self, field: &'static str) -> Option<&'a RawValue> {
        self.value(field).filter(|raw| sort(raw) != "null")
    }

    /// Takes a field, which must be of the sort `wanted`.
    fn of_sort(&mut self, field: &'static str, wanted: &str) -> Option<&'a RawValue> {
        let raw = self.given(field)?;
        if sort(raw) == wanted {
            return Some(raw);
        }
        self.fault(field, expected(wanted, raw));
        None
    }

    /// A string.
    pub fn text(&mut self, field: &'static str) -> Option<String> {
        let raw = self.of_sort(field, "a string")?;
        serde_json::from_str(raw.get()).map_err(|e| self.fault(field, format!("not a valid string: {e}"))).ok()
    }

    /// A string that parses as `T`.
    pub fn name<T: FromStr<Err: Display>>(&mut self, field: &'static str) -> Option<T> {
        let text = self.text(field)?;
        text.parse().map_err(|e: T::Err| self.fault(field, e.to_string())).ok()
    }

    /// A required string that parses as `T`.
    pub fn required<T: FromStr<Err: Display>>(&mut self, field: &'static str) -> Option<T> {
        if !self.left.iter().any(|(name, value)| name == field && sort(value) != "null") {
            self.fault(field, "required");
        }
        self.name(field)
    }

    /// `true` or `false`; absent is `false`.
    pub fn flag(&mut self, field: &'static str) -> bool {
        self.flag_or(field, false)
    }

    /// `true` or `false`; absent is `usual`.
    pub fn flag_or(&mut self, field: &'static str, usual: bool) -> bool {
        let Some(raw) = self.given(field) else { return usual };
        match (sort(raw), self.lenient.then(|| written(raw)).flatten().as_deref()) {
            ("a boolean", _) => raw.get() == "true",
            (_, Some("1" | "true" | "t" | "yes" | "y" | "on")) => true,
            (_, Some("0" | "false" | "f" | "no" | "n" | "off")) => false,
            _ => {
                self.fault(field, expected("a boolean", raw));
                usual
            }
        }
    }

    /// An object, with a reader for it.
    pub fn object(&mut self, field: &'static str) -> Option<Result<Reader<'a>, Problem>> {
        let raw = self.of_sort(field, "an object")?;
        let reader = Reader::open_at(raw, self.pointer(field));
        Some(reader.map(|reader| Reader { lenient: self.lenient, ..reader }))
    }

    /// A whole number from `least` to `most`.
    pub fn whole(&mut self, field: &'static str, least: u64, most: u64) -> Option<u64> {
        let text = match self.given(field)? {
            raw if self.lenient && sort(raw) != "a number" => {
                let text = written(raw).filter(|text| whole(text).is_some());
                text.or_else(|| {
                    self.fault(field, expected("a number", raw));
                    None
                })?
            }
            raw if sort(raw) == "a number" => raw.get().to_owned(),
            raw => {
                self.fault(field, expected("a number", raw));
                return None;
            }
        };
        let number = whole(&text).filter(|n| (least..=most).contains(n));
        if number.is_none() {
            let shown: String = text.chars().take(40).collect();
            self.fault(field, format!("{shown} is not a whole number from {least} to {most}"));
        }
        number
    }

    /// A time in RFC 3339.
    pub fn time(&mut self, field: &'static str) -> Option<Timestamp> {
        let text = self.text(field)?;
        let shown: String = text.chars().take(80).collect();
        Timestamp::parse(&shown).map_err(|e| self.fault(field, e)).ok()
    }

    /// Any JSON within the limits of a payload, null too.
    pub fn payload(&mut self, field: &'static str, limits: &Limits) -> Option<Json> {
        let raw = self.value(field)?;
        self.payload_at(raw, self.pointer(field), limits)
    }

    fn payload_at(&mut self, raw: &RawValue, pointer: String, limits: &Limits) -> Option<Json> {
        let json = Json::from_raw(raw, limits.json_depth, limits.payload_bytes);
        json.map_err(|e| {
            let too_large = matches!(e, InvalidJson::TooLong(..));
            self.push(Fault { too_large, ..Fault::pointer(pointer, e.to_string()) });
        })
        .ok()
    }

    /// An array of up to `most` elements.
    pub fn list(&mut self, field: &'static str, most: usize) -> Option<Vec<&'a RawValue>> {
        let raw = self.of_sort(field, "an array")?;
        let (elements, over) = elements(raw, most).expect("it was found to be an array");
        if over {
            self.fault(field, format!("more than {most} elements"));
            return None;
        }
        Some(elements)
    }

    /// An array of up to `most` strings.
    pub fn texts(&mut self, field: &'static str, most: usize) -> Option<Vec<String>> {
        let elements = self.list(field, most)?;
        let (mut texts, at) = (Vec::with_capacity(elements.len()), self.pointer(field));
        for (number, raw) in elements.into_iter().enumerate() {
            match serde_json::from_str(raw.get()) {
                Ok(text) => texts.push(text),
                Err(e) if sort(raw) == "a string" => {
                    self.push(Fault::pointer(format!("{at}/{number}"), format!("not a valid string: {e}")));
                }
                Err(_) => self.push(Fault::pointer(format!("{at}/{number}"), expected("a string", raw))),
            }
        }
        Some(texts)
    }

    /// An array of up to `most` payloads.
    pub fn payloads(&mut self, field: &'static str, most: usize, limits: &Limits) -> Option<Vec<Json>> {
        let elements = self.list(field, most)?;
        let (mut payloads, at) = (Vec::with_capacity(elements.len()), self.pointer(field));
        for (number, raw) in elements.into_iter().enumerate() {
            payloads.extend(self.payload_at(raw, format!("{at}/{number}"), limits));
        }
        Some(payloads)
    }
}

/// A number, a boolean (1 or 0) or a string as the text that Python's frameworks convert to a number or a boolean.
fn written(raw: &RawValue) -> Option<String> {
    match sort(raw) {
        "a string" => serde_json::from_str::<String>(raw.get()).ok().map(|text| text.trim().to_ascii_lowercase()),
        "a number" => Some(raw.get().to_owned()),
        "a boolean" => Some(if raw.get() == "true" { "1" } else { "0" }.to_owned()),
        _ => None,
    }
}

fn malformed(error: serde_json::Error) -> Problem {
    Problem::new(Code::InvalidJson, error.to_string())
}
