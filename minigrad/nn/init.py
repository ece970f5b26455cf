"""Initial values for parameters: constants, the random ones from an explicit generator.

Every function takes a shape and returns a constant tensor; ``rng`` is a NumPy generator or
a seed (``None`` draws fresh entropy). The numbers are drawn on the CPU, in float64, so that
a seed gives the same model in every dtype and on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, Final, Literal

import numpy

from minigrad.arrays import floating_dtype
from minigrad.arrays import generator as generator
from minigrad.tensor import Tensor, asarray

#: Whether a weight's size is that which its inputs ask for, or its outputs.
Mode = Literal["fan_in", "fan_out"]

_GAINS: Final = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": sqrt(2.0)}


def zeros(shape: Sequence[int], *, dtype: Any = None, device: str | None = None) -> Tensor:
    """Zeros.

    >>> from minigrad import nn
    >>> nn.init.zeros((2,))
    tensor([0., 0.])
    """
    return constant(shape, 0.0, dtype=dtype, device=device)


def ones(shape: Sequence[int], *, dtype: Any = None, device: str | None = None) -> Tensor:
    """Ones.

    >>> from minigrad import nn
    >>> nn.init.ones((2,))
    tensor([1., 1.])
    """
    return constant(shape, 1.0, dtype=dtype, device=device)


def constant(
    shape: Sequence[int], value: float, *, dtype: Any = None, device: str | None = None
) -> Tensor:
    """The same number everywhere.

    >>> from minigrad import nn
    >>> nn.init.constant((2,), 0.5)
    tensor([0.5, 0.5])
    """
    return asarray(numpy.full(shape, value, floating_dtype(dtype)), device=device)


def identity(
    shape: Sequence[int], gain: float = 1.0, *, dtype: Any = None, device: str | None = None
) -> Tensor:
    """``gain`` on the diagonal of a matrix, zeros elsewhere.

    For the recurrent weight of a network of relus: Le, Jaitly and Hinton, A simple way to
    initialize recurrent networks of rectified linear units, 2015.

    Raises ``ValueError`` if the shape is not that of a matrix.

    >>> from minigrad import nn
    >>> nn.init.identity((2, 3), gain=0.5)
    tensor([[0.5, 0. , 0. ],
            [0. , 0.5, 0. ]])
    """
    return _cast(gain * numpy.eye(*_matrix(shape)), dtype, device)


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
    drawn = numpy.asarray(generator(rng).uniform(low, high, shape), floating_dtype(dtype))
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
    gain: float = 1.0,
    *,
    rng: Any = None,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """U(-a, a) with  a = gain sqrt(6 / (inputs + outputs)),  for a weight (outputs, inputs).

    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks, 2010.

    Raises ``ValueError`` if the shape is not that of a matrix.

    >>> from minigrad import nn
    >>> nn.init.glorot_uniform((1, 2), rng=0).shape
    (1, 2)
    """
    bound = sqrt(3.0) * _glorot_std(shape, gain)
    return uniform(shape, -bound, bound, rng=rng, dtype=dtype, device=device)


def glorot_normal(
    shape: Sequence[int],
    gain: float = 1.0,
    *,
    rng: Any = None,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """N(0, s^2) with  s = gain sqrt(2 / (inputs + outputs)),  for a weight (outputs, inputs).

    See :func:`glorot_uniform` for the source, and what is raised.

    >>> from minigrad import nn
    >>> nn.init.glorot_normal((1, 2), rng=0).shape
    (1, 2)
    """
    return normal(shape, _glorot_std(shape, gain), rng=rng, dtype=dtype, device=device)


def he_uniform(
    shape: Sequence[int],
    mode: Mode = "fan_in",
    nonlinearity: str = "relu",
    *,
    rng: Any = None,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """U(-a, a) with  a = gain sqrt(3 / fan),  for a weight (outputs, inputs).

    The fan is the number of inputs (``"fan_in"``: values keep their size on the way forward)
    or of outputs (``"fan_out"``: gradients keep theirs on the way back), and the gain is
    that of the nonlinearity behind the layer, see :func:`calculate_gain`.

    He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015.

    Raises ``ValueError`` if the shape is not that of a matrix, or for an unknown mode or
    nonlinearity.

    >>> from minigrad import nn
    >>> nn.init.he_uniform((1, 2), rng=0).shape
    (1, 2)
    """
    bound = sqrt(3.0) * _he_std(shape, mode, nonlinearity)
    return uniform(shape, -bound, bound, rng=rng, dtype=dtype, device=device)


def he_normal(
    shape: Sequence[int],
    mode: Mode = "fan_in",
    nonlinearity: str = "relu",
    *,
    rng: Any = None,
    dtype: Any = None,
    device: str | None = None,
) -> Tensor:
    """N(0, s^2) with  s = gain / sqrt(fan),  for a weight (outputs, inputs).

    See :func:`he_uniform` for fan and gain, the source, and what is raised.

    >>> from minigrad import nn
    >>> nn.init.he_normal((1, 2), rng=0).shape
    (1, 2)
    """
    std = _he_std(shape, mode, nonlinearity)
    return normal(shape, std, rng=rng, dtype=dtype, device=device)


def calculate_gain(nonlinearity: str) -> float:
    """How much larger the weights before a nonlinearity must be to make up for its shrinking.

    1 for ``"linear"`` and ``"sigmoid"``, 5/3 for ``"tanh"``, sqrt(2) for ``"relu"``, as in
    PyTorch.

    Raises ``ValueError`` for another nonlinearity.

    >>> from minigrad import nn
    >>> nn.init.calculate_gain("sigmoid")
    1.0
    """
    if nonlinearity not in _GAINS:
        raise ValueError(
            f"the gain of {nonlinearity!r} is not known; known are {', '.join(_GAINS)}"
        )
    return _GAINS[nonlinearity]


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


def _glorot_std(shape: Sequence[int], gain: float) -> float:
    outputs, inputs = _matrix(shape)
    return gain * sqrt(2.0 / max(1, inputs + outputs))


def _he_std(shape: Sequence[int], mode: Mode, nonlinearity: str) -> float:
    outputs, inputs = _matrix(shape)
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"the mode is 'fan_in' or 'fan_out', not {mode!r}")
    return calculate_gain(nonlinearity) / sqrt(max(1, inputs if mode == "fan_in" else outputs))


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"this initialiser is for a matrix; the shape {tuple(shape)} is not one")
    rows, columns = shape
    return rows, columns


def _cast(drawn: Any, dtype: Any, device: str | None) -> Tensor:
    return asarray(numpy.asarray(drawn, floating_dtype(dtype), order="C"), device=device)
