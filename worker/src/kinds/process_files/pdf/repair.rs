//! Repairs a content that cannot be parsed to its end.

/// The content with each closing delimiter that nothing has opened, and each brace, replaced by a space; all readers
/// pass over them. `None`: a string or an array has no end, or there is an inline image, whose bytes are not operators.
pub(super) fn without_stray_delimiters(content: &[u8]) -> Option<Vec<u8>> {
    let mut repaired = content.to_vec();
    let (mut arrays, mut dictionaries, mut at) = (0_usize, 0_usize, 0);
    while at < content.len() {
        let next = content.get(at + 1).copied();
        let (length, is_stray) = match content[at] {
            b'(' => (string_length(&content[at..])?, false),
            b'%' => (content[at..].iter().take_while(|byte| !matches!(byte, b'\r' | b'\n')).count(), false),
            b'<' if next == Some(b'<') => {
                dictionaries += 1;
                (2, false)
            }
            b'<' => (content[at..].iter().position(|byte| *byte == b'>')? + 1, false),
            b'>' if next == Some(b'>') && dictionaries > 0 => {
                dictionaries -= 1;
                (2, false)
            }
            b'[' => {
                arrays += 1;
                (1, false)
            }
            b']' if arrays > 0 => {
                arrays -= 1;
                (1, false)
            }
            b')' | b'>' | b']' | b'{' | b'}' => (1, true),
            b'I' if next == Some(b'D') && content.get(at + 2).is_some_and(u8::is_ascii_whitespace) => return None,
            _ => (1, false),
        };
        if is_stray {
            repaired[at] = b' ';
        }
        at += length;
    }
    (arrays == 0 && dictionaries == 0).then_some(repaired)
}

/// The length of the string that the content begins with.
fn string_length(content: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        match content.get(at)? {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}
