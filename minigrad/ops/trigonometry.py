"""Trigonometric and hyperbolic functions of each element."""

from __future__ import annotations

from typing import Any

from minigrad.arrays import TensorLike, common_namespace, namespace
from minigrad.ops.arithmetic import sqrt
from minigrad.ops.comparisons import where
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor


@operation
@primitive
def sin(x: TensorLike, /) -> Tensor:
    """The sine of x, in radians.

    >>> import minigrad as mg
    >>> mg.round(mg.sin(mg.tensor([0.0, 1.0])), 4)
    tensor([0.    , 0.8415])
    """
    return namespace(x).sin(x)


@operation
@primitive
def cos(x: TensorLike, /) -> Tensor:
    """The cosine of x, in radians.

    >>> import minigrad as mg
    >>> mg.round(mg.cos(mg.tensor([0.0, 1.0])), 4)
    tensor([1.    , 0.5403])
    """
    return namespace(x).cos(x)


sin.rules(x=lambda g, x: g * cos(x))
cos.rules(x=lambda g, x: -g * sin(x))


@operation
@primitive
def tan(x: TensorLike, /) -> Tensor:
    """The tangent of x, in radians.

    >>> import minigrad as mg
    >>> mg.round(mg.tan(mg.tensor([0.0, 1.0])), 4)
    tensor([0.    , 1.5574])
    """
    return namespace(x).tan(x)


tan.rules(x=lambda g, out: g * (1.0 + out * out))  # 1 + tan^2 x


@operation
@primitive
def arcsin(x: TensorLike, /) -> Tensor:
    """The angle between -pi/2 and pi/2 whose sine is x.

    >>> import minigrad as mg
    >>> mg.round(mg.arcsin(mg.tensor([0.0, 1.0])), 4)
    tensor([0.    , 1.5708])
    """
    return namespace(x).arcsin(x)


arcsin.rules(x=lambda g, x: g / sqrt((1.0 - x) * (1.0 + x)))  # 1 / sqrt(1 - x^2)


@operation
@primitive
def arccos(x: TensorLike, /) -> Tensor:
    """The angle between 0 and pi whose cosine is x.

    >>> import minigrad as mg
    >>> mg.round(mg.arccos(mg.tensor([0.0, 1.0])), 4)
    tensor([1.5708, 0.    ])
    """
    return namespace(x).arccos(x)


arccos.rules(x=lambda g, x: -g / sqrt((1.0 - x) * (1.0 + x)))  # -1 / sqrt(1 - x^2)


@operation
@primitive
def arctan(x: TensorLike, /) -> Tensor:
    """The angle between -pi/2 and pi/2 whose tangent is x.

    >>> import minigrad as mg
    >>> mg.round(mg.arctan(mg.tensor([0.0, 1.0])), 4)
    tensor([0.    , 0.7854])
    """
    return namespace(x).arctan(x)


arctan.rules(x=lambda g, x: g / (1.0 + x * x))


@operation
@primitive
def arctan2(a: TensorLike, b: TensorLike, /) -> Tensor:
    """The angle between -pi and pi of the point (b, a): arctan(a / b) in its quadrant.

    The derivative is taken to be 0 at the origin.

    >>> import minigrad as mg
    >>> mg.round(mg.arctan2(mg.tensor([1.0, 1.0]), mg.tensor([1.0, -1.0])), 4)
    tensor([0.7854, 2.3562])
    """
    return common_namespace(a, b).arctan2(a, b)


def _per_square(g: Any, a: Any, b: Any) -> Any:
    """g / (a^2 + b^2), and 0 at the origin."""
    square = a * a + b * b
    return where(square == 0, 0.0, g / where(square == 0, 1.0, square))


arctan2.rules(
    a=lambda g, a, b: _per_square(g, a, b) * b,
    b=lambda g, a, b: _per_square(g, a, b) * -a,
)


@operation
@primitive
def sinh(x: TensorLike, /) -> Tensor:
    """The hyperbolic sine of x.

    >>> import minigrad as mg
    >>> mg.round(mg.sinh(mg.tensor([0.0, 1.0])), 4)
    tensor([0.    , 1.1752])
    """
    return namespace(x).sinh(x)


@operation
@primitive
def cosh(x: TensorLike, /) -> Tensor:
    """The hyperbolic cosine of x.

    >>> import minigrad as mg
    >>> mg.round(mg.cosh(mg.tensor([0.0, 1.0])), 4)
    tensor([1.    , 1.5431])
    """
    return namespace(x).cosh(x)


sinh.rules(x=lambda g, x: g * cosh(x))
cosh.rules(x=lambda g, x: g * sinh(x))


@operation
@primitive
def tanh(x: TensorLike, /) -> Tensor:
    """The hyperbolic tangent of x.

    >>> import minigrad as mg
    >>> mg.round(mg.tanh(mg.tensor([0.0, 1.0])), 4)
    tensor([0.    , 0.7616])
    """
    return namespace(x).tanh(x)


tanh.rules(x=lambda g, out: g - g * (out * out))  # 1 - tanh^2 x


@operation
@primitive
def arcsinh(x: TensorLike, /) -> Tensor:
    """The inverse of the hyperbolic sine.

    >>> import minigrad as mg
    >>> mg.round(mg.arcsinh(mg.tensor([0.0, 1.0])), 4)
    tensor([0.    , 0.8814])
    """
    return namespace(x).arcsinh(x)


arcsinh.rules(x=lambda g, out: g / cosh(out))  # 1 / sqrt(x^2 + 1), which may overflow


@operation
@primitive
def arccosh(x: TensorLike, /) -> Tensor:
    """The inverse of the hyperbolic cosine, where x is at least 1.

    >>> import minigrad as mg
    >>> mg.round(mg.arccosh(mg.tensor([1.0, 2.0])), 4)
    tensor([0.   , 1.317])
    """
    return namespace(x).arccosh(x)


arccosh.rules(x=lambda g, out: g / sinh(out))  # 1 / sqrt(x^2 - 1), which may overflow


@operation
@primitive
def arctanh(x: TensorLike, /) -> Tensor:
    """The inverse of the hyperbolic tangent, where x is between -1 and 1.

    >>> import minigrad as mg
    >>> mg.round(mg.arctanh(mg.tensor([0.0, 0.5])), 4)
    tensor([0.    , 0.5493])
    """
    return namespace(x).arctanh(x)


arctanh.rules(x=lambda g, x: g / ((1.0 - x) * (1.0 + x)))  # 1 / (1 - x^2)
