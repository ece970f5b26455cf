"""Truncated backpropagation through time: exact gradients in bounded memory."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn

Array = NDArray[np.float64]
Losses = Literal["new", "last", "window"]
Normalize = Literal["mean", "sum"]

INPUTS, HIDDEN, BATCH = 3, 4, 2

#: (k1, k2): equal, overlapping, with gaps, and windows longer than the sequence.
PERIODS = [
    *itertools.product(range(1, 7), range(1, 10)),
    *[(13, 13), (5, 11), (1, 20), (6, 20), (13, 4)],
]
SOME_PERIODS = [(3, 3), (1, 4), (2, 5), (4, 2), (13, 13)]

every_period = pytest.mark.parametrize(("k1", "k2"), PERIODS)
some_periods = pytest.mark.parametrize(("k1", "k2"), SOME_PERIODS)
every_losses = pytest.mark.parametrize("losses", get_args(Losses))
every_normalize = pytest.mark.parametrize("normalize", get_args(Normalize))
updated_or_not = pytest.mark.parametrize("lr", [0.0, 0.3], ids=["no updates", "updates"])


def windows(time: int, k1: int, k2: int, losses: Losses) -> Iterator[tuple[range, list[int]]]:
    """The steps of every window, and which of them have their losses in its gradient."""
    for end in range(k1, time + 1, k1):
        steps = range(max(0, end - k2), end)
        since = {"new": end - k1, "last": end - 1, "window": 0}[losses]
        yield steps, [t for t in steps if t >= since]


# --------------------------------------------------------------------------------------
# Against a reverse recursion by hand, with and without updates between windows
# --------------------------------------------------------------------------------------


class ByHand:
    """h = tanh(U x + W h + b) with the loss mean((V h - target)^2), truncated, in plain NumPy.

    Every step keeps the weights it used, so that the recursion is exact after updates, too.
    """

    def __init__(self, weights: dict[str, Array], xs: Array, targets: Array) -> None:
        self.weights = weights
        self.xs = xs
        self.targets = targets
        self.used: list[dict[str, Array]] = []
        self.states = [np.zeros((xs.shape[1], len(weights["W"])))]

    def advance(self) -> None:
        """One step forward."""
        self.used.append(dict(self.weights))
        t = len(self.used) - 1
        self.states.append(self.next_state(t, self.weights, self.states[-1]))

    def next_state(self, t: int, w: dict[str, Array], state: Array) -> Array:
        return np.tanh(self.xs[t] @ w["U"].T + state @ w["W"].T + w["b"])

    def errors(self, t: int) -> Array:
        return self.states[t + 1] @ self.used[t]["V"].T - self.targets[t]

    def moved(self, steps: range, wanted: list[int], by: dict[str, Array]) -> float:
        """The mean loss of a window if every weight it used, and its first state, were moved."""
        state, losses = self.states[steps.start] + by["state"], []
        for t in steps:
            w = {name: value + by[name] for name, value in self.used[t].items()}
            state = self.next_state(t, w, state)
            if t in wanted:
                losses.append(float(np.mean((state @ w["V"].T - self.targets[t]) ** 2)))
        return sum(losses) / len(losses)

    def gradient(
        self, steps: range, wanted: list[int], normalize: Normalize
    ) -> tuple[float, dict[str, Array]]:
        """The loss of the wanted steps of a window, and its gradient; that of the first state,
        too."""
        share = 1.0 / len(wanted) if normalize == "mean" else 1.0
        loss = share * sum(float(np.mean(self.errors(t) ** 2)) for t in wanted)
        total = {name: np.zeros_like(value) for name, value in self.weights.items()}
        dh = np.zeros_like(self.states[0])
        for t in reversed(steps):
            w = self.used[t]
            if t in wanted:
                de = share * 2.0 * self.errors(t) / self.targets[t].size
                total["V"] += de.T @ self.states[t + 1]
                dh = dh + de @ w["V"]
            da = dh * (1.0 - self.states[t + 1] ** 2)
            total["U"] += da.T @ self.xs[t]
            total["W"] += da.T @ self.states[t]
            total["b"] += da.sum(axis=0)
            dh = da @ w["W"]
        return loss, {**total, "state": dh}

    def update(self, gradient: dict[str, Array], lr: float) -> None:
        self.weights = {name: w - lr * gradient[name] for name, w in self.weights.items()}


def make_problem(rng: np.random.Generator, time: int) -> ByHand:
    """A small network of random sizes."""
    batch, inputs, hidden, outputs = rng.integers(1, 5, 4)
    shapes = {"U": (hidden, inputs), "W": (hidden, hidden), "b": (hidden,), "V": (outputs, hidden)}
    return ByHand(
        {name: rng.normal(size=shape) for name, shape in shapes.items()},
        rng.normal(size=(time, batch, inputs)),
        rng.normal(size=(time, batch, outputs)),
    )


def one_step(w: dict[str, Tensor], x: Any, h: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    """The step of ``ByHand``, on tensors: the loss and the new state."""
    h = mg.tanh(mg.asarray(x) @ w["U"].T + h @ w["W"].T + w["b"])
    return mg.mean((h @ w["V"].T - mg.asarray(target)) ** 2), h


@every_period
@every_losses
@updated_or_not
def test_every_window_equals_the_recursion_by_hand_and_differences(
    k1: int, k2: int, losses: Losses, lr: float
) -> None:
    """With the state before the window frozen, and every step's weights as they were then."""
    rng = np.random.default_rng([k1, k2])
    hand = make_problem(rng, time=13)
    weights = {n: mg.tensor(w, requires_grad=True) for n, w in hand.weights.items()}
    optimizer = mg.optim.SGD(weights.values(), lr=lr)
    h = mg.tensor(hand.states[0])
    expected = windows(13, k1, k2, losses)
    seen = 0
    with rnn.TBPTT(k1, k2, losses=losses) as truncated:
        for x, target in zip(hand.xs, hand.targets, strict=True):
            hand.advance()
            loss, h = one_step(weights, x, h, target)
            window_loss = truncated.step(loss)
            assert (window_loss is None) == (len(hand.used) % k1 > 0)
            if window_loss is None:
                continue
            seen += 1
            steps, wanted = next(expected)
            hand_loss, gradient = hand.gradient(steps, wanted, "mean")
            np.testing.assert_allclose(window_loss.item(), hand_loss, rtol=1e-12)
            assert not window_loss.requires_grad
            for name, weight in weights.items():
                assert weight.grad is not None
                np.testing.assert_allclose(
                    weight.grad.numpy(), gradient[name], rtol=1e-12, atol=1e-12, err_msg=name
                )
            step = {name: 6e-6 * rng.normal(size=part.shape) for name, part in gradient.items()}
            back = {name: -part for name, part in step.items()}
            numeric = hand.moved(steps, wanted, step) - hand.moved(steps, wanted, back)
            slope = 2.0 * sum(np.sum(gradient[name] * step[name]) for name in step)
            np.testing.assert_allclose(slope / 6e-6, numeric / 6e-6, rtol=1e-7, atol=1e-7)
            if lr:
                optimizer.step()
                hand.update(gradient, lr)
            optimizer.zero_grad()
    assert seen == 13 // k1


def test_gradients_of_windows_add_up_unless_forgotten(rng: np.random.Generator) -> None:
    hand = make_problem(rng, time=6)
    weights = {n: mg.tensor(w, requires_grad=True) for n, w in hand.weights.items()}
    h = mg.tensor(hand.states[0])
    with rnn.TBPTT(2, 4) as truncated:
        for x, target in zip(hand.xs, hand.targets, strict=True):
            hand.advance()
            loss, h = one_step(weights, x, h, target)
            truncated.step(loss)
    gradients = [hand.gradient(*window, "mean")[1] for window in windows(6, 2, 4, "new")]
    for name, weight in weights.items():
        assert weight.grad is not None
        expected = sum(gradient[name] for gradient in gradients)
        np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------------------------
# Against a plain rerun of the window from the frozen boundary state, and its differences
# --------------------------------------------------------------------------------------


def parts_of(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def frozen(state: Any) -> Any:
    """The state as constants."""
    parts = tuple(part.detach() for part in parts_of(state))
    return parts if isinstance(state, tuple) else parts[0]


class CellModel:
    """A cell whose output is compared with targets; it knows how to rerun a window."""

    def __init__(self, cell: rnn.Cell, xs: Array, targets: Array) -> None:
        self.cell = cell
        self.parameters = list(cell.parameters())
        self.xs = [mg.tensor(x) for x in xs]
        self.targets = [mg.tensor(target) for target in targets]

    def step(self, t: int, state: Any) -> tuple[Tensor, Any]:
        y, state = self.cell(self.xs[t], state)
        return mg.mean((y - self.targets[t]) ** 2), state

    def rerun(self, steps: range, wanted: list[int], boundary: Any, normalize: str) -> Tensor:
        """The loss of the wanted steps, from the state before the first one of ``steps``."""
        state, losses = boundary, []
        for t in steps:
            loss, state = self.step(t, state)
            if t in wanted:
                losses.append(loss)
        total = mg.stack(losses).sum()
        return total / len(losses) if normalize == "mean" else total

    def slope(self, loss: Callable[[], Tensor], directions: list[Array], h: float = 6e-6) -> float:
        """The central difference of ``loss`` along a direction in the parameters."""
        values = [parameter.detach() for parameter in self.parameters]
        at = []
        for step in (h, -h):
            for parameter, value, direction in zip(
                self.parameters, values, directions, strict=True
            ):
                parameter.rebind(value + step * mg.tensor(direction))
            at.append(loss().item())
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.rebind(value)
        return (at[0] - at[1]) / (2 * h)


@pytest.mark.parametrize("cell_type", [rnn.RNNCell, rnn.GRUCell, rnn.LSTMCell])
@some_periods
@every_losses
@every_normalize
def test_a_window_equals_its_rerun_and_its_central_differences(
    rng: np.random.Generator,
    cell_type: type[rnn.Cell],
    k1: int,
    k2: int,
    losses: Losses,
    normalize: Normalize,
) -> None:
    cell = cell_type(INPUTS, HIDDEN, dtype="float64", rng=rng)
    model = CellModel(
        cell, rng.normal(size=(12, BATCH, INPUTS)), rng.normal(size=(12, BATCH, HIDDEN))
    )
    states = [cell.initial_state(BATCH)]
    found: list[tuple[Tensor, list[Tensor]]] = []
    with rnn.TBPTT(k1, k2, losses=losses, normalize=normalize) as truncated:
        state = states[0]
        for t in range(12):
            loss, state = model.step(t, state)
            states.append(frozen(state))
            window_loss = truncated.step(loss)
            if window_loss is not None:
                gradients = [p.grad for p in model.parameters if p.grad is not None]
                assert len(gradients) == len(model.parameters)
                found.append((window_loss, gradients))
                cell.zero_grad()

    for (window_loss, gradients), (steps, wanted) in zip(
        found, windows(12, k1, k2, losses), strict=True
    ):
        boundary = states[steps.start]
        with mg.Tape() as tape:
            rerun = model.rerun(steps, wanted, boundary, normalize)
        np.testing.assert_allclose(window_loss.item(), rerun.item(), rtol=1e-12)
        for own, expected in zip(gradients, tape.gradient(rerun, model.parameters), strict=True):
            np.testing.assert_allclose(own.numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)

        directions = [rng.normal(size=p.shape) for p in model.parameters]
        analytic = sum(np.sum(g.numpy() * d) for g, d in zip(gradients, directions, strict=True))
        numeric = model.slope(partial(model.rerun, steps, wanted, boundary, normalize), directions)
        np.testing.assert_allclose(analytic, numeric, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("losses", ["new", "last"])
def test_overlapping_windows_do_not_count_twice(losses: Losses) -> None:
    """x' = w x from 0.9, with w = 0.2: the derivatives of w^t x are t w^(t-1) x."""
    w = mg.tensor(0.2, dtype="float64", requires_grad=True)
    x = mg.tensor(0.9, dtype="float64")
    gradients = []
    with rnn.TBPTT(k1=1, k2=3, losses=losses, normalize="sum") as truncated:
        for _ in range(4):
            x = w * x
            truncated.step(x)
            assert w.grad is not None
            gradients.append(w.grad.item())
            w.grad = None
    # The fourth reaches three steps back, to x = 0.18: 3 w^2 0.18.
    np.testing.assert_allclose(gradients, [0.9, 0.36, 0.108, 0.0216], rtol=1e-14)


@pytest.mark.parametrize(("zeroed", "third"), [(False, 0.288), (True, 0.108)])
def test_the_recipe_of_the_forums_counts_twice(zeroed: bool, third: float) -> None:
    """Every state is a leaf, and the gradient is handed from leaf to leaf, as in PyTorch.

    The gradients of the leaves pile up from one time to the next unless they are zeroed.
    """
    w = mg.tensor(0.2, dtype="float64", requires_grad=True)
    states: list[tuple[Tensor | None, Tensor]] = [(None, mg.tensor(0.9, dtype="float64"))]
    gradients = []
    with mg.Tape() as tape:
        for _ in range(3):
            before = mg.asarray(states[-1][1].detach(), requires_grad=True)
            after = w * before
            states.append((before, after))
            for leaf in [w, *(state for state, _ in states)] if zeroed else [w]:
                if leaf is not None:
                    leaf.grad = None
            tape.backward(after, retain=True)
            for (leaf, _), (further, result) in zip(states[:0:-1], states[-2::-1], strict=True):
                if further is None:
                    break
                assert leaf is not None
                tape.backward(result, leaf.grad, retain=True)
            assert w.grad is not None
            gradients.append(w.grad.item())
    np.testing.assert_allclose(gradients, [0.9, 0.36, third], rtol=1e-14)


def test_the_five_readings_of_truncation_differ_and_each_can_be_had() -> None:
    """x' = w x, with the loss x: by its use in step j, the loss of step t has the derivative
    w^(t-b-1) x_b, for every b < j from which on x is not constant."""
    w = mg.tensor(0.9, dtype="float64", requires_grad=True)
    k1, k2 = 2, 4

    def gradient(boundary: int, losses: range, uses: range) -> float:
        slopes = {t: 0.9 ** (t - boundary - 1) * 0.9**boundary for t in losses}
        return sum(slopes[t] for t in losses for j in uses if boundary < j <= t)

    def train(truncated: rnn.TBPTT) -> list[float]:
        x, found = mg.tensor(1.0, dtype="float64"), []
        with truncated:
            for _ in range(8):
                x = w * x
                if truncated.step(x) is not None:
                    assert w.grad is not None
                    found.append(w.grad.item())
                    w.grad = None
        return found

    def buffered() -> list[float]:
        """The losses of a chunk and of the one after it, through the chunk's weights alone."""
        x, found = mg.tensor(1.0, dtype="float64"), []
        chunks: list[tuple[Tensor, Tensor]] = []
        with mg.Tape() as tape:
            for _ in range(4):
                mark, loss = tape.mark(), mg.tensor(0.0, dtype="float64")
                used = mg.scale_gradient(w, 1.0)
                for _ in range(k1):
                    x = used * x
                    loss = loss + x
                if chunks:
                    before, loss_before = chunks.pop()
                    both = loss_before + loss
                    found.append(tape.gradient(both, before, retain=True).item())
                    tape.cut(mark)
                chunks.append((used, loss))
        return found

    ends = range(k1, 9, k1)
    since = {t: max(0, t - k2) for t in ends}
    readings = {
        "new": [gradient(since[t], range(t - k1 + 1, t + 1), range(1, t + 1)) for t in ends],
        "last": [gradient(since[t], range(t, t + 1), range(1, t + 1)) for t in ends],
        "window": [gradient(since[t], range(since[t] + 1, t + 1), range(1, t + 1)) for t in ends],
        "chunk": [gradient(t - k1, range(t - k1 + 1, t + 1), range(1, t + 1)) for t in ends],
        "buffer": [
            gradient(t - k1, range(t - k1 + 1, t + k1 + 1), range(t - k1 + 1, t + 1))
            for t in ends[:-1]
        ],
    }
    assert len({tuple(np.round(reading, 6)) for reading in readings.values()}) == 5
    for losses in get_args(Losses):
        found = train(rnn.TBPTT(k1, k2, losses=losses, normalize="sum"))
        np.testing.assert_allclose(found, readings[losses], rtol=1e-13, err_msg=losses)
    found = train(rnn.TBPTT(k1, k1, normalize="sum"))
    np.testing.assert_allclose(found, readings["chunk"], rtol=1e-13)
    np.testing.assert_allclose(buffered(), readings["buffer"], rtol=1e-13)


def test_a_gradient_is_that_of_the_weights_each_step_used_not_of_a_rerun() -> None:
    """x' = w x with w = 2, then 3, then 4: the gradient of the third step is 3 4 + 2 4 + 2 3;
    a rerun with w = 4 has 3 4^2."""
    w = mg.tensor(2.0, requires_grad=True)
    x = mg.tensor(1.0)
    with rnn.TBPTT(1, 3, normalize="sum") as truncated:
        for value in (3.0, 4.0, 5.0):
            w.grad = None
            x = w * x
            truncated.step(x)
            w.rebind(mg.tensor(value))
    assert w.grad is not None
    assert w.grad.item() == 3 * 4 + 2 * 4 + 2 * 3


# --------------------------------------------------------------------------------------
# Normalisation: weights, several losses, steps without one
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", ["mean", "weight"])
@pytest.mark.parametrize("on_the_device", [False, True], ids=["numbers", "tensors"])
def test_ragged_sequences_have_the_mean_over_their_valid_steps(
    rng: np.random.Generator, normalize: Literal["mean", "weight"], on_the_device: bool
) -> None:
    xs, lengths = rnn.pad_sequences([rng.normal(size=(n, INPUTS)) for n in (5, 2, 4)])
    mask = rnn.lengths_to_mask(lengths)
    cell = rnn.GRUCell(INPUTS, HIDDEN, dtype="float64", rng=rng)
    with mg.Tape() as tape:
        ys, _ = rnn.unroll(cell, mg.asarray(xs))
        expected = mg.mean((ys**2).sum(-1)[mg.tensor(mask)])
    gradients = tape.gradient(expected, list(cell.parameters()))

    state, loss = None, None
    with rnn.TBPTT(5, 5, normalize=normalize) as truncated:
        for x, valid in zip(xs, mask, strict=True):
            y, state = cell(mg.asarray(x), state)
            total = ((y**2).sum(-1) * mg.tensor(valid)).sum()
            count = mg.asarray(valid).sum() if on_the_device else valid.sum()
            loss = truncated.step(total / count if normalize == "mean" else total, weight=count)
    assert loss is not None
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-12)
    for parameter, gradient in zip(cell.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), gradient.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("normalize", "weights", "expected"),
    [
        ("mean", (None, None), (3.0 + 5.0) / 2),
        ("mean", (1, 3), (1 * 3.0 + 3 * 5.0) / 4),
        ("mean", (0, 3), 5.0),
        ("weight", (1, 3), (3.0 + 5.0) / 4),
        ("sum", (None, None), 3.0 + 5.0),
        (16, (None, None), (3.0 + 5.0) / 16),
        (np.float64(0.5), (None, None), (3.0 + 5.0) / 0.5),
    ],
)
def test_the_ways_to_normalize(normalize: Any, weights: tuple[Any, Any], expected: float) -> None:
    w = mg.tensor(1.0, requires_grad=True)
    with rnn.TBPTT(2, 2, normalize=normalize) as truncated:
        truncated.step(w * 3.0, weight=weights[0])
        loss = truncated.step(w * 5.0, weight=weights[1])
    assert loss is not None
    assert w.grad is not None
    assert loss.item() == w.grad.item() == pytest.approx(expected)
    assert loss.dtype == w.grad.dtype == "float32"


@pytest.mark.parametrize("weight", [3, 3.0, np.int64(3), np.float64(3), mg.tensor(3)], ids=repr)
def test_a_weight_leaves_the_dtype_of_the_loss(weight: Any) -> None:
    w = mg.tensor(2.0, dtype="float16", requires_grad=True)
    one: Any = np.int64(1)
    with rnn.TBPTT(one, one) as truncated:
        loss = truncated.step(w * 0.5, one, weight)
    assert loss is not None
    assert loss.item() == 1.0
    assert loss.dtype == "float16"


def test_the_norm_of_a_mean_does_not_depend_on_k1_and_that_of_a_sum_does() -> None:
    """So a threshold for clipping holds for every k1, or has to grow with it."""

    def norm(k1: int, normalize: Normalize) -> float:
        w = mg.tensor(1.0, requires_grad=True)
        with rnn.TBPTT(k1, k1, normalize=normalize) as truncated:
            for _ in range(k1):
                truncated.step(w * 0.5)
        return float(rnn.clip_grad_norm_([w], 1.0).item())

    assert [norm(k1, "mean") for k1 in (1, 2, 8)] == [0.5, 0.5, 0.5]
    assert [norm(k1, "sum") for k1 in (1, 2, 8)] == [0.5, 1.0, 4.0]


def test_clipping_every_window_and_clipping_their_sum_are_two_things() -> None:
    def train(every_window: bool) -> float:
        w = mg.tensor(1.0, requires_grad=True)
        kept = 0.0
        with rnn.TBPTT(1, 1) as truncated:
            for slope in (3.0, 0.5):
                truncated.step(w * slope)
                if every_window:
                    rnn.clip_grad_norm_([w], 1.0)
                    assert w.grad is not None
                    kept += w.grad.item()
                    w.grad = None
        if not every_window:
            rnn.clip_grad_norm_([w], 1.0)
            assert w.grad is not None
            kept = w.grad.item()
        return kept

    assert train(every_window=True) == pytest.approx(1.0 + 0.5)
    assert train(every_window=False) == pytest.approx(1.0)


@every_losses
def test_several_losses_are_summed_and_each_is_reported(losses: Losses) -> None:
    def train(named: bool) -> tuple[list[Any], list[float]]:
        w = mg.tensor(0.5, dtype="float64", requires_grad=True)
        x, found, gradients = mg.tensor(1.0, dtype="float64"), [], []
        with rnn.TBPTT(2, 3, losses=losses) as truncated:
            for _ in range(6):
                x = w * x
                step: Any = {"a": x, "b": x * x} if named else x + x * x
                loss = truncated.step(step)
                if loss is not None:
                    found.append(loss)
                    assert w.grad is not None
                    gradients.append(w.grad.item())
        return found, gradients

    (named, gradients), (summed, expected) = train(True), train(False)
    np.testing.assert_allclose(gradients, expected, rtol=1e-14)
    assert all(set(loss) == {"a", "b"} for loss in named)
    sums = [sum(loss.values()).item() for loss in named]
    np.testing.assert_allclose(sums, [loss.item() for loss in summed], rtol=1e-14)


def test_steps_without_a_loss_add_nothing_and_do_not_count() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    x = mg.tensor(1.0)
    found: list[Any] = []
    with rnn.TBPTT(2, 4) as truncated:
        for t in range(6):
            x = w * x
            found.append(truncated.step(x if t == 3 else [None, {}][t % 2]))
            if t < 3:
                assert w.grad is None
    assert [loss is None for loss in found] == [True, True, True, False, True, True]
    assert found[3].item() == 0.5**4
    assert w.grad is not None
    assert w.grad.item() == 4 * 0.5**3


def test_a_name_may_be_missing_in_some_steps() -> None:
    w = mg.tensor(1.0, requires_grad=True)
    with rnn.TBPTT(2, 2) as truncated:
        truncated.step({"a": w * 1.0})
        loss = truncated.step({"a": w * 1.0, "b": w * 6.0})
    assert loss is not None
    assert {name: one.item() for name, one in loss.items()} == {"a": 1.0, "b": 3.0}


# --------------------------------------------------------------------------------------
# The gradient of the state at the beginning of a window
# --------------------------------------------------------------------------------------


@some_periods
@every_losses
@updated_or_not
def test_the_boundary_gradient_equals_the_recursion_by_hand(
    rng: np.random.Generator, k1: int, k2: int, losses: Losses, lr: float
) -> None:
    hand = make_problem(rng, time=13)
    weights = {n: mg.tensor(w, requires_grad=True) for n, w in hand.weights.items()}
    optimizer = mg.optim.SGD(weights.values(), lr=lr)
    h = mg.tensor(hand.states[0])
    expected = windows(13, k1, k2, losses)
    with rnn.TBPTT(k1, k2, losses=losses) as truncated:
        for x, target in zip(hand.xs, hand.targets, strict=True):
            hand.advance()
            loss, h = one_step(weights, x, truncated.watch(h), target)
            if truncated.step(loss) is None:
                continue
            _, gradient = hand.gradient(*next(expected), "mean")
            np.testing.assert_allclose(
                truncated.boundary_gradient.numpy(), gradient["state"], rtol=1e-12, atol=1e-14
            )
            for name, weight in weights.items():
                assert weight.grad is not None
                np.testing.assert_allclose(
                    weight.grad.numpy(), gradient[name], rtol=1e-12, atol=1e-12
                )
            if lr:
                optimizer.step()
                hand.update(gradient, lr)
            optimizer.zero_grad()


def test_the_boundary_gradient_is_nested_as_the_state(rng: np.random.Generator) -> None:
    cell = rnn.LSTMCell(INPUTS, HIDDEN, dtype="float64", rng=rng)
    model = CellModel(
        cell, rng.normal(size=(6, BATCH, INPUTS)), rng.normal(size=(6, BATCH, HIDDEN))
    )
    state = cell.initial_state(BATCH)
    with rnn.TBPTT(2, 4) as truncated:
        for t in range(6):
            if t == 2:
                boundary = tuple(mg.tensor(part, requires_grad=True) for part in frozen(state))
            loss, state = model.step(t, truncated.watch({"lstm": [state]})["lstm"][0])
            truncated.step(loss)
    with mg.Tape() as tape:
        rerun = model.rerun(range(2, 6), [4, 5], boundary, "mean")
    found = truncated.boundary_gradient["lstm"][0]
    for own, expected in zip(found, tape.gradient(rerun, boundary), strict=True):
        np.testing.assert_allclose(own.numpy(), expected.numpy(), rtol=1e-12)


def test_an_exact_synthetic_gradient_makes_truncation_exact(rng: np.random.Generator) -> None:
    """Jaderberg et al., 2017: the end of a window is sent what the later losses would send."""
    cell = rnn.RNNCell(INPUTS, HIDDEN, dtype="float64", rng=rng)
    model = CellModel(
        cell, rng.normal(size=(6, BATCH, INPUTS)), rng.normal(size=(6, BATCH, HIDDEN))
    )
    states = [cell.initial_state(BATCH)]
    with mg.Tape() as tape:
        total, boundaries = mg.tensor(0.0, dtype="float64"), []
        for t in range(6):
            boundaries.append(mg.scale_gradient(states[-1], 1.0) if t else states[-1])
            loss, state = model.step(t, boundaries[-1])
            states.append(state)
            total = total + loss
    exact = tape.gradient(total, model.parameters, retain=True)
    future = {t: tape.gradient(total, boundaries[t], retain=True) for t in (2, 4)}

    state = states[0].detach()
    with rnn.TBPTT(2, 2, normalize="sum") as truncated:
        for t in range(6):
            loss, state = model.step(t, truncated.watch(state))
            losses = {"loss": loss}
            if t + 1 in future:
                losses["future"] = mg.sum(state * future[t + 1])
            if truncated.step(losses) is not None and t > 1:
                np.testing.assert_allclose(
                    truncated.boundary_gradient.numpy(), future[t - 1].numpy(), rtol=1e-12
                )
    for parameter, expected in zip(model.parameters, exact, strict=True):
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), expected.numpy(), rtol=1e-12)


@some_periods
def test_a_learned_initial_state_has_a_gradient_in_the_windows_that_reach_it(
    rng: np.random.Generator, k1: int, k2: int
) -> None:
    hand = make_problem(rng, time=13)
    weights = {n: mg.tensor(w, requires_grad=True) for n, w in hand.weights.items()}
    initial = h = mg.tensor(hand.states[0], requires_grad=True)
    found = windows(13, k1, k2, "new")
    with rnn.TBPTT(k1, k2) as truncated:
        for x, target in zip(hand.xs, hand.targets, strict=True):
            hand.advance()
            loss, h = one_step(weights, x, h, target)
            if truncated.step(loss) is None:
                continue
            steps, wanted = next(found)
            if steps.start:
                assert initial.grad is None
            else:
                _, gradient = hand.gradient(steps, wanted, "mean")
                assert initial.grad is not None
                np.testing.assert_allclose(initial.grad.numpy(), gradient["state"], rtol=1e-12)
            initial.grad = None


def test_a_step_that_was_not_watched_gives_no_boundary_gradient() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    x = mg.tensor(1.0)
    with rnn.TBPTT(1, 1) as truncated:
        for watched in (True, False):
            x = w * (truncated.watch(x) if watched else x)
            truncated.step(x)
            assert (truncated.boundary_gradient is not None) == watched


def test_a_window_without_a_loss_has_no_boundary_gradient() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    x = mg.tensor(1.0)
    with rnn.TBPTT(1, 1) as truncated:
        for loss_free in (False, True):
            x = w * truncated.watch(x)
            truncated.step(None if loss_free else x)
            assert (truncated.boundary_gradient is None) == loss_free


def test_a_watched_state_that_is_not_used_is_noticed() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    x = mg.tensor(1.0)
    with (
        pytest.raises(mg.TapeError, match="the target does not depend on source"),
        rnn.TBPTT(1, 1) as truncated,
    ):
        truncated.watch(x)
        truncated.step(w * x)


def test_watching_twice_in_a_step_is_refused() -> None:
    x = mg.tensor(1.0)
    with rnn.TBPTT(1, 1) as truncated:
        truncated.watch(x)
        with pytest.raises(ValueError, match=r"watch\(\) is called once a step"):
            truncated.watch(x)
        truncated.reset()
        truncated.watch(x)


@pytest.mark.parametrize("state", [None, 1.0, (mg.tensor(1.0), None)], ids=str)
def test_only_tensors_can_be_watched(state: Any) -> None:
    with rnn.TBPTT(1, 1) as truncated, pytest.raises(TypeError, match=r"watch\(\) takes a tensor"):
        truncated.watch(state)


# --------------------------------------------------------------------------------------
# Rows that begin anew, edges that are cut, and other lengths of windows
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell_type", [rnn.GRUCell, rnn.LSTMCell])
def test_no_gradient_crosses_the_reset_of_a_row(
    rng: np.random.Generator, cell_type: type[rnn.Cell]
) -> None:
    """Row 1 ends before step 2: its gradient is that of two sequences, that of row 0 of one."""
    cell = cell_type(INPUTS, HIDDEN, dtype="float64", rng=rng)
    xs = rng.normal(size=(5, 2, INPUTS))
    leaves = [mg.tensor(x, requires_grad=True) for x in xs]
    state = cell.initial_state(2)
    with rnn.TBPTT(5, 5, losses="last", normalize="sum") as truncated:
        for t, x in enumerate(leaves):
            state = rnn.reset_state(state, np.array([False, t == 2]))
            y, state = cell(x, state)
            truncated.step(mg.sum(y**2))
    gradients = np.array([leaf.grad.numpy() for leaf in leaves if leaf.grad is not None])

    for row, start in ((0, 0), (1, 2)):
        alone = mg.tensor(xs[start:, row : row + 1], requires_grad=True)
        with mg.Tape() as tape:
            ys, _ = rnn.unroll(cell, alone)
            loss = mg.sum(ys[-1] ** 2)
        assert not gradients[:start, row].any()
        np.testing.assert_allclose(
            gradients[start:, row : row + 1], tape.gradient(loss, alone).numpy(), rtol=1e-12
        )


def test_one_edge_is_cut_while_another_goes_on() -> None:
    """a' = u a, b' = v (a + b): a is cut at every other step, b never."""
    u, v = (mg.tensor(value, dtype="float64", requires_grad=True) for value in (0.5, 2.0))
    a = b = mg.tensor(1.0, dtype="float64")
    with rnn.TBPTT(4, 4, losses="last") as truncated:
        for t in range(4):
            a = u * (mg.detach(a) if t % 2 == 0 else a)
            b = v * (a + b)
            truncated.step(b)
    by_u, by_v, a_, b_ = 0.0, 0.0, 1.0, 1.0
    slope = 0.0  # of a, by u
    for t in range(4):
        slope = a_ + 0.5 * (slope if t % 2 else 0.0)
        a_ = 0.5 * a_
        by_u, by_v = 2.0 * (slope + by_u), a_ + b_ + 2.0 * by_v
        b_ = 2.0 * (a_ + b_)
    assert u.grad is not None
    assert v.grad is not None
    np.testing.assert_allclose([u.grad.item(), v.grad.item()], [by_u, by_v], rtol=1e-14)


def test_cuts_at_random_that_are_made_up_for_are_without_bias() -> None:
    """Tallec and Ollivier, 2017: the mean over all patterns of cuts is the full gradient."""
    cut_with = [0.5, 0.2, 0.7, 0.4]

    def gradient(scales: list[float]) -> float:
        w = mg.tensor(0.8, dtype="float64", requires_grad=True)
        x = mg.tensor(0.9, dtype="float64")
        with rnn.TBPTT(5, 5, normalize="sum") as truncated:
            for t in range(5):
                x = mg.tanh(w * (mg.scale_gradient(x, scales[t - 1]) if t else x))
                truncated.step(x * x)
        assert w.grad is not None
        return w.grad.item()

    mean = 0.0
    for cuts in itertools.product([True, False], repeat=4):
        pairs = list(zip(cuts, cut_with, strict=True))
        probability = float(np.prod([p if cut else 1 - p for cut, p in pairs]))
        mean += probability * gradient([0.0 if cut else 1 / (1 - p) for cut, p in pairs])
    np.testing.assert_allclose(mean, gradient([1.0] * 4), rtol=1e-13)
    assert abs(gradient([0.0] * 4) - mean) > 0.1


def test_windows_of_random_lengths_read_every_step_once(rng: np.random.Generator) -> None:
    """k1 and k2 are set for every window: each is one call, and none reaches into another."""
    w = mg.tensor(1.0, requires_grad=True)
    stream = rnn.Stream(range(101), batch_size=1)
    sizes: list[int] = []
    state = mg.tensor(0.0)
    with rnn.TBPTT(1, 1, normalize="sum") as truncated:
        while sum(sizes) < stream.length:
            steps, _ = rnn.random_window(9, rng=rng)
            inputs, _, _ = stream.window(steps, rest=True)
            truncated.k1 = truncated.k2 = len(inputs)
            state = state + w * float(len(inputs))
            assert truncated.step(state, len(inputs)) is not None
            sizes.append(len(inputs))
            assert len(truncated.tape) == 0
            assert w.grad is not None
            assert w.grad.item() == sizes[-1]
            w.grad = None
    assert len(set(sizes)) > 1
    assert sum(sizes) == 100


def test_a_longer_reach_from_some_window_on() -> None:
    """x' = w x, with w = 1: the gradient of the last step is the number of steps it reaches."""
    w = mg.tensor(1.0, requires_grad=True)
    x = mg.tensor(1.0)
    reaches = []
    with rnn.TBPTT(1, 2) as truncated:
        for t in range(8):
            truncated.k2 = 2 if t < 4 else 5
            x = w * x
            truncated.step(x)
            assert w.grad is not None
            reaches.append(w.grad.item())
            w.grad = None
    assert reaches == [1, 2, 2, 2, 2, 3, 4, 5]


def test_what_runs_without_recording_does_not_disturb_the_window() -> None:
    """Validation between two steps: it leaves nothing on the tape."""
    w = mg.tensor(0.5, requires_grad=True)
    x = mg.tensor(1.0)
    kept = []
    with rnn.TBPTT(2, 2, normalize="sum") as truncated:
        for _ in range(2):
            x = w * x
            before = len(truncated.tape)
            with mg.no_grad():
                y = x
                for _ in range(100):
                    y = w * y
            assert len(truncated.tape) == before
            truncated.step(x)
            kept.append(x)
    assert w.grad is not None
    assert w.grad.item() == 1.0 + 2 * 0.5
    assert len(truncated.tape) == 0
    assert not any(loss.requires_grad for loss in kept)


def test_the_state_goes_on_in_another_block_as_a_constant() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    x = mg.tensor(1.0)
    truncated = rnn.TBPTT(2, 4, normalize="sum")
    for _ in range(2):
        w.grad = None
        with truncated:
            for _ in range(2):
                x = w * x
                truncated.step(x)
        assert not x.requires_grad
    assert x.item() == 0.5**4
    assert w.grad is not None
    assert w.grad.item() == 0.5**2 * (1.0 + 2 * 0.5)


def test_the_same_loop_without_a_cut_says_what_to_do() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    x = mg.tensor(1.0)
    with pytest.raises(mg.TapeError, match=r"was consumed .* call tape.cut\(\)"), mg.Tape() as tape:
        for _ in range(2):
            x = w * x
            tape.backward(x)


# --------------------------------------------------------------------------------------
# Nothing leaks through the boundary
# --------------------------------------------------------------------------------------


def window_gradients(
    step: Callable[[int], Tensor], leaf: Tensor, k1: int, k2: int, time: int
) -> list[float]:
    """The derivative of every window by ``leaf``."""
    found = []
    with rnn.TBPTT(k1, k2, normalize="sum") as truncated:
        for t in range(time):
            if truncated.step(step(t)) is not None:
                found.append(0.0 if leaf.grad is None else leaf.grad.item())
                leaf.grad = None
    return found


@pytest.mark.parametrize("part", [0, 1], ids=["h", "c"])
def test_neither_state_of_an_lstm_leaks(rng: np.random.Generator, part: int) -> None:
    cell = rnn.LSTMCell(INPUTS, HIDDEN, dtype="float64", rng=rng)
    xs = mg.tensor(rng.normal(size=(8, BATCH, INPUTS)))
    leaf = mg.tensor(0.1, dtype="float64", requires_grad=True)
    state = [mg.tensor(np.zeros((BATCH, HIDDEN))), mg.tensor(np.zeros((BATCH, HIDDEN)))]

    def step(t: int) -> Tensor:
        if t == 0:
            state[part] = state[part] + leaf
        _, (state[0], state[1]) = cell(xs[t], (state[0], state[1]))
        return state[0].sum() + state[1].sum()

    gradients = window_gradients(step, leaf, k1=2, k2=4, time=8)
    # The leaf entered at step 0: two windows reach it, and then it is out of reach.
    assert [g != 0.0 for g in gradients] == [True, True, False, False]


@pytest.mark.parametrize(("k1", "k2"), [(2, 2), (2, 4), (1, 3), (3, 2)])
def test_a_memory_that_crosses_the_boundary_is_constant_beyond_it(k1: int, k2: int) -> None:
    """Every step attends to all earlier states, however old; only the recent ones lead back."""
    time, value = 9, 0.7
    w = mg.tensor(value, dtype="float64", requires_grad=True)
    memory = [mg.tensor(1.0, dtype="float64")]

    def step(t: int) -> Tensor:
        memory.append(w * mg.tanh(mg.stack(memory).sum()))
        return memory[-1]

    gradients = window_gradients(step, w, k1, k2, time)

    values = [m.item() for m in memory]
    expected = []
    for steps, wanted in windows(time, k1, k2, "new"):
        slopes = [0.0] * (steps.start + 1)
        for t in steps:
            total = np.tanh(sum(values[: t + 1]))
            slopes.append(total + value * (1.0 - total**2) * sum(slopes))
        expected.append(sum(slopes[t + 1] for t in wanted))
    np.testing.assert_allclose(gradients, expected, rtol=1e-12)


def test_a_skip_connection_over_the_boundary_does_not_leak() -> None:
    w = mg.tensor(2.0, dtype="float64", requires_grad=True)
    states = [mg.tensor(1.0, dtype="float64"), mg.tensor(1.0, dtype="float64")]

    def step(t: int) -> Tensor:
        states.append(w * states[-2])
        return states[-1]

    # x_t = w x_(t-2): within windows of two steps every gradient is that of one product.
    gradients = window_gradients(step, w, k1=2, k2=2, time=6)
    assert gradients == [1.0 + 1.0, 2.0 + 2.0, 4.0 + 4.0]


# --------------------------------------------------------------------------------------
# Bounded memory
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (1, 6), (3, 7), (5, 2)])
@every_losses
@pytest.mark.usefixtures("no_collector")
def test_the_tape_does_not_grow(k1: int, k2: int, losses: Losses) -> None:
    w = mg.tensor(np.full((6, 6), 0.1), requires_grad=True)
    h = mg.tensor(np.ones((2, 6)))
    sizes: list[tuple[int, int]] = []
    with rnn.TBPTT(k1, k2, losses=losses) as truncated:
        while len(sizes) < 30:
            h = mg.tanh(h @ w)
            if truncated.step(mg.mean(h)) is not None:
                sizes.append((len(truncated.tape), truncated.tape.nbytes))
    # A first window is full after k2 steps; the sums of its losses, which are on the tape like
    # everything else, are those of full windows k2 steps later.
    settled = sizes[2 * -(-k2 // k1) :]
    assert set(settled) == {settled[0]}
    assert (settled[0] == (0, 0)) == (k2 <= k1)


def bytes_of_arrays() -> int:
    """What all arrays hold on the device of the tests; on the host tracemalloc has to run."""
    if mg.tensor(0.0).device != "cpu":
        return mg.cuda.memory_allocated()
    arrays = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([arrays]).traces)


@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (1, 6), (3, 7), (5, 2)])
@pytest.mark.usefixtures("no_collector")
def test_the_process_does_not_grow(k1: int, k2: int) -> None:
    cell = rnn.GRUCell(8, 32, rng=0)
    optimizer = mg.optim.SGD(cell.parameters(), lr=0.01, momentum=0.9)
    x = mg.tensor(np.ones((16, 8)), dtype="float32")
    state = None
    windows, settled = 30, 2 * -(-k2 // k1)
    held: list[int] = []
    objects: list[int] = []
    tracemalloc.start()
    try:
        with rnn.TBPTT(k1, k2) as truncated:
            while len(held) < windows:
                y, state = cell(x, state)
                if truncated.step(mg.mean(y * y)) is not None:
                    optimizer.step()
                    optimizer.zero_grad()
                    held.append(bytes_of_arrays())
                    # Of Python's own memory the objects are counted, not the bytes: freed
                    # tuples stay in CPython's free lists for a while.
                    if len(held) in (settled, windows):
                        objects.append(len(gc.get_objects()))
    finally:
        tracemalloc.stop()
    assert held[settled] > 0
    assert len(set(held[settled:])) == 1
    first, last = objects
    assert last <= first


@pytest.mark.host
@pytest.mark.slow
@pytest.mark.usefixtures("no_collector")
def test_a_stream_of_100_000_steps_needs_the_memory_of_a_short_one() -> None:
    w = mg.tensor(0.9, requires_grad=True)
    x = mg.tensor(1.0)
    lengths, sizes, objects, traced = set(), set(), [], []
    with rnn.TBPTT(4, 12) as truncated:
        for t in range(1, 100_001):
            x = mg.tanh(w * x)
            if truncated.step(x) is not None:
                w.grad = None
            if t % 1_000 == 0:
                lengths.add(len(truncated.tape))
                sizes.add(truncated.tape.nbytes)
            if t in (1_000, 100_000):
                objects.append(len(gc.get_objects()))
            if t == 98_000:  # tracing is slow: what 1,000 steps leave behind, and what 2,000
                tracemalloc.start()
            if t in (99_000, 100_000):
                traced.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert (len(lengths), len(sizes)) == (1, 1)
    assert objects[1] - objects[0] < 100  # in 99,000 steps
    assert traced[0] > 0
    assert abs(traced[1] - traced[0]) < 500  # half a byte a step


@pytest.mark.usefixtures("no_collector")
def test_leaving_the_block_frees_everything() -> None:
    w = mg.tensor(np.ones((4, 4)), requires_grad=True)
    with rnn.TBPTT(3, 5) as truncated:
        for _ in range(4):
            truncated.step(mg.mean(w * 2.0))
        assert len(truncated.tape) > 0
    assert (len(truncated.tape), truncated.tape.nbytes) == (0, 0)


# --------------------------------------------------------------------------------------
# Several steps at once
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k1", "k2", "steps"), [(4, 4, 2), (4, 4, 4), (2, 6, 2), (4, 8, 2)])
@pytest.mark.parametrize("losses", ["new", "window"])
@every_normalize
@updated_or_not
def test_steps_handed_over_together_equal_those_one_by_one(
    rng: np.random.Generator,
    k1: int,
    k2: int,
    steps: int,
    losses: Losses,
    normalize: Normalize,
    lr: float,
) -> None:
    xs, targets = rng.normal(size=(12, BATCH, INPUTS)), rng.normal(size=(12, BATCH, HIDDEN))

    def train(together: int) -> list[list[Array]]:
        layer = rnn.LSTM(INPUTS, HIDDEN, dtype="float64", rng=0)
        optimizer = mg.optim.SGD(layer.parameters(), lr=lr)
        found = []
        state = None
        with rnn.TBPTT(k1, k2, losses=losses, normalize=normalize) as truncated:
            for start in range(0, 12, together):
                taken = slice(start, start + together)
                ys, state = layer(mg.tensor(xs[taken]), state)
                loss = mg.mean((ys - mg.tensor(targets[taken])) ** 2)
                loss = loss if normalize == "mean" else loss * together
                window_loss = truncated.step(loss, together)
                if window_loss is not None:
                    gradients = [p.grad.numpy() for p in layer.parameters() if p.grad is not None]
                    found.append([window_loss.numpy(), *gradients])
                    optimizer.step()
                    optimizer.zero_grad()
        return found

    for one, other in zip(train(1), train(steps), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------------------------
# flush and reset
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (4, 6), (4, 9), (4, 2)])
@every_losses
@every_normalize
def test_flush_is_of_the_losses_since_the_last_gradient(
    rng: np.random.Generator, k1: int, k2: int, losses: Losses, normalize: Normalize
) -> None:
    """At step 7 of 8 it is the gradient that was to come at step 8, without step 8."""
    hand = make_problem(rng, time=7)
    weights = {n: mg.tensor(w, requires_grad=True) for n, w in hand.weights.items()}
    h = mg.tensor(hand.states[0])
    with rnn.TBPTT(k1, k2, losses=losses, normalize=normalize) as truncated:
        for t in range(7):
            hand.advance()
            loss, h = one_step(weights, hand.xs[t], h, hand.targets[t])
            if truncated.step(loss) is not None:
                for weight in weights.values():
                    weight.grad = None
        window_loss = truncated.flush()
        assert len(truncated.tape) == 0
        assert not h.requires_grad
    steps = range(max(0, 8 - k2), 7)
    since = {"new": 4, "last": 6, "window": 0}[losses]
    hand_loss, gradient = hand.gradient(steps, [t for t in steps if t >= since], normalize)
    assert window_loss is not None
    np.testing.assert_allclose(window_loss.item(), hand_loss, rtol=1e-12)
    for name, weight in weights.items():
        assert weight.grad is not None
        np.testing.assert_allclose(weight.grad.numpy(), gradient[name], rtol=1e-12, atol=1e-12)


def powers(w: Tensor, x: Tensor) -> Iterator[Tensor]:
    for _ in itertools.count():
        x = w * x
        yield x


def test_flush_with_nothing_new_gives_nothing() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    with rnn.TBPTT(2, 4) as truncated:
        assert truncated.flush() is None
        for x in itertools.islice(powers(w, mg.tensor(1.0)), 2):
            truncated.step(x)
        gradient = w.grad
        assert truncated.flush() is None
    assert gradient is not None
    assert w.grad is gradient


def test_flush_with_all_losses_out_of_reach_gives_nothing() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    with rnn.TBPTT(k1=4, k2=2) as truncated:
        truncated.step(w * 2.0)
        assert truncated.flush() is None
    assert w.grad is None


@pytest.mark.parametrize("forget", [rnn.TBPTT.flush, rnn.TBPTT.reset])
def test_a_new_window_begins_after_flush_and_reset(forget: Callable[[rnn.TBPTT], Any]) -> None:
    w = mg.tensor(0.5, dtype="float64", requires_grad=True)
    with rnn.TBPTT(k1=2, k2=6, normalize="sum") as truncated:
        steps = powers(w, mg.tensor(1.0, dtype="float64"))
        for _ in range(3):
            truncated.step(next(steps))
        forget(truncated)
        assert len(truncated.tape) == 0
        w.grad = None
        assert truncated.step(next(steps)) is None
        assert truncated.step(next(steps)) is not None
    # From the constant w^3: (w + w^2) w^3, without the loss of the third step.
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.item(), (1.0 + 2 * 0.5) * 0.5**3, rtol=1e-14)


def test_reset_drops_losses_that_were_not_propagated() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    with rnn.TBPTT(2, 2) as truncated:
        truncated.step(w * 2.0)
        truncated.reset()
        assert truncated.flush() is None
    assert w.grad is None


# --------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k1": 0, "k2": 1}, "k1 is a number of steps, at least 1, not 0"),
        ({"k1": 1, "k2": 0}, "k2 is a number of steps, at least 1, not 0"),
        ({"k1": -2, "k2": 1}, "k1 is a number of steps, at least 1, not -2"),
        ({"k1": 2.0, "k2": 4}, "k1 is a number of steps, at least 1, not 2.0"),
        ({"k1": 1, "k2": None}, "k2 is a number of steps, at least 1, not None"),
        ({"k1": 1, "k2": 1, "losses": "all"}, "'new', 'last' or 'window', not 'all'"),
        ({"k1": 1, "k2": 1, "normalize": "none"}, "'sum' or a positive number, not 'none'"),
        ({"k1": 1, "k2": 1, "normalize": 0}, "'sum' or a positive number, not 0"),
        ({"k1": 1, "k2": 1, "normalize": float("nan")}, "a positive number, not nan"),
        ({"k1": 1, "k2": 1, "normalize": float("inf")}, "a positive number, not inf"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rnn.TBPTT(**settings)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (0,)])
def test_a_loss_of_several_numbers_is_refused(shape: tuple[int, ...]) -> None:
    w = mg.tensor(np.ones(shape), requires_grad=True)
    truncated = rnn.TBPTT(1, 1)
    with truncated, pytest.raises(ValueError, match="the loss of a step is one number"):
        truncated.step(w * 2.0)


@pytest.mark.parametrize("loss", [0.5, np.float32(0.5), np.zeros(())], ids=repr)
def test_a_loss_that_is_not_a_tensor_is_refused(loss: Any) -> None:
    with rnn.TBPTT(1, 1) as truncated, pytest.raises(TypeError, match=r"not its .item\(\)"):
        truncated.step(loss)


@pytest.mark.parametrize("normalize", ["sum", 4.0])
def test_a_weight_without_use_is_refused(normalize: Any) -> None:
    truncated = rnn.TBPTT(1, 1, normalize=normalize)
    with pytest.raises(ValueError, match=f"normalize={normalize!r} has no use for a weight"):
        truncated.step(mg.tensor(1.0), weight=3)


def test_a_missing_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="give every loss its own"):
        rnn.TBPTT(1, 1, normalize="weight").step(mg.tensor(1.0))


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="the weight of a loss is a number of at least 0"):
        rnn.TBPTT(1, 1).step(mg.tensor(1.0), weight=weight)


def test_a_weight_of_several_numbers_is_refused() -> None:
    w = mg.tensor(1.0, requires_grad=True)
    with (
        rnn.TBPTT(1, 1) as truncated,
        pytest.raises(ValueError, match=r"the weight of a loss is one number, not \(2,\)"),
    ):
        truncated.step(w * 1.0, weight=mg.tensor([1.0, 2.0]))


@pytest.mark.parametrize("normalize", ["mean", "weight"])
@pytest.mark.parametrize(
    "weight", [0, pytest.param(mg.tensor(0), marks=pytest.mark.host)], ids=repr
)
def test_a_window_of_weight_0_is_refused(normalize: Any, weight: Any) -> None:
    w = mg.tensor(1.0, requires_grad=True)
    with (
        pytest.raises(ValueError, match="the weights of the window's losses sum to 0"),
        rnn.TBPTT(1, 1, normalize=normalize) as truncated,
    ):
        truncated.step(w * 0.0, weight=weight)


def test_losses_with_and_without_names_are_not_mixed() -> None:
    w = mg.tensor(1.0, requires_grad=True)
    with (
        pytest.raises(ValueError, match="either all losses of a window have names, or none"),
        rnn.TBPTT(2, 2) as truncated,
    ):
        truncated.step(w * 1.0)
        truncated.step({"a": w * 1.0})


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 step is handed over, not {steps}"):
        rnn.TBPTT(4, 4).step(mg.tensor(1.0), steps)


@pytest.mark.parametrize(("k1", "k2", "steps"), [(4, 6, 4), (6, 4, 3), (6, 4, 6)])
def test_a_window_that_begins_inside_a_call_is_refused(k1: int, k2: int, steps: int) -> None:
    w = mg.tensor(0.5, requires_grad=True)
    message = f"a window begins inside the {steps} steps .* divide k1={k1} and k2={k2}"
    with pytest.raises(ValueError, match=message), rnn.TBPTT(k1, k2) as truncated:
        truncated.step(w * 2.0, steps)


def test_a_call_that_oversteps_the_end_of_a_window_is_refused() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    with rnn.TBPTT(4, 4) as truncated:
        for steps in (1, 2):
            truncated.step(w * 2.0, steps)
        with pytest.raises(ValueError, match="a gradient is due in 1 steps, and 2 are handed over"):
            truncated.step(w * 2.0, 2)


def test_the_last_loss_needs_steps_one_by_one() -> None:
    with pytest.raises(ValueError, match=r"losses='last' needs the steps .* one by one"):
        rnn.TBPTT(4, 4, losses="last").step(mg.tensor(1.0), 2)


@pytest.mark.parametrize("normalize", get_args(Normalize))
def test_a_loss_that_records_nothing_is_refused(normalize: Normalize) -> None:
    with (
        pytest.raises(mg.TapeError, match="is a constant, nothing was recorded for it"),
        rnn.TBPTT(1, 1, normalize=normalize) as truncated,
    ):
        truncated.step(mg.tensor(1.0))


def test_it_does_not_open_inside_another_tape() -> None:
    with mg.Tape(), pytest.raises(mg.TapeError, match="already recording"), rnn.TBPTT(1, 1):
        pass


def test_an_error_inside_the_block_empties_the_tape_and_the_window() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    truncated = rnn.TBPTT(2, 4)
    with pytest.raises(KeyError), truncated:
        truncated.step(w * 2.0)
        raise KeyError
    assert len(truncated.tape) == 0
    with truncated:
        assert truncated.step(w * 3.0) is None
        assert truncated.step(w * 3.0) is not None
    assert w.grad is not None
    assert w.grad.item() == 3.0


def test_a_parameter_out_of_the_losses_reach_is_noticed_by_the_optimizer() -> None:
    used, unused = nn.Parameter(np.ones(1)), nn.Parameter(np.ones(1))
    optimizer = mg.optim.SGD([used, unused], lr=0.1)
    with rnn.TBPTT(1, 1) as truncated:
        truncated.step(mg.sum(used * 2.0))
    with pytest.raises(ValueError, match="parameter 1"):
        optimizer.step()
