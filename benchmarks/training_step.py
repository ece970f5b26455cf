"""Whole training steps, and the parts of one outside of the recurrent layer, beside PyTorch.

    python benchmarks/training_step.py                    # half a minute; needs torch
    python benchmarks/training_step.py --json step.json

The model is that of ``examples/text_generation.py``: 65 characters, embedded in 64 numbers, an
LSTM of 192, a linear layer; 32 sequences of 64 characters, cross-entropy, the norm of the
gradients clipped, Adam. Both libraries do the same step, take turns in one process, and have one
thread. The parts are tried at the sizes of this model, of a large one, and of many small tensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recurrent import THREADS, Run, medians  # before NumPy, whose number of threads it sets

# isort: split
import machine
import numpy as np

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn

CLASSES, EMBEDDED, HIDDEN, BATCH, TIME = 65, 64, 192, 32, 64

#: Shapes of parameters: of the text model, of an LSTM of 768, and of many small layers.
MODELS: dict[str, list[tuple[int, ...]]] = {
    "text model": [(65, 64), (768, 64), (768, 192), (768,), (768,), (65, 192), (65,)],
    "LSTM of 768": [(3072, 768), (3072, 768), (3072,), (3072,)],
    "40 small": [(32, 32), (32,)] * 20,
}


class TextModel(nn.Module):
    """Characters in, logits of the next ones out."""

    def __init__(self, unrolled: bool | None) -> None:
        self.embedding = nn.Embedding(CLASSES, EMBEDDED, rng=0)
        self.lstm = rnn.LSTM(EMBEDDED, HIDDEN, rng=0, unrolled=unrolled)
        self.decoder = nn.Linear(HIDDEN, CLASSES, rng=0)

    def forward(self, x: Any, state: Any) -> tuple[Tensor, Any]:
        """(time, batch) -> (time, batch, classes)"""
        y, state = self.lstm(self.embedding(x), state)
        return self.decoder(y), state


def batches() -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a number of steps, drawn at random."""
    inputs, targets = np.random.default_rng(0).integers(0, CLASSES, (2, 50, TIME, BATCH))
    return inputs, targets


def our_step(unrolled: bool | None) -> Run:
    """A step of ours; the state goes on from one to the next."""
    model = TextModel(unrolled)
    optimizer = mg.optim.Adam(model.parameters(), lr=1e-3)
    inputs, targets = batches()
    state: Any = None
    steps = 0

    def step() -> None:
        nonlocal state, steps
        with mg.Tape() as tape:
            logits, state = model(inputs[steps % 50], state)
            loss = nn.cross_entropy(logits, targets[steps % 50])
        tape.backward(loss)
        rnn.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        state = rnn.detach_state(state)
        loss.item()
        steps += 1

    return step


def torch_step() -> Run:
    """The same in torch."""
    import torch

    embedding = torch.nn.Embedding(CLASSES, EMBEDDED)
    lstm = torch.nn.LSTM(EMBEDDED, HIDDEN)
    decoder = torch.nn.Linear(HIDDEN, CLASSES)
    parameters = [p for module in (embedding, lstm, decoder) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    inputs, targets = map(torch.tensor, batches())
    state: Any = None
    steps = 0

    def step() -> None:
        nonlocal state, steps
        y, state = lstm(embedding(inputs[steps % 50]), state)
        logits = decoder(y).reshape(-1, CLASSES)
        loss = torch.nn.functional.cross_entropy(logits, targets[steps % 50].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        state = tuple(part.detach() for part in state)
        loss.item()
        steps += 1

    return step


def cross_entropy(rows: int, classes: int) -> tuple[Run, Run]:
    """The loss and its gradient."""
    import torch

    rng = np.random.default_rng(0)
    values, targets = rng.normal(size=(rows, classes)).astype("f4"), rng.integers(0, classes, rows)
    logits, positions = mg.tensor(values, requires_grad=True), mg.tensor(targets)
    their_logits, theirs = torch.tensor(values, requires_grad=True), torch.tensor(targets)

    def ours() -> None:
        with mg.Tape() as tape:
            loss = nn.cross_entropy(logits, positions)
        tape.gradient(loss, logits)

    return ours, lambda: torch.autograd.grad(
        torch.nn.functional.cross_entropy(their_logits, theirs), their_logits
    )


def embedding(count: int, things: int, length: int) -> tuple[Run, Run]:
    """Looking up vectors, and the gradient of the table."""
    import torch

    positions = np.random.default_rng(0).integers(0, things, count)
    seed = np.ones((count, length), "f4")
    table, numbers, g = nn.Embedding(things, length, rng=0), mg.tensor(positions), mg.tensor(seed)
    theirs = torch.nn.Embedding(things, length)
    their_numbers, their_g = torch.tensor(positions), torch.tensor(seed)

    def ours() -> None:
        with mg.Tape() as tape:
            vectors = table(numbers)
        tape.gradient(vectors, table.weight, seed=g)

    return ours, lambda: torch.autograd.grad(theirs(their_numbers), theirs.weight, their_g)


def with_gradients(shapes: list[tuple[int, ...]]) -> tuple[list[Tensor], list[Any]]:
    """Parameters of these shapes that have a gradient, ours and torch's."""
    import torch

    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for shape in shapes:
        values, gradient = rng.normal(size=(2, *shape)).astype("f4")
        ours.append(mg.tensor(values, requires_grad=True))
        ours[-1].grad = mg.tensor(gradient)
        theirs.append(torch.tensor(values, requires_grad=True))
        theirs[-1].grad = torch.tensor(gradient)
    return ours, theirs


def clipping(shapes: list[tuple[int, ...]]) -> tuple[Run, Run]:
    """Clipping the norm of all gradients, which starts from the same gradients every time."""
    import torch

    ours, theirs = with_gradients(shapes)
    gradients, their_gradients = [p.grad for p in ours], [p.grad for p in theirs]

    def clip() -> None:
        for parameter, gradient in zip(ours, gradients, strict=True):
            parameter.grad = gradient
        rnn.clip_grad_norm_(ours, 1.0)

    def their_clip() -> None:
        for parameter, gradient in zip(theirs, their_gradients, strict=True):
            parameter.grad = gradient.clone()  # it is scaled in place
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)

    return clip, their_clip


def optimizer(name: str, shapes: list[tuple[int, ...]], **settings: Any) -> tuple[Run, Run]:
    """One step of an optimizer."""
    import torch

    ours, theirs = with_gradients(shapes)
    return (
        getattr(mg.optim, name)(ours, **settings).step,
        getattr(torch.optim, name)(theirs, **settings).step,
    )


def parts() -> dict[str, tuple[Run, Run]]:
    """Every part, ours and torch's."""
    made = {f"cross-entropy {n} x {c}": cross_entropy(n, c) for n, c in LOSSES}
    made |= {f"embedding {n} of {v} x {e}": embedding(n, v, e) for n, v, e in TABLES}
    for model, shapes in MODELS.items():
        made[f"clip_grad_norm_, {model}"] = clipping(shapes)
        made[f"Adam, {model}"] = optimizer("Adam", shapes, lr=1e-3)
        made[f"SGD with momentum, {model}"] = optimizer("SGD", shapes, lr=0.1, momentum=0.9)
    return made


LOSSES = ((2048, 65), (2048, 2000), (700, 10_000))
TABLES = ((2048, 65, 64), (700, 10_000, 200), (2048, 2000, 256))


def main() -> None:
    """Print the two tables."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="for the whole steps")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    steps = {"played": our_step(None), "unrolled": our_step(True), "torch": torch_step()}
    whole = medians(steps, options.seconds)
    print("| whole step | ms | characters/s | times torch |\n|---|---|---|---|")
    for name, seconds in whole.items():
        rate = TIME * BATCH / seconds
        print(f"| {name} | {1e3 * seconds:.1f} | {rate:,.0f} | {seconds / whole['torch']:.2f} |")
    print("\n| part | ours, ms | torch, ms | times torch |\n|---|---|---|---|")
    found = {}
    for name, (ours, theirs) in parts().items():
        found[name] = medians({"ours": ours, "torch": theirs}, options.seconds / 16)
        a, b = found[name].values()
        print(f"| {name} | {1e3 * a:.3f} | {1e3 * b:.3f} | {a / b:.2f} |", flush=True)
    if options.json:
        machine.write(options.json, {"threads": THREADS, "whole": whole, "parts": found})


if __name__ == "__main__":
    main()
