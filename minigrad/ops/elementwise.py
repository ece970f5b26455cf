"""Operations on each element: arithmetic, exponentials, comparisons, choices.

All broadcast as NumPy does; the tape sums a gradient back to its operand's shape.
"""

from __future__ import annotations

from typing import Any

from minigrad.arrays import TensorLike, common_namespace, namespace
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
    return g * out * log(where(a == 0, 1.0, a))


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


@operation
@primitive
def exp(x: TensorLike, /) -> Tensor:
    """e^x

    >>> import minigrad as mg
    >>> mg.exp(mg.tensor([0.0, -1000.0]))
    tensor([1., 0.])
    """
    return namespace(x).exp(x)


exp.rules(x=lambda g, out: g * out)


@operation
@primitive
def log(x: TensorLike, /) -> Tensor:
    """The natural logarithm of x.

    >>> import minigrad as mg
    >>> mg.log(mg.tensor([1.0, 2.0]))
    tensor([0.       , 0.6931472])
    """
    return namespace(x).log(x)


log.rules(x=lambda g, x: g / x)


@operation
@primitive
def tanh(x: TensorLike, /) -> Tensor:
    """The hyperbolic tangent of x.

    >>> import minigrad as mg
    >>> mg.tanh(mg.tensor([0.0, 1.0]))
    tensor([0.       , 0.7615942])
    """
    return namespace(x).tanh(x)


tanh.rules(x=lambda g, out: g * (1.0 - out * out))  # 1 - tanh^2 x


@operation
@primitive
def maximum(a: TensorLike, b: TensorLike, /) -> Tensor:
    """The larger of a and b; where they are equal, each gets half of the gradient.

    >>> import minigrad as mg
    >>> mg.maximum(mg.tensor([1.0, -2.0]), 0.0)
    tensor([1., 0.])
    """
    return common_namespace(a, b).maximum(a, b)


maximum.rules(
    a=lambda g, a, b: _share(g, a, b),
    b=lambda g, a, b: _share(g, b, a),
)


@operation
@primitive
def minimum(a: TensorLike, b: TensorLike, /) -> Tensor:
    """The smaller of a and b; where they are equal, each gets half of the gradient.

    >>> import minigrad as mg
    >>> mg.minimum(mg.tensor([1.0, -2.0]), 0.0)
    tensor([ 0., -2.])
    """
    return common_namespace(a, b).minimum(a, b)


minimum.rules(
    a=lambda g, a, b: _share(g, b, a),
    b=lambda g, a, b: _share(g, a, b),
)


def _share(g: Any, a: Any, b: Any) -> Any:
    """g where a > b, 0 where a < b, and g/2 where they are equal."""
    return where(a == b, 0.5 * g, where(a > b, g, 0.0))


@operation
@primitive
def where(condition: TensorLike, x: TensorLike, y: TensorLike, /) -> Tensor:
    """x where ``condition`` is true, and y elsewhere.

    >>> import minigrad as mg
    >>> x = mg.tensor([1.0, -2.0])
    >>> mg.where(x > 0, x, 0.0)
    tensor([1., 0.])
    """
    return common_namespace(condition, x, y).where(condition, x, y)


where.rules(
    x=lambda g, condition: where(condition, g, 0.0),
    y=lambda g, condition: where(condition, 0.0, g),
)


@operation
def clip(x: TensorLike, low: TensorLike, high: TensorLike) -> Tensor:
    """x kept between ``low`` and ``high``:  min(max(x, low), high).

    >>> import minigrad as mg
    >>> mg.clip(mg.tensor([-2.0, 0.5, 2.0]), -1.0, 1.0)
    tensor([-1. ,  0.5,  1. ])
    """
    try:
        return minimum(maximum(x, low), high)
    except ValueError as error:
        raise ValueError(f"clip: {error}") from error


@operation
@primitive
def equal(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a == b, as a constant of booleans.

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) == 2.0
    tensor([False,  True])
    """
    return a == b


@operation
@primitive
def not_equal(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a != b, as a constant of booleans.

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) != 2.0
    tensor([ True, False])
    """
    return a != b


@operation
@primitive
def less(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a < b, as a constant of booleans.

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) < 2.0
    tensor([ True, False])
    """
    return a < b


@operation
@primitive
def less_equal(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a <= b, as a constant of booleans.

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) <= 1.0
    tensor([ True, False])
    """
    return a <= b


@operation
@primitive
def greater(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a > b, as a constant of booleans.

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) > 1.0
    tensor([False,  True])
    """
    return a > b


@operation
@primitive
def greater_equal(a: TensorLike, b: TensorLike, /) -> Tensor:
    """a >= b, as a constant of booleans.

    >>> import minigrad as mg
    >>> mg.tensor([1.0, 2.0]) >= 2.0
    tensor([False,  True])
    """
    return a >= b
