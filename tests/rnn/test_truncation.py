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
    *[(1, 1), (3, 3), (4, 4), (13, 13)],
    *[(1, 2), (1, 4), (2, 3), (2, 5), (3, 4), (3, 8), (5, 11), (1, 20), (6, 20)],
    *[(2, 1), (3, 1), (3, 2), (5, 3), (13, 4)],
]

every_period = pytest.mark.parametrize(("k1", "k2"), PERIODS)
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
        self.states = [np.zeros((BATCH, HIDDEN))]

    def advance(self) -> None:
        """One step forward."""
        w, x = self.weights, self.xs[len(self.used)]
        self.used.append(dict(w))
        self.states.append(np.tanh(x @ w["U"].T + self.states[-1] @ w["W"].T + w["b"]))

    def errors(self, t: int) -> Array:
        return self.states[t + 1] @ self.used[t]["V"].T - self.targets[t]

    def gradient(
        self, steps: range, wanted: list[int], normalize: Normalize
    ) -> tuple[float, dict[str, Array]]:
        """The loss of the wanted steps of a window, and its gradient."""
        share = 1.0 / len(wanted) if normalize == "mean" else 1.0
        loss = share * sum(float(np.mean(self.errors(t) ** 2)) for t in wanted)
        total = {name: np.zeros_like(value) for name, value in self.weights.items()}
        dh = np.zeros((BATCH, HIDDEN))
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
        return loss, total

    def update(self, gradient: dict[str, Array], lr: float) -> None:
        self.weights = {name: w - lr * gradient[name] for name, w in self.weights.items()}


def make_problem(rng: np.random.Generator, time: int) -> ByHand:
    shapes = {"U": (HIDDEN, INPUTS), "W": (HIDDEN, HIDDEN), "b": (HIDDEN,), "V": (2, HIDDEN)}
    return ByHand(
        {name: rng.normal(size=shape) for name, shape in shapes.items()},
        rng.normal(size=(time, BATCH, INPUTS)),
        rng.normal(size=(time, BATCH, 2)),
    )


def one_step(w: dict[str, Tensor], x: Any, h: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    """The step of ``ByHand``, on tensors: the loss and the new state."""
    h = mg.tanh(x @ w["U"].T + h @ w["W"].T + w["b"])
    return mg.mean((h @ w["V"].T - target) ** 2), h


@every_period
@every_losses
@every_normalize
@updated_or_not
def test_every_window_equals_the_recursion_by_hand(
    rng: np.random.Generator, k1: int, k2: int, losses: Losses, normalize: Normalize, lr: float
) -> None:
    hand = make_problem(rng, time=13)
    weights = {n: mg.tensor(w, requires_grad=True) for n, w in hand.weights.items()}
    optimizer = mg.optim.SGD(weights.values(), lr=lr)
    h = mg.tensor(hand.states[0])
    expected = windows(13, k1, k2, losses)
    seen = 0
    with rnn.TBPTT(k1, k2, losses=losses, normalize=normalize) as truncated:
        for x, target in zip(hand.xs, hand.targets, strict=True):
            hand.advance()
            loss, h = one_step(weights, x, h, target)
            window_loss = truncated.step(loss)
            assert (window_loss is None) == (len(hand.used) % k1 > 0)
            if window_loss is None:
                continue
            seen += 1
            hand_loss, gradient = hand.gradient(*next(expected), normalize)
            np.testing.assert_allclose(window_loss.item(), hand_loss, rtol=1e-12)
            assert not window_loss.requires_grad
            for name, weight in weights.items():
                assert weight.grad is not None
                np.testing.assert_allclose(
                    weight.grad.numpy(), gradient[name], rtol=1e-12, atol=1e-12, err_msg=name
                )
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
        self.targets = targets

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
        values = [parameter.numpy() for parameter in self.parameters]
        at = []
        for step in (h, -h):
            for parameter, value, direction in zip(
                self.parameters, values, directions, strict=True
            ):
                parameter.rebind(value + step * direction)
            at.append(loss().item())
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.rebind(value)
        return (at[0] - at[1]) / (2 * h)


@pytest.mark.parametrize("cell_type", [rnn.RNNCell, rnn.GRUCell, rnn.LSTMCell])
@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (1, 4), (2, 5), (4, 2), (12, 12)])
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
    """x' = w x from 0.9, with w = 0.2: the derivatives of w^t x are t w^(t-1) x.

    A recipe that is widely copied gives 0.288 instead of 0.108 at the third step, since the
    gradients of its states pile up from window to window.
    """
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


@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (1, 6), (3, 7), (5, 2)])
@pytest.mark.usefixtures("no_collector")
def test_the_process_does_not_grow(k1: int, k2: int) -> None:
    cell = rnn.GRUCell(8, 32, rng=0)
    optimizer = mg.optim.SGD(cell.parameters(), lr=0.01, momentum=0.9)
    x = mg.tensor(np.ones((16, 8)), dtype="float32")
    state = None
    arrays = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    held: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        with rnn.TBPTT(k1, k2) as truncated:
            while len(held) < 30:
                y, state = cell(x, state)
                if truncated.step(mg.mean(y * y)) is not None:
                    optimizer.step()
                    optimizer.zero_grad()
                    traces = tracemalloc.take_snapshot().filter_traces([arrays]).traces
                    # Of Python's own memory the objects are counted, not the bytes: freed
                    # tuples stay in CPython's free lists for a while.
                    held.append((sum(trace.size for trace in traces), len(gc.get_objects())))
    finally:
        tracemalloc.stop()
    settled = held[2 * -(-k2 // k1) :]
    assert settled[0][0] > 0
    assert len({number_of_bytes for number_of_bytes, _ in settled}) == 1
    # The list of these pairs itself is all that grows: by one pair a window.
    first, last = settled[0][1], settled[-1][1]
    assert last - first <= len(settled)


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
                loss = mg.mean((ys - targets[taken]) ** 2)
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
        ({"k1": 1, "k2": 1, "normalize": "none"}, "'mean' or 'sum', not 'none'"),
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


@pytest.mark.parametrize(("k1", "k2", "steps"), [(4, 4, 3), (4, 6, 4), (6, 4, 3), (4, 4, 0)])
def test_steps_that_do_not_divide_the_periods_are_refused(k1: int, k2: int, steps: int) -> None:
    truncated = rnn.TBPTT(k1, k2)
    with pytest.raises(ValueError, match=f"k1={k1} and k2={k2} are not multiples of the {steps}"):
        truncated.step(mg.tensor(1.0), steps)


def test_a_call_that_oversteps_the_end_of_a_window_is_refused() -> None:
    w = mg.tensor(0.5, requires_grad=True)
    with rnn.TBPTT(4, 4) as truncated:
        for steps in (1, 2):
            truncated.step(w * 2.0, steps)
        with pytest.raises(ValueError, match="steps"):
            truncated.step(w * 2.0, 2)


def test_the_last_loss_needs_steps_one_by_one() -> None:
    with pytest.raises(ValueError, match=r"losses='last' needs the steps .* one by one"):
        rnn.TBPTT(4, 4, losses="last").step(mg.tensor(1.0), 2)


@pytest.mark.parametrize("normalize", get_args(Normalize))
def test_a_loss_that_records_nothing_is_refused(normalize: Normalize) -> None:
    with (
        pytest.raises(mg.TapeError, match="nothing was recorded for this tensor"),
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
