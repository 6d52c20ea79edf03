//! The built-in kind `analyze-audio`: decodes one recording, packet by packet, and measures it.
//!
//! Memory use does not depend on the length of the recording or on what its header claims. [`analyze`] blocks and is
//! independent of jobs; the handler `run` calls it off the async threads and stops it soon after a cancel.
mod decode;
mod formats;
mod measure;
mod pitch;
mod source;
#[cfg(test)]
mod tests;
mod wav;

use std::fs::File;
use std::io;

use leasehold::FileError;
use serde::{Deserialize, Serialize};

use crate::attempt::context::Context;
use crate::failure::{Done, Failure};
use crate::panics;
use decode::decode;
use measure::Meter;

/// The maximum number of channels: that of the loudness meter.
pub const CHANNELS_MAX: usize = 64;
/// The allowed sample rates, in Hz.
pub const SAMPLE_RATE_HZ: std::ops::RangeInclusive<u32> = 100..=2_822_400;

/// How much sound of another format is ignored, s: in a damaged file noise may look like a frame.
const OTHER_SECONDS_MAX: f64 = 0.1;

/// The payload of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Which of the job's files is the recording; not needed for a job with a single file.
    pub filename: String,
}

/// The measurements of a recording: the job's result. A level of silence, and any value that is not a number, is null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Length of the decoded sound, in seconds.
    pub duration_seconds: f64,
    /// Sample rate, in Hz.
    pub sample_rate_hz: f64,
    /// Number of channels.
    pub channels: f64,
    /// The largest sample of any channel, in dB; 0 is full scale.
    pub peak_dbfs: Option<f64>,
    /// The root of the mean square over the samples of all channels, in dB; 0 is a square wave at full scale, so a sine
    /// wave there has -3.01.
    pub rms_dbfs: Option<f64>,
    /// Integrated loudness after EBU R 128 and ITU-R BS.1770-4, in LUFS. A recording under 0.4 s has none.
    pub loudness_lufs: Option<f64>,
    /// Frequency of the strongest component from 20 Hz up, in Hz.
    pub pitch_hz: Option<f64>,
}

/// Why a recording could not be analysed. The text may be shown to clients.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The file is empty.
    #[error("the file is empty; send a recording")]
    Empty,
    /// No decoder supports the file.
    #[error("the file is not audio that can be decoded ({0}); send WAV, FLAC, MP3, Ogg Vorbis, or AAC in MP4")]
    NotAudio(String),
    /// The header has values out of range.
    #[error("the recording is not supported: {0}")]
    Refused(String),
    /// The header is that of audio, but no sound can be decoded.
    #[error("the recording is damaged: {0}")]
    Damaged(String),
    /// The worker's own disk fails.
    #[error("the recording cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The analysis was requested to stop.
    #[error("the analysis was stopped")]
    Stopped,
}

impl AudioError {
    /// Whether a later analysis of the same file may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Stopped)
    }
}

/// Decodes and measures a recording. Blocks. `should_stop` is called often and ends it; `progress` gets the fraction
/// done, 0 to
/// 1.
///
/// # Errors
/// [`AudioError`]. A truncated recording is analysed up to its end if at least one frame of it decodes.
pub fn analyze(
    file: File,
    should_stop: &(dyn Fn() -> bool + Sync),
    progress: &mut dyn FnMut(f64),
) -> Result<Report, AudioError> {
    let mut meter = None;
    let decoded = panics::quietly(|| {
        let mut other_seconds = 0.0;
        decode(&file, should_stop, progress, &mut |rate, channels, samples| {
            let meter = match &mut meter {
                Some(meter) => meter,
                empty => empty.insert(Meter::new(rate, channels)?),
            };
            if meter.is_for(rate, channels) {
                meter.add(samples);
                return Ok(());
            }
            other_seconds += (samples.len() / channels) as f64 / f64::from(rate);
            if other_seconds < OTHER_SECONDS_MAX { Ok(()) } else { Err(meter.changed(rate, channels)) }
        })
    });
    decoded.unwrap_or_else(|panic| Err(AudioError::Damaged(format!("the decoder failed: {panic}"))))?;
    let meter: Meter = meter.ok_or_else(|| AudioError::Damaged("it has no sound that can be decoded".into()))?;
    Ok(meter.finish())
}

/// Refuses values out of range.
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

/// The handler.
pub(super) async fn run(context: Context, payload: Payload) -> Result<Done<Report>, Failure> {
    context.progress(0.0, "reading");
    let name = recording(&context, &payload.filename)?;
    let copying = copy(&context, &name);
    let file = tokio::select! {
        copied = copying => copied?,
        () = context.cancelled() => return Err(stopped()),
    };
    let watched = context.clone();
    // Holds the context, and so the slot, until the analysis has stopped.
    let analysis = tokio::task::spawn_blocking(move || {
        analyze(file, &|| watched.is_cancelled(), &mut |share| watched.progress(share * 100.0, "analyzing"))
    });
    match analysis.await {
        Ok(Ok(report)) => Ok(report.into()),
        Ok(Err(AudioError::Stopped)) => Err(stopped()),
        Ok(Err(e)) if e.is_retryable() => Err(Failure::new(e.to_string())),
        Ok(Err(e)) => Err(Failure::fatal(e.to_string())),
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(e) => Err(Failure::new(format!("the analysis was interrupted: {e}"))),
    }
}

fn stopped() -> Failure {
    Failure::new(AudioError::Stopped.to_string())
}

/// The name of the file to analyse.
fn recording(context: &Context, named: &str) -> Result<String, Failure> {
    match context.files() {
        [] => {
            Err(Failure::fatal("the job has no files; submit it as multipart/form-data with the recording as a part"))
        }
        [only] => Ok(only.name.clone()),
        files if files.iter().any(|file| file.name == named) => Ok(named.to_owned()),
        files => {
            let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
            let names = leasehold::job::cut(&names.join(", "), 500).to_owned();
            Err(Failure::fatal(format!("payload.filename is {named:?}, which is not one of the job's files: {names}")))
        }
    }
}

/// A copy of the recording in an unnamed file, which is seekable and does not survive a crash.
async fn copy(context: &Context, name: &str) -> Result<File, Failure> {
    let mut from = context.open_file(name).await.map_err(|e| match e {
        FileError::Missing(_) => Failure::fatal(e.to_string()),
        e => Failure::from(e),
    })?;
    let file = tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(|e| Failure::new(e.to_string()))??;
    let mut file = tokio::fs::File::from_std(file);
    tokio::io::copy(&mut from, &mut file).await?;
    tokio::io::AsyncWriteExt::flush(&mut file).await?;
    tokio::io::AsyncSeekExt::rewind(&mut file).await?;
    Ok(file.into_std().await)
}
