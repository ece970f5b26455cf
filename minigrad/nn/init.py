"""Initial values for parameters: constants drawn from an explicit generator.

Every function takes a shape and returns a constant tensor; ``rng`` is a NumPy generator or
a seed (``None`` draws fresh entropy). The numbers are drawn on the CPU, in float64, so that
a seed gives the same model in every dtype and on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy

from minigrad.arrays import floating_dtype
from minigrad.arrays import generator as generator
from minigrad.tensor import Tensor, asarray


def zeros(shape: Sequence[int], *, dtype: Any = None, device: str | None = None) -> Tensor:
    """Zeros.

    >>> from minigrad import nn
    >>> nn.init.zeros((2,))
    tensor([0., 0.])
    """
    return asarray(numpy.zeros(shape, floating_dtype(dtype)), device=device)


def uniform(
    shape: Sequence[int],
    low: float = 0.0,
    high: float = 1.0,
    *,
    rng: Any = None,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """Numbers drawn uniformly from [low, high).

    >>> from minigrad import nn
    >>> nn.init.uniform((2,), -1.0, 1.0, rng=0)
    tensor([ 0.27392337, -0.46042657])
    """
    drawn = _cast(generator(rng).uniform(low, high, shape), dtype, device).array
    # Rounding to a narrower dtype may have reached the bound that is not to be reached.
    below = numpy.nextafter(drawn.dtype.type(high), drawn.dtype.type(low))
    return asarray(numpy.minimum(drawn, below), device=device)


def normal(
    shape: Sequence[int],
    std: float = 1.0,
    *,
    rng: Any = None,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """Numbers drawn from a normal distribution of mean 0.

    >>> from minigrad import nn
    >>> nn.init.normal((2,), rng=0)
    tensor([ 0.12573022, -0.13210486])
    """
    return _cast(generator(rng).normal(0.0, std, shape), dtype, device)


def glorot_uniform(
    shape: Sequence[int],
    *,
    rng: Any = None,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """U(-a, a) with  a = sqrt(6 / (inputs + outputs)),  for a weight (outputs, inputs).

    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks, 2010.

    >>> from minigrad import nn
    >>> nn.init.glorot_uniform((1, 2), rng=0).shape
    (1, 2)
    """
    outputs, inputs = _matrix(shape)
    bound = sqrt(6.0 / (inputs + outputs))
    return uniform(shape, -bound, bound, rng=rng, dtype=dtype, device=device)


def orthogonal(
    shape: Sequence[int],
    gain: float = 1.0,
    *,
    rng: Any = None,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """A matrix with orthonormal rows, or columns if there are fewer of them, times ``gain``.

    It is uniformly distributed among these (QR of a normal matrix, the signs of R made
    positive). Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of
    learning in deep linear neural networks, 2014.

    Raises ``ValueError`` if the shape is not that of a matrix.

    >>> from minigrad import nn
    >>> q = nn.init.orthogonal((2, 3), rng=0, dtype="float64")
    >>> abs(q @ q.T).sum().item().__round__(12)
    2.0
    """
    rows, columns = _matrix(shape)
    drawn = generator(rng).normal(size=(max(rows, columns), min(rows, columns)))
    q, r = numpy.linalg.qr(drawn)
    q *= numpy.sign(numpy.diagonal(r))
    return _cast(gain * (q if rows >= columns else q.T), dtype, device)


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"this initialiser is for a matrix; the shape {tuple(shape)} is not one")
    rows, columns = shape
    return rows, columns


def _cast(drawn: Any, dtype: Any, device: str | None) -> Tensor:
    return asarray(numpy.asarray(drawn, floating_dtype(dtype), order="C"), device=device)
