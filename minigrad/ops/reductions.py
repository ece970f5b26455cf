"""Operations that reduce axes: sums, extremes, and the softmax family."""

from __future__ import annotations

from math import inf, prod
from operator import index
from typing import Any

from minigrad.arrays import TensorLike, namespace
from minigrad.ops.elementwise import divide, exp, where
from minigrad.ops.shapes import astype, broadcast_to
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


sum.rules(x=lambda g, operand_shape, axis, keepdims: _spread(g, operand_shape, axis, keepdims))


@operation
def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean over an axis, several axes, or all.

    Raises ``ValueError`` over no elements.

    >>> import minigrad as mg
    >>> mg.mean(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    tensor([1.5, 3.5])
    """
    x = with_axes(x)
    axes = _axes(axis, x.ndim)
    if any(not -x.ndim <= a < x.ndim for a in axes) or len({*axes}) < len(axes):
        raise ValueError(f"mean: axis={axis} does not fit a shape {x.shape}")
    if x.dtype == "float16":  # whose sums overflow at 65504
        return astype(mean(astype(x, "float32"), axis, keepdims), "float16")
    total = sum(x, axis=axis, keepdims=keepdims)
    count = prod(x.shape[i] for i in axes)
    if not count:
        raise ValueError(f"mean: no elements to average, the shape is {x.shape} and axis={axis}")
    return divide(total, count)


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
    attains = (x == _spread(out, x.shape, axis, keepdims)).astype(wide)
    count = attains.sum(axis=axis, keepdims=True)
    return _spread(g, x.shape, axis, keepdims) * (attains / count).astype(x.dtype)


max.rules(x=_extreme_rule)
min.rules(x=_extreme_rule)


@operation
@primitive
def logsumexp(x: TensorLike, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))), without overflow.

    >>> import minigrad as mg
    >>> mg.logsumexp(mg.tensor([1000.0, 0.0]))
    tensor(1000.)
    """
    xp = namespace(x)
    top = x.max(axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0.0)
    total = xp.exp(x - top).sum(axis, keepdims=True)
    total = xp.where(total > 0, xp.log(xp.where(total > 0, total, 1.0)) + top, -xp.inf)
    return total if keepdims else total.reshape(x.sum(axis).shape)


def _logsumexp_rule(g: Any, x: Any, out: Any, axis: Axis, keepdims: bool) -> Any:
    """g softmax(x), and 0 where all elements are -inf."""
    finite = where(out == -inf, 0.0, out)
    return _spread(g, x.shape, axis, keepdims) * exp(x - _spread(finite, x.shape, axis, keepdims))


logsumexp.rules(x=_logsumexp_rule)


@operation
@primitive
def softmax(x: TensorLike, /, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, without overflow.

    >>> import minigrad as mg
    >>> mg.softmax(mg.tensor([1.0, 1.0]))
    tensor([0.5, 0.5])
    """
    xp = namespace(x)
    powers = xp.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


softmax.rules(x=lambda g, out, axis: out * (g - (g * out).sum(axis=axis, keepdims=True)))


@operation
@primitive
def log_softmax(x: TensorLike, /, axis: int = -1) -> Tensor:
    """log(softmax(x)) along an axis, exact where softmax would round to 0.

    >>> import minigrad as mg
    >>> mg.log_softmax(mg.tensor([0.0, 1000.0]))
    tensor([-1000.,     0.])
    """
    xp = namespace(x)
    shifted = x - x.max(axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis, keepdims=True))


log_softmax.rules(x=lambda g, out, axis: g - exp(out) * g.sum(axis=axis, keepdims=True))


def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """``axis`` as a tuple of axes counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(a % ndim if -ndim <= a < ndim else a for a in map(index, axes))


def _spread(reduced: Any, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Any:
    """A reduced tensor repeated along the axes that were reduced."""
    if not keepdims:
        gone = _axes(axis, len(shape))
        kept = tuple(1 if i in gone else length for i, length in enumerate(shape))
        reduced = reduced.reshape(kept)
    return broadcast_to(reduced, shape)
