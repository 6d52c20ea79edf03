//! Parses a command's output line by line into messages to Leasehold and log lines. Pure.
use std::collections::{BTreeMap, VecDeque};

use serde_json::value::RawValue;

/// Bytes of one line that are kept; the rest of a longer one is dropped.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes kept of the end of a command's log, for its error message.
const LOG_BYTES_MAX: usize = 3 << 10;

/// A line of output, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A complete line.
    Whole(Vec<u8>),
    /// The beginning of a line longer than [`LINE_BYTES_MAX`].
    Cut(Vec<u8>),
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    is_cut: bool,
}

impl Lines {
    /// Takes the next bytes; calls `each` with every line that they complete.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Line)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) =
                part.split_last().filter(|(last, _)| **last == b'\n').map_or((part, false), |(_, t)| (t, true));
            let room = LINE_BYTES_MAX - self.line.len();
            self.is_cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                each(self.take());
            }
        }
    }

    /// The last line, if the stream ended without a line end.
    pub fn finish(&mut self) -> Option<Line> {
        (!self.line.is_empty() || self.is_cut).then(|| self.take())
    }

    fn take(&mut self) -> Line {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_cut) { Line::Cut(line) } else { Line::Whole(line) }
    }
}

/// A message to Leasehold: the known members of a line.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// The percentage, if not null, and the phase.
    pub progress: Option<(Option<f64>, Option<String>)>,
    /// The checkpoint for the next attempt.
    pub checkpoint: Option<Box<RawValue>>,
    /// The job's result.
    pub result: Option<Box<RawValue>>,
    /// The reason for which the job is skipped.
    pub skip: Option<String>,
}

/// Parses a line; `None`: it is a log line, as is one in which a known member has the wrong type.
pub(super) fn parse(line: &[u8]) -> Option<Message> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(line).ok()?;
    let text = |value: Box<RawValue>| serde_json::from_str::<Option<String>>(value.get()).ok();
    let mut message = Message::default();
    if let Some(percent) = fields.remove("progress") {
        let phase = fields.remove("message").map(text).unwrap_or(Some(None))?;
        message.progress = Some((serde_json::from_str(percent.get()).ok()?, phase));
    }
    if let Some(reason) = fields.remove("skip") {
        message.skip = Some(serde_json::from_str(reason.get()).ok()?);
    }
    message.checkpoint = fields.remove("checkpoint");
    message.result = fields.remove("result");
    let is_message = message.progress.is_some()
        || message.skip.is_some()
        || message.checkpoint.is_some()
        || message.result.is_some();
    is_message.then_some(message)
}

/// Whether a line that was cut begins with the member `result` or `checkpoint`.
pub(super) fn oversized_key(beginning: &[u8]) -> Option<&'static str> {
    let inner = beginning.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    ["result", "checkpoint"].into_iter().find(|key| inner.starts_with(format!("\"{key}\"").as_bytes()))
}

/// The end of a command's log.
#[derive(Debug, Default)]
pub(super) struct Log {
    tail: VecDeque<u8>,
    is_cut: bool,
}

impl Log {
    /// Keeps a line.
    pub fn push(&mut self, line: &[u8]) {
        let kept = &line[line.len().saturating_sub(LOG_BYTES_MAX)..];
        self.is_cut |= kept.len() < line.len();
        self.tail.extend(kept);
        self.tail.push_back(b'\n');
        let over = self.tail.len().saturating_sub(LOG_BYTES_MAX);
        self.is_cut |= over > 0;
        self.tail.drain(..over);
    }

    /// The end as text, for an error message; empty when there was no log.
    pub fn end(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        // Omit a character that the cut has split.
        let whole = bytes.iter().position(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[whole..]);
        let text = text.trim_end();
        if self.is_cut { format!("…{text}") } else { text.to_owned() }
    }
}

/// Reads everything that a command may print, in small pieces, as the fuzzers do.
///
/// # Panics
/// When a byte is lost or added.
pub(crate) fn read_all(bytes: &[u8]) {
    let (mut lines, mut log, mut rejoined, mut is_cut) = (Lines::default(), Log::default(), Vec::new(), false);
    let mut each = |line: Line, ends: bool| {
        let (Line::Whole(line) | Line::Cut(line)) = &line;
        is_cut |= line.len() == LINE_BYTES_MAX;
        if parse(line).is_none() {
            log.push(line);
        }
        oversized_key(line);
        rejoined.extend_from_slice(line);
        rejoined.extend(ends.then_some(b'\n'));
    };
    for piece in bytes.chunks(7) {
        lines.push(piece, |line| each(line, true));
    }
    if let Some(line) = lines.finish() {
        each(line, false);
    }
    assert!(is_cut || rejoined == bytes, "the lines are the output");
    assert!(log.end().len() <= 2 * LOG_BYTES_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<Line> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        parts.iter().for_each(|part| lines.push(part, |line| all.push(line)));
        all.extend(lines.finish());
        all
    }

    #[test]
    fn lines_are_found_however_they_arrive() {
        let whole = |text: &str| Line::Whole(text.into());
        assert_eq!(lines(&[b"a\nb", b"c\n\nd"]), [whole("a"), whole("bc"), whole(""), whole("d")]);
        assert_eq!(lines(&[b"a\n"]), [whole("a")]);
        assert_eq!(lines(&[]), []);
    }

    #[test]
    fn a_line_that_never_ends_is_cut() {
        let part = vec![b'x'; LINE_BYTES_MAX];
        let got = lines(&[&part, &part, &part, b"\nnext\n"]);
        assert_eq!(got, [Line::Cut(part.clone()), Line::Whole("next".into())]);
        assert_eq!(lines(&[&part, &part]), [Line::Cut(part)]);
    }

    #[test]
    fn what_is_said_is_heard_and_all_else_is_log() {
        let heard = parse(br#" {"progress": 40, "message": "half"}"#).expect("progress");
        assert_eq!(heard.progress, Some((Some(40.0), Some("half".into()))));
        assert_eq!(parse(br#"{"progress": null, "message": "m"}"#).unwrap().progress, Some((None, Some("m".into()))));
        assert_eq!(parse(br#"{"result": null}"#).unwrap().result.unwrap().get(), "null");
        assert_eq!(
            parse(br#"{"checkpoint": {"at": [1, 2]}, "x": 1}"#).unwrap().checkpoint.unwrap().get(),
            r#"{"at": [1, 2]}"#
        );
        assert_eq!(parse(br#"{"skip": "nothing new"}"#).unwrap().skip.as_deref(), Some("nothing new"));
        for log in [
            r#"{"level": "info", "message": "hello"}"#,
            r#"{"progress": "half"}"#,
            r#"{"skip": 1}"#,
            r#"{"result": }"#,
            r#"["result"]"#,
            "result",
            "",
        ] {
            assert!(parse(log.as_bytes()).is_none(), "{log}");
        }
    }

    #[test]
    fn a_deep_result_is_read_without_using_the_stack() {
        let bomb = format!("{{\"result\": {}{}}}", "[".repeat(300_000), "]".repeat(300_000));
        assert!(parse(bomb.as_bytes()).expect("said").result.is_some());
        assert_eq!(oversized_key(b" { \"result\": [[["), Some("result"));
        assert_eq!(oversized_key(b"{\"level\": 1"), None);
    }

    #[test]
    fn the_end_of_the_log_is_kept() {
        let mut log = Log::default();
        assert_eq!(log.end(), "");
        log.push("first".as_bytes());
        assert_eq!(log.end(), "first");
        log.push("ä".repeat(LOG_BYTES_MAX).as_bytes());
        log.push(b"last");
        let end = log.end();
        assert!(end.starts_with("…ä") && end.ends_with("ä\nlast") && end.len() <= LOG_BYTES_MAX + 3, "{}", end.len());
    }
}
