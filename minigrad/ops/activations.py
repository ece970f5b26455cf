"""Activation functions that are not in NumPy."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from minigrad.arrays import TensorLike, namespace
from minigrad.ops.arithmetic import multiply
from minigrad.ops.comparisons import clip, where
from minigrad.ops.exponentials import exp
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


sigmoid.rules(x=lambda g, out: g * (out - out * out))


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


@operation
@primitive
def leaky_relu(x: TensorLike, /, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, and  negative_slope x  elsewhere, also at 0.

    >>> import minigrad as mg
    >>> mg.round(mg.leaky_relu(mg.tensor([-1.0, 2.0])), 4)
    tensor([-0.01,  2.  ])
    """
    return where(x > 0, x, negative_slope * x)


leaky_relu.rules(x=lambda g, x, negative_slope: where(x > 0, g, negative_slope * g))


@operation
@primitive
def elu(x: TensorLike, /, alpha: float = 1.0) -> Tensor:
    """x where it is positive, and  alpha (e^x - 1)  elsewhere, also at 0.

    >>> import minigrad as mg
    >>> mg.elu(mg.tensor([-1000.0, 2.0]))
    tensor([-1.,  2.])
    """
    xp = namespace(x)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0.0)))


elu.rules(x=lambda g, x, out, alpha: where(x > 0, g, g * (out + alpha)))  # alpha e^x


@operation
@primitive
def softplus(x: TensorLike, /) -> Tensor:
    """log(1 + e^x),  without overflow.

    >>> import minigrad as mg
    >>> mg.round(mg.softplus(mg.tensor([0.0, 1000.0])), 4)
    tensor([6.931e-01, 1.000e+03])
    """
    return namespace(x).logaddexp(x, 0.0)


softplus.rules(x=lambda g, x, out: g * exp(x - out))  # sigmoid(x), also where that rounds to 0


@operation
@primitive
def silu(x: TensorLike, /) -> Tensor:
    """x sigmoid(x),  also known as swish.

    >>> import minigrad as mg
    >>> mg.silu(mg.tensor([0.0, 100.0]))
    tensor([  0., 100.])
    """
    return x * sigmoid(x)


def _silu_rule(g: Any, x: Any) -> Any:
    """s + x s (1 - s),  where s = sigmoid(x)"""
    s = sigmoid(x)
    return g * (s + x * (s * (1.0 - s)))


silu.rules(x=_silu_rule)


@operation
@primitive
def gelu(x: TensorLike, /) -> Tensor:
    """x times the normal distribution's share below x, in the approximation by tanh.

    That is  x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2,  within 5e-4 of the exact value,
    which needs the error function that NumPy lacks.

    >>> import minigrad as mg
    >>> mg.round(mg.gelu(mg.tensor([0.0, 1.0])), 4)
    tensor([0.    , 0.8412])
    """
    return x * _gelu_share(_gelu_middle(x))


_LINEAR = 2.0 * sqrt(2.0 / pi)
_CUBIC = 0.044715 * _LINEAR


def _gelu_middle(x: Any) -> Any:
    """x where it matters: beyond 10 the share is 0 or 1, and a cube would overflow."""
    return clip(x, -10.0, 10.0)


def _gelu_share(z: Any) -> Any:
    """(1 + tanh(u/2)) / 2 = sigmoid(u)"""
    return sigmoid(z * (_LINEAR + _CUBIC * (z * z)))


def _gelu_rule(g: Any, x: Any) -> Any:
    """s + x s (1 - s) u',  where s = sigmoid(u)"""
    z = _gelu_middle(x)
    s = _gelu_share(z)
    return g * (s + x * (s * (1.0 - s)) * (_LINEAR + 3.0 * _CUBIC * (z * z)))


gelu.rules(x=_gelu_rule)


@operation
def hard_sigmoid(x: TensorLike) -> Tensor:
    """x/6 + 1/2  between 0 and 1, with half the slope where it meets them.

    >>> import minigrad as mg
    >>> mg.hard_sigmoid(mg.tensor([-5.0, 0.0, 5.0]))
    tensor([0. , 0.5, 1. ])
    """
    return clip(multiply(x, 1.0 / 6.0) + 0.5, 0.0, 1.0)


@operation
def hard_tanh(x: TensorLike) -> Tensor:
    """x between -1 and 1, with half the slope where it meets them.

    >>> import minigrad as mg
    >>> mg.hard_tanh(mg.tensor([-5.0, 0.5, 5.0]))
    tensor([-1. ,  0.5,  1. ])
    """
    return clip(x, -1.0, 1.0)
