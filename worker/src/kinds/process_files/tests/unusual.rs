//! PDFs that are damaged as files are in practice, or use what is rare: repaired, read, or refused by name.

use super::build::*;
use super::*;

const SHOWN: &str = "BT /F 12 Tf 72 720 Td (seven harbour lamps) Tj ET";

fn words(bytes: &[u8]) -> u64 {
    read_bytes(bytes).unwrap().words
}

#[test]
fn a_wrong_cross_reference_is_repaired() {
    let whole = Pdf::new(SHOWN).bytes();
    assert_eq!(words(&whole), 3);
    assert_eq!(words(&replaced(&whole, b"4 1\n0000000", b"4 1\n0000123")), 3, "an offset that is off");
    assert_eq!(words(&replaced(&whole, b"startxref\n", b"startxref\n9")), 3, "a start behind the end");
    assert_eq!(words(&replaced(&whole, b"xref\n0 1", b"xxxx\n0 1")), 3, "no table");
    let moved = replaced(&whole, b"%PDF-1.7\n", b"%PDF-1.7\n% a line that was inserted\n");
    assert_eq!(words(&moved), 3, "all offsets are off");
}

#[test]
fn a_wrong_length_or_a_missing_end_of_a_stream_is_repaired() {
    let whole = Pdf::new(SHOWN).bytes();
    let length = format!("/Length {}", SHOWN.len());
    for wrong in ["/Length 3", "/Length 9999999", "/Length -1", "/Length (x)", "/Length 99 0 R", "/Lentgh 1"] {
        assert_eq!(words(&replaced(&whole, length.as_bytes(), wrong.as_bytes())), 3, "{wrong}");
    }
    let mut indirect = Pdf::new("");
    let stream = format!("<< /Length 9 0 R >>\nstream\n{SHOWN}\nendstream");
    indirect.set(CONTENT, &stream);
    indirect.set(9, &SHOWN.len().to_string());
    assert_eq!(indirect.read().unwrap().words, 3);
    let endless = replaced(&whole, b"\nendstream", b"");
    assert_eq!(text_of(&endless).unwrap(), "seven harbour lamps\x0c", "and nothing of what follows");
}

#[test]
fn of_two_objects_with_one_number_the_later_one_counts() {
    let mut bytes = Pdf::new("BT /F 12 Tf (an older text) Tj ET").bytes();
    let at = bytes.len();
    let update = format!("4 0 obj\n<< /Length {} >>\nstream\n{SHOWN}\nendstream\nendobj\n", SHOWN.len());
    let first = bytes.windows(9).rposition(|window| window == b"startxref").unwrap();
    let before: usize = str::from_utf8(&bytes[first + 10..]).unwrap().lines().next().unwrap().parse().unwrap();
    bytes.extend_from_slice(update.as_bytes());
    let table = bytes.len();
    let end = format!(
        "xref\n4 1\n{at:010} 00000 n \ntrailer\n<< /Size 6 /Root 1 0 R /Prev {before} >>\nstartxref\n{table}\n%%EOF\n"
    );
    let updated = [bytes.as_slice(), end.as_bytes()].concat();
    assert_eq!(text_of(&updated).unwrap(), "seven harbour lamps\x0c");
    assert_eq!(text_of(&replaced(&updated, b"4 1\n", b"4 9\n")).unwrap(), "seven harbour lamps\x0c", "and repaired");
}

/// A document whose catalog, tree, page and font are in a stream of objects.
fn with_stream_of_objects(filter: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let objects = [
        (1, "<< /Type /Catalog /Pages 2 0 R >>"),
        (2, "<< /Type /Pages /Kids [3 0 R] /Count 1 >>"),
        (3, "<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> >>"),
        (5, "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"),
    ];
    let (mut head, mut body) = (String::new(), String::new());
    for (id, object) in objects {
        head += &format!("{id} {} ", body.len());
        body += &format!("{object} ");
    }
    let packed = hostile::deflated(format!("{head}{body}").as_bytes());
    let packed = change(packed);
    let mut bytes = b"%PDF-1.7\n".to_vec();
    let content = bytes.len();
    bytes.extend_from_slice(
        format!("4 0 obj\n<< /Length {} >>\nstream\n{SHOWN}\nendstream\nendobj\n", SHOWN.len()).as_bytes(),
    );
    let holder = bytes.len();
    let first = head.len();
    bytes.extend_from_slice(
        format!("6 0 obj\n<< /Type /ObjStm /N 4 /First {first} /Filter {filter} /Length {} >>\nstream\n", packed.len())
            .as_bytes(),
    );
    bytes.extend_from_slice(&packed);
    bytes.extend_from_slice(b"\nendstream\nendobj\n");
    let start = bytes.len();
    let rows: [(u8, usize, u8); 8] =
        [(0, 0, 0), (2, 6, 0), (2, 6, 1), (2, 6, 2), (1, content, 0), (2, 6, 3), (1, holder, 0), (1, start, 0)];
    let table: Vec<u8> =
        rows.iter().flat_map(|(kind, at, index)| [*kind, (at >> 8) as u8, *at as u8, *index]).collect();
    bytes.extend_from_slice(b"7 0 obj\n<< /Type /XRef /Size 8 /Root 1 0 R /W [1 2 1] /Length 32 >>\nstream\n");
    bytes.extend_from_slice(&table);
    bytes.extend_from_slice(format!("\nendstream\nendobj\nstartxref\n{start}\n%%EOF\n").as_bytes());
    bytes
}

#[test]
fn a_damaged_stream_of_objects_fails_the_document() {
    assert_eq!(words(&with_stream_of_objects("/FlateDecode", |packed| packed)), 3);
    let cut = |mut packed: Vec<u8>| {
        let half = packed.len() / 2;
        packed[half..].fill(0xFF);
        packed
    };
    for damaged in
        [with_stream_of_objects("/FlateDecode", cut), with_stream_of_objects("/NoSuchDecode", |packed| packed)]
    {
        let error = read_bytes(&damaged).unwrap_err();
        assert!(matches!(error, ProcessError::BrokenPdf { .. }), "{error}");
    }
}

#[test]
fn an_object_that_is_there_but_unreadable_is_not_taken_for_missing() {
    for (object, wanted) in [
        ("<< /Length 5 >>\nstre", "page 1: its content is not a stream"),
        ("<< /Length 5 (", "page 1: object 4 0 is damaged"),
    ] {
        let mut document = Pdf::new(SHOWN);
        document.set(CONTENT, object);
        assert!(document.error().contains(wanted), "{}", document.error());
    }
    let mut document = Pdf::new(SHOWN);
    document.set(TREE, "<< /Type /Pages /Kids [3 0 R 8 0 R] /Count 1 >>");
    assert!(document.error().contains("its page 8 0 R is missing"), "{}", document.error());
    let mut document = Pdf::new("/Fm Do");
    document.resources("/XObject << /Fm 8 0 R >>");
    for (object, wanted) in [
        ("<< /Subtype /Form /Length 5 >>\nstr", "page 1: form Fm: it is not a stream"),
        ("<< /Subtype /Form (", "page 1: object 8 0 is damaged"),
    ] {
        document.set(8, object);
        assert!(document.error().contains(wanted), "{}", document.error());
    }
    let mut document = Pdf::new(SHOWN);
    document.stream(CONTENT, "/Filter /NoSuchDecode", b"xyz");
    assert!(document.error().contains("filter that is not supported: NoSuchDecode"), "{}", document.error());
}

#[test]
fn a_stray_delimiter_is_passed_over_and_an_open_string_is_not() {
    for stray in [")", ">", ">>", "]", "{ }", "% a comment ( here\n"] {
        let document = Pdf::new(&format!("BT /F 12 Tf 72 720 Td (seven) Tj {stray} ( harbour) Tj ET"));
        assert_eq!(document.text(), "seven harbour\x0c", "{stray}");
    }
    for open in ["(never", "[(never) 3", "<7"] {
        let document = Pdf::new(&format!("BT /F 12 Tf 72 720 Td (seven) Tj {open}"));
        assert!(document.error().contains("page 1: its content cannot be parsed to the end"), "{open}");
    }
}

#[test]
fn composite_fonts_without_a_map_use_their_collection() {
    for (encoding, ordering, shown, wanted) in [
        ("UniGB-UCS2-H", "GB1", "6E2F53E3", "\u{6e2f}\u{53e3}\x0c"),
        ("UniJIS-UTF16-H", "Japan1", "6E2F3042", "\u{6e2f}\u{3042}\x0c"),
        ("90ms-RKSJ-H", "Japan1", "8D6020416263", "\u{6e2f}\u{2002}Abc\x0c"),
        ("KSCms-UHC-H", "Korea1", "C7D7B1B8", "\u{d56d}\u{ad6c}\x0c"),
        ("ETen-B5-H", "CNS1", "B4E4A466", "\u{6e2f}\u{53e3}\x0c"),
    ] {
        let font =
            format!("<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /{encoding} /DescendantFonts [6 0 R] >>");
        let mut document = Pdf::with_font(&format!("BT /F 12 Tf 72 720 Td <{shown}> Tj ET"), &font);
        document.set(
            6,
            &format!(
                "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /X \
                 /CIDSystemInfo << /Registry (Adobe) /Ordering ({ordering}) /Supplement 2 >> >>"
            ),
        );
        assert_eq!(document.text(), wanted, "{encoding}");
    }
}

#[test]
fn a_font_that_cannot_be_read_is_named() {
    for (font, wanted) in [
        ("<< /Type /Font /Subtype /Type0 /BaseFont /X >>", "the font F cannot be read: it has no encoding"),
        (
            "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H >>",
            "the font F cannot be read: its descendant font is missing",
        ),
        (
            "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /No-Such-H /DescendantFonts [<< >>] >>",
            "the font F cannot be read: its encoding No-Such-H is not known",
        ),
        ("[1 2]", "the font F is not a font"),
    ] {
        let error = Pdf::with_font(SHOWN, font).error();
        assert!(error.contains("page 1: ") && error.contains(wanted), "{error}");
    }
    let mut document = Pdf::with_font(SHOWN, "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>");
    document.stream(6, "/Filter /FlateDecode", b"\x78\x9c\xff\xff\xff");
    assert!(
        document.error().contains("the font F cannot be read: a compressed stream is damaged"),
        "{}",
        document.error()
    );
}

#[test]
fn a_character_that_its_font_does_not_name_is_counted() {
    let font = "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /DescendantFonts [6 0 R] >>";
    let mut document = Pdf::with_font("BT /F 12 Tf 72 720 Td <00410042> Tj ET", font);
    document.set(
        6,
        "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /X \
         /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>",
    );
    assert_eq!(document.text(), "\u{fffd}\u{fffd}\x0c");
    let font = "<< /Type /Font /Subtype /Type3 /FontMatrix [0.01 0 0 0.01 0 0] /FontBBox [0 0 9 9] \
                /CharProcs << /g1 6 0 R >> \
                /Encoding << /Differences [65 /g1 /B] >> /FirstChar 65 /LastChar 66 /Widths [50 50] >>";
    let mut document = Pdf::with_font("BT /F 12 Tf 72 720 Td (AB) Tj ET", font);
    document.stream(6, "", b"0 0 9 9 re f");
    assert_eq!(document.text(), "AB\x0c", "by its code");
}

#[test]
fn ligatures_soft_hyphens_and_hyphens_are_counted_as_a_person_would() {
    let font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica \
                /Encoding << /BaseEncoding /WinAnsiEncoding /Differences [1 /fi /ffl] >> >>";
    let lines = "BT /F 12 Tf 14 TL 72 720 Td (\\001ve o\\002ine exam-) Tj T* (ples of pre- and post-war co\\255) Tj \
                  T* (operation A-) Tj T* (B) Tj ET";
    let document = Pdf::with_font(lines, font);
    let report = document.read().unwrap();
    assert_eq!(report.words, 10, "{}", document.text());
    assert!(document.text().starts_with("five offline exam-\nples of"), "{}", document.text());
}

#[test]
fn chinese_runs_on_over_a_line_and_its_wide_setting_is_no_gap() {
    let font = "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /UniGB-UCS2-H /DescendantFonts [6 0 R] >>";
    let shown = "BT /F 12 Tf 14 TL 72 720 Td [<6E2F> -250 <53E3>] TJ T* <89C45219> Tj [<591C> -1500 <73ED>] TJ ET";
    let mut document = Pdf::with_font(shown, font);
    document.set(
        6,
        "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /X \
         /CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 2 >> >>",
    );
    assert_eq!((document.read().unwrap().words, document.text().matches(' ').count()), (2, 1), "{}", document.text());
}

#[test]
fn letters_that_are_set_apart_are_one_word() {
    let spaced = |word: &str, gap: i32| word.chars().map(|letter| format!("({letter}) {} ", -gap)).collect::<String>();
    let line = format!("[{}-300 {}]", spaced("seven", 250), spaced("lamps", 250));
    let document = Pdf::new(&format!("BT /F 12 Tf 72 720 Td {line} TJ ET"));
    assert_eq!(document.text(), "seven lamps\x0c");
    let spaced_out = Pdf::new("BT /F 12 Tf 72 720 Td 6 Tc (seven lamps) Tj 0 Tc ET");
    assert_eq!(spaced_out.text(), "seven lamps\x0c");
    let cells = Pdf::new(&format!("BT /F 12 Tf 72 720 Td [{}] TJ ET", spaced("12345", 400)));
    assert_eq!(cells.text(), "1 2 3 4 5\x0c", "digits are the cells of a table");
    let kerned = Pdf::new("BT /F 12 Tf 72 720 Td [(A) 120 (W) 95 (AY) -278 (home)] TJ ET");
    assert_eq!(kerned.text(), "AWAY home\x0c");
}

#[test]
fn marked_content_can_have_a_text_of_its_own() {
    let mut document = Pdf::new(
        "BT /F 12 Tf 14 TL 72 720 Td (exam) Tj /Span << /ActualText <FEFF00AD> >> BDC (-) Tj EMC T* (ple) Tj T* \
         /Span /P1 BDC (x) Tj /Span << /ActualText (z) >> BDC (y) Tj EMC EMC \
         /Span << /ActualText (unseen) >> BDC EMC ET",
    );
    document.resources("/Properties << /P1 << /ActualText (whole) >> >>");
    assert_eq!(document.text(), "exam\u{ad}\nple\nwhole\x0c");
    assert_eq!(document.read().unwrap().words, 2);
}

#[test]
fn vertical_writing_is_one_line() {
    let font = "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /UniJIS-UTF16-V /DescendantFonts [6 0 R] >>";
    let mut document = Pdf::with_font("BT /F 12 Tf 300 720 Td <6E2F3042> Tj <53E3> Tj -20 0 Td <3044> Tj ET", font);
    document.set(
        6,
        "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /X \
         /CIDSystemInfo << /Registry (Adobe) /Ordering (Japan1) /Supplement 2 >> >>",
    );
    assert_eq!(document.text(), "\u{6e2f}\u{3042}\u{53e3}\n\u{3044}\x0c");
}

#[test]
fn what_a_form_was_filled_in_with_is_on_the_page() {
    let mut document = Pdf::new(SHOWN);
    document.page("/Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> /Annots [6 0 R 8 0 R 9 0 R 10 0 R]");
    document.set(6, "<< /Type /Annot /Subtype /Widget /Rect [90 600 200 620] /AP << /N 7 0 R >> >>");
    document.form(
        7,
        "/BBox [0 0 110 20] /Resources << /Font << /F 5 0 R >> >>",
        "BT /F 12 Tf 2 5 Td (burning bright) Tj ET",
    );
    document.set(8, "<< /Type /Annot /Subtype /Widget /F 2 /Rect [90 500 200 520] /AP << /N 7 0 R >> >>");
    document.set(
        9,
        "<< /Type /Annot /Subtype /Widget /AS /On /Rect [90 400 200 420] /AP << /N << /On 7 0 R /Off null >> >> >>",
    );
    document.set(10, "<< /Type /Annot /Subtype /Widget /FT /Tx /V (by hand) /Rect [90 300 200 320] >>");
    assert_eq!(document.text(), "seven harbour lamps\nburning bright\nburning bright\nby hand\x0c");
}

#[test]
fn a_deep_tree_of_many_pages_is_read_in_order() {
    let mut document = Pdf::new(SHOWN);
    let mut kids = String::new();
    for page in 0..300 {
        let node = 10 + 2 * page;
        document.set(
            node,
            &format!("<< /Type /Pages /Kids [{} 0 R] /Count 1 /Resources << /Font << /F 5 0 R >> >> >>", node + 1),
        );
        document.set(node + 1, &format!("<< /Type /Page /Contents {} 0 R >>", 1000 + page));
        document.stream(1000 + page, "", format!("BT /F 12 Tf (p{page}) Tj ET").as_bytes());
        kids += &format!("{node} 0 R ");
    }
    document.set(TREE, &format!("<< /Type /Pages /Kids [{kids}] /Count 300 >>"));
    let text = document.text();
    let wanted: String = (0..300).map(|page| format!("p{page}\x0c")).collect();
    assert_eq!(text, wanted);
}
