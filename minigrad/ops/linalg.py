"""Linear algebra, as in ``numpy.linalg``: inverses, determinants, factors, norms.

All work on stacks of matrices, too, which broadcast. Errors are those of LAPACK on the CPU;
on a GPU CuPy does not look whether a matrix is singular.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from minigrad.arrays import TensorLike, namespace
from minigrad.arrays import solve as solution_of
from minigrad.ops.matrices import tril
from minigrad.ops.reductions import narrowed, over, spread, widened
from minigrad.primitive import primitive
from minigrad.tensor import Axis, Tensor, operations

__all__ = ["cholesky", "det", "inv", "norm", "slogdet", "solve"]

F = TypeVar("F", bound=Callable[..., Any])


def operation(function: F) -> F:
    """Enter an operation in the table of operations, under its name in ``numpy.linalg``."""
    operations[f"linalg.{function.__name__}"] = function
    return function


def _transposed(x: Any) -> Any:
    return x.swapaxes(-1, -2)


@operation
@primitive
def inv(a: TensorLike, /) -> Tensor:
    """The inverse of a square matrix.

    Raises ``ValueError`` for a singular matrix.

    >>> import minigrad as mg
    >>> mg.linalg.inv(mg.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5 , 0.  ],
            [0.  , 0.25]])
    """
    return namespace(a).linalg.inv(a)


inv.rules(a=lambda g, out: -_transposed(out) @ g @ _transposed(out))  # -A^-T g A^-T


@operation
@primitive
def solve(a: TensorLike, b: TensorLike, /) -> Tensor:
    """The x with  a x = b,  for one vector b, or for the columns of b.

    As in NumPy, b is a vector only if it has no other axes.

    Raises ``ValueError`` for a singular matrix.

    >>> import minigrad as mg
    >>> mg.linalg.solve(mg.tensor([[2.0, 0.0], [0.0, 4.0]]), mg.tensor([1.0, 1.0]))
    tensor([0.5 , 0.25])
    """
    return solution_of(a, b)


def _solve_right_rule(g: Any, a: Any) -> Any:
    """A^-T g"""
    if g.ndim < a.ndim:  # b is a vector
        return solve(_transposed(a), g[..., None])[..., 0]
    return solve(_transposed(a), g)


def _solve_left_rule(g: Any, a: Any, out: Any) -> Any:
    """-A^-T g x^T"""
    right = _solve_right_rule(g, a)
    if g.ndim < a.ndim:
        return -right[..., None] * out[..., None, :]
    return -right @ _transposed(out)


solve.rules(
    a=_solve_left_rule,
    b=_solve_right_rule,
)


@operation
@primitive
def det(a: TensorLike, /) -> Tensor:
    """The determinant; its gradient needs the matrix to be invertible.

    >>> import minigrad as mg
    >>> mg.linalg.det(mg.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor(8.)
    """
    return namespace(a).linalg.det(a)


det.rules(a=lambda g, a, out: (g * out)[..., None, None] * _transposed(inv(a)))  # det(A) A^-T


@operation
@primitive
def slogdet(a: TensorLike, /) -> tuple[Tensor, Tensor]:
    """The sign of the determinant, whose derivative is 0, and the logarithm of its size.

    >>> import minigrad as mg
    >>> sign, logabsdet = mg.linalg.slogdet(mg.tensor([[0.0, 2.0], [4.0, 0.0]]))
    >>> sign, logabsdet
    (tensor(-1.), tensor(2.0794415))
    """
    return namespace(a).linalg.slogdet(a)


slogdet.rules(a=lambda g, a: g[1][..., None, None] * _transposed(inv(a)))  # A^-T


@operation
@primitive
def cholesky(a: TensorLike, /) -> Tensor:
    """The lower triangle L with  L L^T = a,  for a symmetric positive definite matrix.

    As in NumPy, only the lower triangle of a is read, and the rest is taken to mirror it; the
    gradient is symmetric.

    Raises ``ValueError`` for a matrix that is not positive definite.

    >>> import minigrad as mg
    >>> mg.linalg.cholesky(mg.tensor([[4.0, 2.0], [2.0, 2.0]]))
    tensor([[2., 0.],
            [1., 1.]])
    """
    return namespace(a).linalg.cholesky(a)


def _cholesky_rule(g: Any, out: Any) -> Any:
    """L^-T (P + P^T) L^-1 / 2,  where P is the lower triangle of  L^T g  with half its diagonal."""
    product = _transposed(out) @ g
    twice = tril(product) + tril(product, -1)
    left = solve(_transposed(out), twice + _transposed(twice))
    return 0.25 * solve(_transposed(out), _transposed(left))


cholesky.rules(a=_cholesky_rule)


@operation
@primitive
def norm(x: TensorLike, /, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The root of the sum of squares over an axis, several axes, or all.

    That is the 2-norm of vectors and the Frobenius norm of matrices. The derivative is taken
    to be 0 where the norm is 0.

    Raises ``ValueError`` for another ``ord``.

    >>> import minigrad as mg
    >>> mg.linalg.norm(mg.tensor([[3.0, 4.0], [0.0, 0.0]]), axis=1)
    tensor([5., 0.])
    """
    if ord is not None:
        raise ValueError("only the root of the sum of squares has a gradient rule, ord=None")
    wide = widened(x)
    return narrowed(namespace(x).sqrt((wide * wide).sum(axis, keepdims=keepdims)), x)


def _norm_rule(g: Any, x: Any, out: Any, axis: Axis, keepdims: bool) -> Any:
    """x_i / norm"""
    return spread(over(g, out), x.shape, axis, keepdims) * x


norm.rules(x=_norm_rule)
