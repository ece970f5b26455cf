"""Every wrong use of an operation raises one line that names what was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from transfer import on_device

import minigrad as mg
from minigrad.arrays import namespace

T = mg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
U = mg.tensor([1.0, 2.0, 3.0, 4.0])
FOUR = on_device(np.ones(4))
CUBE = on_device(np.ones((2, 2, 3)))
INTEGERS = on_device(np.arange(6).reshape(2, 3))
#: The library of the arrays that tensors hold here.
ARRAYS = namespace(T.array)
SINGULAR = mg.tensor(np.zeros((2, 2)), requires_grad=True)
MASK = on_device(np.ones((2, 3), dtype=bool))


def case(name: str, call: Callable[[], Any], kind: type[Exception], *fragments: str) -> Any:
    """A wrong call, the error it raises, and what the message must say."""
    return pytest.param(call, kind, fragments, id=name)


def on_host(name: str, call: Callable[[], Any], kind: type[Exception], *fragments: str) -> Any:
    """One that CuPy does not notice, or that is about NumPy's arrays."""
    return pytest.param(call, kind, fragments, id=name, marks=pytest.mark.host)


SHAPES = [
    case("add", lambda: T + U, ValueError, "add", "(2, 3)", "(4,)"),
    case("multiply", lambda: FOUR * T, ValueError, "multiply", "(2, 3)", "(4,)"),
    case("power", lambda: T**U, ValueError, "power", "(2, 3)", "(4,)"),
    case("maximum", lambda: mg.maximum(T, U), ValueError, "maximum", "(2, 3)", "(4,)"),
    case("less", lambda: T < U, ValueError, "less", "(2, 3)", "(4,)"),
    case("equal", lambda: T == FOUR, ValueError, "equal", "(2, 3)", "(4,)"),
    case("where", lambda: mg.where(FOUR > 0, T, 0.0), ValueError, "where", "(2, 3)", "(4,)"),
    case("clip", lambda: mg.clip(T, FOUR, 9.0), ValueError, "clip", "(2, 3)", "(4,)"),
    case("matmul", lambda: T @ T, ValueError, "matmul", "(2, 3)", "3", "2"),
    case("matmul vector", lambda: T @ U, ValueError, "matmul", "(2, 3)", "(4,)"),
    case("matmul vectors", lambda: U @ U[:3], ValueError, "matmul", "(4,)", "(3,)"),
    case("matmul number", lambda: T @ 2.0, ValueError, "matmul", "(2, 3)", "2.0", "a * b"),
    case("matmul of number", lambda: 2.0 @ T, ValueError, "matmul", "(2, 3)", "2.0", "a * b"),
    case(
        "matmul stacks",
        lambda: mg.matmul(CUBE, mg.tensor(np.ones((3, 3, 2)))),
        ValueError,
        "matmul",
        "(2, 2, 3)",
        "(3, 3, 2)",
    ),
    case("linear", lambda: mg.linear(T, T.T, U), ValueError, "linear", "(2, 3)", "(3, 2)"),
    case("linear bias", lambda: mg.linear(T, T, U), ValueError, "linear", "(2, 3)", "(4,)"),
    case("linear number", lambda: mg.linear(T, 2.0, U), ValueError, "linear", "2.0", "weight"),
    case("reshape", lambda: T.reshape(4, 2), ValueError, "reshape", "(2, 3)", "(4, 2)"),
    case("logaddexp", lambda: mg.logaddexp(T, U), ValueError, "logaddexp", "(2, 3)", "(4,)"),
    case("arctan2", lambda: mg.arctan2(T, U), ValueError, "arctan2", "(2, 3)", "(4,)"),
    case("dot", lambda: mg.dot(T, U), ValueError, "matmul", "(2, 3)", "(4,)"),
    case("dot of stacks", lambda: mg.dot(U, CUBE), ValueError, "(4,)", "(2, 2, 3)"),
    case("inner", lambda: mg.inner(T, U), ValueError, "tensordot", "(2, 3)", "(4,)"),
    case("tensordot", lambda: mg.tensordot(T, T, 1), ValueError, "tensordot", "(3,)", "(2,)"),
    case("tensordot axes", lambda: mg.tensordot(T, U, 2), ValueError, "tensordot", "2", "(4,)"),
    case("tensordot axis", lambda: mg.tensordot(T, U, (5, 0)), ValueError, "tensordot", "5"),
    case("einsum lengths", lambda: mg.einsum("ij,j", T, U), ValueError, "einsum", "'j'", "3", "4"),
    case("einsum diagonal", lambda: mg.einsum("ii", T), ValueError, "einsum", "'i'", "2", "3"),
    case("einsum axes", lambda: mg.einsum("i", T), ValueError, "einsum", "'i'", "(2, 3)"),
    case("einsum operands", lambda: mg.einsum("ij,j", T), ValueError, "einsum", "(2, 3)"),
    case("einsum none", lambda: mg.einsum("i"), ValueError, "einsum", "'i'"),
    case("einsum result", lambda: mg.einsum("ij->k", T), ValueError, "einsum", "'ij->k'"),
    case("einsum twice", lambda: mg.einsum("ij->ii", T), ValueError, "einsum", "'ij->ii'"),
    case("einsum letters", lambda: mg.einsum("i1", T), ValueError, "einsum", "'i1'"),
    case("einsum dots", lambda: mg.einsum("i...j...", CUBE), ValueError, "einsum", "(2, 2, 3)"),
    case("einsum lists", lambda: mg.einsum(T, [0, 1]), TypeError, "einsum", "string"),  # type: ignore[arg-type]
    case("diag", lambda: mg.diag(CUBE), ValueError, "diag", "(2, 2, 3)"),
    case("inv", lambda: mg.linalg.inv(T), ValueError, "inv", "(2, 3)", "square"),
    on_host("inv singular", lambda: mg.linalg.inv(SINGULAR), ValueError, "inv", "Singular"),
    case("inv number", lambda: mg.linalg.inv(mg.tensor(1.0)), ValueError, "inv", "()"),
    case("det", lambda: mg.linalg.det(T), ValueError, "det", "(2, 3)", "square"),
    case("slogdet", lambda: mg.linalg.slogdet(T), ValueError, "slogdet", "(2, 3)", "square"),
    case("solve", lambda: mg.linalg.solve(SINGULAR, U), ValueError, "solve", "(2, 2)", "(4,)"),
    on_host(
        "cholesky",
        lambda: mg.linalg.cholesky(SINGULAR),
        ValueError,
        "cholesky",
        "positive definite",
    ),
    case("norm", lambda: mg.linalg.norm(T, 1), ValueError, "norm", "ord=1"),
    case("var", lambda: mg.var(U[:1], ddof=1), ValueError, "var", "(1,)", "ddof=1"),
    case("std", lambda: mg.std(U[:0]), ValueError, "std", "(0,)"),
    case("pad mode", lambda: mg.pad(T, 1, mode="edge"), ValueError, "pad", "'edge'", "'constant'"),
    case("pad width", lambda: mg.pad(T, ((1, 1),) * 3), ValueError, "pad", "(1, 1)", "(2, 3)"),
    case("pad triples", lambda: mg.pad(T, (1, 2, 3)), ValueError, "pad", "(1, 2, 3)", "(2, 3)"),
    case("pad less", lambda: mg.pad(T, -1), ValueError, "pad", "-1", "(2, 3)"),
    case("repeat", lambda: mg.repeat(T, (1, 2), axis=1), ValueError, "repeat", "3", "(1, 2)"),
    case("repeat less", lambda: mg.repeat(T, -1), ValueError, "repeat", "-1"),
    case("tile less", lambda: mg.tile(T, -1), ValueError, "tile", "-1"),
    case("broadcast_to", lambda: mg.broadcast_to(T, (3, 3)), ValueError, "(2, 3)", "(3, 3)"),
    case("squeeze", lambda: mg.squeeze(T, 0), ValueError, "squeeze", "axis 0", "(2, 3)"),
    case("split", lambda: mg.split(T, 2, axis=1), ValueError, "split", "3", "2 equal"),
    case("split by zero", lambda: mg.split(T, 0), ValueError, "split", "2", "0 equal"),
    case("split by float", lambda: mg.split(T, 1.5), TypeError, "split", "1.5"),
    case("split backwards", lambda: mg.split(T, (2, 1), axis=1), ValueError, "split", "(2, 1)"),
    case("concatenate nothing", lambda: mg.concatenate([]), ValueError, "concatenate", "nothing"),
    case("stack nothing", lambda: mg.stack([]), ValueError, "stack", "nothing"),
    case(
        "concatenate ndim",
        lambda: mg.concatenate([T, U]),
        ValueError,
        "concatenate",
        "(2, 3)",
        "(4,)",
    ),
    case(
        "concatenate lengths",
        lambda: mg.concatenate([T, mg.tensor(np.ones((2, 4)))]),
        ValueError,
        "concatenate",
        "(2, 3)",
        "(2, 4)",
    ),
    case(
        "concatenate no axes",
        lambda: mg.concatenate([mg.tensor(1.0), mg.tensor(2.0)]),
        ValueError,
        "concatenate",
        "axis 0",
        "()",
    ),
    case(
        "concatenate number",
        lambda: mg.concatenate([T, 1.0]),
        ValueError,
        "concatenate",
        "(2, 3)",
        "1.0",
    ),
    case("stack shapes", lambda: mg.stack([T, U]), ValueError, "stack", "(2, 3)", "(4,)"),
    case(
        "mean of nothing",
        lambda: mg.mean(mg.tensor(np.zeros((0, 2)))),
        ValueError,
        "mean",
        "(0, 2)",
    ),
    case(
        "max of nothing", lambda: mg.max(mg.tensor(np.zeros((0, 2)))), ValueError, "max", "(0, 2)"
    ),
    case(
        "argmax of nothing",
        lambda: mg.argmax(mg.tensor(np.zeros((0, 2)))),
        ValueError,
        "argmax",
        "(0, 2)",
    ),
]

AXES = [
    *[
        case(
            name,
            partial(getattr(mg, name), T, axis=5),
            ValueError,
            name,
            "axis",
            "5",
            "(2, 3)",
        )
        for name in (
            "sum",
            "mean",
            "max",
            "min",
            "argmax",
            "argmin",
            "prod",
            "var",
            "std",
            "all",
            "any",
            "cumsum",
            "cumprod",
            "sort",
            "argsort",
            "flip",
            "logsumexp",
            "softmax",
            "log_softmax",
            "unstack",
            "expand_dims",
            "squeeze",
        )
    ],
    case("mean twice", lambda: mg.mean(T, axis=(0, 0)), ValueError, "mean", "(0, 0)", "(2, 3)"),
    case("concatenate", lambda: mg.concatenate([T, T], axis=5), ValueError, "concatenate", "5"),
    case("stack", lambda: mg.stack([T, T], axis=5), ValueError, "stack", "5"),
    case("split", lambda: mg.split(T, 2, axis=5), ValueError, "split", "5", "(2, 3)"),
    case("roll", lambda: mg.roll(T, 1, axis=5), ValueError, "roll", "axis", "5", "(2, 3)"),
    case("repeat", lambda: mg.repeat(T, 2, axis=5), ValueError, "repeat", "5", "(2, 3)"),
    case("take", lambda: mg.take(T, 0, axis=5), ValueError, "take", "5", "(2, 3)"),
    case(
        "take_along_axis",
        lambda: mg.take_along_axis(T, INTEGERS, axis=5),
        ValueError,
        "take_along_axis",
        "5",
        "(2, 3)",
    ),
    case("norm", lambda: mg.linalg.norm(T, axis=5), ValueError, "norm", "5", "(2, 3)"),
    case("moveaxis", lambda: mg.moveaxis(T, 5, 0), ValueError, "moveaxis", "5", "(2, 3)"),
    case("moveaxis twice", lambda: mg.moveaxis(T, (0, 0), (0, 1)), ValueError, "(0, 0)", "(2, 3)"),
    case("moveaxis uneven", lambda: mg.moveaxis(T, (0, 1), 0), ValueError, "moveaxis", "2", "1"),
    case("expand_dims twice", lambda: mg.expand_dims(T, (0, 0)), ValueError, "(0, 0)", "(2, 3)"),
    case("squeeze pair", lambda: mg.squeeze(T, (0, 1)), ValueError, "squeeze", "(0, 1)", "(2, 3)"),
    case("diagonal twice", lambda: mg.diagonal(T, 0, 1, 1), ValueError, "diagonal", "(1, 1)"),
    case("trace of a vector", lambda: mg.trace(U), ValueError, "trace", "(4,)"),
    case("swapaxes", lambda: mg.swapaxes(T, 0, 5), ValueError, "swapaxes", "5", "(2, 3)"),
    case("transpose", lambda: T.transpose(0, 5), ValueError, "transpose", "5", "(2, 3)"),
    case("transpose one", lambda: T.transpose((0,)), ValueError, "transpose", "(0", "(2, 3)"),
    case("transpose twice", lambda: T.transpose(0, 0), ValueError, "transpose", "(0, 0)", "(2, 3)"),
    case("sum of a name", lambda: mg.sum(T, axis="x"), TypeError, "sum", "'x'", "(2, 3)"),  # type: ignore[arg-type]
]

INDICES = [
    on_host("take beyond", lambda: mg.take(T, [0, 9]), IndexError, "9"),
    case("take floats", lambda: mg.take(T, [0.5]), IndexError, "take", "integers", "float64"),
    case("take mask", lambda: mg.take(T, MASK), IndexError, "take", "integers", "bool"),
    case(
        "take_along_axis",
        lambda: mg.take_along_axis(T, [0, 1]),
        ValueError,
        "take_along_axis",
        "(2,)",
        "(2, 3)",
    ),
    case("set_at beyond", lambda: mg.set_at(T, 7, 0.0), IndexError, "set_at", "7", "(2, 3)"),
    on_host("set_at in a list", lambda: mg.set_at(T, [0, 9], U), IndexError, "set_at", "9"),
    case("set_at shape", lambda: mg.set_at(T, 0, U), ValueError, "set_at", "(2, 3)", "(4,)"),
    case(
        "set_at shape in a list",
        lambda: mg.set_at(T, [0, 1], U),
        ValueError,
        "(4,)",
        "(2, 3)",
    ),
    case(
        "set_at floats among integers",
        lambda: mg.set_at(mg.tensor(INTEGERS), 0, 0.5),
        TypeError,
        "set_at",
        "int64",
        "astype",
    ),
    case("beyond", lambda: T[7], IndexError, "getitem", "7", "(2, 3)"),
    on_host("beyond in a list", lambda: T[[0, 9]], IndexError, "getitem", "9", "(2, 3)"),
    case("too many", lambda: T[0, 0, 0], IndexError, "getitem", "(0, 0, 0)", "(2, 3)"),
    case("float", lambda: T[1.5], IndexError, "getitem", "1.5", "(2, 3)", "integers"),
    case("list of floats", lambda: T[[0.5]], IndexError, "getitem", "(2, 3)", "integer"),
    case("float tensor", lambda: T[U], IndexError, "float32", "astype('int64')"),
    case("name", lambda: T["a"], IndexError, "getitem", "'a'", "(2, 3)"),
    case("mask", lambda: T[FOUR > 0], IndexError, "getitem", "(4,) bool", "(2, 3)"),
]

OPERANDS = [
    case("complex number", lambda: T * 1j, TypeError, "multiply", "complex"),
    case("complex scalar", lambda: T * np.complex64(1j), TypeError, "multiply", "complex64"),
    case("complex array", lambda: T + ARRAYS.array([1j]), TypeError, "add", "complex128"),
    case("complex tensor", lambda: mg.tensor([1j]), TypeError, "complex128", ".real"),
    case("complex cast", lambda: T.astype("complex64"), TypeError, "astype", "complex64"),
    case("cast to text", lambda: T.astype("U5"), TypeError, "astype", "U5"),
    case("unknown cast", lambda: T.astype("float33"), TypeError, "astype", "float33"),
    case("ragged", lambda: T * [[1.0], [1.0, 2.0]], ValueError, "ragged"),
    case("ragged tensor", lambda: mg.tensor([[1.0], [1.0, 2.0]]), ValueError, "ragged"),
    case("text", lambda: T + "a", TypeError, "add", "str"),
    case("text reflected", lambda: "a" * T, TypeError, "multiply", "str"),
    on_host("text array", lambda: T + np.array(["a"]), TypeError, "add", "<U1", "(2, 3)"),
    case("text compared", lambda: T < "a", TypeError, "less"),
    case("text in where", lambda: mg.where(MASK, T, "a"), TypeError, "where", "str"),
    case("text alone", lambda: mg.tensor("a"), TypeError, "numbers", "<U1"),
    case("None", lambda: T * None, TypeError, "multiply", "NoneType"),
    on_host("objects", lambda: T + np.array([None]), TypeError, "add", "object", "(2, 3)"),
    case("minus of booleans", lambda: -(T > 0), TypeError, "negative", "(2, 3) bool"),
    case("integer power", lambda: mg.tensor([1, 2]) ** -1, ValueError, "power", "(2,) int64", "-1"),
    case(
        "leaf of integers",
        lambda: mg.tensor([1, 2], requires_grad=True),
        TypeError,
        "int64",
        "dtype='float32'",
    ),
]

ARGUMENTS = [
    case("too few operands", lambda: mg.where(MASK, T), TypeError, "where", "'y'"),  # type: ignore[call-arg]
    case("too many operands", lambda: mg.exp(T, T), TypeError, "exp"),  # type: ignore[call-arg]
    case("too many settings", lambda: mg.sum(T, 0, False, 7), TypeError, "sum"),  # type: ignore[call-arg]
    case("lengths one by one", lambda: mg.reshape(T, 6, 1), TypeError, "reshape"),  # type: ignore[call-arg]
    case("a setting twice", lambda: mg.sum(T, 0, axis=1), TypeError, "sum", "'axis'"),  # type: ignore[misc]
    case("unknown setting", lambda: mg.sum(T, axes=0), TypeError, "sum", "'axes'"),  # type: ignore[call-arg]
    case("missing setting", lambda: mg.scale_gradient(T), TypeError, "scale_gradient", "'scale'"),  # type: ignore[call-arg]
    case("unknown to where", lambda: mg.where(MASK, T, T, axis=0), TypeError, "where", "'axis'"),  # type: ignore[call-arg]
]

TENSORS = [
    case("setitem", lambda: T.__setitem__(0, 1.0), TypeError, "mg.set_at", "x[mask] = v"),
    case("bool", lambda: bool(T), ValueError, "(2, 3)", ".all()"),
    case("bool of none", lambda: bool(mg.tensor([])), ValueError, "(0,)"),
    case("float", lambda: float(T), ValueError, "(2, 3)"),
    case("asarray", lambda: np.asarray(T), TypeError, "gradient", "t.numpy()"),
    case("array of dtype", lambda: np.array(T, dtype="float64"), TypeError, "t.numpy()"),
]

NUMPY = [
    case("svd", lambda: np.linalg.svd(T), TypeError, "np.linalg.svd", "no gradient rule"),
    case("median", lambda: np.median(T), TypeError, "np.median", "no gradient rule"),
    case("cbrt", lambda: np.cbrt(T), TypeError, "np.cbrt", "no gradient rule"),
    case("out", lambda: np.add(T, T, out=np.ones((2, 3))), TypeError, "np.add", "out="),
    case("out of sum", lambda: np.sum(T, out=np.ones(())), TypeError, "np.sum", "out="),
    case("in place", lambda: np.ones((2, 3)).__iadd__(T), TypeError, "np.add", "out="),
    case("where keyword", lambda: np.add(T, T, where=MASK), TypeError, "np.add", "where="),
    case("where of sum", lambda: np.sum(T, where=MASK), TypeError, "np.sum", "where="),
    case("dtype", lambda: np.add(T, T, dtype="float64"), TypeError, "add", "dtype"),
    case("dtype of sum", lambda: np.sum(T, dtype="float64"), TypeError, "sum", "'dtype'"),
    case("reduce", lambda: np.add.reduce(T), TypeError, "np.add.reduce", "mg.sum"),
    case("outer", lambda: np.multiply.outer(T, T), TypeError, "np.multiply.outer"),
    case("at", lambda: np.add.at(np.ones((2, 3)), 0, T), TypeError, "np.add.at"),
    case("where alone", lambda: np.where(T), TypeError, "where", "missing", "'x' and 'y'"),
]


@pytest.mark.parametrize(
    ("call", "kind", "fragments"),
    [*SHAPES, *AXES, *INDICES, *OPERANDS, *ARGUMENTS, *TENSORS, *NUMPY],
)
def test_the_error_says_what_was_wrong(
    call: Callable[[], Any], kind: type[Exception], fragments: tuple[str, ...]
) -> None:
    with mg.Tape(), pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, f"{fragment!r} is missing from: {message}"


def test_a_failed_operation_leaves_an_open_tape_as_it_was() -> None:
    with mg.Tape() as tape:
        y = mg.sum(T)
        before = len(tape)
        with pytest.raises(ValueError, match="add"):
            T + U
        assert len(tape) == before
    assert tape.gradient(y, T).tolist() == [[1.0] * 3] * 2


def test_an_array_that_meets_a_tensor_in_place_is_not_changed() -> None:
    array = np.ones((2, 3))
    with pytest.raises(TypeError, match="out="):
        array += T  # type: ignore[misc, unused-ignore]
    assert array.tolist() == [[1.0] * 3] * 2


def test_setting_an_item_does_not_change_the_tensor() -> None:
    t = mg.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"mg\.where"):
        t[0] = 5.0
    assert t.tolist() == [1.0, 2.0]


@pytest.mark.host
def test_a_constant_becomes_an_array_without_a_word() -> None:
    assert np.asarray(T.detach()).tolist() == T.tolist()
