"""The strategies: everything drawn is valid, and everything promised is drawn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from transfer import on_device

import minigrad as mg
from minigrad.testing import strategies
from minigrad.testing.strategies.values import Layout

Shape = tuple[int, ...]

#: Enough draws to meet whatever is promised.
MANY = settings(max_examples=2000, database=None, deadline=None, phases=[Phase.generate])


def found(strategy: st.SearchStrategy[Any], wanted: Callable[[Any], bool]) -> Any:
    """A value like that; raises if none is drawn."""
    return find(strategy, wanted, settings=MANY)


def test_strategies_name_the_extra_where_hypothesis_is_missing() -> None:
    code = (
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "import minigrad as mg\n"
        "mg.testing.assert_no_leak\n"
        "try:\n"
        "    mg.testing.strategies\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "minigrad[testing]" in done.stdout


# --------------------------------------------------------------------------------------
# Shapes, axes, indices
# --------------------------------------------------------------------------------------


@given(strategies.shapes(min_dims=1, max_dims=2, min_side=2, max_side=3))
def test_shapes_keep_their_bounds(shape: Shape) -> None:
    assert 1 <= len(shape) <= 2
    assert all(2 <= length <= 3 for length in shape)


@pytest.mark.parametrize(
    "wanted",
    [lambda shape: shape == (), lambda shape: 0 in shape, lambda shape: len(shape) == 3],
    ids=["no axes", "no elements", "three axes"],
)
def test_shapes_of_every_kind_are_drawn(wanted: Callable[[Shape], bool]) -> None:
    found(strategies.shapes(), wanted)


@given(st.integers(1, 4).flatmap(strategies.broadcastable_shapes))
def test_shapes_broadcast(drawn: tuple[Shape, ...]) -> None:
    np.broadcast_shapes(*drawn)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda drawn: drawn[0] == drawn[1] != (),
        lambda drawn: len(drawn[0]) < len(drawn[1]),
        lambda drawn: any(a == 1 < b for a, b in zip(*drawn, strict=False)),
        lambda drawn: any(a == 1 and b == 0 for a, b in zip(*drawn, strict=False)),
    ],
    ids=["equal", "fewer axes", "stretched", "stretched to nothing"],
)
def test_every_way_to_broadcast_is_drawn(wanted: Callable[[Any], bool]) -> None:
    found(strategies.broadcastable_shapes(2), wanted)


@given(st.data())
def test_axes_are_valid(data: st.DataObject) -> None:
    shape = data.draw(strategies.shapes(min_side=1))
    axis = data.draw(strategies.axes(shape))
    assert np.sum(np.ones(shape), axis=axis).ndim <= len(shape)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda axis: axis is None,
        lambda axis: axis == 2,
        lambda axis: axis == -3,
        lambda axis: axis == (2, 0),
        lambda axis: axis == (1, -1),
    ],
    ids=["None", "integer", "negative", "tuple", "mixed signs"],
)
def test_every_kind_of_axis_is_drawn(wanted: Callable[[Any], bool]) -> None:
    found(strategies.axes((2, 3, 4)), wanted)


@given(strategies.axes((2, 3), none=False, several=False))
def test_an_axis_alone_is_an_integer(axis: Any) -> None:
    assert isinstance(axis, int)


def test_no_axis_is_refused_where_there_is_none() -> None:
    found(strategies.axes(()), lambda axis: axis is None)
    with pytest.raises(ValueError, match=r"a shape \(\) has no axis: give a longer one, or none="):
        strategies.axes((), none=False)


@given(st.data())
def test_indices_are_valid(data: st.DataObject) -> None:
    shape = data.draw(strategies.shapes())
    index = data.draw(strategies.indices(shape))
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    np.testing.assert_array_equal(mg.tensor(x)[on_device(index)].numpy(), x[index])


def _has(kind: Callable[[Any], bool]) -> Callable[[tuple[Any, ...]], bool]:
    return lambda index: any(kind(part) for part in index)


def _is_array(dtype: str) -> Callable[[Any], bool]:
    return lambda part: isinstance(part, np.ndarray) and part.dtype == dtype


@pytest.mark.parametrize(
    "wanted",
    [
        lambda index: index == (),
        _has(lambda part: type(part) is int and part < 0),
        _has(lambda part: part is ...),
        _has(lambda part: part is None),
        _has(lambda part: isinstance(part, slice) and (part.step or 1) < 0),
        _has(lambda part: _is_array("int64")(part) and part.ndim == 2),
        _has(lambda part: _is_array("int64")(part) and len({*part.ravel()}) < part.size),
        lambda index: sum(map(_is_array("int64"), index)) == 2,
        _has(lambda part: _is_array("bool")(part) and part.ndim == 1),
        _has(lambda part: _is_array("bool")(part) and part.ndim == 2),
        lambda index: _has(_is_array("bool"))(index) and _has(lambda p: type(p) is int)(index),
    ],
    ids=[
        "nothing",
        "negative",
        "Ellipsis",
        "new axis",
        "backwards",
        "table",
        "repeated",
        "pairs",
        "mask",
        "mask of elements",
        "mask and integer",
    ],
)
def test_every_kind_of_index_is_drawn(wanted: Callable[[Any], bool]) -> None:
    found(strategies.indices((2, 3)), wanted)


@given(strategies.indices((2, 3), arrays=False, newaxis=False))
def test_indices_can_do_without_arrays_and_new_axes(index: tuple[Any, ...]) -> None:
    assert all(part is ... or isinstance(part, int | slice) for part in index)


# --------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------


@given(strategies.arrays(low=-1.0, high=3.0))
def test_values_lie_in_the_interval(x: np.ndarray) -> None:
    assert x.dtype == "float64"
    assert np.all((x >= -1.0) & (x <= 3.0))


@given(strategies.arrays(away_from=[0.0, 1.0], margin=0.25))
def test_values_stay_away_from_kinks(x: np.ndarray) -> None:
    assert np.all(np.abs(x) >= 0.25)
    assert np.all(np.abs(x - 1.0) >= 0.25)


@given(strategies.arrays((4, 4, 4), distinct=True))
def test_distinct_values_have_no_ties(x: np.ndarray) -> None:
    assert np.diff(np.sort(x, axis=None)).min() >= 0.0099


def test_values_are_drawn_at_kinks_on_purpose() -> None:
    at = strategies.arrays((3,), away_from=[0.0], at=[0.0, -0.0625])
    assert found(at, lambda x: bool((x == 0.0).any() and (x == -0.0625).any())).size == 3
    found(at, lambda x: bool((x != 0.0).all() and (x != -0.0625).all()))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e-6), (-7.0, 5.0), (1e5, 3e6), (0.5, 0.5)])
def test_any_interval_has_values(low: float, high: float) -> None:
    assert low <= found(strategies.arrays((), low=low, high=high), lambda x: True) <= high


@given(st.data())
def test_every_dtype_holds_its_values(data: st.DataObject) -> None:
    dtype = data.draw(strategies.dtypes("fiub"))
    x = data.draw(strategies.arrays((5,), dtype, low=-1000, high=1000))
    assert x.dtype == dtype
    if x.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        assert np.all((x >= max(-1000, limits.min)) & (x <= min(1000, limits.max)))


@pytest.mark.parametrize("kind", "fiub")
def test_dtypes_of_every_kind_are_drawn(kind: str) -> None:
    drawn = strategies.arrays((2,), strategies.dtypes("fiub"))
    assert found(drawn, lambda x: x.dtype.kind == kind).dtype.kind == kind


LAYOUTS: dict[Layout, Callable[[np.ndarray], bool]] = {
    "contiguous": lambda x: x.flags.c_contiguous,
    "transposed": lambda x: x.flags.f_contiguous and not x.flags.c_contiguous,
    "strided": lambda x: x.strides[-1] == 2 * x.itemsize,
    "reversed": lambda x: x.strides[-1] < 0,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_drawn(layout: Layout) -> None:
    found(strategies.arrays((2, 3)), LAYOUTS[layout])
    tensor = found(strategies.tensors((2, 3)), lambda t: LAYOUTS[layout](t.array))
    assert type(tensor) is mg.Tensor
    assert LAYOUTS[layout](found(strategies.arrays((2, 3), layout=layout), lambda x: True))


@given(strategies.tensors(dtype="float32", requires_grad=True))
def test_tensors_can_be_leaves(x: mg.Tensor) -> None:
    assert x.is_leaf
    assert x.dtype == "float32"


def test_values_shrink_to_whole_numbers() -> None:
    simplest = find(strategies.arrays((2,), distinct=True), lambda x: x.sum() > 1.5)
    assert sorted(simplest) == [0.0, 2.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": -0.01, "high": 0.01, "away_from": [0.0]}, "0 lie between -0.01 and 0.01, 0.05 aw"),
        ({"shape": (9,), "dtype": "int8", "distinct": True}, "9 different values of int8 are need"),
        ({"dtype": "int64", "low": 0.2, "high": 0.8}, "1 different values of int64 are needed"),
    ],
    ids=["all kinks", "too few", "no whole number"],
)
def test_what_leaves_nothing_to_draw_is_told(settings: dict[str, Any], message: str) -> None:
    drawn = strategies.arrays(settings.pop("shape", (1,)), **settings)

    @given(drawn)
    def draw(x: np.ndarray) -> None:
        pass

    with pytest.raises(ValueError, match=message):
        draw()


def test_unknown_layouts_and_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a layout is 'contiguous', .* or None, not 'rotated'"):
        strategies.arrays(layout="rotated")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the kinds of dtypes are letters of 'fiub', not 'c'"):
        strategies.dtypes("c")


# --------------------------------------------------------------------------------------
# Sequences and masks
# --------------------------------------------------------------------------------------


@given(strategies.sequences(2, max_time=4, max_batch=3, min_length=0, dtype="float32"))
def test_sequences_hold_their_lengths(drawn: tuple[np.ndarray, list[int]]) -> None:
    x, lengths = drawn
    assert x.shape[1:] == (len(lengths), 2)
    assert x.dtype == "float32"
    assert max(lengths) <= x.shape[0] <= 4
    assert min(lengths) >= 0


@pytest.mark.parametrize(
    "wanted",
    [
        lambda drawn: drawn[1][0] < drawn[1][-1],
        lambda drawn: drawn[1][0] > drawn[1][-1],
        lambda drawn: max(drawn[1]) < len(drawn[0]),
        lambda drawn: bool(drawn[0][drawn[1][0] :, 0].any()),
    ],
    ids=["ascending", "descending", "longer than all", "padding that is not 0"],
)
def test_sequences_of_every_kind_are_drawn(wanted: Callable[[Any], bool]) -> None:
    found(strategies.sequences(1, layout="contiguous"), wanted)


@given(st.data())
def test_masks_end_with_their_sequences(data: st.DataObject) -> None:
    x, lengths = data.draw(strategies.sequences(1, min_length=0))
    mask = data.draw(strategies.masks(len(x), lengths))
    assert (mask.dtype, mask.shape) == (bool, x.shape[:2])
    assert mask.any() == any(lengths)
    assert not any(mask[length:, i].any() for i, length in enumerate(lengths))


def test_masks_have_holes() -> None:
    mask = found(strategies.masks(3, [3]), lambda m: m[:, 0].tolist() == [True, False, True])
    assert mask.shape == (3, 1)
