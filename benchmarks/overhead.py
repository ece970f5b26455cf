"""What recording and reading back costs per operation, beside NumPy by hand and the peers.

    pip install torch autograd mygrad    # those that are not installed are left out
    python benchmarks/overhead.py

A chain of 50 times [tanh, multiply, add, matmul] with four leaves: its gradient, and the
gradient of the squared gradient. All run in one process, in turn, on one thread, each a few
times in a row (a program that follows another's finds its caches cold, and is up to a fifth
slower); the figures are medians of wall time per operation of the forward pass.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import machine
import numpy as np

import minigrad as mg

LENGTH = 50
OPERATIONS = 4 * LENGTH
IN_A_ROW = 4
SHAPES = ((8, 8), (16, 64), (64, 256))

#: Programs for the first order, and the second if there is one.
Programs = tuple[Callable[[], Any], Callable[[], Any] | None]


def by_hand(library: Any, x: Any, a: Any, b: Any, w: Any) -> Any:
    """Forward and backward in plain NumPy, or in plain CuPy."""
    saved = []
    for _ in range(LENGTH):
        t = library.tanh(x)
        x = t * a + b
        saved.append((t, x))
        x = x @ w
    g = library.ones_like(x)
    ga, gb, gw = library.zeros_like(a), library.zeros_like(b), library.zeros_like(w)
    for t, v in reversed(saved):
        gw = gw + v.T @ g
        g = g @ w.T
        gb = gb + g
        ga = ga + g * t
        g = g * a
        g = g * (1.0 - t * t)
    return g, ga, gb, gw


def chain(tanh: Any, x: Any, a: Any, b: Any, w: Any) -> Any:
    """The program that everybody differentiates."""
    for _ in range(LENGTH):
        x = (tanh(x) * a + b) @ w
    return x


def with_minigrad(arrays: list[Any]) -> Programs:
    """Recorded on a tape, and read back."""
    leaves = tuple(mg.tensor(array, requires_grad=True) for array in arrays)

    def first() -> Any:
        with mg.Tape() as tape:
            loss = chain(mg.tanh, *leaves).sum()
        return tape.gradient(loss, leaves)

    def second() -> Any:
        with mg.Tape() as tape:
            loss = chain(mg.tanh, *leaves).sum()
            slope = tape.gradient(loss, leaves[0], create_graph=True)
            penalty = (slope * slope).sum()
        return tape.gradient(penalty, leaves, unconnected="zero")

    return first, second


def with_torch(arrays: list[Any]) -> Programs:
    """PyTorch, eager."""
    import torch

    torch.set_num_threads(1)
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]

    def first() -> Any:
        return torch.autograd.grad(chain(torch.tanh, *tensors).sum(), tensors)

    def second() -> Any:
        (slope,) = torch.autograd.grad(
            chain(torch.tanh, *tensors).sum(), tensors[0], create_graph=True
        )
        return torch.autograd.grad((slope * slope).sum(), tensors, materialize_grads=True)

    return first, second


def with_autograd(arrays: list[Any]) -> Programs:
    """HIPS autograd."""
    import autograd.numpy as anp
    from autograd import grad

    def loss(x: Any, a: Any, b: Any, w: Any) -> Any:
        return anp.sum(chain(anp.tanh, x, a, b, w))

    def penalty(x: Any, a: Any, b: Any, w: Any) -> Any:
        slope = grad(loss)(x, a, b, w)
        return anp.sum(slope * slope)

    places = (0, 1, 2, 3)
    return (lambda: grad(loss, places)(*arrays)), (lambda: grad(penalty, places)(*arrays))


def with_mygrad(arrays: list[Any]) -> Programs:
    """MyGrad, without its memory guard, which has no second order."""
    import mygrad

    mygrad.turn_memory_guarding_off()

    def first() -> Any:
        tensors = [mygrad.tensor(array) for array in arrays]
        chain(mygrad.tanh, *tensors).sum().backward()
        return [tensor.grad for tensor in tensors]

    return first, None


LIBRARIES: dict[str, Callable[[list[Any]], Programs]] = {
    "minigrad": with_minigrad,
    "torch": with_torch,
    "HIPS autograd": with_autograd,
    "MyGrad": with_mygrad,
}


def contestants(arrays: list[Any]) -> dict[str, Programs]:
    """Name and programs of everybody who is installed."""
    found: dict[str, Programs] = {"NumPy by hand": (lambda: by_hand(np, *arrays), None)}
    for name, programs in LIBRARIES.items():
        try:
            found[name] = programs(arrays)
        except ImportError:
            print(f"({name} is not installed)")
    return found


def compare(programs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Microseconds per operation, after checking that all compute the same."""
    results = [[np.asarray(part) for part in run()] for run in programs.values()]
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=2e-2 * np.abs(mine).max())
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, run in programs.items():
            for _ in range(IN_A_ROW):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return {name: 1e6 * median(t) / OPERATIONS for name, t in times.items()}


def main() -> None:
    """Print microseconds per operation, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    path = parser.parse_args().json
    results: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    gc.disable()
    for rows, columns in SHAPES:
        arrays = [rng.standard_normal((rows, columns)).astype("float32") for _ in range(3)]
        scaled = rng.standard_normal((columns, columns)) / columns**0.5
        programs = contestants([*arrays, scaled.astype("float32")])
        repeats = max(5, 2000 // (rows * columns) + 5)
        for order, word in enumerate(("first", "second")):
            runs = {name: both[order] for name, both in programs.items()}
            figures = compare({name: run for name, run in runs.items() if run}, repeats)
            print(f"({rows}, {columns}) float32, {word} order, us per operation:")
            mine = figures["minigrad"]
            results.append({"shape": [rows, columns], "order": word, "microseconds": figures})
            for name, figure in figures.items():
                print(f"  {name:<14} {figure:8.2f}   minigrad takes {mine / figure:5.2f} of it")
    if path:
        machine.write(path, {"results": results})


if __name__ == "__main__":
    main()
