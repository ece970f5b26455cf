"""A training step does not wait for the GPU: nothing in it looks at a value of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import standin
from cell_table import HIDDEN, INPUTS
from training_table import (
    BATCH,
    CASES,
    CLIPS,
    OPTIMIZERS,
    TIME,
    Loss,
    no_clip,
    of_outputs,
    sequence,
    training_step,
)

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn, optim

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("cuda")]


def waits_of_two_steps(
    module: nn.Module,
    loss: Loss,
    optimizer: optim.Optimizer,
    clip: Callable[[Iterable[Tensor]], Any] = no_clip,
) -> list[str]:
    """What the host waits for in two steps, after a first one that plans what ``mg.scan`` plays."""
    training_step(module, loss, optimizer, clip)
    with standin.waits() as waits:
        training_step(module, loss, optimizer, clip)
        value = training_step(module, loss, optimizer, clip)
    assert np.isfinite(value.item())
    return waits


@pytest.mark.parametrize("case", CASES)
def test_no_layer_waits(case: str) -> None:
    module, loss = CASES[case]()
    assert waits_of_two_steps(module, loss, optim.SGD(module.parameters(), 0.1)) == []


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_optimizer_waits(name: str, dtype: str) -> None:
    layer = nn.Linear(INPUTS, 2, rng=0, dtype=dtype)
    xs = sequence().astype(dtype)
    optimizer = OPTIMIZERS[name](layer.parameters())
    assert waits_of_two_steps(layer, lambda: mg.mean(layer(xs) ** 2), optimizer) == []


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
    assert waits_of_two_steps(layer, loss, optimizer) == []


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
