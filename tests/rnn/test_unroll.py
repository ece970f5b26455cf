"""unroll: any cell over time, forwards and backwards, and what the tape holds of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from cell_table import KINDS

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad.containers import leaves_of
from minigrad.testing import check_gradients

INPUTS, HIDDEN, BATCH, TIME = 3, 4, 2, 5

CELLS: dict[str, type[Any]] = {"tanh": rnn.RNNCell, "lstm": rnn.LSTMCell, "gru": rnn.GRUCell}

every_kind = pytest.mark.parametrize("kind", CELLS)


def make_cell(kind: str) -> rnn.Cell:
    cell: rnn.Cell = CELLS[kind](INPUTS, HIDDEN, dtype="float64", rng=0)
    return cell


def sequence(rng: np.random.Generator, time: int = TIME, *batch: int) -> Tensor:
    return mg.tensor(rng.normal(size=(time, *(batch or (BATCH,)), INPUTS)))


def zeros(*shape: int) -> Tensor:
    return mg.tensor(np.zeros(shape))


def assert_equal(own: Any, expected: Any, tolerance: float = 0.0) -> None:
    assert type(own) is type(expected)
    if isinstance(own, dict):
        assert own.keys() == expected.keys()
        own, expected = list(own.values()), list(expected.values())
    if isinstance(own, list | tuple):
        for part, expected_part in zip(own, expected, strict=True):
            assert_equal(part, expected_part, tolerance)
    else:
        np.testing.assert_allclose(own.numpy(), expected.numpy(), rtol=0, atol=tolerance)


# --------------------------------------------------------------------------------------
# Cells
# --------------------------------------------------------------------------------------


class Doubled(nn.Module):
    def __init__(self, inner: rnn.Cell) -> None:
        self.inner = inner

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.inner(x, state)
        return 2.0 * y, state


class DoubledByInheritance(rnn.GRUCell):
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state)
        return 2.0 * y, state


def plain_function(cell: rnn.Cell) -> Callable[[Tensor, Any], tuple[Tensor, Any]]:
    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = cell(x, state)
        return 2.0 * y, state

    return step


def subclass(cell: rnn.Cell) -> DoubledByInheritance:
    doubled = DoubledByInheritance(INPUTS, HIDDEN, dtype="float64")
    doubled.load_state_dict(cell.state_dict())
    return doubled


@pytest.mark.parametrize("wrap", [plain_function, Doubled, subclass])
@pytest.mark.parametrize("given", [True, False], ids=["given state", "default state"])
@pytest.mark.parametrize("lengths", [None, [5, 2]])
@pytest.mark.parametrize("reverse", [False, True])
def test_any_function_or_module_is_a_cell(
    rng: np.random.Generator,
    wrap: Callable[[rnn.Cell], Any],
    given: bool,
    lengths: list[int] | None,
    reverse: bool,
) -> None:
    cell = make_cell("gru")
    xs = sequence(rng)
    state = mg.tensor(rng.normal(size=(BATCH, HIDDEN))) if given else None
    ys, last = rnn.unroll(cell, xs, state, lengths=lengths, reverse=reverse)
    doubled, own_last = rnn.unroll(wrap(cell), xs, state, lengths=lengths, reverse=reverse)
    assert_equal(doubled, 2.0 * ys, 1e-14)
    assert_equal(own_last, last, 1e-14)


def test_a_users_cell_is_differentiated_through_time() -> None:
    w = mg.tensor(0.5, dtype="float64", requires_grad=True)
    with mg.Tape() as tape:
        ys, last = rnn.unroll(lambda x, h: (w * h + x, w * h + x), mg.tensor(np.ones(4)), w)
    # h_4 = w^5 + w^3 + w^2 + w + 1, and the derivative of that.
    assert last.item() == 0.5**5 + 0.5**3 + 0.5**2 + 0.5 + 1
    assert ys.shape == (4,)
    assert tape.gradient(last, w).item() == 5 * 0.5**4 + 3 * 0.5**2 + 2 * 0.5 + 1


class Two(NamedTuple):
    fast: Tensor
    slow: Tensor


def nested(x: Tensor, state: Any) -> tuple[Any, Any]:
    """A cell whose y and state are nested."""
    state = state or {"both": Two(x, x), "past": [x]}
    fast, slow = state["both"]
    both = Two(mg.tanh(fast + x), 0.9 * slow + 0.1 * x)
    return (both.fast, [both.slow]), {"both": both, "past": [fast]}


@pytest.mark.parametrize("reverse", [False, True])
def test_y_and_state_may_be_nested_in_any_way(rng: np.random.Generator, reverse: bool) -> None:
    xs = sequence(rng)
    (fast, [slow]), states = rnn.unroll(nested, xs, reverse=reverse, outputs="states")
    _, last = rnn.unroll(nested, xs, reverse=reverse)
    y, _ = rnn.unroll(nested, xs, reverse=reverse, outputs="last")
    end = 0 if reverse else -1
    assert_equal(states["both"].fast, fast)
    assert_equal(states["both"].slow, slow)
    assert_equal(states["past"][0][end], last["past"][0])
    assert_equal(last["both"], Two(fast[end], slow[end]))
    assert_equal(y, (fast[end], [slow[end]]))


@every_kind
@pytest.mark.parametrize("batch", [(BATCH,), ()], ids=["batch", "no batch"])
def test_reverse_is_forward_on_the_reversed_sequence(
    rng: np.random.Generator, kind: str, batch: tuple[int, ...]
) -> None:
    cell = make_cell(kind)
    xs = mg.tensor(rng.normal(size=(TIME, *batch, INPUTS)))
    ys, last = rnn.unroll(cell, xs, reverse=True)
    expected, expected_last = rnn.unroll(cell, xs[::-1])
    assert_equal(ys[::-1], expected, 1e-14)
    assert_equal(last, expected_last, 1e-14)


@every_kind
@pytest.mark.parametrize("reverse", [False, True])
def test_a_long_sequence_equals_one_call_per_step(
    rng: np.random.Generator, kind: str, reverse: bool
) -> None:
    cell = make_cell(kind)
    xs = sequence(rng, 150)  # longer than what is projected at once
    parameters = list(cell.parameters())
    with mg.Tape() as tape:
        ys, last = rnn.unroll(cell, xs, reverse=reverse)
        expected, state = [], None
        for x in list(xs)[:: -1 if reverse else 1]:
            y, state = cell(x, state)
            expected.append(y)
        stacked = mg.stack(expected[:: -1 if reverse else 1])
        loss, expected_loss = (ys * ys).sum(), (stacked * stacked).sum()
    assert_equal(ys, stacked, 1e-13)
    assert_equal(last, state, 1e-13)
    for own, their in zip(
        tape.gradient(loss, parameters, retain=True),
        tape.gradient(expected_loss, parameters),
        strict=True,
    ):
        assert_equal(own, their, 1e-11)  # sums over 300 steps of order 1


@pytest.mark.parametrize("outputs", ["sequence", "last", "states"])
def test_every_output_is_differentiated(rng: np.random.Generator, outputs: Any) -> None:
    cell = make_cell("lstm")

    def run(xs: Tensor, h: Tensor, c: Tensor) -> Tensor:
        ys, state = rnn.unroll(cell, xs, (h, c), lengths=[2, 4], outputs=outputs)
        return ys.sum() + sum((part * part).sum() for part in state)

    check_gradients(run, *[rng.normal(size=shape) for shape in ((4, 2, 3), (2, 4), (2, 4))])


def test_the_initial_state_may_be_given(rng: np.random.Generator) -> None:
    cell = make_cell("gru")
    xs, initial = sequence(rng), mg.tensor(rng.normal(size=(BATCH, HIDDEN)))
    starts = np.zeros((TIME, BATCH), bool)
    starts[2] = True
    ys, _ = rnn.unroll(cell, xs, initial=initial, reset=starts)
    assert_equal(ys[:2], rnn.unroll(cell, xs[:2], initial)[0], 1e-14)
    assert_equal(ys[2:], rnn.unroll(cell, xs[2:], initial)[0], 1e-14)


# --------------------------------------------------------------------------------------
# Played and unrolled
# --------------------------------------------------------------------------------------

MARKS: dict[str, Any] = {
    "none": {},
    "lengths": {"lengths": [3, 5]},
    "a mask": {"mask": np.array([[1, 1], [0, 1], [1, 0], [0, 0], [0, 1]], bool)},
    "resets": {"reset": np.array([[0, 1], [0, 0], [1, 0], [0, 1], [0, 0]], bool)},
    "all": {
        "mask": np.array([[0, 1], [1, 1], [1, 0], [1, 1], [1, 0]], bool),
        "reset": np.array([[0, 0], [1, 0], [0, 0], [1, 1], [0, 0]], bool),
    },
}


def assert_played_is_unrolled(run: Callable[[bool], Any], sources: list[Tensor]) -> None:
    found = []
    for unrolled in (False, True):
        with mg.Tape() as tape:
            results = leaves_of(run(unrolled))
            assert (recorded(tape, "scan") > 0) is not unrolled
            loss = sum((part * part).sum() for part in results)
            gradients = tape.gradient(loss, sources, create_graph=True, unconnected="zero")
            second = tape.gradient(sum((g * g).sum() for g in gradients), sources)
        found.append((results, gradients, second))
    for played, unrolled in zip(*found, strict=True):
        for one, other in zip(played, unrolled, strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("marks", MARKS)
def test_every_cell_is_played_as_it_is_unrolled(
    rng: np.random.Generator, kind: str, marks: str
) -> None:
    cell = KINDS[kind].make()
    xs = mg.tensor(rng.normal(size=(TIME, BATCH, INPUTS)), requires_grad=True)
    for reverse, outputs in ((False, "sequence"), (True, "last"), (True, "states")):
        settings: Any = {**MARKS[marks], "reverse": reverse, "outputs": outputs}
        assert_played_is_unrolled(
            lambda unrolled: rnn.unroll(cell, xs, unrolled=unrolled, **settings),  # noqa: B023
            [xs, *cell.parameters()],
        )


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"num_layers": 2, "dropout": 0.3, "input_dropout": 0.2, "recurrent_dropout": 0.4},
        {"weight_dropout": 0.5, "variational": True, "input_dropout": 0.2},
        {"learn_initial_state": True, "outputs": "states"},
        {"zoneout_h": 0.3, "zoneout_c": 0.2, "num_layers": 2, "residual": True},
    ],
    ids=lambda options: " ".join(options),
)
def test_every_layer_is_played_as_it_is_unrolled(
    rng: np.random.Generator, options: dict[str, Any]
) -> None:
    width = HIDDEN if "residual" in options else INPUTS
    generator = np.random.default_rng(0)  # of all that is drawn
    layer = rnn.LSTM(width, HIDDEN, rng=generator, dtype="float64", **options)
    state = generator.bit_generator.state
    shape = (BATCH, TIME, width) if layer.batch_first else (TIME, BATCH, width)
    xs = mg.tensor(rng.normal(size=shape), requires_grad=True)

    def run(unrolled: bool) -> Any:
        layer.unrolled = unrolled
        generator.bit_generator.state = state
        return layer(xs, lengths=[4, 5])

    assert_played_is_unrolled(run, [xs, *layer.parameters()])


def test_what_the_users_cell_does_besides_is_done_at_every_step(rng: np.random.Generator) -> None:
    seen: list[Any] = []

    def watched(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(h)
        return h, h

    class Watched(rnn.GRUCell):
        def step(self, projected: Tensor, state: Any) -> tuple[Tensor, Any]:
            seen.append(state)
            return super().step(projected, state)

    rnn.unroll(Watched(INPUTS, HIDDEN, dtype="float64"), sequence(rng))
    rnn.unroll(watched, sequence(rng), sequence(rng)[0])
    assert len(seen) == 2 * TIME


def test_a_cell_that_cannot_be_played_is_unrolled_unless_that_is_asked_for(
    rng: np.random.Generator,
) -> None:
    def looks(x: Tensor, h: Tensor) -> Any:
        return (h, h) if x.sum().item() > 0.0 else (x, x)

    xs, state = sequence(rng), sequence(rng)[0]
    rnn.unroll(looks, xs, state)
    with pytest.raises(mg.ScanError, match="cannot look at the values of a tensor"):
        rnn.unroll(looks, xs, state, unrolled=False)
    with pytest.raises(ValueError, match="to be played a cell needs a first state"):
        rnn.unroll(looks, xs, unrolled=False)


# --------------------------------------------------------------------------------------
# What the tape holds
# --------------------------------------------------------------------------------------


def recorded(tape: mg.Tape, operation: str) -> int:
    return sum(entry.operation.name == operation for entry in tape)


@pytest.mark.parametrize(("lengths", "masked"), [(None, 0), ([5, 5], 0), ([3, 5], 2), ([1, 2], 4)])
def test_only_masked_steps_cost_a_where_for_each_part_of_the_state(
    rng: np.random.Generator, lengths: list[int] | None, masked: int
) -> None:
    xs = mg.tensor(rng.normal(size=(TIME, BATCH, INPUTS)), requires_grad=True)
    with mg.Tape() as tape:
        rnn.unroll(make_cell("lstm"), xs, lengths=lengths, unrolled=True)
    # One for h and one for c; and once each for all xs and all ys.
    assert recorded(tape, "where") == (2 * masked + 2 if masked else 0)
    with mg.Tape() as other:
        mask = np.arange(TIME)[:, None] < np.array(lengths or [5, 5])
        rnn.unroll(make_cell("lstm"), xs, mask=mask, unrolled=True)
    assert recorded(other, "where") == recorded(tape, "where")


@pytest.mark.parametrize("reverse", [False, True])
def test_the_tape_grows_by_the_same_for_every_step(reverse: bool) -> None:
    layer = rnn.LSTM(INPUTS, HIDDEN, num_layers=2, bidirectional=reverse, rng=0, unrolled=True)

    def entries_and_bytes(time: int) -> tuple[int, int]:
        xs = mg.tensor(np.ones((time, BATCH, INPUTS), "float32"), requires_grad=True)
        with mg.Tape() as tape:
            layer(xs)
        return len(tape), tape.nbytes

    (entries, held), (twice, held_twice), (four, held_four) = map(
        entries_and_bytes, (128, 256, 512)
    )
    assert four - twice == 2 * (twice - entries)
    assert abs((held_four - held_twice) - 2 * (held_twice - held)) < 0.01 * held_four


@pytest.mark.parametrize("unrolled", [True, False])
def test_peak_memory_is_that_of_the_arrays_which_the_gradient_needs(unrolled: bool) -> None:
    layer = rnn.LSTM(64, 64, num_layers=2, rng=0, unrolled=unrolled)
    xs = mg.tensor(np.ones((200, 32, 64), "float32"))

    def train() -> int:
        with mg.Tape() as tape:
            ys, _ = layer(xs)
            loss = (ys * ys).sum()
        held = tape.nbytes
        del ys
        tape.backward(loss)
        return held

    train()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        held = train()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before <= 1.3 * held


# --------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell", [make_cell("lstm"), lambda x, state: (x, state)], ids=["cell", "f"]
)
@pytest.mark.parametrize("shape", [(0, BATCH, INPUTS), ()])
def test_unrolling_nothing_is_refused(cell: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one step"):
        rnn.unroll(cell, zeros(*shape))


@every_kind
@pytest.mark.parametrize("shape", [(5, BATCH, 2), (5, 2), (5,), (5, 1, BATCH, INPUTS)])
def test_unroll_refuses_a_sequence_of_another_shape(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Cell expects xs \(time, batch, 3\), not \("):
        rnn.unroll(make_cell(kind), zeros(*shape))


def test_unroll_refuses_a_state_of_another_batch() -> None:
    with pytest.raises(ValueError, match=r"expects a state of shape \(2, 4\), not \(3, 4\)"):
        rnn.unroll(make_cell("gru"), zeros(5, BATCH, INPUTS), zeros(3, HIDDEN))
    with pytest.raises(ValueError, match=r"expects a state of shape \(4,\), not \(2, 4\)"):
        rnn.unroll(make_cell("gru"), zeros(5, INPUTS), zeros(2, HIDDEN))


def test_unroll_refuses_other_outputs() -> None:
    with pytest.raises(ValueError, match="'sequence', 'last' or 'states', not 'all'"):
        rnn.unroll(make_cell("gru"), zeros(5, BATCH, INPUTS), outputs="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", [lambda x, state: x, lambda x, state: (x, x, x)])
def test_a_cell_that_returns_no_pair_is_refused(cell: Any) -> None:
    # A tensor of two rows could be taken apart like a pair.
    with pytest.raises(TypeError, match=r"a cell returns the pair \(y, state\); <lambda> returned"):
        rnn.unroll(cell, zeros(5, BATCH, INPUTS))


@pytest.mark.parametrize("layer", [rnn.RNN, rnn.LSTM, rnn.GRU])
def test_the_gradients_of_weights_lie_in_memory_as_the_weights_do(layer: Any) -> None:
    # Otherwise optimizers and clipping take several times as long.
    made = layer(3, 4, num_layers=2, bidirectional=True, rng=0)
    with mg.Tape() as tape:
        y = made(mg.tensor(np.ones((6, 2, 3), "float32")))[0].sum()
    tape.backward(y)
    for name, parameter in made.named_parameters():
        assert parameter.grad.array.flags.c_contiguous, name
