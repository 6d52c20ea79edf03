//! A recording in FLAC, written here: each frame holds its samples as they are, under the checksums that the format
//! asks for.
use super::*;

const FRAMES: usize = 4_096;

fn checksum(bits: u32, polynomial: u32, bytes: &[u8]) -> u32 {
    let top = 1 << (bits - 1);
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << (bits - 8), |sum: u32, _| {
            if sum & top == 0 { sum << 1 } else { (sum << 1 ^ polynomial) & ((top << 1) - 1) }
        })
    })
}

/// On one channel, 16 bits.
fn flac(rate: u32, samples: &[f64]) -> Vec<u8> {
    let mut flac = b"fLaC\x80\0\0\x22".to_vec();
    flac.extend([(FRAMES as u16).to_be_bytes(), (FRAMES as u16).to_be_bytes()].concat());
    flac.extend([0; 6]);
    let described = u64::from(rate) << 44 | 15 << 36 | samples.len() as u64;
    flac.extend(described.to_be_bytes());
    flac.extend([0; 16]);
    for (number, block) in samples.chunks(FRAMES).enumerate() {
        let mut frame = vec![0xFF, 0xF8, 0x70, 0x08, u8::try_from(number).unwrap()];
        frame.extend((block.len() as u16 - 1).to_be_bytes());
        frame.push(checksum(8, 0x07, &frame) as u8);
        frame.push(0x02);
        block.iter().for_each(|sample| frame.extend(((sample * 32_767.0).round() as i16).to_be_bytes()));
        frame.extend((checksum(16, 0x8005, &frame) as u16).to_be_bytes());
        flac.extend(frame);
    }
    flac
}

#[test]
fn flac_is_measured_as_wav_is() {
    let samples = sine(44_100, 1, 440.0, 0.5, 1.0);
    let whole = flac(44_100, &samples);
    let report = analyzed(&whole).unwrap();
    assert_eq!(report, analyzed(&wav(Form::I16, 44_100, 1, &samples)).unwrap());
    let part = analyzed(&whole[..whole.len() / 2]).unwrap();
    assert!((0.3..0.6).contains(&part.duration_seconds) && near(part.pitch_hz, 440.0, 0.5), "{part:?}");
    for at in (0..whole.len()).step_by(whole.len() / 200) {
        let mut changed = whole.clone();
        changed[at] ^= 0xFF;
        drop(analyzed(&changed));
    }
}
