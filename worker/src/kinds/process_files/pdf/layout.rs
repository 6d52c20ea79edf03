//! From characters and their places to text: where a space and where a line end is.

use crate::kinds::process_files::text::{Sink, is_ideograph};

/// The gap that parts two words, in font sizes.
const WORD_GAP: f64 = 0.1;
/// The same between two ideographs or kana, which are set apart to fill a line.
const IDEOGRAPH_GAP: f64 = 0.4;
/// How far a character must be across the line to begin another one, in font sizes; [`LINE_SHIFT`] if it is also
/// further back.
const LINE_GAP: f64 = 1.5;
const LINE_SHIFT: f64 = 0.5;
/// Letter-spaced text: at least so many single letters in a row, set apart by less than this, in font sizes. Gaps that
/// exceed the smallest one by more than the tolerance part words.
const SPACED_LETTERS_MIN: usize = 4;
const SPACED_GAP_MAX: f64 = 0.7;
const SPACED_TOLERANCE: f64 = 0.07;

/// A point on the page.
pub(super) type Point = (f64, f64);

/// Where a piece of text was drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub start: Point,
    pub end: Point,
    /// The direction of the line: of length 1.
    pub along: Point,
    /// The size of the font.
    pub size: f64,
}

/// The text of a page, as it is drawn.
pub(super) struct PageText<'s> {
    sink: &'s mut dyn Sink,
    line: Vec<Piece>,
    end: Point,
    is_empty: bool,
}

/// Characters without a gap between them, or one white-space character.
#[derive(Debug)]
struct Piece {
    text: String,
    /// The gap before it, in font sizes; 0 if there is none.
    gap: f64,
}

impl<'s> PageText<'s> {
    pub fn new(sink: &'s mut dyn Sink) -> Self {
        Self { sink, line: Vec::new(), end: (0.0, 0.0), is_empty: true }
    }

    /// Takes the next piece of text. `may_jump`: there may be a gap before it.
    pub fn push(&mut self, text: &str, place: Place, may_jump: bool) {
        let mut gap = 0.0;
        if may_jump && !self.is_empty {
            let (x, y) = (place.start.0 - self.end.0, place.start.1 - self.end.1);
            let (right, up) = place.along;
            let size = place.size.max(f64::MIN_POSITIVE);
            let (along, across) = ((x * right + y * up) / size, (y * right - x * up).abs() / size);
            if across > LINE_GAP || (across > LINE_SHIFT && along < 0.0) {
                self.end_line();
                self.sink.push('\n');
            } else if along < -1.0 {
                gap = f64::INFINITY;
            } else if along > self.gap_before(text) {
                gap = along;
            }
        }
        for character in text.chars() {
            match self.line.last_mut() {
                Some(piece) if gap == 0.0 && !character.is_whitespace() && !piece.is_space() => {
                    piece.text.push(character)
                }
                _ => self.line.push(Piece { text: character.to_string(), gap }),
            }
            gap = 0.0;
        }
        self.end = place.end;
        self.is_empty = false;
    }

    /// The gap that parts this text from the line so far.
    fn gap_before(&self, text: &str) -> f64 {
        let last = self.line.last().and_then(|piece| piece.text.chars().next_back());
        let are_ideographs = last.is_some_and(is_ideograph) && text.chars().next().is_some_and(is_ideograph);
        if are_ideographs { IDEOGRAPH_GAP } else { WORD_GAP }
    }

    /// Ends the page.
    pub fn finish(mut self) {
        self.end_line();
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        join_spaced_letters(&mut line);
        let mut after_space = true;
        for piece in &line {
            let is_space = piece.is_space();
            if piece.gap > 0.0 && !is_space && !after_space {
                self.sink.push(' ');
            }
            piece.text.chars().for_each(|character| self.sink.push(character));
            after_space = is_space;
        }
    }
}

impl Piece {
    fn is_space(&self) -> bool {
        self.text.chars().all(char::is_whitespace)
    }

    fn is_letter(&self) -> bool {
        let mut characters = self.text.chars();
        characters.next().is_some_and(char::is_alphanumeric) && characters.next().is_none()
    }
}

/// Removes the gaps within words whose letters are set apart.
fn join_spaced_letters(line: &mut [Piece]) {
    let mut start = 0;
    while start < line.len() {
        let length = line[start..].iter().take_while(|piece| piece.is_letter() || piece.is_space()).count();
        let run = &mut line[start..start + length];
        start += length.max(1);
        let letters = run.iter().filter(|piece| !piece.is_space());
        let (count, alphabetic) = letters.fold((0, 0), |(count, alphabetic), piece| {
            (count + 1, alphabetic + usize::from(piece.text.chars().all(char::is_alphabetic)))
        });
        // Digits in a row are the cells of a table.
        if count < SPACED_LETTERS_MIN || alphabetic * 2 < count {
            continue;
        }
        let within = (1..run.len()).filter(|at| !run[*at].is_space() && !run[at - 1].is_space());
        let smallest = within.map(|at| run[at].gap).fold(f64::INFINITY, f64::min);
        if smallest <= SPACED_GAP_MAX {
            run.iter_mut()
                .skip(1)
                .filter(|piece| piece.gap <= smallest + SPACED_TOLERANCE)
                .for_each(|piece| piece.gap = 0.0);
        }
    }
}
