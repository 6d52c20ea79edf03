//! Finds the sound in a WAV file, whatever sizes its headers claim, and writes a plain header for each part of it.
//!
//! A recorder that loses its power, or a program that writes to a pipe, leaves sizes of 0 or -1, or those of a moment
//! ago: then the sound goes up to the end of the file. A size is trusted if it is followed by the end of the file, by
//! other chunks, or by another WAV file.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::source::Part;
use super::{AudioError, check};

/// Chunks of a file that are looked at.
const CHUNKS_MAX: usize = 65_536;
/// Bytes of sound in one part: the size field of a header has 32 bits.
const PART_BYTES_MAX: u64 = 1 << 30;
/// A size that a streaming writer leaves, and that RF64 has where its real one has 64 bits.
const UNKNOWN: u32 = u32::MAX;

const PCM: u16 = 1;
const ADPCM_MS: u16 = 2;
const FLOAT: u16 = 3;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
const ADPCM_IMA: u16 = 0x11;
const MP3: u16 = 0x55;
const EXTENSIBLE: u16 = 0xFFFE;

/// The parts of a WAV file, in order; `None`: it is not one.
///
/// # Errors
/// [`AudioError`] names what is not supported.
pub(super) fn parts(file: &File, bytes: u64) -> Result<Option<Vec<Part>>, AudioError> {
    let mut reader = Reader { file, bytes, chunks: 0 };
    if !reader.is_wav(0)? {
        return Ok(None);
    }
    let (mut parts, mut next) = (Vec::new(), Some(0));
    while let Some(start) = next {
        next = reader.one(start, &mut parts)?;
    }
    Ok(Some(parts))
}

/// A chunk's name, size, and where its content begins.
struct Chunk {
    id: [u8; 4],
    size: u32,
    at: u64,
}

struct Reader<'a> {
    file: &'a File,
    bytes: u64,
    chunks: usize,
}

impl Reader<'_> {
    fn read<const N: usize>(&self, at: u64) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn is_wav(&self, at: u64) -> Result<bool, AudioError> {
        let head = self.read::<12>(at)?;
        Ok(head.is_some_and(|head| {
            [b"RIFF", b"RF64", b"BW64"].iter().any(|id| head.starts_with(*id)) && &head[8..] == b"WAVE"
        }))
    }

    fn chunk(&mut self, at: u64) -> Result<Option<Chunk>, AudioError> {
        self.chunks += 1;
        if self.chunks > CHUNKS_MAX {
            return Err(AudioError::Refused(format!("it has more than {CHUNKS_MAX} chunks")));
        }
        let head = self.read::<8>(at)?;
        Ok(head.map(|[a, b, c, d, size @ ..]| Chunk { id: [a, b, c, d], size: u32::from_le_bytes(size), at: at + 8 }))
    }

    /// Adds the parts of the WAV file that begins at `start`. Returns where another one begins.
    fn one(&mut self, start: u64, parts: &mut Vec<Part>) -> Result<Option<u64>, AudioError> {
        let (mut at, mut format, mut long, mut frames) = (start + 12, None, None, None);
        loop {
            let Some(chunk) = self.chunk(at)? else {
                return Err(AudioError::NotAudio("it ends before the sound begins".into()));
            };
            match &chunk.id {
                b"ds64" => {
                    long =
                        self.read::<16>(chunk.at)?.map(|[_, _, _, _, _, _, _, _, size @ ..]| u64::from_le_bytes(size))
                }
                b"fmt " => format = Some(self.format(&chunk)?),
                b"fact" => frames = self.read::<4>(chunk.at)?.map(u32::from_le_bytes),
                b"data" => {
                    let Some(format) = format else {
                        return Err(AudioError::NotAudio("its sound has no format".into()));
                    };
                    let claimed = if chunk.size == UNKNOWN { long } else { Some(u64::from(chunk.size)) };
                    let (size, next) = self.sound(start, &chunk, claimed)?;
                    format.add(chunk.at, size, frames, parts);
                    return Ok(next);
                }
                _ => {}
            }
            at = chunk.at + u64::from(chunk.size) + u64::from(chunk.size & 1);
        }
    }

    /// The size of the sound in a chunk, and where another WAV file begins after it.
    fn sound(&mut self, start: u64, chunk: &Chunk, claimed: Option<u64>) -> Result<(u64, Option<u64>), AudioError> {
        let left = self.bytes.saturating_sub(chunk.at);
        let Some(claimed) = claimed.filter(|size| *size <= left) else { return Ok((left, None)) };
        let riff = self.read::<4>(start + 4)?.map_or(0, u32::from_le_bytes);
        let is_whole = start + 8 + u64::from(riff) == self.bytes;
        if claimed == 0 && !is_whole && !(left > 0 && matches!(self.chunks_to_end(chunk.at)?, Rest::Chunks(_))) {
            return Ok((left, None));
        }
        for padding in [claimed & 1, 0] {
            if let Rest::Chunks(next) = self.chunks_to_end(chunk.at + claimed + padding)? {
                return Ok((claimed, next));
            }
        }
        Ok((left, None))
    }

    /// What follows the sound.
    fn chunks_to_end(&mut self, mut at: u64) -> Result<Rest, AudioError> {
        /// Of a file that breaks off within a chunk.
        const KNOWN: [&[u8; 4]; 8] = [b"LIST", b"id3 ", b"ID3 ", b"cue ", b"bext", b"smpl", b"_PMX", b"iXML"];
        /// An ID3v1 tag.
        const TAG_BYTES: u64 = 128;
        loop {
            if self.is_wav(at)? {
                return Ok(Rest::Chunks(Some(at)));
            }
            if self.bytes.saturating_sub(at) == TAG_BYTES && self.read::<3>(at)?.is_some_and(|tag| &tag == b"TAG") {
                return Ok(Rest::Chunks(None));
            }
            let Some(chunk) = self.chunk(at)? else {
                // Less than a chunk is padding.
                return Ok(Rest::Chunks(None));
            };
            let end = chunk.at + u64::from(chunk.size);
            let is_name = chunk.id.iter().all(|byte| (b' '..=b'~').contains(byte));
            if !is_name || (end > self.bytes && !KNOWN.contains(&&chunk.id)) {
                return Ok(Rest::Sound);
            }
            at = end + u64::from(chunk.size & 1);
        }
    }

    fn format(&self, chunk: &Chunk) -> Result<Format, AudioError> {
        let Some(head) = self.read::<16>(chunk.at)?.filter(|_| chunk.size >= 16) else {
            return Err(AudioError::NotAudio("the description of its format is cut off".into()));
        };
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let rate = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let (mut tag, channels, block, bits) = (u16_at(0), u16_at(2), u16_at(12), u16_at(14));
        if tag == EXTENSIBLE {
            // The first two bytes of the format's GUID.
            tag = self.read::<2>(chunk.at + 24)?.filter(|_| chunk.size >= 40).map_or(tag, u16::from_le_bytes);
        }
        if channels == 0 {
            return Err(AudioError::NotAudio("it has no channels".into()));
        }
        check(Some(rate), Some(usize::from(channels)))?;
        let refused = |what: String| Err(AudioError::Refused(what));
        let container = |sizes: &[u16]| {
            let given = (block % channels == 0).then_some(block / channels).filter(|size| size * 8 >= bits);
            given.or(Some(bits.div_ceil(8))).filter(|size| sizes.contains(size))
        };
        let (container, wanted) = match tag {
            PCM => (container(&[1, 2, 3, 4]), "8, 16, 24 or 32"),
            FLOAT => (container(&[4, 8]), "32 or 64"),
            A_LAW | MU_LAW => (Some(1), ""),
            ADPCM_MS | ADPCM_IMA if bits != 4 => (None, "4"),
            ADPCM_MS if block <= 7 * channels || channels > 2 => {
                return refused(format!("ADPCM with {channels} channels in blocks of {block} bytes"));
            }
            ADPCM_IMA if block <= 4 * channels || channels > 2 => {
                return refused(format!("ADPCM with {channels} channels in blocks of {block} bytes"));
            }
            ADPCM_MS | ADPCM_IMA => (Some(0), ""),
            MP3 => (Some(0), ""),
            other => {
                return refused(format!(
                    "its sound is {} in WAV (format {other:#06x}); convert it to PCM",
                    codec(other)
                ));
            }
        };
        match container {
            Some(container) => Ok(Format { tag, channels, rate, block, container }),
            None => refused(format!("its samples have {bits} bits; {wanted} can be analysed in format {tag:#06x}")),
        }
    }
}

/// What is after the sound of a size that a header claims.
enum Rest {
    /// Chunks, or nothing; perhaps another WAV file.
    Chunks(Option<u64>),
    /// More sound: the size is wrong.
    Sound,
}

/// How the sound is encoded.
struct Format {
    tag: u16,
    channels: u16,
    rate: u32,
    /// Bytes of a block of ADPCM.
    block: u16,
    /// Bytes of a sample of a channel; 0 for compressed sound.
    container: u16,
}

impl Format {
    /// Bytes that are decoded together, and their frames.
    fn unit(&self) -> (u64, u64) {
        let (channels, block) = (u64::from(self.channels), u64::from(self.block));
        match self.tag {
            ADPCM_MS => (block, 2 * (block - 7 * channels) / channels + 2),
            ADPCM_IMA => (block, 2 * (block - 4 * channels) / channels + 1),
            _ => (channels * u64::from(self.container), 1),
        }
    }

    /// Adds the sound as parts with plain headers. `frames`: their number after the file's header; the last block of
    /// ADPCM may have more.
    fn add(&self, at: u64, size: u64, frames: Option<u32>, parts: &mut Vec<Part>) {
        if self.tag == MP3 {
            return parts.push(Part { header: Vec::new(), at, bytes: size, frames: None });
        }
        let (unit, of_unit) = self.unit();
        let units = size / unit;
        let is_within =
            |frames: &u64| of_unit > 1 && (units.saturating_sub(1) * of_unit..=units * of_unit).contains(frames);
        let mut left = frames.map(u64::from).filter(is_within).unwrap_or(units * of_unit);
        let (mut done, whole) = (0, units * unit);
        while done < whole {
            let bytes = (whole - done).min(PART_BYTES_MAX / unit * unit);
            let frames = left.min(bytes / unit * of_unit);
            left -= frames;
            parts.push(Part { header: self.header(bytes), at: at + done, bytes, frames: Some(frames) });
            done += bytes;
        }
    }

    /// The header of a WAV file with this sound and nothing else.
    fn header(&self, bytes: u64) -> Vec<u8> {
        let bits = if self.container == 0 { 4 } else { self.container * 8 };
        let block = if self.container == 0 { self.block } else { self.container * self.channels };
        // The extension's size is there for all but PCM; the coefficients of MS ADPCM are always the same.
        let extension: &[u8] = match self.tag {
            PCM => &[],
            ADPCM_MS => &[32; 34],
            ADPCM_IMA => &[2, 0, 0, 0],
            _ => &[0, 0],
        };
        let mut extension = extension.to_vec();
        if self.tag == ADPCM_MS {
            extension[1] = 0;
        }
        let mut header = Vec::new();
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(UNKNOWN).to_le_bytes();
        header.extend(b"WAVEfmt ");
        header.extend(size(16 + extension.len()));
        header.extend(self.tag.to_le_bytes());
        header.extend(self.channels.to_le_bytes());
        header.extend(self.rate.to_le_bytes());
        header.extend(self.rate.wrapping_mul(u32::from(block)).to_le_bytes());
        header.extend(block.to_le_bytes());
        header.extend(bits.to_le_bytes());
        header.extend(&extension);
        header.extend(b"data");
        header.extend(size(bytes as usize));
        [b"RIFF".as_slice(), &size(header.len() + bytes as usize), &header].concat()
    }
}

/// What is registered under a format's number.
fn codec(tag: u16) -> &'static str {
    match tag {
        0x0010 => "OKI ADPCM",
        0x0020 => "Yamaha ADPCM",
        0x0022 => "TrueSpeech",
        0x0031 | 0x0032 => "GSM 6.10",
        0x0040 | 0x0045 | 0x0064 | 0x0065 => "G.726 ADPCM",
        0x0050 => "MPEG layer 1 or 2",
        0x0092 | 0x2000 => "AC-3",
        0x00FF | 0x1600 | 0x1601 | 0x1602 | 0x1610 => "AAC",
        0x0160..=0x0163 => "Windows Media Audio",
        0x2001 => "DTS",
        0x674F..=0x6771 => "Ogg Vorbis",
        0x704F => "Opus",
        0xF1AC => "FLAC",
        _ => "of an unknown codec",
    }
}
