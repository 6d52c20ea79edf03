//! The heads of a connection's requests, read beside hyper. hyper accepts a head with both `Transfer-Encoding` and
//! `Content-Length` and hides that it had both; a proxy may have divided the same bytes into other requests.
use std::collections::VecDeque;

/// A head that was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Its body is chunked; the heads after it are not read, so the connection must be closed after its response.
    pub chunked: bool,
    /// It gives the length of its body in two ways.
    pub two_lengths: bool,
}

/// The reader of one connection's heads.
pub struct Heads {
    place: Place,
    head_bytes: usize,
    read: VecDeque<Head>,
}

/// What the next bytes are.
enum Place {
    /// The rest of a head, of which these have been read.
    Head(Vec<u8>),
    /// The rest of a body of that many bytes.
    Body(u64),
    /// Bytes that are not looked at.
    Unread,
}

impl Heads {
    /// For heads of up to `head_bytes` bytes.
    pub fn new(head_bytes: usize) -> Self {
        Self { place: Place::Head(Vec::new()), head_bytes, read: VecDeque::new() }
    }

    /// The next head; in the order of the requests.
    pub fn next(&mut self) -> Head {
        self.read.pop_front().unwrap_or_default()
    }

    /// Reads on.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.place {
                Place::Unread => return,
                Place::Body(left) => {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        self.place = Place::Head(Vec::new());
                    }
                }
                Place::Head(known) => {
                    let before = known.len();
                    let more = bytes.len().min((self.head_bytes + 1).saturating_sub(before));
                    known.extend_from_slice(&bytes[..more]);
                    let ends_a_line = bytes[..more].contains(&b'\n');
                    let parsed = if ends_a_line { parse(known) } else { Parsed::Partial };
                    match parsed {
                        Parsed::Partial if known.len() <= self.head_bytes => return,
                        // hyper refuses it.
                        Parsed::Partial | Parsed::Invalid => self.place = Place::Unread,
                        Parsed::Whole(length, head, body) => {
                            bytes = &bytes[length - before..];
                            self.read.push_back(head);
                            self.place = match body {
                                _ if head.chunked => Place::Unread,
                                0 => Place::Head(Vec::new()),
                                body => Place::Body(body),
                            };
                        }
                    }
                }
            }
        }
    }
}

enum Parsed {
    Partial,
    Invalid,
    /// The length of the head, the head, and the length of its body.
    Whole(usize, Head, u64),
}

/// Parses a head as hyper does, by the same library and with the same limit of headers.
fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Invalid,
    };
    let values = |name: &'static str| {
        let of_name = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        of_name.map(|header| header.value)
    };
    let chunked = values("transfer-encoding").next().is_some();
    let lengths = values("content-length").next();
    let body = lengths.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok()).unwrap_or(0);
    Parsed::Whole(length, Head { chunked, two_lengths: chunked && lengths.is_some() }, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Head = Head { chunked: false, two_lengths: false };
    const CHUNKED: Head = Head { chunked: true, two_lengths: false };
    const TWO: Head = Head { chunked: true, two_lengths: true };

    #[test]
    fn every_head_is_read_however_its_bytes_arrive() {
        let text = "GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 30\r\n\r\n\
                    transfer-encoding: chunked\r\n\r\n\r\nPOST /c HTTP/1.1\n\
                    content-length: 3\nTransfer-Encoding: chunked\n\nabc";
        for step in [1, 2, 7, 64, text.len()] {
            let mut heads = Heads::new(1_000);
            text.as_bytes().chunks(step).for_each(|part| heads.push(part));
            assert_eq!([(); 4].map(|()| heads.next()), [PLAIN, PLAIN, TWO, PLAIN], "{step}");
            assert!(heads.read.is_empty());
        }
    }

    #[test]
    fn both_orders_of_two_lengths_are_seen() {
        for (lines, head) in [
            ("content-length: 3\r\ntransfer-encoding: chunked", TWO),
            ("transfer-encoding: chunked\r\ncontent-length: 3", TWO),
            ("Transfer-Encoding: gzip, chunked\r\nX: content-length: 3", CHUNKED),
            ("x-content-length: 3\r\nX: transfer-encoding: chunked", PLAIN),
        ] {
            let mut heads = Heads::new(1_000);
            heads.push(format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n").as_bytes());
            assert_eq!(heads.next(), head, "{lines}");
        }
    }

    #[test]
    fn a_head_that_is_too_long_is_not_kept() {
        let mut heads = Heads::new(100);
        heads.push(&[b'a'; 1_000]);
        assert!(matches!(heads.place, Place::Unread));
    }
}
