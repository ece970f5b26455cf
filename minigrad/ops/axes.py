"""Which axes an operation works on, and the indices that reach along one."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any


def integers(value: Any) -> tuple[int, ...]:
    """One integer, or a sequence of them, as a tuple."""
    return tuple(map(index, value)) if hasattr(value, "__len__") else (index(value),)


def places(
    name: str, axis: int | Sequence[int] | None, shape: tuple[int, ...], *, new: int = 0
) -> tuple[int, ...]:
    """``axis`` as a tuple of axes counted from the front; ``None`` is all of them.

    Raises ``ValueError``, in the name of an operation, unless they are different axes of
    ``shape`` with ``new`` axes added.
    """
    ndim = len(shape) + new
    if axis is None:
        return tuple(range(ndim))
    found = tuple([a + ndim if a < 0 else a for a in integers(axis)])
    if any([not 0 <= a < ndim for a in found]) or len({*found}) < len(found):
        kind = f"a shape {shape}" + (f" with {new} new" * bool(new))
        raise ValueError(f"{name}: axis {axis} does not fit {kind}")
    return found


def place(name: str, axis: int, shape: tuple[int, ...], *, new: int = 0) -> int:
    """One axis, counted from the front."""
    (found,) = places(name, index(axis), shape, new=new)
    return found


def span(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    """The index of ``start:stop`` along ``axis``."""
    return (slice(None),) * axis + (slice(start, stop),)


def at(axis: int, position: Any) -> tuple[Any, ...]:
    """The index of a position, or of an array of positions, along ``axis``."""
    return (*(slice(None),) * axis, position)
