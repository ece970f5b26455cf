"""What truncation costs and what clipping saves: small networks side by side, in one figure.

    python examples/text_generation.py --study                 # some minutes
    python examples/text_generation.py --study --seeds 3       # three times as many
    python examples/text_generation.py --study --quick         # only to see that it runs

On the text, networks differ in their cell, and in how far back gradients flow: k2 characters,
every k1 = 4. A small network that has read little learns mostly from the last few letters, and a
long window may cost time and give nothing. What a short one misses is shown by lines such as

    c12345c

whose last letter is the first one. The state is carried on, whatever k2 is, so that a network may
happen to remember the letter; but only a gradient that flows back through the six characters
between the two teaches it to.

Clipping is shown on plain RNNs that are trained by gradient descent at a large step: Adam, which
trains all others, divides gradients by their usual size, and hides much of what a large one does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, log2, nan
from pathlib import Path
from typing import Any

import numpy as np
from settings import given
from text_generation import BITS, Corpus, Learner, Settings, load_corpus
from tqdm import tqdm

import minigrad as mg

BASE = {"hidden": 64, "embedding": 32, "batch": 32, "k1": 4, "k2": 16, "lr": 1e-2}
RECALL = {"text": "recall"}
DESCENT = {"cell": "rnn", "k1": 16, "k2": 64, "lr": 4.0}

#: What is trained: how the settings differ from those above.
RUNS: dict[str, dict[str, Any]] = {
    "RNN, k2 = 16": {"cell": "rnn"},
    "GRU, k2 = 16": {"cell": "gru"},
    "LSTM, k2 = 16": {},
    "LSTM, k2 = 4": {"k2": 4},
    "LSTM, k2 = 64": {"k2": 64},
    "recall, k2 = 4": {**RECALL, "k2": 4},
    "recall, k2 = 16": {**RECALL, "k2": 16},
    "recall, k2 = 64": {**RECALL, "k2": 64},
    "RNN, clipped at 1": {**DESCENT, "clip": 1.0},
    "RNN, not clipped": {**DESCENT, "clip": inf},
}
CELLS = ("RNN, k2 = 16", "GRU, k2 = 16", "LSTM, k2 = 16")
WINDOWS = ("LSTM, k2 = 4", "LSTM, k2 = 16", "LSTM, k2 = 64")
RECALLS = ("recall, k2 = 4", "recall, k2 = 16", "recall, k2 = 64")
CLIPPING = ("RNN, clipped at 1", "RNN, not clipped")
COLORS = dict(zip(CELLS + WINDOWS[::2], ("C2", "C1", "C0", "C9", "C4"), strict=True))
COLORS |= dict(zip(RECALLS, (COLORS[name] for name in WINDOWS), strict=True))
COLORS |= dict(zip(CLIPPING, ("C0", "C3"), strict=True))

#: Settings that the study chooses itself.
CHOSEN = ("cell", "k1", "k2", "lr", "clip", "seed")
#: A study that shows that the program works, and nothing else.
QUICK = {"hidden": 8, "embedding": 8, "updates": 16}
CHARACTERS_READ = {"text": 800_000, "recall": 200_000}
CHARACTERS_HELD_OUT = 65_536
EVALUATIONS = 8

LETTERS = "abcdefgh"
BETWEEN = "12345"


@dataclass
class Curve:
    """What a run has shown, and in which time, evaluation apart."""

    characters: list[int] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: float = 0.0


def recall_corpus() -> Corpus:
    """Lines whose last letter is the first one."""
    letters = np.random.default_rng(0).choice(list(LETTERS), 30_000)
    lines = [f"{letter}{BETWEEN}{letter}\n" for letter in letters]
    return Corpus("".join(lines[3_000:]), "".join(lines[:3_000]), "recall")


def learn(
    settings: Settings, corpus: Corpus, device: str, descent: bool, progress: Callable[[], Any]
) -> Curve:
    """Train one network, and measure it on the held-out text now and then."""
    s, curve = settings, Curve()
    learner = Learner(s, corpus, device, mg.optim.SGD if descent else mg.optim.Adam)

    def update() -> dict[str, float]:
        began = time.monotonic()
        noted = learner.update()
        curve.seconds += time.monotonic() - began
        progress()
        return noted

    training = mg.training.Training(
        update,
        s.updates,
        {"model": learner.model},
        evaluate=learner.evaluate,
        every=-(-s.updates // EVALUATIONS),
        progress=False,
    )
    # A run may be lost; that is a result.
    with learner.truncated, np.errstate(over="ignore", invalid="ignore"):
        try:
            training.run()
            lost = []
        except FloatingPointError:
            lost = [(len(training.history), nan)]
    curve.norms = training.history.updates["norm"]
    for updates, bits in training.history.evaluations.get(BITS, []) + lost:
        curve.characters.append(updates * s.batch * s.k1)
        curve.bits.append(bits)
    return curve


def study(options: argparse.Namespace) -> None:
    """Train all networks, print a table, and draw the figure."""
    stated = given(options, Settings)
    for name in CHOSEN:
        if name in stated:
            raise SystemExit(f"--study compares networks of its own choice: leave out --{name}")
    text = load_corpus(stated.pop("text", Settings.text))
    text.held_out = text.held_out[:CHARACTERS_HELD_OUT]
    if options.quick:
        stated = {**QUICK, **stated}
    corpora = {"text": text, "recall": recall_corpus()}
    runs: dict[str, Settings] = {}
    for name, changes in RUNS.items():
        s = Settings(**{"text": "text", **BASE, **stated, **changes})
        if "updates" not in stated:
            s.updates = max(1, CHARACTERS_READ[s.text] // (s.batch * s.k1))
        runs[name] = s

    hidden = runs[CELLS[0]].hidden
    print(
        f"Networks of {hidden} features on {text.name} (held out: {len(text.held_out):,} "
        f"characters), and on lines like {LETTERS[2]}{BETWEEN}{LETTERS[2]}."
    )
    curves: dict[str, list[Curve]] = {}
    total = options.seeds * sum(s.updates for s in runs.values())
    with tqdm(total=total, unit="update", ncols=100) as bar:
        for name, s in runs.items():
            bar.set_description(name)
            curves[name] = []
            for seed in range(options.seeds):
                s.seed = seed
                corpus = corpora[s.text]
                curves[name].append(learn(s, corpus, options.device, name in CLIPPING, bar.update))
            bar.write(f"{name:17} {summary(curves[name])} bits per character")
    print(f"\n{table(curves)}\n")
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "study.png"
    draw(curves, Path(text.name).name, hidden, path)
    print(f"Picture: {path}")


def summary(curves: list[Curve]) -> str:
    """The bits at the end: their mean over the seeds, and the range if there are several."""
    last = [curve.bits[-1] for curve in curves]
    spread = f" ({min(last):.3f} to {max(last):.3f})" if len(last) > 1 else ""
    return f"{np.mean(last):.3f}{spread}"


def speed(curves: list[Curve]) -> float:
    """Seconds to read a million characters."""
    return 1e6 * sum(c.seconds for c in curves) / sum(c.characters[-1] for c in curves)


def table(curves: dict[str, list[Curve]]) -> str:
    """All runs, in Markdown."""
    rows = [
        "| network | bits per character | gradient norm: median | largest | s per million |",
        "|---|---|---|---|---|",
    ]
    for name, each in curves.items():
        norms = np.concatenate([curve.norms for curve in each])
        rows.append(
            f"| {name} | {summary(each)} | {np.median(norms):.2f} | {norms.max():.3g} "
            f"| {speed(each):.0f} |"
        )
    return "\n".join(rows)


def draw(curves: dict[str, list[Curve]], text: str, hidden: int, path: Path) -> None:
    """Six panels: bits against characters read, gradient norms, and time."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 3, figsize=(14, 8))
    (cells, windows, cost), (recall, clipping, norms) = panels

    def bits(axes: Any, title: str, names: tuple[str, ...]) -> None:
        for rank, name in enumerate(names):
            last = np.mean([curve.bits[-1] for curve in curves[name]])
            for i, curve in enumerate(curves[name]):
                axes.plot(
                    np.array(curve.characters) / 1e6,
                    curve.bits,
                    "o-",
                    color=COLORS[name],
                    markersize=3,
                    linewidth=3 - 0.8 * rank,  # those behind are wider, so that all are seen
                    label=f"{name}:  {last:.3f}" if i == 0 else None,
                )
        axes.set_title(title)
        axes.set_ylabel("held-out bits per character")
        axes.set_xlabel("million characters read")
        axes.locator_params(axis="x", nbins=6)
        axes.legend(frameon=False)

    bits(cells, f"The cell, on {text}", CELLS)
    bits(windows, f"How far back gradients flow, on {text}", WINDOWS)
    windows.set_ylim(cells.get_ylim())
    bits(recall, f"... where a letter returns after {len(BETWEEN) + 1} characters", RECALLS)
    line = len(BETWEEN) + 3
    for letters, known, side in ((2, "nothing", "bottom"), (1, "all", "top")):
        level = letters * log2(len(LETTERS)) / line
        recall.axhline(level, color="0.5", linestyle="--", linewidth=0.8)
        where = recall.get_yaxis_transform()
        recall.text(1, level, f"{known} is remembered", transform=where, ha="right", va=side)
    recall.set_ylim(bottom=0)
    recall.legend(frameon=False, loc="lower left")
    bits(clipping, "Clipping: plain RNN, gradient descent", CLIPPING)

    shown = [*CELLS[:2], *WINDOWS]
    cost.barh(
        shown[::-1],
        [speed(curves[name]) for name in shown[::-1]],
        color=[COLORS[name] for name in shown[::-1]],
    )
    cost.set_title("What a long window costs")
    cost.set_xlabel("seconds to read a million characters")

    for name in CLIPPING[::-1]:
        run = curves[name][0]
        at = np.linspace(0, run.characters[-1] / 1e6, len(run.norms))
        norms.semilogy(at, run.norms, color=COLORS[name], linewidth=0.6, label=name)
    norms.axhline(1.0, color="0.4", linestyle="--", linewidth=0.8)
    norms.set_title("... and their gradients, before clipping")
    norms.set_ylabel("norm")
    norms.set_xlabel("million characters read")
    norms.legend(frameon=False)

    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    figure.suptitle(
        f"What truncation costs, and what clipping saves: networks of {hidden} features"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
