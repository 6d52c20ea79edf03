//! Reading files that may be anything: a FIFO does not block, an endless file is bounded, a folder is refused.
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::found::{Flow, Found, Out, Place};

/// Opens a regular file.
pub(super) fn open(path: &Path) -> Result<File, String> {
    // Without O_NONBLOCK the open of a FIFO waits for a writer.
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|e| format!("it cannot be read: {e}"))?;
    let meta = file.metadata().map_err(|e| format!("it cannot be read: {e}"))?;
    match meta.file_type() {
        kind if kind.is_file() => Ok(file),
        kind if kind.is_dir() => Err("it is a folder in place of a file".into()),
        _ => Err("it is not a regular file".into()),
    }
}

/// Reads a whole file of at most `bytes_max` bytes as text.
pub(super) fn text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("it cannot be read: {e}"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes, which is too large for a record"));
    }
    utf8(&bytes).map(finite)
}

/// The text of these bytes, without a byte order mark.
fn utf8(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("it is not UTF-8, from byte {} on", e.valid_up_to()))?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_matches(|c: char| c.is_whitespace() || c == '\0').is_empty() {
        return Err("it is empty".into());
    }
    Ok(text)
}

/// JSON whose numbers are finite: `NaN`, `Infinity` and `-Infinity`, which Python writes, become null.
pub(super) fn finite(text: &str) -> String {
    const WORDS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
    if !WORDS[..2].iter().any(|word| text.contains(word)) {
        return text.to_owned();
    }
    let (mut written, mut rest, mut in_string) = (String::with_capacity(text.len()), text, false);
    while let Some(c) = rest.chars().next() {
        let word = WORDS.iter().find(|word| !in_string && rest.starts_with(*word));
        if let Some(word) = word {
            written.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        let mut taken = c.len_utf8();
        match c {
            '"' => in_string = !in_string,
            '\\' if in_string => taken += rest[taken..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        written.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    written
}

/// The lines of a file that are not blank, each with its number, or with why it cannot be read.
pub(super) struct Lines {
    reader: BufReader<File>,
    number: u64,
    bytes_max: u64,
    done: bool,
}

impl Lines {
    pub(super) fn open(path: &Path, bytes_max: u64) -> Result<Self, String> {
        let reader = BufReader::with_capacity(1 << 16, open(path)?);
        Ok(Self { reader, number: 0, bytes_max, done: false })
    }

    /// Passes the rest of a line over.
    fn pass_over(&mut self) {
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) if !buffer.is_empty() => buffer,
                _ => return,
            };
            let end = buffer.iter().position(|b| *b == b'\n');
            let used = end.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(used);
            if end.is_some() {
                return;
            }
        }
    }
}

impl Iterator for Lines {
    type Item = (u64, Result<String, String>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            self.number += 1;
            let mut line = Vec::new();
            match (&mut self.reader).take(self.bytes_max).read_until(b'\n', &mut line) {
                Ok(0) => self.done = true,
                Ok(read) if read as u64 == self.bytes_max && line.last() != Some(&b'\n') => {
                    self.pass_over();
                    return Some((self.number, Err(format!("the line is longer than {} bytes", self.bytes_max))));
                }
                Ok(_) if line.trim_ascii().is_empty() => {}
                Ok(_) => return Some((self.number, utf8(&line).map(finite))),
                Err(e) => {
                    self.done = true;
                    return Some((self.number, Err(format!("it cannot be read from here on: {e}"))));
                }
            }
        }
        None
    }
}

/// Calls `each` with every entry of a folder, in the folder's own order, hidden ones aside; entries that are not UTF-8
/// are reported.
pub(super) fn entries(folder: &Path, out: &Out, mut each: impl FnMut(&Path, &str) -> Flow) -> Flow {
    let all = match std::fs::read_dir(folder) {
        Ok(all) => all,
        Err(e) => return out.skip(Place::of(folder), format!("the folder cannot be read: {e}")),
    };
    for entry in all {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(e) => return out.skip(Place::of(folder), format!("the folder cannot be read to its end: {e}")),
        };
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.starts_with('.') => {}
            Some(name) => each(&path, name)?,
            None => out.skip(Place::of(&path), "its name is not UTF-8")?,
        }
    }
    Ok(())
}

/// Announces how many entries of these folders have such a name.
pub(super) fn announce<'a>(folders: impl IntoIterator<Item = &'a Path>, out: &Out, ending: &str) -> Flow {
    let count = |folder: &Path| {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        names.filter(|entry| entry.file_name().as_encoded_bytes().ends_with(ending.as_bytes())).count() as u64
    };
    out.send(Found::Total(folders.into_iter().map(count).sum()))
}

/// When the file was last changed.
pub(super) fn changed_at(path: &Path) -> Option<leasehold::Timestamp> {
    let since = path.metadata().ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(leasehold::Timestamp)
}

/// A folder of that name in or beside the given path, if there is one.
pub(super) fn nearby(path: &Path, name: &str) -> Vec<PathBuf> {
    let folder = if path.is_dir() { path.to_owned() } else { parent(path) };
    let candidates = [folder.join(name), parent(&folder).join(name)];
    let mut found: Vec<PathBuf> = candidates.into_iter().filter(|candidate| candidate.is_dir()).collect();
    found.dedup();
    found
}

/// The folder of a path.
pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if path.file_name().is_some() && parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) if path.file_name().is_some() => parent.to_owned(),
        _ => path.join(".."),
    }
}
