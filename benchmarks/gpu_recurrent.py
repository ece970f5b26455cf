"""Recurrent layers and their matrix products on a GPU, beside PyTorch, which calls cuDNN.

    pip install 'minigrad[cuda13]' torch                # without torch its columns stay empty
    python benchmarks/gpu_recurrent.py                  # some minutes
    CUPY_TF32=1 python benchmarks/gpu_recurrent.py      # products in TF32, on both sides
    python benchmarks/gpu_recurrent.py --quick --json figures.json

**No figure has been taken yet: nobody has run this on a GPU.** Every layer is run as it is (one
recorded step is played), with every operation recorded (``unrolled=True``), and by ``torch.nn``.
They take turns in one process; each waits for the device at its end, and the median is shown. The
memory of minigrad is what CuPy's pool takes, starting empty, so it is at least the peak; that of
torch is the peak. Products are called in a row, as a recurrence does. TF32 is a setting of the
process for CuPy, and so it is here for torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from gpu import Row, Run, main, torch_on_a_gpu, waited_for
from recurrent import Configuration, medians, ours, torch_layer

import minigrad as mg

#: What was measured on CPUs, and on GPUs by others, at full length; see recurrent.py.
CONFIGURATIONS = {
    "C1": Configuration("rnn", 1, 25, 1, 64, 100, "characters, Karpathy"),
    "text": Configuration("lstm", 1, 64, 32, 64, 192, "examples/text_generation.py"),
    "C3": Configuration("lstm", 2, 35, 20, 650, 650, "Penn Treebank, medium"),
    "C4": Configuration("lstm", 1, 25, 64, 512, 512, "translation, DeepBench"),
    "S1": Configuration("lstm", 1, 256, 64, 512, 512, "bound by latency"),
    "S2": Configuration("lstm", 1, 512, 32, 1024, 1024, "bound by latency"),
    "S3": Configuration("lstm", 1, 1024, 1, 768, 768, "one sequence"),
    "S4": Configuration("lstm", 1, 128, 256, 2048, 2048, "bound by arithmetic"),
    "C2": Configuration("lstm", 1, 784, 100, 1, 128, "sequential MNIST"),
    "C5": Configuration("lstm", 4, 100, 64, 512, 512, "Appleyard"),
    "C6": Configuration("lstm", 3, 70, 80, 400, 1150, "AWD-LSTM"),
    "C7": Configuration("lstm", 1, 1024, 16, 768, 768, "FlashRNN"),
    "C8": Configuration("gru", 1, 375, 32, 2048, 2048, "speech, DeepBench"),
}
#: The sizes of which all three cells are measured.
SIZES = ("S1", "S2", "S3", "S4")
QUICK = ("C1", "text", "C4")
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
#: How long runs take turns, at least.
SECONDS = 0.05
#: Products are called in a row until they come to this, but at most fifty.
FLOPS_IN_A_ROW = 5e10


def configurations(quick: bool) -> Iterator[tuple[str, Configuration]]:
    """By name; those of more cells than one by the name of the cell, too."""
    for name in QUICK if quick else CONFIGURATIONS:
        yield name, CONFIGURATIONS[name]
    for name in QUICK[-1:] if quick else SIZES:
        for cell in ("gru", "rnn"):
            yield f"{name} {cell}", replace(CONFIGURATIONS[name], cell=cell)


def torch_like_cupy() -> Any:
    """PyTorch, which multiplies as CuPy does in this process; ``None`` where it has no GPU."""
    torch = torch_on_a_gpu()
    if torch is not None:
        in_tf32 = os.environ.get("CUPY_TF32") == "1"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = in_tf32
    return torch


def layers(quick: bool) -> Iterator[Row]:
    """Two rows for every configuration: forward, and forward and backward."""
    torch = torch_like_cupy()
    for name, c in configurations(quick):
        made = {"played": ours(c, None), "unrolled": ours(c, True)}
        if torch is not None:
            with torch.device("cuda"):
                theirs = torch_layer(c)
            assert theirs is not None, "PyTorch has a layer for each of these cells"
            made["torch"] = theirs
        for i, direction in enumerate(("forward", "both")):
            runs = {who: waited_for(pair[i]) for who, pair in made.items()}
            ms = {who: 1e3 * t for who, t in medians(runs, SECONDS).items()}
            peer = ms.get("torch")
            yield {
                "name": name,
                "cell": c.cell,
                "L x T, B, I, H": f"{c.layers} x {c.time}, {c.batch}, {c.inputs}, {c.hidden}",
                "direction": direction,
                "played, ms": ms["played"],
                "unrolled, ms": ms["unrolled"],
                "torch, ms": peer,
                "played / torch": peer and ms["played"] / peer,
                "us per step": 1e3 * ms["played"] / (c.time * c.layers),
                "played, MiB": taken(runs["played"]) / 2**20,
                "torch, MiB": peer and taken_by_torch(torch, runs["torch"]) / 2**20,
            }


def taken(run: Run) -> int:
    """The bytes that the pool takes for a run, over what is there before and after it."""
    mg.set_workspace_limit(0)
    run()
    mg.cuda.empty_cache()
    before = mg.cuda.memory_reserved()
    run()
    mg.set_workspace_limit(1 << 28)
    return mg.cuda.memory_reserved() - before


def taken_by_torch(torch: Any, run: Run) -> int:
    """The peak of PyTorch's memory in a run, over what is there before and after it."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return int(torch.cuda.max_memory_allocated() - before)


def products(quick: bool) -> Iterator[Row]:
    """The recurrent product, its two gradients, and the product with the whole input."""
    seen = set()
    for _, c in configurations(quick):
        wide = GATES[c.cell] * c.hidden
        shapes = {
            "h @ W": (c.batch, c.hidden, wide),
            "d @ W.T": (c.batch, wide, c.hidden),
            "h.T @ d, all steps": (c.hidden, c.time * c.batch, wide),
            "x @ W, all steps": (c.time * c.batch, c.inputs, wide),
        }
        for use, (n, k, m) in shapes.items():
            for dtype in ("float32", "float16"):
                if (n, k, m, dtype) in seen:
                    continue
                seen.add((n, k, m, dtype))
                count = max(1, min(50, int(FLOPS_IN_A_ROW / (2 * n * k * m))))
                times = medians(multiplied(n, k, m, dtype, count), SECONDS)
                us = {who: 1e6 * t / count for who, t in times.items()}
                yield {
                    "product": use,
                    "rows": n,
                    "inner": k,
                    "columns": m,
                    "dtype": dtype,
                    "CuPy, us": us["cupy"],
                    "torch, us": us.get("torch"),
                    "TFLOP/s": 2e-6 * n * k * m / us["cupy"],
                }


def multiplied(n: int, k: int, m: int, dtype: str, count: int) -> dict[str, Run]:
    """Products in a row into the same array, by CuPy and by PyTorch."""
    numbers = np.random.default_rng(0).normal(size=4093, scale=0.01).astype(dtype)
    a, b = np.resize(numbers, (n, k)), np.resize(numbers, (k, m))
    c = np.zeros((n, m), dtype)

    def repeated(library: Any, a: Any, b: Any, c: Any) -> Run:
        def run() -> None:
            for _ in range(count):
                library.matmul(a, b, out=c)

        return waited_for(run)

    ours = [mg.tensor(x).array for x in (a, b, c)]
    runs = {"cupy": repeated(import_module("cupy"), *ours)}
    if (torch := torch_like_cupy()) is not None:
        runs["torch"] = repeated(torch, *[torch.tensor(x, device="cuda") for x in (a, b, c)])
    return runs


SECTIONS = {"layers": layers, "products": products}

if __name__ == "__main__":
    sys.exit(main(SECTIONS, __doc__))
