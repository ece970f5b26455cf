"""Arithmetic on each element: sums, products, powers, signs, and rounding.

All broadcast as NumPy does; the tape sums a gradient back to its operand's shape.
"""

from __future__ import annotations

from typing import Any

from minigrad.arrays import TensorLike, namespace
from minigrad.ops.comparisons import where
from minigrad.ops.exponentials import log
from minigrad.primitive import constant, operation, primitive
from minigrad.tensor import Tensor


@operation
@primitive
def add(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a + b

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) + 1.0
    tensor([2., 3.])
    """
    return a + b


add.rules(
    a=lambda g: g,
    b=lambda g: g,
)


@operation
@primitive
def subtract(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a - b

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) - 1.0
    tensor([0., 1.])
    """
    return a - b


subtract.rules(
    a=lambda g: g,
    b=lambda g: -g,
)


@operation
@primitive
def multiply(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a b, element by element

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) * 3.0
    tensor([3., 6.])
    """
    return a * b


multiply.rules(
    a=lambda g, b: g * b,
    b=lambda g, a: g * a,
)


@operation
@primitive
def divide(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a / b

    >>> import minigrad as mg
    >>> 1.0 / mg.tensor([1.0, 2.0])
    tensor([1. , 0.5])
    """
    return a / b


divide.rules(
    a=lambda g, b: g / b,  # 1 / b
    b=lambda g, b, out: -g * out / b,  # -a / b^2
)


@operation
@primitive
def reciprocal(x: TensorLike, /) -> Tensor:
    """1 / x

    >>> import minigrad as mg
    >>> mg.reciprocal(mg.tensor([1.0, 2.0]))
    tensor([1. , 0.5])
    """
    return namespace(x).reciprocal(x)


reciprocal.rules(x=lambda g, out: -g * out * out)  # -1 / x^2


@operation
@primitive
def negative(x: TensorLike, /) -> Tensor:
    """-x

    >>> import minigrad as mg
    >>> -mg.tensor([1.0, -2.0])
    tensor([-1.,  2.])
    """
    return -x


negative.rules(x=lambda g: -g)


@operation
@primitive
def power(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a to the power of b

    The derivative with respect to b,  a^b log a,  is taken to be 0 where a = 0.

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) ** 3
    tensor([1., 8.])
    """
    return a**b


def _power_exponent_rule(g: Any, a: Any, out: Any) -> Any:
    one = out**0.0
    base = one * a  # an array also of a number, in the dtype of the result
    return g * out * log(where(base == 0, one, base))


power.rules(
    a=lambda g, a, b: g * (b * a ** (b - 1 + (b == 0))),  # b a^(b-1), and 0 if b = 0
    b=_power_exponent_rule,  # a^b log a
)


@operation
@primitive
def square(x: TensorLike, /) -> Tensor:
    """x^2

    >>> import minigrad as mg
    >>> mg.square(mg.tensor([1.0, -2.0]))
    tensor([1., 4.])
    """
    return x * x


square.rules(x=lambda g, x: g * (2.0 * x))


@operation
@primitive
def sqrt(x: TensorLike, /) -> Tensor:
    """The square root of x.

    >>> import minigrad as mg
    >>> mg.sqrt(mg.tensor([1.0, 4.0]))
    tensor([1., 2.])
    """
    return namespace(x).sqrt(x)


sqrt.rules(x=lambda g, out: g / (2.0 * out))  # 1 / (2 sqrt x)


@constant
def sign(x: TensorLike, /) -> Tensor:
    """-1, 0 or 1 by the sign of x, as a constant.

    >>> import minigrad as mg
    >>> mg.sign(mg.tensor([-2.0, 0.0]))
    tensor([-1.,  0.])
    """
    return namespace(x).sign(x)


@operation
@primitive
def abs(x: TensorLike, /) -> Tensor:
    """|x|, with the derivative 0 at 0.

    >>> import minigrad as mg
    >>> mg.abs(mg.tensor([1.0, -2.0]))
    tensor([1., 2.])
    """
    return namespace(x).abs(x)


abs.rules(x=lambda g, x: g * sign(x))


@constant
def floor(x: TensorLike, /) -> Tensor:
    """The largest whole number that is not above x, as a constant.

    >>> import minigrad as mg
    >>> mg.floor(mg.tensor([-1.5, 1.5]))
    tensor([-2.,  1.])
    """
    return namespace(x).floor(x)


@constant
def ceil(x: TensorLike, /) -> Tensor:
    """The smallest whole number that is not below x, as a constant.

    >>> import minigrad as mg
    >>> mg.ceil(mg.tensor([-1.5, 1.5]))
    tensor([-1.,  2.])
    """
    return namespace(x).ceil(x)


@constant
def round(x: TensorLike, /, decimals: int = 0) -> Tensor:
    """x rounded to a number of decimals, halves to the even neighbour; a constant.

    >>> import minigrad as mg
    >>> mg.round(mg.tensor([0.5, 1.5, 2.6]))
    tensor([0., 2., 3.])
    """
    return namespace(x).round(x, decimals)
