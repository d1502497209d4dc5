"""Two small things the baresip test needs done to WAV files.

    wav.py pad IN.wav SECONDS OUT.wav    IN (8 kHz, 16 bit) after 2 s of silence, silence up to SECONDS and 30 more
    wav.py voiced IN.wav                 how long IN (16 bit; of several channels the first: Opus is always
                                         two to baresip) is louder than -45 dBov, in milliseconds, counted in 20 ms frames
"""

import array
import sys
import wave


def read(path):
    with wave.open(path) as file:
        assert file.getsampwidth() == 2, f"{path}: {8 * file.getsampwidth()} bit, not 16"
        samples = array.array("h", file.readframes(file.getnframes()))
        return file.getframerate(), samples[:: file.getnchannels()]


def pad(source, seconds, target):
    rate, samples = read(source)
    assert rate == 8000, f"{source}: {rate} Hz, not 8000"
    silence = array.array("h", bytes(2 * rate))
    padded = silence * 2 + samples + silence * (int(seconds) + 30)
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(padded.tobytes())


def voiced(source):
    rate, samples = read(source)
    frame = rate // 50
    loud = (32768 * 10 ** (-45 / 20)) ** 2 * frame
    frames = (samples[at : at + frame] for at in range(0, len(samples), frame))
    print(20 * sum(sum(s * s for s in piece) > loud for piece in frames))


{"pad": pad, "voiced": voiced}[sys.argv[1]](*sys.argv[2:])
