"""Stream: a long sequence as parallel rows that continue from window to window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import minigrad as mg
import minigrad_rnn as rnn


def read(stream: rnn.Stream, steps: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """The windows up to the end of the rows, checked for their shapes and fresh flags."""
    windows = []
    for i in range(stream.length // steps):
        inputs, targets, fresh = stream.window(steps)
        assert fresh == (i == 0)
        assert len(inputs) == len(targets) == steps
        windows.append((inputs, targets))
    return windows


@given(
    length=st.integers(2, 200),
    batch_size=st.integers(1, 12),
    steps=st.integers(1, 30),
    data=st.data(),
)
def test_rows_continue_from_window_to_window_and_from_row_to_row(
    length: int, batch_size: int, steps: int, data: st.DataObject
) -> None:
    tokens = np.arange(length) + 1000
    if (length - 1) // batch_size < steps:
        with pytest.raises(ValueError, match=r"too few|does not fit"):
            rnn.Stream(tokens, batch_size).window(steps)
        return
    stream = rnn.Stream(tokens, batch_size)
    windows = read(stream, steps)
    inputs = np.concatenate([inputs for inputs, _ in windows])
    targets = np.concatenate([targets for _, targets in windows])
    # Every row is a run of consecutive tokens; the first token of a row is the one after the
    # last of the row before; the target is the token after the input.
    read_steps = len(windows) * steps
    starts = 1000 + np.arange(batch_size) * stream.length
    np.testing.assert_array_equal(inputs, np.arange(read_steps)[:, None] + starts)
    np.testing.assert_array_equal(targets, inputs + 1)
    # All tokens are used, but for fewer than one a row.
    assert 0 <= length - 1 - batch_size * stream.length < batch_size

    inputs, _, fresh = stream.window(steps)
    assert fresh
    np.testing.assert_array_equal(inputs, windows[0][0])

    position = data.draw(st.integers(0, stream.length - steps))
    stream.position = position
    resumed, _, fresh = stream.window(steps)
    assert fresh == (position == 0)
    np.testing.assert_array_equal(resumed, np.arange(position, position + steps)[:, None] + starts)


def test_a_rest_shorter_than_a_window_is_skipped() -> None:
    stream = rnn.Stream(range(9), batch_size=1)
    firsts = [(int(stream.window(3)[0][0, 0]), stream.position) for _ in range(4)]
    assert firsts == [(0, 3), (3, 6), (0, 3), (3, 6)]


def test_windows_of_different_lengths_continue_each_other() -> None:
    stream = rnn.Stream(range(21), batch_size=2)
    inputs = np.concatenate([stream.window(steps)[0] for steps in (1, 4, 2, 3)])
    np.testing.assert_array_equal(inputs.T, [range(10), range(10, 20)])


def test_reading_resumes_at_a_position() -> None:
    one, other = (rnn.Stream(range(50), batch_size=3) for _ in range(2))
    one.window(4)
    other.position = one.position
    for own, expected in zip(other.window(4), one.window(4), strict=True):
        np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize("position", [-1, -5])
def test_a_position_before_the_start_is_refused(position: int) -> None:
    stream = rnn.Stream(range(11), batch_size=2)
    with pytest.raises(ValueError, match="position"):
        stream.position = position
        stream.window(3)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_the_dtype_of_the_tokens_is_kept(dtype: str) -> None:
    inputs, targets, _ = rnn.Stream(np.arange(9, dtype=dtype), 2).window(2)
    assert {inputs.dtype, targets.dtype} == {np.dtype(dtype)}


def test_tokens_may_be_a_tensor() -> None:
    inputs, _, _ = rnn.Stream(mg.tensor([5, 6, 7]), 1).window(2)
    assert inputs.tolist() == [[5], [6]]


@pytest.mark.parametrize(
    "tokens", [[0.5, 1.5], ["a", "b"], [[1, 2], [3, 4]], 3, [True, False]], ids=str
)
def test_what_is_not_one_sequence_of_integers_is_refused(tokens: Any) -> None:
    with pytest.raises(ValueError, match="a stream is one sequence of integers, not "):
        rnn.Stream(tokens, 1)


@pytest.mark.parametrize(("length", "batch_size"), [(1, 1), (4, 4), (9, 0), (9, -1)])
def test_too_few_tokens_for_the_rows_are_refused(length: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"{length} tokens are too few for {batch_size} rows"):
        rnn.Stream(range(length), batch_size)


@pytest.mark.parametrize("steps", [0, -1, 6])
def test_a_window_that_does_not_fit_the_rows_is_refused(steps: int) -> None:
    stream = rnn.Stream(range(11), batch_size=2)
    with pytest.raises(ValueError, match=f"a window of {steps} steps does not fit rows of 5"):
        stream.window(steps)
    assert stream.position == 0
