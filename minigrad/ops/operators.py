"""The operators of Tensor: the operations, bound under the names that Python calls."""

from __future__ import annotations

from typing import Any

from minigrad.ops import elementwise as e
from minigrad.ops.indexing import getitem
from minigrad.ops.linear_algebra import matmul
from minigrad.tensor import Tensor


def equal(a: Tensor, b: Any) -> Any:
    """a == b, where nothing equals None."""
    return e.equal(a, float("nan") if b is None else b)


def not_equal(a: Tensor, b: Any) -> Any:
    """a != b, where everything differs from None."""
    return e.not_equal(a, float("nan") if b is None else b)


# Bound directly, and not called by methods: that would double what a small operation costs.
for name, operation in {
    "__add__": e.add,
    "__radd__": lambda b, a: e.add(a, b),
    "__sub__": e.subtract,
    "__rsub__": lambda b, a: e.subtract(a, b),
    "__mul__": e.multiply,
    "__rmul__": lambda b, a: e.multiply(a, b),
    "__truediv__": e.divide,
    "__rtruediv__": lambda b, a: e.divide(a, b),
    "__pow__": e.power,
    "__rpow__": lambda b, a: e.power(a, b),
    "__matmul__": matmul,
    "__rmatmul__": lambda b, a: matmul(a, b),
    "__neg__": e.negative,
    "__abs__": e.abs,
    "__eq__": equal,
    "__ne__": not_equal,
    "__lt__": e.less,
    "__le__": e.less_equal,
    "__gt__": e.greater,
    "__ge__": e.greater_equal,
    "__getitem__": getitem,
}.items():
    setattr(Tensor, name, operation)
