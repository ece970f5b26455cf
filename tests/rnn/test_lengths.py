"""Sequences of different lengths, masks with holes, and resets: against every row by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minigrad as mg
import minigrad_rnn as rnn
from minigrad import Tensor, nn
from minigrad.testing import check_gradients

INPUTS, HIDDEN = 3, 4

LAYERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "tanh": (rnn.RNN, {}),
    "lstm": (rnn.LSTM, {"proj_size": 2}),
    "gru": (rnn.GRU, {}),
}

every_kind = pytest.mark.parametrize("kind", LAYERS)
one_or_both_directions = pytest.mark.parametrize("bidirectional", [False, True])


def make_layer(kind: str, layers: int = 2, **settings: Any) -> rnn.Recurrent:
    layer_type, own = LAYERS[kind]
    layer: rnn.Recurrent = layer_type(
        INPUTS, HIDDEN, layers, **{"dtype": "float64", "rng": 0, **own, **settings}
    )
    return layer


def parts_of(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def random_state(layer: rnn.Recurrent, batch: int, rng: np.random.Generator) -> Any:
    parts = [
        mg.tensor(rng.normal(size=part.shape), requires_grad=True)
        for part in parts_of(layer.initial_state(batch))
    ]
    return tuple(parts) if len(parts) > 1 else parts[0]


def zeros(*shape: int) -> Tensor:
    return mg.tensor(np.zeros(shape))


def run_row(
    cell: rnn.Cell, xs: list[Tensor], state: Any, valid: Any, starts: Any, reverse: bool
) -> tuple[list[Tensor], Any]:
    """One sequence, one call of the cell for every valid step of it."""
    ys = [zeros(1, cell.output_size)] * len(xs)
    for t in reversed(range(len(xs))) if reverse else range(len(xs)):
        if starts[t] and not reverse:
            state = cell.initial_state(1)
        if valid[t]:
            ys[t], state = cell(xs[t], state)
        if starts[t] and reverse and t:
            state = cell.initial_state(1)
    return ys, state


def row_by_row(
    layer: rnn.Recurrent, xs: Tensor, state: Any, valid: Any, starts: Any
) -> tuple[Tensor, list[Tensor]]:
    """The layer's outputs and the parts of its last state, every sequence by itself."""
    columns, parts = [], []
    for row in range(xs.shape[1]):
        ys = [x[row : row + 1] for x in xs]
        own = [part[:, row : row + 1] for part in parts_of(state)]
        last: list[Any] = []
        for cells in layer.layers:
            both = []
            for reverse, cell in enumerate(cells):
                first = tuple(part[len(last)] for part in own)
                begin = first if len(first) > 1 else first[0]
                y, end = run_row(cell, ys, begin, valid[:, row], starts[:, row], bool(reverse))
                both.append(y)
                last.append(end)
            ys = [mg.concatenate(pair, axis=-1) for pair in zip(*both, strict=True)]
        columns.append(mg.stack(ys))
        parts.append([mg.stack(p) for p in zip(*map(parts_of, last), strict=True)])
    joined = [mg.concatenate(p, axis=1) for p in zip(*parts, strict=True)]
    return mg.concatenate(columns, axis=1), joined


def assert_close(own: Any, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(own.numpy(), expected.numpy(), rtol=0, atol=tolerance)


@every_kind
@one_or_both_directions
@given(data=st.data())
def test_masks_with_holes_and_resets_equal_every_row_by_itself(
    kind: str, bidirectional: bool, data: st.DataObject
) -> None:
    layer = make_layer(kind, bidirectional=bidirectional)
    time, batch = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    flags = st.lists(st.booleans(), min_size=time * batch, max_size=time * batch)
    valid, starts = (np.array(data.draw(flags)).reshape(time, batch) for _ in range(2))
    assume(valid.any())
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.normal(size=(time, batch, INPUTS))
    xs = mg.tensor(np.where(valid[..., None], values, np.nan), requires_grad=True)
    clean = mg.tensor(values, requires_grad=True)
    state = random_state(layer, batch, rng)
    others = [*parts_of(state), *layer.parameters()]
    with mg.Tape() as tape:
        ys, last = layer(xs, state, mask=valid, reset=starts)
        expected, expected_last = row_by_row(layer, clean, state, valid, starts)
        weight = mg.tensor(rng.normal(size=ys.shape))
        loss, expected_loss = (
            mg.stack([(y * weight).sum(), *((part * part).sum() for part in parts)]).sum()
            for y, parts in ((ys, parts_of(last)), (expected, expected_last))
        )
    assert_close(ys, expected)
    assert not ys.numpy()[~valid].any()
    for part, expected_part in zip(parts_of(last), expected_last, strict=True):
        assert_close(part, expected_part)
    own = tape.gradient(loss, [xs, *others], retain=True, unconnected="zero")
    their = tape.gradient(expected_loss, [clean, *others], unconnected="zero")
    for gradient, expected_gradient in zip(own, their, strict=True):
        assert_close(gradient, expected_gradient)
    assert not own[0].numpy()[~valid].any()


@every_kind
@one_or_both_directions
def test_padding_is_not_read_and_receives_no_gradient(
    rng: np.random.Generator, kind: str, bidirectional: bool
) -> None:
    layer = make_layer(kind, bidirectional=bidirectional)
    lengths = [2, 5, 1]
    padding = np.arange(5)[:, None] >= np.array(lengths)
    values = rng.normal(size=(5, 3, INPUTS))
    found = []
    for filling in (0.0, 1e300, np.inf, np.nan):
        xs = mg.tensor(np.where(padding[..., None], filling, values), requires_grad=True)
        with mg.Tape() as tape:
            ys, state = layer(xs, lengths=lengths)
            loss = (ys * ys).sum() + (parts_of(state)[0] ** 2).sum()
        gradients = tape.gradient(loss, [xs, *layer.parameters()])
        assert not gradients[0].numpy()[padding].any()
        assert gradients[0].numpy()[~padding].all()
        found.append([ys, *parts_of(state), *gradients])
    for others in found[1:]:
        for own, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(own.numpy(), other.numpy())


@every_kind
@one_or_both_directions
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_reset_splits_the_sequence(
    rng: np.random.Generator, kind: str, bidirectional: bool, batch_first: bool
) -> None:
    layer = make_layer(kind, 1, bidirectional=bidirectional, batch_first=batch_first)
    xs = rng.normal(size=(7, 2, INPUTS))
    starts = np.zeros((7, 2), bool)
    starts[3] = starts[0] = True

    def run(part: Any, **marks: Any) -> tuple[Tensor, Any]:
        marks = {k: v.T if batch_first else v for k, v in marks.items()}
        ys, last = layer(mg.tensor(part.swapaxes(0, 1) if batch_first else part), **marks)
        return ys.swapaxes(0, 1) if batch_first else ys, last

    ys, last = run(xs, reset=starts)
    first, first_last = run(xs[:3])
    second, second_last = run(xs[3:])
    assert_close(ys, mg.concatenate([first, second]), 1e-14)
    for own, left, right in zip(*map(parts_of, (last, first_last, second_last)), strict=True):
        # Forwards the second part comes last, in reverse the first.
        assert_close(own, mg.concatenate([right[:1], left[1:]]), 1e-14)


def test_no_gradient_flows_back_over_a_reset(rng: np.random.Generator) -> None:
    layer = make_layer("lstm")
    xs = mg.tensor(rng.normal(size=(6, 2, INPUTS)), requires_grad=True)
    starts = np.zeros((6, 2), bool)
    starts[4, 1] = True
    with mg.Tape() as tape:
        ys, _ = layer(xs, reset=starts)
        loss = (ys[-1] ** 2).sum()
    gradient = tape.gradient(loss, xs).numpy()
    assert gradient[:, 0].all()
    assert not gradient[:4, 1].any()
    assert gradient[4:, 1].all()


def test_a_given_state_is_that_of_the_sequence_which_goes_on(rng: np.random.Generator) -> None:
    layer = make_layer("gru")
    xs, state = mg.tensor(rng.normal(size=(4, 2, INPUTS))), random_state(make_layer("gru"), 2, rng)
    ys, _ = layer(xs, state, reset=np.array([[True, False], *[[False, False]] * 3]))
    assert_close(ys[:, 0], layer(xs)[0][:, 0], 1e-14)
    assert_close(ys[:, 1], layer(xs, state)[0][:, 1], 1e-14)


def test_reverse_begins_at_the_last_valid_step(rng: np.random.Generator) -> None:
    cell = rnn.GRUCell(INPUTS, HIDDEN, dtype="float64", rng=0)
    lengths = np.array([3, 5, 1])
    values = rng.normal(size=(5, 3, INPUTS))
    ys, last = rnn.unroll(cell, mg.tensor(values), lengths=lengths, reverse=True)
    flipped = values.copy()
    for row, length in enumerate(lengths):
        flipped[:length, row] = values[:length, row][::-1]
    expected, expected_last = rnn.unroll(cell, mg.tensor(flipped), lengths=lengths)
    assert_close(last, expected_last, 1e-14)
    for row, length in enumerate(lengths):
        assert_close(ys[:length, row], expected[:length, row][::-1], 1e-14)


@pytest.mark.parametrize("kind", [list, tuple, np.array, mg.tensor])
def test_lengths_may_be_given_in_any_form(rng: np.random.Generator, kind: Any) -> None:
    layer = make_layer("gru")
    xs = mg.tensor(rng.normal(size=(5, 3, INPUTS)))
    ys, _ = layer(xs, lengths=kind([2, 5, 1]))
    expected, _ = layer(xs, mask=np.arange(5)[:, None] < np.array([2, 5, 1]))
    np.testing.assert_array_equal(ys.numpy(), expected.numpy())


@pytest.mark.parametrize(
    "cell_type",
    [
        rnn.IndRNNCell,
        rnn.MGUCell,
        rnn.MinGRUCell,
        rnn.MinLSTMCell,
        rnn.LRUCell,
    ],
)
def test_other_cells_make_layers_with_lengths(
    rng: np.random.Generator, cell_type: type[Any]
) -> None:
    made = {"dtype": "float64", "rng": rng}
    lower = (cell_type(INPUTS, HIDDEN, **made), cell_type(INPUTS, HIDDEN, **made))
    layer = rnn.Recurrent([lower, cell_type(2 * HIDDEN, HIDDEN, **made)])
    xs = mg.tensor(rng.normal(size=(5, 3, INPUTS)))
    lengths = [3, 5, 1]
    ys, states = layer(xs, lengths=lengths)
    for row, length in enumerate(lengths):
        alone, own = layer(xs[:length, row])
        assert_close(ys[:length, row], alone, 1e-14)
        assert not ys.numpy()[length:, row].any()
        for state, part in zip(states, own, strict=True):
            for of_batch, of_row in zip(parts_of(state), parts_of(part), strict=True):
                assert_close(of_batch[row], of_row, 1e-14)


def test_masked_gradients_to_second_order(rng: np.random.Generator) -> None:
    layer = make_layer("gru", bidirectional=True)
    valid = np.array([[True, False], [False, True], [True, True], [False, True]])
    check_gradients(lambda xs: layer(xs, mask=valid)[0], rng.normal(size=(4, 2, INPUTS)))


def test_a_row_of_a_function_that_begins_later_begins_with_zeros() -> None:
    def total(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        both = {"sum": x if state is None else state["sum"] + x}
        return both["sum"], both

    xs = mg.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    valid = np.array([[False, True], [True, True], [True, False]])
    ys, last = rnn.unroll(total, xs, mask=valid)
    assert ys.tolist() == [[0.0, 10.0], [2.0, 30.0], [5.0, 0.0]]
    assert last["sum"].tolist() == [5.0, 30.0]
    ys, last = rnn.unroll(total, xs, reset=np.array([[False] * 2, [True, False], [False] * 2]))
    assert ys.tolist() == [[1.0, 10.0], [2.0, 30.0], [5.0, 60.0]]
    ys, last = rnn.unroll(total, xs, initial={"sum": mg.tensor([100.0, 200.0])}, mask=valid)
    assert last["sum"].tolist() == [105.0, 230.0]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_without_valid_steps_keeps_its_state(
    rng: np.random.Generator, reverse: bool
) -> None:
    cell = rnn.LSTMCell(INPUTS, HIDDEN, dtype="float64", rng=0)
    xs = mg.tensor(rng.normal(size=(3, 2, INPUTS)))
    state = tuple(mg.tensor(rng.normal(size=(2, HIDDEN))) for _ in range(2))
    valid = np.array([[True, False]] * 3)
    ys, last = rnn.unroll(cell, xs, state, mask=valid, reverse=reverse)
    y, _ = rnn.unroll(cell, xs, state, mask=valid, reverse=reverse, outputs="last")
    assert not ys.numpy()[:, 1].any()
    assert not y.numpy()[1].any()
    for part, own in zip(state, last, strict=True):
        np.testing.assert_array_equal(own.numpy()[1], part.numpy()[1])


# --------------------------------------------------------------------------------------
# Between batches
# --------------------------------------------------------------------------------------


@every_kind
def test_reset_state_sets_single_sequences_back(rng: np.random.Generator, kind: str) -> None:
    layer = make_layer(kind)
    xs = mg.tensor(rng.normal(size=(4, 3, INPUTS)))
    state = random_state(layer, 3, rng)
    fresh = [False, True, False]
    ys, _ = layer(xs, rnn.reset_state(state, fresh))
    for row, begins in enumerate(fresh):
        expected, _ = layer(xs, None if begins else state)
        assert_close(ys[:, row], expected[:, row], 1e-14)
    initial = random_state(layer, 1, rng)
    for before, own, first in zip(
        *map(parts_of, (state, rnn.reset_state(state, fresh, initial), initial)), strict=True
    ):
        np.testing.assert_array_equal(own.numpy()[:, 1], first.numpy()[:, 0])
        np.testing.assert_array_equal(own.numpy()[:, ::2], before.numpy()[:, ::2])


def test_reset_state_of_all_or_none_and_of_users_states() -> None:
    state = {"a": [mg.tensor([1.0, 2.0])], "b": (mg.tensor([[3.0], [4.0]]),)}
    kept = rnn.reset_state(state, np.array([False, True]), batch_axis=0)
    assert kept["a"][0].tolist() == [1.0, 0.0]
    assert kept["b"][0].tolist() == [[3.0], [0.0]]
    assert rnn.reset_state(state, False)["a"][0].tolist() == [1.0, 2.0]
    assert rnn.reset_state(state, True)["a"][0].tolist() == [0.0, 0.0]
    assert rnn.reset_state(None, True) is None
    assert rnn.reset_state(None, True, state) is state


def test_a_state_that_was_set_back_knows_nothing_of_the_past() -> None:
    h = mg.tensor(np.full((2, 3), 0.5), requires_grad=True)
    with mg.Tape() as tape:
        loss = (rnn.reset_state(mg.tanh(h), [True, False]) + 1.0).sum()
    gradient = tape.gradient(loss, h).numpy()
    assert not gradient[0].any()
    assert gradient[1].all()


def test_detaching_reaches_every_part_of_a_state() -> None:
    class Carrying(nn.Module):
        def __init__(self) -> None:
            self.inner = rnn.LSTM(INPUTS, HIDDEN, num_layers=2, rng=0)

        def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
            inner, past = (None, []) if state is None else (state["inner"], state["past"])
            y, inner = self.inner(x[None], inner)
            return y[0], {"inner": inner, "past": [*past, y[0]], "none": None}

    model, x = Carrying(), mg.tensor(np.ones((2, INPUTS), "float32"))
    with mg.Tape() as tape:
        _, state = model(x, None)
        state = rnn.detach_state(model(x, state)[1])
        end = tape.mark()
        y, _ = model(x, state)
        loss = y.sum()
    assert not any(part.requires_grad for part in (*state["inner"], *state["past"]))
    assert state["none"] is None
    own = tape.gradient(loss, list(model.parameters()), retain=True)
    tape.cut(end)
    for gradient, expected in zip(own, tape.gradient(loss, list(model.parameters())), strict=True):
        np.testing.assert_array_equal(gradient.numpy(), expected.numpy())


def test_a_state_of_numpy_arrays_is_reset() -> None:
    state = {"h": np.ones((2, HIDDEN)), "c": [np.ones((2, 1))]}
    reset = rnn.reset_state(state, [False, True])
    np.testing.assert_array_equal(reset["h"].numpy().T, [[1.0, 0.0]] * HIDDEN)
    np.testing.assert_array_equal(reset["c"][0].numpy(), [[1.0], [0.0]])

    def running_sum(x: Tensor, state: Any) -> tuple[Any, Any]:
        return state + x, state + x

    starts = np.array([[True, False], [False, True], [False, False]])
    xs = mg.tensor(np.ones((3, 2, 1)))
    ys, _ = rnn.unroll(running_sum, xs, np.full((2, 1), 5.0), reset=starts)
    assert ys[..., 0].tolist() == [[1.0, 6.0], [2.0, 1.0], [3.0, 2.0]]


def test_a_batch_of_no_sequences_has_lengths_that_fit() -> None:
    ys, state = make_layer("gru")(zeros(5, 0, INPUTS), lengths=np.array([], int))
    assert ys.shape == (5, 0, HIDDEN)
    assert state.shape[1] == 0


# --------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("marks", "error", "message"),
    [
        ({"lengths": [5, 0]}, ValueError, "sequence 1 has length 0, and the shortest has 1"),
        ({"lengths": [-1, 5]}, ValueError, "sequence 0 has length -1"),
        ({"lengths": [5, 6]}, ValueError, "sequence 1 has length 6, and there are 5 steps"),
        ({"lengths": [5.0, 4.0]}, TypeError, "integers, one for each sequence, not float64"),
        ({"lengths": [True, True]}, TypeError, "integers, one for each sequence, not bool"),
        ({"lengths": [5]}, ValueError, r"each of the 2 sequences, \(2,\), not \(1,\)"),
        ({"lengths": 5}, ValueError, r"each of the 2 sequences, \(2,\), not \(\)"),
        ({"mask": np.ones((5, 2))}, TypeError, "mask is boolean, not float64: write mask != 0"),
        ({"mask": np.ones((2, 5), bool)}, ValueError, r"mask is \(time, batch\) as xs, \(5, 2\)"),
        ({"mask": np.ones(5, bool)}, ValueError, r"not \(5,\)"),
        ({"reset": np.ones((5, 2), int)}, TypeError, "reset is boolean, not int64"),
        ({"reset": np.ones(2, bool)}, ValueError, r"reset is \(time, batch\) as xs, \(5, 2\)"),
        ({"lengths": [5, 5], "mask": np.ones((5, 2), bool)}, ValueError, "give one of them"),
    ],
)
def test_wrong_marks_are_refused(marks: Any, error: type[Exception], message: str) -> None:
    for run in (make_layer("gru"), lambda xs, **m: rnn.unroll(lambda x, s: (x, x), xs, **m)):
        with pytest.raises(error, match=message):
            run(zeros(5, 2, INPUTS), **marks)


@pytest.mark.parametrize("name", ["mask", "reset"])
def test_marks_are_laid_out_as_xs(name: str) -> None:
    layer = make_layer("gru", batch_first=True)
    with pytest.raises(ValueError, match=rf"{name} is \(batch, time\) as xs, \(2, 5\), not \(5, 2"):
        layer(zeros(2, 5, INPUTS), **{name: np.ones((5, 2), bool)})


@pytest.mark.parametrize("marks", [{"lengths": [5]}, {"mask": np.ones((5, 3), bool)}])
def test_marks_of_a_single_sequence_are_refused(marks: Any) -> None:
    with pytest.raises(ValueError, match=r"are for a batch of sequences: .* as xs\[:, None\]"):
        make_layer("gru")(zeros(5, INPUTS), **marks)
    with pytest.raises(ValueError, match="are for a batch of sequences"):
        rnn.unroll(lambda x, state: (x, x), zeros(5), **marks)


@pytest.mark.parametrize("part", [mg.tensor(0.0), 0, zeros(3, 2)])
def test_a_state_without_the_batch_cannot_be_masked(part: Any) -> None:
    with pytest.raises(ValueError, match="axis 0 of every part of the state is that of the 2"):
        rnn.unroll(lambda x, state: (x, part), zeros(5, 2, INPUTS), lengths=[5, 3])


def test_a_state_that_changes_its_nesting_cannot_be_masked() -> None:
    def cell(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return x, (x,) if state is None else (x, x)

    with pytest.raises(ValueError, match=r"keeps its nesting: \(\(2, 3\), \(2, 3\)\) and \(\(2"):
        rnn.unroll(cell, zeros(5, 2, INPUTS), lengths=[1, 3])


@pytest.mark.parametrize(
    ("fresh", "error", "message"),
    [
        ([0, 1], TypeError, "fresh is boolean, not int64: write fresh != 0"),
        ([[True], [False]], ValueError, r"one boolean for each sequence, not \(2, 1\)"),
        ([True] * 3, ValueError, r"axis -2 of every part of the state is that of the 3 seq"),
    ],
)
def test_reset_state_refuses_other_flags(fresh: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rnn.reset_state(zeros(1, 2, HIDDEN), fresh)


def test_reset_state_refuses_an_initial_state_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"a state \(3, 2, 4\) does not fit in a state \(1, 2, 4"):
        rnn.reset_state(zeros(1, 2, HIDDEN), [True, False], zeros(3, 2, HIDDEN))


def test_reset_state_refuses_an_initial_state_of_another_nesting() -> None:
    with pytest.raises(ValueError, match="keeps its nesting"):
        rnn.reset_state(zeros(2, HIDDEN), [True, False], (zeros(2, HIDDEN), zeros(2, HIDDEN)))
