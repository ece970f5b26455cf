"""How time and memory of training on one long sequence grow with its length.

    python benchmarks/long_sequences.py

A two-layer LSTM, 64 features, 16 sequences, float32, forward and backward, on one thread. Time
is the processor's, the least of several runs, with the lengths taking turns; it should not
depend on the length, and the peak of memory should stay near the arrays that the gradient
needs, which are those that the tape holds after the forward pass.
"""

from __future__ import annotations

import os
import time
import tracemalloc

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor

LENGTHS = (100, 200, 500, 1000, 2000)
BATCH, FEATURES, REPEATS = 16, 64, 5


def train(layer: rnn.LSTM, xs: Tensor) -> int:
    """Forward and backward; returns the bytes that the tape held between the two."""
    with mg.Tape() as tape:
        ys, _ = layer(xs)
        loss = (ys * ys).sum()
    held = tape.nbytes
    del ys
    tape.backward(loss)
    return held


def peak_over_held(layer: rnn.LSTM, xs: Tensor) -> tuple[int, float]:
    """The bytes that the tape held, and how many times as many there were at the peak."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    held = train(layer, xs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held, (peak - before) / held


def main() -> None:
    """Print the table."""
    layer = rnn.LSTM(FEATURES, FEATURES, num_layers=2, rng=0)
    rng = np.random.default_rng(0)
    sequences = {
        length: mg.tensor(rng.normal(size=(length, BATCH, FEATURES)), dtype="float32")
        for length in LENGTHS
    }
    least = dict.fromkeys(LENGTHS, float("inf"))
    for _ in range(REPEATS):
        for length, xs in sequences.items():
            start = time.process_time()
            train(layer, xs)
            least[length] = min(least[length], time.process_time() - start)
    print("steps  us per step  tape MiB  peak / tape")
    for length, xs in sequences.items():
        held, ratio = peak_over_held(layer, xs)
        micros = 1e6 * least[length] / length
        print(f"{length:5d}  {micros:11.0f}  {held / 2**20:8.1f}  {ratio:11.2f}")


if __name__ == "__main__":
    main()
