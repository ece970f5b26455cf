"""Products of matrices."""

from __future__ import annotations

from math import prod
from typing import Any

from minigrad.arrays import TensorLike
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor


@operation
@primitive
def matmul(a: TensorLike, b: TensorLike, /) -> Tensor:
    """The matrix product; of vectors, matrices, and stacks of matrices that broadcast.

    Raises ``ValueError`` if the inner lengths differ or an operand has no axes.

    >>> import minigrad as mg
    >>> mg.tensor([[1.0, 2.0], [3.0, 4.0]]) @ mg.tensor([1.0, 1.0])
    tensor([3., 7.])
    """
    try:
        return a @ b
    except (ValueError, TypeError) as error:
        raise ValueError(_why_no_product(a, b) or str(error)) from None


def _why_no_product(a: Any, b: Any) -> str:
    """What keeps a and b from being multiplied, as far as it can be told."""
    if not getattr(a, "ndim", 0) or not getattr(b, "ndim", 0):
        return "both operands need an axis to sum over; write a * b for a product with a number"
    inner = b.shape[max(b.ndim - 2, 0)]
    if a.shape[-1] != inner:
        return f"the lengths to sum over differ, {a.shape[-1]} and {inner}"
    return ""


def _matmul_left_rule(g: Any, b: Any) -> Any:
    """g b^T"""
    if b.ndim == 1:
        return g[..., None] * b
    if g.ndim < b.ndim:  # a is a vector
        return (b @ g[..., None])[..., 0]
    return g @ b.swapaxes(-1, -2)


def _matmul_right_rule(g: Any, a: Any, operand_shape: tuple[int, ...]) -> Any:
    """a^T g; one product over all rows if a stack of matrices met one matrix."""
    if a.ndim == 2:
        return a.T @ g
    if len(operand_shape) == 2 and a.ndim > 2:
        return _rows(a).T @ _rows(g)
    if a.ndim == 1:
        return g * a if len(operand_shape) == 1 else a[:, None] * g[..., None, :]
    if len(operand_shape) == 1:
        return (a.swapaxes(-1, -2) @ g[..., None])[..., 0]
    return a.swapaxes(-1, -2) @ g


matmul.rules(
    a=_matmul_left_rule,
    b=_matmul_right_rule,
)


@operation
@primitive
def linear(x: TensorLike, weight: TensorLike, bias: TensorLike, /) -> Tensor:
    """x W^T + b,  with x (..., inputs), W (outputs, inputs), and b that broadcasts.

    b is usually (outputs,); in a recurrent cell it is what the input adds to each row.

    Raises ``ValueError`` if the shapes do not fit.

    >>> import minigrad as mg
    >>> mg.linear(mg.tensor([[1.0, 2.0]]), mg.tensor([[3.0, 4.0]]), mg.tensor([5.0]))
    tensor([[16.]])
    """
    try:
        return x @ weight.T + bias
    except (ValueError, TypeError, AttributeError):
        raise ValueError(
            "x (..., inputs), weight (outputs, inputs) and bias do not fit together"
        ) from None


linear.rules(
    x=lambda g, weight: g @ weight,
    weight=lambda g, x: _rows(g).T @ _rows(x),
    bias=lambda g: g,
)


def _rows(x: Any) -> Any:
    """x as one matrix, of all its rows."""
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])
