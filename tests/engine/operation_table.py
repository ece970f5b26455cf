"""Every operation of minigrad, with what NumPy computes and the inputs to try it on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transfer import on_device

import minigrad as mg

Array: TypeAlias = "np.ndarray[Any, Any]"
Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = tuple[Shape, ...]

#: Inputs lie in the middle of this many cells of their domain, no two in the same cell. So
#: they stay away from ties and from kinks that lie between cells, such as 0 in (-2, 2).
_CELLS = 400


@dataclass(frozen=True)
class Row:
    """One use of an operation.

    Attributes:
        operation: the public name, as it is reached from ``minigrad``.
        call: minigrad's function of Tensors (or arrays).
        reference: the same in NumPy.
        example: shapes of the operands of one ordinary call.
        shapes: draws the operands' shapes.
        empty: shapes of one call without elements; ``None`` where NumPy refuses that.
        variant: tells several rows of one operation apart.
        domain: where the values lie.
        ties: whether values may be equal.
        differentiable: whether the call is recorded; otherwise its result is a constant.
        exact: whether its gradient is the derivative of its value.
        numpys: whether the reference, called on Tensors, reaches minigrad.
        scalars: whether operands without axes can take the place of all.
        float16: whether NumPy computes it in float16.
    """

    operation: str
    call: Callable[..., Any]
    reference: Callable[..., Any]
    example: Shapes
    shapes: st.SearchStrategy[Shapes]
    empty: Shapes | None
    variant: str = ""
    domain: tuple[float, float] = (-2.0, 2.0)
    ties: bool = False
    differentiable: bool = True
    exact: bool = True
    numpys: bool = True
    scalars: bool = False
    float16: bool = True

    def __str__(self) -> str:
        return f"{self.operation}({self.variant})" if self.variant else self.operation

    def values(self, shapes: Shapes, seed: int) -> list[Array]:
        """Read-only float64 operands of these shapes."""
        rng = np.random.default_rng(seed)
        sizes = [int(np.prod(shape)) for shape in shapes]
        if self.ties:
            cells = rng.integers(4, size=sum(sizes)) * (_CELLS // 4)
        else:
            cells = rng.permutation(_CELLS)[: sum(sizes)]
        low, high = self.domain
        flat = low + (cells + 0.5) * (high - low) / _CELLS
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        made = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        for array in made:
            array.flags.writeable = False
        return made

    def inputs(self) -> st.SearchStrategy[list[Array]]:
        """Operands of any shapes. Only the shapes shrink: values come from a seed."""
        return st.builds(self.values, self.shapes, st.integers(0, 2**32 - 1))


# --------------------------------------------------------------------------------------
# Shapes
# --------------------------------------------------------------------------------------


def one(ndim: int | None = None, min_side: int = 0) -> st.SearchStrategy[Shapes]:
    """The shape of one operand, of ``ndim`` axes or of up to 3."""
    low, high = (0, 3) if ndim is None else (ndim, ndim)
    shapes = hnp.array_shapes(min_dims=low, max_dims=high, min_side=min_side, max_side=4)
    return st.tuples(shapes)


def broadcastable(count: int) -> st.SearchStrategy[Shapes]:
    """Shapes that broadcast against each other."""
    drawn = hnp.mutually_broadcastable_shapes(
        num_shapes=count, min_side=0, max_side=4, min_dims=0, max_dims=3
    )
    return drawn.map(lambda shapes: shapes.input_shapes)


def multipliable() -> st.SearchStrategy[Shapes]:
    """Shapes of two operands of a matrix product."""
    drawn = hnp.mutually_broadcastable_shapes(
        signature="(m?,n),(n,p?)->(m?,p?)", min_side=0, max_side=3, min_dims=0, max_dims=2
    )
    return drawn.map(lambda shapes: shapes.input_shapes)


def affine() -> st.SearchStrategy[Shapes]:
    """Shapes of the input, weight and bias of a linear map."""
    length = st.integers(0, 3)

    def shapes(batch: Shape, inputs: int, outputs: int, bias_axes: int) -> Shapes:
        full = (*batch, outputs)
        return (*batch, inputs), (outputs, inputs), full[max(0, len(full) - bias_axes) :]

    batches = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)
    return st.builds(shapes, batches, length, length, st.integers(1, 2))


def squares() -> st.SearchStrategy[Shapes]:
    """The shape of square matrices."""
    stacks = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)
    return st.builds(lambda stack, n: ((*stack, n, n),), stacks, st.integers(0, 3))


def joinable(axis: int) -> st.SearchStrategy[Shapes]:
    """Shapes of three matrices that differ in the length of one axis at most."""

    def shapes(lengths: list[int], other: int) -> Shapes:
        return tuple((n, other) if axis == 0 else (other, n) for n in lengths)

    lengths = st.lists(st.integers(0, 3), min_size=3, max_size=3)
    return st.builds(shapes, lengths, st.integers(0, 3))


def alike(count: int) -> st.SearchStrategy[Shapes]:
    """One shape for every operand."""
    return one().map(lambda shapes: shapes * count)


def always(*shapes: Shape) -> st.SearchStrategy[Shapes]:
    """These shapes, where the call fits no others."""
    return st.just(shapes)


# --------------------------------------------------------------------------------------
# Kinds of rows
# --------------------------------------------------------------------------------------

_POSITIVE = (0.5, 2.0)
_INNER = (-0.7, 0.7)
#: Where a product of many numbers is neither large nor small.
_AROUND_ONE = (0.8, 1.25)


def unary(operation: str, reference: Callable[..., Any], **more: Any) -> Row:
    """An operation on every element of one operand."""
    call = more.pop("call", None) or getattr(mg, operation)
    return Row(operation, call, reference, ((2, 3),), one(), ((2, 0),), scalars=True, **more)


def binary(operation: str, reference: Callable[..., Any], **more: Any) -> Row:
    """An operation on the elements of two operands that broadcast."""
    example = ((2, 1, 4), (3, 1))
    return Row(
        operation,
        getattr(mg, operation),
        reference,
        example,
        broadcastable(2),
        ((2, 0), (1,)),
        scalars=True,
        **more,
    )


def comparison(operation: str, reference: Callable[..., Any]) -> Row:
    """A comparison, whose result is a constant."""
    return binary(operation, reference, ties=True, differentiable=False)


def reductions(
    operation: str, reference: Callable[..., Any], *, over_nothing: bool = False, **more: Any
) -> list[Row]:
    """A reduction over all axes, over one, over two, and with the axes kept."""
    function = more.pop("call", None) or attrgetter(operation)(mg)
    shortest = 0 if over_nothing else 1

    def reduced(shape: Shape, **settings: Any) -> Row:
        return Row(
            operation,
            lambda x: function(x, **settings),
            lambda x: reference(x, **settings),
            (shape,),
            one(len(shape), min_side=shortest) if settings else one(min_side=shortest),
            # An axis that stays can be empty, even if there must be something to reduce.
            ((2, 0),) if over_nothing else (((2, 0, 3),) if settings.get("axis") == 0 else None),
            variant=", ".join(f"{name}={value}" for name, value in settings.items()),
            scalars="axis" not in settings,
            **more,
        )

    return [
        reduced((2, 3)),
        reduced((2, 3, 2), axis=0),
        reduced((2, 3), axis=-1, keepdims=True),
        reduced((2, 3, 2), axis=(0, -1)),
    ]


def corrected(operation: str, **more: Any) -> Row:
    """A variance or its root, of a sample."""
    function, numpy_function = getattr(mg, operation), getattr(np, operation)
    return Row(
        operation,
        lambda x: function(x, axis=0, ddof=1),
        lambda x: numpy_function(x, axis=0, ddof=1),
        ((3, 2),),
        one(2, min_side=2),
        ((2, 0),),
        variant="axis=0, ddof=1",
        **more,
    )


def indexed(variant: str, index: Any, example: Shape, empty: Shape | None = None) -> Row:
    """Reading ``x[index]``."""
    return Row(
        "getitem",
        lambda x: mg.getitem(x, on_device(index)),
        lambda x: x[index],
        (example,),
        always(example),
        None if empty is None else (empty,),
        variant=variant,
    )


def rearranged(
    operation: str,
    *settings: Any,
    example: Shape,
    empty: Shape | None,
    shapes: st.SearchStrategy[Shapes] | None = None,
    numpys: bool = True,
    reference: Callable[..., Any] | None = None,
    variant: str | None = None,
    **more: Any,
) -> Row:
    """An operation that moves or splits what is in one operand."""
    function = getattr(mg, operation)
    numpy_function = reference or getattr(np, operation)
    return Row(
        operation,
        lambda x: function(x, *on_device(settings)),
        lambda x: numpy_function(x, *settings),
        (example,),
        always(example) if shapes is None else shapes,
        None if empty is None else (empty,),
        variant=", ".join(map(repr, settings)).replace("\n", "") if variant is None else variant,
        numpys=numpys,
        **more,
    )


def joined(
    operation: str, axis: int | None, example: Shapes, shapes: st.SearchStrategy[Shapes]
) -> Row:
    """Tensors put together along an axis."""
    function, numpy_function = getattr(mg, operation), getattr(np, operation)
    return Row(
        operation,
        lambda *xs: function(xs, axis=axis),
        lambda *xs: numpy_function(xs, axis=axis),
        example,
        shapes,
        tuple((0, 0) for _ in example),
        variant=f"axis={axis}",
    )


def padded(variant: str, width: Any, example: Shape, empty: Shape, **settings: Any) -> Row:
    """Constants around one operand."""
    return Row(
        "pad",
        lambda x: mg.pad(x, width, **settings),
        lambda x: np.pad(x, width, **settings),
        (example,),
        always(example),
        (empty,),
        variant=variant,
    )


def updated(
    variant: str, index: Any, example: Shapes, empty: Shapes | None = None, **more: Any
) -> Row:
    """A part replaced by a value."""

    def reference(x: Array, value: Array) -> Array:
        out = x.copy()
        out[index] = value
        return out

    return Row(
        "set_at",
        lambda x, value: mg.set_at(x, on_device(index), value),
        reference,
        example,
        always(*example),
        empty,
        variant=variant,
        numpys=False,
        **more,
    )


def product(
    operation: str, *example: Shape, empty: Shapes | None, variant: str = "", **settings: Any
) -> Row:
    """A product of two operands whose shapes are told."""
    function, numpy_function = getattr(mg, operation), getattr(np, operation)
    return Row(
        operation,
        lambda a, b: function(a, b, **settings),
        lambda a, b: numpy_function(a, b, **settings),
        example,
        always(*example),
        empty,
        variant=variant,
    )


def summed(subscripts: str, *example: Shape, empty: Shapes | None) -> Row:
    """A sum of products in Einstein's notation."""
    return Row(
        "einsum",
        lambda *xs: mg.einsum(subscripts, *xs),
        lambda *xs: np.einsum(subscripts, *xs),
        example,
        always(*example),
        empty,
        variant=" ".join([subscripts, *map(str, example)]),
    )


def of_matrices(
    operation: str,
    prepare: Callable[[Any], Any],
    example: Shapes = ((2, 3, 3),),
    empty: Shapes = ((0, 0),),
    shapes: st.SearchStrategy[Shapes] | None = None,
    **more: Any,
) -> Row:
    """A function of a matrix that is well-conditioned after being prepared, and of more."""
    function = attrgetter(operation)(mg)
    numpy_function = attrgetter(operation)(np)
    return Row(
        operation,
        lambda a, *b: function(prepare(a), *b),
        lambda a, *b: numpy_function(prepare(a), *b),
        example,
        squares() if shapes is None else shapes,
        empty,
        domain=(-1.0, 1.0),
        float16=False,
        **more,
    )


def _dominated(x: Any) -> Any:
    """Matrices of numbers below 1, at most 3 of them in a row, with 4 added on the diagonal."""
    return x + _eye(x, 4.0)


def _definite(x: Any) -> Any:
    """Symmetric matrices with eigenvalues of at least 1."""
    return x @ x.swapaxes(-1, -2) + _eye(x)


def _eye(x: Any, scale: float = 1.0) -> Any:
    """The unit matrix, scaled, that suits x and is where x is."""
    eye = (scale * np.eye(x.shape[-1])).astype(x.dtype)
    return eye if isinstance(x, np.ndarray) else on_device(eye)


# --------------------------------------------------------------------------------------
# What NumPy lacks
# --------------------------------------------------------------------------------------


def _logsumexp(x: Array, axis: Any = None, keepdims: bool = False) -> Any:
    return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))


def _softmax(x: Array, axis: int = -1) -> Array:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def _unstack(x: Array, axis: int = 0) -> tuple[Array, ...]:
    return tuple(np.moveaxis(x, axis, 0))


def _softplus(x: Array) -> Array:
    return np.log(1.0 + np.exp(x))


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _double(gradient: Any) -> Any:
    return 2.0 * gradient


# --------------------------------------------------------------------------------------
# The table
# --------------------------------------------------------------------------------------

TABLE: list[Row] = [
    # Every element.
    unary("abs", np.abs),
    unary("arccos", np.arccos, domain=_INNER),
    unary("arccosh", np.arccosh, domain=(1.5, 3.0)),
    unary("arcsin", np.arcsin, domain=_INNER),
    unary("arcsinh", np.arcsinh),
    unary("arctan", np.arctan),
    unary("arctanh", np.arctanh, domain=_INNER),
    unary("ceil", np.ceil, differentiable=False),
    unary("cos", np.cos),
    unary("cosh", np.cosh),
    unary(
        "elu",
        lambda x: np.where(x > 0, x, np.exp(x) - 1.0),
        numpys=False,
    ),
    unary(
        "elu",
        lambda x: np.where(x > 0, x, 0.5 * (np.exp(x) - 1.0)),
        call=lambda x: mg.elu(x, 0.5),
        variant="0.5",
        numpys=False,
    ),
    unary("exp", np.exp),
    unary("exp2", np.exp2),
    unary("expm1", np.expm1),
    unary("floor", np.floor, differentiable=False),
    unary("gelu", _gelu, numpys=False),
    unary(
        "hard_sigmoid",
        lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0),
        domain=(-4.0, 4.0),
        numpys=False,
    ),
    unary("hard_tanh", lambda x: np.clip(x, -1.0, 1.0), numpys=False),
    unary("isfinite", np.isfinite, differentiable=False),
    unary("isnan", np.isnan, differentiable=False),
    unary("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x), numpys=False),
    unary(
        "leaky_relu",
        lambda x: np.where(x > 0, x, 0.2 * x),
        call=lambda x: mg.leaky_relu(x, negative_slope=0.2),
        variant="0.2",
        numpys=False,
    ),
    unary("log", np.log, domain=_POSITIVE),
    unary("log10", np.log10, domain=_POSITIVE),
    unary("log1p", np.log1p, domain=(-0.5, 2.0)),
    unary("log2", np.log2, domain=_POSITIVE),
    unary("negative", np.negative),
    unary("reciprocal", np.reciprocal, domain=_POSITIVE),
    unary("relu", lambda x: np.maximum(x, 0.0), numpys=False),
    unary("round", np.round, differentiable=False),
    unary(
        "round",
        lambda x: np.round(x, 1),
        call=lambda x: mg.round(x, 1),
        variant="1",
        domain=(0.03, 1.97),
        differentiable=False,
    ),
    unary("sigmoid", lambda x: 1.0 / (1.0 + np.exp(-x)), numpys=False),
    unary("sign", np.sign, differentiable=False),
    unary("silu", lambda x: x / (1.0 + np.exp(-x)), numpys=False),
    unary("sin", np.sin),
    unary("sinh", np.sinh),
    unary("softplus", _softplus, numpys=False),
    unary("sqrt", np.sqrt, domain=_POSITIVE),
    unary("square", np.square),
    unary("tan", np.tan, domain=(-1.0, 1.0)),
    unary("tanh", np.tanh),
    binary("add", np.add),
    binary("arctan2", np.arctan2, domain=_POSITIVE),
    binary("divide", np.divide, domain=_POSITIVE),
    binary("logaddexp", np.logaddexp),
    binary("maximum", np.maximum),
    binary("minimum", np.minimum),
    binary("multiply", np.multiply),
    binary("power", np.power, domain=_POSITIVE),
    unary("power", lambda x: x**3, call=lambda x: mg.power(x, 3), variant="x, 3"),
    unary(
        "power",
        lambda x: x**-1.5,
        call=lambda x: mg.power(x, -1.5),
        variant="x, -1.5",
        domain=_POSITIVE,
    ),
    unary("power", lambda x: 2.0**x, call=lambda x: mg.power(2.0, x), variant="2, x"),
    binary("subtract", np.subtract),
    comparison("equal", np.equal),
    comparison("greater", np.greater),
    comparison("greater_equal", np.greater_equal),
    comparison("less", np.less),
    comparison("less_equal", np.less_equal),
    comparison("not_equal", np.not_equal),
    unary(
        "clip",
        lambda x: np.clip(x, -0.5, 1.0),
        call=lambda x: mg.clip(x, -0.5, 1.0),
        variant="numbers",
    ),
    Row(
        "clip",
        mg.clip,
        np.clip,
        ((2, 3), (3,), (2, 1)),
        broadcastable(3),
        ((0, 3), (3,), (1,)),
        variant="tensors",
        scalars=True,
    ),
    Row(
        "where",
        lambda c, x, y: mg.where(c > 0, x, y),
        lambda c, x, y: np.where(c > 0, x, y),
        ((2, 3), (3,), (2, 1)),
        broadcastable(3),
        ((0, 3), (3,), (1,)),
        scalars=True,
    ),
    # Edges: the value stays as it is.
    unary("detach", lambda x: x, differentiable=False, numpys=False),
    unary(
        "map_gradient",
        lambda x: x,
        call=lambda x: mg.map_gradient(x, _double),
        exact=False,
        numpys=False,
    ),
    unary(
        "scale_gradient",
        lambda x: x,
        call=lambda x: mg.scale_gradient(x, 2.0),
        exact=False,
        numpys=False,
    ),
    # Reductions.
    *reductions("sum", np.sum, over_nothing=True),
    *reductions("mean", np.mean),
    *reductions("max", np.max),
    *reductions("min", np.min),
    *reductions("prod", np.prod, over_nothing=True, domain=_AROUND_ONE),
    *reductions("var", np.var),
    corrected("var"),
    *reductions("std", np.std, domain=(-20.0, 20.0)),
    corrected("std", domain=(-20.0, 20.0)),
    *[
        Row(
            "standardize",
            lambda x, axis=axis: mg.standardize(x, axis),
            lambda x, axis=axis: (
                (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)
            ),
            ((2, 3),),
            one(2, min_side=2),
            ((0, 2),) if axis == 1 else None,
            variant=f"axis={axis}",
            numpys=False,
        )
        for axis in (1, (0, 1), None)
    ],
    *reductions("linalg.norm", np.linalg.norm, over_nothing=True, domain=_POSITIVE),
    *reductions(
        "all",
        lambda x, **settings: np.all(x > -1.5, **settings),
        call=lambda x, **settings: mg.all(x > -1.5, **settings),
        over_nothing=True,
        differentiable=False,
    ),
    *reductions(
        "any",
        lambda x, **settings: np.any(x > 1.5, **settings),
        call=lambda x, **settings: mg.any(x > 1.5, **settings),
        over_nothing=True,
        differentiable=False,
    ),
    rearranged("cumsum", example=(2, 3), empty=(2, 0), shapes=one()),
    rearranged("cumsum", 0, example=(2, 3), empty=(0, 2), shapes=one(2)),
    rearranged("cumsum", -1, example=(2, 3), empty=(0, 2), shapes=one(3)),
    rearranged("cumprod", example=(2, 3), empty=(2, 0), shapes=one(), domain=_AROUND_ONE),
    rearranged("cumprod", 0, example=(2, 3), empty=(0, 2), shapes=one(2), domain=_AROUND_ONE),
    rearranged("cumprod", -1, example=(2, 5), empty=(0, 2), shapes=one(3), domain=_AROUND_ONE),
    *reductions("logsumexp", _logsumexp, numpys=False),
    rearranged(
        "softmax",
        example=(2, 3),
        empty=(0, 3),
        shapes=one(2, min_side=1),
        reference=_softmax,
        numpys=False,
    ),
    rearranged(
        "softmax",
        0,
        example=(2, 3, 2),
        empty=(2, 0),
        shapes=one(3, min_side=1),
        reference=_softmax,
        numpys=False,
    ),
    rearranged(
        "log_softmax",
        example=(2, 3),
        empty=(0, 3),
        shapes=one(2, min_side=1),
        reference=lambda x: np.log(_softmax(x)),
        numpys=False,
    ),
    rearranged(
        "log_softmax",
        0,
        example=(2, 3, 2),
        empty=(2, 0),
        shapes=one(3, min_side=1),
        reference=lambda x, axis: np.log(_softmax(x, axis)),
        numpys=False,
    ),
    rearranged(
        "argmax",
        example=(2, 3),
        empty=None,
        shapes=one(min_side=1),
        ties=True,
        differentiable=False,
    ),
    rearranged(
        "argmax",
        1,
        example=(2, 3),
        empty=(0, 3),
        shapes=one(2, min_side=1),
        ties=True,
        differentiable=False,
    ),
    rearranged(
        "argmin",
        example=(2, 3),
        empty=None,
        shapes=one(min_side=1),
        ties=True,
        differentiable=False,
    ),
    rearranged(
        "argmin",
        1,
        example=(2, 3),
        empty=(0, 3),
        shapes=one(2, min_side=1),
        ties=True,
        differentiable=False,
    ),
    # Sorting.
    rearranged("argsort", example=(2, 3), empty=(2, 0), shapes=one(2), differentiable=False),
    rearranged("argsort", 0, example=(3, 2), empty=(0, 2), shapes=one(2), differentiable=False),
    rearranged("argsort", None, example=(3, 1), empty=(0, 2), shapes=one(), differentiable=False),
    rearranged("sort", example=(2, 3), empty=(2, 0), shapes=one(2)),
    rearranged("sort", 0, example=(3, 2), empty=(0, 2), shapes=one(3)),
    rearranged("sort", None, example=(3, 2), empty=(0, 2), shapes=one()),
    # Products.
    Row("matmul", mg.matmul, np.matmul, ((2, 3), (3, 4)), multipliable(), ((2, 0), (0, 3))),
    Row(
        "matmul",
        mg.matmul,
        np.matmul,
        ((2, 1, 2, 3), (4, 3, 2)),
        multipliable(),
        ((2, 3, 0), (0, 4)),
        variant="stacks",
    ),
    Row("matmul", mg.matmul, np.matmul, ((3,), (3,)), multipliable(), ((0,), (0,)), variant="dot"),
    Row(
        "linear",
        mg.linear,
        lambda x, weight, bias: x @ weight.T + bias,
        ((2, 3), (4, 3), (4,)),
        affine(),
        ((0, 3), (4, 3), (4,)),
        numpys=False,
    ),
    Row(
        "linear",
        mg.linear,
        lambda x, weight, bias: x @ weight.T + bias,
        ((2, 2, 3), (4, 3), (2, 4)),
        affine(),
        ((2, 2, 0), (4, 0), (2, 4)),
        variant="stacks",
        numpys=False,
    ),
    product("dot", (3,), (3,), empty=((0,), (0,)), variant="vectors"),
    product("dot", (2, 3), (3, 2), empty=((2, 0), (0, 3)), variant="matrices"),
    product("dot", (2, 3), (3,), empty=((0, 3), (3,)), variant="matrix and vector"),
    product("dot", (3,), (2, 3, 2), empty=((3,), (0, 3, 2)), variant="vector and stack"),
    product("dot", (2, 2, 3), (2, 3, 2), empty=((0, 2), (2, 2, 3)), variant="stacks"),
    product("dot", (), (2, 3), empty=((), (0,)), variant="number"),
    product("inner", (3,), (3,), empty=((0,), (0,)), variant="vectors"),
    product("inner", (2, 3), (2, 2, 3), empty=((0, 2), (3, 2)), variant="stacks"),
    product("inner", (2, 3), (), empty=((0,), ()), variant="number"),
    product("outer", (2,), (3,), empty=((0,), (3,))),
    product("outer", (2, 2), (), empty=((2,), (0, 3)), variant="ravelled"),
    product("tensordot", (2, 3, 4), (3, 4, 2), empty=((2, 0, 4), (0, 4, 2))),
    product("tensordot", (2, 3), (3, 2), empty=((2, 0), (0, 3)), variant="1", axes=1),
    product("tensordot", (2,), (3, 2), empty=((0,), (2,)), variant="0", axes=0),
    product(
        "tensordot", (2, 3), (3, 4, 2), empty=((0, 3), (3, 2, 0)), variant="pair", axes=(-1, 0)
    ),
    product(
        "tensordot",
        (2, 3, 4),
        (4, 3, 2),
        empty=((2, 3, 0), (0, 3, 2)),
        variant="pairs",
        axes=([2, 1], [0, -2]),
    ),
    summed("ij,jk->ik", (2, 3), (3, 4), empty=((2, 0), (0, 3))),
    summed("ij,jk", (2, 3), (3, 4), empty=((0, 3), (3, 2))),
    summed("ba", (2, 3), empty=((0, 3),)),
    summed("ii->i", (3, 3), empty=((0, 0),)),
    summed("ii", (3, 3), empty=((0, 0),)),
    summed("iji->j", (2, 3, 2), empty=((2, 0, 2),)),
    summed("iii->i", (2, 2, 2), empty=((0, 0, 0),)),
    summed("ij->j", (2, 3), empty=((0, 3),)),
    summed("ij->", (2, 3), empty=((0, 3),)),
    summed("i,i", (3,), (3,), empty=((0,), (0,))),
    summed("i,j->", (2,), (3,), empty=((0,), (3,))),
    summed(",i->i", (), (3,), empty=((), (0,))),
    summed("ij , ij, j -> i", (2, 3), (2, 3), (3,), empty=((2, 0), (2, 0), (0,))),
    summed("ij,ij->ij", (1, 3), (2, 3), empty=((1, 3), (0, 3))),
    summed("ij,jk->ik", (2, 1), (3, 2), empty=((2, 1), (0, 2))),
    summed("ij,jk->ik", (2, 3), (1, 2), empty=((2, 0), (1, 2))),
    summed("i,i,i->", (1,), (3,), (1,), empty=((0,), (1,), (0,))),
    summed("ii,ij->j", (2, 2), (2, 3), empty=((0, 0), (0, 3))),
    summed("...ij,...jk->...ik", (2, 1, 2, 3), (3, 3, 2), empty=((0, 1, 2, 3), (3, 3, 2))),
    summed("...i,i...", (2, 3), (3, 2), empty=((0, 3), (3, 0))),
    summed("i...->...", (2, 3, 2), empty=((0, 3),)),
    summed("i...i->...", (2, 3, 2), empty=((2, 0, 2),)),
    rearranged("diag", example=(3,), empty=(0,), shapes=one(1)),
    rearranged("diag", -2, example=(3,), empty=(0,), shapes=one(1)),
    rearranged("diag", 1, example=(3, 4), empty=(0, 3), shapes=one(2)),
    rearranged("diagonal", example=(3, 4), empty=(0, 3), shapes=one(3)),
    rearranged("diagonal", -1, 2, 0, example=(3, 2, 4), empty=(3, 0, 2), shapes=one(3)),
    rearranged("trace", example=(3, 4), empty=(0, 3), shapes=one(3)),
    rearranged("trace", 1, -1, 0, example=(3, 2, 4), empty=(3, 0, 2), shapes=one(3)),
    rearranged("tril", example=(3, 4), empty=(0, 3), shapes=one(2)),
    rearranged("tril", -1, example=(2, 3, 3), empty=(0, 3, 3), shapes=one(3)),
    rearranged("tril", example=(3,), empty=(0,), shapes=one(1), variant="vector"),
    rearranged("triu", example=(3, 4), empty=(0, 3), shapes=one(2)),
    rearranged("triu", 1, example=(2, 3, 3), empty=(0, 3, 3), shapes=one(3)),
    # Linear algebra.
    of_matrices("linalg.inv", _dominated),
    of_matrices("linalg.det", _dominated),
    of_matrices("linalg.slogdet", lambda x: -_dominated(x)),
    of_matrices("linalg.cholesky", _definite),
    of_matrices(
        "linalg.solve",
        _dominated,
        ((2, 1, 3, 3), (4, 3, 2)),
        ((2, 2), (0, 2, 1)),
        always((2, 1, 3, 3), (4, 3, 2)),
        variant="matrices",
    ),
    of_matrices(
        "linalg.solve",
        _dominated,
        ((2, 3, 3), (3,)),
        ((0, 2, 2), (2,)),
        always((2, 3, 3), (3,)),
        variant="vector",
    ),
    of_matrices(
        "linalg.solve",
        _dominated,
        ((3, 3), (2, 3, 1)),
        ((2, 2), (2, 0)),
        always((3, 3), (2, 3, 1)),
        variant="one matrix",
    ),
    # Indexing.
    indexed("integer", 1, (3, 2), (3, 0)),
    indexed("element", (1, -1), (3, 2)),
    indexed("slice", slice(1, None), (3, 2), (1, 2)),
    indexed("reversed", (slice(None), slice(None, None, -2)), (2, 5), (0, 5)),
    indexed("ellipsis", (..., 0), (2, 3, 2), (2, 0, 1)),
    indexed("new axis", (None, slice(None), None), (3,), (0,)),
    indexed("repeated", np.array([0, 2, 0, -1]), (3, 2), (3, 0)),
    indexed("table", np.array([[0, 2], [1, 1]], dtype=np.uint8), (3, 2), (3, 0)),
    indexed("list", [2, 0, 0], (3, 2), (3, 0)),
    indexed("no positions", [], (3, 2), (0, 2)),
    indexed("pairs", (np.array([0, 1, 0]), np.array([1, 1, 1])), (2, 3), None),
    indexed("second axis", (slice(None), np.array([1, 1, 0])), (3, 2), (0, 2)),
    indexed("outer", (np.array([[0], [1]]), np.array([0, 0, 2])), (2, 3), None),
    indexed("mask", np.array([True, False, True]), (3, 2), (3, 0)),
    indexed("mask of elements", np.array([[True, False], [False, True]]), (2, 2), None),
    indexed("mask and integer", (np.array([True, False, True]), 1), (3, 2), None),
    rearranged("take", 1, example=(2, 3), empty=None, variant="element"),
    rearranged("take", [0, -1, 0], example=(2, 3), empty=None),
    rearranged("take", [2, 0, 2], 0, example=(3, 2), empty=(3, 0)),
    rearranged("take", np.array([[1, 0], [1, 1]]), -1, example=(2, 3), empty=(0, 2)),
    rearranged("take", (), 1, example=(2, 3), empty=(2, 3)),
    rearranged("take_along_axis", np.array([[0, 2, 2], [1, 1, -1]]), 1, example=(2, 3), empty=None),
    rearranged("take_along_axis", np.array([[1], [0]]), 0, example=(2, 3), empty=(2, 0)),
    rearranged("take_along_axis", np.array([3, 3, 0]), None, example=(2, 3), empty=None),
    updated("element", (1, 0), ((2, 3), ()), None),
    updated("row", 1, ((3, 2), (2,)), ((2, 0), (0,))),
    updated("slice", (slice(None), slice(1, None)), ((2, 3), (2, 1)), ((0, 3), (0, 1))),
    updated("wider value", 0, ((2, 3), (1, 1, 3)), ((2, 0), (1, 0))),
    updated("reversed", slice(None, None, -1), ((3,), (3,)), ((0,), (0,))),
    updated("mask", np.array([True, False, True]), ((3, 2), (2, 2)), ((3, 0), (2, 0))),
    updated("list", [2, 0], ((3, 2), (2, 2)), ((3, 0), (2, 0))),
    updated("repeated", np.array([0, 2, 0, -1]), ((3, 2), (4, 2)), ((3, 0), (4, 0))),
    updated("pairs", (np.array([0, 1, 0]), np.array([1, 1, 1])), ((2, 3), (3,)), None),
    updated("nothing", [], ((3, 2), (0, 2)), ((2, 0), (0, 0))),
    # Shapes.
    rearranged("reshape", (-1,), example=(2, 3), empty=(2, 0), shapes=one()),
    rearranged("reshape", (3, 2), example=(2, 3), empty=None),
    rearranged("reshape", -1, example=(2, 3), empty=(0,), shapes=one()),
    rearranged("transpose", example=(2, 3, 4), empty=(2, 0), shapes=one()),
    rearranged("transpose", (2, 0, 1), example=(2, 3, 4), empty=(2, 0, 3), shapes=one(3)),
    rearranged("transpose", (-1, 0, 1), example=(2, 3, 4), empty=(2, 0, 3), shapes=one(3)),
    rearranged("swapaxes", 0, -1, example=(2, 3, 4), empty=(2, 0), shapes=one(3)),
    rearranged("expand_dims", 0, example=(2, 3), empty=(0,), shapes=one()),
    rearranged("expand_dims", -1, example=(2, 3), empty=(0,), shapes=one()),
    rearranged("squeeze", example=(2, 1, 3, 1), empty=(1, 0), shapes=one()),
    rearranged("squeeze", -3, example=(1, 2, 1), empty=(1, 0, 1)),
    rearranged("ravel", example=(2, 3), empty=(2, 0), shapes=one()),
    rearranged("moveaxis", 0, -1, example=(2, 3, 4), empty=(2, 0, 3), shapes=one(3)),
    rearranged("moveaxis", (0, -1), (1, 0), example=(2, 3, 4), empty=(2, 0, 3), shapes=one(3)),
    rearranged("expand_dims", (0, -1), example=(2, 3), empty=(0,), shapes=one()),
    rearranged("expand_dims", (2, 0), example=(2, 3), empty=(0,), shapes=one(2)),
    rearranged("squeeze", (0, -1), example=(1, 2, 1), empty=(1, 0, 1)),
    rearranged("flip", example=(2, 3), empty=(2, 0), shapes=one()),
    rearranged("flip", -1, example=(2, 3), empty=(2, 0), shapes=one(2)),
    rearranged("flip", (0, 2), example=(2, 3, 4), empty=(2, 0, 3), shapes=one(3)),
    rearranged("roll", 2, example=(2, 3), empty=(2, 0), shapes=one()),
    rearranged("roll", -1, 1, example=(2, 3), empty=(2, 0), shapes=one(2)),
    rearranged("roll", (1, -2), (0, 2), example=(2, 3, 4), empty=(2, 0, 3), shapes=one(3)),
    rearranged("tile", 2, example=(2, 3), empty=(2, 0), shapes=one()),
    rearranged("tile", (2, 1, 3), example=(2, 3), empty=(2, 0), shapes=one()),
    rearranged("tile", (0, 2), example=(3,), empty=(0,), shapes=one()),
    rearranged("repeat", 2, example=(2, 3), empty=(2, 0), shapes=one()),
    rearranged("repeat", 3, -1, example=(2, 3), empty=(0, 2), shapes=one(2)),
    rearranged("repeat", (2, 0, 1), 1, example=(2, 3), empty=(0, 3)),
    rearranged("repeat", 0, 0, example=(2, 3), empty=(0, 2), shapes=one(2)),
    padded("everywhere", 1, (2, 3), (0, 2)),
    padded("before and after", (2, 1), (2, 3), (0, 2)),
    padded("one pair", ((2, 1),), (2, 3), (0, 2)),
    padded("each axis", ((1, 0), (0, 2)), (2, 3), (0, 2)),
    padded("a constant", 2, (3,), (0,), mode="constant", constant_values=7.0),
    rearranged("broadcast_to", (2, 3, 4), example=(3, 1), empty=None),
    rearranged("broadcast_to", (2, 0), example=(1,), empty=(2, 0)),
    rearranged(
        "astype",
        "float64",
        example=(2, 3),
        empty=(2, 0),
        shapes=one(),
        reference=lambda x, dtype: x.astype(dtype),
    ),
    rearranged(
        "astype",
        "float32",
        example=(2, 3),
        empty=(2, 0),
        shapes=one(),
        reference=lambda x, dtype: x.astype(dtype),
        exact=False,
    ),
    rearranged(
        "astype",
        "int64",
        example=(2, 3),
        empty=(2, 0),
        shapes=one(),
        reference=lambda x, dtype: x.astype(dtype),
        differentiable=False,
    ),
    # Joining and splitting.
    joined("concatenate", 0, ((2, 2), (1, 2), (3, 2)), joinable(0)),
    joined("concatenate", -1, ((2, 1), (2, 3), (2, 2)), joinable(1)),
    joined("concatenate", None, ((2, 1), (3,), ()), broadcastable(3)),
    joined("stack", 0, ((2, 3), (2, 3)), alike(2)),
    joined("stack", -1, ((2, 3), (2, 3), (2, 3)), alike(3)),
    rearranged("split", 2, example=(4, 3), empty=(0, 3)),
    rearranged("split", (1, 1, -1), 1, example=(2, 4), empty=(2, 0)),
    rearranged("split", (2, 9), -1, example=(2, 4), empty=(0, 4)),
    rearranged(
        "unstack",
        example=(3, 2),
        empty=(2, 0),
        shapes=one(2, min_side=1),
        reference=getattr(np, "unstack", _unstack),
        numpys=hasattr(np, "unstack"),
    ),
    rearranged(
        "unstack",
        -1,
        example=(2, 1, 3),
        empty=(0, 2),
        shapes=one(3, min_side=1),
        reference=_unstack,
        numpys=False,
    ),
]
