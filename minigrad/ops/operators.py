"""The operators of Tensor: the operations, bound under the names that Python calls."""

from __future__ import annotations

from typing import Any

from minigrad.ops import arithmetic as a
from minigrad.ops import comparisons as c
from minigrad.ops.indexing import getitem
from minigrad.ops.products import matmul
from minigrad.tensor import Tensor


def equal(x: Tensor, y: Any) -> Any:
    """x == y, where nothing equals None."""
    return c.equal(x, float("nan") if y is None else y)


def not_equal(x: Tensor, y: Any) -> Any:
    """x != y, where everything differs from None."""
    return c.not_equal(x, float("nan") if y is None else y)


# Bound directly, and not called by methods: that would double what a small operation costs.
for name, operation in {
    "__add__": a.add,
    "__radd__": lambda y, x: a.add(x, y),
    "__sub__": a.subtract,
    "__rsub__": lambda y, x: a.subtract(x, y),
    "__mul__": a.multiply,
    "__rmul__": lambda y, x: a.multiply(x, y),
    "__truediv__": a.divide,
    "__rtruediv__": lambda y, x: a.divide(x, y),
    "__pow__": a.power,
    "__rpow__": lambda y, x: a.power(x, y),
    "__matmul__": matmul,
    "__rmatmul__": lambda y, x: matmul(x, y),
    "__neg__": a.negative,
    "__abs__": a.abs,
    "__eq__": equal,
    "__ne__": not_equal,
    "__lt__": c.less,
    "__le__": c.less_equal,
    "__gt__": c.greater,
    "__ge__": c.greater_equal,
    "__getitem__": getitem,
}.items():
    setattr(Tensor, name, operation)
