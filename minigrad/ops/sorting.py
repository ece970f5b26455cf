"""Sorting, and the positions of extremes."""

from __future__ import annotations

from minigrad.arrays import TensorLike, namespace
from minigrad.ops.axes import place
from minigrad.ops.shapes import ravel
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor, with_axes


@operation
@primitive
def argmax(x: TensorLike, /, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the (first) largest element along an axis, as a constant.

    >>> import minigrad as mg
    >>> mg.argmax(mg.tensor([1.0, 3.0, 2.0]))
    tensor(1)
    """
    return x.argmax(axis, keepdims=keepdims)


@operation
@primitive
def argmin(x: TensorLike, /, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the (first) smallest element along an axis, as a constant.

    >>> import minigrad as mg
    >>> mg.argmin(mg.tensor([2.0, 1.0, 3.0]))
    tensor(1)
    """
    return x.argmin(axis, keepdims=keepdims)


@operation
@primitive
def argsort(x: TensorLike, /, axis: int | None = -1) -> Tensor:
    """The positions of the elements in ascending order; equal ones stay in theirs. A constant.

    >>> import minigrad as mg
    >>> mg.argsort(mg.tensor([3.0, 1.0, 2.0]))
    tensor([1, 2, 0])
    """
    return namespace(x).argsort(x, axis, kind="stable")


@primitive
def _permute_along(x: TensorLike, order: TensorLike, /, axis: int) -> Tensor:
    """Each row of x along an axis in the order that its row of ``order`` gives."""
    return namespace(x).take_along_axis(x, order, axis)


_permute_along.rules(x=lambda g, order, axis: _permute_along(g, argsort(order, axis), axis))


@operation
def sort(x: TensorLike, axis: int | None = -1) -> Tensor:
    """x in ascending order along an axis, or all of x; the gradient goes back to the positions.

    Equal elements stay in their order, and so do their gradients.

    >>> import minigrad as mg
    >>> mg.sort(mg.tensor([3.0, 1.0, 2.0]))
    tensor([1., 2., 3.])
    """
    x = with_axes(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = place("sort", axis, x.shape)
    return _permute_along(x, argsort(x, axis), axis=axis)
