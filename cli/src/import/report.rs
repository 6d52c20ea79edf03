//! What an import tells: each record that was left out as it is met, and the counts at the end. A bar on a terminal.
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::found::Told;
use crate::print;

/// Notes that are kept for the end of a report in JSON.
const NOTES_MAX: usize = 1_000;

/// The report as it grows.
pub(super) struct Report {
    from: &'static str,
    dry_run: bool,
    json: bool,
    bar: Option<ProgressBar>,
    notes: Vec<Value>,
    pub imported: u64,
    pub items: u64,
    pub already_there: u64,
    pub skipped: u64,
    pub noted: u64,
}

impl Report {
    pub(super) fn new(from: &'static str, dry_run: bool, json: bool) -> Self {
        let style =
            ProgressStyle::with_template("{wide_bar} {pos}/{len} records  {eta}").expect("the template is right");
        let bar = print::is_live().then(|| ProgressBar::new(0).with_style(style));
        let counts = (0, 0, 0, 0, 0);
        let (imported, items, already_there, skipped, noted) = counts;
        Self { from, dry_run, json, bar, notes: Vec::new(), imported, items, already_there, skipped, noted }
    }

    pub(super) fn total(&self, records: u64) {
        if let Some(bar) = &self.bar {
            bar.inc_length(records);
        }
    }

    /// A record has been dealt with.
    pub(super) fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Writes while no bar is in the way.
    fn write(&self, text: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| print::line(text)),
            None => print::line(text),
        }
    }

    /// Tells of what is left out.
    pub(super) fn skip(&mut self, told: &Told) -> io::Result<()> {
        self.skipped += 1;
        if !self.json {
            return self.write(&format!(
                "skipped  {}: {}",
                print::plain(&told.place.to_string()),
                print::plain(&told.reason)
            ));
        }
        // Written as it is met, so that a report is never all in memory.
        let head = if self.skipped == 1 { self.head() } else { ",".to_owned() };
        self.write(&format!("{head}\n    {}", entry(told)))
    }

    /// Tells of a record that came along and cannot be all that it was.
    pub(super) fn note(&mut self, told: &Told) -> io::Result<()> {
        self.noted += 1;
        if !self.json {
            return self.write(&format!(
                "note     {}: {}",
                print::plain(&told.place.to_string()),
                print::plain(&told.reason)
            ));
        }
        if self.notes.len() < NOTES_MAX {
            self.notes.push(entry(told));
        }
        Ok(())
    }

    fn head(&self) -> String {
        format!("{{\n  \"from\": \"{}\",\n  \"dry_run\": {},\n  \"skipped\": [", self.from, self.dry_run)
    }

    /// Writes the counts.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let Self { imported, items, already_there, skipped, noted, .. } = *self;
        if self.json {
            let head = if skipped == 0 { self.head() } else { "\n  ".to_owned() };
            let notes = serde_json::to_string(&self.notes)?;
            let mut out = io::stdout().lock();
            return writeln!(
                out,
                "{head}],\n  \"imported\": {imported},\n  \"items\": {items},\n  \"already_there\": {already_there},\n  \
                 \"notes\": {notes},\n  \"notes_total\": {noted}\n}}"
            );
        }
        let verb = if self.dry_run { "would import" } else { "imported" };
        let with = if items > 0 { format!(" with {items} items") } else { String::new() };
        print::line(format_args!("{verb} {imported}{with}, already there {already_there}, skipped {skipped}"))
    }
}

fn entry(told: &Told) -> Value {
    json!({"path": told.place.path.to_string_lossy(), "line": told.place.line, "reason": told.reason})
}
