//! Unpacks streams. Damage is an error here, where the library would use the readable part.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};

use flate2::read::DeflateDecoder;
use hayro_syntax::Filter;
use hayro_syntax::object::{Array, Dict, Name, Number, Object, Stream};

use super::Refusal;

/// The maximum size of an unpacked stream, in bytes. Deflate compresses up to a thousand to one, so a small file can
/// hold a very large stream.
pub(super) const STREAM_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The unpacked content of a stream that is not an image.
pub(super) fn unpack<'a>(stream: &Stream<'a>) -> Result<Cow<'a, [u8]>, Refusal> {
    let filters = stream.filters();
    check_filters(stream.dict(), filters.len())?;
    let raw = stream.raw_data();
    if raw.is_empty() && stream.dict().get::<Number>("Length").is_some_and(|length| length.as_i64() > 0) {
        return Err(Refusal::Broken("a stream is empty or cannot be decrypted".to_owned()));
    }
    let unpacked = match filters.as_slice() {
        [] => within_object(raw),
        [Filter::FlateDecode] => inflated(stream, &raw)?,
        [Filter::Ascii85Decode, Filter::FlateDecode] => inflated(stream, &ascii_85(&raw)?)?,
        [Filter::AsciiHexDecode, Filter::FlateDecode] => inflated(stream, &hexadecimal(&raw)?)?,
        _ => decoded(stream)?,
    };
    if unpacked.len() > STREAM_BYTES_MAX {
        return Err(too_large());
    }
    Ok(unpacked)
}

fn too_large() -> Refusal {
    Refusal::TooCostly(format!("a stream decompresses to more than {} MiB", STREAM_BYTES_MAX / 1024 / 1024))
}

fn decoded<'a>(stream: &Stream<'a>) -> Result<Cow<'a, [u8]>, Refusal> {
    stream.decoded_data().map_err(|_| Refusal::Broken("a stream cannot be decoded".to_owned()))
}

/// Refuses filters that the library does not know: it would leave them out.
fn check_filters(dict: &Dict<'_>, known: usize) -> Result<(), Refusal> {
    let names: Vec<Name<'_>> = match dict.get::<Object<'_>>("Filter") {
        Some(Object::Name(name)) => vec![name],
        Some(Object::Array(names)) => Array::iter::<Name<'_>>(&names).collect(),
        _ => Vec::new(),
    };
    if names.len() > known {
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        return Err(Refusal::Broken(format!("a stream needs a filter that is not supported: {}", names.join(", "))));
    }
    Ok(())
}

/// A stream whose end is missing reaches into the objects behind it, up to the end of another stream.
fn within_object(raw: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match find(&raw, b"\nendobj").or_else(|| find(&raw, b"\rendobj")) {
        Some(end) if find(&raw[end..], b" obj").is_some() => Cow::Owned(raw[..end].to_vec()),
        _ => raw,
    }
}

/// Deflated data. The checksum at its end is ignored, as other readers do.
fn inflated<'a>(stream: &Stream<'a>, packed: &[u8]) -> Result<Cow<'a, [u8]>, Refusal> {
    let start = packed.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(packed.len());
    let packed = match packed.get(..2) {
        Some([b'\r' | b'\n', _]) => &packed[start..],
        _ => packed,
    };
    let has_header = packed.len() >= 2 && packed[0] & 0x0F == 8 && u16::from_be_bytes([packed[0], packed[1]]) % 31 == 0;
    let deflated = if has_header { &packed[2..] } else { packed };
    let mut content = Vec::new();
    if !deflated.is_empty() {
        let mut decoder = DeflateDecoder::new(deflated).take(STREAM_BYTES_MAX as u64 + 1);
        decoder.read_to_end(&mut content).map_err(|error| {
            let reason =
                if error.kind() == ErrorKind::UnexpectedEof { "it is cut off".to_owned() } else { error.to_string() };
            Refusal::Broken(format!("a compressed stream is damaged: {reason}"))
        })?;
    }
    if content.len() > STREAM_BYTES_MAX {
        return Err(too_large());
    }
    let has_predictor = ["DecodeParms", "DP"].iter().any(|key| stream.dict().contains_key(key));
    if has_predictor { decoded(stream) } else { Ok(Cow::Owned(content)) }
}

/// Base-85 text, up to its `~>`.
fn ascii_85(packed: &[u8]) -> Result<Vec<u8>, Refusal> {
    let damaged = || Refusal::Broken("a stream in ASCII base-85 is damaged".to_owned());
    let (mut content, mut group, mut digits) = (Vec::new(), 0_u64, 0);
    for byte in
        packed.iter().take_while(|byte| **byte != b'~').filter(|byte| !byte.is_ascii_whitespace() && **byte != 0)
    {
        match byte {
            b'z' if digits == 0 => content.extend_from_slice(&[0; 4]),
            b'!'..=b'u' => {
                group = group * 85 + u64::from(byte - b'!');
                digits += 1;
                if digits == 5 {
                    content.extend_from_slice(&u32::try_from(group).map_err(|_| damaged())?.to_be_bytes());
                    (group, digits) = (0, 0);
                }
            }
            _ => return Err(damaged()),
        }
    }
    if digits > 1 {
        let padded = (digits..5).fold(group, |group, _| group * 85 + 84);
        let bytes = u32::try_from(padded).map_err(|_| damaged())?.to_be_bytes();
        content.extend_from_slice(&bytes[..digits - 1]);
    }
    Ok(content)
}

/// Hexadecimal text, up to its `>`.
fn hexadecimal(packed: &[u8]) -> Result<Vec<u8>, Refusal> {
    let damaged = || Refusal::Broken("a stream in hexadecimal is damaged".to_owned());
    let digits =
        packed.iter().take_while(|byte| **byte != b'>').filter(|byte| !byte.is_ascii_whitespace() && **byte != 0);
    let digits: Option<Vec<u8>> = digits.map(|byte| char::from(*byte).to_digit(16).map(|digit| digit as u8)).collect();
    Ok(digits.ok_or_else(damaged)?.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect())
}

pub(super) fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, word)
}
