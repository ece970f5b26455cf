"""What clip_grad_norm_ costs, beside PyTorch's.

    pip install torch
    python benchmarks/clipping.py

Two models' gradients, in float32, of which the norm is too large: many small parameters, where
calls count, and a few large ones, where memory does. Both run in turn in one process, on one
thread; the figures are medians. PyTorch writes into the gradients, minigrad never does.
"""

from __future__ import annotations

import os
import time
from statistics import median
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
import torch

import minigrad as mg
import minigrad_rnn as rnn

MODELS: tuple[tuple[int, tuple[int, int]], ...] = ((50, (64, 64)), (4, (1024, 1024)))


def compare(count: int, shape: tuple[int, int], repeats: int) -> tuple[float, float]:
    """Microseconds of minigrad and of PyTorch, after checking that both clip alike."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, dtype="float32") for _ in range(count)]
    own = [mg.tensor(np.zeros_like(array), requires_grad=True) for array in arrays]
    theirs = [torch.zeros(shape, requires_grad=True) for _ in arrays]
    spent: dict[Any, list[float]] = {rnn.clip_grad_norm_: [], torch.nn.utils.clip_grad_norm_: []}
    for _ in range(repeats):
        for parameter, their, array in zip(own, theirs, arrays, strict=True):
            parameter.grad, their.grad = mg.asarray(array), torch.tensor(array)
        for clip, parameters in zip(spent, (own, theirs), strict=True):
            start = time.perf_counter()
            clip(parameters, 1.0)
            spent[clip].append(time.perf_counter() - start)
    for parameter, their in zip(own, theirs, strict=True):
        assert parameter.grad is not None
        assert their.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), their.grad.numpy(), rtol=1e-4)
    ours, peers = (1e6 * median(times) for times in spent.values())
    return ours, peers


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("parameters          minigrad      torch    ratio")
    for count, shape in MODELS:
        ours, theirs = compare(count, shape, repeats=101)
        print(f"{count:3} of {shape!s:12} {ours:8.0f} us {theirs:7.0f} us {ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
