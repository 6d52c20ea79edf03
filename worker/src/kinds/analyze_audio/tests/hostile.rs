//! Files that are damaged, have false headers, or are not audio: each gets a fitting error, or is analysed up to its
//! end.
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn refused(content: &[u8]) -> String {
    let error = analyzed(content).expect_err("it cannot be analysed");
    assert!(!error.is_retryable(), "{error}");
    error.to_string()
}

#[test]
fn what_is_no_audio_is_refused_and_says_what_would_be() {
    assert!(refused(b"").contains("empty"));
    let text = "These are words, not sound. ".repeat(2_000);
    let zeros = vec![0; 300_000];
    let header = wav(Form::I16, 48_000, 2, &[]);
    for content in
        [b"x".as_slice(), b"RIFF", b"RIFF\x10\0\0\0AVI LIST", text.as_bytes(), &zeros, b"fLaC", b"OggS\0", b"%PDF-1.7"]
    {
        let error = refused(content);
        assert!(error.contains("send WAV"), "{:?}: {error}", &content[..content.len().min(8)]);
    }
    for cut in [12, 20, 30, 40] {
        assert!(refused(&header[..cut]).contains("send WAV"), "cut at {cut}");
    }
    assert!(refused(&header).contains("no sound"));
}

#[test]
fn a_header_that_no_recording_has_is_refused() {
    let samples = sine(48_000, 1, 440.0, 0.5, 0.2);
    for (rate, channels) in [(48_000, 0), (0, 1), (0, 0), (48_000, 65_535), (48_000, 65), (u32::MAX, 1), (1, 1)] {
        for form in FORMS {
            let error = refused(&wav(form, rate, channels, &samples));
            assert!(!error.contains("decoder failed"), "{rate} Hz, {channels} channels, {form:?}: {error}");
        }
    }
}

#[test]
fn a_recording_that_breaks_off_is_analysed_as_far_as_it_goes() {
    let samples = sine(48_000, 2, 440.0, 0.5, 1.0);
    let whole = wav(Form::I16, 48_000, 2, &samples);
    // Half a second, and half a frame.
    let report = analyzed(&whole[..44 + 96_000 + 3]).unwrap();
    assert!((report.duration_seconds - 0.5).abs() < 1e-9, "{report:?}");
    assert!(near(report.pitch_hz, 440.0, 0.5) && near(report.peak_dbfs, -6.02, 0.01), "{report:?}");
    // One frame.
    assert!(analyzed(&whole[..48]).is_ok_and(|report| report.duration_seconds == 1.0 / 48_000.0));
    assert!(refused(&whole[..44]).contains("no sound"));
}

#[test]
fn a_header_that_claims_two_gigabytes_costs_nothing() {
    let samples = sine(48_000, 1, 440.0, 0.5, 0.5);
    for claimed in [2_000_000_000, u32::MAX - 40, u32::MAX] {
        let report = analyzed(&wav_claiming(Form::I16, 48_000, 1, &samples, Some(claimed))).unwrap();
        assert_eq!(report.duration_seconds, 0.5, "{claimed}");
    }
}

#[test]
fn a_stop_ends_it_wherever_it_is() {
    let noise: Vec<u8> = (0..4_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let sound = wav(Form::I16, 48_000, 1, &sine(48_000, 1, 440.0, 0.5, 20.0));
    for content in [noise, sound] {
        let asked = AtomicUsize::new(0);
        let should_stop = || asked.fetch_add(1, Ordering::Relaxed) >= 5;
        let error = analyze(file(&content), &should_stop, &mut |_| {}).expect_err("it was stopped");
        assert!(matches!(error, AudioError::Stopped), "{error}");
        assert!(asked.load(Ordering::Relaxed) < 20);
    }
}

/// Every byte of the header, and a good many after it, changed: an answer, and no panic that gets out.
#[test]
fn no_change_of_a_byte_does_more_than_fail_it() {
    let whole = wav(Form::I16, 8_000, 2, &sine(8_000, 2, 440.0, 0.5, 0.05));
    for at in 0..60 {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut changed = whole.clone();
            changed[at] = value;
            drop(analyzed(&changed));
        }
    }
}
