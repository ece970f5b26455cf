"""Joining tensors, and splitting them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import index
from typing import Any

from minigrad.arrays import TensorLike, common_namespace, device_of, is_array
from minigrad.ops.axes import at, place, span
from minigrad.ops.shapes import ravel
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor, as_operand, asarray, with_axes


@primitive
def _concatenate(*arrays: TensorLike, axis: int, bounds: Sequence[int]) -> Tensor:
    return common_namespace(*arrays).concatenate(arrays, axis)


_concatenate.rules(
    arrays=lambda g, axis, bounds, position: g[span(axis, bounds[position], bounds[position + 1])]
)


@operation
def concatenate(arrays: Sequence[TensorLike], axis: int | None = 0) -> Tensor:
    """The tensors one after another along an axis they have; all in one row if it is None.

    >>> import minigrad as mg
    >>> mg.concatenate([mg.tensor([1.0]), mg.tensor([2.0, 3.0])])
    tensor([1., 2., 3.])
    """
    arrays = _to_join("concatenate", arrays)
    if axis is None:
        arrays, axis = [ravel(a) for a in arrays], 0
    axis = place("concatenate", axis, arrays[0].shape)
    if any(a.ndim != arrays[0].ndim for a in arrays):
        raise ValueError(
            "concatenate: the tensors have different numbers of axes, their shapes are "
            + ", ".join(str(a.shape) if a.ndim else str(a.tolist()) for a in arrays)
        )
    bounds = tuple(accumulate((a.shape[axis] for a in arrays), initial=0))
    return _concatenate(*arrays, axis=axis, bounds=bounds)


@primitive
def _stack(*arrays: TensorLike, axis: int) -> Tensor:
    return common_namespace(*arrays).stack(arrays, axis)


_stack.rules(arrays=lambda g, axis, position: g[at(axis, position)])


@operation
def stack(arrays: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """The tensors, of one shape, side by side along a new axis.

    >>> import minigrad as mg
    >>> mg.stack([mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])], axis=1)
    tensor([[1., 3.],
            [2., 4.]])
    """
    arrays = _to_join("stack", arrays)
    return _stack(*arrays, axis=place("stack", axis, arrays[0].shape, new=1))


def _to_join(name: str, arrays: Sequence[TensorLike]) -> list[Any]:
    """The arrays as a list; numbers among them take the dtype and device of the others."""
    arrays = list(arrays)
    if not arrays:
        raise ValueError(f"{name}: there is nothing to join; give at least one tensor")
    other = next((as_operand(a) for a in arrays if isinstance(a, Tensor) or is_array(a)), None)
    return [
        # Of NumPy's scalars, which are arrays here, one is a float of Python, too.
        asarray(a, other.dtype, device=device_of(other))
        if isinstance(a, int | float) and not is_array(a) and other is not None
        else with_axes(a)
        for a in arrays
    ]


@primitive
def _split(x: TensorLike, /, bounds: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    return tuple([x[span(axis, start, stop)] for start, stop in pairwise(bounds)])


_split.rules(x=lambda g, axis: concatenate(g, axis))


@operation
def split(x: TensorLike, sections: Any, axis: int = 0) -> list[Tensor]:
    """x in equal sections along an axis, or split before the given positions.

    >>> import minigrad as mg
    >>> mg.split(mg.tensor([1.0, 2.0, 3.0, 4.0]), 2)
    [tensor([1., 2.]), tensor([3., 4.])]
    """
    x = with_axes(x)
    axis = place("split", axis, x.shape)
    bounds = _split_bounds(sections, x.shape[axis])
    return list(_split(x, bounds=bounds, axis=axis))


def _split_bounds(sections: Any, length: int) -> tuple[int, ...]:
    """Where the sections of an axis of that length begin, and the last one ends."""
    try:
        count = index(sections)
    except TypeError:
        pass
    else:
        if count < 1 or length % count:
            raise ValueError(f"split: an axis of length {length} has no {count} equal sections")
        return tuple([length * i // count for i in range(count + 1)])
    try:
        positions = [slice(s, None).indices(length)[0] for s in map(index, sections)]
    except TypeError:
        raise TypeError(
            f"split: sections is their number, or a sequence of positions, not {sections!r}"
        ) from None
    if positions != sorted(positions):
        raise ValueError(f"split: the positions {tuple(sections)} are not in ascending order")
    return (0, *positions, length)


@primitive
def _unstack(x: TensorLike, /, axis: int) -> tuple[Tensor, ...]:
    return tuple([x[at(axis, i)] for i in range(x.shape[axis])])


_unstack.rules(x=lambda g, axis: stack(g, axis))


@operation
def unstack(x: TensorLike, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices of x along an axis, the inverse of :func:`stack`.

    Reading a sequence step by step this way costs one entry on the tape, and its gradient
    is put together once; indexing with ``x[t]`` costs a gradient of the size of x each.

    >>> import minigrad as mg
    >>> mg.unstack(mg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    (tensor([1., 2.]), tensor([3., 4.]))
    """
    x = with_axes(x)
    axis = place("unstack", axis, x.shape)
    return _unstack(x, axis=axis) if x.shape[axis] else ()
