"""Recurrent networks, forward and backward, side by side with PyTorch, JAX, and the products alone.

    python benchmarks/recurrent.py                        # some minutes; needs torch
    python benchmarks/recurrent.py --only C4 --threads 2
    python benchmarks/recurrent.py --plot recurrent.png --json recurrent.json

Every configuration is run by the layer as it is (one recorded step is played), by the layer with
every operation recorded (``unrolled=True``), by ``torch.nn``, by a loop over torch's cell or
operations, by ``jax.lax.scan`` if JAX is installed, and by the matrix products that it cannot do
without. All are in one process and take turns; shown is the median time of forward and backward,
and how many times that of ``torch.nn``, or of the loop where torch.nn has no such layer. The sizes
are those that people train, with shorter sequences where a run would take minutes. The memory is
the peak of forward and backward, over what the tape holds between the two.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

THREADS = int(sys.argv[sys.argv.index("--threads") + 1]) if "--threads" in sys.argv else 1
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(THREADS)
os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={str(THREADS > 1).lower()}"

import machine
import numpy as np

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn

Run = Callable[[], Any]


@dataclass(frozen=True)
class Configuration:
    """A network and the shape of what it reads."""

    cell: str
    layers: int
    time: int
    batch: int
    inputs: int
    hidden: int
    use: str

    def flops(self) -> float:
        """Of the products, forward and backward."""
        gates = {"rnn": 1, "gru": 3}.get(self.cell, 4)
        sizes = [self.inputs, *[self.hidden] * (self.layers - 1)]
        per_step = sum(size * self.hidden + self.hidden**2 for size in sizes)
        return 3 * 2.0 * gates * self.batch * self.time * per_step


CONFIGURATIONS = {
    "tiny": Configuration("lstm", 1, 64, 1, 32, 64, "one sequence"),
    "C1": Configuration("rnn", 1, 25, 1, 64, 100, "characters, Karpathy"),
    "text": Configuration("lstm", 1, 64, 32, 64, 192, "examples/text_generation.py"),
    "C2": Configuration("lstm", 2, 196, 100, 1, 128, "sequential MNIST, a quarter of T"),
    "C3": Configuration("lstm", 2, 35, 20, 650, 650, "Penn Treebank, medium"),
    "C4": Configuration("lstm", 1, 25, 64, 512, 512, "translation, DeepBench"),
    "C5": Configuration("lstm", 4, 25, 64, 512, 512, "Appleyard, a quarter of T"),
    "C6": Configuration("lstm", 3, 10, 80, 400, 1150, "AWD-LSTM, a seventh of T"),
    "C7": Configuration("lstm", 1, 64, 16, 768, 768, "FlashRNN, a sixteenth of T"),
    "C8": Configuration("gru", 1, 8, 32, 2048, 2048, "speech, DeepBench, a 47th of T"),
    "GRU": Configuration("gru", 1, 64, 32, 128, 256, "the same cell as C8"),
    "RNN": Configuration("rnn", 1, 64, 32, 128, 256, "the same cell as C1"),
    "projected": Configuration("projected", 1, 64, 32, 128, 256, "LSTM with proj_size 128"),
    "normalised": Configuration("normalised", 1, 64, 32, 128, 256, "layer-normalised LSTM"),
    "own": Configuration("own", 1, 64, 32, 128, 256, "a cell of the user's"),
}

# --------------------------------------------------------------------------------------
# Ours
# --------------------------------------------------------------------------------------


class OwnCell(nn.Module):
    """A cell that no library has: two candidates, between which the state chooses."""

    def __init__(self, inputs: int, hidden: int) -> None:
        rng = np.random.default_rng(0)
        self.read = nn.Linear(inputs, 3 * hidden, rng=rng)
        self.weight = nn.Parameter(
            (rng.normal(size=(hidden, 3 * hidden)) / hidden**0.5).astype("f4")
        )

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """h' = c a + (1 - c) b"""
        a, b, c = mg.split(self.read(x) + h @ self.weight, 3, axis=-1)
        c = mg.sigmoid(c)
        h = c * mg.tanh(a) + (1.0 - c) * mg.relu(b)
        return h, h


def ours(c: Configuration, unrolled: bool | None) -> tuple[Run, Run]:
    """Forward alone, and forward and backward."""
    layer: Any
    options: Any = {"num_layers": c.layers, "rng": 0, "unrolled": unrolled}
    if c.cell == "own":
        cell = OwnCell(c.inputs, c.hidden)
        layer = rnn.Recurrent([cell], unrolled=bool(unrolled))
    elif c.cell in ("rnn", "gru"):
        layer = {"rnn": rnn.RNN, "gru": rnn.GRU}[c.cell](c.inputs, c.hidden, **options)
    else:
        more: Any = {"projected": {"proj_size": 128}, "normalised": {"layer_norm": True}}
        layer = rnn.LSTM(c.inputs, c.hidden, **options, **more.get(c.cell, {}))
    xs = mg.tensor(numbers(c), requires_grad=True)
    state = None
    if c.cell == "own":
        state = (mg.tensor(np.zeros((c.batch, c.hidden), "f4")),)

    def backward() -> int:
        with mg.Tape() as tape:
            ys, _ = layer(xs, state)
        held = tape.nbytes
        tape.backward(ys, mg.tensor(np.ones(ys.shape, "f4")))
        for parameter in (xs, *layer.parameters()):
            parameter.grad = None
        return held

    return lambda: layer(xs, state), backward


def numbers(c: Configuration) -> np.ndarray:
    """What is read."""
    return np.random.default_rng(0).normal(size=(c.time, c.batch, c.inputs)).astype("f4")


def products(c: Configuration) -> tuple[Run, Run]:
    """The products alone, in the shapes in which they must be done."""
    gates = {"rnn": 1, "gru": 3, "own": 3}.get(c.cell, 4)
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype("f4")

    sizes = [c.inputs, *[c.hidden] * (c.layers - 1)]
    rows = c.time * c.batch
    h, d, z = random(c.batch, c.hidden), random(c.batch, gates * c.hidden), random(rows, c.hidden)
    dh = np.empty_like(h)
    w, wt = random(c.hidden, gates * c.hidden), random(gates * c.hidden, c.hidden)
    ds = random(rows, gates * c.hidden)
    xs = [random(rows, size) for size in sizes]
    inner = [random(size, gates * c.hidden) for size in sizes]

    def forward() -> None:
        for x, weight in zip(xs, inner, strict=True):
            np.matmul(x, weight, out=ds)
            for _ in range(c.time):
                np.matmul(h, w, out=d)

    def backward() -> None:
        forward()
        for x, weight in zip(xs, inner, strict=True):
            for _ in range(c.time):
                np.matmul(d, wt, out=dh)
            _ = ds.T @ z, ds.T @ x, ds @ weight.T

    return forward, backward


# --------------------------------------------------------------------------------------
# Theirs
# --------------------------------------------------------------------------------------


def torch_layer(c: Configuration) -> tuple[Run, Run] | None:
    """``torch.nn``'s layer, where there is one."""
    import torch

    kinds = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
    if c.cell == "projected":
        layer = torch.nn.LSTM(c.inputs, c.hidden, proj_size=128)
    elif c.cell in kinds:
        layer = kinds[c.cell](c.inputs, c.hidden, num_layers=c.layers)
    else:
        return None
    return _torch_runs(lambda xs: layer(xs)[0], list(layer.parameters()), c)


def torch_loop(c: Configuration) -> tuple[Run, Run] | None:
    """A loop over torch's cells, or over its operations."""
    import torch

    zeros = torch.zeros(c.batch, c.hidden)
    if c.cell in ("lstm", "gru", "rnn"):
        kinds = {"rnn": torch.nn.RNNCell, "gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell}
        sizes = [c.inputs, *[c.hidden] * (c.layers - 1)]
        cells = [kinds[c.cell](size, c.hidden) for size in sizes]

        def layers(xs: Any) -> Any:
            for cell in cells:
                state: Any = (zeros, zeros) if c.cell == "lstm" else zeros
                ys = []
                for x in xs.unbind(0):
                    state = cell(x, state)
                    ys.append(state[0] if c.cell == "lstm" else state)
                xs = torch.stack(ys)
            return xs

        return _torch_runs(layers, [p for cell in cells for p in cell.parameters()], c)
    if c.cell == "normalised":
        read = torch.nn.Linear(c.inputs, 4 * c.hidden)
        weight = torch.nn.Parameter(torch.randn(c.hidden, 4 * c.hidden) / c.hidden**0.5)
        norms = [torch.nn.LayerNorm(size) for size in (4 * c.hidden, 4 * c.hidden, c.hidden)]

        def normalised(xs: Any) -> Any:
            h = m = zeros
            ys = []
            for z in norms[0](read(xs)).unbind(0):
                i, f, g, o = (z + norms[1](h @ weight)).chunk(4, dim=-1)
                m = f.sigmoid() * m + i.sigmoid() * g.tanh()
                h = o.sigmoid() * norms[2](m).tanh()
                ys.append(h)
            return torch.stack(ys)

        more = [p for module in (read, *norms) for p in module.parameters()]
        return _torch_runs(normalised, [weight, *more], c)
    if c.cell == "own":
        read = torch.nn.Linear(c.inputs, 3 * c.hidden)
        weight = torch.nn.Parameter(torch.randn(c.hidden, 3 * c.hidden) / c.hidden**0.5)

        def own(xs: Any) -> Any:
            h, ys = zeros, []
            for z in read(xs).unbind(0):
                a, b, g = (z + h @ weight).chunk(3, dim=-1)
                g = g.sigmoid()
                h = g * a.tanh() + (1.0 - g) * b.relu()
                ys.append(h)
            return torch.stack(ys)

        return _torch_runs(own, [weight, *read.parameters()], c)
    return None


def _torch_runs(
    f: Callable[[Any], Any], parameters: list[Any], c: Configuration
) -> tuple[Run, Run]:
    import torch

    torch.set_num_threads(THREADS)
    xs = torch.tensor(numbers(c), requires_grad=True)

    def forward() -> None:
        with torch.no_grad():
            f(xs)

    def backward() -> None:
        ys = f(xs)
        ys.backward(torch.ones_like(ys))
        for parameter in (xs, *parameters):
            parameter.grad = None

    return forward, backward


def jax_scan(c: Configuration) -> tuple[Run, Run] | None:
    """``jax.lax.scan`` over the same step, compiled; ``None`` without JAX."""
    try:
        import jax
    except ImportError:
        return None
    jnp, rng = jax.numpy, np.random.default_rng(0)
    gates = {"rnn": 1, "gru": 3, "own": 3}.get(c.cell, 4)
    if c.cell == "projected":
        return None

    def norm(z: Any) -> Any:
        centred = z - z.mean(-1, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)

    def step(weight: Any, state: Any, z: Any) -> Any:
        h, m = state
        r = h @ weight
        if c.cell == "normalised":
            r = norm(r)
        if c.cell == "rnn":
            h = jnp.tanh(z + r)
        elif c.cell == "gru":
            (a, b, n), (d, e, k) = jnp.split(z, 3, -1), jnp.split(r, 3, -1)
            u = jax.nn.sigmoid(b + e)
            h = (1.0 - u) * jnp.tanh(n + jax.nn.sigmoid(a + d) * k) + u * h
        elif c.cell == "own":
            a, b, g = jnp.split(z + r, 3, -1)
            g = jax.nn.sigmoid(g)
            h = g * jnp.tanh(a) + (1.0 - g) * jax.nn.relu(b)
        else:
            i, f, g, o = jnp.split(z + r, 4, -1)
            m = jax.nn.sigmoid(f) * m + jax.nn.sigmoid(i) * jnp.tanh(g)
            seen = norm(m) if c.cell == "normalised" else m
            h = jax.nn.sigmoid(o) * jnp.tanh(seen)
        return (h, m), h

    def run(parameters: Any, xs: Any) -> Any:
        zeros = jnp.zeros((c.batch, c.hidden), "float32")
        for read, bias, weight in parameters:
            z = xs @ read + bias
            z = norm(z) if c.cell == "normalised" else z
            _, xs = jax.lax.scan(lambda s, z, w=weight: step(w, s, z), (zeros, zeros), z)
        return xs

    parameters = [
        (
            rng.normal(size=(size, gates * c.hidden)).astype("f4") / size**0.5,
            np.zeros(gates * c.hidden, "f4"),
            rng.normal(size=(c.hidden, gates * c.hidden)).astype("f4") / c.hidden**0.5,
        )
        for size in [c.inputs, *[c.hidden] * (c.layers - 1)]
    ]
    xs = jnp.asarray(numbers(c))
    forward = jax.jit(run)
    backward = jax.jit(jax.grad(lambda p, x: run(p, x).sum(), argnums=(0, 1)))
    return (
        lambda: jax.block_until_ready(forward(parameters, xs)),
        lambda: jax.block_until_ready(backward(parameters, xs)),
    )


# --------------------------------------------------------------------------------------
# Measuring
# --------------------------------------------------------------------------------------


def medians(runs: dict[str, Run], seconds: float) -> dict[str, float]:
    """The median time of each in seconds, of runs that take turns."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(next(iter(times.values()))) < 5:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(each)) for name, each in times.items()}


def peak_memory(name: str, who: str) -> float | None:
    """The bytes that forward and backward need at most, by a process of its own; on Linux alone."""
    command = [sys.executable, __file__, "--peak", name, who]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout) if done.stdout else None


def print_peak(name: str, who: str) -> None:
    """What such a process does: print by how much its memory grows."""
    if not Path("/proc/self/clear_refs").exists():
        return
    c = CONFIGURATIONS[name]
    small = replace(c, layers=1, time=2, batch=2, inputs=16, hidden=144)
    peers = {"torch.nn": torch_layer, "torch loop": torch_loop}
    make: Any = peers.get(who, lambda c: ours(c, None))
    _, warm_up = make(small)
    warm_up()  # what libraries need once is not counted
    _, run = make(c)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    run()
    print(_memory("VmHWM") - before)


def _memory(which: str) -> int:
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[which].split()[0])


def measured(names: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """What was measured of every configuration, one after the other."""
    for name in names:
        c = CONFIGURATIONS[name]
        made = {
            "played": ours(c, None),
            "unrolled": ours(c, True),
            "torch.nn": torch_layer(c),
            "torch loop": torch_loop(c),
            "jax": jax_scan(c),
            "products": products(c),
        }
        found: dict[str, Any] = {"name": name, **vars(c)}
        for i, direction in enumerate(("forward", "both")):
            runs = {who: pair[i] for who, pair in made.items() if pair is not None}
            found[direction] = medians(runs, seconds)
        found["held"] = int(made["played"][1]())  # type: ignore[index]
        found["peak"] = {who: peak_memory(name, who) for who in ("played", peer_of(found))}
        found["gflops"] = c.flops() / found["both"]["played"] / 1e9
        yield found


def row(found: dict[str, Any]) -> str:
    """A row of the table."""
    both, forward = found["both"], found["forward"]
    peer = peer_of(found)
    ours, theirs = (found["peak"][who] for who in ("played", peer))
    peaks = f"{ours / 2**20:.0f} | {ours / theirs:.2f}" if ours and theirs else "- | -"
    ratios = [
        f"{both[who] / both[peer]:.2f}" if who in both else "-"
        for who in ("played", "unrolled", "torch loop", "jax", "products")
    ]
    shape = f"{found['layers']} x {found['time']}, {found['batch']}, {found['inputs']}"
    return (
        f"| {found['name']} | {found['cell']} | {shape}, {found['hidden']} "
        f"| {1e3 * both[peer]:.1f} ({peer}) | {' | '.join(ratios)} "
        f"| {forward['played'] / forward[peer]:.2f} | {found['gflops']:.0f} | {peaks} |"
    )


def peer_of(found: dict[str, Any]) -> str:
    """What a configuration is compared with."""
    return "torch.nn" if "torch.nn" in found["both"] else "torch loop"


HEADER = """\
| | cell | layers x T, B, I, H | torch, ms | played | unrolled | torch loop | JAX | products \
| forward | GFLOP/s | peak, MiB | times torch |
|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Bars: how many times the time of torch."""
    from matplotlib.figure import Figure

    names = ("played", "unrolled", "torch loop", "jax", "products")
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, who in enumerate(names):
        ratios = []
        for found in results:
            both = found["both"]
            ratios.append(both.get(who, np.nan) / both[peer_of(found)])
        axes.bar(np.arange(len(results)) + 0.16 * (i - 2), ratios, 0.15, label=who)
    axes.axhline(1.0, color="0.4", linewidth=0.8)
    axes.set_xticks(range(len(results)), [found["name"] for found in results], fontsize=9)
    axes.set_yscale("log")
    axes.set_yticks([0.125, 0.25, 0.5, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.minorticks_off()
    axes.set_ylabel("times torch")
    axes.set_title(f"Forward and backward, {THREADS} thread{'s' * (THREADS > 1)}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(-0.6, len(results) - 0.4)
    axes.legend(frameon=False, ncols=len(names))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--seconds", type=float, default=4.0, help="for each direction of each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(*options.peak)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Run what was asked for, side by side."""
    print(HEADER)
    results = []
    for found in measured(options.only, options.seconds):
        results.append(found)
        print(row(found), flush=True)
    lstms = [r["both"]["played"] / r["both"]["torch.nn"] for r in results if r["name"] in MEAN]
    if lstms:
        mean = float(np.exp(np.mean(np.log(lstms))))
        print(f"\nLSTM, C2 to C7, played: {mean:.2f} times torch.nn, geometric mean")
    if options.plot:
        draw(results, options.plot)
    if options.json:
        machine.write(options.json, {"threads": THREADS, "results": results})


MEAN = ("C2", "C3", "C4", "C5", "C6", "C7")

if __name__ == "__main__":
    main()
