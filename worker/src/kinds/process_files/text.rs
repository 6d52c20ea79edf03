//! Plain text: recognizes, decodes and counts it.

/// The maximum percentage of control characters that text does not use.
const CONTROLS_PERCENT_MAX: usize = 1;
/// The maximum percentage of bytes outside ASCII in text that is not UTF-8. French in Windows-1252 has about 4; text in
/// another script or a compressed file has 50 and more, and its words would be counted wrong.
const FOREIGN_PERCENT_MAX: usize = 30;
/// The maximum percentage of halves of pairs in UTF-16 that stand alone.
const BAD_PERCENT_MAX: usize = 1;

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

/// Counts a text that arrives in pieces. A word is what stands between white space.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub words: u64,
    pub characters: u64,
    in_word: bool,
    /// Whether the lines end where the page does, not where the author ended them: a word may go on in the next line.
    is_laid_out: bool,
    /// The last two characters that are not white space, the last one second.
    last: (char, char),
    /// Line ends, and other white space, since then.
    breaks: usize,
    spaces: usize,
}

impl Tally {
    /// For the text of a page.
    pub fn of_page() -> Self {
        Self { is_laid_out: true, ..Self::default() }
    }

    pub fn push(&mut self, character: char) {
        self.characters += 1;
        if character.is_whitespace() {
            self.in_word = false;
            self.breaks += usize::from(character == '\n');
            self.spaces += usize::from(character != '\n');
            return;
        }
        let goes_on = self.in_word || (self.is_laid_out && self.goes_on_with(character));
        self.words += u64::from(!goes_on);
        (self.in_word, self.breaks, self.spaces) = (true, 0, 0);
        self.last = (self.last.1, character);
    }

    /// Whether a word that the last line ended in goes on with this character: after a hyphen, and in a script without
    /// spaces.
    fn goes_on_with(&self, character: char) -> bool {
        let is_hyphen = matches!(self.last.1, '-' | '\u{2010}') && self.last.0.is_alphabetic();
        let is_hyphenated = self.last.1 == '\u{ad}' || (is_hyphen && character.is_lowercase());
        let are_ideographs = self.spaces == 0 && is_ideograph(self.last.1) && is_ideograph(character);
        self.breaks == 1 && (is_hyphenated || are_ideographs)
    }
}

impl Sink for Tally {
    fn push(&mut self, character: char) {
        Tally::push(self, character);
    }

    /// Ends the current word, without counting a character.
    fn end_page(&mut self) {
        (self.in_word, self.breaks) = (false, 0);
    }
}

/// A character of a script that is written without spaces: Chinese and Japanese.
pub(super) fn is_ideograph(character: char) -> bool {
    matches!(character, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
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

/// Reads a plain text. The error says why it is not text; nothing has been read then. NUL characters at its end are
/// left out: some programs fill up a block with them.
///
/// UTF-8, with or without a byte order mark; UTF-16 with one; anything else that looks like text, as Windows-1252. A
/// byte that does not belong in UTF-8 is one U+FFFD if most of the characters outside ASCII are UTF-8.
pub(in crate::kinds) fn read(bytes: &[u8], take: impl FnMut(char)) -> Result<(), String> {
    match bytes {
        [0xFF, 0xFE, rest @ ..] => utf_16(rest, u16::from_le_bytes, take),
        [0xFE, 0xFF, rest @ ..] => utf_16(rest, u16::from_be_bytes, take),
        [0xEF, 0xBB, 0xBF, rest @ ..] => single_byte_or_utf_8(rest, take),
        _ => single_byte_or_utf_8(bytes, take),
    }
}

fn utf_16(bytes: &[u8], unit: fn([u8; 2]) -> u16, mut take: impl FnMut(char)) -> Result<(), String> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let pairs = &pairs[..pairs.len() - pairs.iter().rev().take_while(|pair| **pair == [0; 2]).count()];
    let characters = || char::decode_utf16(pairs.iter().map(|pair| unit(*pair)));
    let bad = characters().filter(|character| matches!(character, Err(_) | Ok('\0'))).count();
    let has_nul = characters().any(|character| character == Ok('\0'));
    if !odd.is_empty() || has_nul || bad * 100 > pairs.len() * BAD_PERCENT_MAX {
        return Err("it has a UTF-16 byte order mark but is not UTF-16".to_owned());
    }
    characters().for_each(|character| take(character.unwrap_or(char::REPLACEMENT_CHARACTER)));
    Ok(())
}

fn single_byte_or_utf_8(bytes: &[u8], mut take: impl FnMut(char)) -> Result<(), String> {
    let length = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let text = &bytes[..length];
    if text.contains(&0) || (text.is_empty() && !bytes.is_empty()) {
        return Err("it contains NUL bytes".to_owned());
    }
    // The DOS end-of-file mark, which only the end may have.
    let marks = text.iter().rev().take_while(|byte| **byte == 0x1A).count();
    let controls = text[..length - marks].iter().filter(|byte| is_stray_control(**byte)).count();
    if controls * 100 > text.len() * CONTROLS_PERCENT_MAX {
        return Err(format!("{controls} of its {} bytes are control characters", text.len()));
    }
    let (mut good, mut bad) = (0, 0);
    for chunk in text.utf8_chunks() {
        good += chunk.valid().chars().filter(|character| !character.is_ascii()).count();
        bad += usize::from(!chunk.invalid().is_empty());
    }
    if bad == 0 || good > bad {
        for chunk in text.utf8_chunks() {
            chunk.valid().chars().for_each(&mut take);
            if !chunk.invalid().is_empty() {
                take(char::REPLACEMENT_CHARACTER);
            }
        }
        return Ok(());
    }
    let foreign = text.iter().filter(|byte| !byte.is_ascii()).count();
    if foreign * 100 > text.len() * FOREIGN_PERCENT_MAX {
        return Err("it is not UTF-8, and too little of it is ASCII for a text in Windows-1252".to_owned());
    }
    text.iter().map(|byte| windows_1252(*byte)).for_each(take);
    Ok(())
}

/// A control character other than white space, backspace (overstrike) and escape (coloured logs).
fn is_stray_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, 0x08..=0x0D | 0x1B)
}

fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9F => WINDOWS_1252[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}
