"""What CuPy does, as a table of expressions and their values.

It is what the stand-in claims, and is checked by running it on the stand-in, always, and on CuPy
wherever there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np


class Probe(NamedTuple):
    """An expression, and what becomes of it.

    Attributes:
        expression: of the names that :func:`names` gives.
        outcome: the type of an error; or the dtype and the (nested) values of an array; or any
            other value.
        refused: the error of the stand-in, where on purpose it is stricter than CuPy; then
            ``outcome`` is that of CuPy alone.
        waits: whether the host waits for the device, as CuPy's source has it; of the stand-in.
    """

    expression: str
    outcome: Any
    refused: type[Exception] | None = None
    waits: bool = False


def names(cupy: ModuleType) -> dict[str, Any]:
    """The names of the expressions: cp, np, some arrays, and statements as functions."""
    cp: Any = cupy
    return {
        "cp": cp,
        "np": np,
        "f": cp.array([1.0, 2.0, 3.0], dtype="float32"),
        "h": cp.array([1.0, 2.0], dtype="float16"),
        "d": cp.array([[1.0, 2.0], [3.0, 4.0]]),
        "i": cp.array([0, 2]),
        "far": cp.array([-4, 5]),
        "twice": cp.array([1, 1]),
        "m": cp.array([True, False, True]),
        "none": cp.zeros((0, 3)),
        "nan": cp.array([float("nan"), 1.0]),
        "host": np.array([1.0, 2.0, 3.0], dtype="float32"),
        "foreign": _Foreign(),
        "assigned": _assigned,
        "added": _added,
        "in_place": _in_place,
        "kind": lambda x: "device array" if isinstance(x, cp.ndarray) else type(x).__name__,
    }


class _Foreign:
    """An operand of another library, which answers with the name of what it was asked."""

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any) -> str:
        return function.__name__


def _assigned(x: Any, index: Any, value: Any) -> Any:
    x = x.copy()
    x[index] = value
    return x


def _added(function: Any, x: Any, index: Any, value: Any) -> Any:
    x = x.copy()
    function.at(x, index, value)
    return x


def _in_place(x: Any, change: Callable[[Any], Any]) -> bool:
    """Whether an augmented assignment left the array the same object."""
    before = x = x.copy()
    x = change(x)
    return x is before


def outcome(expression: str, known: dict[str, Any]) -> Any:
    """What becomes of an expression, in the form of :attr:`Probe.outcome`."""
    try:
        value = eval(expression, dict(known))
    except Exception as error:
        return type(error)
    return _plain(value, known["cp"])


def _plain(value: Any, cp: Any) -> Any:
    if isinstance(value, cp.ndarray):
        return str(value.dtype), value.tolist()
    if isinstance(value, np.ndarray):
        return "host", str(value.dtype), value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(part, cp) for part in value]
    return value


F4, F8, F2, I8, BOOL = "float32", "float64", "float16", "int64", "bool"
NAN = float("nan")

PROBES = [
    # Universal functions take out, dtype and casting alone.
    Probe("cp.add(f, f, dtype='float64')", (F8, [2.0, 4.0, 6.0])),
    Probe("cp.add(f, f, out=f.copy())", (F4, [2.0, 4.0, 6.0])),
    Probe("cp.add(f, f, where=m)", TypeError),
    Probe("cp.add(f, f, order='C')", TypeError),
    Probe("cp.add(f, f, subok=False)", TypeError),
    Probe("cp.add.reduce(f)", (F4, 6.0)),
    Probe("cp.multiply.reduce(f)", (F4, 6.0)),
    Probe("cp.add.accumulate(f)", (F4, [1.0, 3.0, 6.0])),
    Probe("cp.maximum.reduce(f)", NotImplementedError),
    Probe("cp.maximum.accumulate(f)", NotImplementedError),
    Probe("cp.logaddexp.reduce(f)", NotImplementedError),
    # Scattering
    Probe("added(cp.add, f, twice, 1.0)", (F4, [1.0, 4.0, 3.0])),
    Probe("added(cp.add, h, cp.array([0, 0]), 1.0)", (F2, [3.0, 2.0])),
    Probe("added(cp.add, cp.zeros(2, 'int16'), twice, 1)", TypeError),
    Probe("added(cp.add, cp.zeros(2, 'int8'), twice, 1)", TypeError),
    Probe("added(cp.add, d, (slice(None), twice), 1.0)", (F8, [[1.0, 4.0], [3.0, 6.0]])),
    Probe("added(cp.add, d, (twice, twice), 1.0)", (F8, [[1.0, 2.0], [3.0, 6.0]])),
    Probe("added(cp.maximum, f, twice, 9.0)", (F4, [1.0, 9.0, 3.0])),
    Probe("added(cp.minimum, f, twice, 0.0)", (F4, [1.0, 0.0, 3.0])),
    Probe("added(cp.maximum, cp.zeros(2, 'int64'), twice, 1)", TypeError),
    Probe("added(cp.multiply, f, twice, 2.0)", NotImplementedError),
    # Reductions
    Probe("f.sum(where=m)", TypeError),
    Probe("f.sum(initial=1.0)", TypeError),
    Probe("f.max(initial=0.0)", TypeError),
    Probe("cp.sum(f, where=m)", TypeError),
    Probe("d.var(correction=1)", TypeError),
    Probe("d.var(0, ddof=1)", (F8, [2.0, 2.0])),
    Probe("d.std(mean=1.0)", TypeError),
    Probe("cp.count_nonzero(f, keepdims=True)", TypeError),
    Probe("kind(f.sum())", "device array"),
    Probe("kind(cp.max(f))", "device array"),
    Probe("kind(f[0])", "device array"),
    Probe("kind(f @ f)", "device array"),
    Probe("f.sum().shape", ()),
    Probe("(f * f.sum()).dtype.name", F4),
    Probe("m.sum()", (I8, 2)),
    Probe("none.max(0)", ValueError),
    Probe("none.sum(0)", (F8, [0.0, 0.0, 0.0])),
    Probe("d.argmax(1, keepdims=True)", (I8, [[1], [1]])),
    Probe("cp.isnan(nan.max())", (BOOL, True)),
    Probe("nan.argmax()", (I8, 0)),
    Probe("f.cumsum(0)", (F4, [1.0, 3.0, 6.0])),
    Probe("f.cumprod(0)", (F4, [1.0, 2.0, 6.0])),
    # Products of matrices
    Probe("d @ d", (F8, [[7.0, 10.0], [15.0, 22.0]])),
    Probe("cp.matmul(d, d, out=cp.empty((2, 2)))", (F8, [[7.0, 10.0], [15.0, 22.0]])),
    Probe("cp.matmul(d, d, d.copy())", TypeError),
    Probe("cp.add(f, f, f.copy())", (F4, [2.0, 4.0, 6.0])),
    Probe("d.dot(d)", (F8, [[7.0, 10.0], [15.0, 22.0]])),
    Probe("d @ 2.0", ValueError),
    Probe("d @ np.eye(2)", TypeError),
    Probe("hasattr(f, '__imatmul__')", False),
    Probe("(h @ h).dtype.name", F2),
    Probe("cp.einsum('ij,jk->ik', d, d)", (F8, [[7.0, 10.0], [15.0, 22.0]])),
    Probe("cp.einsum('ij,jk->ik', d, d, optimize=True)", (F8, [[7.0, 10.0], [15.0, 22.0]])),
    Probe("cp.einsum('ij->ji', d, out=d)", TypeError),
    Probe("cp.einsum('ij->ji', d, order='C')", TypeError),
    *[Probe(f"cp.{name}", AttributeError) for name in ("vecdot", "matvec", "vecmat", "unstack")],
    *[Probe(f"cp.{name}", AttributeError) for name in ("einsum_path", "insert", "block")],
    # Reading by index
    Probe("f[i]", (F4, [1.0, 3.0])),
    Probe("f[far]", (F4, [3.0, 3.0])),
    Probe("f.take(far)", (F4, [3.0, 3.0])),
    Probe("d[far % 2, twice]", (F8, [2.0, 4.0])),
    Probe("f[5]", IndexError),
    Probe("f[cp.array(1)]", (F4, 2.0)),
    Probe("f[f]", IndexError),
    Probe("f[m]", (F4, [1.0, 3.0]), waits=True),
    Probe("f[cp.array([True, False])]", IndexError, waits=True),
    Probe("f[np.int64(1)]", (F4, 2.0)),
    Probe("f[[0, 2]]", (F4, [1.0, 3.0]), refused=TypeError),
    Probe("f[np.array([0, 2])]", (F4, [1.0, 3.0]), refused=TypeError),
    Probe("none[cp.array([0])]", IndexError),
    Probe("f.take(i, mode='clip')", TypeError),
    Probe("cp.take(f, i, mode='wrap')", TypeError),
    Probe("cp.take_along_axis(d, cp.array([[1], [0]]), 1)", (F8, [[2.0], [3.0]])),
    Probe("cp.take_along_axis(arr=d, indices=i, axis=0)", TypeError),
    Probe("[1, 2, 3][cp.array(1)]", TypeError),
    # Assigning by index
    Probe("assigned(f, 0, 9.0)", (F4, [9.0, 2.0, 3.0])),
    Probe("assigned(f, i, 9.0)", (F4, [9.0, 2.0, 9.0])),
    Probe("assigned(f, cp.array([4]), 9.0)", (F4, [1.0, 9.0, 3.0])),
    Probe("assigned(f, m, 9.0)", (F4, [9.0, 2.0, 9.0]), waits=True),
    Probe("assigned(f, m, cp.array([8.0, 9.0]))", (F4, [8.0, 2.0, 9.0]), waits=True),
    Probe("assigned(f, twice, 9.0)", (F4, [1.0, 9.0, 3.0])),
    Probe("kind(assigned(f, twice, f[:2]))", "device array", refused=AssertionError),
    Probe("added(cp.maximum, cp.zeros(2, 'uint64'), twice, 1)", ("uint64", [0, 1])),
    # Where, sorting, and what waits
    Probe("cp.where(m, f, 0.0)", (F4, [1.0, 0.0, 3.0])),
    Probe("cp.where(True, f, 0.0)", AttributeError),
    Probe("cp.where(m, f)", ValueError),
    Probe("cp.where(m)", [(I8, [0, 2])], waits=True),
    Probe("m.nonzero()", [(I8, [0, 2])], refused=AttributeError),
    Probe("cp.nonzero(m)", [(I8, [0, 2])], waits=True),
    Probe("cp.flatnonzero(m)", (I8, [0, 2]), waits=True),
    Probe("cp.argwhere(m)", (I8, [[0], [2]]), waits=True),
    Probe("cp.unique(twice)", (I8, [1]), waits=True),
    Probe("f.argsort()", (I8, [0, 1, 2])),
    Probe("cp.argsort(f, kind='stable')", (I8, [0, 1, 2])),
    Probe("cp.argsort(f, kind='quicksort')", ValueError),
    Probe("cp.sort(-f)", (F4, [-3.0, -2.0, -1.0])),
    Probe("cp.allclose(f, f)", (BOOL, True)),
    Probe("cp.array_equal(f, f)", (BOOL, True)),
    # Names of parameters
    Probe("cp.clip(f, 1.5, 2.5)", (F4, [1.5, 2.0, 2.5])),
    Probe("cp.clip(f, min=1.5, max=2.5)", TypeError),
    Probe("cp.reshape(f, shape=(3, 1))", TypeError),
    Probe("cp.concatenate([f, f], 0).shape", (6,)),
    Probe("cp.concatenate(arrays=[f, f])", TypeError),
    Probe("cp.stack([f, f], 1).shape", (3, 2)),
    Probe("cp.stack(arrays=[f, f])", TypeError),
    Probe("cp.concatenate([f, host])", TypeError),
    Probe("cp.full((2,), 1.5, f.dtype)", (F4, [1.5, 1.5])),
    Probe("cp.full_like(f, 2.0)", (F4, [2.0, 2.0, 2.0])),
    Probe("cp.roll(f, (1,), (0,))", (F4, [3.0, 1.0, 2.0])),
    Probe("cp.tril(d)", (F8, [[1.0, 0.0], [3.0, 4.0]])),
    Probe("cp.triu(d, 1)", (F8, [[0.0, 2.0], [0.0, 0.0]])),
    Probe("d.diagonal(0, -2, -1)", (F8, [1.0, 4.0])),
    Probe("cp.round(f * 1.26, 1)", (F4, [1.3, 2.5, 3.8])),
    # Numbers, promotion, and what is not an array
    Probe("(f + 1.0).dtype.name", F4),
    Probe("[f * foreign, f / foreign, f < foreign]", ["multiply", "divide", "less"]),
    Probe("d @ foreign", "matmul"),
    Probe("[f == None, f != None]", [(BOOL, [False] * 3), (BOOL, [True] * 3)]),
    Probe("f < None", TypeError),
    Probe("(f + np.float32(1.0)).dtype.name", F4),
    Probe("(f + np.float64(3.0)).dtype.name", F8),
    Probe("(np.float64(3.0) * f).dtype.name", F8),
    Probe("(np.float32(3.0) * f).dtype.name", F4),
    Probe("(h + 1.0).dtype.name", F2),
    Probe("(i + 1.0).dtype.name", F8),
    Probe("(i / 2).dtype.name", F8),
    Probe("(m + m).dtype.name", BOOL),
    Probe("cp.tanh(i).dtype.name", F8),
    Probe("cp.exp(m).dtype.name", F2),
    Probe("(f > 1.0)", (BOOL, [False, True, True])),
    Probe("(f == float('nan'))", (BOOL, [False, False, False])),
    Probe("f.astype('float64')", (F8, [1.0, 2.0, 3.0])),
    Probe("f.astype('float32', copy=False) is f", True),
    Probe("[cp.asarray(f) is f, cp.asarray(f, order='K') is f]", [True, True]),
    Probe(
        "[cp.asarray(np.eye(3)[::-1]).strides, cp.array(np.eye(3).T).strides]", [(24, 8), (8, 24)]
    ),
    Probe("cp.asarray(np.eye(3).T).strides", (24, 8)),
    Probe("cp.asarray(np.eye(3).T, order='K').strides", (8, 24)),
    Probe("[cp.asfortranarray(d).strides, cp.flip(f).strides]", [(8, 16), (-4,)]),
    Probe("cp.result_type(f, 1.0).name", F4),
    Probe("f + host", TypeError),
    Probe("host + f", TypeError),
    Probe("cp.add(f, host)", TypeError),
    Probe("cp.maximum(host, f)", TypeError),
    Probe("f + [1.0, 2.0, 3.0]", TypeError),
    Probe("cp.array(host)", (F4, [1.0, 2.0, 3.0])),
    Probe("cp.array([1, 2])", (I8, [1, 2])),
    Probe("cp.array(['a'])", ValueError),
    Probe("in_place(f, lambda x: x.__iadd__(1.0))", True),
    Probe("f.__imul__(np.ones(3, 'float32'))", TypeError),
    # To the host
    Probe("np.asarray(f)", TypeError),
    Probe("np.tanh(f)", (F4, np.tanh(np.array([1, 2, 3], "float32")).tolist()), refused=TypeError),
    Probe("np.sum(f)", (F4, 6.0), refused=TypeError),
    Probe("np.concatenate([f, f]).shape", (6,), refused=TypeError),
    Probe("f.get()", ("host", F4, [1.0, 2.0, 3.0]), waits=True),
    Probe("cp.asnumpy(f)", ("host", F4, [1.0, 2.0, 3.0]), waits=True),
    Probe("float(f.sum())", 6.0, waits=True),
    Probe("int(i.sum())", 2, waits=True),
    Probe("bool(m[0])", True, waits=True),
    Probe("bool(m)", ValueError, waits=True),
    Probe("f.sum().item()", 6.0, waits=True),
    Probe("f.tolist()", [1.0, 2.0, 3.0], waits=True),
    Probe("str(f)", "[1. 2. 3.]", waits=True),
    Probe("hasattr(f, '__index__')", False),
    Probe("hasattr(f, '__contains__')", False),
    Probe("hasattr(f, '__array_namespace__')", False),
    Probe("len(f)", 3),
    Probe("len(f.sum())", TypeError),
    Probe("hash(f)", TypeError),
    # Views and owners
    Probe("d.T.base is None", False),
    Probe("d[0].base is None", False),
    Probe("f.copy().base is None", True),
    Probe("d.T", (F8, [[1.0, 3.0], [2.0, 4.0]])),
    # Random numbers
    Probe("cp.random.default_rng(0).random((2,), dtype='float32').dtype.name", F4),
    Probe("cp.random.default_rng(0).random(3).shape", (3,)),
    Probe("cp.random.Generator(cp.random.Philox4x3210(1 << 62)).random((2, 3)).shape", (2, 3)),
    Probe("cp.random.default_rng(0).standard_normal((2,), dtype='float32').dtype.name", F4),
    *[
        Probe(f"cp.random.default_rng(0).{name}(3)", AttributeError)
        for name in ("normal", "permutation", "shuffle", "choice", "permuted", "spawn", "bytes")
    ],
    Probe("cp.random.default_rng(0).bit_generator.state", AttributeError),
    # The state of floating-point errors
    Probe("cp.errstate", AttributeError),
    Probe("cp.seterr", AttributeError),
    Probe("cp.log(cp.array([0.0, -1.0])).shape", (2,)),
    # Linear algebra
    Probe("cp.linalg.inv(cp.array([[2.0, 0.0], [0.0, 4.0]]))", (F8, [[0.5, 0.0], [0.0, 0.25]])),
    Probe("cp.linalg.inv(cp.zeros((2, 2))).shape", (2, 2)),
    Probe("cp.linalg.inv(cp.zeros((2, 2), 'float16'))", TypeError),
    Probe("cp.linalg.cholesky(-cp.eye(2)).shape", (2, 2)),
    Probe("type(cp.linalg.slogdet(d)) is tuple", True),
    Probe("cp.linalg.solve(cp.ones((3, 2, 2)), cp.ones((2, 1)))", ValueError),
    # Devices and memory
    Probe("f.device == cp.cuda.Device(0)", True),
    Probe("cp.cuda.Device().id", 0),
    Probe("cp.is_available()", True),
    Probe("cp.get_default_memory_pool().used_bytes() % 512", 0),
    Probe("f.__dlpack_device__()", [2, 0]),
    Probe("cp.from_dlpack(f)", (F4, [1.0, 2.0, 3.0])),
]
