//! The kind `analyze-audio`: a recording comes with the job, and what is measured of it is the result.
use std::f64::consts::TAU;

use super::*;

/// A WAV file, 16 bits, of a sine of 440 Hz at half of full scale on every channel.
fn tone(rate: u32, channels: u16, seconds: f64) -> Vec<u8> {
    let frames = (f64::from(rate) * seconds) as usize;
    let length = (frames * usize::from(channels) * 2) as u32;
    let mut wav = b"RIFF".to_vec();
    wav.extend((length + 36).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend(1_u16.to_le_bytes());
    wav.extend(channels.to_le_bytes());
    wav.extend(rate.to_le_bytes());
    wav.extend((rate * u32::from(channels) * 2).to_le_bytes());
    wav.extend((channels * 2).to_le_bytes());
    wav.extend(16_u16.to_le_bytes());
    wav.extend(b"data");
    wav.extend(length.to_le_bytes());
    for n in 0..frames {
        let sample = (0.5 * (TAU * 440.0 * n as f64 / f64::from(rate)).sin() * 32_767.0) as i16;
        (0..channels).for_each(|_| wav.extend(sample.to_le_bytes()));
    }
    wav
}

fn near(result: &Value, field: &str, wanted: f64, within: f64) {
    let value = result[field].as_f64().unwrap_or(f64::NAN);
    assert!((value - wanted).abs() <= within, "{field}: {result}");
}

#[tokio::test]
async fn a_recording_is_measured() {
    let five = Five::start(&[]).await;
    let _worker = five.worker();
    let wav = tone(44_100, 2, 2.0);
    let id = five.upload("analyze-audio", json!({"filename": "t\u{f6}ne.wav"}), &[("t\u{f6}ne.wav", &wav)]).await;
    let result = five.result(&id).await;
    for (field, wanted, within) in [
        ("duration_seconds", 2.0, 0.0),
        ("sample_rate_hz", 44_100.0, 0.0),
        ("channels", 2.0, 0.0),
        ("peak_dbfs", -6.02, 0.01),
        ("rms_dbfs", -9.03, 0.01),
        ("loudness_lufs", -6.7, 0.3),
        ("pitch_hz", 440.0, 0.5),
    ] {
        near(&result, field, wanted, within);
    }
    assert_eq!(result.as_object().unwrap().len(), 7, "{result}");
    // Of several files the one that is named; the only one, whatever it is called.
    let files: [(&str, &[u8]); 2] = [("notes.txt", b"words"), ("b.wav", &tone(8_000, 1, 0.5))];
    let id = five.upload("analyze-audio", json!({"filename": "b.wav"}), &files).await;
    near(&five.result(&id).await, "sample_rate_hz", 8_000.0, 0.0);
    let id = five.upload("analyze-audio", json!({"filename": "other.wav"}), &[("c.wav", &tone(16_000, 1, 0.5))]).await;
    near(&five.result(&id).await, "sample_rate_hz", 16_000.0, 0.0);
    five.system.finish().await;
}

#[tokio::test]
async fn what_cannot_be_measured_fails_for_good_and_says_why() {
    let five = Five::start(&[]).await;
    let worker = five.worker();
    let wav = tone(8_000, 1, 0.2);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = wav.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    for (content, said) in [
        (Vec::new(), "the file is empty"),
        (b"These are words, not sound.".repeat(1_000), "send WAV, FLAC, MP3"),
        (wav[..44].to_vec(), "no sound that can be decoded"),
        (with(22, &[0, 0]), "send WAV"),
        (with(22, &[0xFF, 0xFF]), ""),
        (with(24, &[0, 0, 0, 0]), "0 Hz"),
    ] {
        let id = five.upload("analyze-audio", json!({"filename": "a.wav"}), &[("a.wav", &content)]).await;
        let (message, attempts) = five.failure(&id).await;
        assert!(message.contains(said) && attempts == 1, "{said}: {message}");
    }
    let two: [(&str, &[u8]); 2] = [("a.wav", &wav), ("b.wav", &wav)];
    let id = five.upload("analyze-audio", json!({"filename": "c.wav"}), &two).await;
    assert!(five.failure(&id).await.0.contains("not one of the job's files: a.wav, b.wav"));
    let id = five.submit("analyze-audio", json!({"filename": "c.wav"})).await;
    assert!(five.failure(&id).await.0.contains("the job has no files"));
    let id = five.upload("analyze-audio", json!({"file": "a.wav"}), &[("a.wav", &wav)]).await;
    assert!(five.failure(&id).await.0.contains("unknown field `file`"));
    assert!(worker.is_running() && !worker.stderr().contains("panicked"), "{}", worker.stderr());
    five.system.finish().await;
}

/// Long enough to be caught in the middle, mostly: a fast machine may be through with it before, so what needs that
/// tries again.
fn long() -> Vec<u8> {
    tone(48_000, 2, 120.0)
}

/// Tries to catch an analysis in the middle.
const TRIES: usize = 20;

async fn begun(five: &Five, id: &JobId) {
    let begun = async || matches!(five.job(id).await.state, State::Running | State::Completed);
    eventually(SOON, "the analysis is under way", begun).await;
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_costs_a_crash_and_no_result() {
    let five = Five::start(&[]).await;
    let mut crashes = 0;
    for _ in 0..TRIES {
        let first = five.worker();
        let id = five.upload("analyze-audio", json!({"filename": "a.wav"}), &[("a.wav", &long())]).await;
        begun(&five, &id).await;
        first.kill9();
        let _second = five.worker();
        near(&five.result(&id).await, "duration_seconds", 120.0, 0.0);
        crashes = five.job(&id).await.crashes;
        if crashes > 0 {
            break;
        }
    }
    assert_eq!(crashes, 1);
    five.system.finish().await;
}

#[tokio::test]
async fn a_cancelled_analysis_and_one_that_takes_too_long_stop_soon() {
    let five = Five::start(&[]).await;
    let _worker = five.worker();
    let mut ended = State::Completed;
    for _ in 0..TRIES {
        let id = five.upload("analyze-audio", json!({"filename": "a.wav"}), &[("a.wav", &long())]).await;
        begun(&five, &id).await;
        five.api.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
        let stops = async || Some(five.job(&id).await.state).filter(|state| state.is_final());
        ended = eventually(Duration::from_secs(2), "the analysis stops", stops).await;
        if ended == State::Cancelled {
            break;
        }
    }
    assert_eq!(ended, State::Cancelled);
    let payload = json!({"filename": "a.wav"});
    let brief = json!({"kind": "analyze-audio", "payload": payload, "timeout_ms": 20, "max_attempts": 1});
    let id = five.upload_with(&brief, &[("a.wav", &long())]).await;
    let (message, attempts) = five.failure(&id).await;
    assert!(attempts == 1, "{message}");
    assert_eq!(five.job(&id).await.error.unwrap().code, leasehold::job::ErrorCode::Timeout);
    five.system.finish().await;
}
