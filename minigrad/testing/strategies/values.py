"""Strategies of arrays and tensors: their values, dtypes and layouts in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minigrad as mg
from minigrad.arrays import namespace
from minigrad.testing.strategies.shapes import Shape, shapes

Array: TypeAlias = "np.ndarray[Any, Any]"
Layout = Literal["contiguous", "transposed", "strided", "reversed"]

#: How an array of a layout is made of a contiguous one: with the same values, by a library.
_LAYOUTS: dict[Layout, Callable[[Any, Array], Array]] = {
    "contiguous": lambda xp, x: x,
    "transposed": lambda xp, x: xp.asfortranarray(x),
    "strided": lambda xp, x: xp.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda xp, x: xp.flip(xp.flip(x).copy()),
}


def dtypes(kinds: str = "f") -> st.SearchStrategy[str]:
    """The name of a dtype whose ``np.dtype(...).kind`` is among ``kinds``.

    Floats are float64, float32 and float16, the simplest first; ``"i"`` stands for signed
    integers, ``"u"`` for unsigned ones, ``"b"`` for booleans.

    Raises ``ValueError`` for other kinds.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> find(strategies.dtypes("fi"), lambda dtype: True)
    'float64'
    """
    known = {
        "f": ["float64", "float32", "float16"],
        "i": ["int64", "int32", "int16", "int8"],
        "u": ["uint64", "uint32", "uint16", "uint8"],
        "b": ["bool"],
    }
    if not kinds or not {*kinds} <= {*known}:
        raise ValueError(f"the kinds of dtypes are letters of 'fiub', not {kinds!r}")
    return st.sampled_from([name for kind in kinds for name in known[kind]])


def arrays(
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    dtype: Any = "float64",
    *,
    low: float = -2.0,
    high: float = 2.0,
    away_from: Sequence[float] = (),
    margin: float = 0.05,
    at: Sequence[float] = (),
    distinct: bool = False,
    layout: Layout | None = None,
) -> st.SearchStrategy[Array]:
    """Arrays of numbers with few digits, which shrink towards whole numbers near 0.

    An interval holds 100 to 1,000 such numbers, so that different ones are far from each
    other by the standards of finite differences.

    Args:
        shape: a shape, or a strategy of shapes; by default :func:`shapes`.
        dtype: a dtype, or a strategy such as :func:`dtypes`. Integer dtypes hold the whole
            numbers of the interval.
        low, high: the interval in which the values lie.
        away_from: points, such as kinks, to which no value is nearer than ``margin``.
        margin: that distance.
        at: values to be drawn as often as all others, such as the kinks themselves.
        distinct: whether all values are different (there are no ties).
        layout: ``"contiguous"``, ``"transposed"`` (the first axis varies fastest in memory),
            ``"strided"`` (there are gaps between the elements) or ``"reversed"`` (negative
            strides); by default any of them.

    Raises ``ValueError`` for an unknown layout, and, when it draws, if no value or too few
    distinct values are left.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> find(strategies.arrays((3,), away_from=[0], distinct=True), lambda x: True)
    array([ 1., -1.,  2.])
    """
    layouts = _layouts(layout)

    def contiguous(shape: Shape, dtype: Any) -> st.SearchStrategy[Array]:
        dtype = np.dtype(dtype)
        common = _numbers(dtype, low, high, tuple(away_from), margin)
        available, size = len({*common, *at}), math.prod(shape)
        if size and available < (size if distinct else 1):
            raise ValueError(
                f"{size if distinct else 1} different values of {dtype} are needed, and "
                f"{available} lie between {low} and {high}"
                + f", {margin} away from {[*away_from]}"
                * bool(away_from)
            )
        elements = st.one_of([st.sampled_from(values) for values in (common, at) if values])
        return hnp.arrays(dtype, shape, elements=elements, fill=st.nothing(), unique=distinct)

    drawn = st.tuples(_drawn(shapes() if shape is None else shape), _drawn(dtype))
    return st.builds(_laid_out, drawn.flatmap(lambda both: contiguous(*both)), layouts)


def tensors(
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    dtype: Any = "float64",
    *,
    requires_grad: bool = False,
    layout: Layout | None = None,
    **settings: Any,
) -> st.SearchStrategy[mg.Tensor]:
    """Tensors that hold :func:`arrays`, made on the device of the ``mg.device`` scope.

    Args:
        shape, dtype, layout: as for :func:`arrays`; the layout is that on the device.
        requires_grad: whether the tensors are leaves.
        settings: the other arguments of :func:`arrays`.

    Raises what :func:`arrays` raises.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> find(strategies.tensors((2,), requires_grad=True), lambda t: True)
    tensor([0., 0.], dtype=float64, requires_grad=True)
    """
    drawn = arrays(shape, dtype, layout="contiguous", **settings)
    there = drawn.map(lambda array: mg.asarray(array).array)
    laid_out = st.builds(_laid_out, there, _layouts(layout))
    return laid_out.map(lambda array: mg.asarray(array, requires_grad=requires_grad))


@st.composite
def sequences(
    draw: st.DrawFn,
    /,
    features: int = 3,
    *,
    max_time: int = 5,
    max_batch: int = 3,
    min_length: int = 1,
    **settings: Any,
) -> tuple[Array, list[int]]:
    """Sequences of different lengths: the padded array, and how long each of them is.

    The padding is drawn like everything else, so that whoever reads it gets it wrong.

    Args:
        features: the length of the last axis.
        max_time: how long a sequence can be.
        max_batch: how many sequences there can be.
        min_length: how short a sequence can be; 0 allows empty ones.
        settings: the arguments of :func:`arrays` but its shape.

    Returns:
        (time, batch, features), and ``batch`` integers between ``min_length`` and ``time``,
        in any order.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> x, lengths = find(strategies.sequences(4), lambda drawn: drawn[1] == [1, 2])
    >>> x.shape[1:], lengths
    ((2, 4), [1, 2])
    """
    lengths = draw(st.lists(st.integers(min_length, max_time), min_size=1, max_size=max_batch))
    time = draw(st.integers(max(1, *lengths), max_time))
    return draw(arrays((time, len(lengths), features), **settings)), lengths


@st.composite
def masks(draw: st.DrawFn, time: int, lengths: Sequence[int]) -> Array:
    """Which steps of sequences of these ``lengths`` count: booleans (time, batch), with holes.

    Steps beyond a sequence's end never count, and at least one does unless all are empty.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> find(strategies.masks(3, [3]), lambda mask: mask[0] and mask[2] and not mask[1]).T
    array([[ True, False,  True]])
    """
    within = np.arange(time)[:, None] < np.asarray(lengths, dtype="int64")
    mask = within & draw(hnp.arrays(bool, within.shape, fill=st.nothing()))
    if within.any() and not mask.any():
        mask[0, np.argmax(within[0])] = True
    return mask


def _drawn(value: Any) -> st.SearchStrategy[Any]:
    """``value``, if it is not a strategy already."""
    return value if isinstance(value, st.SearchStrategy) else st.just(value)


def _layouts(layout: Layout | None) -> st.SearchStrategy[Layout]:
    if layout is None:
        return st.sampled_from([*_LAYOUTS])
    if layout not in _LAYOUTS:
        raise ValueError(f"a layout is {', '.join(map(repr, _LAYOUTS))} or None, not {layout!r}")
    return st.just(layout)


def _laid_out(array: Array, layout: Layout) -> Array:
    return _LAYOUTS[layout](namespace(array), array) if array.ndim else array


@lru_cache
def _numbers(
    dtype: np.dtype[Any], low: float, high: float, away_from: tuple[float, ...], margin: float
) -> list[Any]:
    """Numbers of few decimals in an interval, the simplest first."""
    if dtype.kind == "b":
        return [False, True]
    decimals = 2 - math.floor(math.log10(high - low)) if high > low else 2
    if dtype.kind in "iu":
        decimals = min(decimals, 0)
        low, high = max(low, np.iinfo(dtype).min), min(high, np.iinfo(dtype).max)
    scale = 10.0**decimals
    multiples = range(math.ceil(low * scale), math.floor(high * scale) + 1)
    values = [round(multiple / scale, max(decimals, 0)) for multiple in multiples]
    if dtype.kind in "iu":
        values = list(map(int, values))
    kept = [v for v in values if all(abs(v - point) >= margin for point in away_from)]
    return sorted(kept, key=lambda v: (v % 1 != 0, len(str(abs(v))), abs(v), v < 0))
