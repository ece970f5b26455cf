"""Turning, rolling, repeating, and padding what is in a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.arrays import TensorLike, namespace
from minigrad.ops.axes import at, integers, place, places
from minigrad.ops.shapes import broadcast_to, expand_dims, ravel, reshape
from minigrad.primitive import operation, primitive
from minigrad.tensor import Axis, Tensor, as_operand, with_axes


@operation
def flip(x: TensorLike, axis: Axis = None) -> Tensor:
    """x backwards along an axis, several axes, or all.

    >>> import minigrad as mg
    >>> mg.flip(mg.tensor([1.0, 2.0, 3.0]))
    tensor([3., 2., 1.])
    """
    x = with_axes(x)
    turned = places("flip", axis, x.shape)
    return x[tuple([slice(None, None, -1 if i in turned else 1) for i in range(x.ndim)])]


@operation
@primitive
def roll(x: TensorLike, /, shift: int | Sequence[int], axis: Axis = None) -> Tensor:
    """x moved along axes, where what leaves at the end comes back at the beginning.

    Without an axis the elements move as if they stood in one row.

    >>> import minigrad as mg
    >>> mg.roll(mg.tensor([1.0, 2.0, 3.0]), 1)
    tensor([3., 1., 2.])
    """
    return namespace(x).roll(x, shift, axis)


def _back(shift: Any) -> Any:
    return tuple([-distance for distance in integers(shift)])


roll.rules(x=lambda g, shift, axis: roll(g, _back(shift), axis))


@operation
def tile(x: TensorLike, reps: int | Sequence[int]) -> Tensor:
    """Copies of x side by side, as many along each axis as ``reps`` says.

    >>> import minigrad as mg
    >>> mg.tile(mg.tensor([1.0, 2.0]), (2, 2))
    tensor([[1., 2., 1., 2.],
            [1., 2., 1., 2.]])
    """
    x = with_axes(x)
    counts = integers(reps)
    if any([count < 0 for count in counts]):
        raise ValueError(f"tile: the numbers of copies {counts} must not be negative")
    missing = len(counts) - x.ndim
    counts = (1,) * -missing + counts
    lengths = (1,) * missing + x.shape
    apart = reshape(x, [n for length in lengths for n in (1, length)])
    pairs = [n for pair in zip(counts, lengths, strict=True) for n in pair]
    return reshape(
        broadcast_to(apart, pairs), [c * n for c, n in zip(counts, lengths, strict=True)]
    )


@operation
def repeat(x: TensorLike, repeats: TensorLike, axis: int | None = None) -> Tensor:
    """Each element of x (without an axis), or each slice along an axis, several times.

    ``repeats`` is one number for all, or one for each.

    >>> import minigrad as mg
    >>> mg.repeat(mg.tensor([1.0, 2.0]), (1, 3))
    tensor([1., 2., 2., 2.])
    """
    x = with_axes(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = place("repeat", axis, x.shape)
    times = integers(repeats)
    if len(times) not in (1, x.shape[axis]) or any([n < 0 for n in times]):
        raise ValueError(f"repeat: {x.shape[axis]} slices cannot be repeated {repeats} times")
    if len(times) > 1:
        sources = [i for i, n in enumerate(times) for _ in range(n)]
        return x[at(axis, namespace(as_operand(x)).asarray(sources, dtype=int))]
    before, (length, *after) = x.shape[:axis], x.shape[axis:]
    several = broadcast_to(expand_dims(x, axis + 1), (*before, length, *times, *after))
    return reshape(several, (*before, length * times[0], *after))


@primitive
def _pad(x: TensorLike, /, width: Sequence[tuple[int, int]], value: float) -> Tensor:
    padded = namespace(x).full(
        tuple([before + n + after for (before, after), n in zip(width, x.shape, strict=True)]),
        value,
        x.dtype,
    )
    padded[_inside(width, x.shape)] = x
    return padded


def _inside(width: Sequence[tuple[int, int]], shape: Sequence[int]) -> tuple[slice, ...]:
    """Where in the padded tensor the elements are that were there before."""
    return tuple([slice(before, before + n) for (before, _), n in zip(width, shape, strict=True)])


_pad.rules(x=lambda g, width, operand_shape: g[_inside(width, operand_shape)])


@operation
def pad(
    x: TensorLike, pad_width: Any, mode: str = "constant", *, constant_values: float = 0.0
) -> Tensor:
    """x with constants around it, as many before and after as ``pad_width`` says.

    That is one number for everywhere, or ``(before, after)`` for all axes or for each.

    Raises ``ValueError`` for any other mode, and for widths that do not fit.

    >>> import minigrad as mg
    >>> mg.pad(mg.tensor([[1.0, 2.0]]), ((0, 1), (2, 0)))
    tensor([[0., 0., 1., 2.],
            [0., 0., 0., 0.]])
    """
    x = with_axes(x)
    if mode != "constant":
        raise ValueError(
            f"pad: mode {mode!r} is not among those there are, which is 'constant'; put the "
            "tensor together with mg.concatenate instead"
        )
    return _pad(x, width=_both_sides(pad_width, x.shape), value=constant_values)


def _both_sides(width: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """How many elements to put before and after those of each axis."""
    rows = list(width) if hasattr(width, "__len__") else [width]
    if not any([hasattr(row, "__len__") for row in rows]):  # for all axes
        rows = [rows]
    rows = [integers(row) for row in rows]
    pairs = [row * 2 if len(row) == 1 else row for row in rows]
    pairs = pairs * len(shape) if len(pairs) == 1 else pairs
    if len(pairs) != len(shape) or any([len(pair) != 2 or min(pair) < 0 for pair in pairs]):
        raise ValueError(f"pad: a pad_width of {width} does not fit a shape {shape}")
    return pairs
