"""Comparing elements, testing them, and choosing between them.

Comparisons and tests give constants of booleans. All but ``all`` and ``any`` broadcast as
NumPy does; the tape sums a gradient back to its operand's shape.
"""

from __future__ import annotations

from typing import Any

from minigrad.arrays import TensorLike, common_namespace, is_array, namespace
from minigrad.primitive import constant, operation, primitive
from minigrad.tensor import Axis, Tensor


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


@constant
def isnan(x: TensorLike, /) -> Tensor:
    """Where x is NaN, as a constant of booleans.

    >>> import minigrad as mg
    >>> mg.isnan(mg.tensor([1.0, float("nan")]))
    tensor([False,  True])
    """
    return namespace(x).isnan(x)


@constant
def isfinite(x: TensorLike, /) -> Tensor:
    """Where x is neither infinite nor NaN, as a constant of booleans.

    >>> import minigrad as mg
    >>> mg.isfinite(mg.tensor([1.0, float("inf")]))
    tensor([ True, False])
    """
    return namespace(x).isfinite(x)


@constant
def all(x: TensorLike, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every element is true (not 0), over an axis, several axes, or all; a constant.

    >>> import minigrad as mg
    >>> mg.all(mg.tensor([[1.0, 2.0], [0.0, 4.0]]) > 0, axis=1)
    tensor([ True, False])
    """
    return x.all(axis, keepdims=keepdims)


@constant
def any(x: TensorLike, /, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether some element is true (not 0), over an axis, several axes, or all; a constant.

    >>> import minigrad as mg
    >>> mg.any(mg.tensor([[0.0, 0.0], [0.0, 4.0]]) > 0, axis=1)
    tensor([False,  True])
    """
    return x.any(axis, keepdims=keepdims)


@operation
@primitive
def where(condition: TensorLike, x: TensorLike, y: TensorLike, /) -> Tensor:
    """x where ``condition`` is true, and y elsewhere.

    >>> import minigrad as mg
    >>> x = mg.tensor([1.0, -2.0])
    >>> mg.where(x > 0, x, 0.0)
    tensor([1., 0.])
    """
    xp = common_namespace(condition, x, y)
    return xp.where(condition if is_array(condition) else xp.asarray(condition), x, y)


where.rules(
    x=lambda g, condition: where(condition, g, 0.0),
    y=lambda g, condition: where(condition, 0.0, g),
)


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
    """g where a > b, 0 where a < b, g/2 where they are equal, and g where one is NaN."""
    return where(a == b, 0.5 * g, where(a < b, 0.0, g))


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
