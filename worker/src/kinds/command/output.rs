//! Parses a command's output line by line into messages to Leasehold and log lines. Pure.
use std::collections::{BTreeMap, VecDeque};

use serde_json::value::RawValue;

use super::meant::{Fault, LINE_BYTES_MAX, Member};

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
    /// Members that have the wrong type, or a name that is not known.
    pub faults: Vec<Fault>,
}

impl Message {
    /// Whether it has a member that takes effect.
    pub fn takes_effect(&self) -> bool {
        self.progress.is_some() || self.skip.is_some() || self.checkpoint.is_some() || self.result.is_some()
    }
}

/// Parses a line that is a JSON object; `None`: it is not one.
pub(super) fn parse(line: &[u8]) -> Option<Message> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(line).ok()?;
    let mut message = Message::default();
    if let Some(percent) = fields.get("progress") {
        let percent = serde_json::from_str::<Option<f64>>(percent.get());
        let phase = fields.get("message").map_or(Ok(None), |phase| serde_json::from_str::<Option<String>>(phase.get()));
        match (percent, phase) {
            (Ok(percent), Ok(phase)) => message.progress = Some((percent, phase)),
            _ => {
                let must_be = "a number or null, with a text as \"message\"";
                message.faults.push(Fault::wrong_type(Member::Progress, must_be, line));
            }
        }
    }
    if let Some(reason) = fields.get("skip") {
        match serde_json::from_str(reason.get()) {
            Ok(reason) => message.skip = Some(reason),
            Err(_) => message.faults.push(Fault::wrong_type(Member::Skip, "a text", line)),
        }
    }
    message.checkpoint = fields.remove("checkpoint");
    message.result = fields.remove("result");
    if !message.takes_effect() && message.faults.is_empty() {
        message.faults.extend(Fault::unknown(fields.keys().map(String::as_str), line));
    }
    Some(message)
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
        drop((Fault::too_long(line), Fault::of(line, 1, ends)));
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
        for log in [r#"{"level": "info", "message": "hello"}"#, "{}", r#"{"result": }"#, r#"["result"]"#, "result", ""]
        {
            let is_log =
                parse(log.as_bytes()).is_none_or(|message| !message.takes_effect() && message.faults.is_empty());
            assert!(is_log, "{log}");
        }
    }

    #[test]
    fn a_member_of_the_wrong_type_leaves_the_others_in_effect() {
        let got = parse(br#"{"progress": "half", "result": 3}"#).unwrap();
        assert!(got.progress.is_none() && got.result.is_some());
        assert_eq!(got.faults.iter().map(|fault| fault.member).collect::<Vec<_>>(), [Some(Member::Progress)]);
        for wrong in [r#"{"progress": 5, "message": 5}"#, r#"{"progress": 1e999}"#, r#"{"skip": 1}"#, r#"{"reslt": 3}"#]
        {
            let got = parse(wrong.as_bytes()).unwrap();
            assert!(!got.takes_effect() && got.faults.len() == 1, "{wrong}: {got:?}");
        }
    }

    #[test]
    fn a_deep_result_is_read_without_using_the_stack() {
        let bomb = format!("{{\"result\": {}{}}}", "[".repeat(300_000), "]".repeat(300_000));
        assert!(parse(bomb.as_bytes()).expect("said").result.is_some());
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
