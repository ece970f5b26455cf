"""Layers: Linear, Embedding, LayerNorm, Dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minigrad import arrays
from minigrad.arrays import TensorLike
from minigrad.nn import init
from minigrad.nn.module import Module, Parameter
from minigrad.ops import astype, linear, matmul, multiply, standardize
from minigrad.ops.indexing import checked_positions
from minigrad.tensor import Tensor, asarray, describe, with_axes


class Linear(Module):
    """x W^T + b, on the last axis of x.

    Args:
        in_features: the length of the last axis of x.
        out_features: the length of the last axis of the result.
        bias: whether there is a b.
        dtype: that of the parameters, float32 by default.
        device: that of the parameters.
        rng: generator or seed of the initial values, U(-k, k) with k = 1 / sqrt(in_features).

    Attributes:
        weight: W, (out_features, in_features).
        bias: b, (out_features,), or ``None``.

    Raises ``ValueError`` if the last axis of x has another length.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> nn.Linear(3, 2, rng=0)(mg.tensor([[1.0, 2.0, 3.0]])).shape
    (1, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        rng = arrays.generator(rng)
        bound = 1.0 / math.sqrt(in_features) if in_features else 0.0
        made = {"rng": rng, "dtype": dtype, "device": device}
        self.weight = Parameter(init.uniform((out_features, in_features), -bound, bound, **made))
        self.bias = (
            Parameter(init.uniform((out_features,), -bound, bound, **made)) if bias else None
        )

    def forward(self, x: TensorLike) -> Tensor:
        """(..., in_features) -> (..., out_features)"""
        x = with_axes(x)
        if not x.ndim or x.shape[-1] != self.weight.shape[1]:
            raise ValueError(
                f"Linear expects {self.weight.shape[1]} features on the last axis, not a tensor "
                f"of shape {x.shape}"
            )
        if self.bias is None:
            return matmul(x, self.weight.T)
        return linear(x, self.weight, self.bias)


class Embedding(Module):
    """A vector for each of a number of things, looked up by number.

    Args:
        num_embeddings: how many things there are.
        embedding_dim: the length of each vector.
        dtype, device, rng: as for :class:`Linear`; the initial values are N(0, 1).

    Attributes:
        weight: (num_embeddings, embedding_dim).

    Raises ``TypeError`` if the numbers are not integers, and ``IndexError`` if one is not
    between 0 and num_embeddings - 1.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> nn.Embedding(10, 4, rng=0)(mg.tensor([[1, 2, 2]])).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: Any = None,
        device: str | None = None,
        rng: Any = None,
    ) -> None:
        shape = (num_embeddings, embedding_dim)
        self.weight = Parameter(init.normal(shape, rng=rng, dtype=dtype, device=device))

    def forward(self, numbers: TensorLike) -> Tensor:
        """integers (...) -> (..., embedding_dim)"""
        rows, what = self.weight.shape[0], "the numbers of an Embedding"
        return self.weight[checked_positions(asarray(numbers), rows, what)]


class LayerNorm(Module):
    """(x - mean) / sqrt(variance + eps) weight + bias,  over the last axes of x.

    The variance is the mean squared deviation. A float16 x is computed with in float32.

    Args:
        normalized_shape: the lengths of the axes that mean and variance are taken over, the
            last ones of x; an integer for the last one alone.
        eps: what keeps the root away from 0.
        elementwise_affine: whether there are a weight and a bias.
        bias: whether there is a bias, if there is a weight.
        dtype: that of the parameters, float32 by default.
        device: that of the parameters.

    Attributes:
        weight: of the normalized shape, ones at first; or ``None``.
        bias: of the normalized shape, zeros at first; or ``None``.

    Ba, Kiros and Hinton, Layer normalization, 2016.

    Raises ``ValueError`` if the last axes of x have other lengths, and ``TypeError`` if x is
    not of a float dtype.

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> nn.LayerNorm(2)(mg.tensor([[1.0, 3.0], [0.0, 0.0]]))
    tensor([[-0.999995,  0.999995],
            [ 0.      ,  0.      ]])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = None,
        device: str | None = None,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else (*normalized_shape,)
        if not shape:
            raise ValueError("LayerNorm needs at least one axis to normalize over")
        made = {"dtype": dtype, "device": device}
        self.normalized_shape = shape
        self.eps = eps
        self.weight = Parameter(init.ones(shape, **made)) if elementwise_affine else None
        self.bias = Parameter(init.zeros(shape, **made)) if elementwise_affine and bias else None

    def forward(self, x: TensorLike) -> Tensor:
        """(..., *normalized_shape) -> the same shape"""
        if not isinstance(x, Tensor):
            x = asarray(x)
        axes = tuple(range(-len(self.normalized_shape), 0))
        if x.shape[axes[0] :] != self.normalized_shape:
            raise ValueError(
                f"LayerNorm expects {self.normalized_shape} as the last axes, not a tensor of "
                f"shape {x.shape}"
            )
        if x.dtype.kind != "f":
            raise TypeError(f"LayerNorm needs a float tensor, not {describe(x)}")
        wide = astype(x, "float32") if x.dtype == "float16" else x
        out = standardize(wide, axes, self.eps)
        if self.weight is not None:
            out = out * self.weight
        if self.bias is not None:
            out = out + self.bias
        return astype(out, x.dtype) if x.dtype == "float16" else out

    def extra_repr(self) -> str:
        """The normalized shape and eps."""
        return f"{self.normalized_shape}, eps={self.eps}"


class Dropout(Module):
    """In training, sets each element to 0 with probability p and scales the rest by 1/(1-p).

    Args:
        p: the probability of dropping an element, in [0, 1).
        rng: generator or seed of the masks.

    Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.

    Raises ``ValueError`` if p is not in [0, 1).

    >>> from minigrad import nn
    >>> import minigrad as mg
    >>> drop = nn.Dropout(0.5, rng=0)
    >>> drop(mg.tensor([1.0, 1.0, 1.0, 1.0]))
    tensor([2., 2., 2., 0.])
    >>> drop.eval()(mg.tensor([1.0, 1.0]))
    tensor([1., 1.])
    """

    def __init__(self, p: float = 0.5, *, rng: Any = None) -> None:
        if not 0.0 <= p < 1.0:
            raise ValueError(f"the probability of dropping an element is in [0, 1), not {p}")
        self.p = p
        self.rng = arrays.generator(rng)

    def forward(self, x: TensorLike) -> Tensor:
        """Any shape -> the same shape."""
        if not isinstance(x, Tensor):
            x = asarray(x)
        if not self.training or not self.p:
            return x
        if x.dtype.kind != "f":
            raise TypeError(f"Dropout needs a float tensor, not {describe(x)}")
        kept = Tensor(arrays.random_like(self.rng, x.array, x.shape)) >= self.p
        return multiply(x, astype(kept, x.dtype) * (1.0 / (1.0 - self.p)))

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"
