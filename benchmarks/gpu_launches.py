"""What work costs on a GPU before any arithmetic: operations, kernels, graphs and grid barriers.

    pip install 'minigrad[cuda13]' torch       # without torch its columns stay empty
    python benchmarks/gpu_launches.py --json figures.json

**No figure has been taken yet: nobody has run this on a GPU.** The kernels have been compiled
for compute capabilities 7.5, 8.0 and 9.0. The sections are

- ``operations``: the chain of overhead.py, per operation of its forward pass;
- ``text generation``: an update of the model of examples/text_generation.py;
- ``launches``: kernels in a row that do nothing or next to nothing, and one that is waited for;
- ``graphs``: so many kernels launched one by one, and replayed as a graph that was captured;
- ``barriers``: all blocks of a grid wait for each other, by the barrier of cooperative groups and
  by one written here. A recurrent layer in a single kernel needs one in every step.

All times are by the host's clock until the device is done, medians of runs that take turns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
from gpu import Row, Run, main, torch_on_a_gpu, waited_for
from machine import ROOT
from overhead import OPERATIONS, SHAPES, by_hand, chain, with_minigrad, with_torch
from recurrent import medians

import minigrad as mg

SECONDS = 0.3
IN_A_ROW = 200

KERNELS = r"""
extern "C" __global__ void nothing(float* x) {}

extern "C" __global__ void add_one(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += 1.0f;
}

// The counter starts at 0, and grows by the number of blocks with every barrier.
extern "C" __global__ void own_barriers(unsigned int* counter, int count) {
    for (int i = 1; i <= count; i++) {
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned int arrived;
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" :: "l"(counter) : "memory");
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                             : "=r"(arrived) : "l"(counter) : "memory");
            } while (arrived < i * gridDim.x);
        }
        __syncthreads();
    }
}
"""

GRID_SYNC = r"""
#include <cooperative_groups.h>

extern "C" __global__ void grid_syncs(unsigned int* unused, int count) {
    for (int i = 0; i < count; i++) cooperative_groups::this_grid().sync();
}
"""


def kernel(name: str, *, source: str = KERNELS, cooperative: bool = False) -> Any:
    """A kernel that is launched as ``kernel(blocks, threads, arguments)``."""
    return import_module("cupy").RawKernel(
        source, name, options=("-std=c++17",), enable_cooperative_groups=cooperative
    )


def microseconds(runs: dict[str, Run], each: int = 1) -> dict[str, float]:
    """The median time of the runs, divided by how much each of them does."""
    waiting = {name: waited_for(run) for name, run in runs.items()}
    return {f"{name}, us": 1e6 * t / each for name, t in medians(waiting, SECONDS).items()}


def in_a_row(run: Run, count: int = IN_A_ROW) -> Run:
    """So many times the same."""

    def repeated() -> None:
        for _ in range(count):
            run()

    return repeated


# --------------------------------------------------------------------------------------
# What minigrad adds
# --------------------------------------------------------------------------------------


def operations(quick: bool) -> Iterator[Row]:
    """A row for every size and direction."""
    rng = np.random.default_rng(0)
    torch = torch_on_a_gpu()
    for n, m in SHAPES[:1] if quick else SHAPES:
        arrays = [rng.standard_normal((n, m)).astype("f4") for _ in range(3)]
        arrays.append((rng.standard_normal((m, m)) / m**0.5).astype("f4"))
        device = [mg.tensor(array).array for array in arrays]
        leaves = [mg.tensor(array, requires_grad=True) for array in arrays]
        library = import_module("cupy")

        def recorded(leaves: Any = leaves) -> None:
            with mg.Tape():
                chain(mg.tanh, *leaves)

        forward: dict[str, Run] = {
            "CuPy": partial(chain, library.tanh, *device),
            "minigrad": partial(chain, mg.tanh, *leaves),
            "recorded": recorded,
        }
        both: dict[str, Run] = {
            "CuPy": partial(by_hand, library, *device),
            "minigrad": with_minigrad(arrays)[0],
        }
        if torch is not None:
            with torch.device("cuda"):
                both["torch"] = with_torch(arrays)[0]
                theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
            forward["torch"] = partial(chain, torch.tanh, *theirs)
        for direction, runs in (("forward", forward), ("both", both)):
            us = microseconds(runs, OPERATIONS)
            names = [f"{who}, us" for who in ("CuPy", "minigrad", "recorded", "torch")]
            yield {
                "shape": f"({n}, {m})",
                "direction": direction,
                **{name: us.get(name) for name in names},
            }


def text_generation(quick: bool) -> Iterator[Row]:
    """A row for every length of a window."""
    sys.path.append(str(ROOT / "examples"))
    program = import_module("text_generation")
    corpus = program.load_corpus("python")
    for characters in (64,) if quick else (16, 64, 256):
        settings = program.Settings(text="python", k1=characters, k2=characters)
        learner = program.Learner(settings, corpus, "cuda")
        with learner.truncated:
            us = microseconds({"update": learner.update})["update, us"]
        yield {
            "characters": characters,
            "rows": settings.batch,
            "hidden": settings.hidden,
            "update, ms": us / 1e3,
            "us per step": us / characters,
            "characters per s": 1e6 * characters * settings.batch / us,
        }


# --------------------------------------------------------------------------------------
# What CUDA asks for
# --------------------------------------------------------------------------------------


def launches(quick: bool) -> Iterator[Row]:
    """A row for every way to launch a kernel of one element."""
    cupy = import_module("cupy")
    x, n = cupy.zeros(1, "float32"), np.int32(1)
    element = cupy.ElementwiseKernel("float32 x", "float32 y", "y = x + 1.0f", "add_one_to_each")
    raw, adding = kernel("nothing"), kernel("add_one")
    ways: dict[str, Run] = {
        "RawKernel, nothing": lambda: raw((1,), (32,), (x,)),
        "RawKernel, x += 1": lambda: adding((1,), (32,), (x, n)),
        "ElementwiseKernel": lambda: element(x, x),
        "ufunc, out": lambda: cupy.add(x, 1.0, out=x),
        "ufunc": lambda: cupy.add(x, 1.0),
        "minigrad": partial(mg.add, mg.tensor(x), 1.0),
    }
    if (torch := torch_on_a_gpu()) is not None:
        y = torch.zeros(1, device="cuda")
        ways |= {"torch, in place": lambda: y.add_(1.0), "torch": lambda: y.add(1.0)}
    rows = microseconds({name: in_a_row(run) for name, run in ways.items()}, IN_A_ROW)
    single = microseconds(ways)
    for name in ways:
        yield {
            "way": name,
            "in a row, us": rows[f"{name}, us"],
            "one, waited for, us": single[f"{name}, us"],
        }


def graphs(quick: bool) -> Iterator[Row]:
    """A row for every number of kernels, per kernel."""
    cupy = import_module("cupy")
    x, n = cupy.zeros(32, "float32"), np.int32(32)
    adding = kernel("add_one")
    adding((1,), (32,), (x, n))  # compiled before the capture
    stream = cupy.cuda.Stream(non_blocking=True)
    for count in (1, 10, 100) if quick else (1, 10, 100, 500):
        one_by_one = in_a_row(lambda: adding((1,), (32,), (x, n)), count)
        with stream:
            stream.begin_capture()
            one_by_one()
            graph = stream.end_capture()
        yield {
            "kernels": count,
            **microseconds(
                {"one by one": one_by_one, "replayed": partial(graph.launch, stream)}, count
            ),
        }


def barriers(quick: bool) -> Iterator[Row]:
    """A row for every shape of the grid, per barrier."""
    cupy = import_module("cupy")
    processors = cupy.cuda.Device().attributes["MultiProcessorCount"]
    counter, count = cupy.zeros(1, "uint32"), 1000
    ways = {
        "own": kernel("own_barriers", cooperative=True),
        "cooperative groups": kernel("grid_syncs", source=GRID_SYNC, cooperative=True),
    }

    def run(kernel: Any, blocks: int, threads: int) -> Callable[[], None]:
        def launched() -> None:
            counter.fill(0)
            kernel((blocks,), (threads,), (counter, np.int32(count)))

        return launched

    # One block for every processor: all of them run at the same time, as a barrier needs.
    grids = (processors,) if quick else (8, 16, 32, 64, processors)
    for blocks, threads in product(grids, (256,) if quick else (128, 256, 512)):
        runs = {name: run(kernel, blocks, threads) for name, kernel in ways.items()}
        yield {"blocks": blocks, "threads": threads, **microseconds(runs, count)}


SECTIONS = {
    "operations": operations,
    "launches": launches,
    "text generation": text_generation,
    "graphs": graphs,
    "barriers": barriers,
}

if __name__ == "__main__":
    sys.exit(main(SECTIONS, __doc__))
