"""Operations that move elements: reshape, transpose, join, split, cast."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import index
from typing import Any

from minigrad.arrays import TensorLike, check_real, common_namespace, is_array, namespace
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor, asarray, with_axes


@operation
@primitive
def reshape(x: TensorLike, /, shape: int | Sequence[int]) -> Tensor:
    """The elements of x in their order, in another shape; one length may be -1.

    >>> import minigrad as mg
    >>> mg.reshape(mg.tensor([1.0, 2.0, 3.0, 4.0]), (2, -1))
    tensor([[1., 2.],
            [3., 4.]])
    """
    return x.reshape(shape)


reshape.rules(x=lambda g, operand_shape: g.reshape(operand_shape))


@operation
@primitive
def transpose(x: TensorLike, /, axes: Sequence[int] | None = None) -> Tensor:
    """x with its axes in another order; by default reversed.

    >>> import minigrad as mg
    >>> mg.transpose(mg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[1., 3.],
            [2., 4.]])
    """
    return x.transpose(axes)


def _inverse(axes: Sequence[int] | None) -> Sequence[int] | None:
    if axes is None:
        return None
    places = [axis % len(axes) for axis in axes]
    return [places.index(axis) for axis in range(len(axes))]


transpose.rules(x=lambda g, axes: g.transpose(_inverse(axes)))


@operation
def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """x with two axes exchanged.

    >>> import minigrad as mg
    >>> mg.swapaxes(mg.tensor([[1.0, 2.0]]), 0, 1).shape
    (2, 1)
    """
    x = with_axes(x)
    axes = list(range(x.ndim))
    for axis in (axis1, axis2):
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(f"swapaxes: axis {axis} is out of bounds for a shape {x.shape}")
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return transpose(x, axes)


@operation
def expand_dims(x: TensorLike, axis: int) -> Tensor:
    """x with a new axis of length 1 at ``axis``.

    >>> import minigrad as mg
    >>> mg.expand_dims(mg.tensor([1.0, 2.0]), 0).shape
    (1, 2)
    """
    x = with_axes(x)
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise ValueError(f"expand_dims: axis {axis} is out of bounds for a shape {x.shape}")
    place = axis % (x.ndim + 1)
    return reshape(x, (*x.shape[:place], 1, *x.shape[place:]))


@operation
def squeeze(x: TensorLike, axis: int | None = None) -> Tensor:
    """x without its axes of length 1, or without the one at ``axis``.

    >>> import minigrad as mg
    >>> mg.squeeze(mg.tensor([[1.0, 2.0]])).shape
    (2,)
    """
    x = with_axes(x)
    if axis is not None and (not -x.ndim <= axis < x.ndim or x.shape[axis] != 1):
        raise ValueError(f"squeeze: axis {axis} of a shape {x.shape} is not of length 1")
    dropped = range(x.ndim) if axis is None else (axis % x.ndim,)
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in dropped))


@operation
@primitive
def broadcast_to(x: TensorLike, /, shape: Sequence[int]) -> Tensor:
    """x repeated along new axes and axes of length 1, without copying.

    >>> import minigrad as mg
    >>> mg.broadcast_to(mg.tensor([1.0, 2.0]), (2, 2))
    tensor([[1., 2.],
            [1., 2.]])
    """
    return namespace(x).broadcast_to(x, shape)


broadcast_to.rules(x=lambda g: g)  # the tape sums it back


@operation
@primitive
def astype(x: TensorLike, /, dtype: Any) -> Tensor:
    """x in another dtype; its gradient is cast back.

    Integers and booleans are constants, so a cast to them ends the gradient.

    >>> import minigrad as mg
    >>> mg.astype(mg.tensor([1.0, 2.5]), "float64")
    tensor([1. , 2.5], dtype=float64)
    """
    wanted = namespace(x).dtype(dtype)
    check_real(wanted)
    return x.astype(wanted)


astype.rules(x=lambda g: g)  # the tape casts it back


# --------------------------------------------------------------------------------------
# Joining and splitting
# --------------------------------------------------------------------------------------


@primitive
def _concatenate(*arrays: TensorLike, axis: int, bounds: Sequence[int]) -> Tensor:
    return common_namespace(*arrays).concatenate(arrays, axis)


_concatenate.rules(
    arrays=lambda g, axis, bounds, position: g[_span(axis, bounds[position], bounds[position + 1])]
)


@operation
def concatenate(arrays: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """The tensors one after another along an axis they have.

    >>> import minigrad as mg
    >>> mg.concatenate([mg.tensor([1.0]), mg.tensor([2.0, 3.0])])
    tensor([1., 2., 3.])
    """
    arrays = _to_join("concatenate", arrays)
    ndim = arrays[0].ndim
    if not -ndim <= axis < ndim:
        raise ValueError(f"concatenate: axis {axis} is out of bounds for a shape {arrays[0].shape}")
    axis %= ndim
    if any(a.ndim != ndim for a in arrays):
        raise ValueError(
            "concatenate: the tensors have different numbers of axes, their shapes are "
            + ", ".join(str(a.shape) if a.ndim else str(a.tolist()) for a in arrays)
        )
    bounds = tuple(accumulate((a.shape[axis] for a in arrays), initial=0))
    return _concatenate(*arrays, axis=axis, bounds=bounds)


@primitive
def _stack(*arrays: TensorLike, axis: int) -> Tensor:
    return common_namespace(*arrays).stack(arrays, axis)


_stack.rules(arrays=lambda g, axis, position: g[_at(axis, position)])


@operation
def stack(arrays: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """The tensors, of one shape, side by side along a new axis.

    >>> import minigrad as mg
    >>> mg.stack([mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])], axis=1)
    tensor([[1., 3.],
            [2., 4.]])
    """
    arrays = _to_join("stack", arrays)
    ndim = arrays[0].ndim + 1
    if not -ndim <= axis < ndim:
        raise ValueError(f"stack: axis {axis} is out of bounds for {ndim} axes")
    return _stack(*arrays, axis=axis % ndim)


def _to_join(name: str, arrays: Sequence[TensorLike]) -> list[Any]:
    """The arrays as a list; numbers among them take the dtype of the others."""
    arrays = list(arrays)
    if not arrays:
        raise ValueError(f"{name}: there is nothing to join; give at least one tensor")
    dtype = next((a.dtype for a in arrays if isinstance(a, Tensor) or is_array(a)), None)
    return [
        asarray(a, dtype) if isinstance(a, int | float) and dtype is not None else with_axes(a)
        for a in arrays
    ]


@primitive
def _split(x: TensorLike, /, bounds: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    return tuple([x[_span(axis, start, stop)] for start, stop in pairwise(bounds)])


_split.rules(x=lambda g, axis: concatenate(g, axis))


@operation
def split(x: TensorLike, sections: Any, axis: int = 0) -> list[Tensor]:
    """x in equal sections along an axis, or split before the given positions.

    >>> import minigrad as mg
    >>> mg.split(mg.tensor([1.0, 2.0, 3.0, 4.0]), 2)
    [tensor([1., 2.]), tensor([3., 4.])]
    """
    x = with_axes(x)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"split: axis {axis} is out of bounds for a shape {x.shape}")
    axis %= x.ndim
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
    return tuple([x[_at(axis, i)] for i in range(x.shape[axis])])


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
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"unstack: axis {axis} is out of bounds for a shape {x.shape}")
    axis %= x.ndim
    return _unstack(x, axis=axis) if x.shape[axis] else ()


def _span(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    """The index of ``start:stop`` along ``axis``."""
    return (slice(None),) * axis + (slice(start, stop),)


def _at(axis: int, i: int) -> tuple[slice | int, ...]:
    """The index of position ``i`` along ``axis``."""
    return (*(slice(None),) * axis, i)
