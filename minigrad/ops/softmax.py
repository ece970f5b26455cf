"""The softmax family: sums of exponentials, without overflow."""

from __future__ import annotations

from math import inf
from typing import Any

from minigrad.arrays import TensorLike, namespace
from minigrad.ops.comparisons import where
from minigrad.ops.exponentials import exp
from minigrad.ops.reductions import spread
from minigrad.primitive import operation, primitive
from minigrad.tensor import Axis, Tensor


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
    none = total == 0.0  # of no elements, or of -inf alone
    total = xp.where(none, -xp.inf, xp.log(xp.where(none, 1.0, total)) + top)
    if keepdims:
        return total
    return total.reshape(()) if axis is None else total.squeeze(axis)


def _logsumexp_rule(g: Any, x: Any, out: Any, axis: Axis, keepdims: bool) -> Any:
    """g softmax(x), and 0 where all elements are -inf."""
    finite = where(out == -inf, 0.0, out)
    return spread(g, x.shape, axis, keepdims) * exp(x - spread(finite, x.shape, axis, keepdims))


logsumexp.rules(x=_logsumexp_rule)


@operation
@primitive
def softmax(x: TensorLike, /, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, without overflow.

    >>> import minigrad as mg
    >>> mg.softmax(mg.tensor([1.0, 1.0]))
    tensor([0.5, 0.5])
    """
    powers = namespace(x).exp(x - x.max(axis, keepdims=True))
    powers /= powers.sum(axis, keepdims=True)
    return powers


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
