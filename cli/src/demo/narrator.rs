//! What the demo says as it goes: a line for each event, and below them, on a terminal, a bar that moves.
use std::io::{IsTerminal, Write, stdout};
use std::time::Instant;

use leasehold::{Job, State};

use crate::print;

/// Cells of the bar.
const WIDTH: usize = 28;

pub(super) struct Narrator {
    begun: Instant,
    total: usize,
    live: bool,
    bar: Option<String>,
    /// Quarters that have been reported, where there is no bar.
    quarters: usize,
}

impl Narrator {
    /// Says what is about to be seen.
    pub(super) fn begin(total: usize) -> Self {
        let live = stdout().is_terminal() && print::colours();
        let narrator = Self { begun: Instant::now(), total, live, bar: None, quarters: 0 };
        narrator.write(&format!(
            "{}\n{total} documents, one broken and one missing on purpose; two workers. One of them is killed, then Redis.\n\n",
            paint("Leasehold demo: a durable job system on Redis", "1")
        ));
        narrator
    }

    /// An event.
    pub(super) fn say(&mut self, text: impl std::fmt::Display) {
        self.event(&text.to_string());
    }

    /// A blow to the system.
    pub(super) fn blow(&mut self, text: impl std::fmt::Display) {
        self.event(&paint(&text.to_string(), "1;31"));
    }

    fn event(&mut self, text: &str) {
        let at = paint(&format!("{:6.1} s", self.begun.elapsed().as_secs_f64()), "2");
        let bar = self.bar.as_deref().unwrap_or_default();
        self.write(&format!("{}{at}  {text}\n{bar}", self.clear()));
    }

    /// How far the jobs are.
    pub(super) fn progress<'a>(&mut self, jobs: impl Iterator<Item = &'a Job>) {
        let (mut completed, mut failed, mut running) = (0, 0, 0);
        for job in jobs {
            match job.state {
                State::Completed => completed += 1,
                State::Failed | State::Cancelled => failed += 1,
                State::Running => running += 1,
                _ => {}
            }
        }
        let (ended, total) = (completed + failed, self.total);
        if self.live {
            let full = WIDTH * ended / total.max(1);
            let (done, open) = ("█".repeat(full), "░".repeat(WIDTH - full));
            let bar = format!("          {}{}  {ended}/{total}", paint(&done, "32"), paint(&open, "2"));
            let bar = format!("{bar}  {completed} completed, {failed} failed, {running} running");
            self.write(&format!("{}{bar}", self.clear()));
            self.bar = Some(bar);
        } else if 4 * ended / total.max(1) > self.quarters && ended < total {
            self.quarters = 4 * ended / total;
            self.say(format!("{ended} of {total} jobs have ended: {completed} completed, {failed} failed"));
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        self.write(&self.clear());
        self.bar = None;
    }

    fn clear(&self) -> String {
        if self.bar.is_some() { "\r\x1b[2K".into() } else { String::new() }
    }

    /// A reader who has gone does not stop the demo: its exit code still counts.
    fn write(&self, text: &str) {
        let mut out = stdout().lock();
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }
}

/// `text` in a colour or weight, where that helps.
pub(super) fn paint(text: &str, code: &str) -> String {
    if print::colours() && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
