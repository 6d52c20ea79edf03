//! Decodes a file to frames of samples.
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::packet::Packet;
use symphonia::core::units::Duration;

use super::source::{Part, Source};
use super::{AudioError, check, formats, wav};

/// Packets between two progress reports.
const REPORT_EVERY: u64 = 64;
/// Bytes of the beginning of a file by which it is named.
const BEGINNING_BYTES: usize = 4_096;
/// The maximum padding at the end of an MP3 file, in frames: of a larger number the header is wrong.
const PADDING_MAX: u32 = 4_608;

type Take<'a> = &'a mut dyn FnMut(u32, usize, &[f64]) -> Result<(), AudioError>;

/// Decodes the first track with sound. `take` is called for each packet with the sample rate, the number of channels
/// and the interleaved samples. Packets that cannot be decoded are skipped; a truncated file is decoded up to its end.
pub(super) fn decode(
    file: &File,
    should_stop: &(dyn Fn() -> bool + Sync),
    progress: &mut dyn FnMut(f64),
    take: Take<'_>,
) -> Result<(), AudioError> {
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Err(AudioError::Empty);
    }
    let whole = || vec![Part { header: Vec::new(), at: 0, bytes, frames: None }];
    let parts = wav::parts(file, bytes)?.unwrap_or_else(whole);
    let furthest = AtomicU64::new(0);
    let mut report = || progress(furthest.load(Ordering::Relaxed) as f64 / bytes as f64);
    for part in &parts {
        let source = Source::new(file, part, &furthest, should_stop);
        decode_part(source, part.frames, should_stop, &mut report, take).map_err(|e| named(file, e))?;
    }
    progress(1.0);
    Ok(())
}

/// With a format that is not supported named.
fn named(file: &File, error: AudioError) -> AudioError {
    let mut beginning = [0; BEGINNING_BYTES];
    let count = file.read_at(&mut beginning, 0).unwrap_or(0);
    match (error, formats::name_of(&beginning[..count])) {
        (AudioError::NotAudio(_), Some(name)) => AudioError::NotAudio(format!("it is {name}")),
        (error, _) => error,
    }
}

fn decode_part(
    source: Source<'_>,
    frames_max: Option<u64>,
    should_stop: &(dyn Fn() -> bool + Sync),
    report: &mut dyn FnMut(),
    take: Take<'_>,
) -> Result<(), AudioError> {
    let stream = MediaSourceStream::new(Box::new(source), Default::default());
    let probed = symphonia::default::get_probe().probe(&Hint::new(), stream, Default::default(), Default::default());
    let mut format = probed.map_err(|e| if should_stop() { AudioError::Stopped } else { not_audio(&e) })?;
    let mut track = open(format.as_ref())?;
    let (mut samples, mut padding) = (Vec::new(), Padding::new(track.padding));
    let mut left = frames_max.unwrap_or(u64::MAX);
    for packets in 0_u64.. {
        if should_stop() {
            return Err(AudioError::Stopped);
        }
        if packets.is_multiple_of(REPORT_EVERY) {
            report();
        }
        let mut packet = match next(format.as_mut(), should_stop)? {
            Next::Packet(packet) if packet.track_id == track.id => packet,
            Next::Packet(_) => continue,
            Next::Chained => {
                track = open(format.as_ref())?;
                continue;
            }
            Next::End => break,
        };
        if track.is_mp3 {
            // The end after a header, or after a guess from the first frames.
            packet.trim_end = Duration::ZERO;
        }
        match track.decoder.decode(&packet) {
            Ok(buffer) if buffer.is_empty() => {}
            Ok(buffer) => {
                let (rate, channels) = (buffer.spec().rate(), buffer.spec().channels().count());
                check(Some(rate), Some(channels))?;
                buffer.copy_to_vec_interleaved(&mut samples);
                let frames = (samples.len() / channels) as u64;
                samples.truncate(usize::try_from(left).unwrap_or(usize::MAX).saturating_mul(channels));
                left -= frames.min(left);
                padding.pass(rate, channels, &samples, take)?;
            }
            Err(Error::IoError(e)) if e.kind() != ErrorKind::UnexpectedEof => return Err(e.into()),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Withholds the last frames of an MP3 file, which its encoder has added.
struct Padding {
    frames: usize,
    held: Vec<f64>,
    format: (u32, usize),
}

impl Padding {
    fn new(frames: usize) -> Self {
        Self { frames, held: Vec::new(), format: (0, 0) }
    }

    fn pass(&mut self, rate: u32, channels: usize, samples: &[f64], take: Take<'_>) -> Result<(), AudioError> {
        if self.frames == 0 {
            return take(rate, channels, samples);
        }
        if self.format != (rate, channels) && !self.held.is_empty() {
            take(self.format.0, self.format.1, &std::mem::take(&mut self.held))?;
        }
        self.format = (rate, channels);
        self.held.extend(samples);
        let ready = self.held.len().saturating_sub(self.frames * channels);
        if ready > 0 {
            take(rate, channels, &self.held[..ready])?;
            self.held.drain(..ready);
        }
        Ok(())
    }
}

/// What a file has next.
enum Next {
    Packet(Packet),
    /// Another stream begins: its tracks are new.
    Chained,
    /// The end of the recording or of a truncated file.
    End,
}

fn next(format: &mut (dyn FormatReader + '_), should_stop: &(dyn Fn() -> bool + Sync)) -> Result<Next, AudioError> {
    match format.next_packet() {
        Ok(packet) => Ok(packet.map_or(Next::End, Next::Packet)),
        Err(_) if should_stop() => Err(AudioError::Stopped),
        Err(Error::ResetRequired) => Ok(Next::Chained),
        Err(Error::IoError(e)) if e.kind() != ErrorKind::UnexpectedEof => Err(e.into()),
        // Data after this error cannot be trusted.
        Err(_) => Ok(Next::End),
    }
}

/// The track that is decoded.
struct Track {
    id: u32,
    decoder: Box<dyn AudioDecoder>,
    is_mp3: bool,
    /// Frames at the end of an MP3 file that its encoder has added.
    padding: usize,
}

/// The track to decode and its decoder. Values of the header out of range are refused before anything is allocated by
/// them.
fn open(format: &(dyn FormatReader + '_)) -> Result<Track, AudioError> {
    let track = format.default_track(TrackType::Audio);
    let Some((track, CodecParameters::Audio(parameters))) = track.and_then(|t| Some((t, t.codec_params.as_ref()?)))
    else {
        return Err(AudioError::NotAudio("it has no track with sound".into()));
    };
    let AudioCodecParameters { sample_rate, channels, .. } = parameters;
    check(*sample_rate, channels.as_ref().map(|channels| channels.count()))?;
    let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &Default::default());
    let is_mp3 = parameters.codec == CODEC_ID_MP3;
    let padding = track.padding.filter(|frames| is_mp3 && *frames <= PADDING_MAX).unwrap_or(0) as usize;
    Ok(Track { id: track.id, decoder: decoder.map_err(|e| not_audio(&e))?, is_mp3, padding })
}

fn not_audio(error: &Error) -> AudioError {
    match error {
        Error::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            AudioError::NotAudio("it ends before the sound begins".into())
        }
        e => AudioError::NotAudio(e.to_string()),
    }
}
