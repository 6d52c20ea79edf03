//! PDFs that are damaged, unusual, or made to do harm. What takes memory or time is the reader's to end: the suite
//! has it.

use std::io::Write as _;
use std::thread;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::build::*;
use super::*;

pub(super) fn deflated(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_operator_that_shows_text_is_heard() {
    let shown =
        r#"BT /F 12 Tf 14 TL 72 700 Td (one) Tj 0 -20 Td [(t) 10 (wo)] TJ (three) ' 1 0 (four) " T* <66697665> Tj ET"#;
    let report = Pdf::new(shown).read().unwrap();
    assert_eq!((report.pages, report.words, report.characters), (1, 5, 23));
}

#[test]
fn text_that_runs_upwards_is_parted_into_words() {
    let shown = "BT /F 12 Tf 0 1 -1 0 50 50 Tm (one) Tj 0 1 -1 0 50 90 Tm (two) Tj 0 1 -1 0 80 50 Tm (three) Tj ET";
    assert_eq!(Pdf::new(shown).read().unwrap().words, 3);
}

#[test]
fn malformed_operators_and_what_is_not_text_are_passed_over() {
    let shown = "Q Q cm 1 Td /X Tj 7 TJ Tf (x) Tm q q /Nope gs /Nope cs 1 scn /Nope Do 1 2 v \
                 BI /W 1 /H 1 /BPC 8 /CS /G ID z EI BT /Nope 9 Tf (still here) Tj";
    assert_eq!(Pdf::new(shown).read().unwrap().words, 2);
}

#[test]
fn a_page_that_saves_its_state_without_end_is_refused() {
    let error = Pdf::new(&"q ".repeat(100_000)).read().unwrap_err();
    assert!(matches!(error, ProcessError::PdfTooCostly { .. }), "{error}");
}

#[test]
fn a_string_of_many_escapes_costs_no_more_than_its_length() {
    let begin = std::time::Instant::now();
    let content = format!("BT ({}) Tj ET", r"\\".repeat(500_000));
    assert_eq!(Pdf::new(&content).read().unwrap().words, 1);
    assert!(begin.elapsed().as_secs() < 60);
}

#[test]
fn deep_nesting_does_not_overflow_a_small_stack() {
    let deep = |open: &str, close: &str, levels: usize| format!("{}{} TJ", open.repeat(levels), close.repeat(levels));
    let run = move || {
        for levels in [90, 200_000] {
            for (open, close) in [("[", "]"), ("<</K ", ">>"), ("(", ")")] {
                let _ = Pdf::new(&deep(open, close, levels)).read();
            }
        }
    };
    thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
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
        for _ in 0..25 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(12) {
                let at = random(damaged.len());
                damaged[at] = random(256) as u8;
            }
            let _ = read_bytes(&damaged);
        }
    }
}

#[test]
fn an_image_is_not_taken_for_a_form() {
    let mut document = Pdf::new("BT (caption) Tj ET /Im Do");
    document.resources("/XObject << /Im 8 0 R >>");
    document.stream(8, "/Subtype /Image /Filter /DCTDecode", b"m (x) Tj c Tf \xFF\xD8 [ <<");
    assert_eq!(document.read().unwrap().words, 1);
    document.stream(8, "/Subtype /Image /Filter /FlateDecode", &deflated(&vec![0; 80 << 20]));
    assert_eq!(document.read().unwrap().words, 1, "and may be larger than other streams");
}

#[test]
fn a_form_is_read_each_time_it_is_drawn_and_not_within_itself() {
    let mut document = Pdf::new("q 1 0 0 1 0 50 cm /Fm Do Q /Fm Do BT (end) Tj ET");
    document.resources("/XObject << /Fm 8 0 R >>");
    let shown = "BT 1 0 0 1 9 9 Tm (twice) Tj 40 0 Td (said) Tj ET /Me Do q";
    document.form(8, "/Resources << /XObject << /Me 8 0 R >> >>", shown);
    assert_eq!(document.read().unwrap().words, 5);
}

#[test]
fn forms_that_multiply_or_nest_too_deeply_are_refused() {
    for (copies, levels) in [(10, 12), (1, 40)] {
        let mut document = Pdf::new("/Fm Do");
        document.resources("/XObject << /Fm 100 0 R >>");
        for level in 100..100 + levels {
            let next = format!("/Resources << /XObject << /Fm {} 0 R >> >>", level + 1);
            document.form(level, &next, &"/Fm Do ".repeat(copies));
        }
        document.form(100 + levels, "", "BT (ha) Tj ET");
        let error = document.read().unwrap_err();
        assert!(matches!(error, ProcessError::PdfTooCostly { .. }), "{error}");
    }
}

#[test]
fn a_stream_that_unpacks_without_end_is_refused() {
    let bomb = deflated(&vec![b' '; 80 << 20]);
    assert!(bomb.len() < 100_000);
    let mut document = Pdf::new("");
    document.stream(CONTENT, "/Filter /FlateDecode", &bomb);
    let error = document.read().unwrap_err();
    assert!(matches!(error, ProcessError::PdfTooCostly { .. }) && !error.is_retryable(), "{error}");
    document.stream(CONTENT, "/Filter [/FlateDecode /FlateDecode]", &deflated(&bomb));
    let error = document.read().unwrap_err();
    assert!(matches!(error, ProcessError::PdfTooCostly { .. }), "{error}");
}

#[test]
fn a_range_of_four_billion_characters_costs_nothing() {
    let font = "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /DescendantFonts [6 0 R] \
                /ToUnicode 7 0 R >>";
    let mut document = Pdf::with_font("BT /F 12 Tf 72 720 Td <00410042> Tj ET", font);
    document.set(6, "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /X >>");
    document.map(7, "1 beginbfrange <00000000> <FFFFFFFF> <0020> endbfrange");
    assert_eq!(document.text(), "ab\x0c");
}

#[test]
fn a_damaged_page_fails_the_document_and_is_named() {
    // Whatever is left of it is well formed, so that only the unpacking can tell.
    let operators: String = (0..4_000_u32).map(|n| ["f ", "S ", "n ", "q Q "][(n * n / 7 % 4) as usize]).collect();
    let mut content = deflated(format!("BT (text) Tj ET {operators}").as_bytes());
    content.truncate(content.len() / 2);
    let encoded: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut document = Pdf::new("");
    for (filter, content) in [("/FlateDecode", content), ("[/ASCIIHexDecode /FlateDecode]", encoded.into_bytes())] {
        document.stream(CONTENT, &format!("/Filter {filter}"), &content);
        let error = document.error();
        assert!(error.starts_with("PDF could not be read: a: page 1: a compressed stream is damaged"), "{error}");
    }
}

#[test]
fn a_document_that_lacks_promised_pages_is_broken() {
    let mut document = Pdf::new("BT (text) Tj ET");
    document.set(TREE, "<< /Type /Pages /Kids [3 0 R] /Count 5 >>");
    assert!(document.error().contains("only 1 of its 5 pages can be found"));
    document.set(TREE, "<< /Type /Pages /Kids [] /Count 0 >>");
    assert!(document.error().contains("it has no pages"));
}
