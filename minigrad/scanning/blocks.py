"""Products in blocks, so small that OpenBLAS computes them without copying their operands.

OpenBLAS copies the operands of a product into another order first, at every step of a loop. With
AVX-512 it has a way without that, for products of up to a million multiplications.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from minigrad.arrays import Array
from minigrad.primitive import Primitive

#: Of so many multiplications a product is computed without copies.
WITHOUT_COPIES: Final = 10**6
#: A block should have as many results, and sums of as many terms, if it is not whole.
RESULTS, TERMS = 512, 256


class Blocks(NamedTuple):
    """In how many parts the sums of a product are computed; the rows and columns of a block."""

    parts: int
    rows: int
    columns: int


def blocks_of(rows: int, inner: int, columns: int) -> Blocks | None:
    """How to cut a product of (rows, inner) and (inner, columns), with sums as long as can be.

    ``None`` if it is small enough, or if there are no blocks of a size that OpenBLAS is good at:
    rows by the 4, and columns by the 32, or else many.
    """
    if rows == 1 or rows * inner * columns <= WITHOUT_COPIES:
        return None
    heights = [h for h in _divisors(rows) if h % 4 == 0 or rows % 4]
    widths = [w for w in _divisors(columns) if 16 <= w <= 80 and (w % 16 == 0 or w >= 64)]
    for parts in _divisors(inner):
        terms = inner // parts
        if parts > 1 and terms < TERMS:
            break
        found = [
            Blocks(parts, height, width)
            for width in widths
            for height in heights
            if height * terms * width <= WITHOUT_COPIES
            and (height * width >= RESULTS or (height == rows and width >= 64))
        ]
        if found:
            return max(found, key=lambda size: (size.columns % 32 == 0, size.columns, size.rows))
    return None


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def shapes_of_matrix(inner: int, columns: int, size: Blocks) -> Sequence[tuple[int, ...]]:
    """The shape into which a matrix is cut, the order of its axes, and the shape after that."""
    parts, _, width = size
    cut = parts, inner // parts, columns // width, 1, width
    order = 0, 2, 3, 1, 4
    return cut, order, tuple([cut[axis] for axis in order])


def rows_in_blocks(x: Array, size: Blocks) -> Array:
    """x as  (parts, 1, its rows / rows, rows, inner / parts),  without copying."""
    high, inner = x.shape
    parts, rows, _ = size
    cut = x.reshape(high // rows, rows, parts, inner // parts)
    return cut.transpose(2, 0, 1, 3)[:, None]


def results_in_blocks(out: Array, size: Blocks) -> Array:
    """An array as  (parts, its columns / columns, its rows / rows, rows, columns)  likewise."""
    high, wide = out.shape[-2:]
    parts, rows, columns = size
    cut = out.reshape(parts, high // rows, rows, wide // columns, columns)
    return cut.transpose(0, 3, 1, 2, 4)


@Primitive
def matmul_in_blocks(x: Any, matrix: Any, /, parts: int, rows: int, columns: int) -> Any:
    """x W  by blocks, of a matrix that is cut already; of several parts one product each."""
    found = rows_in_blocks(x, Blocks(parts, rows, columns)) @ matrix
    whole = found.transpose(0, 2, 3, 1, 4).reshape(parts, len(x), -1)
    return whole[0] if parts == 1 else whole
