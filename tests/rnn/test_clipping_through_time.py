"""Clipping through time: against recursions in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor

BATCH, INPUTS, HIDDEN, STEPS = 3, 2, 4, 12

Clip = Callable[[np.ndarray], np.ndarray]


def by_value(limit: float) -> Clip:
    return lambda g: np.clip(g, -limit, limit)


def by_norm(limit: float) -> Clip:
    def clip(g: np.ndarray) -> np.ndarray:
        norm = np.linalg.norm(g)
        return g * (limit / norm) if norm > limit else g

    return clip


def by_norm_of_rows(limit: float) -> Clip:
    return lambda g: np.array([by_norm(limit)(row) for row in g])


#: Settings of clip_gradient, and what they do to a gradient; limits that bind at some steps only.
WAYS: list[tuple[dict[str, Any], Clip]] = [
    ({"clip_value": 0.8}, by_value(0.8)),
    ({"max_norm": 2.0}, by_norm(2.0)),
    ({"max_norm": 1.5, "per_row": True}, by_norm_of_rows(1.5)),
]
every_way = pytest.mark.parametrize(("settings", "clip"), WAYS)


class Problem:
    """Random inputs, and weights of the outputs in the loss; weights that make gradients grow."""

    def __init__(self, rng: np.random.Generator, gates: int) -> None:
        self.xs = rng.normal(size=(STEPS, BATCH, INPUTS))
        self.loss_weights = rng.normal(size=(STEPS, BATCH, HIDDEN))
        self.w = 0.3 * rng.normal(size=(gates * HIDDEN, INPUTS))
        self.u = 1.2 * rng.normal(size=(gates * HIDDEN, HIDDEN))
        self.h = 0.1 * rng.normal(size=(BATCH, HIDDEN))
        self.c = 0.1 * rng.normal(size=(BATCH, HIDDEN))

    def cell(self, kind: type[rnn.Cell]) -> rnn.Cell:
        made = kind(INPUTS, HIDDEN, bias=False, dtype="float64", rng=0)
        made.weight_ih.rebind(mg.tensor(self.w))
        made.weight_hh.rebind(mg.tensor(self.u))
        return made

    def loss(self, step: Any, state: Any) -> Tensor:
        ys, _ = rnn.unroll(step, mg.tensor(self.xs), state)
        return mg.sum(ys * mg.tensor(self.loss_weights))


def rnn_by_hand(problem: Problem, clip: Clip) -> tuple[list[np.ndarray], int]:
    """Gradients for w, u and h of a tanh RNN, and how often clipping changed something."""
    hs = [problem.h]
    for x in problem.xs:
        hs.append(np.tanh(x @ problem.w.T + hs[-1] @ problem.u.T))
    gw, gu = np.zeros_like(problem.w), np.zeros_like(problem.u)
    delta, clipped = np.zeros_like(problem.h), 0
    for t in reversed(range(STEPS)):
        da = (problem.loss_weights[t] + delta) * (1.0 - hs[t + 1] ** 2)
        gw += da.T @ problem.xs[t]
        gu += da.T @ hs[t]
        delta = clip(da @ problem.u)
        clipped += not np.array_equal(delta, da @ problem.u)
    return [gw, gu, delta], clipped


def lstm_by_hand(
    problem: Problem, clip_h: Clip, clip_c: Clip
) -> tuple[list[np.ndarray], tuple[int, int]]:
    """Gradients for w, u, h and c of an LSTM, and how often clipping changed h and c."""

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-x))

    h, c, saved = problem.h, problem.c, []
    for x in problem.xs:
        i, f, g, o = np.split(x @ problem.w.T + h @ problem.u.T, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        new = f * c + i * g
        saved.append((x, h, c, i, f, g, o, new))
        h, c = o * np.tanh(new), new
    gw, gu = np.zeros_like(problem.w), np.zeros_like(problem.u)
    dh, dc = np.zeros_like(problem.h), np.zeros_like(problem.c)
    clipped_h = clipped_c = 0
    for t in reversed(range(STEPS)):
        x, h, c, i, f, g, o, new = saved[t]
        dh = problem.loss_weights[t] + dh
        dnew = dc + dh * o * (1.0 - np.tanh(new) ** 2)
        gates = [
            dnew * g * i * (1.0 - i),
            dnew * c * f * (1.0 - f),
            dnew * i * (1.0 - g**2),
            dh * np.tanh(new) * o * (1.0 - o),
        ]
        da = np.concatenate(gates, axis=1)
        gw += da.T @ x
        gu += da.T @ h
        dh, dc = clip_h(da @ problem.u), clip_c(dnew * f)
        clipped_h += not np.array_equal(dh, da @ problem.u)
        clipped_c += not np.array_equal(dc, dnew * f)
    return [gw, gu, dh, dc], (clipped_h, clipped_c)


@every_way
def test_a_clipped_rnn_equals_the_recursion(
    rng: np.random.Generator, settings: dict[str, Any], clip: Clip
) -> None:
    problem = Problem(rng, gates=1)
    cell, h = problem.cell(rnn.RNNCell), mg.tensor(problem.h, requires_grad=True)
    with mg.Tape() as tape:
        loss = problem.loss(lambda x, s: cell(x, rnn.clip_gradient(s, **settings)), h)
    gradients = tape.gradient(loss, [cell.weight_ih, cell.weight_hh, h])
    expected, clipped = rnn_by_hand(problem, clip)
    assert 2 <= clipped <= STEPS
    for own, by_hand in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(own.numpy(), by_hand, rtol=1e-11, atol=1e-12)


@every_way
@pytest.mark.parametrize("edges", ["h", "c", "h and c"])
def test_a_clipped_lstm_equals_the_recursion(
    rng: np.random.Generator, settings: dict[str, Any], clip: Clip, edges: str
) -> None:
    problem = Problem(rng, gates=4)
    cell = problem.cell(rnn.LSTMCell)

    def step(x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        if edges == "h and c":
            return cell(x, rnn.clip_gradient(state, **settings))
        h, c = state
        if edges == "h":
            return cell(x, (rnn.clip_gradient(h, **settings), c))
        return cell(x, (h, rnn.clip_gradient(c, **settings)))

    state = tuple(mg.tensor(part, requires_grad=True) for part in (problem.h, problem.c))
    with mg.Tape() as tape:
        loss = problem.loss(step, state)
    gradients = tape.gradient(loss, [cell.weight_ih, cell.weight_hh, *state])
    expected, (clipped_h, clipped_c) = lstm_by_hand(
        problem,
        clip if "h" in edges else lambda g: g,
        clip if "c" in edges else lambda g: g,
    )
    assert ("h" in edges) == bool(clipped_h)
    assert ("c" in edges) == bool(clipped_c)
    for own, by_hand in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(own.numpy(), by_hand, rtol=1e-11, atol=1e-12)


def test_a_subclass_of_a_cell_clips_in_a_layer(rng: np.random.Generator) -> None:
    class Clipped(rnn.LSTMCell):
        def step(self, projected: Tensor, state: Any) -> Any:
            return super().step(projected, rnn.clip_gradient(state, clip_value=0.8))

    problem = Problem(rng, gates=4)
    cell = problem.cell(Clipped)
    state = tuple(mg.tensor(part) for part in (problem.h, problem.c))
    with mg.Tape() as tape:
        loss = problem.loss(cell, state)
    expected, _ = lstm_by_hand(problem, by_value(0.8), by_value(0.8))
    gradients = tape.gradient(loss, [cell.weight_ih, cell.weight_hh])
    for own, by_hand in zip(gradients, expected[:2], strict=True):
        np.testing.assert_allclose(own.numpy(), by_hand, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [{"max_norm": inf}, {"clip_value": inf}, {"max_norm": inf, "per_row": True}],
)
@pytest.mark.parametrize("nonfinite", ["propagate", "zero", "error"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_infinite_limit_is_the_identity_bit_for_bit(
    rng: np.random.Generator, settings: dict[str, Any], nonfinite: Any, dtype: str
) -> None:
    cell = rnn.LSTMCell(INPUTS, HIDDEN, dtype=dtype, rng=0)
    xs = mg.tensor(rng.normal(size=(STEPS, BATCH, INPUTS)), dtype)

    def run(step: Any) -> tuple[Tensor, list[Tensor]]:
        with mg.Tape() as tape:
            loss = mg.sum(rnn.unroll(step, xs)[0] ** 2)
        return loss, list(tape.gradient(loss, list(cell.parameters())))

    def clipped(x: Tensor, state: Any) -> Any:
        return cell(x, rnn.clip_gradient(state, nonfinite=nonfinite, **settings))

    (loss, gradients), (expected_loss, expected) = run(clipped), run(lambda x, s: cell(x, s))
    assert loss.item() == expected_loss.item()
    for own, other in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(own.numpy(), other.numpy())


@every_way
def test_a_second_order_is_refused(
    rng: np.random.Generator, settings: dict[str, Any], clip: Clip
) -> None:
    """It would be wrong: to read the unrolled loop again is to clip what is no delta."""
    problem = Problem(rng, gates=1)
    cell, h = problem.cell(rnn.RNNCell), mg.tensor(problem.h)

    def loss(u: Tensor) -> Tensor:
        with cell.using(weight_hh=u):
            return problem.loss(lambda x, s: cell(x, rnn.clip_gradient(s, **settings)), h)

    with mg.Tape() as tape:
        value = loss(cell.weight_hh)
        with pytest.raises(mg.TapeError, match="that of no function, and cannot be diff"):
            tape.gradient(value, cell.weight_hh, create_graph=True)
    with pytest.raises(mg.TapeError, match="leave out create_graph=True, or clip_gradient"):
        mg.hvp(loss, mg.tensor(problem.u), mg.tensor(problem.u))


def test_the_tape_tells_what_is_clipped_and_how() -> None:
    w = mg.tensor([2.0], requires_grad=True)
    with mg.Tape() as tape:
        rnn.clip_gradient(w, max_norm=1.0)
    assert "clip_gradient(leaf a" in str(tape)
    assert len(tape) == 1


def test_a_checkpointed_loop_is_clipped_all_the_same(rng: np.random.Generator) -> None:
    problem = Problem(rng, gates=1)
    cell, h = problem.cell(rnn.RNNCell), mg.tensor(problem.h, requires_grad=True)

    def loss_from(state: Tensor) -> Tensor:
        return problem.loss(lambda x, s: cell(x, rnn.clip_gradient(s, clip_value=0.8)), state)

    with mg.Tape() as tape:
        loss = mg.checkpoint(loss_from)(h)
    gradients = tape.gradient(loss, [cell.weight_ih, cell.weight_hh, h])
    for own, by_hand in zip(gradients, rnn_by_hand(problem, by_value(0.8))[0], strict=True):
        np.testing.assert_allclose(own.numpy(), by_hand, rtol=1e-11, atol=1e-12)


# --------------------------------------------------------------------------------------
# One gradient
# --------------------------------------------------------------------------------------


def through(gradient: Any, dtype: str = "float64", **settings: Any) -> np.ndarray:
    """This gradient after it has flowed back through clip_gradient."""
    g = np.asarray(gradient, dtype)
    x = mg.tensor(np.zeros_like(g), requires_grad=True)
    with mg.Tape() as tape:
        y = rnn.clip_gradient(x, **settings)
    passed = tape.gradient(y, x, seed=mg.tensor(g)) if y is not x else mg.tensor(g)
    assert passed.dtype == dtype
    return passed.numpy()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("settings", [{"max_norm": 10.0}, {"clip_value": 10.0}])
def test_a_gradient_below_the_limit_passes_bit_for_bit(
    rng: np.random.Generator, dtype: str, settings: dict[str, Any]
) -> None:
    gradient = rng.normal(size=(3, 4)).astype(dtype)
    np.testing.assert_array_equal(through(gradient, dtype, **settings), gradient)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float16", 6e4), ("float32", 3e38), ("float64", 1.7e308), ("float64", 1e-300)],
)
@pytest.mark.parametrize("per_row", [False, True])
def test_squares_do_not_leave_the_range(dtype: str, value: float, per_row: bool) -> None:
    clipped = through([[value, value, value, -value]], dtype, max_norm=1.0, per_row=per_row)
    expected = min(0.5, value)
    rounding = 2e-6 if dtype == "float32" else 2 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(clipped, [[expected] * 3 + [-expected]], rtol=rounding)


def test_rows_are_clipped_by_themselves() -> None:
    gradient = [[300.0, 400.0], [0.3, 0.4]]
    np.testing.assert_allclose(
        through(gradient, max_norm=1.0, per_row=True), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-15
    )
    assert through(gradient, max_norm=1.0)[1].max() < 1e-3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_norm": 1.0}, [[nan, nan], [nan, nan]]),
        ({"max_norm": 1.0, "per_row": True}, [[nan, nan], [0.6, 0.8]]),
        ({"clip_value": 1.0}, [[nan, 1.0], [1.0, 1.0]]),
    ],
)
def test_nan_propagates_by_the_formula(settings: dict[str, Any], expected: Any) -> None:
    np.testing.assert_allclose(through([[nan, inf], [3.0, 4.0]], **settings), expected, rtol=1e-15)


@pytest.mark.parametrize("settings", [{"max_norm": 5.0}, {"clip_value": 2.0}, {"max_norm": inf}])
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_zero_counts_what_is_not_finite_as_zero(settings: dict[str, Any], value: float) -> None:
    np.testing.assert_array_equal(
        through([value, 6.0, 8.0], nonfinite="zero", **settings),
        through([0.0, 6.0, 8.0], **settings),
    )


@pytest.mark.parametrize("settings", [{"max_norm": 5.0}, {"clip_value": 2.0}, {"max_norm": inf}])
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_error_stops_the_backward_pass(settings: dict[str, Any], value: float) -> None:
    with pytest.raises(FloatingPointError, match=r"the gradient \(2,\) that flows back"):
        through([value, 1.0], nonfinite="error", **settings)


def test_empty_gradients_and_numbers() -> None:
    assert through(np.zeros((0, 2)), max_norm=1.0).shape == (0, 2)
    assert through(np.zeros((2, 0)), max_norm=1.0, per_row=True).shape == (2, 0)
    assert through(-3.0, max_norm=1.0, per_row=True) == -1.0
    assert through(-3.0, clip_value=1.0) == -1.0


def test_the_value_and_the_nesting_stay() -> None:
    x, y = (mg.tensor([v], requires_grad=True) for v in (1.0, 2.0))
    state = {"h": x, "rest": [(y, None), 3]}
    with mg.Tape():
        clipped = rnn.clip_gradient(state, max_norm=1.0)
    assert clipped["h"].array is x.array
    assert clipped["rest"][0][0].array is y.array
    assert clipped["rest"][0][1] is None
    assert clipped["rest"][1] == 3
    assert rnn.clip_gradient(None, max_norm=1.0) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either max_norm or clip_value"),
        ({"max_norm": 1.0, "clip_value": 1.0}, "give either max_norm or clip_value"),
        ({"clip_value": 1.0, "per_row": True}, "it goes with max_norm"),
        ({"max_norm": 0.0}, "max_norm is more than 0, not 0.0"),
        ({"clip_value": nan}, "clip_value is more than 0, not nan"),
        (
            {"max_norm": 1.0, "nonfinite": "skip"},
            "nonfinite is 'propagate', 'zero' or 'error', not 'skip'",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rnn.clip_gradient(mg.tensor([1.0]), **settings)
