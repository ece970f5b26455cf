"""The loop of a scan: its calls, where its values lie, and that nothing is allocated in it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from random_steps import Case, Step, gated_steps, leaf
from transfer import ARRAY

import minigrad as mg
import minigrad_rnn as rnn
from minigrad.arrays import device_of, namespace
from minigrad.containers import leaves_of
from minigrad.scanning import playing, pool, scratch
from minigrad.scanning.loop import Loop
from minigrad.scanning.playing import Workspace
from minigrad.scanning.recording import record

TIME, BATCH, WIDTH = 7, 1000, 4

h0, sequence = leaf(BATCH, WIDTH), leaf(TIME, BATCH, WIDTH, seed=1)
W, full = leaf(WIDTH, WIDTH, seed=2), leaf(BATCH, WIDTH, seed=3)

LSTM = rnn.LSTMCell(WIDTH, WIDTH, dtype="float64", rng=0)
GRU = rnn.GRUCell(WIDTH, WIDTH, dtype="float64", rng=0)


def played(step: Step, state: Any, *, gradient: bool) -> Workspace:
    """The workspace in which a scan has run, and its gradient with respect to everything."""
    recording = record(step, sequence[0], state)
    program, xs = recording.program, sequence.array
    wanted = frozenset([*program.xs, *program.outside]) if gradient else None
    plan = pool.planned(recording, recording, wanted, device_of(xs))
    workspace = Workspace(plan, TIME, False, None, device_of(xs), namespace(xs))
    states = [part.array for part in leaves_of(state)]
    ys, last = workspace.forward([xs], [], states, [part.array for part in recording.outside])
    if gradient:
        workspace.backward(ys, last, retain=False)
    return workspace


def directions(workspace: Workspace) -> list[Any]:
    assert workspace._forward is not None
    return [workspace._forward, *workspace._backward.values()]


def shared(workspace: Workspace) -> int:
    """The bytes of scratch memory that it works in."""
    found = [block for direction in directions(workspace) for block in direction._scratch._blocks]
    blocks = {id(block): block for block in found}
    return sum([block.array.nbytes for block in blocks.values()])


def calls(workspace: Workspace) -> list[list[str]]:
    """The functions that are called at every step, by direction: where over which operand."""
    found = []
    for direction in directions(workspace):
        each = direction.loop.calls
        assert len(each) % TIME == 0
        found.append([_described(*call) for call in each[: len(each) // TIME]])
    return found


def _described(function: Any, arguments: tuple[Any, ...]) -> str:
    *operands, out = [part for part in arguments if isinstance(part, ARRAY)]
    over = [i for i, operand in enumerate(operands) if np.shares_memory(operand, out)]
    return function.__name__ + "".join([f" over {i}" for i in over])


# --------------------------------------------------------------------------------------
# Calls and places
# --------------------------------------------------------------------------------------


@pytest.mark.host
def test_an_lstm_is_ten_calls_and_its_gradient_ten_more() -> None:
    forward, backward = calls(played(LSTM, LSTM.initial_state(BATCH), gradient=True))
    assert forward == [
        "dot",
        *("add over 1", "tanh over 0", "multiply over 0", "add over 0"),  # of all gates
        *("multiply", "multiply", "add"),  # c
        *("tanh", "multiply"),  # h
    ]
    assert backward == [
        *("add over 0", "multiply", "multiply over 0", "add over 1"),  # of h, o and c
        *("multiply", "multiply", "multiply", "multiply"),  # of i, g, f and c before
        *("multiply over 1", "dot"),  # of all gates, without a copy, and h before
    ]


@pytest.mark.host
@pytest.mark.parametrize(
    ("step", "gradient", "expected"),
    [
        (lambda x, h: ((), mg.tanh(x + h @ W)), False, ["dot", "add over 0", "tanh"]),
        (
            lambda x, h: ((), (a := mg.tanh(h @ W)) * 0.5 + a),
            False,
            ["dot", "tanh over 0", "multiply", "add"],
        ),
        (
            lambda x, h: ((), (a := mg.tanh(h @ W)) * 0.5 + a),
            True,
            ["dot", "tanh", "multiply", "add"],
        ),
        (lambda x, h: ((), mg.tanh(mg.sin(h) @ W)), False, ["sin over 0", "dot", "tanh"]),
        (
            lambda x, h: ((), mg.tanh(((z := h @ W) * z[:, :1]) @ W)),
            False,
            ["dot", "multiply", "dot", "tanh"],
        ),
        (lambda x, h: ((), mg.tanh(h + full) * h), False, ["add", "tanh over 0", "multiply"]),
        (lambda x, h: ((), mg.sin(mg.tanh(h[0])) + h), False, ["tanh", "sin over 0", "add"]),
        (
            lambda x, h: ((), mg.concatenate([mg.tanh(h[:, :1]), mg.sin(-h[:, 1:])], axis=-1)),
            False,
            ["tanh", "negative", "sin"],
        ),
        (
            lambda x, h: ((), mg.concatenate([mg.tanh(h[:9]), h[9:]])),
            False,
            ["tanh", "fill", "fill"],
        ),
        (lambda x, h: (h, x), False, ["fill"]),
    ],
    ids=[
        "a result lies over a dead operand, and what is left where the next step wants it",
        "what is read later is not written over",
        "nor is what the gradient reads",
        "what was given is, though what is left lies beside it",
        "but not what is also read in another way",
        "nor is what is the same for all steps",
        "nor a row by what is wider",
        "what is joined along the last axis is computed in its place",
        "along another axis it is copied",
        "what is given is copied",
    ],
)
def test_where_results_lie(step: Step, gradient: bool, expected: list[str]) -> None:
    assert calls(played(step, h0, gradient=gradient))[0] == expected


def bytes_of(*each: tuple[int, int, int]) -> int:
    """Of arrays of eight bytes a number, for so many steps."""
    return sum(8 * steps * rows * columns for steps, rows, columns in each)


def test_an_array_that_nobody_reads_any_more_is_used_again() -> None:
    workspace = played(lambda x, h: ((), mg.tanh(h @ W @ W @ W @ W)), h0, gradient=False)
    state, products, weight = (2, BATCH, WIDTH), (2, BATCH, WIDTH), (1, WIDTH, WIDTH)
    assert (workspace.nbytes, shared(workspace)) == (0, bytes_of(state, products, weight))


def test_an_array_for_all_steps_is_used_again_too() -> None:
    def step(x: Any, h: Any) -> Any:
        z = h @ (x.T @ h)
        y = mg.concatenate([mg.tanh(z[:, :1]), mg.sin(z[:, 1:])], axis=-1)
        return y, 0.5 * y

    assert shared(played(step, h0, gradient=False)) == bytes_of(
        (TIME, BATCH, WIDTH),  # x, and later y
        (1, WIDTH, WIDTH),  # x^T h
        (1, BATCH, WIDTH),  # z
        (2, BATCH, WIDTH),  # h
    )


def test_the_bytes_of_an_lstm() -> None:
    workspace = played(LSTM, LSTM.initial_state(BATCH), gradient=False)
    assert workspace.nbytes == 0
    assert shared(workspace) == bytes_of(
        (TIME, BATCH, 4 * WIDTH),  # the input's projection, and over it the gates
        (TIME + 1, BATCH, WIDTH),  # h
        (2, BATCH, WIDTH),  # c
        (1, BATCH, WIDTH),  # tanh(c);  f c  lies over f, and  i g  over i
        (2, BATCH, 4 * WIDTH),  # scale and shift of the gates, spread out
        (1, BATCH, 4 * WIDTH),  # the product
        (1, WIDTH, 4 * WIDTH),  # the scaled weight
    )


def test_the_bytes_of_an_lstm_and_its_gradient() -> None:
    workspace = played(LSTM, LSTM.initial_state(BATCH), gradient=True)
    assert workspace.nbytes == bytes_of(
        (TIME, BATCH, 4 * WIDTH),  # the gates
        (TIME + 1, BATCH, WIDTH),  # h
        (TIME + 1, BATCH, WIDTH),  # c
        (TIME, BATCH, WIDTH),  # tanh(c)
        (1, BATCH, 4 * WIDTH),  # the shift of the gates, spread out
    )
    assert shared(workspace) == bytes_of(
        (1, BATCH, 4 * WIDTH),  # the scale of the gates
        (1, BATCH, 4 * WIDTH),  # the product; later the gradients of the squashed gates
        (2, BATCH, WIDTH),  # f c, and  i g
        (TIME, BATCH, 4 * WIDTH),  # the derivatives of the gates, and over them their gradients
        (TIME, BATCH, WIDTH),  # o (1 - tanh(c)^2)
        (TIME, BATCH, WIDTH),  # the gradient of y
        (2, BATCH, WIDTH),  # that of h, of two steps in turn
        (2, BATCH, WIDTH),  # that of c
        (1, WIDTH, 4 * WIDTH),  # the scaled weight, later the weight
    )


def test_what_is_kept_does_not_keep_more_than_itself() -> None:
    def step(x: Any, h: Any) -> Any:
        left, right = mg.split(x @ W, 2, axis=-1)
        return (), mg.concatenate([mg.sin(h[:, :2] + left), h[:, 2:] + right], axis=-1)

    workspace = played(step, h0, gradient=True)
    assert workspace.nbytes == bytes_of((TIME, BATCH, 2))  # what the sine is of, not over x W


@pytest.mark.host
def test_the_bytes_of_large_states_whose_tanh_is_computed_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(playing, "LARGE", 0)
    workspace = played(LSTM, LSTM.initial_state(BATCH), gradient=True)
    assert workspace.nbytes == bytes_of(
        (TIME, BATCH, 4 * WIDTH),  # the gates
        (TIME + 1, BATCH, WIDTH),  # h
        (TIME + 1, BATCH, WIDTH),  # c
        (1, BATCH, 4 * WIDTH),  # the shift of the gates, spread out
    )
    assert workspace.plan.backward is not None
    assert str(workspace.plan.backward.loop[0]) == "#25 = tanh(#24)"


def test_two_layers_work_in_the_same_memory() -> None:
    first = played(LSTM, LSTM.initial_state(BATCH), gradient=True)
    blocks = len(scratch._blocks)
    other = rnn.LSTMCell(WIDTH, WIDTH, dtype="float64", rng=1)
    second = played(other, other.initial_state(BATCH), gradient=True)
    assert len(scratch._blocks) == blocks
    for one, another in zip(directions(first), directions(second), strict=True):
        assert one._scratch._blocks == another._scratch._blocks


# --------------------------------------------------------------------------------------
# Nothing is allocated
# --------------------------------------------------------------------------------------


def own(x: Any, h: Any) -> Any:
    """Of operations that are computed into an array, besides those of the cells."""
    z = mg.where(h > x, mg.exp(-mg.square(h @ W)), mg.maximum(h, 0.5 * x))
    z = z / mg.sqrt((z * z).sum(axis=-1, keepdims=True) + 1.0)
    return z, mg.relu(z) - mg.log1p(mg.sigmoid(z) * (h > 0.0).astype("float64"))


@pytest.fixture
def small_buffers() -> Iterator[None]:
    """NumPy's own buffers, into which it copies what is not contiguous, are as small as can be."""
    before = np.setbufsize(16)
    yield
    np.setbufsize(before)


@pytest.mark.host
@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize(
    ("step", "state"),
    [(LSTM, LSTM.initial_state(BATCH)), (GRU, GRU.initial_state(BATCH)), (own, h0)],
    ids=["lstm", "gru", "own"],
)
def test_nothing_is_allocated_in_the_loop(
    step: Step, state: Any, no_collector: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, measured = Loop.run, []

    def run_and_measure(loop: Loop, first: Sequence[Any]) -> None:
        tracemalloc.start()
        run(loop, first)
        measured.append(tracemalloc.get_traced_memory())
        tracemalloc.stop()

    monkeypatch.setattr(Loop, "run", run_and_measure)
    played(step, state, gradient=True)
    assert len(measured) == 2
    # Python keeps some tuples, and NumPy's iterator is of 1 KiB; a column (batch, 1) is of 8.
    assert max(peak for _, peak in measured) < 4096


@given(case=gated_steps())
def test_nothing_that_was_given_or_returned_is_written_to(case: Case) -> None:
    step, *given = case
    state, xs = given[:2]
    before = [part.numpy().copy() for part in given]
    for retain in (True, False):
        with mg.Tape() as tape:
            ys, last = mg.scan(step, state, xs)
            returned = ys.numpy().copy(), last.numpy().copy()
            loss = (last * last).sum() + (ys * xs).sum()
            found = tape.gradient(loss, given, retain=retain, unconnected="zero")
        copies = [part.numpy().copy() for part in found]
        with mg.Tape() as tape:
            others = mg.scan(step, 0.5 * state, -xs)
            tape.gradient((others[0] * xs).sum(), given, unconnected="zero")
        for part, old in zip(
            (*given, ys, last, *found), (*before, *returned, *copies), strict=True
        ):
            np.testing.assert_array_equal(part.numpy(), old)
