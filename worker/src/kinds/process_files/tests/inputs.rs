//! Documents that other readers read, and that one reader or another once got wrong: their pages, words and characters.

use super::*;

macro_rules! inputs {
    ($($name:literal: $pages:literal, $words:literal, $characters:literal;)*) => {
        [$(($name, include_bytes!(concat!("inputs/", $name)).as_slice(), ($pages, $words, $characters))),*]
    };
}

#[test]
fn each_input_gives_what_a_person_counts() {
    let inputs = inputs! {
        "bom-before-header.pdf": 1, 6, 33;
        "cmap-gbk-euc-h.pdf": 1, 2, 7;
        "cmap-gbk-with-tounicode.pdf": 1, 1, 2;
        "comment-then-indent.pdf": 1, 6, 33;
        "contents-of-a-missing-object.pdf": 2, 6, 33;
        "embedded-cmap-one-byte.pdf": 1, 1, 1;
        "encrypt-null.pdf": 1, 6, 33;
        "encrypted-aes-128.pdf": 1, 6, 33;
        "encrypted-aes-256.pdf": 1, 6, 33;
        "encrypted-rc4-128.pdf": 1, 6, 33;
        "filter-asciihex.pdf": 1, 6, 33;
        "kids-cycle.pdf": 1, 6, 33;
        "length-missing.pdf": 1, 6, 33;
        "length-wrong-on-page-2.pdf": 2, 12, 66;
        "letter-spaced.pdf": 1, 3, 19;
        "no-eof.pdf": 1, 6, 33;
        "nul-as-white-space.pdf": 1, 10, 50;
        "startxref-one-off.pdf": 1, 6, 33;
        "tounicode-is-a-name.pdf": 1, 1, 2;
        "type0-font-lost.pdf": 1, 1, 2;
        "utf8-french-one-bad-byte.txt": 1, 240, 1081;
    };
    for (name, bytes, wanted) in inputs {
        let report = read_bytes(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((report.pages, report.words, report.characters), wanted, "{name}");
    }
}

#[test]
fn predefined_maps_lead_to_the_characters_they_stand_for() {
    let inputs = [
        (
            include_bytes!("inputs/cmap-gbk-euc-h.pdf").as_slice(),
            "\u{6e2f}\u{53e3}\u{89c4}\u{5219}\u{2002}\u{591c}\u{73ed}\x0c",
        ),
        (include_bytes!("inputs/cmap-gbk-with-tounicode.pdf"), "\u{6e2f}\u{53e3}\x0c"),
        (include_bytes!("inputs/tounicode-is-a-name.pdf"), "ab\x0c"),
    ];
    for (bytes, wanted) in inputs {
        assert_eq!(build::text_of(bytes).unwrap(), wanted);
    }
}
