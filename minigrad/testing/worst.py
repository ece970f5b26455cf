"""The entry of a Jacobian in which two computations of it differ most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy

from minigrad.testing.differences import Derivative, Vector
from minigrad.testing.recording import Matrix

#: U J v  by gradients, for covectors in the rows of U, (k, m), and a direction v, (n,).
Products: TypeAlias = Callable[[Matrix, Vector], Vector]
#: J v  by differences.
Differences: TypeAlias = Callable[[Vector], Derivative]

#: A Jacobian of no more entries is computed in full.
FULL: Final = 400
#: Entries that are off by factors so close to each other are off by the same one.
ALIKE: Final = 1e-4


class Worst(NamedTuple):
    """Entry (row, column) by either computation; and the factor by which all entries are off.

    The factor is ``None`` if there are several, or one entry alone.
    """

    row: int
    column: int
    gradient: float
    differences: float
    factor: float | None = None


def worst_entry(
    products: Products, differences: Differences, direction: Vector, u: Vector
) -> Worst | None:
    """The entry that is most wrong, or of a large Jacobian one that is wrong.

    It is in a column that ``direction`` moves, whose size there is that of the step. Returns
    ``None`` if it is off by no more than the error of the differences.
    """
    columns = numpy.flatnonzero(direction).tolist()
    if len(columns) * u.size > FULL:
        return _by_halves(products, differences, direction, u)
    every = numpy.eye(u.size)
    parts = [_only(direction, j, j + 1) for j in columns]
    found = [differences(part) for part in parts]
    sizes = direction[columns]
    gradient = numpy.stack([products(every, part) for part in parts], axis=1) / sizes
    numeric = numpy.stack([derivative.value for derivative in found], axis=1) / sizes
    error = numpy.stack([derivative.error for derivative in found], axis=1) / abs(sizes)
    off = numpy.nan_to_num(numpy.abs(gradient - numeric), nan=numpy.inf)
    off[off <= error] = 0.0
    if not off.any():
        return None
    row, place = numpy.unravel_index(int(off.argmax()), off.shape)
    known = error < ALIKE * numpy.abs(numeric)
    factors = gradient[known] / numeric[known]
    alike = factors.size > 1 and numpy.ptp(factors) <= ALIKE * numpy.abs(factors).max()
    return Worst(
        int(row),
        columns[place],
        float(gradient[row, place]),
        float(numeric[row, place]),
        float(factors.mean()) if alike else None,
    )


def _by_halves(
    products: Products, differences: Differences, direction: Vector, u: Vector
) -> Worst | None:
    """An entry that is wrong, by halving the direction and then the covector."""

    def along(low: int, high: int) -> float:
        part = _only(direction, low, high)
        if not part.any():
            return 0.0
        return float(products(u[None], part)[0] - u @ differences(part).value)

    column = _halved(along, direction.size)
    part = _only(direction, column, column + 1)
    found = differences(part)

    def against(low: int, high: int) -> float:
        some = _only(u, low, high)
        return float(products(some[None], part)[0] - some @ found.value)

    row = _halved(against, u.size)
    unit = numpy.zeros_like(u)
    unit[row] = 1.0
    gradient = products(unit[None], part)[0]
    if abs(gradient - found.value[row]) <= found.error[row]:
        return None
    size = direction[column]
    return Worst(row, column, float(gradient / size), float(found.value[row] / size))


def _only(vector: Vector, low: int, high: int) -> Vector:
    """The vector with zeros outside of some places."""
    part = numpy.zeros_like(vector)
    part[low:high] = vector[low:high]
    return part


def _halved(mismatch: Callable[[int, int], float], size: int) -> int:
    """A place among ``size`` of them, by following the half with the larger mismatch."""
    low, high, whole = 0, size, mismatch(0, size)
    while high - low > 1:
        middle = (low + high) // 2
        left = mismatch(low, middle)
        right = whole - left
        if not numpy.isfinite(left) or abs(left) >= abs(right):
            high, whole = middle, left
        else:
            low, whole = middle, right
    return low
