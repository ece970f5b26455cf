"""Norms whose squares and powers neither overflow nor vanish, and the scale that bounds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import NamedTuple

import numpy

import minigrad as mg
from minigrad import Tensor, nn


@contextmanager
def unrecorded() -> Iterator[None]:
    """Nothing is recorded, and NumPy does not warn of infinities: they have a policy."""
    with mg.no_grad(), numpy.errstate(over="ignore", invalid="ignore", divide="ignore"):
        yield


class Norm(NamedTuple):
    """A norm as the product  unit * root,  whose factors are in range where it may not be.

    Attributes:
        unit: float64, the largest magnitude; 1 if that is 0 or not finite, or if squares of such
            magnitudes are in range.
        root: float64, the norm in this unit.
    """

    unit: Tensor
    root: Tensor

    @property
    def value(self) -> Tensor:
        """The norm; infinite if it is beyond float64."""
        return self.unit * self.root

    def scale(self, limit: Tensor | float) -> Tensor:
        """limit / norm  where the norm is larger than the limit, and exactly 1 elsewhere."""
        # The limit that this puts on the unit.
        room = limit / mg.where(self.root == 0.0, 1.0, self.root)
        return mg.where(self.value <= limit, 1.0, room / mg.maximum(room, self.unit))


def norm_of_all(gradients: Sequence[Tensor], p: float) -> Norm:
    """The p-norm of all gradients as one vector, ()."""
    if p == 2.0 and wide_dtype(gradients) == "float32":  # float64 holds all of its squares
        squares = [_sum_of_squares(g.astype("float64").ravel()) for g in gradients]
        root = mg.sqrt(mg.stack(squares).sum())
        return Norm(nn.init.ones((), dtype="float64", device=root.device), root)
    unit = _unit(largest_of_each(gradients).max())
    roots = mg.stack([_vector_norm(g / unit, p) for g in gradients])
    return _wide_norm(unit, _vector_norm(roots, p))


def norm_of_each(gradients: Sequence[Tensor], p: float) -> Norm:
    """The p-norm of every gradient, (number of gradients,)."""
    unit = _unit(largest_of_each(gradients))
    units = mg.unstack(unit)
    roots = [_vector_norm(g / u, p) for g, u in zip(gradients, units, strict=True)]
    return _wide_norm(unit, mg.stack(roots))


def norm_along(x: Tensor, axis: int | tuple[int, ...] | None) -> Norm:
    """The 2-norms along some axes, or all for ``None``; the axes keep a length of 1."""
    unit = _unit(mg.abs(x).max(axis, keepdims=True).astype(wide_dtype([x])))
    return _wide_norm(unit, mg.linalg.norm(x / unit, axis=axis, keepdims=True))


def largest_of_each(gradients: Sequence[Tensor]) -> Tensor:
    """The largest magnitude in every gradient, (number of gradients,); NaN if there is one."""
    largest = [mg.abs(g).max() if g.size else mg.sum(g) for g in gradients]
    return mg.stack(largest).astype(wide_dtype(gradients))


def wide_dtype(gradients: Sequence[Tensor]) -> str:
    """What to compute in: float32, or float64 if one of the gradients is."""
    return "float64" if any([g.dtype == "float64" for g in gradients]) else "float32"


def _sum_of_squares(x: Tensor) -> Tensor:
    return x @ x


def _unit(largest: Tensor) -> Tensor:
    return mg.where((largest > 0.0) * (largest < inf), largest, 1.0)


def _vector_norm(x: Tensor, p: float) -> Tensor:
    if p == 2.0:
        return mg.linalg.norm(x)  # sums in pairs; a float32 dot product loses digits
    if p == inf:
        return mg.abs(x).max() if x.size else mg.sum(x)
    if p == 1.0:
        return mg.abs(x).sum()
    return (mg.abs(x) ** p).sum() ** (1.0 / p)


def _wide_norm(unit: Tensor, root: Tensor) -> Norm:
    return Norm(unit.astype("float64"), root.astype("float64"))
