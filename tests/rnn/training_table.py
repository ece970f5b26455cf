"""Modules with a loss, optimizers and ways to clip: what a step of training can be made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from cell_table import HIDDEN, INPUTS, KINDS, Kind

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn, optim

TIME, BATCH, CLASSES = 6, 3, 5
#: A loss of a module, from a generator of its data.
Loss = Callable[[], Tensor]

LENGTHS = np.array([6, 2, 4])
MASK = np.arange(TIME)[:, None] < LENGTHS


def sequence(features: int = INPUTS, seed: int = 0) -> Tensor:
    return mg.tensor(np.random.default_rng(seed).normal(size=(TIME, BATCH, features)), "float32")


def of_outputs(layer: Any, **settings: Any) -> tuple[nn.Module, Loss]:
    """A layer, and the loss of its outputs on one sequence."""
    xs = sequence()

    def loss() -> Tensor:
        ys, _ = layer(xs, **settings)
        return mg.mean(ys * ys)

    return layer, loss


def classified(module: nn.Module, **settings: Any) -> tuple[nn.Module, Loss]:
    """Classes of a sequence of numbers, from an embedding."""
    tokens = mg.tensor(np.random.default_rng(0).integers(0, 9, (TIME, BATCH)))
    targets = mg.tensor(np.random.default_rng(1).integers(0, CLASSES, (TIME, BATCH)))
    return module, lambda: nn.cross_entropy(module(tokens), targets, **settings)


def feed_forward() -> nn.Module:
    return nn.Sequential(
        nn.Embedding(9, INPUTS, rng=0),
        nn.Linear(INPUTS, 8, rng=0),
        nn.LayerNorm(8),
        mg.relu,
        nn.Dropout(0.5, rng=0),
        nn.Linear(8, CLASSES, rng=0),
    )


def with_attention(attention: Any) -> tuple[nn.Module, Loss]:
    keys = sequence(HIDDEN)
    decoder = rnn.AttentionCell(rnn.GRUCell(INPUTS + HIDDEN, HIDDEN, rng=0), attention, rng=0)
    xs = sequence()

    def loss() -> Tensor:
        memory = attention.prepare(keys, lengths=LENGTHS)
        state: Any = None
        total = mg.tensor(0.0)
        for x in mg.unstack(xs):
            (y, _), state = decoder(x, state, memory)
            total = total + mg.mean(y * y)
        return total

    return decoder, loss


def with_ctc() -> tuple[nn.Module, Loss]:
    layer = rnn.GRU(INPUTS, CLASSES, rng=0)
    xs = sequence()

    def loss() -> Tensor:
        ys, _ = layer(xs)
        return rnn.ctc_loss(mg.log_softmax(ys), [[1, 2], [3, 3], [1, 0]], LENGTHS, [2, 1, 1])

    return layer, loss


def stacked(**options: Any) -> list[Any]:
    kinds: list[Any] = [rnn.RNN, rnn.LSTM, rnn.GRU]
    return [kind(INPUTS, HIDDEN, 2, rng=0, **options) for kind in kinds]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bidirectional": {"bidirectional": True},
    "dropout": {"dropout": 0.5},
    "variational": {"dropout": 0.5, "variational": True, "input_dropout": 0.2},
    "recurrent dropout": {"recurrent_dropout": 0.3},
    "weight dropout": {"weight_dropout": 0.3},
    "learned state": {"learn_initial_state": True},
    "residual": {"residual": True, "dropout": 0.1},
    "last": {"outputs": "last"},
    "batch first": {"batch_first": True},
}

MARKS: dict[str, dict[str, Any]] = {
    "lengths": {"lengths": LENGTHS},
    "a mask": {"mask": MASK},
    "resets": {"reset": ~MASK},
}


def losses() -> Iterable[tuple[str, Callable[[], tuple[nn.Module, Loss]]]]:
    for name, kind in KINDS.items():
        yield name, lambda kind=kind: of_outputs(rnn.Recurrent([cell_of(kind)]))  # type: ignore[misc]
    for name, options in OPTIONS.items():
        for i, layer in enumerate(("RNN", "LSTM", "GRU")):
            yield (
                f"{layer} {name}",
                lambda options=options, i=i: of_outputs(stacked(**options)[i]),  # type: ignore[misc]
            )
    for name, marks in MARKS.items():
        yield name, lambda marks=marks: of_outputs(stacked()[1], **marks)  # type: ignore[misc]
        yield (
            f"{name} on the device",
            lambda marks=marks: of_outputs(  # type: ignore[misc]
                stacked()[1], **{n: mg.tensor(m) for n, m in marks.items() if n != "lengths"}
            ),
        )
    yield "feed-forward", lambda: classified(feed_forward())
    yield "a loss with a mask", lambda: classified(feed_forward(), mask=MASK)
    yield "attention, dot", lambda: with_attention(rnn.DotAttention(HIDDEN, general=True, rng=0))
    yield (
        "attention, additive",
        lambda: with_attention(rnn.AdditiveAttention(HIDDEN, HIDDEN, 5, rng=0)),
    )
    yield "ctc", with_ctc


def cell_of(kind: Kind) -> rnn.Cell:
    return kind.cell_type(INPUTS, HIDDEN, rng=0, **kind.settings)


CASES = dict(losses())


OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, 0.1, momentum=0.9, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, 0.1),
    "adam": lambda p: optim.Adam(p, 0.1, weight_decay=0.1),
    "adamw": lambda p: optim.AdamW(p, 0.1),
}


CLIPS: dict[str, Callable[[], Callable[[Any], Any]]] = {
    **{
        f"norm {p}": lambda p=p: partial(rnn.clip_grad_norm_, max_norm=0.01, norm_type=p)  # type: ignore[misc]
        for p in (1.0, 2.0, 3.0, float("inf"))
    },
    "norm, zero": lambda: lambda ps: rnn.clip_grad_norm_(ps, 0.01, nonfinite="zero"),
    "norm of each": lambda: lambda ps: rnn.clip_grad_norm_per_tensor_(ps, 0.01),
    "value": lambda: lambda ps: rnn.clip_grad_value_(ps, 0.01),
    "agc": lambda: lambda ps: rnn.clip_grad_agc_(ps, 0.01),
    "autoclip": lambda: rnn.AutoClip(50.0),
    "zclip": lambda: rnn.ZClip(warmup=2),
    "logged": lambda: partial(rnn.clip_grad_norm_, max_norm=0.01, log=rnn.ClipLog()),
}


def no_clip(parameters: Iterable[Tensor]) -> None:
    pass


def training_step(
    module: nn.Module,
    loss: Loss,
    optimizer: optim.Optimizer,
    clip: Callable[[Iterable[Tensor]], Any] = no_clip,
) -> Tensor:
    """Forward, backward and an update; returns the loss."""
    module.zero_grad()
    with mg.Tape() as tape:
        value = loss()
    tape.backward(value)
    clip(module.parameters())
    optimizer.step(allow_missing=True)
    return value
