"""Strategies of shapes, and of what is said about one: its axes and its indices."""

from __future__ import annotations

from typing import Any, TypeAlias

from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Shape: TypeAlias = tuple[int, ...]


def shapes(
    *, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4
) -> st.SearchStrategy[Shape]:
    """The shape of one array, by default of any, also without axes or without elements.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> find(strategies.shapes(), lambda shape: True)  # the simplest
    ()
    """
    return hnp.array_shapes(
        min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )


def broadcastable_shapes(
    count: int = 2, *, max_dims: int = 3, min_side: int = 0, max_side: int = 4
) -> st.SearchStrategy[tuple[Shape, ...]]:
    """The shapes of ``count`` arrays that broadcast against each other.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> find(strategies.broadcastable_shapes(2), lambda shapes: True)
    ((), ())
    """
    return hnp.mutually_broadcastable_shapes(
        num_shapes=count, max_dims=max_dims, min_side=min_side, max_side=max_side
    ).map(lambda drawn: drawn.input_shapes)


def axes(
    shape: Shape, *, none: bool = True, several: bool = True
) -> st.SearchStrategy[int | tuple[int, ...] | None]:
    """An axis argument for an array of ``shape``: an integer of either sign, a tuple, or None.

    Args:
        shape: that of the array.
        none: whether ``None``, which stands for all axes, is drawn.
        several: whether tuples of different axes are drawn, in any order.

    Raises ``ValueError`` if nothing is left to draw.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> find(strategies.axes((2, 3)), lambda axis: axis == (-1, 0))
    (-1, 0)
    """
    ndim = len(shape)
    choices: list[st.SearchStrategy[Any]] = [st.none()] if none else []
    if ndim:
        choices.append(_axis(ndim))
    if ndim and several:
        different = st.lists(
            _axis(ndim), min_size=1, max_size=ndim, unique_by=lambda axis: axis % ndim
        )
        choices.append(different.map(tuple))
    if not choices:
        raise ValueError("a shape () has no axis: give a longer one, or none=True")
    return st.one_of(choices)


def indices(
    shape: Shape, *, arrays: bool = True, newaxis: bool = True
) -> st.SearchStrategy[tuple[Any, ...]]:
    """A valid index of an array of ``shape``, as a tuple.

    Its parts are integers, slices and ``Ellipsis``; arrays of integers, which broadcast
    against each other and may repeat a position, or an array of booleans over one or more
    axes; and ``None``.

    Args:
        shape: that of the array.
        arrays: whether arrays are among the parts.
        newaxis: whether ``None`` is among the parts.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> find(strategies.indices((3, 4), arrays=False), lambda index: index == (0, ...))
    (0, Ellipsis)
    """
    kinds = [_basic_parts(shape)]
    if arrays and shape:
        kinds += [_parts_with_integers(shape), _parts_with_booleans(shape)]
    return _with_gaps(st.one_of(kinds), newaxis)


def _axis(ndim: int) -> st.SearchStrategy[int]:
    """One axis, counted from the front or from the back."""
    return st.integers(0, ndim - 1) | st.integers(-ndim, -1)


def _positions(length: int) -> st.SearchStrategy[int]:
    """One position on an axis, counted from the front or from the back."""
    return st.integers(0, length - 1) | st.integers(-length, -1)


def _part(length: int) -> st.SearchStrategy[Any]:
    """A slice or an integer, for one axis."""
    return st.slices(length) | _positions(length) if length else st.slices(length)


def _basic_parts(shape: Shape) -> st.SearchStrategy[list[Any]]:
    return st.tuples(*map(_part, shape)).map(list)


@st.composite
def _parts_with_integers(draw: st.DrawFn, shape: Shape) -> list[Any]:
    """Arrays of integers for some axes, which broadcast to one shape or to a part of it."""
    common = draw(shapes(min_dims=1, max_dims=2, max_side=3))
    stretched = (1,) * len(common)

    def part(length: int) -> Any:
        if not length or draw(st.booleans()):
            return draw(_part(length))
        of = draw(st.sampled_from([common, common[1:], stretched]))
        return draw(hnp.arrays("int64", of, elements=_positions(length), fill=st.nothing()))

    return list(map(part, shape))


@st.composite
def _parts_with_booleans(draw: st.DrawFn, shape: Shape) -> list[Any]:
    """An array of booleans for one axis, or for several in a row."""
    first = draw(st.integers(0, len(shape) - 1))
    end = draw(st.integers(first + 1, len(shape)))
    mask = draw(hnp.arrays(bool, shape[first:end], fill=st.nothing()))
    return [*map(draw, map(_part, shape[:first])), mask, *map(draw, map(_part, shape[end:]))]


@st.composite
def _with_gaps(
    draw: st.DrawFn, parts: st.SearchStrategy[list[Any]], newaxis: bool
) -> tuple[Any, ...]:
    """Without the last parts, or an Ellipsis for some in a row; and with new axes in between."""
    index = draw(parts)
    start = draw(st.integers(0, len(index)))
    end = draw(st.integers(start, len(index)))
    if draw(st.booleans()):
        index[start:end] = [...]
    elif end == len(index):
        del index[start:]
    if newaxis:
        for place in draw(st.lists(st.integers(0, len(index)), max_size=2)):
            index.insert(place, None)
    return tuple(index)
