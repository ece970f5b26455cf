"""What recording and reading back costs per operation, beside NumPy written by hand and torch.

    python benchmarks/overhead.py

A chain of 50 times [tanh, multiply, add, matmul] with four leaves. All contestants run in one
process, in turn, on one thread; the figures are medians of wall time per operation. torch is
left out if it is not installed.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np

import minigrad as mg

LENGTH = 50
OPERATIONS = 4 * LENGTH
SHAPES = ((8, 8), (16, 64), (64, 256))


def by_hand(x: Any, a: Any, b: Any, w: Any) -> Any:
    """Forward and backward in plain NumPy."""
    saved = []
    for _ in range(LENGTH):
        t = np.tanh(x)
        x = t * a + b
        saved.append((t, x))
        x = x @ w
    g = np.ones_like(x)
    ga, gb, gw = np.zeros_like(a), np.zeros_like(b), np.zeros_like(w)
    for t, v in reversed(saved):
        gw = gw + v.T @ g
        g = g @ w.T
        gb = gb + g
        ga = ga + g * t
        g = g * a
        g = g * (1.0 - t * t)
    return g, ga, gb, gw


def with_minigrad(x: Any, a: Any, b: Any, w: Any) -> Any:
    """The same, recorded on a tape and read back."""
    with mg.Tape() as tape:
        y = x
        for _ in range(LENGTH):
            y = (mg.tanh(y) * a + b) @ w
        loss = y.sum()
    return tape.gradient(loss, (x, a, b, w))


def contestants(arrays: list[Any]) -> dict[str, Callable[[], Any]]:
    """Name and program of everybody who takes part."""
    leaves = [mg.tensor(array, requires_grad=True) for array in arrays]
    found: dict[str, Callable[[], Any]] = {
        "NumPy by hand": lambda: by_hand(*arrays),
        "minigrad": lambda: with_minigrad(*leaves),
    }
    try:
        import torch
    except ImportError:
        return found
    torch.set_num_threads(1)
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]

    def with_torch() -> Any:
        x, a, b, w = tensors
        y = x
        for _ in range(LENGTH):
            y = (torch.tanh(y) * a + b) @ w
        return torch.autograd.grad(y.sum(), tensors)

    found["torch"] = with_torch
    return found


def main() -> None:
    """Print microseconds per operation, and the ratios."""
    rng = np.random.default_rng(0)
    gc.disable()
    for rows, columns in SHAPES:
        arrays = [rng.standard_normal((rows, columns)).astype("float32") for _ in range(3)]
        scaled = rng.standard_normal((columns, columns)) / columns**0.5
        programs = contestants([*arrays, scaled.astype("float32")])
        results = [[np.asarray(part) for part in run()] for run in programs.values()]
        for other in results[1:]:
            for mine, theirs in zip(results[0], other, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-2)
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(max(10, 6000 // (rows * columns) + 20)):
            for name, run in programs.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
        figures = {name: 1e6 * median(t) / OPERATIONS for name, t in times.items()}
        hand = figures["NumPy by hand"]
        print(f"({rows}, {columns}) float32, forward and backward, us per operation:")
        for name, figure in figures.items():
            print(f"  {name:<14} {figure:8.2f}   {figure / hand:5.2f} x by hand")


if __name__ == "__main__":
    main()
