"""Activation functions that are not in NumPy."""

from __future__ import annotations

from minigrad.arrays import TensorLike, namespace
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor


@operation
@primitive
def sigmoid(x: TensorLike, /) -> Tensor:
    """The logistic function  1 / (1 + e^-x),  computed as  tanh(x/2)/2 + 1/2  (no overflow).

    >>> import minigrad as mg
    >>> mg.sigmoid(mg.tensor([0.0, 100.0]))
    tensor([0.5, 1. ])
    """
    out = namespace(x).tanh(0.5 * x)
    out *= 0.5
    out += 0.5
    return out


sigmoid.rules(x=lambda g, out: g * (out * (1.0 - out)))


@operation
@primitive
def relu(x: TensorLike, /) -> Tensor:
    """max(x, 0), with the derivative 0 at 0.

    >>> import minigrad as mg
    >>> mg.relu(mg.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return namespace(x).maximum(x, 0.0)


relu.rules(x=lambda g, out: g * (out > 0))
