//! PDFs that are damaged, unusual, or made to do harm.

use std::thread;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_extract::{Dictionary, Document, Object, ObjectId, Stream};
use std::io::Write as _;

use super::*;

fn dictionary(entries: &[(&str, Object)]) -> Dictionary {
    entries.iter().fold(Dictionary::new(), |mut dictionary, (key, value)| {
        dictionary.set(*key, value.clone());
        dictionary
    })
}

fn name(name: &str) -> Object {
    Object::from(name)
}

/// A document under construction: one page that draws `content` with the resources it is given.
struct Builder {
    document: Document,
    tree: ObjectId,
    page: ObjectId,
}

impl Builder {
    fn new(content: Stream) -> Self {
        let mut document = Document::with_version("1.7");
        let tree = document.new_object_id();
        let content = document.add_object(content);
        let page = document.add_object(dictionary(&[
            ("Type", name("Page")),
            ("Parent", Object::Reference(tree)),
            ("Contents", Object::Reference(content)),
        ]));
        document.objects.insert(
            tree,
            Object::Dictionary(dictionary(&[
                ("Type", name("Pages")),
                ("Kids", vec![Object::Reference(page)].into()),
                ("Count", Object::Integer(1)),
            ])),
        );
        let catalog = document.add_object(dictionary(&[("Type", name("Catalog")), ("Pages", Object::Reference(tree))]));
        document.trailer.set("Root", catalog);
        Self { document, tree, page }
    }

    fn text(content: &str) -> Self {
        Self::new(Stream::new(Dictionary::new(), content.as_bytes().to_vec()))
    }

    fn form(&mut self, content: &str, drawn: &[(&str, ObjectId)]) -> ObjectId {
        let id = self.document.new_object_id();
        let mut dict = dictionary(&[("Type", name("XObject")), ("Subtype", name("Form"))]);
        dict.set("Resources", drawings(drawn));
        self.document.objects.insert(id, Object::Stream(Stream::new(dict, content.as_bytes().to_vec())));
        id
    }

    fn draws(&mut self, drawn: &[(&str, ObjectId)]) {
        let page = self.document.get_dictionary_mut(self.page).unwrap();
        page.set("Resources", drawings(drawn));
    }

    fn bytes(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.document.save_to(&mut bytes).unwrap();
        bytes
    }

    fn read(self) -> Result<Report, ProcessError> {
        read_bytes(&self.bytes())
    }
}

fn drawings(drawn: &[(&str, ObjectId)]) -> Dictionary {
    let drawn: Vec<(&str, Object)> = drawn.iter().map(|(key, id)| (*key, Object::Reference(*id))).collect();
    dictionary(&[("XObject", Object::Dictionary(dictionary(&drawn)))])
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn packed(content: Vec<u8>) -> Stream {
    Stream::new(dictionary(&[("Filter", name("FlateDecode"))]), content)
}

#[test]
fn every_operator_that_shows_text_is_heard() {
    let shown =
        r#"BT /F 12 Tf 14 TL 72 700 Td (one) Tj 0 -20 Td [(t) 10 (wo)] TJ (three) ' 1 0 (four) " T* <66697665> Tj ET"#;
    let report = Builder::text(shown).read().unwrap();
    assert_eq!((report.pages, report.words, report.characters), (1, 5, 23));
}

#[test]
fn text_that_runs_upwards_is_parted_into_words() {
    let shown = "BT /F 12 Tf 0 1 -1 0 50 50 Tm (one) Tj 0 1 -1 0 50 90 Tm (two) Tj 0 1 -1 0 80 50 Tm (three) Tj ET";
    assert_eq!(Builder::text(shown).read().unwrap().words, 3);
}

#[test]
fn malformed_operators_and_what_is_not_text_are_passed_over() {
    let shown = "Q Q cm 1 Td /X Tj 7 TJ Tf (x) Tm q q /Nope gs /Nope cs 1 scn /Nope Do 1 2 v \
                 BI /W 1 /H 1 /BPC 8 /CS /G ID z EI BT /Nope 9 Tf (still here) Tj";
    assert_eq!(Builder::text(shown).read().unwrap().words, 2);
}

#[test]
fn an_image_is_not_taken_for_a_form() {
    let mut builder = Builder::text("BT (caption) Tj ET /Im Do");
    let dict = dictionary(&[("Subtype", name("Image")), ("Filter", name("DCTDecode"))]);
    let image = builder.document.add_object(Stream::new(dict, b"m (x) Tj c Tf \xFF\xD8 [ <<".to_vec()));
    builder.draws(&[("Im", image)]);
    assert_eq!(builder.read().unwrap().words, 1);
}

#[test]
fn an_image_may_be_larger_than_other_streams() {
    let mut builder = Builder::text("BT (caption) Tj ET /Im Do");
    let mut image = packed(deflated(&vec![0; 80 << 20]));
    image.dict.set("Subtype", "Image");
    let image = builder.document.add_object(image);
    builder.draws(&[("Im", image)]);
    assert_eq!(builder.read().unwrap().words, 1);
}

#[test]
fn a_form_is_read_each_time_it_is_drawn() {
    let mut builder = Builder::text("q 1 0 0 1 0 50 cm /Fm Do Q /Fm Do BT (end) Tj ET");
    let form = builder.form("BT 1 0 0 1 9 9 Tm (twice) Tj 40 0 Td (said) Tj ET q", &[]);
    builder.draws(&[("Fm", form)]);
    assert_eq!(builder.read().unwrap().words, 5);
}

#[test]
fn a_form_that_draws_itself_is_refused() {
    let mut builder = Builder::text("/Fm Do");
    let form = builder.form("/Fm Do", &[]);
    builder
        .document
        .get_object_mut(form)
        .unwrap()
        .as_stream_mut()
        .unwrap()
        .dict
        .set("Resources", drawings(&[("Fm", form)]));
    builder.draws(&[("Fm", form)]);
    let error = builder.read().unwrap_err();
    assert!(matches!(error, ProcessError::PdfTooCostly { .. }) && !error.is_retryable(), "{error}");
}

#[test]
fn forms_that_multiply_are_refused() {
    let mut builder = Builder::text("/Fm Do");
    let mut form = builder.form("BT (ha) Tj ET", &[]);
    for _ in 0..12 {
        form = builder.form(&"/Fm Do ".repeat(10), &[("Fm", form)]);
    }
    builder.draws(&[("Fm", form)]);
    let error = builder.read().unwrap_err();
    assert!(matches!(error, ProcessError::PdfTooCostly { .. }), "{error}");
}

#[test]
fn a_page_that_saves_its_state_without_end_is_refused() {
    let error = Builder::text(&"q ".repeat(100_000)).read().unwrap_err();
    assert!(matches!(error, ProcessError::PdfTooCostly { .. }), "{error}");
}

#[test]
fn a_stream_that_unpacks_without_end_is_refused() {
    let bomb = deflated(&vec![b' '; 80 << 20]);
    assert!(bomb.len() < 100_000);
    let error = Builder::new(packed(bomb.clone())).read().unwrap_err();
    assert!(matches!(error, ProcessError::PdfTooCostly { .. }), "{error}");

    let mut twice = packed(deflated(&bomb));
    twice.dict.set("Filter", vec![name("FlateDecode"), name("FlateDecode")]);
    let mut of_objects = packed(bomb);
    of_objects.dict.set("Type", "ObjNNN");
    for stream in [twice, of_objects] {
        let mut builder = Builder::text("BT (text) Tj ET");
        builder.document.add_object(stream);
        let mut bytes = builder.bytes();
        // The library leaves streams of objects out when it writes, so this one becomes one afterwards.
        if let Some(at) = bytes.windows(6).position(|window| window == b"ObjNNN") {
            bytes[at..at + 6].copy_from_slice(b"ObjStm");
        }
        let error = read_bytes(&bytes).unwrap_err();
        assert!(matches!(error, ProcessError::PdfTooCostly { .. }), "{error}");
    }
}

#[test]
fn a_damaged_page_fails_the_document_and_is_named() {
    // Whatever is left of it is well formed, so that only the unpacking can tell.
    let operators: String = (0..4_000_u32).map(|n| ["f ", "S ", "n ", "q Q "][(n * n / 7 % 4) as usize]).collect();
    let mut content = deflated(format!("BT (text) Tj ET {operators}").as_bytes());
    content.truncate(content.len() / 2);
    for builder in [Builder::new(packed(content)), Builder::text("BT (one) Tj (two")] {
        let error = builder.read().unwrap_err();
        assert!(matches!(error, ProcessError::BrokenPdf { .. }), "{error}");
        assert!(error.to_string().starts_with("PDF could not be read: a: page 1: "), "{error}");
    }
}

#[test]
fn a_string_of_many_escapes_costs_no_more_than_its_length() {
    let begin = Instant::now();
    let content = format!("BT ({}) Tj ET", r"\\".repeat(500_000));
    assert_eq!(Builder::text(&content).read().unwrap().words, 1);
    assert!(begin.elapsed().as_secs() < PDF_SECONDS_MAX);
}

#[test]
fn a_document_that_lacks_promised_pages_is_broken() {
    let mut builder = Builder::text("BT (text) Tj ET");
    let tree = builder.document.get_dictionary_mut(builder.tree).unwrap();
    tree.set("Count", 5);
    assert!(builder.read().unwrap_err().to_string().contains("only 1 of its 5 pages can be found"));

    let mut builder = Builder::text("BT (text) Tj ET");
    let tree = builder.document.get_dictionary_mut(builder.tree).unwrap();
    tree.set("Kids", Vec::<Object>::new());
    tree.set("Count", 0);
    assert!(builder.read().unwrap_err().to_string().contains("it has no pages"));
}

#[test]
fn a_panic_of_the_library_is_a_broken_document() {
    let mut builder = Builder::text("BT /F 1 Tf (text) Tj ET");
    let font = dictionary(&[("Type", name("Font")), ("Subtype", name("Type0")), ("BaseFont", name("X"))]);
    let fonts = dictionary(&[("F", Object::Dictionary(font))]);
    let page = builder.document.get_dictionary_mut(builder.page).unwrap();
    page.set("Resources", dictionary(&[("Font", Object::Dictionary(fonts))]));
    let error = builder.read().unwrap_err().to_string();
    assert!(error.contains("page 1: the PDF library failed: Descendant fonts required"), "{error}");
}

#[test]
fn parents_and_names_in_a_ring_end() {
    let mut builder = Builder::text("BT (text) Tj ET");
    let tree = builder.tree;
    builder.document.get_dictionary_mut(tree).unwrap().set("Parent", Object::Reference(tree));
    assert_eq!(builder.read().unwrap().words, 1);
}

/// Blocking work of the worker runs on threads with 2 MiB of stack.
#[test]
fn deep_nesting_does_not_overflow_a_small_stack() {
    let deep = |open: &str, close: &str, levels: usize| format!("{}{} TJ", open.repeat(levels), close.repeat(levels));
    let run = move || {
        for levels in [90, 200_000] {
            for (open, close) in [("[", "]"), ("<</K ", ">>"), ("(", ")")] {
                let _ = Builder::text(&deep(open, close, levels)).read();
            }
        }
    };
    thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_pdf_past_its_time_is_given_up_and_may_be_tried_again() {
    for content in ["", "BT (text) Tj ET"] {
        let mut tally = crate::kinds::process_files::text::Tally::default();
        let error = pdf::read("a", &Builder::text(content).bytes(), &|| true, &mut tally, &mut |_| {}).unwrap_err();
        assert!(matches!(error, ProcessError::OutOfTime { .. }) && error.is_retryable(), "{error}");
    }
}

#[test]
fn a_pdf_that_needs_a_password_says_so() {
    let error = read_bytes(include_bytes!("locked.pdf")).unwrap_err();
    assert_eq!(error.to_string(), "PDF is encrypted and needs a password: a");
    assert!(!error.is_retryable());
}

#[test]
fn a_truncated_pdf_never_panics_and_never_passes_for_whole() {
    for (name, pages, _) in SHIPPED.into_iter().filter(|(name, ..)| name.ends_with(".pdf")) {
        let bytes = fs::read(documents().join(name)).unwrap();
        for part in 1..20 {
            if let Ok(report) = read_bytes(&bytes[..bytes.len() * part / 20]) {
                assert_eq!(report.pages, pages, "{name} cut at {part}/20");
            }
        }
    }
}

#[test]
fn a_pdf_with_wrong_bytes_never_panics() {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for name in ["notice-water-works.pdf", "morse-hand.pdf", "seed-exchange-list.pdf", "clockmakers-notebook.pdf"] {
        let bytes = fs::read(documents().join(name)).unwrap();
        for _ in 0..100 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(12) {
                let at = random(damaged.len());
                damaged[at] = random(256) as u8;
            }
            let _ = read_bytes(&damaged);
        }
    }
}
