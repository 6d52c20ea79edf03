"""Writes a WAV of a second to the file that is named: a tone of 440 Hz at half of full scale."""
import math
import struct
import sys
import wave

RATE = 16_000

with wave.open(sys.argv[1], "wb") as tone:
    tone.setparams((1, 2, RATE, RATE, "NONE", "not compressed"))
    samples = (round(0.5 * 32_767 * math.sin(2 * math.pi * 440 * at / RATE)) for at in range(RATE))
    tone.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
