//! Plain text: recognizes, decodes and counts it.

/// The maximum percentage of control characters that text does not use.
const CONTROLS_PERCENT_MAX: usize = 1;
/// The maximum percentage of bytes outside ASCII in text that is not UTF-8. French in Windows-1252 has about 4; text in
/// another script or a compressed file has 50 and more, and its words would be counted wrong.
const FOREIGN_PERCENT_MAX: usize = 30;

/// Windows-1252 from 0x80 to 0x9F; the rest of it is Latin-1. Its five unassigned codes map to themselves.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', //
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Receives a text as it is read.
pub(in crate::kinds) trait Sink {
    /// The next character.
    fn push(&mut self, character: char);
    /// A page ends here.
    fn end_page(&mut self);
}

/// Counts a text that arrives in pieces.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub words: u64,
    pub characters: u64,
    in_word: bool,
}

impl Tally {
    pub fn push(&mut self, character: char) {
        self.characters += 1;
        let in_word = !character.is_whitespace();
        self.words += u64::from(in_word && !self.in_word);
        self.in_word = in_word;
    }
}

impl Sink for Tally {
    fn push(&mut self, character: char) {
        Tally::push(self, character);
    }

    /// Ends the current word, without counting a character.
    fn end_page(&mut self) {
        self.in_word = false;
    }
}

/// Counts the pages, words and characters of a plain text. The error says why it is not text.
pub(super) fn count(bytes: &[u8]) -> Result<(u64, Tally), String> {
    let mut tally = Tally::default();
    let mut pages = 1;
    let mut after_feed = false;
    read(bytes, |character| {
        pages += u64::from(after_feed);
        after_feed = character == '\u{c}';
        tally.push(character);
    })?;
    Ok((pages, tally))
}

/// Reads a plain text. The error says why it is not text; nothing has been read then.
///
/// UTF-8, with or without a byte order mark; UTF-16 with one; anything else that looks like text, as Windows-1252.
pub(in crate::kinds) fn read(bytes: &[u8], take: impl FnMut(char)) -> Result<(), String> {
    match bytes {
        [0xFF, 0xFE, rest @ ..] => utf_16(rest, u16::from_le_bytes, take),
        [0xFE, 0xFF, rest @ ..] => utf_16(rest, u16::from_be_bytes, take),
        [0xEF, 0xBB, 0xBF, rest @ ..] => single_byte_or_utf_8(rest, take),
        _ => single_byte_or_utf_8(bytes, take),
    }
}

fn utf_16(bytes: &[u8], unit: fn([u8; 2]) -> u16, take: impl FnMut(char)) -> Result<(), String> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let text: Result<String, _> = char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect();
    match text {
        Ok(text) if odd.is_empty() && !text.contains('\0') => {
            text.chars().for_each(take);
            Ok(())
        }
        _ => Err("it has a UTF-16 byte order mark but is not UTF-16".to_owned()),
    }
}

fn single_byte_or_utf_8(bytes: &[u8], take: impl FnMut(char)) -> Result<(), String> {
    if bytes.contains(&0) {
        return Err("it contains NUL bytes".to_owned());
    }
    let controls = bytes.iter().filter(|byte| is_stray_control(**byte)).count();
    if controls * 100 > bytes.len() * CONTROLS_PERCENT_MAX {
        return Err(format!("{controls} of its {} bytes are control characters", bytes.len()));
    }
    if let Ok(text) = str::from_utf8(bytes) {
        text.chars().for_each(take);
        return Ok(());
    }
    let foreign = bytes.iter().filter(|byte| !byte.is_ascii()).count();
    if foreign * 100 > bytes.len() * FOREIGN_PERCENT_MAX {
        return Err("it is not UTF-8, and too little of it is ASCII for a text in Windows-1252".to_owned());
    }
    bytes.iter().map(|byte| windows_1252(*byte)).for_each(take);
    Ok(())
}

/// A control character other than white space, backspace (overstrike), escape (coloured logs) and the DOS end-of-file
/// mark.
fn is_stray_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, 0x08..=0x0D | 0x1A | 0x1B)
}

fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9F => WINDOWS_1252[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}
