//! Names, kinds of file and plain text; PDFs have [`inputs`], [`unusual`], [`hostile`] and the documents that ship with
//! the project.

mod build;
mod hostile;
mod inputs;
mod unusual;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use tempfile::TempDir;

use super::*;

/// Every document that ships as sample input and can be read: its pages and its words. The PDFs agree with `pdfinfo`,
/// and with `pdftotext` but for the spacing of formulas.
const SHIPPED: [(&str, u64, u64); 26] = [
    ("allotment-plan.pdf", 2, 285),
    ("almanac-of-daylight.txt", 74, 20285),
    ("bridge-inspection.pdf", 3, 641),
    ("carta-sobre-el-reloj.txt", 1, 255),
    ("clockmakers-notebook.pdf", 3, 513),
    ("electric-telegraph.txt", 1, 738),
    ("empty.txt", 1, 0),
    ("harbour-rules.pdf", 2, 548),
    ("hausordnung-buecherei.txt", 1, 262),
    ("how-leases-work.txt", 1, 728),
    ("le-phare-de-cordouan.txt", 1, 320),
    ("lentil-soup.txt", 1, 335),
    ("liomazoma.txt", 1, 216),
    ("minutes-reading-room-committee.txt", 1, 341),
    ("morse-hand.pdf", 1, 453),
    ("night-shift.txt", 1, 196),
    ("notice-water-works.pdf", 1, 175),
    ("ocha-no-irekata.txt", 1, 17),
    ("printing-glossary.txt", 1, 305),
    ("railway-phrases.pdf", 8, 658),
    ("rainfall-by-station.csv", 1, 106),
    ("rainfall-charts.pdf", 2, 109),
    ("runbook-queue-backlog.txt", 1, 541),
    ("seed-exchange-list.pdf", 3, 491),
    ("thirty-passages.pdf", 32, 4678),
    ("valley-line-timetable.txt", 3, 277),
];

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/process-files/documents")
}

/// What the handler and the reader do, in this process.
fn process(root: &Path, file: &str, progress: &mut dyn FnMut(f64)) -> Result<Report, ProcessError> {
    let mut opened = open::find(root, file)?;
    let counted = count(&mut opened, progress).unwrap().map_err(|fault| fault.into_error(file))?;
    let Counts { bytes, pages, words, characters, sha256 } = counted;
    Ok(Report { file: file.to_owned(), bytes, pages, words, characters, sha256 })
}

fn read(root: &Path, file: &str) -> Result<Report, ProcessError> {
    process(root, file, &mut |_| {})
}

/// A separate root for each test, in a separate folder so that there is an outside.
fn root() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    (folder, root)
}

fn read_bytes(content: &[u8]) -> Result<Report, ProcessError> {
    let (_folder, root) = root();
    fs::write(root.join("a"), content).unwrap();
    read(&root, "a")
}

fn counts(content: &[u8]) -> (u64, u64, u64) {
    let report = read_bytes(content).unwrap();
    (report.pages, report.words, report.characters)
}

#[test]
fn every_shipped_document_reads_with_the_pages_it_has() {
    let mut listed: Vec<String> = fs::read_dir(documents())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "broken-report.pdf")
        .collect();
    listed.sort();
    let read: Vec<(String, u64, u64)> = listed
        .into_iter()
        .map(|name| read(&documents(), &name).unwrap())
        .map(|report| (report.file, report.pages, report.words))
        .collect();
    let expected = SHIPPED.map(|(name, pages, words)| (name.to_owned(), pages, words));
    assert_eq!(read, expected);
}

#[test]
fn the_broken_document_fails_for_good() {
    let error = read(&documents(), "broken-report.pdf").unwrap_err();
    assert!(matches!(error, ProcessError::BrokenPdf { .. }), "{error}");
    assert!(!error.is_retryable());
}

#[test]
fn a_report_has_the_files_length_and_fingerprint() {
    let report = read_bytes(b"abc").unwrap();
    assert_eq!(report.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!((report.bytes, report.file.as_str()), (3, "a"));
    let fields = serde_json::to_value(&report).unwrap();
    let names: Vec<&String> = fields.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 6, "{names:?}");
}

#[test]
fn a_payload_takes_one_field_and_no_other() {
    assert_eq!(serde_json::from_str::<Payload>(r#"{"file": "a.txt"}"#).unwrap().file, "a.txt");
    assert!(serde_json::from_str::<Payload>(r#"{"file": "a.txt", "command": "rm"}"#).is_err());
}

#[test]
fn a_missing_file_is_not_found_in_the_clients_words() {
    let error = read(&documents(), "missing.txt").unwrap_err();
    assert_eq!(error.to_string(), "File not found: missing.txt");
    assert!(!error.is_retryable());
}

#[test]
fn a_name_that_leaves_the_root_is_not_found() {
    let (folder, root) = root();
    fs::write(folder.path().join("secret"), "text").unwrap();
    fs::write(root.join("inside"), "text").unwrap();
    symlink(folder.path().join("secret"), root.join("link")).unwrap();
    symlink(folder.path(), root.join("up")).unwrap();
    symlink("ring", root.join("ring")).unwrap();
    let absolute = root.join("inside").to_str().unwrap().to_owned();
    let long = "x".repeat(5_000);
    let names = [
        "..",
        "../secret",
        "./../secret",
        "up/secret",
        "up/../secret",
        "up",
        "link",
        "ring",
        "/etc/passwd",
        "/dev/null",
        &absolute,
        "no/../../secret",
        "inside/",
        "inside/x",
        "a\0b",
        &long,
    ];
    for name in names {
        let error = read(&root, name).unwrap_err();
        assert!(matches!(error, ProcessError::NotFound { .. }), "{name}: {error}");
    }
}

#[test]
fn a_name_that_stays_below_the_root_is_read() {
    let (_folder, root) = root();
    fs::create_dir(root.join("sub")).unwrap();
    fs::write(root.join("sub/Übersicht 1.txt"), "one two").unwrap();
    symlink("sub/Übersicht 1.txt", root.join("link")).unwrap();
    symlink(&root, root.parent().unwrap().join("root-link")).unwrap();
    for name in ["sub/Übersicht 1.txt", "./sub/../sub//Übersicht 1.txt", "link"] {
        assert_eq!(read(&root, name).unwrap().words, 2);
        assert_eq!(read(&root.with_file_name("root-link"), name).unwrap().file, name);
    }
}

#[test]
fn a_folder_swapped_for_a_link_after_the_check_leads_nowhere() {
    let (folder, root) = root();
    for place in [root.as_path(), folder.path()] {
        fs::create_dir(place.join("sub")).unwrap();
        fs::write(place.join("sub/a"), "text").unwrap();
    }
    let (real_root, path) = open::resolve(&root, "sub/a").unwrap();
    fs::rename(root.join("sub"), root.join("was")).unwrap();
    symlink(folder.path().join("sub"), root.join("sub")).unwrap();
    assert!(matches!(open::open(&real_root, &path, "sub/a"), Err(ProcessError::NotFound { .. })));
}

#[test]
fn only_regular_files_are_read() {
    let (_folder, root) = root();
    fs::create_dir(root.join("folder")).unwrap();
    nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    for name in ["folder", "pipe", "socket", "."] {
        let error = read(&root, name).unwrap_err();
        assert!(matches!(error, ProcessError::NotAFile { .. }), "{name}: {error}");
        assert!(!error.is_retryable());
    }
    assert!(matches!(read(&root, ""), Err(ProcessError::EmptyName)));
}

#[test]
fn a_root_that_is_away_may_come_back() {
    let (_folder, root) = root();
    let error = read(&root.join("unmounted"), "a").unwrap_err();
    assert!(matches!(error, ProcessError::RootUnreadable { .. }) && error.is_retryable(), "{error}");
    assert!(!error.to_string().contains("unmounted"));
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let (_folder, root) = root();
    File::create(root.join("big")).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(read(&root, "big").unwrap_err().to_string(), "File is larger than 64 MiB: big");
}

#[test]
fn an_error_shows_a_name_that_cannot_forge_a_line() {
    let (_folder, root) = root();
    assert_eq!(read(&root, "a\nERROR b").unwrap_err().to_string(), "File not found: a\\u{a}ERROR b");
    assert!(read(&root, &"é".repeat(9_000)).unwrap_err().to_string().len() < 500);
}

#[test]
fn progress_ends_at_1_and_never_falls() {
    for name in ["thirty-passages.pdf", "night-shift.txt"] {
        let mut heard = Vec::new();
        process(&documents(), name, &mut |fraction| heard.push(fraction)).unwrap();
        assert_eq!(heard.last(), Some(&1.0));
        assert!(heard.is_sorted(), "{heard:?}");
    }
}

#[test]
fn a_file_that_grows_over_the_limit_is_refused_by_the_reader_too() {
    let mut endless = std::io::repeat(b'a');
    assert_eq!(count(&mut endless, &mut |_| {}).unwrap(), Err(Fault::TooLarge));
}

#[test]
fn a_form_feed_begins_a_page_unless_it_ends_the_text() {
    assert_eq!(counts(b"one\x0ctwo\x0cthree"), (3, 3, 13));
    assert_eq!(counts(b"one\x0ctwo\x0c"), (2, 2, 8));
    assert_eq!(counts(b"\x0c\x0c"), (2, 0, 2));
}

#[test]
fn text_is_counted_the_same_in_every_encoding_it_comes_in() {
    let text = "Où est passé l’œuf du petit déjeuner ? — «là-bas, sous le chapeau»";
    let characters = text.chars().count() as u64;
    let words = text.split_whitespace().count() as u64;
    let utf_16 = |order: fn(u16) -> [u8; 2], mark: [u8; 2]| {
        mark.into_iter().chain(text.encode_utf16().flat_map(order)).collect::<Vec<u8>>()
    };
    let encoded = [
        text.as_bytes().to_vec(),
        [b"\xEF\xBB\xBF", text.as_bytes()].concat(),
        utf_16(u16::to_le_bytes, [0xFF, 0xFE]),
        utf_16(u16::to_be_bytes, [0xFE, 0xFF]),
        b"O\xF9 est pass\xE9 l\x92\x9Cuf du petit d\xE9jeuner ? \x97 \xABl\xE0-bas, sous le chapeau\xBB".to_vec(),
    ];
    for content in encoded {
        let padded = [content.as_slice(), &[0; 64]].concat();
        assert_eq!(counts(&padded), (1, words, characters), "{padded:?}");
        assert_eq!(counts(&content), (1, words, characters), "{content:?}");
    }
}

#[test]
fn a_text_with_a_few_bad_bytes_stays_what_it_is() {
    assert_eq!(counts("d\u{e9}j\u{e0} vu \u{e0} l'\u{e9}cole".as_bytes()), (1, 4, 17));
    assert_eq!(counts(b"d\xC3\xA9j\xC3\xA0 vu \xC3 l'\xC3\xA9cole"), (1, 4, 17));
    assert_eq!(counts(b"caf\xE9 cr\xE8me"), (1, 2, 10), "Windows-1252");
    let half = [
        b"\xFF\xFE".as_slice(),
        &"word ".repeat(100).encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
        b"\x00\xD8",
    ]
    .concat();
    assert_eq!(counts(&half), (1, 101, 501));
}

#[test]
fn what_is_no_text_is_refused_for_good() {
    let shift_jis = b"\x82\xA8\x92\x83\x82\xCC\x93\xFC\x82\xEA\x95\xFB\n".repeat(20);
    let every_byte: Vec<u8> = (1..=255).collect();
    let refused: [&[u8]; 7] = [
        b"\x89PNG\r\n\x1a\n\0\0",
        b"\x7FELF\0\0",
        b"\0",
        &shift_jis,
        &every_byte,
        b"\xFF\xFEa",
        b"\x01\x02\x03\x04 mostly controls",
    ];
    for content in refused {
        let error = read_bytes(content).unwrap_err();
        assert!(matches!(error, ProcessError::NotText { .. }) && !error.is_retryable(), "{content:?}: {error}");
    }
}

#[test]
fn a_pdf_is_told_by_its_content_and_not_by_its_name() {
    let (_folder, root) = root();
    let pdf = fs::read(documents().join("night-shift.txt").with_file_name("clockmakers-notebook.pdf")).unwrap();
    fs::write(root.join("pdf.txt"), &pdf).unwrap();
    fs::write(root.join("late.txt"), [b"HTTP/1.1 200 OK\r\n\r\n", pdf.as_slice()].concat()).unwrap();
    fs::write(root.join("marked"), [b"\xEF\xBB\xBF", pdf.as_slice()].concat()).unwrap();
    fs::write(root.join("behind-bytes"), [b"\x00\x05junk", pdf.as_slice()].concat()).unwrap();
    fs::write(root.join("text.pdf"), "plain words").unwrap();
    fs::write(root.join("prose.txt"), "A PDF begins with %PDF-1.7 or the like.").unwrap();
    for (name, pages, words) in [
        ("pdf.txt", 3, 513),
        ("late.txt", 3, 513),
        ("marked", 3, 513),
        ("behind-bytes", 3, 513),
        ("text.pdf", 1, 2),
        ("prose.txt", 1, 8),
    ] {
        let report = read(&root, name).unwrap();
        assert_eq!((report.pages, report.words), (pages, words), "{name}");
    }
}
