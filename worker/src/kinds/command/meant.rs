//! Finds out whether output that is not a message was meant as one, and why it cannot be read. Pure.
use std::ops::ControlFlow;

/// Bytes of one line that are kept; the rest of a longer one is dropped.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// A member of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Member {
    Progress,
    Checkpoint,
    /// Like the result, it decides how the job ends.
    Skip,
    Result,
}

impl Member {
    pub const ALL: [Member; 4] = [Member::Progress, Member::Checkpoint, Member::Skip, Member::Result];

    pub fn name(self) -> &'static str {
        match self {
            Member::Progress => "progress",
            Member::Checkpoint => "checkpoint",
            Member::Skip => "skip",
            Member::Result => "result",
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|member| member.name().as_bytes() == name)
    }

    /// The member for which `name` is probably a typing error.
    fn like(name: &str) -> Option<Self> {
        let edits = |member: &Member| if *member == Member::Skip { 1 } else { 2 };
        let distance = |member: &Member| strsim::damerau_levenshtein(member.name(), name);
        Self::ALL
            .into_iter()
            .find(|member| Member::named(name.as_bytes()).is_none() && distance(member) <= edits(member))
    }
}

/// Output that was meant as a message and is not one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The most important of its members; `None`: its name is not known.
    pub member: Option<Member>,
    /// Whether it is certainly a message: the member's name is written as in JSON.
    pub is_certain: bool,
    /// The same output from another attempt may be complete.
    pub is_cut_off: bool,
    /// Why it cannot be read, and the beginning of it.
    pub reason: String,
}

impl Fault {
    /// A member of a line that is JSON has the wrong type.
    pub fn wrong_type(member: Member, must_be: &str, line: &[u8]) -> Self {
        let reason = format!("the member {:?} must be {must_be}: {}", member.name(), excerpt(line));
        Self { member: Some(member), is_certain: true, is_cut_off: false, reason }
    }

    /// A JSON object without a known member, of which one or more may be misspelt.
    pub fn unknown<'a>(names: impl IntoIterator<Item = &'a str>, line: &[u8]) -> Option<Self> {
        let mut names = names.into_iter().filter(|name| *name != "message");
        let (only, None) = (names.next()?, names.next()) else { return None };
        let like = Member::like(only)?.name();
        let reason = format!("the member {only:?} is not known; did you mean {like:?}? {}", excerpt(line));
        Some(Self { member: None, is_certain: false, is_cut_off: false, reason })
    }

    /// A line longer than [`LINE_BYTES_MAX`], by its beginning.
    pub fn too_long(beginning: &[u8]) -> Option<Self> {
        let (member, is_certain) = Scan::of(beginning).member(false)?;
        let reason = format!("its line exceeds the limit of {LINE_BYTES_MAX} bytes: {}", excerpt(beginning));
        Some(Self { member: Some(member), is_certain, is_cut_off: false, reason })
    }

    /// Text that is not JSON. `lines`: how many it has. `is_end`: the output ended with it.
    pub fn of(text: &[u8], lines: usize, is_end: bool) -> Option<Self> {
        let scan = Scan::of(text);
        let Some((member, is_certain)) = scan.member(is_end) else { return Self::embedded(text) };
        let is_cut_off = scan.depth > 0;
        let reason = format!("{}: {}", scan.reason(text, lines), excerpt(text));
        Some(Self { member: Some(member), is_certain, is_cut_off, reason })
    }

    /// A message that does not begin its line, perhaps because the output before it does not end with a line end.
    fn embedded(line: &[u8]) -> Option<Self> {
        let starts = line.iter().enumerate().filter(|(_, byte)| **byte == b'{').map(|(at, _)| at);
        let is_object = |at: &usize| serde_json::from_slice::<serde::de::IgnoredAny>(&line[*at..]).is_ok();
        let at = starts.take(4).find(is_object).filter(|at| *at > 0)?;
        Scan::of(&line[at..]).member(false)?;
        let reason = format!("a message must begin its line: {}", excerpt(line));
        Some(Self { member: None, is_certain: false, is_cut_off: false, reason })
    }
}

/// An object that has begun on a line and may end on a later one.
#[derive(Debug, Default)]
pub(super) struct Block {
    text: Vec<u8>,
    lines: usize,
    depth: usize,
    /// Its last line ends within a string, so it cannot continue.
    in_string: bool,
}

impl Block {
    /// Adds a line. `Break`: the block has ended, perhaps as a fault.
    pub fn push(&mut self, line: &[u8]) -> ControlFlow<Option<Fault>> {
        if self.text.len() + line.len() >= LINE_BYTES_MAX {
            return ControlFlow::Break(self.end(false));
        }
        if self.lines > 0 {
            self.text.push(b'\n');
        }
        self.text.extend(line);
        self.lines += 1;
        let (mut in_string, mut is_escaped) = (false, false);
        for byte in line {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = in_string,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => self.depth += 1,
                b'}' | b']' if !in_string => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.in_string = in_string;
        if in_string || self.depth > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(self.end(false)) }
    }

    /// Whether a further line may be part of it: a string of JSON cannot contain a line end.
    pub fn may_continue(&self) -> bool {
        !self.in_string
    }

    /// The block ends here. `is_end`: the output does, too.
    pub fn end(&self, is_end: bool) -> Option<Fault> {
        Fault::of(&self.text, self.lines, is_end)
    }
}

/// The members of an object, found without reading it as JSON.
#[derive(Debug, Default)]
struct Scan {
    /// Known members, each with whether its name is in double quotes.
    members: Vec<(Member, bool)>,
    /// A name that the text ends in.
    open: Option<Vec<u8>>,
    /// Objects and arrays that are open at the end.
    depth: usize,
    /// A word that is not JSON, such as NaN.
    word: Option<String>,
    /// Text in single quotes.
    is_single_quoted: bool,
}

impl Scan {
    fn of(text: &[u8]) -> Self {
        let mut scan = Self::default();
        // In UTF-16 every other byte of ASCII is 0.
        let mut bytes = without_mark(text).iter().copied().filter(|byte| *byte != 0).peekable();
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
        if bytes.next_if_eq(&b'{').is_none() {
            return scan;
        }
        scan.depth = 1;
        let mut name: Option<(Vec<u8>, bool)> = None;
        let mut expects_name = true;
        while let Some(byte) = bytes.next() {
            let is_name = expects_name && scan.depth == 1;
            match byte {
                b'"' | b'\'' => {
                    let (mut string, mut is_closed) = (Vec::new(), false);
                    while let Some(inner) = bytes.next() {
                        if inner == byte {
                            is_closed = true;
                            break;
                        }
                        string.push(inner);
                        if inner == b'\\' {
                            string.extend(bytes.next());
                        }
                    }
                    scan.is_single_quoted |= byte == b'\'';
                    if is_name && is_closed {
                        name = Some((string, byte == b'"'));
                    } else if is_name {
                        scan.open = Some(string);
                    }
                }
                b'{' | b'[' => scan.depth += 1,
                b'}' | b']' => scan.depth -= 1,
                b',' if scan.depth == 1 => expects_name = true,
                b':' if is_name => {
                    expects_name = false;
                    let known = name.take().and_then(|(name, quoted)| Some((Member::named(&name)?, quoted)));
                    scan.members.extend(known);
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                    let mut word = vec![byte];
                    while let Some(more) = bytes.next_if(|b| b.is_ascii_alphanumeric() || *b == b'_') {
                        word.push(more);
                    }
                    if is_name {
                        name = Some((word, false));
                    } else if !["true", "false", "null", "e", "E"].contains(&String::from_utf8_lossy(&word).as_ref()) {
                        scan.word.get_or_insert_with(|| String::from_utf8_lossy(&word).into_owned());
                    }
                }
                _ => {}
            }
            if scan.depth == 0 {
                break;
            }
        }
        if scan.depth == 1 && scan.open.is_none() {
            scan.open = name.filter(|(_, is_quoted)| *is_quoted).map(|(name, _)| name);
        }
        scan
    }

    /// The most important member, and whether it is certainly one.
    fn member(&self, is_end: bool) -> Option<(Member, bool)> {
        let begun = |name: &Vec<u8>| {
            let is_begun = |member: &Member| !name.is_empty() && member.name().as_bytes().starts_with(name);
            Some((Member::ALL.into_iter().rev().find(is_begun)?, true))
        };
        let open = self.open.as_ref().filter(|_| is_end).and_then(begun);
        self.members.iter().copied().chain(open).max()
    }

    fn reason(&self, text: &[u8], lines: usize) -> String {
        if text.contains(&0) {
            return "it is not UTF-8 (UTF-16?)".into();
        }
        if without_mark(text).len() < text.len() {
            return "it begins with a byte order mark; write UTF-8 without one".into();
        }
        if let Err(e) = std::str::from_utf8(text) {
            let at = e.valid_up_to();
            return format!("it is not UTF-8: byte {:#04x} at offset {at}", text[at]);
        }
        if let Some(word) = &self.word {
            return format!("{word} is not JSON; write a number, a string or null");
        }
        if self.is_single_quoted {
            return "it is not JSON: names and strings need double quotes".into();
        }
        match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
            Ok(_) => format!("it is spread over {lines} lines; a message must be on one"),
            Err(e) if e.is_eof() || self.depth > 0 => "it is cut off".into(),
            Err(e) => format!("it is not JSON: {e}"),
        }
    }
}

fn without_mark(text: &[u8]) -> &[u8] {
    let marks: [&[u8]; 3] = [b"\xEF\xBB\xBF", b"\xFF\xFE", b"\xFE\xFF"];
    marks.into_iter().find_map(|mark| text.strip_prefix(mark)).unwrap_or(text)
}

/// The beginning of a text on one line.
fn excerpt(text: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 200;
    let shown = String::from_utf8_lossy(&text[..text.len().min(4 * CHARACTERS_MAX)]);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = shown.chars().map(plain).take(CHARACTERS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &[u8]) -> Option<(Member, bool, String)> {
        let fault = Fault::of(text, 1, true)?;
        Some((fault.member?, fault.is_certain, fault.reason))
    }

    #[test]
    fn what_was_meant_as_a_result_is_recognised_with_its_reason() {
        for (text, reason) in [
            (&br#"{"result": {"score": NaN}}"#[..], "NaN is not JSON"),
            (br#"{"result": {"a": -Infinity}}"#, "Infinity is not JSON"),
            (br#"{"progress": 100, "result": [nan]}"#, "nan is not JSON"),
            (br#"{"result": None}"#, "None is not JSON"),
            (b"{\"result\": \"caf\xe9\"}", "not UTF-8: byte 0xe9 at offset 15"),
            (b"\xEF\xBB\xBF{\"result\": 3}", "byte order mark"),
            (b"\xFF\xFE{\0\"\0r\0e\0s\0u\0l\0t\0\"\0:\x003\0}\0", "UTF-16"),
            (br#"{"result": 3"#, "cut off"),
            (br#"{"result": "ab"#, "cut off"),
            (br#"{"result": {"a": [1, "#, "cut off"),
            (br#"{"result""#, "cut off"),
            (br#"{"res"#, "cut off"),
            (br#"{"result": 3,}"#, "not JSON: key must be a string"),
            (br#"{"result": 3} done"#, "not JSON: trailing characters"),
            (br#"{"result": 01}"#, "not JSON: "),
            (b"{\"result\": \"a\tb\"}", "not JSON: control character"),
        ] {
            let shown = String::from_utf8_lossy(text);
            match fault(text) {
                Some((Member::Result, true, got)) => assert!(got.contains(reason), "{shown}: {got}"),
                other => panic!("{shown}: {other:?}"),
            }
        }
        for (text, member) in [
            (&br#"{'result': 3}"#[..], Member::Result),
            (b"{ result: [ 1, 2 ] }", Member::Result),
            (br#"{'skip': "no"}"#, Member::Skip),
        ] {
            assert!(matches!(fault(text), Some((found, false, _)) if found == member), "{text:?}");
        }
        assert!(matches!(fault(br#"{"checkpoint": {"at": 1"#), Some((Member::Checkpoint, true, _))));
        assert!(matches!(fault(br#"{"progress": nan}"#), Some((Member::Progress, true, _))));
    }

    #[test]
    fn a_log_line_is_not_a_fault() {
        for text in [
            "",
            "{",
            "{}",
            "result: 3",
            "[\"result\"",
            "{result} of the run",
            "{ it's a brace",
            "{\"level\": \"info\",",
            "{\"data\": {\"result\": NaN}}",
            "{\"a\": \"result\", NaN}",
            "{\"m\": \"{'result': 3}\", x}",
        ] {
            assert_eq!(Fault::of(text.as_bytes(), 1, true), None, "{text}");
        }
        // Only at the end of the output may a name be incomplete.
        assert_eq!(Fault::of(br#"{"res"#, 1, false), None);
    }

    #[test]
    fn a_message_within_a_line_and_a_misspelt_one_are_warnings() {
        let within = Fault::of(br#"working... {"result": 3}"#, 1, false).unwrap();
        assert!(within.member.is_none() && within.reason.contains("must begin its line"), "{within:?}");
        let near = |names: &[&str]| Fault::unknown(names.iter().copied(), b"{}").map(|fault| fault.reason);
        assert!(near(&["reslt"]).unwrap().contains("did you mean \"result\"?"));
        assert!(
            near(&["Result"]).is_some() && near(&["chekpoint"]).is_some() && near(&["progres", "message"]).is_some()
        );
        for other in [&["level", "progres"][..], &["message"], &["text"], &["skipped"], &[]] {
            assert_eq!(near(other), None, "{other:?}");
        }
    }

    fn block(lines: &[&str]) -> Option<Fault> {
        let mut block = Block::default();
        for line in lines {
            if let ControlFlow::Break(fault) = block.push(line.as_bytes()) {
                return fault;
            }
        }
        block.end(true)
    }

    #[test]
    fn a_message_over_several_lines_is_recognised() {
        let pretty = block(&["{", "  \"progress\": 1,", "  \"result\": {", "    \"a\": \"}\"", "  }", "}"]).unwrap();
        assert_eq!((pretty.member, pretty.is_cut_off), (Some(Member::Result), false));
        assert!(pretty.reason.contains("spread over 6 lines"), "{pretty:?}");
        assert!(block(&["{\"result\": [", "1,", "NaN]}"]).unwrap().reason.contains("NaN"));
        let cut = block(&["{", "  \"result\": {", "    \"a\":"]).unwrap();
        assert!(cut.is_cut_off && cut.reason.contains("cut off"), "{cut:?}");
        assert!(block(&["{\"result\": \"a", "b\"}"]).is_some());
        assert_eq!(block(&["{", "  \"data\": {\"result\": 3}", "}"]), None);
        assert_eq!(block(&["{", "plain text", "more of it"]), None);
    }

    #[test]
    fn a_line_that_is_too_long_is_recognised_wherever_its_member_is() {
        let long = |head: &str| Fault::too_long(format!("{head}{}", "x".repeat(100)).as_bytes());
        assert_eq!(long("{\"message\": \"m\", \"result\": \"").unwrap().member, Some(Member::Result));
        assert_eq!(long("{\"checkpoint\": \"").unwrap().member, Some(Member::Checkpoint));
        assert!(long("{\"level\": \"").is_none() && long("x").is_none());
        // A deep text uses no stack.
        assert!(Fault::too_long(format!("{{\"result\": {}", "[".repeat(500_000)).as_bytes()).is_some());
    }
}
