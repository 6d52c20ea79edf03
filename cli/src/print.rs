//! Output: tables and lists for people, JSON for programs. A closed pipe is an error that `main` ignores, never a
//! panic.
use std::io::{self, Write};
use std::sync::LazyLock;

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, TableStyle, Width, presets};
use leasehold::{State, Timestamp};
use serde::Serialize;

/// The width below which a table's last column is not useful.
const ELASTIC_MIN: u16 = 12;
/// The width to which other columns are shortened before the last one is hidden, and below which none is.
const SHORTENED_MIN: u16 = 12;
const COLUMN_MIN: u16 = 4;
/// Columns between two columns.
const GAP: u16 = 2;
/// The width of a terminal from which tables show whole ids.
const NARROW: u16 = 120;
/// Characters of a detail, in a pipe too.
const DETAIL_MAX: usize = 160;
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

/// Writes each value as one line of JSON.
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

/// Writes one line on standard error; a closed one is ignored.
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

/// Whether standard error is a terminal on which a bar can be redrawn.
pub(crate) fn is_live() -> bool {
    !is_dumb() && io::IsTerminal::is_terminal(&io::stderr())
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|v| v == "dumb")
}

/// A table with one elastic column, by default the last, which gets the width that the others leave.
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

    /// Adds a row that keeps the lines of its cells.
    pub(crate) fn tall_row(&mut self, cells: Vec<Cell>) {
        self.table.add_row(cells);
    }

    /// Aligns a column of numbers to the right.
    pub(crate) fn numbers(&mut self, columns: &[usize]) {
        for at in columns {
            if let Some(column) = self.table.column_mut(*at) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
    }

    /// The lines of the table, none wider than the terminal.
    pub(crate) fn lines(mut self) -> Vec<String> {
        let natural = self.table.column_max_content_widths();
        let widths = match self.table.width() {
            Some(width) => fit(&natural, self.elastic, width),
            None => natural.into_iter().map(Some).collect(),
        };
        for (column, width) in self.table.column_iter_mut().zip(widths) {
            column.set_padding((0, GAP));
            column.set_constraint(match width {
                Some(width) => ColumnConstraint::Absolute(Width::Fixed(width + GAP)),
                None => ColumnConstraint::Hidden,
            });
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

/// The widths of columns in a terminal: the elastic one gets what the others leave, and long columns are shortened for
/// it. It is hidden (`None`) when it is the last one and nothing useful would be left of it.
fn fit(natural: &[u16], elastic: usize, width: u16) -> Vec<Option<u16>> {
    let mut widths = natural.to_vec();
    let room = |widths: &[u16]| {
        let others: u16 = widths.iter().enumerate().filter(|(at, _)| *at != elastic).map(|(_, w)| w + GAP).sum();
        width.saturating_sub(others)
    };
    let wanted = natural[elastic].min(ELASTIC_MIN);
    shorten(&mut widths, elastic, SHORTENED_MIN, |widths| room(widths) >= wanted);
    let hidden = room(&widths) < wanted && elastic + 1 == widths.len();
    if hidden {
        // No gap after what is then the last column.
        shorten(&mut widths, elastic, COLUMN_MIN, |widths| room(widths) > 0 || total(widths, elastic) <= width + GAP);
    } else {
        shorten(&mut widths, elastic, COLUMN_MIN, |widths| room(widths) >= wanted);
        widths[elastic] = widths[elastic].min(room(&widths)).max(1);
    }
    widths.iter().enumerate().map(|(at, w)| (!hidden || at != elastic).then_some(*w)).collect()
}

/// What the columns but one take, gaps included.
fn total(widths: &[u16], without: usize) -> u16 {
    widths.iter().enumerate().filter(|(at, _)| *at != without).map(|(_, w)| w + GAP).sum()
}

/// Takes from the widest column but one, as long as it is wider than `least` and it is not `enough`.
fn shorten(widths: &mut [u16], without: usize, least: u16, enough: impl Fn(&[u16]) -> bool) {
    while !enough(widths) {
        let others = widths.iter_mut().enumerate().filter(|(at, w)| *at != without && **w > least);
        let Some((_, widest)) = others.max_by_key(|(_, w)| **w) else { return };
        *widest -= 1;
    }
}

/// Whether the terminal is too narrow for whole ids.
pub(crate) fn is_narrow() -> bool {
    terminal_width().is_some_and(|width| width < NARROW)
}

/// An id as a narrow table shows it: the last characters of a UUID, which the jobs commands take for it.
pub(crate) fn short_id(id: &str) -> &str {
    let is_uuid = id.len() == 36 && id.bytes().filter(|b| *b == b'-').count() == 4;
    if is_uuid { &id[24..] } else { id }
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

/// `text` with its lines, without other control characters, for [`list`] and tall rows.
pub(crate) fn lines(text: &str) -> String {
    let lines = text.trim().lines().map(|line| {
        let clean: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        clean.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What is most useful of an error of many lines, on one line of bounded length: its first line; with it, where that
/// only announces a log, the line of the log that names the error, or the last one.
pub(crate) fn brief(message: &str) -> String {
    let mut lines = message.lines().map(plain).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let Some(head) = first.strip_suffix(':') else { return cut(&first) };
    let rest: Vec<String> = lines.collect();
    let names_it = |line: &&String| {
        let word = line.split_once(": ").map_or("", |(word, _)| word);
        let word = word.rsplit(['.', ':']).next().unwrap_or(word);
        !word.contains(' ') && ["error", "exception", "fatal"].iter().any(|end| word.to_lowercase().ends_with(end))
    };
    let line = rest.iter().rev().find(names_it).or(rest.last());
    let end = head.split("; the end of").next().unwrap_or(head);
    line.map_or_else(|| cut(&first), |line| cut(&format!("{end}: {line}")))
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(DETAIL_MAX) {
        Some((at, _)) => format!("{}…", line[..at].trim_end()),
        None => line.to_owned(),
    }
}

/// A JSON text for people: cut when it is long.
pub(crate) fn shown(json: &str) -> String {
    match json.char_indices().nth(JSON_SHOWN) {
        Some((at, _)) => format!("{}… ({} bytes; -o json shows all)", &json[..at], json.len()),
        None => json.to_owned(),
    }
}

/// A list of names and values; the further lines of a value are indented to its column.
pub(crate) fn list(entries: &[(&str, String)]) -> io::Result<()> {
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = io::stdout().lock();
    entries.iter().try_for_each(|(name, value)| {
        let (bold, end) = if colours() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let value = value.replace('\n', &format!("\n{:1$}", "", width + 2));
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

/// How long ago a time was, or how far ahead it is.
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
    fn columns_fit_the_terminal() {
        let whole = |widths: Vec<Option<u16>>| {
            let shown: Vec<u16> = widths.into_iter().flatten().collect();
            shown.iter().sum::<u16>() + GAP * (shown.len() as u16 - 1)
        };
        let jobs = [12, 13, 9, 7, 6, 300];
        assert_eq!(fit(&jobs, 5, 80), [12, 13, 9, 7, 6, 23].map(Some));
        assert_eq!(fit(&[12, 13, 9, 7, 6, 5], 5, 80), [12, 13, 9, 7, 6, 5].map(Some), "as wide as they are");
        assert_eq!(fit(&[12, 64, 9, 7, 6, 300], 5, 80), [12, 24, 9, 7, 6, 12].map(Some), "the widest is shortened");
        for width in 20..140 {
            for natural in [&jobs[..], &[36, 64, 64, 9, 7, 6, 300], &[64, 64, 64, 1]] {
                for elastic in 0..natural.len() {
                    assert!(whole(fit(natural, elastic, width)) <= width.max(40), "{natural:?} {elastic} {width}");
                }
            }
        }
        assert!(fit(&[12, 13, 9, 7, 6, 300], 5, 40)[5].is_none());
    }

    #[test]
    fn the_useful_line_of_an_error_is_found() {
        let python =
            "exit code 1; the end of its log:\nTraceback (most recent call last):\n  File \"a.py\"\nValueError: bad";
        let node =
            "exit code 1; the end of its log:\n/a.js:3\n  throw 1\n\nTypeError: no\n    at f (a.js:3)\n\nNode.js v20";
        for (message, useful) in [
            ("one line", "one line"),
            ("two\nlines", "two"),
            ("exit code 2; the end of its log:\nno such file\n", "exit code 2: no such file"),
            (python, "exit code 1: ValueError: bad"),
            (node, "exit code 1: TypeError: no"),
        ] {
            assert_eq!(brief(message), useful);
        }
        assert_eq!(brief(&"x".repeat(999)).chars().count(), DETAIL_MAX + 1);
    }

    #[test]
    fn a_short_id_is_the_end_of_a_uuid() {
        assert_eq!(short_id("01a21af9-e53f-7648-aa98-e87eb8ab78f2"), "e87eb8ab78f2");
        assert_eq!(short_id("batch-7"), "batch-7");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "ä".repeat(JSON_SHOWN + 1);
        assert!(shown(&long).starts_with(&"ä".repeat(JSON_SHOWN)) && shown(&long).contains("4002 bytes"));
        assert_eq!(shown("{}"), "{}");
    }
}
