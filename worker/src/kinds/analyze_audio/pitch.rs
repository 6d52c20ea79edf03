//! The dominant pitch: the largest peak of the averaged power spectrum.
//!
//! Welch's method (IEEE Transactions on Audio and Electroacoustics 15, 1967): windows that overlap by half, Hann's
//! window, the mean of their power spectra, here over all channels too, so that channels of opposite phase do not
//! cancel. The peak is then placed between bins by a parabola through the logarithms of its three bins (J. O. Smith,
//! Spectral Audio Signal Processing).
use std::f64::consts::TAU;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

/// The lowest pitch to look for, in Hz.
const LOWEST_HZ: f64 = 20.0;
/// The maximum distance of two bins, in Hz; with the parabola a steady tone is then located within 0.1 Hz.
const BIN_HZ_MAX: f64 = 3.0;
/// The minimum number of samples of a channel for a meaningful pitch.
const SAMPLES_MIN: usize = 64;

/// The sum of the spectra of one recording.
pub(super) struct Pitch {
    rate: f64,
    transform: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    /// The samples of each channel that do not fill a window yet, after the second half of the last window.
    pending: Vec<Vec<f64>>,
    power: Vec<f64>,
    windows: u64,
    input: Vec<f64>,
    output: Vec<Complex<f64>>,
}

impl Pitch {
    pub fn new(rate: u32, channels: usize) -> Self {
        let rate = f64::from(rate);
        let size = ((rate / BIN_HZ_MAX) as usize).next_power_of_two().max(SAMPLES_MIN);
        let transform = RealFftPlanner::new().plan_fft_forward(size);
        let (input, output) = (transform.make_input_vec(), transform.make_output_vec());
        let power = vec![0.0; output.len()];
        let pending = vec![Vec::new(); channels];
        Self { rate, transform, window: hann(size), pending, power, windows: 0, input, output }
    }

    /// Takes whole frames of interleaved samples.
    pub fn add(&mut self, frames: &[f64]) {
        let channels = self.pending.len();
        for channel in 0..channels {
            self.pending[channel].extend(frames.iter().skip(channel).step_by(channels));
            while self.pending[channel].len() >= self.window.len() {
                self.transform(channel, self.window.len());
                self.pending[channel].drain(..self.window.len() / 2);
            }
        }
    }

    /// The pitch, in Hz; `None` for silence, or too few samples.
    pub fn finish(mut self) -> Option<f64> {
        if self.windows == 0 {
            let length = self.pending.first().map_or(0, Vec::len);
            if length < SAMPLES_MIN {
                return None;
            }
            // Shorter than a window: use a window of the recording's length, padded with silence.
            let full = std::mem::replace(&mut self.window, hann(length));
            (0..self.pending.len()).for_each(|channel| self.transform(channel, length));
            self.window = full;
        }
        let bin_hz = self.rate / self.window.len() as f64;
        let lowest = ((LOWEST_HZ / bin_hz).ceil() as usize).max(1);
        let bins = self.power.get(lowest..self.power.len() - 1)?;
        let (at, power) = bins.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        if !(f64::MIN_POSITIVE..f64::INFINITY).contains(power) {
            return None;
        }
        let at = at + lowest;
        Some((at as f64 + offset(&self.power[at - 1..=at + 1])) * bin_hz)
    }

    /// Adds the power spectrum of a channel's first `length` pending samples, with their mean removed.
    fn transform(&mut self, channel: usize, length: usize) {
        let samples = &self.pending[channel][..length];
        let mean = samples.iter().sum::<f64>() / length as f64;
        self.input.fill(0.0);
        for ((input, sample), window) in self.input.iter_mut().zip(samples).zip(&self.window) {
            *input = (sample - mean) * window;
        }
        self.transform.process(&mut self.input, &mut self.output).expect("both are as long as it made them");
        for (power, bin) in self.power.iter_mut().zip(&self.output) {
            *power += bin.norm_sqr();
        }
        self.windows += 1;
    }
}

fn hann(length: usize) -> Vec<f64> {
    (0..length).map(|n| 0.5 - 0.5 * (TAU * n as f64 / length as f64).cos()).collect()
}

/// The offset of the vertex of the parabola through three bins from the middle one, -0.5 to 0.5.
fn offset(three: &[f64]) -> f64 {
    let [left, top, right] = [three[0], three[1], three[2]].map(|power| power.max(f64::MIN_POSITIVE).ln());
    let bend = left - 2.0 * top + right;
    if bend < 0.0 { (0.5 * (left - right) / bend).clamp(-0.5, 0.5) } else { 0.0 }
}
