"""Products of vectors, matrices, and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from minigrad.arrays import TensorLike
from minigrad.ops.arithmetic import multiply
from minigrad.ops.axes import places
from minigrad.ops.shapes import moveaxis, reshape
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor, describe, with_axes


def _rows(x: Any) -> Any:
    """x as one matrix, of all its rows."""
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])


def _rows_times(x: Any, matrix: Any) -> Any:
    """x (..., k) times a matrix (k, n), as one product of two matrices.

    NumPy's ``@`` takes two to three times as long: for small matrices it is slow to start, and
    for a stack it multiplies one by one.
    """
    if x.ndim <= 2:
        return x.dot(matrix)
    return _rows(x).dot(matrix).reshape(*x.shape[:-1], matrix.shape[-1])


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
        if a.ndim == b.ndim == 2:
            return a.dot(b)
        return _rows_times(a, b) if b.ndim == 2 < a.ndim else a @ b
    except (ValueError, TypeError, AttributeError) as error:
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
    if g.ndim == b.ndim == 2:
        return g.dot(b.T)
    if b.ndim == 2:
        return _rows_times(g, b.T)
    if b.ndim == 1:
        return g[..., None] * b
    if g.ndim < b.ndim:  # a is a vector
        return (b @ g[..., None])[..., 0]
    return g @ b.swapaxes(-1, -2)


def _matmul_right_rule(g: Any, a: Any, operand_shape: tuple[int, ...]) -> Any:
    """a^T g; one product over all rows if a stack of matrices met one matrix."""
    if a.ndim == 2:
        return a.T.dot(g) if g.ndim == 2 else a.T @ g
    if len(operand_shape) == 2 and a.ndim > 2:
        return _rows(a).T.dot(_rows(g))
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
    """x W^T + b,  with x (..., inputs), W (outputs, inputs), and b that fits x W^T.

    b is usually (outputs,); in a recurrent cell it is what the input adds to each row.

    Raises ``ValueError`` if the shapes do not fit.

    >>> import minigrad as mg
    >>> mg.linear(mg.tensor([[1.0, 2.0]]), mg.tensor([[3.0, 4.0]]), mg.tensor([5.0]))
    tensor([[16.]])
    """
    try:
        product = _rows_times(x, weight.T)
        out = product + bias
        fits = weight.ndim == 2 and out.shape == product.shape
    except (ValueError, TypeError, AttributeError):
        fits = False
    if not fits:
        raise ValueError(
            "x (..., inputs), weight (outputs, inputs) and bias (outputs,) do not fit together"
        )
    return out


linear.rules(
    x=lambda g, weight: _rows_times(g, weight),
    weight=lambda g, x: _rows(g).T.dot(_rows(x)),
    bias=lambda g: g,
)


@operation
def tensordot(
    a: TensorLike, b: TensorLike, axes: int | tuple[Sequence[int] | int, Sequence[int] | int] = 2
) -> Tensor:
    """The sum of products over several axes of both: the last of a and the first of b.

    ``axes`` is their number, or a pair that names those of a and those of b. The axes of the
    result are the others of a, and then the others of b.

    Raises ``ValueError`` if the lengths to sum over differ.

    >>> import minigrad as mg
    >>> mg.tensordot(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), mg.tensor([1.0, 1.0]), axes=(0, 0))
    tensor([4., 6.])
    """
    a, b = with_axes(a), with_axes(b)
    if isinstance(axes, Sequence):
        of_a, of_b = (places("tensordot", of, x.shape) for of, x in zip(axes, (a, b), strict=True))
    elif 0 <= axes <= min(a.ndim, b.ndim):
        of_a, of_b = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    else:
        raise ValueError(f"tensordot: {axes} axes are not in {describe(a)} and {describe(b)}")
    summed = [a.shape[i] for i in of_a]
    if summed != [b.shape[i] for i in of_b]:
        raise ValueError(
            f"tensordot: the lengths to sum over differ, {describe(a)} has {tuple(summed)} and "
            f"{describe(b)} has {tuple([b.shape[i] for i in of_b])}"
        )
    count = len(summed)
    rows = moveaxis(a, of_a, tuple(range(-count, 0)))
    columns = moveaxis(b, of_b, tuple(range(count)))
    rest_a, rest_b = rows.shape[: a.ndim - count], columns.shape[count:]
    product = matmul(
        reshape(rows, (prod(rest_a), prod(summed))), reshape(columns, (prod(summed), prod(rest_b)))
    )
    return reshape(product, rest_a + rest_b)


@operation
def dot(a: TensorLike, b: TensorLike) -> Tensor:
    """The sum of products over the last axis of a and the last but one of b, as in NumPy.

    For vectors and matrices that is their product; a number multiplies.

    >>> import minigrad as mg
    >>> mg.dot(mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0]))
    tensor(11.)
    """
    if _is_number(a) or _is_number(b):
        return multiply(a, b)
    a, b = with_axes(a), with_axes(b)
    if b.ndim <= 2:
        return matmul(a, b)
    return tensordot(a, b, (-1, -2))


def _is_number(x: TensorLike) -> bool:
    return isinstance(x, int | float) or not with_axes(x).ndim


@operation
def inner(a: TensorLike, b: TensorLike) -> Tensor:
    """The sum of products over the last axes of both; a number multiplies.

    >>> import minigrad as mg
    >>> mg.inner(mg.tensor([1.0, 2.0]), mg.tensor([[3.0, 4.0], [5.0, 6.0]]))
    tensor([11., 17.])
    """
    if _is_number(a) or _is_number(b):
        return multiply(a, b)
    a, b = with_axes(a), with_axes(b)
    return tensordot(a, b, (-1, -1))


@operation
def outer(a: TensorLike, b: TensorLike) -> Tensor:
    """All products  a_i b_j  of the elements of a and of b.

    >>> import minigrad as mg
    >>> mg.outer(mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0]))
    tensor([[3., 4.],
            [6., 8.]])
    """
    return multiply(reshape(with_axes(a), (-1, 1)), reshape(with_axes(b), -1))
