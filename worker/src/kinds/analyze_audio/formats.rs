//! Names what is not supported, by the beginning of a file.

/// What a file that cannot be decoded probably is.
pub(super) fn name_of(beginning: &[u8]) -> Option<&'static str> {
    const MAGIC: [(usize, &[u8], &str); 24] = [
        (0, b"RIFX", "a big-endian WAV file (RIFX)"),
        (8, b"AVI ", "AVI"),
        (8, b"AIFF", "AIFF"),
        (8, b"AIFC", "AIFF-C"),
        (0, b".snd", "AU"),
        (0, b"caff", "Core Audio Format"),
        (0, b"riff\x2E\x91\xCF\x11", "Sony Wave64"),
        (0, b"#!AMR", "AMR"),
        (0, b"#!SILK", "SILK"),
        (0, b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "Windows Media (ASF)"),
        (0, b"\x1A\x45\xDF\xA3", "Matroska or WebM"),
        (0, b"MThd", "MIDI, which has notes and no sound"),
        (0, b"wvpk", "WavPack"),
        (0, b"MAC ", "Monkey's Audio"),
        (0, b"DSD ", "DSD"),
        (0, b"FRM8", "DSD"),
        (0, b"MP+", "Musepack"),
        (0, b"MPCK", "Musepack"),
        (0, b"TTA1", "True Audio"),
        (0, b"FLV\x01", "Flash Video"),
        (0, b"Creative Voice File", "Creative Voice"),
        (0, b"NIST_1A", "NIST Sphere"),
        (0, b"\x0B\x77", "AC-3"),
        (0, b"\x7F\xFE\x80\x01", "DTS"),
    ];
    let at = |at: usize, magic: &[u8]| beginning.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if let Some((.., name)) = MAGIC.iter().find(|(place, magic, _)| at(*place, magic)) {
        return Some(name);
    }
    if at(0, b"OggS") {
        let has = |name: &[u8]| beginning.windows(name.len()).any(|bytes| bytes == name);
        let codecs: [(&[u8], &str); 3] =
            [(b"OpusHead", "Ogg Opus"), (b"Speex   ", "Ogg Speex"), (b"\x80theora", "Ogg Theora")];
        return codecs.into_iter().find(|(head, _)| has(head)).map(|(_, name)| name);
    }
    match beginning {
        // The layer is in two bits of the second byte of a frame.
        [0xFF, second, ..] if second & 0xE0 == 0xE0 && matches!(second & 0x06, 0x04 | 0x06) => {
            Some("MPEG layer 1 or 2")
        }
        _ => None,
    }
}
