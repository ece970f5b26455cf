"""Checks of backpropagation through time, in full and truncated, of any step function."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad.testing import GradientError, KinkError
from minigrad_rnn.testing import check_bptt, check_truncated_bptt

CELLS = pytest.mark.parametrize("kind", [rnn.RNNCell, rnn.LSTMCell, rnn.GRUCell])


class Leaky(nn.Module):
    """A user's cell, whose state is a dictionary: an average, and the number of steps."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.weight = nn.Parameter(rng.normal(size=(2, 3)))
        self.rate = nn.Parameter(np.array(0.3))

    def forward(self, x: Any, state: dict[str, Any]) -> tuple[Any, Any]:
        rate = mg.sigmoid(self.rate)
        h = rate * state["h"] + (1.0 - rate) * mg.tanh(x @ self.weight)
        return h, {"h": h, "steps": state["steps"] + 1}


@CELLS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cells_pass(kind: Any, dtype: str, rng: np.random.Generator) -> None:
    cell = kind(2, 3, rng=rng, dtype=dtype)
    check_bptt(cell, None, rng.normal(size=(3, 2, 2)))
    check_truncated_bptt(cell, None, rng.normal(size=(6, 2, 2)), k1=2, k2=3)


def test_a_users_cell_passes(rng: np.random.Generator) -> None:
    state = {"h": rng.normal(size=(1, 3)), "steps": 0}
    check_bptt(Leaky(rng), state, rng.normal(size=(4, 1, 2)))
    check_truncated_bptt(Leaky(rng), state, rng.normal(size=(6, 1, 2)), k1=1, k2=4)


def test_a_function_and_its_leaves(rng: np.random.Generator) -> None:
    table = mg.tensor(rng.normal(size=(5, 3)), requires_grad=True)
    before = table.array

    def step(token: Any, h: Any) -> Any:
        h = mg.tanh(h + table[token])
        return h, h

    tokens = rng.integers(5, size=(6, 2))
    state = rng.normal(size=(2, 3))
    for parameters in ({"table": table}, [table]):
        check_bptt(step, state, tokens, parameters=parameters)
        check_truncated_bptt(step, state, tokens, parameters=parameters, k1=3, k2=3)
    assert table.array is before
    assert table.grad is None


@pytest.mark.parametrize("losses", ["new", "last", "window"])
@pytest.mark.parametrize("normalize", ["mean", "sum"])
@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (1, 4), (2, 2), (2, 5), (3, 2)])
def test_all_kinds_of_truncation(
    losses: Any, normalize: Any, k1: int, k2: int, rng: np.random.Generator
) -> None:
    cell = rnn.LSTMCell(2, 2, rng=rng, dtype="float64")
    xs = rng.normal(size=(6, 1, 2))
    check_truncated_bptt(cell, None, xs, k1=k1, k2=k2, losses=losses, normalize=normalize)


def test_a_loss_of_ones_own(rng: np.random.Generator) -> None:
    cell = rnn.GRUCell(2, 3, rng=rng)
    targets = rng.integers(3, size=(4, 2))

    def loss(y: Tensor, t: int) -> Tensor:
        return nn.cross_entropy(y, targets[t])

    check_truncated_bptt(cell, None, rng.normal(size=(4, 2, 2)), k1=2, k2=2, loss=loss)


@pytest.mark.parametrize("part", ["state", "weight", "input"])
def test_a_step_that_cuts_something_off_is_found(part: str, rng: np.random.Generator) -> None:
    weight = mg.tensor(rng.normal(size=(3, 3)), requires_grad=True)

    def step(x: Any, h: Any) -> Any:
        given = {"input": x, "state": h, "weight": weight}
        given[part] = mg.detach(given[part])
        h = mg.tanh(given["input"] + given["state"] @ given["weight"])
        return h, h

    named = {"input": r"inputs\[0\]", "state": r"inputs\[0\]", "weight": r"parameters\['w'\]"}
    with pytest.raises(GradientError, match=f"unrolled step with respect to {named[part]}"):
        check_bptt(
            step, rng.normal(size=(1, 3)), rng.normal(size=(3, 1, 3)), parameters={"w": weight}
        )


def test_a_gradient_that_is_clipped_on_its_way_is_found(rng: np.random.Generator) -> None:
    cell = rnn.RNNCell(2, 3, rng=rng)

    def step(x: Any, h: Any) -> Any:
        return cell(x, mg.map_gradient(h, lambda g: mg.clip(g, -0.1, 0.1)))

    with pytest.raises(GradientError):
        check_bptt(step, rng.normal(size=(2, 3)), rng.normal(size=(3, 2, 2)), parameters=cell)


def test_the_window_of_a_wrong_truncation_is_named(rng: np.random.Generator) -> None:
    cell = rnn.RNNCell(2, 3, rng=rng)

    def longer(k1: int, k2: int, **settings: Any) -> rnn.TBPTT:
        return rnn.TBPTT(k1, k2 + 1, **settings)

    def late(k1: int, k2: int, **settings: Any) -> rnn.TBPTT:
        return rnn.TBPTT(k1 + 1, k2, **settings)

    check = partial(check_truncated_bptt, cell, None, rng.normal(size=(6, 2, 2)), k1=2, k2=2)
    with pytest.raises(GradientError, match="the loss of steps 2 to 3, with the state before"):
        check(truncation=longer)
    with pytest.raises(GradientError, match="after 2 steps there was no gradient, with k1=2"):
        check(truncation=late)


def test_gradients_that_were_there_stay(rng: np.random.Generator) -> None:
    cell = rnn.RNNCell(2, 3, rng=rng)
    cell.weight_ih.grad = mg.asarray(np.ones((3, 2), dtype="float32"))
    before = [parameter.grad for parameter in cell.parameters()]
    check_truncated_bptt(cell, None, rng.normal(size=(4, 1, 2)), k1=1, k2=2)
    for parameter, gradient in zip(cell.parameters(), before, strict=True):
        assert (parameter.grad is None) == (gradient is None)
    assert cell.weight_ih.grad.tolist() == np.ones((3, 2)).tolist()


def test_a_kink_is_no_mistake() -> None:
    cell = rnn.RNNCell(1, 1, nonlinearity="relu", rng=0)
    cell.load_state_dict({name: np.zeros_like(p.numpy()) for name, p in cell.named_parameters()})
    with pytest.raises(KinkError):
        check_bptt(cell, None, np.ones((2, 1, 1)))


@pytest.mark.parametrize(("steps", "k1", "k2"), [(3, 1, 3), (7, 2, 3)])
def test_too_few_steps_check_nothing(steps: int, k1: int, k2: int) -> None:
    with pytest.raises(ValueError, match=f"{steps} steps do not check k1={k1} and k2={k2}"):
        check_truncated_bptt(rnn.RNNCell(1, 1), None, np.ones((steps, 1, 1)), k1=k1, k2=k2)


def test_truncation_needs_parameters() -> None:
    with pytest.raises(ValueError, match="and step has none"):

        def step(x: Any, h: Any) -> Any:
            return x, h

        check_truncated_bptt(step, None, np.ones((3, 1)), k1=1, k2=2)
