//! Splits running text into blocks and sentences, and keeps the sentences that state a gap, and the URLs.
use super::cues;
use crate::kinds::process_files::content::Sink;

/// The maximum size of a block, in bytes; a longer one is processed up to its last complete sentence.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// The maximum size of a statement, in bytes; a longer sentence is cut, and is not a statement if its cue is cut off.
const STATEMENT_BYTES_MAX: usize = 600;
/// The minimum number of words of a statement: fewer are likely a heading.
const STATEMENT_WORDS_MIN: usize = 4;
/// Statements kept of one document.
const STATEMENTS_MAX: usize = 300;
/// URLs kept of one text.
const URLS_MAX: usize = 10_000;
/// Abbreviations, whose full stop does not end a sentence.
const ABBREVIATIONS: [&str; 26] = [
    "al", "approx", "ca", "cf", "ch", "dr", "e.g", "ed", "eds", "eq", "eqs", "etc", "fig", "figs", "i.e", "mr", "mrs",
    "ms", "no", "nos", "pp", "prof", "ref", "refs", "st", "vs",
];

/// Collects statements and URLs from text.
pub(super) struct Prose {
    /// Line breaks are significant: an empty line ends a block, and a hyphen at the end of a line splits a word.
    has_lines: bool,
    block: String,
    breaks: usize,
    is_spaced: bool,
    statements: Vec<String>,
    urls: Vec<String>,
}

impl Prose {
    /// For plain text and PDF.
    pub fn of_lines() -> Self {
        let (block, statements, urls) = (String::new(), Vec::new(), Vec::new());
        Self { has_lines: true, block, breaks: 0, is_spaced: false, statements, urls }
    }

    /// For HTML, where a line break is a space.
    pub fn of_markup() -> Self {
        Self { has_lines: false, ..Self::of_lines() }
    }

    /// Takes a character.
    pub fn push(&mut self, character: char) {
        if character.is_whitespace() {
            self.is_spaced = true;
            self.breaks += usize::from(character == '\n' && self.has_lines);
            if self.breaks == 2 {
                self.end_block();
            }
            return;
        }
        if character.is_control() || matches!(character, '\u{ad}' | '\u{200b}' | '\u{feff}') {
            return;
        }
        if std::mem::take(&mut self.is_spaced) && !self.block.is_empty() {
            let mut last = self.block.chars().rev();
            let is_hyphenated = (last.next(), last.next().is_some_and(char::is_alphabetic)) == (Some('-'), true);
            if self.breaks == 1 && is_hyphenated && character.is_lowercase() {
                self.block.pop();
            } else {
                self.block.push(' ');
            }
        }
        self.breaks = 0;
        match character {
            '\u{fb00}' => self.block.push_str("ff"),
            '\u{fb01}' => self.block.push_str("fi"),
            '\u{fb02}' => self.block.push_str("fl"),
            '\u{fb03}' => self.block.push_str("ffi"),
            '\u{fb04}' => self.block.push_str("ffl"),
            character => self.block.push(character),
        }
        if self.block.len() > BLOCK_BYTES_MAX {
            let block = std::mem::take(&mut self.block);
            let rest = self.take_in(&block);
            // Text without the end of a sentence is not prose.
            self.block = if rest > 0 { block[rest..].to_owned() } else { String::new() };
        }
    }

    /// Ends the block, and so its last sentence.
    pub fn end_block(&mut self) {
        let block = std::mem::take(&mut self.block);
        let rest = self.take_in(&block);
        self.consider(&block[rest..]);
        (self.breaks, self.is_spaced) = (0, false);
    }

    /// The statements and the URLs, in their order.
    pub fn finish(mut self) -> (Vec<String>, Vec<String>) {
        self.end_block();
        (self.statements, self.urls)
    }

    /// Processes a block up to the end of its last complete sentence, and returns where that is.
    fn take_in(&mut self, block: &str) -> usize {
        let (sentences, rest) = sentences(block);
        sentences.into_iter().for_each(|sentence| self.consider(sentence));
        rest
    }

    fn consider(&mut self, sentence: &str) {
        if self.has_lines && self.urls.len() < URLS_MAX {
            self.urls.extend(urls(sentence).map(str::to_owned));
        }
        let statement = leasehold::job::cut(sentence.trim(), STATEMENT_BYTES_MAX);
        let has_words = statement.split(' ').nth(STATEMENT_WORDS_MIN - 1).is_some();
        if has_words && self.statements.len() < STATEMENTS_MAX && cues::has_cue(statement) {
            self.statements.push(statement.to_owned());
        }
    }
}

impl Sink for Prose {
    fn push(&mut self, character: char) {
        Prose::push(self, character);
    }

    /// Does nothing: a sentence may continue on the next page.
    fn end_page(&mut self) {
        Prose::push(self, '\n');
        self.breaks = self.breaks.min(1);
    }
}

/// The sentences of a block, and where the incomplete rest begins.
fn sentences(block: &str) -> (Vec<&str>, usize) {
    let (mut sentences, mut start) = (Vec::new(), 0);
    for (at, mark) in block.match_indices(['.', '!', '?', '\u{3002}']) {
        if at < start {
            continue;
        }
        let after = &block[at + mark.len()..];
        let closing =
            after.len() - after.trim_start_matches(['"', '\'', ')', ']', '\u{201d}', '\u{2019}', '\u{bb}']).len();
        let end = at + mark.len() + closing;
        let Some(next) = block[end..].strip_prefix(' ') else {
            if end == block.len() {
                sentences.push(&block[start..]);
                start = end;
            }
            continue;
        };
        let begins = next.chars().next().is_some_and(|next| !next.is_lowercase());
        if begins && (mark != "." || !is_abbreviation(&block[start..at])) {
            sentences.push(&block[start..end]);
            start = end;
        }
    }
    (sentences, start)
}

/// Whether the full stop after this text belongs to an abbreviation or an initial.
fn is_abbreviation(text: &str) -> bool {
    let word = text.rsplit([' ', '(', '[']).next().unwrap_or_default();
    let is_initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    is_initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

/// The URLs in a text, without the punctuation that follows them.
fn urls(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '<', '>', '"', '\u{201c}', '\u{201d}']).filter_map(|word| {
        let at = word.find("http://").into_iter().chain(word.find("https://")).min()?;
        let mut url = &word[at..];
        loop {
            let shorter = url.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', ']', '}']);
            let shorter = match shorter.strip_suffix(')') {
                // A closing bracket belongs to the URL if it was opened within.
                Some(inner) if inner.matches('(').count() <= inner.matches(')').count() => inner,
                _ => shorter,
            };
            if shorter.len() == url.len() {
                return Some(url);
            }
            url = shorter;
        }
    })
}
