//! `jobs submit --items`: a batch from a file, a payload a line, in parts that are numbered, so that a part sent twice
//! changes nothing. Only one part is in memory.
use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use leasehold::{Job, JobId, Json};

use crate::backend::{self, Backend, Submission};
use crate::failure::Failure;
use crate::print;

/// Items in a part: fewer than the API takes, so that the bar moves.
const PART_ITEMS: usize = 2_000;
/// Bytes of payloads in a part, beyond which it takes no more.
const PART_BYTES: usize = 4 << 20;
/// Bytes of a line, white space included; a payload has fewer.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// How often progress is reported as a line, where there is no bar.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Lines of JSON.
struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    number: u64,
}

/// Some items, and the lines they come from.
#[derive(Default)]
struct Part {
    items: Vec<Json>,
    lines: Vec<u64>,
    bytes: usize,
}

/// Submits a batch with the items of a file.
pub(super) async fn submit(backend: &Backend, submission: Submission, path: &Path) -> Result<Job, Failure> {
    let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
    // A file can be read twice: each line is checked before anything is submitted.
    let total = if is_file { Some(count(path, backend)?) } else { None };
    let mut lines = Lines::open(path)?;
    let mut part = lines.part(backend)?;
    if part.items.is_empty() {
        let name = &lines.name;
        return Err(Failure::Usage(format!("--items: {name} has no items; nothing was submitted")));
    }
    let batch = backend.submit(submission).await?;
    let id = &batch.id;
    let (mut meter, mut first) = (Meter::new(total), 0);
    loop {
        let next = match lines.part(backend) {
            Ok(next) => next,
            Err(bad) => return Err(give_up(backend, id, bad).await),
        };
        let last = next.items.is_empty();
        if let Err(failure) = backend.add_items(id, first, &part.items, last).await {
            return Err(match bad_line(&failure, &part, &lines.name) {
                Some(bad) => give_up(backend, id, bad).await,
                None => interrupted(failure, id, first),
            });
        }
        first += part.items.len() as u64;
        meter.show(first);
        if last {
            return Ok(batch);
        }
        part = next;
    }
}

/// Reads a whole file; how many items it has.
fn count(path: &Path, backend: &Backend) -> Result<u64, Failure> {
    let (mut lines, mut total) = (Lines::open(path)?, 0);
    loop {
        match lines.part(backend)?.items.len() as u64 {
            0 => return Ok(total),
            items => total += items,
        }
    }
}

/// The line that the API refuses, if it is about one.
fn bad_line(failure: &Failure, part: &Part, name: &str) -> Option<Failure> {
    let Failure::Refused(problem) = failure else { return None };
    let (at, fault) = problem.faults.iter().find_map(|fault| {
        let number = fault.pointer.as_deref()?.strip_prefix("/items/")?.split('/').next()?;
        Some((*part.lines.get(number.parse::<usize>().ok()?)?, fault))
    })?;
    Some(Failure::Usage(format!("--items: {name}, line {at}: {}", print::plain(&fault.detail))))
}

/// Cancels a batch that cannot be completed, unless it was complete before.
async fn give_up(backend: &Backend, id: &JobId, bad: Failure) -> Failure {
    let is_open = |job: &Job| !job.state.is_final() && job.items.is_some_and(|items| items.open);
    let cancelled = match backend.find(id).await {
        Ok(Some(job)) if is_open(&job) => backend.cancel(std::slice::from_ref(id)).await.map(|_| true),
        Ok(_) => Ok(false),
        Err(failure) => Err(failure),
    };
    let said = match cancelled {
        Ok(true) => format!("{bad}; batch {id} with the lines before it is cancelled"),
        Ok(false) => format!("{bad}; batch {id} was complete before, and is left as it is"),
        Err(failure) => {
            format!("{bad}; batch {id} could not be cancelled ({failure}): cancel it with `jobs cancel {id}`")
        }
    };
    if matches!(bad, Failure::Usage(_)) { Failure::Usage(said) } else { Failure::Failed(said) }
}

fn interrupted(failure: Failure, id: &JobId, first: u64) -> Failure {
    Failure::Failed(format!(
        "{failure}\nbatch {id} has its first {first} items and is not complete: the same command with the same \
         --idempotency-key continues it; otherwise `jobs cancel {id}`, or it is cancelled one hour after its last part"
    ))
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            let reader = Box::new(BufReader::with_capacity(1 << 16, stdin()));
            return Ok(Self { name: "standard input".into(), reader, number: 0 });
        }
        let fault = |e| Failure::Usage(format!("--items: {}: {e}", path.display()));
        let reader = Box::new(BufReader::with_capacity(1 << 16, File::open(path).map_err(fault)?));
        Ok(Self { name: path.display().to_string(), reader, number: 0 })
    }

    fn bad(&self, why: impl std::fmt::Display) -> Failure {
        Failure::Usage(format!("--items: {}, line {}: {why}", self.name, self.number))
    }

    /// The next line that is not blank.
    fn line(&mut self) -> Result<Option<String>, Failure> {
        loop {
            self.number += 1;
            let mut line = Vec::new();
            let read = (&mut self.reader).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
            match read.map_err(|e| self.bad(e))? {
                0 => return Ok(None),
                n if n as u64 > LINE_BYTES_MAX => {
                    return Err(self.bad(format_args!("longer than {LINE_BYTES_MAX} bytes")));
                }
                _ => {}
            }
            let line = String::from_utf8(line).map_err(|_| self.bad("it is not UTF-8"))?;
            if !line.trim().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// The next part; an empty one at the end.
    fn part(&mut self, backend: &Backend) -> Result<Part, Failure> {
        let mut part = Part::default();
        while part.items.len() < PART_ITEMS && part.bytes < PART_BYTES {
            let Some(line) = self.line()? else { break };
            let payload = backend::payload(&line, backend).map_err(|e| self.bad(e))?;
            part.bytes += payload.as_str().len();
            part.items.push(payload);
            part.lines.push(self.number);
        }
        Ok(part)
    }
}

/// How many items have been submitted: a bar on a terminal, else a line now and then.
struct Meter {
    bar: Option<ProgressBar>,
    total: Option<u64>,
    reported: Instant,
}

impl Meter {
    fn new(total: Option<u64>) -> Self {
        let template = if total.is_some() { "{wide_bar} {pos}/{len} items  {eta}" } else { "{spinner} {pos} items" };
        let style = || ProgressStyle::with_template(template).expect("the templates above are right");
        let bar = print::is_live().then(|| ProgressBar::new(total.unwrap_or(0)).with_style(style()));
        Self { bar, total, reported: Instant::now() }
    }

    fn show(&mut self, items: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(items),
            None if self.reported.elapsed() >= TELL_EVERY => {
                self.reported = Instant::now();
                let of = self.total.map_or_else(String::new, |total| format!(" of {total}"));
                print::aside(format_args!("submitted {items}{of} items"));
            }
            None => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
