//! Builds PDFs, whole and damaged, from their objects.

use super::*;
use crate::kinds::process_files::pdf;

/// Numbers of objects that every document has.
pub const TREE: u32 = 2;
pub const PAGE: u32 = 3;
pub const CONTENT: u32 = 4;
pub const FONT: u32 = 5;

/// A document: one page that shows `content`, with the font /F, Helvetica.
pub struct Pdf {
    objects: Vec<(u32, Vec<u8>)>,
    pub trailer: String,
}

impl Pdf {
    pub fn new(content: &str) -> Self {
        let mut document = Self { objects: Vec::new(), trailer: "/Root 1 0 R".to_owned() };
        document.set(1, "<< /Type /Catalog /Pages 2 0 R >>");
        document.set(TREE, "<< /Type /Pages /Kids [3 0 R] /Count 1 >>");
        document.resources("");
        document.stream(CONTENT, "", content.as_bytes());
        document.set(FONT, "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>");
        document
    }

    /// With this font, whose other objects are set by [`Pdf::set`].
    pub fn with_font(content: &str, font: &str) -> Self {
        let mut document = Self::new(content);
        document.set(FONT, font);
        document
    }

    /// The page's resources besides its font, and other entries of the page.
    pub fn resources(&mut self, more: &str) {
        self.page(&format!("/Contents 4 0 R /Resources << /Font << /F 5 0 R >> {more} >>"));
    }

    pub fn page(&mut self, entries: &str) {
        self.set(PAGE, &format!("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {entries} >>"));
    }

    pub fn set(&mut self, id: u32, object: &str) {
        self.set_bytes(id, object.as_bytes().to_vec());
    }

    pub fn set_bytes(&mut self, id: u32, object: Vec<u8>) {
        self.objects.retain(|(other, _)| *other != id);
        self.objects.push((id, object));
    }

    pub fn stream(&mut self, id: u32, entries: &str, content: &[u8]) {
        let head = format!("<< /Length {} {entries} >>\nstream\n", content.len());
        self.set_bytes(id, [head.as_bytes(), content, b"\nendstream"].concat());
    }

    pub fn form(&mut self, id: u32, entries: &str, content: &str) {
        self.stream(id, &format!("/Type /XObject /Subtype /Form {entries}"), content.as_bytes());
    }

    /// A font's map to Unicode, or another resource of its.
    pub fn map(&mut self, id: u32, ranges: &str) {
        let map = format!("begincmap 1 begincodespacerange <0000> <FFFF> endcodespacerange {ranges} endcmap");
        self.stream(id, "", map.as_bytes());
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (mut bytes, mut table) = (b"%PDF-1.7\n".to_vec(), Vec::new());
        for (id, object) in &self.objects {
            table.push((*id, bytes.len()));
            bytes.extend_from_slice(format!("{id} 0 obj\n").as_bytes());
            bytes.extend_from_slice(object);
            bytes.extend_from_slice(b"\nendobj\n");
        }
        let start = bytes.len();
        bytes.extend_from_slice(b"xref\n0 1\n0000000000 65535 f \n");
        for (id, at) in &table {
            bytes.extend_from_slice(format!("{id} 1\n{at:010} 00000 n \n").as_bytes());
        }
        let size = 1 + self.objects.iter().map(|(id, _)| *id).max().unwrap_or(0);
        let trailer = &self.trailer;
        bytes.extend_from_slice(
            format!("trailer\n<< /Size {size} {trailer} >>\nstartxref\n{start}\n%%EOF\n").as_bytes(),
        );
        bytes
    }

    pub fn read(&self) -> Result<Report, ProcessError> {
        read_bytes(&self.bytes())
    }

    /// The text, with `\n` at the end of a line and `\x0c` at that of a page.
    pub fn text(&self) -> String {
        text_of(&self.bytes()).unwrap()
    }

    pub fn error(&self) -> String {
        self.read().unwrap_err().to_string()
    }
}

/// The text of a PDF.
pub fn text_of(bytes: &[u8]) -> Result<String, pdf::Refusal> {
    struct Text(String);
    impl text::Sink for Text {
        fn push(&mut self, character: char) {
            self.0.push(character);
        }

        fn end_page(&mut self) {
            self.0.push('\x0c');
        }
    }
    let mut text = Text(String::new());
    pdf::read(bytes.to_vec(), &mut text, &mut |_| {})?;
    Ok(text.0)
}

/// The bytes with the first `from` replaced.
pub fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is in there");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
