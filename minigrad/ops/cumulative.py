"""Running sums and products."""

from __future__ import annotations

from typing import Any

from minigrad.arrays import TensorLike
from minigrad.ops.axes import span
from minigrad.ops.joining import concatenate
from minigrad.ops.rearranging import flip, pad
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor


@operation
@primitive
def cumsum(x: TensorLike, /, axis: int | None = None) -> Tensor:
    """The sums  x_1 + ... + x_i  along an axis; without one, of all elements in a row.

    >>> import minigrad as mg
    >>> mg.cumsum(mg.tensor([1.0, 2.0, 3.0]))
    tensor([1., 3., 6.])
    """
    return x.cumsum(axis)


def _cumsum_rule(g: Any, axis: int | None, operand_shape: tuple[int, ...]) -> Any:
    """g_i + ... + g_n"""
    return flip(cumsum(flip(g, axis), axis), axis).reshape(operand_shape)


cumsum.rules(x=_cumsum_rule)


@operation
@primitive
def cumprod(x: TensorLike, /, axis: int | None = None) -> Tensor:
    """The products  x_1 ... x_i  along an axis; without one, of all elements in a row.

    Its derivatives are right where elements are 0, too.

    >>> import minigrad as mg
    >>> mg.cumprod(mg.tensor([1.0, 2.0, 3.0]))
    tensor([1., 2., 6.])
    """
    return x.cumprod(axis)


def _cumprod_rule(g: Any, x: Any, out: Any, axis: int | None) -> Any:
    """x_1 ... x_(i-1) s_i,  with  s_i = g_i + x_(i+1) g_(i+1) + x_(i+1) x_(i+2) g_(i+2) + ...

    Nothing is divided by x_i, so zeros do no harm.
    """
    rows, along = (x.reshape(-1), 0) if axis is None else (x, axis % x.ndim)
    sums = _recurrence(g, rows[span(along, 1, None)], along)
    return (_shifted(out, along) * sums).reshape(x.shape)


cumprod.rules(x=_cumprod_rule)


def products_before(x: Any, axis: int) -> Any:
    """x_1 ... x_(i-1)  for every i along an axis."""
    return _shifted(cumprod(x, axis), axis)


def products_after(x: Any, axis: int) -> Any:
    """x_(i+1) ... x_n  for every i along an axis."""
    return flip(products_before(flip(x, axis), axis), axis)


def _shifted(x: Any, axis: int) -> Any:
    """x moved on by one place along an axis, with 1 in the first."""
    width = [(int(i == axis), 0) for i in range(x.ndim)]
    return pad(x, width, constant_values=1.0)[span(axis, 0, x.shape[axis])]


def _recurrence(b: Any, a: Any, axis: int) -> Any:
    """The s with  s_i = b_i + a_i s_(i+1),  and  s_n = b_n.

    By doubling: what holds for steps of 1, put into itself, holds for steps of 2, 4, 8 ...
    """
    length, step = b.shape[axis], 1
    while step < length:  # s_i = b_i + a_i s_(i+step)
        reached, left = length - step, max(length - 2 * step, 0)
        early = b[span(axis, 0, reached)] + a * b[span(axis, step, None)]
        b = concatenate([early, b[span(axis, reached, None)]], axis)
        a = a[span(axis, 0, left)] * a[span(axis, step, None)]
        step *= 2
    return b
