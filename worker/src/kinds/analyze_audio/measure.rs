//! Measures levels and loudness frame by frame.
use ebur128::{EbuR128, Mode};

use super::pitch::Pitch;
use super::{AudioError, Report};

/// How much of a recording counts for its loudness, ms: the last day. The energy of each block is kept, 8 bytes for
/// each 100 ms.
const LOUDNESS_MS_MAX: u32 = 86_400_000;

/// The measurements of one recording.
pub(super) struct Meter {
    rate: u32,
    channels: usize,
    samples: u64,
    peak: f64,
    squares: f64,
    loudness: EbuR128,
    pitch: Pitch,
}

impl Meter {
    /// For this number of channels and sample rate.
    pub fn new(rate: u32, channels: usize) -> Result<Self, AudioError> {
        let refused = |e: ebur128::Error| AudioError::Refused(format!("its loudness cannot be measured: {e}"));
        let count = u32::try_from(channels).unwrap_or(u32::MAX);
        let mut loudness = EbuR128::new(count, rate, Mode::I).map_err(refused)?;
        loudness.set_max_history(LOUDNESS_MS_MAX).map_err(refused)?;
        let pitch = Pitch::new(rate, channels);
        Ok(Self { rate, channels, samples: 0, peak: 0.0, squares: 0.0, loudness, pitch })
    }

    /// Whether the frames have this meter's format: a stream may change it midway.
    pub fn is_for(&self, rate: u32, channels: usize) -> bool {
        (self.rate, self.channels) == (rate, channels)
    }

    /// The error of a recording that continues in another format.
    pub fn changed(&self, rate: u32, channels: usize) -> AudioError {
        AudioError::Refused(format!(
            "it begins with {} Hz and channels: {}, and continues with {rate} Hz and channels: {channels}; convert it to one \
             format",
            self.rate, self.channels
        ))
    }

    /// Takes whole frames of interleaved samples, ±1 full scale.
    pub fn add(&mut self, frames: &[f64]) {
        self.samples += frames.len() as u64;
        for sample in frames {
            // Not `max`, which ignores NaN.
            if sample.abs() > self.peak || sample.is_nan() {
                self.peak = sample.abs();
            }
            self.squares += sample * sample;
        }
        self.loudness.add_frames_f64(frames).expect("frames are whole");
        self.pitch.add(frames);
    }

    /// The report.
    pub fn finish(self) -> Report {
        let frames = self.samples / self.channels as u64;
        let mean = if self.samples == 0 { 0.0 } else { self.squares / self.samples as f64 };
        Report {
            duration_seconds: frames as f64 / f64::from(self.rate),
            sample_rate_hz: f64::from(self.rate),
            channels: self.channels as f64,
            peak_dbfs: finite(20.0 * self.peak.log10()),
            rms_dbfs: finite(10.0 * mean.log10()),
            loudness_lufs: self.loudness.loudness_global().ok().and_then(finite),
            pitch_hz: self.pitch.finish().and_then(finite),
        }
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
