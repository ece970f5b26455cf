"""Every operation, as the table lists it: values, gradients, dtypes, and ways to call it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from operation_table import TABLE, Array, Row
from transfer import ARRAY, on_device, to_host

import minigrad as mg
from minigrad.arrays import is_array
from minigrad.tensor import operations
from minigrad.testing import check_gradients

#: Relative and absolute error of a value that takes a few roundings.
ROUNDING = {"float16": 2e-2, "float32": 1e-5, "float64": 1e-12}

PUBLIC = [*mg.ops.__all__, *(f"linalg.{name}" for name in mg.linalg.__all__)]
DIFFERENTIABLE = [row for row in TABLE if row.differentiable]


def rows(chosen: Sequence[Row]) -> pytest.MarkDecorator:
    """Run a test for every one of these rows."""
    return pytest.mark.parametrize("row", chosen, ids=str)


def skip_without_float16(row: Row, dtypes: tuple[str, ...]) -> None:
    if "float16" in dtypes and not row.float16:
        pytest.skip("NumPy has no float16 here")


def results(out: Any) -> list[Any]:
    """The results of a call, be there one or several."""
    return list(out) if isinstance(out, tuple | list) else [out]


def example(row: Row, dtype: str = "float64") -> list[Array]:
    """The operands of the row's ordinary call."""
    return [x.astype(dtype) for x in row.values(row.example, seed=1)]


def leaves_of(inputs: Sequence[Array]) -> list[mg.Tensor]:
    """Leaves that share memory with ``inputs``."""
    return [mg.asarray(x, requires_grad=True) for x in inputs]


def curved_sum(outs: Any) -> mg.Tensor:
    """One number that depends on every element of the results, and not in a linear way.

    The curve lets the gradient that reaches a rule depend on the operands, so that the second
    order differentiates the rule with respect to it as well.
    """
    total = mg.tensor(0.0, dtype="float64")
    for part, out in enumerate(results(outs), start=2):
        weight = mg.tensor(np.linspace(0.5, 1.5, out.size).reshape(out.shape) * part)
        total = total + mg.sum(out * (1.0 + 0.5 * out) * weight)
    return total


def gradients(
    call: Callable[..., Any], inputs: Sequence[Array], *, create_graph: bool = False
) -> list[mg.Tensor]:
    """The gradients of the curved sum of what ``call`` returns, after checking their form."""
    leaves = leaves_of(inputs)
    with mg.Tape() as tape:
        found: list[mg.Tensor] = tape.gradient(
            curved_sum(call(*leaves)), leaves, create_graph=create_graph, unconnected="zero"
        )
    for gradient, x in zip(found, inputs, strict=True):
        assert is_array(gradient.array)
        assert (gradient.shape, gradient.dtype) == (x.shape, x.dtype)
    return found


def recorded(call: Callable[..., Any], inputs: Sequence[Any]) -> list[tuple[str, ...]]:
    """What ``call`` leaves on the tape: operations, settings, shapes, and what is saved."""
    with mg.Tape() as tape:
        call(*inputs)
    return [
        (entry.operation.name, repr(entry.settings), repr(entry.shape), repr(entry.plan.keep))
        for entry in tape
    ]


def assert_same(actual: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Arrays of equal shapes, dtypes and (nearly) values, one by one."""
    for a, e in zip(results(actual), results(expected), strict=True):
        a, e = to_host(a), to_host(e)
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


def arrays(out: Any) -> list[Array]:
    """The values of the tensors that a call returned."""
    assert all(type(t) is mg.Tensor and type(t.array) is ARRAY for t in results(out))
    return [t.numpy() for t in results(out)]


# --------------------------------------------------------------------------------------
# The table itself
# --------------------------------------------------------------------------------------


def test_the_table_lists_every_public_operation() -> None:
    assert {row.operation for row in TABLE} == set(PUBLIC)


def test_every_public_operation_is_found_by_numpys_protocols() -> None:
    assert set(operations) == set(PUBLIC)


def test_rows_can_be_told_apart() -> None:
    assert len({str(row) for row in TABLE}) == len(TABLE)


# --------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------


@rows(TABLE)
@given(data=st.data())
def test_value_shape_and_dtype_are_numpys(row: Row, data: st.DataObject) -> None:
    drawn = data.draw(row.inputs())
    for dtype in ("float32", "float64"):
        inputs = [x.astype(dtype) for x in drawn]
        tensors = [mg.tensor(x) for x in inputs]
        assert_same(arrays(row.call(*tensors)), row.reference(*inputs), ROUNDING[dtype])


@rows([row for row in TABLE if row.float16])
def test_float16_is_numpys(row: Row) -> None:
    inputs = example(row, "float16")
    tensors = [mg.tensor(x) for x in inputs]
    assert_same(arrays(row.call(*tensors)), row.reference(*inputs), ROUNDING["float16"])


@rows(TABLE)
def test_integers_promote_as_in_numpy(row: Row) -> None:
    low, high = np.ceil(row.domain[0]), np.floor(row.domain[1])
    inputs = [np.arange(1, 1 + x.size).reshape(x.shape) % 3 + 1 for x in example(row)]
    inputs = [np.clip(x, low, high).astype(int) for x in inputs]
    tensors = [mg.tensor(x) for x in inputs]
    assert_same(arrays(row.call(*tensors)), row.reference(*inputs), ROUNDING["float64"])


@rows([row for row in TABLE if len(row.example) > 1])
@pytest.mark.parametrize(
    "dtypes",
    [
        ("float32", "float64"),
        ("float64", "float32"),
        ("float16", "float32"),
        ("float32", "int64"),
        ("float32", "float32", "float64"),
    ],
    ids=" ".join,
)
def test_mixed_dtypes_promote_as_in_numpy(row: Row, dtypes: tuple[str, ...]) -> None:
    skip_without_float16(row, dtypes)
    inputs = [x.astype(dtype) for x, dtype in zip(example(row), cycle(dtypes), strict=False)]
    if dtypes[1] == "int64":
        inputs[1] = np.maximum(inputs[1], 1)
    tensors = [mg.tensor(x) for x in inputs]
    assert_same(arrays(row.call(*tensors)), row.reference(*inputs), ROUNDING["float16"])


@rows(TABLE)
def test_arrays_give_arrays(row: Row) -> None:
    inputs = example(row)
    out = row.call(*on_device(inputs))
    assert all(is_array(part) for part in results(out))
    assert_same(out, row.reference(*inputs), ROUNDING["float64"])


@pytest.mark.parametrize(
    ("operation", "extreme", "expected"),
    [
        (mg.sigmoid, [-1000.0, 1000.0], [0.0, 1.0]),
        (mg.softmax, [-1000.0, 1000.0], [0.0, 1.0]),
        (mg.log_softmax, [-1000.0, 1000.0], [-2000.0, 0.0]),
        (mg.logsumexp, [1000.0, 1000.0], 1000.0 + np.log(2.0)),
        (mg.logsumexp, [-1000.0, -1000.0], -1000.0 + np.log(2.0)),
        (mg.logsumexp, [-np.inf, 0.0], 0.0),
        (mg.tanh, [-1000.0, 1000.0], [-1.0, 1.0]),
        (mg.softplus, [-1000.0, 0.0, 1000.0], [0.0, np.log(2.0), 1000.0]),
        (mg.elu, [-1000.0, 1000.0], [-1.0, 1000.0]),
        (mg.silu, [-1000.0, 1000.0], [0.0, 1000.0]),
        (mg.gelu, [-1e200, 1e200], [0.0, 1e200]),
        (mg.arcsinh, [-1e200, 1e200], [-np.arcsinh(1e200), np.arcsinh(1e200)]),
        (mg.arccosh, [1e200], [np.arccosh(1e200)]),
        (mg.arctan, [-1e100, 1e100], [-np.pi / 2, np.pi / 2]),
        (lambda x: mg.logaddexp(x, 1000.0), [-1000.0, 1000.0], [1000.0, 1000.0 + np.log(2.0)]),
        (lambda x: mg.logaddexp(x, -np.inf), [0.0, -np.inf], [0.0, -np.inf]),
    ],
)
def test_large_operands_do_not_overflow(
    operation: Callable[..., mg.Tensor], extreme: list[float], expected: Any
) -> None:
    x = mg.tensor(extreme, dtype="float64", requires_grad=True)
    with mg.Tape() as tape:
        y = operation(x)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-15)
    assert np.isfinite(tape.gradient(y, x, seed=np.ones(y.shape)).numpy()).all()


def test_logsumexp_of_minus_infinity_alone_is_minus_infinity() -> None:
    assert mg.logsumexp(mg.tensor([-np.inf, -np.inf])).item() == -np.inf


@pytest.mark.parametrize("reduce", ["mean", "var", "std"])
def test_sums_over_many_float16_do_not_overflow(reduce: str) -> None:
    many = np.full(70_000, 2.0, dtype="float16")
    many[::2] = 1.0
    x = mg.tensor(many, requires_grad=True)
    with mg.Tape() as tape:
        y = getattr(mg, reduce)(x)
    assert y.item() == np.float16(getattr(np, reduce)(many.astype("float64")))
    assert np.isfinite(tape.gradient(y, x).numpy()).all()


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_float16_norm_does_not_overflow(create_graph: bool) -> None:
    x = mg.tensor([3000.0, 4000.0], dtype="float16", requires_grad=True)
    with mg.Tape() as tape:
        y = mg.linalg.norm(x)
        gradient = tape.gradient(y, x, create_graph=create_graph)
    assert (y.item(), str(y.dtype)) == (5000.0, "float16")
    np.testing.assert_allclose(gradient.numpy(), [0.6, 0.8], rtol=1e-3)


@rows(TABLE)
def test_nan_comes_out_where_it_does_in_numpy(row: Row) -> None:
    for place in range(len(row.example)):
        operands = [x.copy() for x in example(row)]
        operands[place].flat[:1] = np.nan
        with np.errstate(all="ignore"):
            try:
                expected = row.reference(*operands)
            except np.linalg.LinAlgError:
                continue
            found = row.call(*map(mg.tensor, operands))
        for a, e in zip(arrays(found), results(expected), strict=True):
            np.testing.assert_array_equal(np.isnan(a), np.isnan(e))


def test_what_is_not_finite_is_told_apart() -> None:
    x = mg.tensor([1.0, np.nan, np.inf, -np.inf])
    assert mg.isnan(x).tolist() == [False, True, False, False]
    assert mg.isfinite(x).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("method", "function"),
    [
        (lambda t: t.prod(0, keepdims=True), lambda t: mg.prod(t, 0, keepdims=True)),
        (lambda t: t.var(1, ddof=1), lambda t: mg.var(t, 1, ddof=1)),
        (lambda t: t.std(), mg.std),
        (lambda t: t.cumsum(1), lambda t: mg.cumsum(t, 1)),
        (lambda t: t.cumprod(), mg.cumprod),
        (lambda t: t.argmax(1, keepdims=True), lambda t: mg.argmax(t, 1, keepdims=True)),
        (lambda t: t.argmin(0), lambda t: mg.argmin(t, 0)),
        (lambda t: t.argsort(0), lambda t: mg.argsort(t, 0)),
        (lambda t: (t > 0).all(axis=0), lambda t: mg.all(t > 0, axis=0)),
        (lambda t: (t > 1).any(), lambda t: mg.any(t > 1)),
        (lambda t: t.clip(0.0, 1.0), lambda t: mg.clip(t, 0.0, 1.0)),
        (lambda t: t.round(1), lambda t: mg.round(t, 1)),
        (lambda t: t.dot(t.T), lambda t: mg.dot(t, t.T)),
        (lambda t: t.trace(), mg.trace),
        (lambda t: t.diagonal(1), lambda t: mg.diagonal(t, 1)),
        (lambda t: t.take([1, 0], axis=1), lambda t: mg.take(t, [1, 0], axis=1)),
        (lambda t: t.repeat(2, axis=0), lambda t: mg.repeat(t, 2, axis=0)),
        (lambda t: t.ravel(), mg.ravel),
        (lambda t: t.flatten(), mg.ravel),
        (lambda t: t[None].squeeze(0), lambda t: mg.squeeze(t[None], 0)),
    ],
)
def test_methods_record_the_same_as_functions(
    method: Callable[..., Any], function: Callable[..., Any]
) -> None:
    x = np.array([[0.5, 2.0, -1.0], [1.5, 0.25, 3.0]])
    leaf = mg.tensor(x, requires_grad=True)
    assert recorded(method, [leaf]) == recorded(function, [leaf])
    assert_same(arrays(method(leaf)), method(x), ROUNDING["float64"])


@pytest.mark.parametrize(
    "call",
    [
        lambda x, n: mg.tile(x, n(2)),
        lambda x, n: mg.repeat(x, n(2)),
        lambda x, n: mg.repeat(x, np.array([1, 0, 2]) if n is np.int64 else [1, 0, 2], n(1)),
        lambda x, n: mg.roll(x, n(1), n(0)),
        lambda x, n: mg.pad(x, n(1)),
        lambda x, n: mg.pad(x, (n(1), n(2))),
        lambda x, n: mg.pad(x, np.array([[1, 2], [0, 1]]) if n is np.int64 else [[1, 2], [0, 1]]),
        lambda x, n: mg.take(x, n(1), n(1)),
        lambda x, n: mg.expand_dims(x, n(1)),
        lambda x, n: mg.squeeze(mg.expand_dims(x, 0), n(0)),
        lambda x, n: mg.moveaxis(x, n(0), n(1)),
        lambda x, n: mg.tensordot(x, x.T, n(1)),
        lambda x, n: mg.cumprod(x, n(-1)),
        lambda x, n: mg.sort(x, n(-1)),
        lambda x, n: mg.flip(x, n(-1)),
    ],
)
def test_a_setting_may_be_a_numpy_integer(call: Callable[..., mg.Tensor]) -> None:
    inputs = [np.arange(6.0).reshape(2, 3)]
    (expected,) = gradients(lambda x: call(x, int), inputs)
    (gradient,) = gradients(lambda x: call(x, np.int64), inputs)
    assert_same(gradient, expected)


@pytest.mark.parametrize("sections", [np.int64(2), (1, 3), (), np.array([1, 3])], ids=repr)
def test_split_cuts_where_numpy_does(sections: Any) -> None:
    x = np.arange(4.0)
    assert_same(arrays(mg.split(mg.tensor(x), sections)), np.split(x, sections))


# --------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------


@rows([row for row in DIFFERENTIABLE if row.exact])
@given(data=st.data())
def test_first_and_second_order_match_finite_differences(row: Row, data: st.DataObject) -> None:
    check_gradients(row.call, *data.draw(row.inputs()))


@rows([row for row in TABLE if not row.differentiable])
def test_a_constant_result_is_not_recorded(row: Row) -> None:
    leaves = leaves_of(example(row))
    with mg.Tape() as tape:
        outs = results(row.call(*leaves))
        assert not any(out.requires_grad for out in outs)
    assert len(tape) == 0


@rows(DIFFERENTIABLE)
def test_rules_agree_on_arrays_and_on_tensors(row: Row) -> None:
    inputs = example(row)
    on_arrays = gradients(row.call, inputs)
    on_tensors = gradients(row.call, inputs, create_graph=True)
    for a, t in zip(on_arrays, on_tensors, strict=True):
        assert_same(t, a, ROUNDING["float64"])


@rows(DIFFERENTIABLE)
@pytest.mark.parametrize("create_graph", [False, True], ids=["arrays", "tensors"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_gradients_have_their_operands_dtype(row: Row, dtype: str, create_graph: bool) -> None:
    skip_without_float16(row, (dtype,))
    inputs = example(row, dtype)
    exact = gradients(row.call, [x.astype("float64") for x in inputs])
    for g, e in zip(gradients(row.call, inputs, create_graph=create_graph), exact, strict=True):
        scale = np.abs(e.numpy()).max(initial=1.0)
        np.testing.assert_allclose(g.numpy(), e.numpy(), atol=ROUNDING[dtype] * scale)


@rows([row for row in DIFFERENTIABLE if len(row.example) > 1])
@pytest.mark.parametrize("create_graph", [False, True], ids=["arrays", "tensors"])
@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float16")], ids=" ".join)
def test_gradients_of_mixed_dtypes_have_their_own(
    row: Row, dtypes: tuple[str, ...], create_graph: bool
) -> None:
    skip_without_float16(row, dtypes)
    inputs = [x.astype(dtype) for x, dtype in zip(example(row), cycle(dtypes), strict=False)]
    exact = gradients(row.call, [x.astype("float64") for x in inputs])
    for g, e in zip(gradients(row.call, inputs, create_graph=create_graph), exact, strict=True):
        scale = np.abs(e.numpy()).max(initial=1.0)
        np.testing.assert_allclose(g.numpy(), e.numpy(), atol=ROUNDING["float16"] * scale)


@rows(DIFFERENTIABLE)
@pytest.mark.parametrize(
    "lay_out",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
        lambda x: np.flip(np.flip(x).copy()),
    ],
    ids=["transposed", "strided", "reversed"],
)
def test_memory_order_does_not_matter(row: Row, lay_out: Callable[[Array], Array]) -> None:
    inputs = example(row)
    strange = [lay_out(x) if x.ndim else x for x in inputs]
    expected = arrays(row.call(*map(mg.tensor, inputs)))
    assert_same(arrays(row.call(*map(mg.asarray, strange))), expected, ROUNDING["float64"])
    for g, e in zip(gradients(row.call, strange), gradients(row.call, inputs), strict=True):
        assert_same(g, e, ROUNDING["float64"])


@rows([row for row in TABLE if row.empty is not None])
def test_no_elements(row: Row) -> None:
    assert row.empty is not None
    inputs = row.values(row.empty, seed=1)
    outs = arrays(row.call(*map(mg.tensor, inputs)))
    assert not all(x.size for x in (*inputs, *outs))
    assert_same(outs, row.reference(*inputs))
    if row.differentiable:
        for create_graph in (False, True):
            gradients(row.call, inputs, create_graph=create_graph)


@rows([row for row in TABLE if row.scalars])
def test_no_dimensions(row: Row) -> None:
    inputs = row.values(((),) * len(row.example), seed=1)
    assert_same(
        arrays(row.call(*map(mg.tensor, inputs))), row.reference(*inputs), ROUNDING["float64"]
    )
    if row.exact and row.differentiable:
        check_gradients(row.call, *inputs)


def test_results_that_nobody_used_have_a_gradient_of_zero() -> None:
    x = mg.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    for create_graph in (False, True):
        with mg.Tape() as tape:
            _, second = mg.split(x, 2)
            y = mg.sum(second * second)
            gradient = tape.gradient(y, x, create_graph=create_graph)
        assert gradient.tolist() == [0.0, 0.0, 6.0, 8.0]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint64", "int64"])
def test_any_integer_dtype_indexes_many_rows(dtype: str) -> None:
    """An axis can be longer than its indices' dtype can say: bytes index 256 letters."""
    x = mg.tensor(np.zeros((300, 2)), requires_grad=True)
    with mg.Tape() as tape:
        y = x[mg.tensor([1, 100, 1], dtype=dtype)]
    gradient = tape.gradient(y, x, seed=np.ones((3, 2))).numpy()
    assert gradient[[1, 100]].tolist() == [[2.0, 2.0], [1.0, 1.0]]
    assert gradient.sum() == 6.0


@pytest.mark.parametrize(
    "reduce", [mg.sum, mg.mean, mg.max, mg.min, mg.logsumexp, mg.softmax, mg.log_softmax]
)
def test_an_axis_may_be_a_numpy_integer(reduce: Callable[..., mg.Tensor]) -> None:
    inputs = [np.arange(6.0).reshape(2, 3) / 6.0]
    (expected,) = gradients(lambda x: reduce(x, axis=1), inputs)
    (gradient,) = gradients(lambda x: reduce(x, axis=np.int64(1)), inputs)
    assert_same(gradient, expected)


# --------------------------------------------------------------------------------------
# Operations that act on the gradient alone
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edge",
    [
        lambda x: mg.scale_gradient(x, -0.5),
        lambda x: mg.scale_gradient(x, on_device(np.array([-0.5, -0.5]))),
        lambda x: mg.map_gradient(x, lambda g: g * -0.5),
    ],
    ids=["number", "array", "function"],
)
def test_edges_act_on_every_order(edge: Callable[[mg.Tensor], mg.Tensor]) -> None:
    """Of x^3 behind the edge: its derivatives, times the scale once for every order."""
    x = mg.tensor([2.0, 3.0], requires_grad=True)
    with mg.Tape() as tape:
        y = edge(x)
        first = tape.gradient(mg.sum(y * y * y), x, create_graph=True)
        second = tape.gradient(mg.sum(first), x)
    assert y.tolist() == [2.0, 3.0]
    assert first.tolist() == [-6.0, -13.5]
    assert second.tolist() == [3.0, 4.5]


def test_a_scale_may_be_a_tensor() -> None:
    x = mg.tensor([2.0, 3.0], requires_grad=True)
    with mg.Tape() as tape:
        y = mg.sum(mg.scale_gradient(x, mg.tensor([0.5, 0.0])))
    tape.backward(y)
    assert x.grad is not None
    assert type(x.grad.array) is ARRAY
    assert x.grad.tolist() == [0.5, 0.0]


def test_a_mapped_gradient_is_a_tensor_with_an_array() -> None:
    seen: list[mg.Tensor] = []

    def look(gradient: mg.Tensor) -> mg.Tensor:
        seen.append(gradient)
        return gradient

    x = mg.tensor(2.0, requires_grad=True)
    with mg.Tape() as tape:
        y = mg.map_gradient(x[None], look)[0] * mg.map_gradient(x, look)
    tape.backward(y)
    assert len(seen) == 2
    assert all(type(g.array) is ARRAY for g in seen)


def test_detach_stops_the_gradient_on_its_path_alone() -> None:
    x = mg.tensor(3.0, requires_grad=True)
    with mg.Tape() as tape:
        y = x * mg.detach(x)
    assert tape.gradient(y, x).item() == 3.0


# --------------------------------------------------------------------------------------
# Ways to call
# --------------------------------------------------------------------------------------

OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": operator.pow,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
ARITHMETIC = ["add", "subtract", "multiply", "divide", "power"]
BINARY = pytest.mark.parametrize("name", OPERATORS)


@pytest.mark.host
@rows([row for row in TABLE if row.numpys])
def test_numpys_functions_on_tensors_record_the_same(row: Row) -> None:
    inputs = example(row)
    leaves = leaves_of(inputs)
    assert recorded(row.reference, leaves) == recorded(row.call, leaves)
    out = row.reference(*leaves)
    assert_same(arrays(out), row.reference(*inputs), ROUNDING["float64"])


@pytest.mark.host
@pytest.mark.parametrize(
    ("through_numpy", "function"),
    [
        (lambda t: np.amax(t, axis=0), lambda t: mg.max(t, axis=0)),
        (lambda t: np.amin(t, axis=0), lambda t: mg.min(t, axis=0)),
        (lambda t: np.sum(t, axis=0, keepdims=True), lambda t: mg.sum(t, axis=0, keepdims=True)),
        (lambda t: np.concatenate((t, t), axis=1), lambda t: mg.concatenate([t, t], axis=1)),
        (lambda t: np.where(t > 0, t, 0.0), lambda t: mg.where(t > 0, t, 0.0)),
        (lambda t: np.multiply(np.ones(3), t), lambda t: mg.multiply(np.ones(3), t)),
        (lambda t: np.permute_dims(t, (1, 0)), lambda t: mg.transpose(t, (1, 0))),
    ],
    ids=["amax", "amin", "keepdims", "concatenate", "where", "multiply", "permute_dims"],
)
def test_other_spellings_of_numpy_record_the_same(
    through_numpy: Callable[..., Any], function: Callable[..., Any]
) -> None:
    leaf = mg.tensor(np.ones((2, 3)), requires_grad=True)
    assert recorded(through_numpy, [leaf]) == recorded(function, [leaf])


@pytest.mark.host
@BINARY
@pytest.mark.parametrize(
    "other",
    [
        np.array([[0.5], [1.5]]),
        np.array([1.0, 2.0], dtype="float32"),
        np.array(1.5),
        np.float64(1.5),
        np.float32(1.5),
        np.int64(2),
        1.5,
        2,
        True,
    ],
    ids=repr,
)
def test_operators_with_arrays_and_numbers_on_either_side(name: str, other: Any) -> None:
    function, symbol = getattr(mg, name), OPERATORS[name]
    x = np.array([0.5, 2.0], dtype="float32")
    leaf = mg.tensor(x, requires_grad=True)
    assert_same(arrays(symbol(leaf, other)), symbol(x, other), ROUNDING["float32"])
    assert_same(arrays(symbol(other, leaf)), symbol(other, x), ROUNDING["float32"])
    assert recorded(symbol, [leaf, other]) == recorded(function, [leaf, other])
    assert recorded(symbol, [other, leaf]) == recorded(function, [other, leaf])


@BINARY
def test_operators_of_two_tensors_record_the_same_as_functions(name: str) -> None:
    leaves = leaves_of([np.array([0.5, 2.0]), np.array([[1.0], [2.0]])])
    entries = recorded(OPERATORS[name], leaves)
    assert entries == recorded(getattr(mg, name), leaves)
    assert bool(entries) == (name in ARITHMETIC)


@pytest.mark.parametrize(
    ("symbol", "function"), [(operator.neg, mg.negative), (operator.abs, mg.abs)]
)
def test_signs_record_the_same_as_functions(
    symbol: Callable[..., Any], function: Callable[..., Any]
) -> None:
    leaves = leaves_of([np.array([0.5, -2.0])])
    assert recorded(symbol, leaves) == recorded(function, leaves) != []


@pytest.mark.host
def test_an_array_times_a_matrix_of_tensors_records_the_product() -> None:
    array, leaf = np.ones((2, 2)), mg.tensor(np.ones((2, 2)), requires_grad=True)
    expected = recorded(mg.matmul, [array, leaf])
    assert recorded(lambda t: array @ t, [leaf]) == expected != []
    assert recorded(lambda t: t @ array, [leaf]) == recorded(mg.matmul, [leaf, array]) != []


@pytest.mark.parametrize("number", [2.5, 2, True], ids=repr)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "call",
    [
        *[getattr(mg, name) for name in ARITHMETIC],
        mg.maximum,
        mg.minimum,
        lambda x, y: mg.where(x > 0, x, y),
        lambda x, y: mg.clip(x, 0.0, y),
        lambda x, y: mg.stack([x[0], y]),
    ],
    ids=[*ARITHMETIC, "maximum", "minimum", "where", "clip", "stack"],
)
def test_python_numbers_keep_the_dtype(
    call: Callable[..., mg.Tensor], number: float, dtype: str
) -> None:
    assert call(mg.tensor([1.0, 2.0], dtype=dtype), number).dtype == dtype


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda t: t * [1.0, 2.0], [1.0, 4.0]),
        (lambda t: [1.0, 2.0] - t, [0.0, 0.0]),
        (lambda t: mg.maximum(t, [5.0, 0.0]), [5.0, 2.0]),
        (lambda t: mg.where([True, False], t, 0.0), [1.0, 0.0]),
        (lambda t: t @ [1.0, 2.0], 5.0),
        (lambda t: mg.concatenate([t, [3.0]]), [1.0, 2.0, 3.0]),
        (lambda t: mg.stack([t, [3.0, 4.0]]), [[1.0, 2.0], [3.0, 4.0]]),
        (lambda t: mg.linear(t, [[1.0, 1.0]], [0.5]), [3.5]),
    ],
    ids=["multiply", "reflected", "maximum", "where", "matmul", "concatenate", "stack", "linear"],
)
def test_a_list_of_numbers_can_meet_a_tensor(
    call: Callable[[mg.Tensor], mg.Tensor], expected: Any
) -> None:
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    with mg.Tape() as tape:
        y = call(x)
    assert (y.tolist(), str(y.dtype)) == (expected, "float32")
    assert tape.gradient(y, x, seed=np.ones(y.shape)).shape == (2,)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: mg.add([1.0], [2.0]), [3.0]),
        (lambda: mg.multiply([1.0, 2.0], 2), [2.0, 4.0]),
        (lambda: mg.equal([1.0, 2.0], [1.0, 0.0]), [True, False]),
        (lambda: mg.exp([0.0]), [1.0]),
        (lambda: mg.sum([[1.0], [2.0]], axis=0), [3.0]),
        (lambda: mg.concatenate([[1.0], [2.0]]), [1.0, 2.0]),
    ],
    ids=["add", "multiply", "equal", "exp", "sum", "concatenate"],
)
def test_lists_of_numbers_alone_stand_for_arrays(call: Callable[[], Any], expected: Any) -> None:
    np.testing.assert_array_equal(to_host(call()), expected)
