"""Sequences before a network reads them: nothing is lost, nothing is doubled, rows continue."""

from __future__ import annotations

from pathlib import Path
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


@given(length=st.integers(2, 200), batch_size=st.integers(1, 12), data=st.data())
def test_windows_of_any_lengths_with_their_rests_read_every_step_once(
    length: int, batch_size: int, data: st.DataObject
) -> None:
    if (length - 1) // batch_size < 1:
        return
    stream = rnn.Stream(np.arange(length), batch_size)
    for _ in range(2):  # the rows are read again from their beginning
        windows: list[NDArray[Any]] = []
        while not windows or stream.position < stream.length:
            steps = data.draw(st.integers(1, 30))
            inputs, targets, fresh = stream.window(steps, rest=True)
            assert fresh == (not windows)
            assert 1 <= len(inputs) <= steps
            np.testing.assert_array_equal(targets, inputs + 1)
            windows.append(inputs)
            assert stream.position == sum(map(len, windows))
        read = np.concatenate(windows).T.ravel()
        np.testing.assert_array_equal(read, np.arange(batch_size * stream.length))


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


# --------------------------------------------------------------------------------------
# Padding, lengths and masks
# --------------------------------------------------------------------------------------


@st.composite
def ragged(draw: st.DrawFn) -> list[NDArray[Any]]:
    """Sequences of one dtype and one shape of a step, without the padding value 0 in them."""
    dtype = draw(st.sampled_from(["float32", "float64", "int64", "uint8"]))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [rng.integers(1, 200, (n, *shape)).astype(dtype) for n in lengths]


@given(sequences=ragged(), batch_first=st.booleans())
def test_padding_and_unpadding_go_round(sequences: list[NDArray[Any]], batch_first: bool) -> None:
    padded, lengths = rnn.pad_sequences(sequences, batch_first=batch_first)
    assert padded.dtype == sequences[0].dtype
    assert lengths.tolist() == [len(sequence) for sequence in sequences]
    back = rnn.unpad_sequences(padded, lengths, batch_first=batch_first)
    for own, expected in zip(back, sequences, strict=True):
        assert own.dtype == expected.dtype
        np.testing.assert_array_equal(own, expected)
    # Behind the ends there is the padding value and nothing else.
    mask = rnn.lengths_to_mask(lengths, batch_first=batch_first)
    assert mask.shape == padded.shape[:2]
    np.testing.assert_array_equal(padded.reshape(*mask.shape, -1).all(-1), mask)
    assert rnn.mask_to_lengths(mask, batch_first=batch_first).tolist() == lengths.tolist()


def test_the_layouts_are_each_others_transposes() -> None:
    sequences = [[1, 2, 3], [4, 5]]
    padded, lengths = rnn.pad_sequences(sequences)
    assert padded.shape == (3, 2)
    np.testing.assert_array_equal(rnn.pad_sequences(sequences, batch_first=True)[0], padded.T)
    mask = rnn.lengths_to_mask(lengths)
    np.testing.assert_array_equal(rnn.lengths_to_mask(lengths, batch_first=True), mask.T)


@pytest.mark.parametrize(
    ("first", "value"), [([1], -100), ([1.0], -1), ([1.0], float("nan")), ([True], False)]
)
def test_the_padding_value(first: list[Any], value: Any) -> None:
    padded, _ = rnn.pad_sequences([first, first * 2], value)
    np.testing.assert_array_equal(padded[1, 0], np.array(value, padded.dtype))
    assert padded.dtype == np.asarray(first).dtype


def test_unpadded_sequences_do_not_share_memory_with_the_batch() -> None:
    padded, lengths = rnn.pad_sequences([[1, 2], [3]])
    rnn.unpad_sequences(padded, lengths)[0][0] = 7
    assert padded[0, 0] == 1


def test_tensors_can_be_padded_and_unpadded() -> None:
    padded, lengths = rnn.pad_sequences([mg.tensor([1.0, 2.0]), mg.tensor([3.0])])
    assert padded.dtype == "float32"
    assert [s.tolist() for s in rnn.unpad_sequences(mg.tensor(padded), lengths)] == [[1, 2], [3]]


def test_a_mask_may_be_longer_than_its_sequences() -> None:
    assert rnn.lengths_to_mask([1, 2], time=4).T.tolist() == [
        [True, False, False, False],
        [True, True, False, False],
    ]


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ([], ValueError, "no sequences"),
        ([[1], []], ValueError, r"at least one step; sequence 1 is \(0,\)"),
        ([3], ValueError, r"sequence 0 is \(\)"),
        ([np.ones((2, 3)), np.ones((2, 4))], ValueError, r"of sequence 1 is \(4,\), .* \(3,\)"),
        ([[1], [1.0]], TypeError, "sequence 1 is float64, and sequence 0 is int64"),
        ([["a"]], TypeError, "numbers or booleans"),
    ],
    ids=str,
)
def test_what_cannot_be_padded_is_refused(
    sequences: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rnn.pad_sequences(sequences)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *[("int64", value) for value in (0.5, float("nan"), np.inf, 2**63)],
        *[("uint8", value) for value in (-1, 256)],
        *[("bool", value) for value in (2, 0.5)],
    ],
)
def test_a_padding_value_of_another_kind_is_refused(dtype: str, value: float) -> None:
    with pytest.raises(TypeError, match=f"the padding value {value!r} is no {dtype}"):
        rnn.pad_sequences([np.ones(2, dtype)], value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", 0.1), ("float32", -1), ("int64", -1), ("uint8", 255), ("bool", True), ("bool", 0)],
)
def test_a_padding_value_of_the_same_kind_is_put_behind_the_ends(dtype: str, value: float) -> None:
    padded, _ = rnn.pad_sequences([np.ones(2, dtype), np.ones(1, dtype)], value)
    assert padded.dtype == dtype
    assert padded[1, 1] == np.array(value, dtype)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([2], ValueError, "2 sequences need as many lengths, not 1"),
        ([2, 4], ValueError, "sequence 1 has length 4, and there are 3 steps"),
        ([2, 0], ValueError, "sequence 1 has length 0, and the shortest has 1 step"),
        ([2.0, 1.0], TypeError, "lengths are integers, one for each sequence, not float64"),
        ([[2, 1]], ValueError, r"lengths are one integer for each sequence, not \(1, 2\)"),
        ([], ValueError, r"lengths are one integer for each sequence, not \(0,\)"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(
    lengths: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rnn.unpad_sequences(np.ones((3, 2)), lengths)


def test_a_batch_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a padded batch is \(time, batch, ...\), not \(3,\)"):
        rnn.unpad_sequences(np.ones(3), [3])


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([[1, 0], [1, 0]], TypeError, "a mask is boolean, not int64: write mask != 0"),
        ([True, False], ValueError, r"a mask is \(time, batch\), not \(2,\)"),
        ([[True, True], [True, False], [True, True]], ValueError, "sequence 1 .* has a hole"),
        ([[False], [True]], ValueError, "sequence 0 .* begins late"),
        ([[True, False], [True, False]], ValueError, "sequence 1 of the mask has no steps"),
    ],
)
def test_masks_that_no_lengths_can_say_are_refused(
    mask: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rnn.mask_to_lengths(mask)


# --------------------------------------------------------------------------------------
# Bucketing
# --------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    batch_size=st.integers(1, 8),
    padding=st.floats(0.0, 0.9),
    seed=st.one_of(st.none(), st.integers(0, 2**32)),
)
def test_every_sequence_is_in_one_bucket_and_padding_is_bounded(
    lengths: list[int], batch_size: int, padding: float, seed: int | None
) -> None:
    batches = rnn.bucket_by_length(lengths, batch_size, padding=padding, rng=seed)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        taken = np.asarray(lengths)[batch]
        assert 1 <= len(batch) <= batch_size
        assert 1 - taken.sum() / (len(taken) * taken.max()) <= padding + 1e-12
    if seed is None:
        in_order = sorted(range(len(lengths)), key=lengths.__getitem__)
        assert np.concatenate(batches).tolist() == in_order
    again = rnn.bucket_by_length(lengths, batch_size, padding=padding, rng=seed)
    for batch, same in zip(batches, again, strict=True):
        np.testing.assert_array_equal(batch, same)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), seed=st.integers(0, 99))
def test_shuffling_changes_neither_the_lengths_of_the_batches_nor_their_number(
    lengths: list[int], seed: int
) -> None:
    def shapes(rng: int | None) -> list[list[int]]:
        batches = rnn.bucket_by_length(lengths, 4, padding=0.3, rng=rng)
        return [np.asarray(lengths)[batch].tolist() for batch in batches]

    assert sorted(shapes(seed)) == sorted(shapes(None))


def test_a_generator_shuffles_anew_for_every_epoch(rng: np.random.Generator) -> None:
    lengths = [5] * 40
    one, other = (rnn.bucket_by_length(lengths, 4, rng=rng) for _ in range(2))
    assert not np.array_equal(np.concatenate(one), np.concatenate(other))
    assert not np.array_equal(np.sort(one), np.sort(other))  # other neighbours, too


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lengths": [], "batch_size": 2}, "one integer for each sequence"),
        ({"lengths": [3, 0], "batch_size": 2}, "sequence 1 has length 0"),
        ({"lengths": [3], "batch_size": 0}, "batch_size is at least 1, not 0"),
        ({"lengths": [3], "batch_size": 2, "padding": 1.0}, "below 1, not 1.0"),
        ({"lengths": [3], "batch_size": 2, "padding": -0.1}, "at least 0 and below 1, not -0.1"),
    ],
)
def test_buckets_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rnn.bucket_by_length(**settings)


# --------------------------------------------------------------------------------------
# Shifting, and windows of random lengths
# --------------------------------------------------------------------------------------


@given(
    shape=st.sampled_from([(), (2,), (2, 3)]), length=st.integers(1, 12), ahead=st.integers(1, 4)
)
def test_the_target_is_the_input_some_steps_later(
    shape: tuple[int, ...], length: int, ahead: int
) -> None:
    sequence = np.arange(length * np.prod(shape, dtype=int)).reshape(length, *shape) + 1
    inputs, targets = rnn.shift(sequence, ahead, start=0)
    np.testing.assert_array_equal(targets, sequence)
    np.testing.assert_array_equal(inputs[ahead:], targets[:-ahead])
    assert inputs.shape == sequence.shape
    assert not inputs[:ahead].any()
    if length > ahead:
        shorter = rnn.shift(sequence, ahead)
        np.testing.assert_array_equal(shorter, (inputs[ahead:], targets[ahead:]))


def test_the_start_may_be_a_step() -> None:
    inputs, _ = rnn.shift(np.array([[1.0, 2.0]], "float32"), start=[8, 9])
    assert inputs.tolist() == [[8.0, 9.0]]
    assert inputs.dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1],), ValueError, r"a sequence .* of \(1,\) has no target 1 steps ahead"),
        (([1, 2], 2), ValueError, "no target 2 steps ahead"),
        ((3,), ValueError, "no target"),
        (([1, 2], 0), ValueError, "at least 1 step ahead, not 0"),
    ],
)
def test_what_cannot_be_shifted_is_refused(
    arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rnn.shift(*arguments)


def test_an_empty_sequence_or_a_start_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no target"):
        rnn.shift([], start=0)
    with pytest.raises(TypeError, match="float64"):
        rnn.shift([1, 2], start=0.5)


def test_random_windows_have_the_distribution_of_the_paper(rng: np.random.Generator) -> None:
    """A mixture of N(70, 5) and, with 5 %, N(35, 5); rounding towards zero takes 0.5 off."""
    drawn = [rnn.random_window(70, rng=rng) for _ in range(4000)]
    steps = np.array([n for n, _ in drawn])
    assert [factor for _, factor in drawn] == (steps / 70).tolist()
    halved = steps < 52
    assert abs(halved.mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 4000)
    for part, mean in ((steps[~halved], 69.5), (steps[halved], 34.5)):
        assert abs(part.mean() - mean) < 4 * 5 / np.sqrt(len(part))
        assert abs(part.std() - 5) < 4 * 5 / np.sqrt(2 * len(part))


@given(seed=st.integers(0, 2**32), base=st.integers(5, 30), spread=st.floats(0.0, 50.0))
def test_random_windows_stay_within_their_bounds(seed: int, base: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        steps, factor = rnn.random_window(base, rng=rng, deviation=spread, maximum=base + 10)
        assert type(steps) is int
        assert 5 <= steps <= base + 10
        assert factor == steps / base


def test_random_windows_are_drawn_alike_from_the_same_seed() -> None:
    one, other = ([rnn.random_window(70, rng=np.random.default_rng(3))] for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    "settings",
    [
        {"base": 4},
        {"base": 20, "minimum": 0},
        {"base": 20, "maximum": 19},
        {"base": 20, "halved": 1.5},
        {"base": 20, "halved": float("nan")},
        {"base": 20, "deviation": -1.0},
    ],
    ids=str,
)
def test_random_windows_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is not between|is a probability"):
        rnn.random_window(**settings, rng=np.random.default_rng(0))


def test_a_seed_in_the_place_of_a_generator_is_refused() -> None:
    seed: Any = 0
    with pytest.raises(TypeError, match=r"numpy.random.default_rng\(0\), not a int"):
        rnn.random_window(70, rng=seed)


# --------------------------------------------------------------------------------------
# Reading goes on
# --------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    batch_size=st.integers(1, 8),
    padding=st.floats(0.0, 0.9),
    seed=st.integers(0, 2**32),
)
def test_in_every_epoch_each_sequence_is_in_one_batch_of_similar_lengths(
    lengths: list[int], batch_size: int, padding: float, seed: int
) -> None:
    batches = rnn.Batches(lengths, batch_size, seed=seed, padding=padding)
    assert (batches.epoch, batches.position) == (0, 0)
    for epoch in range(3):
        read = []
        for position in range(batches.per_epoch):
            read.append(next(batches))
            assert (batches.epoch, batches.position) == (epoch, position + 1)
            taken = np.asarray(lengths)[read[-1]]
            assert 1 <= len(taken) <= batch_size
            assert 1 - taken.sum() / (len(taken) * taken.max()) <= padding + 1e-12
        assert sorted(np.concatenate(read).tolist()) == list(range(len(lengths)))


def test_sequences_of_one_length_are_given_by_their_number() -> None:
    for count in (10, np.int64(10)):
        batches = rnn.Batches(count, batch_size=4)
        assert sorted(len(next(batches)) for _ in range(batches.per_epoch)) == [2, 4, 4]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def epoch(batches: rnn.Batches) -> list[int]:
        return np.concatenate([next(batches) for _ in range(batches.per_epoch)]).tolist()

    one, other = rnn.Batches(40, 4, seed=1), rnn.Batches(40, 4, seed=2)
    orders = [epoch(one), epoch(one), epoch(other), epoch(other)]
    assert len({tuple(order) for order in orders}) == 4
    again = rnn.Batches(40, 4, seed=1)
    assert [epoch(again), epoch(again)] == orders[:2]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    batch_size=st.integers(1, 8),
    read=st.integers(0, 60),
)
def test_batches_go_on_where_others_stopped(lengths: list[int], batch_size: int, read: int) -> None:
    one, other = (rnn.Batches(lengths, batch_size, seed=3) for _ in range(2))
    for _ in range(read):
        next(one)
    next(other)
    other.load_state_dict(one.state_dict())
    assert (other.epoch, other.position) == (one.epoch, one.position)
    for _ in range(2 * one.per_epoch + 1):
        np.testing.assert_array_equal(next(other), next(one))


def test_batches_do_not_go_on_from_more_batches_than_there_are() -> None:
    one, other = rnn.Batches(10, 1), rnn.Batches(10, 4)
    for _ in range(5):
        next(one)
    with pytest.raises(ValueError, match="there are 3 batches, and 5 were read"):
        other.load_state_dict(one.state_dict())
    assert (other.epoch, other.position) == (0, 0)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (0, ValueError, "lengths are one integer for each sequence"),
        ([], ValueError, "lengths are one integer for each sequence"),
        ([3, 0], ValueError, "sequence 1 has length 0"),
        (3.0, ValueError, "lengths are one integer for each sequence"),
        ([3.0], TypeError, "lengths are integers"),
    ],
)
def test_batches_of_nothing_are_refused(lengths: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rnn.Batches(lengths, batch_size=2)


@given(length=st.integers(2, 100), batch_size=st.integers(1, 8), data=st.data())
def test_a_stream_goes_on_where_another_one_stopped(
    length: int, batch_size: int, data: st.DataObject
) -> None:
    if (length - 1) // batch_size < 1:
        return
    one, other = (rnn.Stream(np.arange(length), batch_size) for _ in range(2))
    for steps in data.draw(st.lists(st.integers(1, 30), max_size=6)):
        one.window(steps, rest=True)
    other.load_state_dict(one.state_dict())
    assert other.position == one.position
    for steps in (1, 2, 30):
        for own, expected in zip(
            other.window(steps, rest=True), one.window(steps, rest=True), strict=True
        ):
            np.testing.assert_array_equal(own, expected)


def test_a_stream_does_not_go_on_behind_its_end() -> None:
    one, other = rnn.Stream(range(100), 2), rnn.Stream(range(11), 2)
    one.window(6)
    with pytest.raises(ValueError, match="rows of 5 steps have no position 6"):
        other.load_state_dict(one.state_dict())
    assert other.position == 0


@pytest.mark.parametrize(
    "made", [lambda: rnn.Batches(5, batch_size=2), lambda: rnn.Stream(range(9), 2)]
)
def test_what_was_read_is_saved_to_a_file(made: Any, tmp_path: Path) -> None:
    one, other = made(), made()
    one.load_state_dict({"epoch": np.array(4), "position": np.array(2)})
    mg.save(tmp_path / "read.safetensors", one.state_dict())
    other.load_state_dict(mg.load(tmp_path / "read.safetensors"))
    assert other.state_dict() == one.state_dict()
    assert type(other.position) is int
