//! Output: tables and lists for people, JSON for programs. A closed pipe is an error for `main` to forgive, never a panic.
use std::io::{self, Write};
use std::sync::LazyLock;

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, TableStyle, presets};
use leasehold::{State, Timestamp};
use serde::Serialize;

/// The width below which a table's last column is worth nothing.
const ELASTIC_MIN: u16 = 12;
/// Characters of a JSON text that a list for people shows.
const JSON_SHOWN: usize = 2_000;

/// Writes a value as JSON for programs.
pub(crate) fn json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// Writes a list as the one entry of a JSON object, as the API wraps its lists.
pub(crate) fn json_list<T: Serialize>(name: &str, entries: &[T]) -> io::Result<()> {
    json(&std::collections::BTreeMap::from([(name, entries)]))
}

/// Writes each value as JSON on a line of its own.
pub(crate) fn json_lines<T: Serialize>(values: &[T]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for value in values {
        serde_json::to_writer(&mut out, value)?;
        writeln!(out)?;
    }
    out.flush()
}

/// Writes one line.
pub(crate) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Writes one line beside the output, on standard error; there is nobody to tell when that is closed.
pub(crate) fn aside(text: impl std::fmt::Display) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Whether colours help the reader: a terminal, and no NO_COLOR.
pub(crate) fn colours() -> bool {
    static COLOURS: LazyLock<bool> = LazyLock::new(|| {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        !refused && !is_dumb() && io::IsTerminal::is_terminal(&io::stdout())
    });
    *COLOURS
}

/// Whether something on standard error can move: a terminal that can go back in its line.
pub(crate) fn is_live() -> bool {
    !is_dumb() && io::IsTerminal::is_terminal(&io::stderr())
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|v| v == "dumb")
}

/// A table of which one column, the last if no other, takes what the others leave of the terminal, cut where it must be.
pub(crate) struct Table {
    table: comfy_table::Table,
    elastic: usize,
}

impl Table {
    /// A table with these column heads; an empty list of rows prints the heads alone.
    pub(crate) fn new(heads: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        let style: TableStyle = presets::NOTHING;
        table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic).set_truncation_indicator("…");
        if !colours() {
            table.force_no_tty();
            if let Some(width) = terminal_width() {
                table.set_width(width);
            }
        }
        table.set_header(heads.iter().map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
        Self { table, elastic: heads.len() - 1 }
    }

    /// Makes another column than the last the elastic one.
    pub(crate) fn elastic(mut self, column: usize) -> Self {
        self.elastic = column;
        self
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        let mut row = comfy_table::Row::from(cells);
        row.max_height(1);
        self.table.add_row(row);
    }

    /// Aligns a column of numbers to the right.
    pub(crate) fn numbers(&mut self, columns: &[usize]) {
        for at in columns {
            if let Some(column) = self.table.column_mut(*at) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
    }

    /// The lines of the table.
    pub(crate) fn lines(mut self) -> Vec<String> {
        let (elastic, last) = (self.elastic, self.table.column_count() - 1);
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
            if column.index != elastic {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let widths = self.table.column_max_content_widths();
        let all: u16 = widths.iter().map(|w| w + 2).sum();
        let room = self.table.width().map(|width| (width + widths[elastic]).saturating_sub(all));
        if elastic == last
            && room.is_some_and(|room| room < ELASTIC_MIN.min(widths[last]))
            && let Some(column) = self.table.column_mut(last)
        {
            column.set_constraint(ColumnConstraint::Hidden);
        }
        self.table.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Writes it.
    pub(crate) fn print(self) -> io::Result<()> {
        self.print_after(0)
    }

    /// Writes it without its first lines: 1 leaves the heads out.
    pub(crate) fn print_after(self, left_out: usize) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.lines().iter().skip(left_out).try_for_each(|line| writeln!(out, "{line}"))
    }
}

fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}

/// A cell of plain text; control characters, which could move a terminal's cursor, become spaces.
pub(crate) fn cell(text: impl std::fmt::Display) -> Cell {
    Cell::new(plain(&text.to_string()))
}

/// A job's state in its colour.
pub(crate) fn state_cell(state: State) -> Cell {
    Cell::new(state).fg(match state {
        State::Completed => Color::Green,
        State::Failed => Color::Red,
        State::Running => Color::Cyan,
        State::Retrying => Color::Yellow,
        State::Cancelled => Color::DarkGrey,
        State::Waiting | State::Scheduled | State::Queued => Color::Reset,
    })
}

/// `text` on one line, without control characters.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// A JSON text for people: cut when it is long.
pub(crate) fn shown(json: &str) -> String {
    match json.char_indices().nth(JSON_SHOWN) {
        Some((at, _)) => format!("{}… ({} bytes; -o json shows all)", &json[..at], json.len()),
        None => json.to_owned(),
    }
}

/// A list of names and values, one a line.
pub(crate) fn list(entries: &[(&str, String)]) -> io::Result<()> {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = io::stdout().lock();
    entries.iter().try_for_each(|(name, value)| {
        let (bold, end) = if colours() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        writeln!(out, "{bold}{name:width$}{end}  {value}")
    })
}

/// A span of time, short and rounded: `340 ms`, `2.5 s`, `12 s`, `3 min`, `5 h`, `2 d`.
pub(crate) fn span(ms: i64) -> String {
    let rounded = |ms: i64, unit: i64| (ms + unit / 2) / unit;
    match ms.max(0) {
        ms @ ..1_000 => format!("{ms} ms"),
        ms @ ..9_950 => format!("{}.{} s", rounded(ms, 100) / 10, rounded(ms, 100) % 10).replace(".0 s", " s"),
        ms @ ..120_000 => format!("{} s", rounded(ms, 1_000)),
        ms @ ..7_200_000 => format!("{} min", rounded(ms, 60_000)),
        ms @ ..172_800_000 => format!("{} h", rounded(ms, 3_600_000)),
        ms => format!("{} d", rounded(ms, 86_400_000)),
    }
}

/// This machine's time. Ages are for people: a clock that differs from Redis's only shifts them.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// How long ago a time was, or how far it lies ahead.
pub(crate) fn age(time: Timestamp) -> String {
    let ms = now().0 - time.0;
    if ms < -500 { format!("in {}", span(-ms)) } else { format!("{} ago", span(ms)) }
}

/// A URL as it may be shown.
pub(crate) fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_short_and_has_its_unit() {
        for (ms, text) in [
            (-5, "0 ms"),
            (340, "340 ms"),
            (1_249, "1.2 s"),
            (3_000, "3 s"),
            (9_999, "10 s"),
            (59_999, "60 s"),
            (125_000, "2 min"),
            (7_300_000, "2 h"),
            (200_000_000, "2 d"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn a_cell_cannot_move_the_cursor() {
        assert_eq!(cell("a\x1b[2Jb\nc").content(), "a [2Jb c");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "ä".repeat(JSON_SHOWN + 1);
        assert!(shown(&long).starts_with(&"ä".repeat(JSON_SHOWN)) && shown(&long).contains("4002 bytes"));
        assert_eq!(shown("{}"), "{}");
    }
}
