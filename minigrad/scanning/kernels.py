"""How an operation is run without a tape: by which functions, into which array, on how many steps.

Of the operations that recurrent networks are made of it is known which ones only look at their
operand in another way (:func:`viewed`), and which functions compute the others into an array that
is there already (:func:`calls`). All others are computed by their own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from types import EllipsisType
from typing import Any, Final, NamedTuple

from minigrad import ops
from minigrad.arrays import Array, TensorLike, as_array
from minigrad.containers import CONTAINERS, map_leaves
from minigrad.ops.axes import at, places, span
from minigrad.ops.indexing import _getitem
from minigrad.ops.joining import _concatenate, _split, _stack, _unstack
from minigrad.primitive import Primitive, primitive
from minigrad.scanning.blocks import Blocks, matmul_in_blocks, results_in_blocks, rows_in_blocks
from minigrad.scanning.program import Instruction, Kind, Ref, ScanError
from minigrad.tensor import Tensor

MATMUL, LINEAR, ADD = ops.matmul.primitive, ops.linear.primitive, ops.add.primitive
SUBTRACT, MULTIPLY, TANH = ops.subtract.primitive, ops.multiply.primitive, ops.tanh.primitive
DIVIDE, SQRT, POWER = ops.divide.primitive, ops.sqrt.primitive, ops.power.primitive
SUM, VAR, STANDARDIZE = ops.sum.primitive, ops.var.primitive, ops.standardize.primitive
TRANSPOSE, RESHAPE = ops.transpose.primitive, ops.reshape.primitive
SIGMOID, RELU, WHERE, ASTYPE = (f.primitive for f in (ops.sigmoid, ops.relu, ops.where, ops.astype))
NOT_EQUAL = ops.not_equal.primitive
SQUARE, GETITEM, BROADCAST = ops.square.primitive, _getitem.primitive, ops.broadcast_to.primitive
CONCATENATE, STACK, SPLIT, UNSTACK = (f.primitive for f in (_concatenate, _stack, _split, _unstack))


@primitive
def squash(z: TensorLike, scale: TensorLike, shift: TensorLike, /) -> Tensor:
    """scale tanh(scale z) + shift:  sigmoid(z) if both are 1/2, tanh(z) if they are 1 and 0."""
    return scale * ops.tanh(scale * z) + shift


# scale^2 (1 - tanh^2),  of what is there already
squash.rules(z=lambda g, scale, shift, out: g * (ops.square(scale) - ops.square(out - shift)))
SQUASH: Final = squash.primitive


#: What stands where a value has to be in two places.
COPY: Final = Primitive(lambda x, /: x.copy())
COPY.name = "copy"

#: Operations that a ufunc computes, element by element, by its name.
UFUNCS: Final = {
    getattr(ops, name).primitive: name
    for name in (
        *("add", "subtract", "multiply", "divide", "negative", "maximum", "minimum"),
        *("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "logaddexp"),
        *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
    )
}
#: Operations whose results add up as their operands do.
ADDING: Final = (ADD, SUBTRACT, ops.negative.primitive)
ELEMENTWISE: Final = {*UFUNCS, SIGMOID, RELU, SQUARE, WHERE, ASTYPE}
#: Operations whose time is that of reading and writing.
CHEAP: Final = {*ELEMENTWISE, SUM, CONCATENATE}

#: Operations on one operand that go along axes, which are shifted if time stands before them.
ALONG_AXES: Final = {
    getattr(ops, name).primitive
    for name in (
        *("sum", "var", "std", "max", "min", "prod", "logsumexp"),
        *("softmax", "log_softmax", "standardize"),
    )
}

#: What becomes :func:`squash`, and the scale that makes it so.
SQUASHING: Final = {SIGMOID: 0.5, TANH: 1.0}

#: Stands for the array that is computed into, among a function's arguments.
OUT: Final = Ref(-1)


class Seen(NamedTuple):
    """Stands for an operand, or OUT, that is looked at in another way."""

    operand: Ref
    view: Callable[[Array], Array]


# --------------------------------------------------------------------------------------
# Operations that compute nothing
# --------------------------------------------------------------------------------------


def viewed(instruction: Instruction, kinds: Sequence[Kind]) -> Callable[[Array, int], Any] | None:
    """A function that makes the results of the operand without computing; ``None`` if none does.

    It is called with an array and the number of axes, 0 or 1, before those of one step.
    """
    if instruction.view is ...:
        find = _VIEWS.get(instruction.primitive)
        instruction.view = None if find is None else find(instruction, kinds)
    return instruction.view


def _transposed(instruction: Instruction, kinds: Sequence[Kind]) -> Callable[[Array, int], Any]:
    axes = instruction.settings["axes"]
    (result,) = instruction.results
    count = len(kinds[result].shape)
    order = [axis % count for axis in axes] if axes else [*range(count)][::-1]
    return lambda array, lead: (array.transpose([*range(lead), *[lead + a for a in order]]),)


def _reshaped(
    instruction: Instruction, kinds: Sequence[Kind]
) -> Callable[[Array, int], Any] | None:
    """Axes of length 1 that come or go; other shapes may need a copy."""
    shape = kinds[instruction.results[0]].shape
    old = kinds[instruction.operands[0].number].shape
    if [n for n in old if n != 1] != [n for n in shape if n != 1]:
        return None
    drop = tuple([0 if n == 1 else slice(None) for n in old])
    insert = tuple([None if n == 1 else slice(None) for n in shape])

    def view(array: Array, lead: int) -> Any:
        whole = (slice(None),) * lead
        return (array[(*whole, *drop)][(*whole, *insert)],)

    return view


def _parts(instruction: Instruction, kinds: Sequence[Kind]) -> Callable[[Array, int], Any]:
    bounds, axis = instruction.settings["bounds"], instruction.settings["axis"]
    return lambda array, lead: tuple(
        [array[span(lead + axis, start, stop)] for start, stop in pairwise(bounds)]
    )


def _unstacked(instruction: Instruction, kinds: Sequence[Kind]) -> Callable[[Array, int], Any]:
    axis = instruction.settings["axis"]
    count = len(instruction.results)
    return lambda array, lead: tuple([array[at(lead + axis, i)] for i in range(count)])


def _indexed(instruction: Instruction, kinds: Sequence[Kind]) -> Callable[[Array, int], Any] | None:
    index = instruction.settings["index"]
    parts = index if isinstance(index, tuple) else (index,)
    basic = int | slice | EllipsisType | None
    if not all([isinstance(part, basic) and not isinstance(part, bool) for part in parts]):
        return None
    return lambda array, lead: (array[(*[slice(None)] * lead, *parts)],)


_VIEWS: Final = {
    TRANSPOSE: _transposed,
    RESHAPE: _reshaped,
    SPLIT: _parts,
    UNSTACK: _unstacked,
    GETITEM: _indexed,
}


# --------------------------------------------------------------------------------------
# Operations that compute into an array
# --------------------------------------------------------------------------------------


def calls(
    instruction: Instruction, xp: Any, out: Any = None
) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Functions to be called one after the other, and their arguments, Refs and OUT among them.

    ``out`` is an array like those into which they will compute, if these are known.
    """
    primitive, operands = instruction.primitive, instruction.operands
    if primitive in UFUNCS:
        return [(_ufunc(xp, UFUNCS[primitive]), (*operands, OUT))]
    if primitive is MATMUL:
        in_one_piece = out is not None and out.ndim <= 2 and out.flags.c_contiguous
        if in_one_piece and xp.__name__ == "numpy":
            return [(xp.dot, (*operands, OUT))]  # which starts faster
        return [(_ufunc(xp, "matmul"), (*operands, OUT))]
    if primitive is matmul_in_blocks:
        (x, matrix), size = operands, Blocks(**instruction.settings)
        rows = Seen(x, lambda array: rows_in_blocks(array, size))
        return [
            (xp.matmul, (rows, matrix, Seen(OUT, lambda array: results_in_blocks(array, size))))
        ]
    x = operands[0]
    if primitive is SIGMOID:  # tanh(x/2)/2 + 1/2
        return [
            (xp.multiply, (x, 0.5, OUT)),
            (xp.tanh, (OUT, OUT)),
            (xp.multiply, (OUT, 0.5, OUT)),
            (xp.add, (OUT, 0.5, OUT)),
        ]
    if primitive is RELU:
        return [(_ufunc(xp, "maximum"), (x, 0.0, OUT))]
    if primitive is SQUARE:
        return [(xp.multiply, (x, x, OUT))]
    if primitive is WHERE:
        condition, yes, no = operands
        return [(fill, (OUT, no)), (xp.copyto, (OUT, yes, "same_kind", condition))]
    if primitive is ASTYPE or primitive is COPY:
        return [(fill, (OUT, x))]
    if primitive is SUM:
        axis, keepdims = instruction.settings["axis"], instruction.settings["keepdims"]
        return [(xp.add.reduce, (x, axis, None, OUT, keepdims))]
    return [(_forward(instruction), (OUT, *operands, *instruction.settings.values()))]


def _ufunc(xp: Any, name: str) -> Callable[..., Any]:
    """The ufunc, with its result as the last argument."""
    ufunc = getattr(xp, name)
    # NumPy wants the result of the first two to be named, and CuPy that of the third.
    if name in ("maximum", "minimum") or (name == "matmul" and xp.__name__ != "numpy"):
        return lambda a, b, out: ufunc(a, b, out=out)
    return ufunc


def may_overwrite(instruction: Instruction) -> tuple[int, ...]:
    """The places of the operands into whose array the result may be computed."""
    if instruction.primitive is WHERE:
        return (2,)
    if instruction.primitive in ELEMENTWISE and instruction.primitive is not ASTYPE:
        return tuple(range(len(instruction.operands)))
    return ()


def fill(out: Array, values: Any) -> None:
    """out = values"""
    out[...] = values


def as_recorded(name: str, result: Any, shape: tuple[int, ...]) -> Array:
    """What an operation has computed at one step, if its shape is that of the first one."""
    array = as_array(result)
    if array.shape != shape:
        raise ScanError(
            f"{name}: what a scanned step computes has the same shape at every step; here it is "
            f"{array.shape}, and at the first step it was {shape}: use mg.where instead of "
            "reading by a mask, or write the loop in Python"
        )
    return array


def _forward(instruction: Instruction) -> Callable[..., None]:
    """The operation's own forward, and a copy of what it returns."""
    forward, names = instruction.primitive.forward, list(instruction.settings)
    name, count = instruction.primitive.name, len(instruction.operands)

    def compute(out: Any, *values: Any) -> None:
        settings = dict(zip(names, values[count:], strict=True))
        result = forward(*values[:count], **settings)
        pairs = zip(out, result, strict=True) if isinstance(result, tuple) else [(out, result)]
        for place, array in pairs:
            place[...] = as_recorded(name, array, place.shape)

    return compute


def resolved(part: Any, value: Callable[[int], Any]) -> Any:
    """An operand or setting with the values in place of the Refs."""
    if isinstance(part, Ref):
        return value(part.number)
    if type(part) is tuple:  # as an index at every step
        return tuple([resolved(each, value) for each in part])
    if isinstance(part, CONTAINERS):
        return map_leaves(
            lambda name, each: value(each.number) if isinstance(each, Ref) else each, part
        )
    return part


def computed(instruction: Instruction, array: Callable[[int], Array]) -> list[Array]:
    """The results of the operation's own forward at one step."""
    operands = [resolved(x, array) for x in instruction.operands]
    settings = {name: resolved(x, array) for name, x in instruction.settings.items()}
    out = instruction.primitive.forward(*operands, **settings)
    return list(out) if isinstance(out, tuple) else [as_array(out)]


def axes_of(instruction: Instruction, kinds: Sequence[Kind]) -> tuple[int, ...]:
    """The axes along which an operation goes, of one step."""
    shape = kinds[instruction.operands[0].number].shape
    return places(instruction.primitive.name, instruction.settings["axis"], shape)
