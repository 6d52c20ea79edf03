//! Decodes a file to frames of samples.
use std::fs::File;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;

use super::source::Source;
use super::{AudioError, CHANNELS_MAX, SAMPLE_RATE_HZ};

/// Packets between two progress reports.
const REPORT_EVERY: u64 = 64;

/// Decodes the first track with sound. `take` is called for each packet with the sample rate, the number of channels
/// and the interleaved samples. Packets that cannot be decoded are skipped; a truncated file is decoded up to its end.
pub(super) fn decode(
    file: File,
    should_stop: &(dyn Fn() -> bool + Sync),
    progress: &mut dyn FnMut(f64),
    mut take: impl FnMut(u32, usize, &[f64]) -> Result<(), AudioError>,
) -> Result<(), AudioError> {
    let (source, furthest) = Source::new(file, should_stop)?;
    let bytes = source.bytes();
    if bytes == 0 {
        return Err(AudioError::Empty);
    }
    let stream = MediaSourceStream::new(Box::new(source), Default::default());
    let probed = symphonia::default::get_probe().probe(&Hint::new(), stream, Default::default(), Default::default());
    let mut format = probed.map_err(|e| if should_stop() { AudioError::Stopped } else { not_audio(&e) })?;
    let (track, mut decoder) = open(format.as_ref())?;
    let mut samples: Vec<f64> = Vec::new();
    for packets in 0_u64.. {
        if should_stop() {
            return Err(AudioError::Stopped);
        }
        if packets.is_multiple_of(REPORT_EVERY) {
            progress(furthest.load(Ordering::Relaxed) as f64 / bytes as f64);
        }
        let Some(packet) = next(format.as_mut(), should_stop)? else { break };
        if packet.track_id != track {
            continue;
        }
        match decoder.decode(&packet) {
            Ok(buffer) if buffer.is_empty() => {}
            Ok(buffer) => {
                let (rate, channels) = (buffer.spec().rate(), buffer.spec().channels().count());
                check(Some(rate), Some(channels))?;
                buffer.copy_to_vec_interleaved(&mut samples);
                take(rate, channels, &samples)?;
            }
            Err(Error::IoError(e)) if e.kind() != ErrorKind::UnexpectedEof => return Err(e.into()),
            Err(_) => {}
        }
    }
    progress(1.0);
    Ok(())
}

/// The next packet; `None` at the end of the recording or of a truncated file.
fn next(
    format: &mut (dyn FormatReader + '_),
    should_stop: &(dyn Fn() -> bool + Sync),
) -> Result<Option<symphonia::core::packet::Packet>, AudioError> {
    match format.next_packet() {
        Ok(packet) => Ok(packet),
        Err(_) if should_stop() => Err(AudioError::Stopped),
        Err(Error::IoError(e)) if e.kind() != ErrorKind::UnexpectedEof => Err(e.into()),
        // Data after this error cannot be trusted; of chained streams only the first is decoded.
        Err(_) => Ok(None),
    }
}

/// The track to decode and its decoder. Values of the header out of range are refused before anything is allocated by
/// them.
fn open(format: &(dyn FormatReader + '_)) -> Result<(u32, Box<dyn AudioDecoder>), AudioError> {
    let track = format.default_track(TrackType::Audio);
    let Some((track, CodecParameters::Audio(parameters))) = track.and_then(|t| Some((t, t.codec_params.as_ref()?)))
    else {
        return Err(AudioError::NotAudio("it has no track with sound".into()));
    };
    let AudioCodecParameters { sample_rate, channels, .. } = parameters;
    check(*sample_rate, channels.as_ref().map(|channels| channels.count()))?;
    let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &Default::default());
    Ok((track.id, decoder.map_err(|e| not_audio(&e))?))
}

fn check(rate: Option<u32>, channels: Option<usize>) -> Result<(), AudioError> {
    if let Some(channels) = channels.filter(|count| !(1..=CHANNELS_MAX).contains(count)) {
        return Err(AudioError::Refused(format!("it has {channels} channels; 1 to {CHANNELS_MAX} can be analysed")));
    }
    if let Some(rate) = rate.filter(|rate| !SAMPLE_RATE_HZ.contains(rate)) {
        let (least, most) = (SAMPLE_RATE_HZ.start(), SAMPLE_RATE_HZ.end());
        return Err(AudioError::Refused(format!("its sample rate is {rate} Hz; {least} to {most} Hz can be analysed")));
    }
    Ok(())
}

fn not_audio(error: &Error) -> AudioError {
    match error {
        Error::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            AudioError::NotAudio("it ends before the sound begins".into())
        }
        e => AudioError::NotAudio(e.to_string()),
    }
}
