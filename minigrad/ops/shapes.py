"""Operations that keep the elements: other shapes, orders of axes, and dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.arrays import TensorLike, check_real, namespace
from minigrad.ops.axes import integers, place, places
from minigrad.primitive import operation, primitive
from minigrad.tensor import Axis, Tensor, with_axes


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
    one, other = (place("swapaxes", axis, x.shape) for axis in (axis1, axis2))
    axes[one], axes[other] = other, one
    return transpose(x, axes)


@operation
def moveaxis(x: TensorLike, source: Axis, destination: Axis) -> Tensor:
    """x with one or several axes moved to other places, and the rest in their order.

    >>> import minigrad as mg
    >>> mg.moveaxis(mg.broadcast_to(mg.tensor(1.0), (2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    x = with_axes(x)
    moved = places("moveaxis", source, x.shape)
    goals = places("moveaxis", destination, x.shape)
    if len(moved) != len(goals):
        raise ValueError(f"moveaxis: {len(moved)} axes cannot move to {len(goals)} places")
    axes = [axis for axis in range(x.ndim) if axis not in moved]
    for goal, axis in sorted(zip(goals, moved, strict=True)):
        axes.insert(goal, axis)
    return transpose(x, axes)


@operation
def ravel(x: TensorLike) -> Tensor:
    """The elements of x in their order, along one axis.

    >>> import minigrad as mg
    >>> mg.ravel(mg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([1., 2., 3., 4.])
    """
    return reshape(x, -1)


@operation
def expand_dims(x: TensorLike, axis: int | Sequence[int]) -> Tensor:
    """x with new axes of length 1, which stand at ``axis`` of the result.

    >>> import minigrad as mg
    >>> mg.expand_dims(mg.tensor([1.0, 2.0]), (0, -1)).shape
    (1, 2, 1)
    """
    x = with_axes(x)
    made = places("expand_dims", axis, x.shape, new=len(integers(axis)))
    lengths = iter(x.shape)
    return reshape(x, [1 if i in made else next(lengths) for i in range(x.ndim + len(made))])


@operation
def squeeze(x: TensorLike, axis: Axis = None) -> Tensor:
    """x without its axes of length 1, or without those at ``axis``.

    >>> import minigrad as mg
    >>> mg.squeeze(mg.tensor([[1.0, 2.0]])).shape
    (2,)
    """
    x = with_axes(x)
    dropped = places("squeeze", axis, x.shape)
    if axis is not None and any([x.shape[i] != 1 for i in dropped]):
        raise ValueError(f"squeeze: axis {axis} of a shape {x.shape} is not of length 1")
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
