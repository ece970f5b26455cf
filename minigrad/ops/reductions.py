"""Reductions: sums, means, products, extremes."""

from __future__ import annotations

from math import prod as product
from typing import Any

from minigrad.arrays import TensorLike
from minigrad.ops.arithmetic import divide
from minigrad.ops.axes import places
from minigrad.ops.comparisons import where
from minigrad.ops.cumulative import products_after, products_before
from minigrad.ops.shapes import astype, broadcast_to, moveaxis
from minigrad.primitive import operation, primitive
from minigrad.tensor import Axis, Tensor, with_axes


@operation
@primitive
def sum(x: TensorLike, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over an axis, several axes, or all.

    >>> import minigrad as mg
    >>> mg.sum(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    tensor([4., 6.])
    """
    return x.sum(axis, keepdims=keepdims)


sum.rules(x=lambda g, operand_shape, axis, keepdims: spread(g, operand_shape, axis, keepdims))


@operation
def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean over an axis, several axes, or all.

    Raises ``ValueError`` over no elements.

    >>> import minigrad as mg
    >>> mg.mean(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([1.5, 3.5])
    """
    x = with_axes(x)
    axes = places("mean", axis, x.shape)
    if x.dtype == "float16":  # whose sums overflow at 65504
        return astype(mean(astype(x, "float32"), axis, keepdims), "float16")
    total = sum(x, axis=axis, keepdims=keepdims)
    count = _count(x.shape, axes)
    if not count:
        raise ValueError(f"mean: no elements to average, the shape is {x.shape} and axis={axis}")
    return divide(total, count)


@operation
@primitive
def var(x: TensorLike, /, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
    """The variance over an axis, several axes, or all:  sum (x_i - mean)^2 / (n - ddof).

    Raises ``ValueError`` over no more than ``ddof`` elements.

    >>> import minigrad as mg
    >>> mg.var(mg.tensor([1.0, 2.0, 3.0]), ddof=1)
    tensor(1.)
    """
    _freedom(x.shape, axis, ddof)
    return narrowed(widened(x).var(axis, ddof=ddof, keepdims=keepdims), x)


def _freedom(shape: tuple[int, ...], axis: Axis, ddof: float) -> float:
    """n - ddof"""
    count = _count(shape, places("var", axis, shape))
    if count <= ddof:
        raise ValueError(f"{count} elements have no variance with ddof={ddof}")
    return count - ddof


def _var_rule(g: Any, x: Any, axis: Axis, ddof: float, keepdims: bool) -> Any:
    """2 (x_i - mean) / (n - ddof)"""
    centred = x - mean(x, axis, keepdims=True)
    return spread(g, x.shape, axis, keepdims) * (centred * (2.0 / _freedom(x.shape, axis, ddof)))


var.rules(x=_var_rule)


@operation
@primitive
def std(x: TensorLike, /, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
    """The standard deviation, the square root of :func:`var`.

    The derivative is taken to be 0 where all elements are equal.

    >>> import minigrad as mg
    >>> mg.std(mg.tensor([1.0, 2.0, 3.0]), ddof=1)
    tensor(1.)
    """
    _freedom(x.shape, axis, ddof)
    return narrowed(widened(x).std(axis, ddof=ddof, keepdims=keepdims), x)


def _std_rule(g: Any, x: Any, out: Any, axis: Axis, ddof: float, keepdims: bool) -> Any:
    """(x_i - mean) / (n - ddof) / std"""
    per_std = spread(over(g, out), x.shape, axis, keepdims)
    centred = x - mean(x, axis, keepdims=True)
    return per_std * (centred * (1.0 / _freedom(x.shape, axis, ddof)))


std.rules(x=_std_rule)


@operation
@primitive
def standardize(x: TensorLike, /, axis: Axis = -1, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + eps)  over an axis, several axes, or all.

    Raises ``ValueError`` over no elements.

    >>> import minigrad as mg
    >>> mg.standardize(mg.tensor([1.0, 3.0]), eps=0.0)
    tensor([-1.,  1.])
    """
    _freedom(x.shape, axis, 0)
    wide = widened(x)
    out = wide - wide.mean(axis, keepdims=True)
    out /= ((out * out).mean(axis, keepdims=True) + eps) ** 0.5
    return narrowed(out, x)


def _standardize_rule(g: Any, x: Any, out: Any, axis: Axis, eps: float) -> Any:
    """(g - mean(g) - out mean(g out)) / sqrt(variance + eps)"""
    std = (var(widened(x), axis, keepdims=True) + eps) ** 0.5
    g, out = widened(g), widened(out)
    along = mean(g * out, axis, keepdims=True)
    return (g - mean(g, axis, keepdims=True) - out * along) / std


standardize.rules(x=_standardize_rule)


@operation
@primitive
def prod(x: TensorLike, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The product over an axis, several axes, or all.

    Its derivatives are right where elements are 0, too.

    >>> import minigrad as mg
    >>> mg.prod(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([ 2., 12.])
    """
    return x.prod(axis, keepdims=keepdims)


def _prod_rule(g: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """The product of the other elements: of those before and of those after each."""
    axes = places("prod", axis, x.shape)
    last = tuple(range(-len(axes), 0))
    moved = moveaxis(x, axes, last)
    rows = moved.reshape((*moved.shape[: x.ndim - len(axes)], _count(x.shape, axes)))
    along = rows.ndim - 1
    others = products_before(rows, along) * products_after(rows, along)
    return spread(g, x.shape, axis, keepdims) * moveaxis(others.reshape(moved.shape), last, axes)


prod.rules(x=_prod_rule)


@operation
@primitive
def max(x: TensorLike, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element; elements that tie share the gradient equally.

    >>> import minigrad as mg
    >>> mg.max(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([2., 4.])
    """
    return x.max(axis, keepdims=keepdims)


@operation
@primitive
def min(x: TensorLike, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element; elements that tie share the gradient equally.

    >>> import minigrad as mg
    >>> mg.min(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([1., 3.])
    """
    return x.min(axis, keepdims=keepdims)


def _extreme_rule(g: Any, x: Any, out: Any, axis: Axis, keepdims: bool) -> Any:
    """Every element that attains the extreme gets 1 / (their number) of the gradient."""
    wide = "float64" if x.dtype == "float64" else "float32"
    attains = (x == spread(out, x.shape, axis, keepdims)).astype(wide)
    count = attains.sum(axis=axis, keepdims=True)
    return spread(g, x.shape, axis, keepdims) * (attains / count).astype(x.dtype)


max.rules(x=_extreme_rule)
min.rules(x=_extreme_rule)


def _count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """How many elements there are along these axes."""
    return product([shape[i] for i in axes])


def widened(x: Any) -> Any:
    """x in floats in which squares add up: those of float16 overflow at 65504."""
    if x.dtype.kind != "f":
        return x.astype("float64")
    return x.astype("float32") if x.dtype == "float16" else x


def narrowed(out: Any, x: Any) -> Any:
    """What was computed of ``widened(x)``, in float16 again if x is."""
    return out.astype("float16") if x.dtype == "float16" else out


def over(g: Any, out: Any) -> Any:
    """g / out, and 0 where out is 0."""
    return where(out == 0, 0.0, g / where(out == 0, 1.0, out))


def spread(reduced: Any, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Any:
    """A reduced tensor repeated along the axes that were reduced."""
    if not keepdims:
        gone = places("spread", axis, shape)
        kept = tuple([1 if i in gone else length for i, length in enumerate(shape)])
        reduced = reduced.reshape(kept)
    return broadcast_to(reduced, shape)
