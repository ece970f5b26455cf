"""Reading parts of a tensor, and the adding that is its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

from minigrad.arrays import TensorLike, add_at, is_array, namespace
from minigrad.primitive import operation, primitive
from minigrad.tensor import Tensor


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

    Positions that an array of integers names several times get the sum of their gradients.

    Raises ``IndexError`` for an index that does not fit, or is not of integers or booleans.

    >>> import minigrad as mg
    >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x[:, 1]
    tensor([2., 4.])
    >>> x[[0, 0, 1]].shape
    (3, 2)
    """
    if isinstance(index, tuple):
        index = tuple([_plain(part, x) for part in index])
    else:
        index = _plain(index, x)
    return _getitem(x, index=index)


def _plain(part: Any, x: Any) -> Any:
    """A part of an index without tensors and lists; those become arrays where x is."""
    if isinstance(part, list):
        array = x.array if isinstance(x, Tensor) else x
        return namespace(array).asarray(part, dtype=None if part else int)
    if not isinstance(part, Tensor):
        return part
    if part.dtype.kind not in "iub":
        raise IndexError(f"a tensor of {part.dtype} is no index: cast it with .astype('int64')")
    return part.array


@operation
@primitive
def argmax(x: TensorLike, /, axis: int | None = None) -> Tensor:
    """The position of the (first) largest element along an axis, as a constant.

    >>> import minigrad as mg
    >>> mg.argmax(mg.tensor([1.0, 3.0, 2.0]))
    tensor(1)
    """
    return x.argmax(axis)
