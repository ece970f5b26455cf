"""Reading parts of a tensor, the adding that is its gradient, and replacing parts."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

from minigrad.arrays import (
    TensorLike,
    add_at,
    check_index,
    check_positions,
    common_namespace,
    device_of,
    is_array,
    namespace,
)
from minigrad.ops.axes import at, place
from minigrad.ops.comparisons import maximum, where
from minigrad.ops.shapes import broadcast_to, ravel
from minigrad.primitive import operation, primitive
from minigrad.slots import debugging, in_step
from minigrad.tensor import Tensor, as_operand, with_axes


@primitive
def _getitem(x: TensorLike, /, index: Any) -> Tensor:
    return x[index]


def _getitem_rule(g: Any, index: Any, operand_shape: tuple[int, ...]) -> Any:
    return _scatter_add(g, index=index, into=operand_shape)


_getitem.rules(x=_getitem_rule)


@primitive
def _scatter_add(x: TensorLike, /, index: Any, into: Sequence[int]) -> Tensor:
    """Zeros of shape ``into``, with x added at ``index``."""
    target = namespace(x).zeros(into, x.dtype)
    if _names_each_position_once(index):
        target[index] = x
    else:
        add_at(target, index, x)
    return target


_scatter_add.rules(x=lambda g, index: _getitem(g, index=index))


def _names_each_position_once(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None
        or isinstance(part, int | slice | EllipsisType)
        or (is_array(part) and part.dtype.kind == "b")
        for part in parts
    )


@operation
def getitem(x: TensorLike, index: Any) -> Tensor:
    """``x[index]``, as NumPy reads it: slices, integers, Ellipsis, None, arrays, masks.

    Positions that an array of integers names several times get the sum of their gradients. How
    much a mask of booleans reads is known on the host alone: on a GPU it is waited for, and
    ``mg.where`` is not. There integers out of range wrap around, outside of ``mg.debug()``.

    Raises ``IndexError`` for an index that does not fit, or is not of integers or booleans.

    >>> import minigrad as mg
    >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x[:, 1]
    tensor([2., 4.])
    >>> x[[0, 0, 1]].shape
    (3, 2)
    """
    return _getitem(x, index=_plain_index(index, x))


def _plain_index(index: Any, x: Any) -> Any:
    """An index without tensors and lists; those become arrays where x is."""
    plain = (
        tuple([_plain(part, x) for part in index]) if isinstance(index, tuple) else _plain(index, x)
    )
    return _checked_index(plain, x)


def _checked_index(index: Any, x: Any) -> Any:
    """The index; where everything is checked, it names positions that there are."""
    if debugging.get():
        check_index(index, x.shape)
    return index


def _plain(part: Any, x: Any) -> Any:
    """One part of such an index."""
    array = as_operand(x)
    if isinstance(part, list):
        return namespace(array).asarray(part, dtype=None if part else int)
    if isinstance(part, Tensor):
        if part.dtype.kind not in "iub":
            raise IndexError(f"a tensor of {part.dtype} is no index: cast it with .astype('int64')")
        plain = part.array
    elif is_array(part):
        if not part.ndim and part.dtype.kind in "iu" and device_of(part) == "cpu":
            return int(part)  # such as a scalar of NumPy, which is on every device
        plain = part.copy()  # the caller may go on writing to it
    else:
        return part
    if device_of(plain) != device_of(array):
        raise TypeError(
            f"an index on {device_of(plain)} cannot read a tensor on {device_of(array)}: move it "
            "with .to(...) first"
        )
    return plain


def checked_positions(x: Tensor, length: int, what: str) -> Tensor:
    """Integers that lie between 0 and ``length``, also at every other step of a scan."""
    check_positions(x.array, length, what)
    return _checked_positions(x, length=length, what=what) if in_step() else x


@primitive
def _checked_positions(x: TensorLike, /, length: int, what: str) -> Tensor:
    check_positions(x, length, what)
    return x


@operation
def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """The elements (without an axis) or slices along an axis at the positions ``indices``.

    >>> import minigrad as mg
    >>> mg.take(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0, 1], axis=1)
    tensor([[2., 1., 2.],
            [4., 3., 4.]])
    """
    x = with_axes(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = place("take", axis, x.shape)
    positions = _integers("take", indices, x)
    return _getitem(x, index=_checked_index(at(axis, positions) if axis else positions, x))


def _integers(name: str, indices: Any, x: Any) -> Any:
    """An array of integers where x is; of a tensor its own, by which a scan knows it."""
    plain = _plain(list(indices) if isinstance(indices, tuple) else indices, x)
    array = namespace(as_operand(x)).asarray(plain)
    if array.dtype.kind not in "iu":
        raise IndexError(f"{name}: indices are integers, not {array.dtype}")
    return array


@operation
def take_along_axis(x: TensorLike, indices: TensorLike, axis: int | None = -1) -> Tensor:
    """In each row of x along an axis, the elements at the positions in that row of ``indices``.

    Without an axis both are read as one row.

    >>> import minigrad as mg
    >>> mg.take_along_axis(mg.tensor([[1.0, 2.0], [3.0, 4.0]]), [[1], [0]], axis=1)
    tensor([[2.],
            [3.]])
    """
    x = with_axes(x)
    positions = Tensor(_integers("take_along_axis", indices, x))
    if axis is None:
        x, positions, axis = ravel(x), ravel(positions), 0
    axis = place("take_along_axis", axis, x.shape)
    if positions.ndim != x.ndim:
        raise ValueError(
            f"take_along_axis: indices of shape {positions.shape} have not as many axes as a "
            f"shape {x.shape}"
        )
    library = namespace(positions.array)
    grid = [
        library.arange(length).reshape([-1 if i == own else 1 for i in range(x.ndim)])
        for own, length in enumerate(x.shape)
    ]
    grid[axis] = positions.array
    return _getitem(x, index=_checked_index(tuple(grid), x))


@primitive
def _set_at(x: TensorLike, value: TensorLike, /, index: Any) -> Tensor:
    if common_namespace(x, value).result_type(x, value).kind != x.dtype.kind:
        raise TypeError(f"{x.dtype} does not hold the value; cast x with .astype(...) first")
    out = namespace(x).array(x)  # a copy, which is an array also of an array scalar
    out[index] = value
    return out


def _set_at_value_rule(g: Any, index: Any, operand_shape: tuple[int, ...]) -> Any:
    """The gradient of the elements that were set, summed where the value was broadcast."""
    part = _getitem(g, index=index)
    extra = part.ndim - len(operand_shape)
    repeated = tuple(
        [i for i, n in enumerate(part.shape) if i < extra or operand_shape[i - extra] != n]
    )
    return part.sum(axis=repeated, keepdims=True).reshape(operand_shape)


_set_at.rules(
    x=lambda g, index: _set_at(g, 0.0, index=index),
    value=_set_at_value_rule,
)


@operation
def set_at(x: TensorLike, index: Any, value: TensorLike) -> Tensor:
    """x with ``value`` at ``index``: what ``x[index] = value`` makes of an array.

    ``index`` is anything that reads a part of x (see :func:`getitem`); ``value`` broadcasts to
    that part. At a position that an array of integers names several times, the last value stays.

    Raises ``TypeError`` for a value of a kind that x cannot hold, floats among integers.

    >>> import minigrad as mg
    >>> mg.set_at(mg.tensor([1.0, 2.0, 3.0]), slice(1, None), 0.0)
    tensor([1., 0., 0.])
    """
    x = with_axes(x)
    index = _plain_index(index, x)
    if isinstance(value, int | float) or _names_each_position_once(index):
        return _set_at(x, value, index=index)
    try:
        last = _last_to_name(x, index=index)
    except IndexError as error:
        raise IndexError(f"set_at: {error.__cause__ or error}") from error
    values = ravel(broadcast_to(with_axes(value), _getitem(x, index=index).shape))
    if not values.size:
        return _set_at(x, value, index=index)
    picked = getitem(values, maximum(last, 0))
    return _set_at(x, where(last < 0, x, picked), index=...)


@primitive
def _last_to_name(x: TensorLike, /, index: Any) -> Tensor:
    """For each element of x the number of the last position in ``index`` that is its own, or -1."""
    xp = namespace(x)
    numbers = xp.zeros(x.size, "uint64")  # from 1 on
    named = xp.arange(x.size).reshape(x.shape)[index].ravel()
    xp.maximum.at(numbers, named, xp.arange(1, named.size + 1, dtype="uint64"))
    return numbers.astype(int).reshape(x.shape) - 1
