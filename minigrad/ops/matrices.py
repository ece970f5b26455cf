"""Diagonals and triangles of matrices, and of stacks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.arrays import TensorLike, namespace
from minigrad.ops.axes import places
from minigrad.ops.reductions import sum
from minigrad.ops.shapes import moveaxis
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor, with_axes


@primitive
def _diagonal(x: TensorLike, /, offset: int) -> Tensor:
    """The diagonals of matrices, ``offset`` places above the main one."""
    return x.diagonal(offset, -2, -1)


@primitive
def _on_diagonal(x: TensorLike, /, offset: int, lengths: Sequence[int]) -> Tensor:
    """Matrices of ``lengths`` with x on that diagonal, and 0 elsewhere."""
    library = namespace(x)
    out = library.zeros((*x.shape[:-1], *lengths), x.dtype)
    steps = library.arange(x.shape[-1])
    out[..., steps + max(-offset, 0), steps + max(offset, 0)] = x
    return out


def _diagonal_rule(g: Any, offset: int, operand_shape: tuple[int, ...]) -> Any:
    return _on_diagonal(g, offset=offset, lengths=operand_shape[-2:])


_diagonal.rules(x=_diagonal_rule)
_on_diagonal.rules(x=lambda g, offset: _diagonal(g, offset=offset))


@operation
def diagonal(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements whose positions along two axes are  i  and  i + offset,  as the last axis.

    >>> import minigrad as mg
    >>> mg.diagonal(mg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([1., 4.])
    """
    x = with_axes(x)
    axes = places("diagonal", (axis1, axis2), x.shape)
    return _diagonal(moveaxis(x, axes, (-2, -1)), offset=offset)


@operation
def diag(x: TensorLike, k: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix with a vector on its diagonal and 0 elsewhere.

    The diagonal is ``k`` places above the main one.

    >>> import minigrad as mg
    >>> mg.diag(mg.tensor([1.0, 2.0]))
    tensor([[1., 0.],
            [0., 2.]])
    """
    x = with_axes(x)
    if x.ndim == 1:
        side = x.shape[0] + max(k, -k)
        return _on_diagonal(x, offset=k, lengths=(side, side))
    if x.ndim != 2:
        raise ValueError(f"diag: a vector or a matrix is needed, not a shape {x.shape}")
    return _diagonal(x, offset=k)


@operation
def trace(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a :func:`diagonal`.

    >>> import minigrad as mg
    >>> mg.trace(mg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor(5.)
    """
    x = with_axes(x)
    axes = places("trace", (axis1, axis2), x.shape)
    return sum(diagonal(x, offset, *axes), axis=-1)


@operation
@primitive
def tril(x: TensorLike, /, k: int = 0) -> Tensor:
    """x with 0 above the diagonal that is ``k`` places above the main one.

    >>> import minigrad as mg
    >>> mg.tril(mg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[1., 0.],
            [3., 4.]])
    """
    return namespace(x).tril(x, k)


tril.rules(x=lambda g, k: tril(g, k))


@operation
@primitive
def triu(x: TensorLike, /, k: int = 0) -> Tensor:
    """x with 0 below the diagonal that is ``k`` places above the main one.

    >>> import minigrad as mg
    >>> mg.triu(mg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[1., 2.],
            [0., 4.]])
    """
    return namespace(x).triu(x, k)


triu.rules(x=lambda g, k: triu(g, k))
