"""Products of matrices."""

from __future__ import annotations

from typing import Any

from minigrad.arrays import TensorLike
from minigrad.ops.shapes import reshape
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor, describe


@primitive
def _matmul(a: TensorLike, b: TensorLike, /) -> Tensor:
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"the last axis of the first operand ({a.shape[-1]}) and the last but one of the "
            f"second ({b.shape[-2]}) differ"
        )
    return a @ b


def _matmul_right_rule(g: Any, a: Any, operand_shape: tuple[int, ...]) -> Any:
    """a^T g; one product over all rows if a stack of matrices met one matrix."""
    if len(operand_shape) == 2:
        return _rows(a).T @ _rows(g)
    return a.swapaxes(-1, -2) @ g


_matmul.rules(
    a=lambda g, b: g @ b.swapaxes(-1, -2),  # g b^T
    b=_matmul_right_rule,
)


@operation
def matmul(a: TensorLike, b: TensorLike, /) -> Tensor:
    """The matrix product; of vectors, matrices, and stacks of matrices that broadcast.

    Raises ``ValueError`` if the inner lengths differ or an operand has no axes.

    >>> import minigrad as mg
    >>> mg.tensor([[1.0, 2.0], [3.0, 4.0]]) @ mg.tensor([1.0, 1.0])
    tensor([3., 7.])
    """
    if not getattr(a, "ndim", 0) or not getattr(b, "ndim", 0):
        raise ValueError(
            f"matmul: both operands need an axis to multiply over, and these are {describe(a)} "
            f"and {describe(b)}; write a * b for a product with a number"
        )
    if a.ndim > 1 and b.ndim > 1:
        return _matmul(a, b)
    left = a if a.ndim > 1 else reshape(a, (1, -1))
    right = b if b.ndim > 1 else reshape(b, (-1, 1))
    product = _matmul(left, right)
    rows, columns = product.shape[-2:]
    kept = ((rows,) if a.ndim > 1 else ()) + ((columns,) if b.ndim > 1 else ())
    return reshape(product, product.shape[:-2] + kept)


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
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        raise ValueError("x (..., inputs) and weight (outputs, inputs) do not fit together")
    out = x @ weight.T
    out += bias
    return out


linear.rules(
    x=lambda g, weight: g @ weight,
    weight=lambda g, x: _rows(g).T @ _rows(x),
    bias=lambda g: g,
)


def _rows(x: Any) -> Any:
    """x as one matrix, of all its rows."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
