//! The graphics state of a page, and the operators that change it.

use std::rc::Rc;

use hayro_syntax::object::Object;

use super::Refusal;
use super::font::Face;
use super::layout::{Place, Point};

/// How deep the graphics state may be saved within one stream.
const SAVED_MAX: usize = 10_000;

/// The graphics state, as far as text needs it.
#[derive(Clone)]
pub(super) struct State<'a> {
    /// From user space to the page.
    pub matrix: Matrix,
    pub font: Option<Rc<Face<'a>>>,
    pub size: f64,
    pub character_spacing: f64,
    pub word_spacing: f64,
    /// Horizontal scaling, 1 if there is none.
    pub stretch: f64,
    pub leading: f64,
}

impl State<'_> {
    pub fn new() -> Self {
        let (character_spacing, word_spacing, leading) = (0.0, 0.0, 0.0);
        Self { matrix: UNIT, font: None, size: 1.0, character_spacing, word_spacing, stretch: 1.0, leading }
    }
}

pub(super) type Matrix = [f64; 6];
pub(super) const UNIT: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// The matrix that applies `first`, then `second`.
pub(super) fn product(first: Matrix, second: Matrix) -> Matrix {
    let [a, b, c, d, e, f] = first;
    let [p, q, r, s, t, u] = second;
    [a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s, e * p + f * r + t, e * q + f * s + u]
}

/// Reading one stream of a page: its content, or a form.
pub(super) struct Pen<'a> {
    pub state: State<'a>,
    pub saved: Vec<State<'a>>,
    pub text_matrix: Matrix,
    pub line_matrix: Matrix,
    pub marks: Vec<Option<Mark>>,
}

/// Marked content that has a text of its own instead of what is drawn.
pub(super) struct Mark {
    pub text: String,
    pub place: Option<Place>,
}

impl Pen<'_> {
    /// Applies an operator that changes the state; one with wrong operands, or of another kind, does nothing.
    pub fn apply(&mut self, operator: &[u8], operands: &[&Object<'_>]) -> Result<(), Refusal> {
        let last = || operands.last().and_then(|operand| number(operand));
        match operator {
            b"q" if self.saved.len() == SAVED_MAX => {
                let reason = format!("it saves its graphics state more than {SAVED_MAX} times");
                return Err(Refusal::TooCostly(reason));
            }
            b"q" => self.saved.push(self.state.clone()),
            b"Q" => {
                if let Some(saved) = self.saved.pop() {
                    self.state = saved;
                }
            }
            b"cm" => {
                if let Some(matrix) = matrix(operands) {
                    self.state.matrix = product(matrix, self.state.matrix);
                }
            }
            b"BT" => (self.text_matrix, self.line_matrix) = (UNIT, UNIT),
            b"Tm" => {
                if let Some(matrix) = matrix(operands) {
                    (self.text_matrix, self.line_matrix) = (matrix, matrix);
                }
            }
            b"Td" | b"TD" => {
                if let [.., x, y] = operands
                    && let (Some(x), Some(y)) = (number(x), number(y))
                {
                    self.state.leading = if operator == b"TD" { -y } else { self.state.leading };
                    self.next_line(x, y);
                }
            }
            b"T*" => self.next_line(0.0, -self.state.leading),
            b"Tc" => self.state.character_spacing = last().unwrap_or(self.state.character_spacing),
            b"Tw" => self.state.word_spacing = last().unwrap_or(self.state.word_spacing),
            b"Tz" => self.state.stretch = last().map_or(self.state.stretch, |percent| percent / 100.0),
            b"TL" => self.state.leading = last().unwrap_or(self.state.leading),
            _ => {}
        }
        Ok(())
    }

    pub fn next_line(&mut self, x: f64, y: f64) {
        self.line_matrix = product([1.0, 0.0, 0.0, 1.0, x, y], self.line_matrix);
        self.text_matrix = self.line_matrix;
    }

    /// Moves the pen along the line, in units of text space.
    pub fn advance(&mut self, by: f64, is_vertical: bool) {
        let (x, y) = if is_vertical { (0.0, -by) } else { (by * self.state.stretch, 0.0) };
        self.text_matrix = product([1.0, 0.0, 0.0, 1.0, x, y], self.text_matrix);
    }

    /// Where the pen is on the page.
    pub fn place(&self) -> Point {
        let [.., x, y] = product(self.text_matrix, self.state.matrix);
        (x, y)
    }

    /// The place of what was drawn from `start` to the pen.
    pub fn line(&self, start: Point, is_vertical: bool) -> Place {
        let [a, b, c, d, ..] = product(self.text_matrix, self.state.matrix);
        let forwards = self.state.size.signum();
        let (x, y) =
            if is_vertical { (-c, -d) } else { (a * self.state.stretch.signum(), b * self.state.stretch.signum()) };
        let length = x.hypot(y).max(f64::MIN_POSITIVE);
        let along = (x / length * forwards, y / length * forwards);
        let size = self.state.size.abs() * (a * d - b * c).abs().sqrt();
        Place { start, end: self.place(), along, size }
    }
}

pub(super) fn number(operand: &Object<'_>) -> Option<f64> {
    match operand {
        Object::Number(number) => Some(number.as_f64()).filter(|number| number.is_finite()),
        _ => None,
    }
}

pub(super) fn matrix(operands: &[&Object<'_>]) -> Option<Matrix> {
    let numbers: Vec<f64> = operands.iter().filter_map(|operand| number(operand)).collect();
    numbers.try_into().ok()
}
