"""Scores recordings with PESQ. In: lines of "nb" or "wb", what was said and what was heard (WAV files), by tabs.
Out, in the same order: MOS-LQO by P.862.1 (nb, 8 kHz) or P.862.2 (wb, 16 kHz).
"""

import multiprocessing
import sys
import wave

import numpy
from pesq import pesq


def samples(path, rate):
    with wave.open(path, "rb") as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (rate, 1, 2):
            raise SystemExit(f"{path}: 16-bit mono at {rate} Hz is accepted, nothing else")
        return numpy.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def score(line):
    mode, said, heard = line.split("\t")
    rate = {"nb": 8000, "wb": 16000}[mode]
    return pesq(rate, samples(said, rate), samples(heard, rate), mode)


if __name__ == "__main__":
    # No more processes than cores; each pair is scored alone, since the reference code keeps its state in globals.
    with multiprocessing.Pool() as pool:
        for mos in pool.imap(score, sys.stdin.read().splitlines()):
            print(f"{mos:.3f}")
