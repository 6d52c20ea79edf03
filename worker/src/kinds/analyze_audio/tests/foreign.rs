//! Recordings whose headers say something else than what is there, joined ones, and less usual forms of WAV.
use std::time::Instant;

use super::*;

const CHAINED: &[u8] = include_bytes!("recordings/chained.ogg");
const INFO_SAYS_10_FRAMES: &[u8] = include_bytes!("recordings/info-says-10-frames.mp3");
const VBR_THROUGH_A_PIPE: &[u8] = include_bytes!("recordings/vbr-through-a-pipe.mp3");

fn seconds(content: &[u8]) -> f64 {
    analyzed(content).unwrap().duration_seconds
}

fn refused(content: &[u8]) -> String {
    analyzed(content).expect_err("it cannot be analysed").to_string()
}

/// A second of a tone in a WAV file with these sizes, and something after it.
fn sized(riff: u32, data: u32, after: &[u8]) -> Vec<u8> {
    let mut content = wav(Form::I16, 16_000, 1, &sine(16_000, 1, 440.0, 0.5, 1.0));
    content[4..8].copy_from_slice(&riff.to_le_bytes());
    content[40..44].copy_from_slice(&data.to_le_bytes());
    content.extend(after);
    content
}

fn chunk(id: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut chunk = [id.as_slice(), &(content.len() as u32).to_le_bytes(), content].concat();
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    chunk
}

#[test]
fn sizes_that_a_recorder_leaves_do_not_hide_its_sound() {
    const DATA: u32 = 32_000;
    const RIFF: u32 = DATA + 36;
    for (riff, data) in [
        (RIFF, DATA),
        (RIFF - 8, DATA),
        (RIFF + 8, DATA),
        (0, 0),
        (RIFF, 0),
        (36, 0),
        (u32::MAX, u32::MAX),
        (RIFF, u32::MAX),
        (0, DATA),
        (RIFF, DATA - 512),
        (RIFF, DATA + 512),
        (RIFF - 512, DATA - 512),
        (4, 1),
        (u32::MAX - 8, u32::MAX - 44),
        (8, 7),
    ] {
        let report = analyzed(&sized(riff, data, b"")).unwrap();
        assert_eq!((report.duration_seconds, report.channels), (1.0, 1.0), "RIFF {riff}, data {data}");
        assert!(near(report.pitch_hz, 440.0, 0.5) && near(report.peak_dbfs, -6.02, 0.01), "{report:?}");
    }
}

#[test]
fn what_follows_the_sound_is_no_sound() {
    let list = chunk(b"LIST", b"INFOISFT\x05\0\0\0test\0\0");
    let tag = [b"TAG".as_slice(), &[b' '; 125]].concat();
    for after in [list.clone(), [list.clone(), chunk(b"id3 ", &[7; 101])].concat(), list[..12].to_vec(), tag, vec![0]] {
        assert_eq!(seconds(&sized(32_036 + after.len() as u32, 32_000, &after)), 1.0, "{after:?}");
        assert_eq!(seconds(&sized(32_036, 32_000, &after)), 1.0, "{after:?}");
    }
    // An odd size without the padding that belongs after it.
    let mut odd = wav(Form::U8, 8_000, 1, &sine(8_000, 1, 440.0, 0.5, 1.0)[..7_999]);
    odd.extend(&list);
    assert_eq!(seconds(&odd), 7_999.0 / 8_000.0);
}

#[test]
fn joined_and_chained_recordings_are_decoded_whole() {
    let one = wav(Form::I16, 16_000, 1, &sine(16_000, 1, 440.0, 0.5, 1.0));
    let listed = sized(32_036 + 26, 32_000, &chunk(b"LIST", b"INFOISFT\x05\0\0\0test\0\0"));
    assert_eq!(seconds(&[one.clone(), one.clone(), one.clone()].concat()), 3.0);
    assert_eq!(seconds(&[listed.clone(), one.clone()].concat()), 2.0);
    assert!((seconds(CHAINED) - 4.0).abs() < 0.01);
    assert!((seconds(&[CHAINED, CHAINED].concat()) - 8.0).abs() < 0.02);
    let both = seconds(&[INFO_SAYS_10_FRAMES, INFO_SAYS_10_FRAMES].concat());
    assert!((both - 4.0).abs() < 0.1, "{both}");
    let other = wav(Form::I16, 16_000, 2, &sine(16_000, 2, 440.0, 0.5, 1.0));
    let error = refused(&[one, other].concat());
    assert!(error.contains("16000 Hz and channels: 1, and continues with 16000 Hz and channels: 2"), "{error}");
}

#[test]
fn an_mp3_is_decoded_to_its_end_whatever_its_header_says() {
    assert!((seconds(INFO_SAYS_10_FRAMES) - 2.0).abs() < 0.03, "{}", seconds(INFO_SAYS_10_FRAMES));
    assert!((seconds(VBR_THROUGH_A_PIPE) - 6.03).abs() < 0.03, "{}", seconds(VBR_THROUGH_A_PIPE));
    let at =
        INFO_SAYS_10_FRAMES.windows(4).position(|tag| tag == b"Info" || tag == b"Xing").expect("it has the header");
    for frames in [0_u32, 1, 76, 1_000_000, u32::MAX] {
        let mut lying = INFO_SAYS_10_FRAMES.to_vec();
        lying[at + 8..at + 12].copy_from_slice(&frames.to_be_bytes());
        assert!((seconds(&lying) - 2.0).abs() < 0.03, "{frames} frames: {}", seconds(&lying));
    }
    // A tag of text in the middle, as two files joined by `cat` have.
    let id3 = [b"ID3\x04\0\0\0\0\x02\0".as_slice(), &[b'x'; 256]].concat();
    let both = seconds(&[VBR_THROUGH_A_PIPE, &id3, VBR_THROUGH_A_PIPE].concat());
    assert!((both - 12.06).abs() < 0.1, "{both}");
}

/// A WAV file whose sizes are in 64 bits.
fn long(id: &[u8; 4], data: u64) -> Vec<u8> {
    let plain = wav(Form::I16, 16_000, 1, &sine(16_000, 1, 440.0, 0.5, 1.0));
    let ds64 = chunk(
        b"ds64",
        &[&data.wrapping_add(72).to_le_bytes()[..], &data.to_le_bytes(), &(data / 2).to_le_bytes(), &[0; 4]].concat(),
    );
    let mut content = [id.as_slice(), &[0xFF; 4], b"WAVE", &ds64, &plain[12..]].concat();
    let size = 12 + ds64.len() + 24 + 4;
    content[size..size + 4].copy_from_slice(&[0xFF; 4]);
    content
}

#[test]
fn the_long_forms_of_wav_are_read() {
    for id in [b"RF64", b"BW64"] {
        for data in [32_000, 0, u64::MAX, 32_000 - 100] {
            assert_eq!(seconds(&long(id, data)), 1.0, "{data}");
        }
        let list = chunk(b"LIST", b"INFOISFT\x05\0\0\0test\0\0");
        assert_eq!(seconds(&[long(id, 32_000), list].concat()), 1.0);
    }
}

/// A WAV file in another format.
fn formatted(
    tag: u16,
    channels: u16,
    block: u16,
    bits: u16,
    extension: &[u8],
    frames: Option<u32>,
    data: &[u8],
) -> Vec<u8> {
    let mut fmt = [tag, channels].map(u16::to_le_bytes).concat();
    fmt.extend(8_000_u32.to_le_bytes());
    fmt.extend(8_000_u32.to_le_bytes());
    fmt.extend([block, bits].map(u16::to_le_bytes).concat());
    fmt.extend(extension);
    let fact = frames.map_or(Vec::new(), |frames| chunk(b"fact", &frames.to_le_bytes()));
    let body = [b"WAVE".as_slice(), &chunk(b"fmt ", &fmt), &fact, &chunk(b"data", data)].concat();
    [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat()
}

#[test]
fn adpcm_is_decoded() {
    // Blocks that hold a constant: the first sample, and no change after it.
    let ima: Vec<u8> = [&8_192_i16.to_le_bytes()[..], &[0, 0], &[0; 252]].concat().repeat(16);
    let extension = [2, 0, 0xF9, 1];
    let report = analyzed(&formatted(0x11, 1, 256, 4, &extension, None, &ima)).unwrap();
    assert_eq!(report.duration_seconds, 16.0 * 505.0 / 8_000.0);
    assert!(near(report.peak_dbfs, -12.04, 0.05), "{report:?}");
    // The last block is not full.
    assert_eq!(seconds(&formatted(0x11, 1, 256, 4, &extension, Some(8_000), &ima)), 1.0);
    // A count that cannot be: of another file, or 0 of a recorder that lost its power.
    for frames in [0, 100, u32::MAX] {
        assert_eq!(seconds(&formatted(0x11, 1, 256, 4, &extension, Some(frames), &ima)), 16.0 * 505.0 / 8_000.0);
    }
    let head = [&[0_u8][..], &16_i16.to_le_bytes(), &8_192_i16.to_le_bytes(), &8_192_i16.to_le_bytes()].concat();
    let ms = [head, vec![0; 249]].concat().repeat(16);
    let coefficients: Vec<u8> = [0x20_u16, 500, 7].into_iter().flat_map(u16::to_le_bytes).chain([0; 28]).collect();
    let report = analyzed(&formatted(2, 1, 256, 4, &coefficients, None, &ms)).unwrap();
    assert_eq!(report.duration_seconds, 16.0 * 500.0 / 8_000.0);
    assert!(near(report.peak_dbfs, -12.04, 0.05), "{report:?}");
}

#[test]
fn samples_in_a_wider_container_and_an_extensible_header_are_read() {
    let samples = sine(8_000, 1, 440.0, 0.5, 1.0);
    let guid = |tag: u16| [&tag.to_le_bytes()[..], b"\0\0\0\0\x10\0\x80\0\0\xAA\0\x38\x9B\x71"].concat();
    let wide = |form: Form| samples.iter().flat_map(|sample| encoded(form, *sample)).collect::<Vec<u8>>();
    for (tag, form, bits) in
        [(1, Form::I32, 24), (1, Form::I32, 32), (3, Form::F32, 32), (1, Form::I16, 12), (1, Form::I24, 20)]
    {
        let block = super::bits(form) / 8;
        let extension = [&[22, 0][..], &u16::to_le_bytes(bits), &4_u32.to_le_bytes(), &guid(tag)].concat();
        let report = analyzed(&formatted(0xFFFE, 1, block, super::bits(form), &extension, None, &wide(form))).unwrap();
        assert!(near(report.peak_dbfs, -6.02, 0.01) && report.duration_seconds == 1.0, "{form:?} {bits}: {report:?}");
        let report = analyzed(&formatted(tag, 1, block, bits, &[], None, &wide(form))).unwrap();
        assert!(near(report.peak_dbfs, -6.02, 0.01) && report.duration_seconds == 1.0, "{form:?} {bits}: {report:?}");
    }
    for tag in [6, 7] {
        assert_eq!(seconds(&formatted(tag, 1, 1, 8, &[0, 0], None, &[0x55; 8_000])), 1.0);
        assert_eq!(seconds(&formatted(tag, 1, 1, 8, &[], None, &[0x55; 8_000])), 1.0);
    }
    let mp3 = formatted(0x55, 1, 1, 0, &[12, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0], None, VBR_THROUGH_A_PIPE);
    assert!((seconds(&mp3) - 6.03).abs() < 0.03);
}

#[test]
fn what_is_not_supported_is_named() {
    for (content, name) in [
        (formatted(0x31, 1, 65, 0, &[2, 0, 0x40, 1], None, &[0; 650]), "GSM 6.10"),
        (formatted(0x161, 2, 65, 0, &[0, 0], None, &[0; 650]), "Windows Media Audio"),
        (formatted(0x1234, 1, 1, 8, &[], None, &[0; 650]), "format 0x1234"),
        (formatted(1, 1, 8, 64, &[], None, &[0; 640]), "64 bits"),
        (formatted(3, 1, 2, 16, &[], None, &[0; 640]), "16 bits"),
        (formatted(0x11, 1, 256, 3, &[2, 0, 0, 0], None, &[0; 640]), "3 bits"),
        (formatted(0x11, 64, 256, 4, &[2, 0, 0, 0], None, &[0; 640]), "64 channels"),
        (b"RIFX\0\0\0\0WAVEfmt ".to_vec(), "big-endian"),
        (b"FORM\0\0\0\0AIFFCOMM".to_vec(), "AIFF"),
        (b"#!AMR\n\x3C\x08".to_vec(), "AMR"),
        (b"\x1A\x45\xDF\xA3\x93\x42\x82\x88".to_vec(), "Matroska"),
        (b"caff\0\x01\0\0desc".to_vec(), "Core Audio"),
        (b"wvpk\0\0\0\0".to_vec(), "WavPack"),
        (b"\xFF\xFC\x50\xC4\0\0\0\0".to_vec(), "MPEG layer 1 or 2"),
    ] {
        let error = refused(&content);
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn hostile_headers_are_refused_at_once() {
    let started = Instant::now();
    let samples = sine(48_000, 1, 440.0, 0.5, 0.2);
    assert!(refused(&wav(Form::I16, 48_000, 65_535, &samples)).contains("it has 65535 channels; 1 to 64"));
    let plain = wav(Form::I16, 48_000, 1, &samples);
    let many = [&plain[..36], &b"JUNK\0\0\0\0".repeat(1_000_000), &plain[36..]].concat();
    assert!(refused(&many).contains("more than 65536 chunks"));
    let after = [plain.clone(), b"JUNK\0\0\0\0".repeat(1_000_000)].concat();
    assert!(refused(&after).contains("more than 65536 chunks"));
    assert!(started.elapsed().as_secs() < 30);
    // No more channels than are allowed, and each of them is read or refused by its number.
    for channels in 1..=64 {
        let samples = sine(8_000, channels, 440.0, 0.5, 0.1);
        match analyzed(&wav(Form::I16, 8_000, channels, &samples)) {
            Ok(report) => assert_eq!((report.channels, report.duration_seconds), (f64::from(channels), 0.1)),
            Err(e) => assert!(channels > 26, "{channels}: {e}"),
        }
    }
}
