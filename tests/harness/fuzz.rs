//! Everything that reads foreign bytes, as functions of bytes: for the fuzzers (`fuzz/`), for the replay of the
//! corpus, and for the mutations that `make fuzz` runs on a stable toolchain.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use leasehold::tokens::Tokens;
use leasehold::{JobId, Json, Kind, Kinds, QueueName, Timestamp, WorkerId};
use leasehold_worker::kinds::analyze_audio;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// The largest input that mutation makes, bytes.
const BYTES_MAX: usize = 256 << 10;
/// Words that mean something to one parser or another.
const WORDS: [&[u8]; 28] = [
    b"null",
    b"NaN",
    b"-1",
    b"18446744073709551616",
    b"1e999",
    b"{\"",
    b"[[[[[[[[",
    b"\\u0000",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\r\n",
    b"--x\r\n",
    b"--x--",
    b"name=\"files\"",
    b"filename*=UTF-8''%ff",
    b"obj",
    b"endstream",
    b"/Length 99999999",
    b"/Kids [1 0 R]",
    b"<00000000> <FFFFFFFF>",
    b"RIFF",
    b"data",
    b"OggS",
    b"<base href=",
    b"{\"result\": ",
];

/// A parser: its name, which is that of its corpus, and a call that reads bytes and must return.
pub type Target = (&'static str, fn(&[u8]));

/// The parsers that need neither Redis nor another process.
pub const TARGETS: [Target; 8] = [
    ("json", json),
    ("names", names),
    ("kinds", kinds),
    ("tokens", tokens),
    ("command", leasehold_worker::fuzz::command_output),
    ("document", leasehold_worker::fuzz::document),
    ("web", leasehold_worker::fuzz::web_document),
    ("audio", audio),
];

/// Gives bytes to the parser of that name.
///
/// # Panics
/// When there is none of that name, or the parser panics.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    target.unwrap_or_else(|| panic!("there is no target {name}")).1(bytes);
}

/// The inputs of a parser, by path.
///
/// # Panics
/// When its folder is missing or empty.
pub fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    assert!(!paths.is_empty(), "{} has no inputs", folder.display());
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// Another input, made of one or two of the corpus.
pub fn mutated(corpus: &[(PathBuf, Vec<u8>)], random: &mut StdRng) -> Vec<u8> {
    let any = |random: &mut StdRng| &corpus[random.random_range(0..corpus.len())].1;
    let mut bytes = any(random).clone();
    for _ in 0..random.random_range(1..=8) {
        let length = bytes.len();
        let at = random.random_range(0..=length);
        let end = (at + random.random_range(0..=16)).min(length);
        match random.random_range(0..7) {
            0 if at < length => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < length => random.fill_bytes(&mut bytes[at..end]),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let word = WORDS[random.random_range(0..WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            5 => {
                let piece = bytes[at..].to_vec();
                bytes.extend(piece);
            }
            _ => {
                let other = any(random);
                let from = random.random_range(0..=other.len());
                bytes.splice(at..end, other[from..].iter().copied());
            }
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

/// JSON of a client: a payload, and the job that an API or a worker reads.
fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(json) = Json::parse(text, 64, 1 << 16) {
        let again = Json::parse(json.as_str(), 64, 1 << 16).expect("what was accepted is accepted again");
        assert_eq!(again, json);
    }
    drop(serde_json::from_str::<leasehold::Job>(text));
}

/// The names and times that stand in URLs and headers.
fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    drop((JobId::parse(&text), Kind::parse(&text), QueueName::parse(&text), WorkerId::parse(&text)));
    drop(leasehold::files::name::check(&text));
    if let Ok(time) = Timestamp::parse(&text) {
        drop(time.to_string());
    }
}

fn kinds(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(kinds) = Kinds::parse(&text, PathBuf::from("/nowhere")) {
        drop((kinds.published().digest(), kinds.missing_programs()));
    }
}

fn tokens(bytes: &[u8]) {
    drop(Tokens::parse(&String::from_utf8_lossy(bytes)));
}

fn temporary(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(bytes).expect("a temporary file can be written");
    file
}

fn audio(bytes: &[u8]) {
    let file = temporary(bytes);
    let file = File::open(file.path()).expect("a temporary file can be read");
    drop(analyze_audio::analyze(file, &|| false, &mut |_| {}));
}
