//! The demo's second system: a text, and suggestions for it.
use comfy_table::Cell;

use super::client::Status;
use super::verdict::Fact;
use crate::print::{self, Table, plain};

/// A note as people write them.
pub(super) const NOTE: &str = "The pump was inspected on Monday by the night crew. Several valves were replaced, and a few \
    gaskets — about half of them — will be changed soon. The NDT report was sent to the yard, although some pages were \
    missing, which nobody noticed until the inspector, who had come early because the ferry was late, asked for them, \
    whereupon the foreman, who keeps everything in a drawer, had to look for a very long time before they were found.";

/// What must be true of it: done, and each suggestion where it says it is.
pub(super) fn fact(status: &Status) -> Fact {
    let mut against = Vec::new();
    let found = status.result.as_ref().map_or(&[][..], |result| &result.suggestions);
    if status.status != "completed" || found.is_empty() {
        let error = status.error_message.as_deref().unwrap_or("it has no suggestions");
        against.push(format!("it is {}: {}", status.status, plain(error)));
    }
    let characters: Vec<char> = NOTE.chars().collect();
    for suggestion in found {
        let there = characters.get(suggestion.start..suggestion.end).map(String::from_iter);
        if there.as_deref() != Some(&suggestion.text) {
            let (start, end) = (suggestion.start, suggestion.end);
            against.push(format!("{:?} is not at {start} to {end}", suggestion.text));
        }
    }
    Fact { claim: format!("the text has its {} suggestions, each at the position it names", found.len()), against }
}

/// Prints what was suggested.
pub(super) fn print(status: &Status) -> std::io::Result<()> {
    let Some(result) = &status.result else { return Ok(()) };
    let mut table = Table::new(&["SUGGESTION", "FROM", "TO", "TEXT"]).elastic(3);
    for suggestion in &result.suggestions {
        let (start, end) = (suggestion.start.to_string(), suggestion.end.to_string());
        let cells = [&suggestion.kind, &start, &end, &suggestion.text];
        table.row(cells.into_iter().map(|text| Cell::new(plain(text))).collect());
    }
    table.numbers(&[1, 2]);
    print::line("")?;
    table.print()
}
