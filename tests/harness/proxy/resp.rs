//! Where one command or one reply ends in a stream of bytes: RESP2 and RESP3, as Redis speaks them.

use std::fmt;

use bytes::{Bytes, BytesMut};

/// The bytes are not RESP; what it was is in the message.
#[derive(Debug)]
pub(super) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "not RESP: {}", self.0)
    }
}

/// A command on its way to Redis.
#[derive(Debug, Clone)]
pub struct Command {
    pub(super) frame: Bytes,
    /// Its name and arguments; empty for a blank line, which Redis does not answer.
    pub arguments: Vec<Bytes>,
}

impl Command {
    /// Whether this is its name, in upper or lower case.
    pub fn is(&self, name: &str) -> bool {
        self.argument_is(0, name)
    }

    /// Whether it runs the script with this SHA-1: by EVALSHA, or by EVAL when Redis did not know it.
    pub fn runs(&self, sha: &str) -> bool {
        let text = || std::str::from_utf8(self.arguments.get(1)?).ok();
        self.is("EVALSHA") && self.argument_is(1, sha)
            || self.is("EVAL") && text().is_some_and(|text| ::redis::Script::new(text).get_hash() == sha)
    }

    /// Whether any of its words contains these bytes: a key, an id, a word of a script.
    pub fn contains(&self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        self.arguments.iter().any(|word| word.windows(bytes.len().max(1)).any(|part| part == bytes))
    }

    /// Whether it is one of the commands answered by push messages instead of a reply.
    pub(super) fn is_subscription(&self) -> bool {
        const NAMES: [&str; 6] =
            ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"];
        NAMES.iter().any(|name| self.is(name))
    }

    fn argument_is(&self, index: usize, word: &str) -> bool {
        self.arguments.get(index).is_some_and(|argument| argument.eq_ignore_ascii_case(word.as_bytes()))
    }
}

/// Takes the first command off the buffer; `None` while it is not whole.
pub(super) fn take_command(buffer: &mut BytesMut) -> Result<Option<Command>, Malformed> {
    let Some((line, mut end)) = line(buffer, 0)? else {
        return Ok(None);
    };
    let mut words = Vec::new();
    if line.first() == Some(&b'*') {
        for _ in 0..count(&line[1..])? {
            let Some((header, start)) = self::line(buffer, end)? else {
                return Ok(None);
            };
            let Some((b'$', digits)) = header.split_first().map(|(kind, rest)| (*kind, rest)) else {
                return Err(Malformed("a command's word is no bulk string"));
            };
            let length = count(digits)?;
            if buffer.len() < start + length + 2 {
                return Ok(None);
            }
            words.push(start..start + length);
            end = start + length + 2;
        }
    } else {
        let mut start = 0;
        for word in line.split(u8::is_ascii_whitespace) {
            if !word.is_empty() {
                words.push(start..start + word.len());
            }
            start += word.len() + 1;
        }
    }
    let frame = buffer.split_to(end).freeze();
    let arguments = words.into_iter().map(|word| frame.slice(word)).collect();
    Ok(Some(Command { frame, arguments }))
}

/// A reply or push message on its way from Redis.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) frame: Bytes,
}

impl Reply {
    /// Whether it answers no command. In RESP2 that shows in an array's first word only, so it is
    /// looked at only on a connection that has subscribed.
    pub(super) fn is_push(&self, has_subscribed: bool) -> bool {
        const WORDS: [&[u8]; 9] = [
            b"message",
            b"pmessage",
            b"smessage",
            b"subscribe",
            b"psubscribe",
            b"ssubscribe",
            b"unsubscribe",
            b"punsubscribe",
            b"sunsubscribe",
        ];
        match self.frame.first() {
            Some(b'>') => true,
            Some(b'*') if has_subscribed => {
                let word = self.frame.split(|&byte| byte == b'\n').nth(2);
                word.and_then(|word| word.strip_suffix(b"\r")).is_some_and(|word| WORDS.contains(&word))
            }
            _ => false,
        }
    }

    /// Whether Redis has done nothing for it: a null (a pop that timed out), or a script that must
    /// be loaded first.
    pub(super) fn is_nothing(&self) -> bool {
        [&b"$-1\r"[..], b"*-1\r", b"_\r", b"-NOSCRIPT"].iter().any(|prefix| self.frame.starts_with(prefix))
    }
}

/// Takes the first reply off the buffer; `None` while it is not whole.
pub(super) fn take_reply(buffer: &mut BytesMut) -> Result<Option<Reply>, Malformed> {
    let mut end = 0;
    let mut values_left: usize = 1;
    while values_left > 0 {
        let Some((header, next)) = line(buffer, end)? else {
            return Ok(None);
        };
        let (kind, rest) = header.split_first().ok_or(Malformed("a blank line"))?;
        end = next;
        values_left -= 1;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'!' | b'=' => {
                if rest != b"-1" {
                    end += count(rest)? + 2;
                }
            }
            b'*' | b'~' | b'>' => values_left += count(rest)?,
            b'%' => values_left += 2 * count(rest)?,
            // Attributes come before the value they belong to.
            b'|' => values_left += 2 * count(rest)? + 1,
            _ => return Err(Malformed("an unknown type")),
        }
        if buffer.len() < end {
            return Ok(None);
        }
    }
    let frame = buffer.split_to(end).freeze();
    Ok(Some(Reply { frame }))
}

/// The line that begins at `start`, without its end, and where the next one begins.
fn line(buffer: &[u8], start: usize) -> Result<Option<(&[u8], usize)>, Malformed> {
    const LINE_BYTES_MAX: usize = 64 * 1024;
    let rest = &buffer[start..];
    match rest.iter().position(|&byte| byte == b'\n') {
        Some(end) => {
            let line = &rest[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            Ok(Some((line, start + end + 1)))
        }
        None if rest.len() > LINE_BYTES_MAX => Err(Malformed("a line without end")),
        None => Ok(None),
    }
}

/// A length; the null array's and an empty command's -1 counts as 0.
fn count(digits: &[u8]) -> Result<usize, Malformed> {
    let number: i64 =
        str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(Malformed("a length is no number"))?;
    Ok(usize::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all frames, fed byte by byte: where the stream is cut must not matter.
    fn replies(stream: &[u8]) -> Vec<Reply> {
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        for byte in stream {
            buffer.extend_from_slice(&[*byte]);
            found.extend(take_reply(&mut buffer).unwrap());
        }
        assert!(buffer.is_empty());
        found
    }

    fn commands(stream: &[u8]) -> Vec<Command> {
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        for byte in stream {
            buffer.extend_from_slice(&[*byte]);
            found.extend(take_command(&mut buffer).unwrap());
        }
        assert!(buffer.is_empty());
        found
    }

    #[test]
    fn every_kind_of_reply_ends_where_it_ends() {
        let frames: [&[u8]; 17] = [
            b"+OK\r\n",
            b"-ERR no\r\n",
            b":42\r\n",
            b"$5\r\na\r\nbc\r\n",
            b"$0\r\n\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
            b"_\r\n",
            b"#t\r\n",
            b",1.5\r\n",
            b"(123\r\n",
            b"!3\r\nERR\r\n",
            b"=7\r\ntxt:abc\r\n",
            b"%1\r\n+a\r\n~2\r\n:1\r\n:2\r\n",
            b"|1\r\n+ttl\r\n:9\r\n*1\r\n:7\r\n",
        ];
        let found = replies(&frames.concat());
        let found: Vec<&[u8]> = found.iter().map(|reply| &reply.frame[..]).collect();
        assert_eq!(found, frames);
    }

    #[test]
    fn pipelined_commands_come_apart() {
        let stream = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\nPING  x\r\n\r\n*0\r\n*1\r\n$4\r\nping\r\n";
        let found = commands(stream);
        let words: Vec<Vec<&[u8]>> =
            found.iter().map(|command| command.arguments.iter().map(|word| &word[..]).collect()).collect();
        let expected: [&[&[u8]]; 5] = [&[b"GET", b"a\r\nb"], &[b"PING", b"x"], &[], &[], &[b"ping"]];
        assert_eq!(words, expected);
        assert!(found[4].is("PING") && found[0].contains(b"\nb") && !found[0].contains("c"));
    }

    #[test]
    fn push_messages_are_told_from_replies() {
        let message = &replies(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n")[0];
        assert!(message.is_push(true) && !message.is_push(false));
        assert!(replies(b">2\r\n+invalidate\r\n_\r\n")[0].is_push(false));
        assert!(!replies(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")[0].is_push(true));
    }

    #[test]
    fn what_is_no_resp_is_refused() {
        take_reply(&mut BytesMut::from("HTTP/1.1 200 OK\r\n")).unwrap_err();
        take_command(&mut BytesMut::from("*1\r\n:1\r\n")).unwrap_err();
        take_command(&mut BytesMut::from("*x\r\n")).unwrap_err();
    }
}
