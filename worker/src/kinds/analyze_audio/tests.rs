//! Recordings made here, down to the byte, and what is measured of them.
mod flac;
mod foreign;
mod hostile;

use std::f64::consts::TAU;
use std::fs::File;
use std::io::{Seek, Write};

use super::{AudioError, Report, analyze};

/// How samples are written in a WAV file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    U8,
    I16,
    I24,
    I32,
    F32,
}

const FORMS: [Form; 5] = [Form::U8, Form::I16, Form::I24, Form::I32, Form::F32];

fn bits(form: Form) -> u16 {
    match form {
        Form::U8 => 8,
        Form::I16 => 16,
        Form::I24 => 24,
        Form::I32 | Form::F32 => 32,
    }
}

fn encoded(form: Form, sample: f64) -> Vec<u8> {
    match form {
        Form::U8 => vec![(128.0 + sample * 127.0).round() as u8],
        Form::I16 => ((sample * 32_767.0).round() as i16).to_le_bytes().to_vec(),
        Form::I24 => ((sample * 8_388_607.0).round() as i32).to_le_bytes()[..3].to_vec(),
        Form::I32 => ((sample * 2_147_483_647.0).round() as i32).to_le_bytes().to_vec(),
        Form::F32 => (sample as f32).to_le_bytes().to_vec(),
    }
}

/// A WAV file of these samples, channel after channel in each frame; the header says `claimed` bytes of sound.
fn wav_claiming(form: Form, rate: u32, channels: u16, samples: &[f64], claimed: Option<u32>) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| encoded(form, *sample)).collect();
    let length = claimed.unwrap_or(data.len() as u32);
    let frame = (bits(form) / 8).wrapping_mul(channels);
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend(length.saturating_add(36).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend((if form == Form::F32 { 3_u16 } else { 1 }).to_le_bytes());
    wav.extend(channels.to_le_bytes());
    wav.extend(rate.to_le_bytes());
    wav.extend(rate.wrapping_mul(u32::from(frame)).to_le_bytes());
    wav.extend(frame.to_le_bytes());
    wav.extend(bits(form).to_le_bytes());
    wav.extend(b"data");
    wav.extend(length.to_le_bytes());
    wav.extend(data);
    wav
}

fn wav(form: Form, rate: u32, channels: u16, samples: &[f64]) -> Vec<u8> {
    wav_claiming(form, rate, channels, samples, None)
}

/// `seconds` of a sine wave on every channel.
fn sine(rate: u32, channels: u16, hz: f64, amplitude: f64, seconds: f64) -> Vec<f64> {
    let frames = (f64::from(rate) * seconds) as usize;
    let sample = |n: usize| amplitude * (TAU * hz * n as f64 / f64::from(rate)).sin();
    (0..frames).flat_map(|n| std::iter::repeat_n(sample(n), usize::from(channels))).collect()
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

fn analyzed(content: &[u8]) -> Result<Report, AudioError> {
    analyze(file(content), &|| false, &mut |_| {})
}

fn near(value: Option<f64>, wanted: f64, within: f64) -> bool {
    value.is_some_and(|value| (value - wanted).abs() <= within)
}

#[test]
fn a_sine_is_measured_in_every_form_of_wav() {
    for form in FORMS {
        let report = analyzed(&wav(form, 44_100, 2, &sine(44_100, 2, 440.0, 0.5, 0.5))).unwrap();
        let tolerance = if form == Form::U8 { 0.2 } else { 0.01 };
        assert!(
            near(report.peak_dbfs, -6.02, tolerance) && near(report.rms_dbfs, -9.03, tolerance),
            "{form:?} {report:?}"
        );
        assert!(near(report.pitch_hz, 440.0, 0.2), "{form:?} {report:?}");
        assert_eq!((report.duration_seconds, report.sample_rate_hz, report.channels), (0.5, 44_100.0, 2.0), "{form:?}");
    }
}

/// EBU Tech 3341, test case 1: a stereo sine of 1000 Hz with peaks at -23 dBFS has -23.0 LUFS, ±0.1. At other rates and
/// on one channel (3 dB less, as BS.1770 sums the channels) it holds as well.
#[test]
fn loudness_is_that_of_the_reference_signal() {
    let amplitude = 10_f64.powf(-23.0 / 20.0);
    for (rate, channels, wanted) in [(48_000, 2, -23.0), (44_100, 2, -23.0), (96_000, 2, -23.0), (48_000, 1, -26.01)] {
        let report = analyzed(&wav(Form::F32, rate, channels, &sine(rate, channels, 1_000.0, amplitude, 2.0))).unwrap();
        assert!(near(report.loudness_lufs, wanted, 0.1), "{rate} {channels} {report:?}");
        assert!(near(report.peak_dbfs, -23.0, 0.01), "{report:?}");
    }
}

#[test]
fn pitch_holds_at_every_rate_and_for_short_recordings() {
    for rate in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000] {
        for seconds in [0.1, 0.7] {
            let report = analyzed(&wav(Form::I16, rate, 1, &sine(rate, 1, 440.0, 0.3, seconds))).unwrap();
            assert!(near(report.pitch_hz, 440.0, 1.0), "{rate} Hz, {seconds} s: {report:?}");
        }
    }
    for hz in [41.2, 261.63, 1_000.0, 3_520.5] {
        let report = analyzed(&wav(Form::I16, 48_000, 1, &sine(48_000, 1, hz, 0.3, 1.0))).unwrap();
        assert!(near(report.pitch_hz, hz, 0.5), "{hz}: {report:?}");
    }
}

#[test]
fn the_strongest_tone_is_the_pitch_and_a_constant_is_none() {
    let loud = sine(48_000, 1, 440.0, 0.5, 1.0);
    let soft = sine(48_000, 1, 1_200.0, 0.2, 1.0);
    let both: Vec<f64> = loud.iter().zip(&soft).map(|(a, b)| a + b + 0.25).collect();
    assert!(near(analyzed(&wav(Form::F32, 48_000, 1, &both)).unwrap().pitch_hz, 440.0, 0.5));
    let opposed: Vec<f64> = loud.iter().flat_map(|sample| [*sample, -sample]).collect();
    assert!(near(analyzed(&wav(Form::F32, 48_000, 2, &opposed)).unwrap().pitch_hz, 440.0, 0.5));
}

#[test]
fn silence_has_no_level_no_loudness_and_no_pitch() {
    for form in FORMS {
        let report = analyzed(&wav(form, 16_000, 1, &vec![0.0; 16_000])).unwrap();
        let levels = (report.peak_dbfs, report.rms_dbfs, report.loudness_lufs, report.pitch_hz);
        assert_eq!((levels, report.duration_seconds), ((None, None, None, None), 1.0), "{form:?}");
    }
    let json = serde_json::to_value(analyzed(&wav(Form::I16, 8_000, 1, &[0.0])).unwrap()).unwrap();
    assert!(json["pitch_hz"].is_null() && json["channels"].is_f64() && json["sample_rate_hz"].is_f64(), "{json}");
}

#[test]
fn what_is_no_number_is_null_and_not_an_error() {
    let mut samples = sine(48_000, 1, 440.0, 0.5, 0.5);
    (samples[100], samples[200]) = (f64::NAN, f64::INFINITY);
    let report = analyzed(&wav(Form::F32, 48_000, 1, &samples)).unwrap();
    assert_eq!((report.peak_dbfs, report.rms_dbfs, report.pitch_hz), (None, None, None));
    assert!(serde_json::to_string(&report).is_ok());
}

#[test]
fn many_channels_are_measured_together() {
    let mut samples = Vec::new();
    for sample in sine(48_000, 1, 440.0, 0.5, 0.5) {
        samples.extend([sample, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
    let report = analyzed(&wav(Form::I24, 48_000, 6, &samples)).unwrap();
    // A sixth of the power of one channel: 7.78 dB less.
    assert!(near(report.rms_dbfs, -9.03 - 7.78, 0.01) && near(report.peak_dbfs, -6.02, 0.01), "{report:?}");
    assert!(near(report.pitch_hz, 440.0, 0.5) && report.channels == 6.0, "{report:?}");
}

#[test]
fn progress_goes_from_nothing_to_all() {
    let mut reported = Vec::new();
    let content = wav(Form::I16, 48_000, 2, &sine(48_000, 2, 440.0, 0.5, 5.0));
    analyze(file(&content), &|| false, &mut |share| reported.push(share)).unwrap();
    assert!(reported.len() > 3 && reported.is_sorted() && reported[reported.len() - 1] == 1.0, "{reported:?}");
    assert!(reported.iter().all(|share| (0.0..=1.0).contains(share)));
}
