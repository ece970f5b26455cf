"""Exponentials and logarithms of each element."""

from __future__ import annotations

from math import inf
from math import log as ln
from typing import Any

from minigrad.arrays import TensorLike, common_namespace, namespace
from minigrad.ops.comparisons import where
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor


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
def exp2(x: TensorLike, /) -> Tensor:
    """2^x

    >>> import minigrad as mg
    >>> mg.exp2(mg.tensor([0.0, 3.0]))
    tensor([1., 8.])
    """
    return namespace(x).exp2(x)


exp2.rules(x=lambda g, out: g * (out * ln(2.0)))  # 2^x ln 2


@operation
@primitive
def expm1(x: TensorLike, /) -> Tensor:
    """e^x - 1,  exact also where x is near 0.

    >>> import minigrad as mg
    >>> mg.expm1(mg.tensor([0.0, 1e-10]))
    tensor([0.e+00, 1.e-10])
    """
    return namespace(x).expm1(x)


expm1.rules(x=lambda g, out: g * (out + 1.0))  # e^x


@operation
@primitive
def log(x: TensorLike, /) -> Tensor:
    """The natural logarithm of x.

    >>> import minigrad as mg
    >>> mg.round(mg.log(mg.tensor([1.0, 2.0])), 4)
    tensor([0.    , 0.6931])
    """
    return namespace(x).log(x)


log.rules(x=lambda g, x: g / x)


@operation
@primitive
def log2(x: TensorLike, /) -> Tensor:
    """The logarithm of x to the base 2.

    >>> import minigrad as mg
    >>> mg.log2(mg.tensor([1.0, 8.0]))
    tensor([0., 3.])
    """
    return namespace(x).log2(x)


log2.rules(x=lambda g, x: g / (x * ln(2.0)))  # 1 / (x ln 2)


@operation
@primitive
def log10(x: TensorLike, /) -> Tensor:
    """The logarithm of x to the base 10.

    >>> import minigrad as mg
    >>> mg.round(mg.log10(mg.tensor([1.0, 1000.0])), 4)
    tensor([0., 3.])
    """
    return namespace(x).log10(x)


log10.rules(x=lambda g, x: g / (x * ln(10.0)))  # 1 / (x ln 10)


@operation
@primitive
def log1p(x: TensorLike, /) -> Tensor:
    """log(1 + x),  exact also where x is near 0.

    >>> import minigrad as mg
    >>> mg.log1p(mg.tensor([0.0, 1e-10]))
    tensor([0.e+00, 1.e-10])
    """
    return namespace(x).log1p(x)


log1p.rules(x=lambda g, x: g / (1.0 + x))


@operation
@primitive
def logaddexp(a: TensorLike, b: TensorLike, /) -> Tensor:
    """log(e^a + e^b),  without overflow.

    >>> import minigrad as mg
    >>> mg.round(mg.logaddexp(mg.tensor([0.0, 1000.0]), 0.0), 4)
    tensor([6.931e-01, 1.000e+03])
    """
    return common_namespace(a, b).logaddexp(a, b)


def _share_of(g: Any, x: Any, out: Any) -> Any:
    """g e^x / (e^a + e^b), and 0 where both powers are 0."""
    return g * exp(x - where(out == -inf, 0.0, out))


logaddexp.rules(
    a=lambda g, a, out: _share_of(g, a, out),
    b=lambda g, b, out: _share_of(g, b, out),
)
