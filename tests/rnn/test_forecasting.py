"""Windows, scaling, missing values and margins, against loops and by their properties."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad_rnn as rnn

pytestmark = pytest.mark.host

HOUR = np.timedelta64(1, "h")
MORNING = np.datetime64("2026-11-25T00:00", "s")
NAN = float("nan")


# --------------------------------------------------------------------------------------
# Windows
# --------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, -50]), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["skip", "cross"]),
)
def test_windows_are_all_those_without_a_gap(
    distances: list[int], steps: int, ahead: int, horizon: int, gaps: Any
) -> None:
    times = np.cumsum([0, *distances])
    rising = sorted(distance for distance in distances if distance > 0)
    usual = rising[len(rising) // 2] if rising else None
    length = steps + ahead + horizon - 1
    expected = [
        t
        for t in range(len(times) - length + 1)
        if all(
            distance == usual if gaps == "skip" else distance > 0
            for distance in distances[t : t + length - 1]
        )
    ]
    settings: dict[str, Any] = {"ahead": ahead, "horizon": horizon, "gaps": gaps}
    if not expected:
        with pytest.raises(ValueError, match=f"a window has {length} steps, and the longest"):
            rnn.Windows(times, steps, **settings)
        return
    windows = rnn.Windows(times, steps, **settings)
    assert windows.starts.tolist() == expected
    assert len(windows) == len(expected)
    series = np.arange(2 * len(times)).reshape(-1, 2)
    inputs, targets = windows.inputs(series), windows.targets(series)
    assert inputs.shape == (steps, len(windows), 2)
    assert targets.shape == (horizon, len(windows), 2)
    for i, t in enumerate(expected):
        first = t + steps - 1 + ahead
        np.testing.assert_array_equal(inputs[:, i], series[t : t + steps])
        np.testing.assert_array_equal(targets[:, i], series[first : first + horizon])
        assert windows.times[i] == times[first + horizon - 1]
    chosen = np.array([len(windows) - 1, 0])
    np.testing.assert_array_equal(windows.inputs(series, chosen), inputs[:, chosen])
    np.testing.assert_array_equal(windows.targets(series, chosen), targets[:, chosen])


def test_gaps_are_left_out_crossed_or_refused() -> None:
    times = MORNING + HOUR * np.array([0, 1, 2, 5, 6, 7])
    assert rnn.Windows(times, 2).starts.tolist() == [0, 3]
    assert rnn.Windows(times, 2, gaps="cross").starts.tolist() == [0, 1, 2, 3]
    with pytest.raises(
        ValueError, match=r"1 gaps, .* from 2026-11-25T02:00:00 to 2026-11-25T05:00:00: fill them"
    ):
        rnn.Windows(times, 2, gaps="refuse")
    assert rnn.Windows(times[:3], 2, gaps="refuse").starts.tolist() == [0]


def test_no_window_lies_in_two_series() -> None:
    times = np.concatenate([MORNING + HOUR * np.arange(4)] * 2)
    for gaps in ("skip", "cross", "refuse"):
        assert rnn.Windows(times, 2, gaps=gaps).starts.tolist() == [0, 1, 4, 5]


@given(st.integers(40, 80), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_parts_follow_each_other_and_share_no_target(
    length: int, steps: int, ahead: int, horizon: int
) -> None:
    times = np.concatenate([np.arange(length)] * 2)  # two series of the same time
    windows = rnn.Windows(times, steps, ahead=ahead, horizon=horizon)
    parts = windows.split(0.5, 0.2, 0.3)
    targets = [windows.targets(times, part) for part in parts]
    for before, after in pairwise(targets):
        assert before.max() < after.min()
    # Only the windows with targets on both sides are left out.
    left = set(range(len(windows))) - set(np.concatenate(parts).tolist())
    assert len(left) <= 2 * 2 * (horizon - 1)
    rows = windows.extent(parts[0])
    seen = {*windows.inputs(np.arange(2 * length), parts[0]).ravel().tolist()}
    seen |= {*windows.targets(np.arange(2 * length), parts[0]).ravel().tolist()}
    assert rows.tolist() == sorted(seen)
    assert times[rows].max() < targets[1].min()


def test_one_part_is_all_windows() -> None:
    assert rnn.Windows(5, steps=1).split(1.0)[0].tolist() == [0, 1, 2, 3]


def test_windows_refuse_what_makes_no_sense() -> None:
    for settings in ({"steps": 0}, {"steps": 1, "ahead": 0}, {"steps": 1, "horizon": 0}):
        with pytest.raises(ValueError, match="is at least 1, not 0"):
            rnn.Windows(9, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gaps is 'skip', 'cross' or 'refuse', not 'fill'"):
        rnn.Windows(9, 1, gaps="fill")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"times are one for each step, not \(2, 2\)"):
        rnn.Windows(np.zeros((2, 2)), 1)
    for few in (0, 1, 3):
        with pytest.raises(ValueError, match=f"has 4 steps, and the longest .* has {few}"):
            rnn.Windows(few, steps=3)
    windows = rnn.Windows(9, steps=1)
    for shares in ((0.5, 0.4), (1.5, -0.5), ()):
        with pytest.raises(ValueError, match="shares are above 0, and 1 together"):
            windows.split(*shares)
    with pytest.raises(ValueError, match="8 windows are too few for parts of"):
        windows.split(0.99, 0.005, 0.005)


# --------------------------------------------------------------------------------------
# Scaling
# --------------------------------------------------------------------------------------


def test_scaled_values_have_mean_0_and_deviation_1(rng: np.random.Generator) -> None:
    values = rng.normal([1.0, -200.0, 0.0], [1e-3, 50.0, 7.0], (40, 2, 3))
    values[rng.random(values.shape) < 0.3] = np.nan
    scaler = rnn.Scaler(values)
    scaled = scaler(values)
    np.testing.assert_allclose(np.nanmean(scaled, (0, 1)), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.nanstd(scaled, (0, 1)), 1.0, rtol=1e-9)
    np.testing.assert_array_equal(np.isnan(scaled), np.isnan(values))
    other = rng.normal(size=(5, 3))
    np.testing.assert_allclose(scaler.inverse(scaler(other)), other, rtol=1e-9, atol=1e-9)


def test_a_constant_feature_is_not_divided() -> None:
    scaler = rnn.Scaler([[5.0], [5.0], [NAN]])
    assert scaler([[7.0]]).tolist() == [[2.0]]


@pytest.mark.parametrize("column", [[NAN, NAN], [1.0, np.inf]])
def test_what_cannot_be_scaled_is_refused(column: list[float]) -> None:
    with pytest.raises(ValueError, match="feature 1 cannot be scaled"):
        rnn.Scaler(np.stack([[1.0, 2.0], column], axis=1))


# --------------------------------------------------------------------------------------
# Missing values
# --------------------------------------------------------------------------------------


def test_missing_values_are_filled_and_marked() -> None:
    values = np.array([[1.0, NAN], [NAN, 4.0]], "float32")
    filled, there = rnn.fill_missing(values, value=9.0)
    assert filled.tolist() == [[1.0, 9.0], [9.0, 4.0]]
    assert filled.dtype == "float32"
    assert there.tolist() == [[True, False], [False, True]]


@given(st.lists(st.lists(st.sampled_from([NAN, 1.0, 2.0]), min_size=2, max_size=2), min_size=1))
def test_the_last_value_stands_for_missing_ones(rows: list[list[float]]) -> None:
    expected = np.array(rows)
    for before, row in pairwise(expected):
        row[np.isnan(row)] = before[np.isnan(row)]
    np.testing.assert_array_equal(rnn.fill_forward(rows), expected)


# --------------------------------------------------------------------------------------
# Margins
# --------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.sampled_from([0.1, 0.5, 0.8]), st.integers(0, 5))
def test_adjusted_intervals_cover_what_they_were_adjusted_to(
    count: int, coverage: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(count, 2))
    rank = int(np.ceil(np.round((count + 1) * coverage, 9)))
    if rank > count:
        with pytest.raises(ValueError, match=f"takes at least .* targets, not {count}"):
            rnn.conformal_margin(-0.5 + 0 * targets, 0.5 + 0 * targets, targets, coverage)
        return
    margin = rnn.conformal_margin(-0.5 + 0 * targets, 0.5 + 0 * targets, targets, coverage)
    assert margin.shape == (2,)
    inside = np.abs(targets) <= 0.5 + margin + 1e-12
    assert inside.sum(0).tolist() == [rank, rank]


def test_new_targets_are_covered_in_the_mean(rng: np.random.Generator) -> None:
    # The promise is one about the mean over samples, with the next target of each.
    targets = rng.normal(size=(20, 3000))
    margin = rnn.conformal_margin(0.0, 0.0, targets[:19], 0.8)
    covered = (np.abs(targets[19]) <= margin).mean()
    assert covered == pytest.approx(0.8, abs=0.03)


def test_missing_targets_have_no_say_in_the_margin(rng: np.random.Generator) -> None:
    targets = rng.normal(size=(30, 2))
    holes = np.insert(targets, [0, 3, 30], NAN, axis=0)
    np.testing.assert_array_equal(
        rnn.conformal_margin(-0.5, 0.5, holes, 0.7), rnn.conformal_margin(-0.5, 0.5, targets, 0.7)
    )


@pytest.mark.parametrize("coverage", [0.0, 1.0, NAN])
def test_a_coverage_is_a_share(coverage: float) -> None:
    with pytest.raises(ValueError, match="coverage is a share above 0 and below 1"):
        rnn.conformal_margin([0.0], [1.0], [0.5], coverage)


def test_too_few_targets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a coverage of 0\.8 takes at least 4 targets, not 3"):
        rnn.conformal_margin(0.0, 1.0, [0.5] * 3, 0.8)
    assert rnn.conformal_margin(0.0, 1.0, [0.5] * 4, 0.8) == -0.5
