"""Random programs: small graphs of operations that print as the Python they run.

A program is drawn line by line. An operation of the table below is chosen, and operands for
it among the inputs and results so far, or new inputs; the line is run on arrays, and kept if
its values are moderate and its operands far from kinks. In the end the lines that the last
one does not need are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import CodeType
from typing import Any, TypeAlias

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minigrad as mg
from minigrad.testing.strategies.shapes import Shape, axes, indices, shapes
from minigrad.testing.strategies.values import Array, arrays

#: The names and strategies of what an operation takes besides its operands.
Settings: TypeAlias = "dict[str, st.SearchStrategy[Any]]"
Shapes: TypeAlias = tuple[Shape, ...]

#: How far operands stay from kinks and poles.
_MARGIN = 5e-3
#: How large a value may be, how many elements it may have, and on how many axes.
_LARGEST, _LONGEST, _DEEPEST = 50.0, 64, 4


@dataclass(frozen=True, repr=False, eq=False)
class Program:
    """A function of Tensors (or arrays) whose ``repr`` is its source.

    Attributes:
        inputs: leaves to call it with:  ``program(*program.inputs)``.
        lines: assignments, of which the last makes the result. The inputs are named
            x, y, z, u, v, w, x1, ..., and ``mg`` is minigrad.

    >>> import minigrad as mg
    >>> from minigrad.testing import strategies
    >>> x = mg.tensor([3.0, 4.0], requires_grad=True)
    >>> program = strategies.Program((x,), ("a = mg.square(x)", "b = mg.sum(a)"))
    >>> program
    x = mg.tensor([3.0, 4.0], dtype="float32", requires_grad=True)
    a = mg.square(x)
    b = mg.sum(a)
    >>> program(x)
    tensor(25.)
    """

    inputs: tuple[mg.Tensor, ...]
    lines: tuple[str, ...]

    def __call__(self, *inputs: Any) -> Any:
        """The value of the last line; raises ``TypeError`` for another number of inputs."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"this program has {len(self.inputs)} inputs, not {len(inputs)}")
        scope: dict[str, Any] = {"mg": mg}
        scope |= {_input_name(i): x for i, x in enumerate(inputs)}
        exec(self._code, scope)
        return scope[self.lines[-1].partition(" = ")[0]]

    def __repr__(self) -> str:
        made = [
            f'{_input_name(i)} = mg.tensor({x.tolist()}, dtype="{x.dtype}", requires_grad=True)'
            for i, x in enumerate(self.inputs)
        ]
        return "\n".join([*made, *self.lines])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis prints a failing example: on lines of its own."""
        for line in repr(self).splitlines():
            printer.break_()
            printer.text(line)

    @cached_property
    def _code(self) -> CodeType:
        return compile("\n".join(self.lines), "<program>", "exec")


def _name(letters: str, i: int) -> str:
    turn, place = divmod(i, len(letters))
    return letters[place] + str(turn or "")


def _input_name(i: int) -> str:
    return _name("xyzuvw", i)


def _result_name(i: int) -> str:
    return _name("abcdefghijklmnopqrst", i)


@dataclass(frozen=True)
class Row:
    """One way to use an operation.

    Attributes:
        operation: its public name.
        form: the source of the call; {0}, {1}, ... are the operands, and {name} a setting.
        settings: draws what the settings can be, given the shape of the first operand.
        axes: how many axes the first operand has at least.
        accepts: whether an array of so many can be the first operand.
        shapes: those of a new first operand; by default any of so many axes.
        others: the shapes of the further operands, given that of the first.
        suits: whether these arrays, each fit by its shape, can be the operands.
        domain: where the values of new operands lie.
    """

    operation: str
    form: str
    settings: Callable[[Shape], Settings] = lambda shape: {}
    axes: int = 0
    accepts: Callable[[Array], bool] = lambda x: True
    shapes: st.SearchStrategy[Shape] | None = None
    others: Callable[[Shape], st.SearchStrategy[Shapes]] = lambda shape: st.just(())
    suits: Callable[..., bool] = lambda *operands: True
    domain: tuple[float, float] = (-2.0, 2.0)

    def takes(self, x: Array) -> bool:
        """Whether x can be the first operand."""
        return x.ndim >= self.axes and self.accepts(x)


# --------------------------------------------------------------------------------------
# Which operands are fit
# --------------------------------------------------------------------------------------


def _within(low: float, high: float = np.inf) -> Callable[[Array], bool]:
    return lambda x: bool(np.all((low <= x) & (x <= high)))


def _away_from(*points: float) -> Callable[[Array], bool]:
    return lambda x: all([bool(np.all(np.abs(x - point) >= _MARGIN)) for point in points])


def _away_from_every(step: float, offset: float = 0.0) -> Callable[[Array], bool]:
    """Away from  offset + k step  for every whole k."""
    return lambda x: _away_from(0.0)(np.remainder(x - offset + step / 2, step) - step / 2)


def _without_ties(x: Array) -> bool:
    return bool(np.all(np.diff(np.sort(x, axis=None)) >= _MARGIN))


def _apart(a: Array, b: Array) -> bool:
    return bool(np.all(np.abs(a - b) >= _MARGIN))


def _is_well_conditioned(x: Array) -> bool:
    square = x.ndim >= 2 and x.shape[-1] == x.shape[-2]
    return square and bool(np.all(np.linalg.cond(x) <= 20.0))


# --------------------------------------------------------------------------------------
# What settings there are
# --------------------------------------------------------------------------------------


def _axis(shape: Shape) -> Settings:
    return {"axis": axes(shape, none=False, several=False)}


def _axis_or_none(shape: Shape) -> Settings:
    return {"axis": axes(shape, several=False)}


def _new_axis(shape: Shape) -> Settings:
    return _axis((*shape, 1))


def _reduced(shape: Shape) -> Settings:
    return {"axis": axes(shape), "keepdims": st.booleans()}


def _diagonal(shape: Shape) -> Settings:
    return {"k": st.integers(-1, 1)}


def _two_axes(shape: Shape) -> Settings:
    return {"first": _axis(shape)["axis"], "second": _axis(shape)["axis"]}


def _squeezed(shape: Shape) -> Settings:
    short = [axis for axis, length in enumerate(shape) if length == 1]
    chosen = st.lists(st.sampled_from(short), unique=True).map(tuple) if short else st.just(())
    return {"axis": st.none() | chosen}


def _reshaped(shape: Shape) -> Settings:
    return {"shape": st.sampled_from([(-1,), (1, -1), shape[::-1], (*shape, 1), (shape[0], -1)])}


def _reordered(shape: Shape) -> Settings:
    return {"order": st.permutations(range(len(shape))).map(tuple)}


def _widened(shape: Shape) -> Settings:
    return {"shape": st.integers(1, 2).map(lambda length: (length, *shape))}


def _split(shape: Shape) -> Settings:
    return {"part": st.integers(0, 1), **_axis(shape)}


def _rolled(shape: Shape) -> Settings:
    return {"shift": st.integers(-2, 2), **_axis_or_none(shape)}


def _repeated(shape: Shape) -> Settings:
    return {"repeats": st.integers(1, 2), **_axis_or_none(shape)}


def _tiled(shape: Shape) -> Settings:
    return {"reps": st.lists(st.integers(1, 2), min_size=1, max_size=3).map(tuple)}


def _padded(shape: Shape) -> Settings:
    pair = st.tuples(st.integers(0, 1), st.integers(0, 1))
    return {"width": st.integers(0, 1) | st.tuples(*[pair] * len(shape))}


def _taken(shape: Shape) -> Settings:
    position = st.integers(-min(shape), min(shape) - 1)
    return {"positions": st.lists(position, min_size=1, max_size=3), **_axis_or_none(shape)}


def _transposed_terms(shape: Shape) -> Settings:
    """From "ijk" to some of these letters in any order."""
    letters = "ijkl"[: len(shape)]
    kept = st.lists(st.sampled_from(letters), unique=True) if letters else st.just([])
    return {"subscripts": kept.map(lambda result: f"{letters}->{''.join(result)}")}


def _contracted_terms(shape: Shape) -> Settings:
    """The last axis against the first of a matrix."""
    letters = "ijkl"[: len(shape)]
    result = st.permutations([*letters[:-1], "z"]).map("".join)
    return {"subscripts": result.map(lambda kept: f"{letters},{letters[-1]}z->{kept}")}


def _index(shape: Shape) -> Settings:
    """What stands between brackets; arrays are lists there, which need elements."""

    def source(part: Any) -> str:
        if isinstance(part, slice):
            bounds = [part.start, part.stop] + [part.step] * (part.step is not None)
            return ":".join(["" if bound is None else str(bound) for bound in bounds])
        return "..." if part is ... else str(_listed(part))

    return {"index": _with_elements(shape).map(lambda index: ", ".join(map(source, index)))}


def _index_tuple(shape: Shape) -> Settings:
    """The same as a tuple."""
    return {"index": _with_elements(shape).map(lambda index: tuple(map(_listed, index)))}


def _with_elements(shape: Shape) -> st.SearchStrategy[tuple[Any, ...]]:
    return indices(shape).filter(
        lambda index: len(index) > 0 and all([getattr(part, "size", 1) > 0 for part in index])
    )


def _listed(part: Any) -> Any:
    return part.tolist() if isinstance(part, np.ndarray) else part


# --------------------------------------------------------------------------------------
# Which shapes the further operands have
# --------------------------------------------------------------------------------------


def _broadcast(shape: Shape) -> st.SearchStrategy[Shapes]:
    return st.tuples(
        st.just(shape) | hnp.broadcastable_shapes(shape, min_side=1, max_side=3, max_dims=3)
    )


def _narrower(shape: Shape) -> st.SearchStrategy[Shapes]:
    """A shape that broadcasts to that of the first operand."""
    start = st.integers(0, len(shape))
    without = start.map(lambda i: shape[i:])
    flat = start.map(lambda i: (1,) * i + shape[i:])
    return st.tuples(st.just(shape) | without | flat)


def _alike(shape: Shape) -> st.SearchStrategy[Shapes]:
    return st.just((shape,))


def _multiplied(shape: Shape) -> st.SearchStrategy[Shapes]:
    n, p = shape[-1], st.integers(1, 3)
    choices = [st.tuples(st.just(n), p), st.just((n,))]
    if len(shape) < 3:
        choices.append(st.tuples(st.just(2), st.just(n), p))
    return st.tuples(st.one_of(choices))


def _with_first_axis(shape: Shape) -> st.SearchStrategy[Shapes]:
    n = st.just(shape[-1])
    return st.tuples(st.tuples(n, st.integers(1, 3)) | st.tuples(n))


def _matrix(shape: Shape) -> st.SearchStrategy[Shapes]:
    return st.tuples(st.tuples(st.just(shape[-1]), st.integers(1, 3)))


def _with_last_axis(shape: Shape) -> st.SearchStrategy[Shapes]:
    n = st.just(shape[-1])
    return st.tuples(st.tuples(n) | st.tuples(st.integers(1, 3), n))


def _weight_and_bias(shape: Shape) -> st.SearchStrategy[Shapes]:
    return st.integers(1, 3).map(lambda outputs: ((outputs, shape[-1]), (outputs,)))


#: The shapes of square matrices and of stacks of them.
_SQUARE = st.builds(
    lambda stack, n: (*stack, n, n),
    shapes(max_dims=1, min_side=1, max_side=2),
    st.integers(1, 3),
)


# --------------------------------------------------------------------------------------
# The table
# --------------------------------------------------------------------------------------

# Every form has a gradient with respect to all of its operands. What has none, such as the
# result of a comparison, stands beside something that has one.


def _unary(name: str, accepts: Callable[[Array], bool] = lambda x: True, **more: Any) -> Row:
    return Row(name, f"mg.{name}({{0}})", accepts=accepts, **more)


def _step(name: str, accepts: Callable[[Array], bool]) -> Row:
    """A constant function between its steps."""
    return Row(name, f"mg.multiply({{0}}, mg.{name}({{0}}))", accepts=accepts)


def _binary(name: str, **more: Any) -> Row:
    return Row(name, f"mg.{name}({{0}}, {{1}})", others=_broadcast, **more)


def _comparison(name: str) -> Row:
    form = f"mg.where(mg.{name}({{0}}, {{1}}), {{0}}, {{1}})"
    return Row(name, form, others=_broadcast, suits=_apart)


def _reduction(name: str, **more: Any) -> Row:
    form = f"mg.{name}({{0}}, axis={{axis}}, keepdims={{keepdims}})"
    return Row(name, form, _reduced, **more)


def _quantifier(name: str) -> Row:
    condition = f"mg.{name}(mg.greater({{0}}, 0.0), axis={{axis}}, keepdims=True)"
    form = f"mg.where({condition}, {{0}}, {{1}})"
    return Row(
        name,
        form,
        lambda shape: {"axis": axes(shape)},
        accepts=_away_from(0.0),
        others=_narrower,
    )


def _product(name: str, others: Callable[[Shape], st.SearchStrategy[Shapes]]) -> Row:
    return Row(name, f"mg.{name}({{0}}, {{1}})", axes=1, others=others)


def _of_matrices(name: str, form: str, **more: Any) -> Row:
    return Row(name, form, axes=2, accepts=_is_well_conditioned, shapes=_SQUARE, **more)


OPERATIONS: list[Row] = [
    # Every element.
    *map(_unary, ("tanh", "arcsinh", "arctan", "cos", "cosh", "exp", "exp2", "expm1", "gelu")),
    *map(_unary, ("negative", "sigmoid", "silu", "sin", "sinh", "softplus", "square")),
    _unary("abs", _away_from(0.0)),
    _unary("arccos", _within(-0.9, 0.9), domain=(-0.9, 0.9)),
    _unary("arccosh", _within(1.2), domain=(1.2, 3.0)),
    _unary("arcsin", _within(-0.9, 0.9), domain=(-0.9, 0.9)),
    _unary("arctanh", _within(-0.9, 0.9), domain=(-0.9, 0.9)),
    _unary("hard_sigmoid", _away_from(-3.0, 3.0)),
    _unary("hard_tanh", _away_from(-1.0, 1.0)),
    _unary("log", _within(0.2), domain=(0.2, 2.0)),
    _unary("log10", _within(0.2), domain=(0.2, 2.0)),
    _unary("log1p", _within(-0.8), domain=(-0.8, 2.0)),
    _unary("log2", _within(0.2), domain=(0.2, 2.0)),
    _unary("reciprocal", _within(0.2), domain=(0.2, 2.0)),
    _unary("relu", _away_from(0.0)),
    _unary("sqrt", _within(0.2), domain=(0.2, 2.0)),
    _unary("tan", _within(-1.2, 1.2), domain=(-1.2, 1.2)),
    _step("ceil", _away_from_every(1.0)),
    _step("floor", _away_from_every(1.0)),
    _step("round", _away_from_every(1.0, 0.5)),
    _step("sign", _away_from(0.0)),
    Row("elu", "mg.elu({0}, 0.5)", accepts=_away_from(0.0)),
    Row("leaky_relu", "mg.leaky_relu({0}, 0.2)", accepts=_away_from(0.0)),
    Row("power", "mg.power({0}, 3)"),
    Row("clip", "mg.clip({0}, -0.75, 0.75)", accepts=_away_from(-0.75, 0.75)),
    Row("astype", 'mg.astype({0}, "float64")'),
    Row("isfinite", "mg.where(mg.isfinite({0}), {0}, 0.0)"),
    Row("isnan", "mg.where(mg.isnan({0}), 0.0, {0})"),
    # The elements of several that broadcast.
    *map(_binary, ("add", "logaddexp", "multiply", "subtract")),
    _binary("arctan2", accepts=_within(0.2), domain=(0.2, 2.0)),
    _binary("divide", suits=lambda a, b: bool(np.all(np.abs(b) >= 0.2)), domain=(0.2, 2.0)),
    _binary("maximum", suits=_apart),
    _binary("minimum", suits=_apart),
    _binary("power", accepts=_within(0.2), domain=(0.2, 2.0)),
    *map(_comparison, ("equal", "greater", "greater_equal", "less", "less_equal", "not_equal")),
    Row(
        "where",
        "mg.where(mg.greater({0}, 0.0), {0}, {1})",
        accepts=_away_from(0.0),
        others=_narrower,
    ),
    # Reductions, and what runs along an axis.
    *map(_reduction, ("sum", "mean", "prod", "var", "logsumexp")),
    _reduction("max", accepts=_without_ties),
    _reduction("min", accepts=_without_ties),
    Row(
        "std",
        "mg.std({0}, axis={axis}, ddof={ddof})",
        lambda shape: {"axis": axes(shape), "ddof": st.integers(0, 1)},
        1,
        lambda x: _without_ties(x) and min(x.shape) > 1,
        shapes(min_dims=1, min_side=2, max_side=3),
        domain=(-20.0, 20.0),
    ),
    Row(
        "standardize",
        "mg.standardize({0}, axis={axis})",
        lambda shape: {"axis": axes(shape)},
        1,
        lambda x: _without_ties(x) and min(x.shape) > 1,
        shapes(min_dims=1, min_side=2, max_side=3),
    ),
    _quantifier("all"),
    _quantifier("any"),
    Row("cumsum", "mg.cumsum({0}, axis={axis})", _axis_or_none),
    Row("cumprod", "mg.cumprod({0}, axis={axis})", _axis_or_none),
    Row("softmax", "mg.softmax({0}, axis={axis})", _axis, 1),
    Row("log_softmax", "mg.log_softmax({0}, axis={axis})", _axis, 1),
    Row("sort", "mg.sort({0}, axis={axis})", _axis_or_none, accepts=_without_ties),
    *[
        Row(
            name,
            f"mg.take_along_axis({{0}}, mg.{name}({{0}}, axis={{axis}}, keepdims=True), {{axis}})",
            _axis,
            1,
            _without_ties,
        )
        for name in ("argmax", "argmin")
    ],
    *[
        Row(
            name,
            "mg.add({0}, mg.take_along_axis({1}, mg.argsort({0}, axis={axis}), axis={axis}))",
            _axis,
            1,
            _without_ties,
            others=_alike,
        )
        for name in ("argsort", "take_along_axis")
    ],
    # Products.
    _product("matmul", _multiplied),
    _product("dot", _multiplied),
    _product("inner", _with_last_axis),
    _product("outer", _alike),
    Row("tensordot", "mg.tensordot({0}, {1}, axes=1)", axes=1, others=_with_first_axis),
    Row("tensordot", "mg.tensordot({0}, {1}, axes=([-1], [-1]))", axes=1, others=_with_last_axis),
    Row("linear", "mg.linear({0}, {1}, {2})", axes=1, others=_weight_and_bias),
    Row("einsum", 'mg.einsum("{subscripts}", {0})', _transposed_terms),
    Row("einsum", 'mg.einsum("{subscripts}", {0}, {1})', _contracted_terms, 1, others=_matrix),
    Row("einsum", 'mg.einsum("...i,...i->...", {0}, {1})', axes=1, others=_alike),
    # Linear algebra.
    _of_matrices("linalg.det", "mg.linalg.det({0})"),
    _of_matrices("linalg.inv", "mg.linalg.inv({0})"),
    _of_matrices("linalg.slogdet", "mg.linalg.slogdet({0})[1]"),
    _of_matrices("linalg.cholesky", "mg.linalg.cholesky(mg.matmul({0}, mg.swapaxes({0}, -1, -2)))"),
    _of_matrices("linalg.solve", "mg.linalg.solve({0}, {1})", others=_with_first_axis),
    _reduction("linalg.norm", accepts=_away_from(0.0)),
    # Matrices.
    Row(
        "diag",
        "mg.diag({0}, {k})",
        _diagonal,
        1,
        lambda x: x.ndim <= 2,
        shapes(min_dims=1, max_dims=2, min_side=1),
    ),
    Row("diagonal", "mg.diagonal({0}, {k})", _diagonal, 2),
    Row("trace", "mg.trace({0}, {k})", _diagonal, 2),
    Row("tril", "mg.tril({0}, {k})", _diagonal, 1),
    Row("triu", "mg.triu({0}, {k})", _diagonal, 1),
    # Indexing.
    Row("getitem", "{0}[{index}]", _index),
    Row(
        "set_at", "mg.set_at({0}, {index}, {1})", _index_tuple, others=lambda shape: st.just(((),))
    ),
    Row("take", "mg.take({0}, {positions}, axis={axis})", _taken, 1),
    # Shapes.
    Row("broadcast_to", "mg.broadcast_to({0}, {shape})", _widened),
    Row("expand_dims", "mg.expand_dims({0}, {axis})", _new_axis),
    Row("moveaxis", "mg.moveaxis({0}, {first}, {second})", _two_axes, 1),
    Row("ravel", "mg.ravel({0})"),
    Row("reshape", "mg.reshape({0}, {shape})", _reshaped, 1),
    Row("squeeze", "mg.squeeze({0}, axis={axis})", _squeezed),
    Row("swapaxes", "mg.swapaxes({0}, {first}, {second})", _two_axes, 1),
    Row("transpose", "mg.transpose({0}, {order})", _reordered),
    Row("flip", "mg.flip({0}, axis={axis})", lambda shape: {"axis": axes(shape)}),
    Row("pad", "mg.pad({0}, {width})", _padded, 1),
    Row("repeat", "mg.repeat({0}, {repeats}, axis={axis})", _repeated),
    Row("roll", "mg.roll({0}, {shift}, axis={axis})", _rolled),
    Row("tile", "mg.tile({0}, {reps})", _tiled),
    # Joining and splitting.
    Row("concatenate", "mg.concatenate([{0}, {1}], axis={axis})", _axis_or_none, 1, others=_alike),
    Row("stack", "mg.stack([{0}, {1}], axis={axis})", _new_axis, others=_alike),
    Row("split", "mg.split({0}, [1], axis={axis})[{part}]", _split, 1),
    Row("unstack", "mg.unstack({0}, axis={axis})[-1]", _axis, 1),
]


# --------------------------------------------------------------------------------------
# Drawing
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Node:
    """An input, or the result of a form applied to earlier nodes."""

    value: Array
    form: str = ""
    operands: tuple[int, ...] = ()


@st.composite
def programs(
    draw: st.DrawFn,
    *,
    max_lines: int = 5,
    operations: Sequence[str] | None = None,
    dtype: Any = "float64",
) -> Program:
    """A :class:`Program` of up to ``max_lines`` operations, with its inputs.

    No operand is near a kink or a pole of its operation, and no value is large: gradients
    can be compared with finite differences. The program shrinks to few lines, small shapes
    and simple numbers.

    Args:
        max_lines: how many lines it has at most.
        operations: the names of those to be drawn, ``"tanh"`` or ``"linalg.inv"``; by default
            all that can be.
        dtype: the float dtype of the inputs.

    Raises ``ValueError`` for the name of an operation that programs do not use.

    >>> from hypothesis import find
    >>> from minigrad.testing import strategies
    >>> find(strategies.programs(operations=["tanh", "sum"]), lambda program: True)
    x = mg.tensor(1.0, dtype="float64", requires_grad=True)
    a = mg.tanh(x)
    """
    rows = _rows(operations)
    nodes: list[_Node] = []

    def new(shape: Shape, domain: tuple[float, float]) -> int:
        low, high = domain
        values = arrays(
            shape, dtype, low=low, high=high, away_from=[0.0], distinct=True, layout="contiguous"
        )
        nodes.append(_Node(draw(values)))
        return len(nodes) - 1

    def first_operand(row: Row) -> int:
        fit = [i for i, node in enumerate(nodes) if row.takes(node.value)]
        if fit:  # half of the time the latest, so that a program is more than its last line
            return draw(st.sampled_from(fit[-1:] * len(fit) + fit[::-1]))
        drawn = row.shapes
        if drawn is None:
            drawn = shapes(min_dims=row.axes, min_side=1, max_side=3)
        return new(draw(drawn), row.domain)

    def further_operand(shape: Shape, domain: tuple[float, float]) -> int:
        fit = [i for i, node in enumerate(nodes) if node.value.shape == shape]
        chosen = draw(st.sampled_from([*fit[::-1], None]))
        return new(shape, domain) if chosen is None else chosen

    for row in draw(st.lists(st.sampled_from(rows), min_size=1, max_size=max_lines)):
        first = first_operand(row)
        shape = nodes[first].value.shape
        others = [further_operand(other, row.domain) for other in draw(row.others(shape))]
        chosen = (first, *others)
        operands = [nodes[i].value for i in chosen]
        settings = {name: draw(choices) for name, choices in row.settings(shape).items()}
        if row.takes(operands[0]) and row.suits(*operands):
            form = row.form.format(*[f"{{{i}}}" for i in range(len(chosen))], **settings)
            value = _evaluated(form, operands)
            if _is_moderate(value):
                nodes.append(_Node(value, form, chosen))
    if not nodes[-1].form:
        reject()
    return _assembled(nodes)


def _rows(operations: Sequence[str] | None) -> list[Row]:
    if operations is None:
        return OPERATIONS
    known = {row.operation for row in OPERATIONS}
    if not operations or not {*operations} <= known:
        raise ValueError(
            f"programs do not use {', '.join(sorted({*operations} - known)) or 'no operation'}; "
            f"they use {', '.join(sorted(known))}"
        )
    return [row for row in OPERATIONS if row.operation in operations]


def _evaluated(form: str, operands: Sequence[Array]) -> Array:
    """What a form computes from arrays."""
    names = [_result_name(i) for i in range(len(operands))]
    scope = {"mg": mg, **dict(zip(names, operands, strict=True))}
    with np.errstate(all="ignore"):
        return np.asarray(eval(form.format(*names), scope))


def _is_moderate(value: Array) -> bool:
    fits = 1 <= value.size <= _LONGEST and value.ndim <= _DEEPEST
    return fits and bool(np.all(np.abs(value) <= _LARGEST))


def _assembled(nodes: Sequence[_Node]) -> Program:
    """The program of the last node and those that it needs."""
    needed = {len(nodes) - 1}
    for i in reversed(range(len(nodes))):
        if i in needed:
            needed.update(nodes[i].operands)
    names: dict[int, str] = {}
    inputs: list[mg.Tensor] = []
    lines: list[str] = []
    for i in sorted(needed):
        node = nodes[i]
        if node.form:
            names[i] = _result_name(len(lines))
            lines.append(f"{names[i]} = {node.form.format(*[names[j] for j in node.operands])}")
        else:
            names[i] = _input_name(len(inputs))
            inputs.append(mg.tensor(node.value, requires_grad=True))
    return Program(tuple(inputs), tuple(lines))
