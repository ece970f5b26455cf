"""A training step does not wait for the GPU: nothing in it looks at a value of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
import standin
from cell_table import HIDDEN, INPUTS, KINDS, Kind

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn, optim

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("cuda")]

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
    decoder = rnn.AttentionCell(rnn.GRUCell(INPUTS + HIDDEN, HIDDEN, rng=0), attention)
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
    yield "attention, additive", lambda: with_attention(rnn.AdditiveAttention(HIDDEN, HIDDEN, 5))
    yield "ctc", with_ctc


def cell_of(kind: Kind) -> rnn.Cell:
    return kind.cell_type(INPUTS, HIDDEN, rng=0, **kind.settings)


CASES = dict(losses())


def waits_of_two_steps(
    module: nn.Module,
    loss: Loss,
    optimizer: optim.Optimizer,
    clip: Callable[[Iterable[Tensor]], Any],
) -> list[str]:
    """What the host waits for in two steps, after a first one that plans what ``mg.scan`` plays."""

    def step() -> Tensor:
        module.zero_grad()
        with mg.Tape() as tape:
            value = loss()
        tape.backward(value)
        clip(module.parameters())
        optimizer.step(allow_missing=True)
        return value

    step()
    with standin.waits() as waits:
        step()
        value = step()
    assert np.isfinite(value.item())
    return waits


def no_clip(parameters: Iterable[Tensor]) -> None:
    pass


@pytest.mark.parametrize("case", CASES)
def test_no_layer_waits(case: str) -> None:
    module, loss = CASES[case]()
    assert waits_of_two_steps(module, loss, optim.SGD(module.parameters(), 0.1), no_clip) == []


OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, 0.1, momentum=0.9, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, 0.1),
    "adam": lambda p: optim.Adam(p, 0.1, weight_decay=0.1),
    "adamw": lambda p: optim.AdamW(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_optimizer_waits(name: str, dtype: str) -> None:
    layer = nn.Linear(INPUTS, 2, rng=0, dtype=dtype)
    xs = sequence().astype(dtype)
    optimizer = OPTIMIZERS[name](layer.parameters())
    assert waits_of_two_steps(layer, lambda: mg.mean(layer(xs) ** 2), optimizer, no_clip) == []


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


@pytest.mark.parametrize("name", CLIPS)
def test_no_clip_waits(name: str) -> None:
    module, loss = of_outputs(rnn.LSTM(INPUTS, HIDDEN, rng=0))
    optimizer = optim.SGD(module.parameters(), 0.1)
    assert waits_of_two_steps(module, loss, optimizer, CLIPS[name]()) == []


def test_clipping_on_the_way_back_does_not_wait() -> None:
    def loss() -> Tensor:
        h = x
        for _ in range(TIME):
            h = rnn.clip_gradient(mg.tanh(layer(h)), max_norm=0.1)
        return mg.sum(h)

    x = mg.tensor(np.ones((BATCH, INPUTS), "float32"))
    layer = nn.Linear(INPUTS, INPUTS, rng=0)
    optimizer = optim.SGD(layer.parameters(), 0.1)
    assert waits_of_two_steps(layer, loss, optimizer, no_clip) == []


@pytest.mark.parametrize("reported", ["new", "window"])
def test_truncation_does_not_wait(reported: Any) -> None:
    cell = rnn.LSTMCell(INPUTS, HIDDEN, rng=0)
    optimizer = optim.Adam(cell.parameters(), 0.1)
    xs = mg.unstack(sequence())
    with standin.waits() as waits, rnn.TBPTT(k1=2, k2=4, losses=reported) as window:
        state: Any = None
        for x in xs:
            y, state = cell(x, state)
            if window.step(mg.mean(y * y)) is not None:
                rnn.clip_grad_norm_(cell.parameters(), 1.0)
                optimizer.step()
                cell.zero_grad()
    assert waits == []


LOSSES: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "mse": lambda x, y, m: nn.mse_loss(x, y, m),
    "huber": lambda x, y, m: nn.huber_loss(x, y, m),
    "bce": lambda x, y, m: nn.binary_cross_entropy_with_logits(x, y > 0, m, pos_weight=2.0),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("masked", [False, True])
def test_no_loss_waits(name: str, masked: bool) -> None:
    x, y = mg.tensor(np.ones((4, 2), "float32"), requires_grad=True), mg.tensor(np.zeros((4, 2)))
    mask = mg.tensor([[True, False]] * 4) if masked else None
    with standin.waits() as waits, mg.Tape() as tape:
        tape.backward(LOSSES[name](x, y, mask))
    assert waits == []


def test_checkpoints_do_not_wait() -> None:
    drop, layer = nn.Dropout(0.5, rng=0), nn.Linear(INPUTS, INPUTS, rng=0)
    xs = sequence()
    with standin.waits() as waits:
        with mg.Tape() as tape:
            loss = mg.sum(mg.checkpoint(lambda x: drop(layer(x)))(xs))
        tape.backward(loss)
    assert waits == []
