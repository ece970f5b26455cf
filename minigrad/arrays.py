"""NumPy or CuPy: the one room that knows which.

The rest of minigrad asks :func:`namespace` for the library that an array belongs to and
calls NumPy's names on it. CuPy is imported when a device array is first asked for, never
before. Where the two libraries differ, the difference is settled here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy

#: A NumPy or a CuPy array.
Array: TypeAlias = Any
#: What the operations accept: a Tensor, an array, a number, or a nested list of numbers.
TensorLike: TypeAlias = Any
DType: TypeAlias = "numpy.dtype[Any]"


class _Namespaces(dict[type, Any]):
    """Array type -> array library; CuPy's types are entered when first seen."""

    def __missing__(self, kind: type) -> Any:
        if kind.__module__.partition(".")[0] == "cupy":
            self[kind] = cupy()
            return self[kind]
        if issubclass(kind, numpy.ndarray | numpy.generic):
            return numpy
        return None


_namespaces = _Namespaces({numpy.ndarray: numpy, float: None, int: None, bool: None})


def cupy() -> Any:
    """The CuPy module, or an error that names the extra to install."""
    try:
        import cupy as module
    except ImportError as error:
        raise ImportError(
            "arrays on a GPU need CuPy: install minigrad[cuda13], or minigrad[cuda12] "
            "for a driver of CUDA 12"
        ) from error
    return module


def namespace(operand: Any) -> Any:
    """The array library of an array; NumPy's for anything else."""
    return _namespaces[type(operand)] or numpy


def common_namespace(*operands: Any) -> Any:
    """The array library of the first array among the operands; NumPy if there is none."""
    return next(filter(None, (_namespaces[type(operand)] for operand in operands)), numpy)


def is_array(value: object) -> bool:
    """Whether ``value`` is an array (or an array scalar) of a known library."""
    return _namespaces[type(value)] is not None


def as_array(value: Any) -> Array:
    """``value`` unless it is an array scalar, which becomes an array of no dimensions."""
    return numpy.asarray(value) if isinstance(value, numpy.generic) else value


# --------------------------------------------------------------------------------------
# Making arrays
# --------------------------------------------------------------------------------------

_default_dtype: DType = numpy.dtype("float32")


def set_default_dtype(dtype: Any) -> None:
    """Set the dtype that :func:`minigrad.tensor` gives to Python floats (float32).

    Raises ``TypeError`` for a dtype that is not float16, float32 or float64.

    >>> import minigrad as mg
    >>> mg.set_default_dtype("float64")
    >>> mg.tensor(0.5).dtype
    dtype('float64')
    >>> mg.set_default_dtype("float32")
    """
    global _default_dtype
    wanted = numpy.dtype(dtype)
    if wanted not in ("float16", "float32", "float64"):
        raise TypeError(f"the default dtype is float16, float32 or float64, not {wanted}")
    _default_dtype = wanted


def floating_dtype(dtype: Any | None) -> DType:
    """``dtype`` as a float dtype object; the default dtype for ``None``."""
    if dtype is None:
        return _default_dtype
    wanted = numpy.dtype(dtype)
    if wanted.kind != "f":
        raise TypeError(f"a float dtype is needed here (float16, float32, float64), not {wanted}")
    return wanted


def make_array(data: Any, dtype: Any = None, device: str | None = None, *, copy: bool) -> Array:
    """An array of ``data`` on ``device``; Python floats take the default dtype.

    ``copy=False`` shares memory with ``data`` where dtype and device allow it.
    """
    if is_array(data):
        array = data
    else:
        try:
            array = numpy.asarray(data)
        except ValueError as error:
            raise ValueError(
                "a tensor needs nested sequences of equal lengths; these are ragged"
            ) from error
        if dtype is None and array.dtype.kind == "f" and not hasattr(data, "__array__"):
            dtype = _default_dtype  # of numbers; another library's array keeps its own
        copy = copy and not isinstance(data, list)  # a buffer of another kind may be shared
    check_real(array.dtype)
    check_real(numpy.dtype(dtype or array.dtype))
    if device is not None and device != device_of(array):
        array, copy = to_device(array, device), False
    if dtype is not None and array.dtype != dtype:
        array, copy = array.astype(dtype), False
    return as_array(array.copy() if copy else array)


def check_real(dtype: DType) -> None:
    """Raise ``TypeError`` unless tensors can hold ``dtype``."""
    if dtype.kind not in "biuf":
        raise TypeError(
            f"a tensor holds real numbers or booleans, not {dtype}"
            + ("; split it into .real and .imag" if dtype.kind == "c" else "")
        )


# --------------------------------------------------------------------------------------
# Devices
# --------------------------------------------------------------------------------------


def device_of(array: Array) -> str:
    """``"cpu"``, or ``"cuda:0"`` and so on for a CuPy array."""
    if isinstance(array, numpy.ndarray | numpy.generic):
        return "cpu"
    return f"cuda:{array.device.id}"


def to_device(array: Array, device: str) -> Array:
    """``array`` on ``device``: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``."""
    if device == "cpu":
        return to_numpy(array)
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise ValueError(f"unknown device {device!r}: write 'cpu', 'cuda' or 'cuda:0'")
    library = cupy()
    if not library.is_available():
        raise RuntimeError(f"device {device!r} was asked for, but CuPy finds no usable GPU")
    with library.cuda.Device(int(match[1] or 0)):
        return library.asarray(array)


def from_dlpack(source: Any) -> Array:
    """The array of another library, sharing its memory, on the device where it is."""
    kind, _ = source.__dlpack_device__()
    cpu, cuda = 1, 2
    if kind not in (cpu, cuda):
        raise TypeError(f"DLPack device {kind} is neither the CPU nor a CUDA device")
    return (numpy if kind == cpu else cupy()).from_dlpack(source)


def to_numpy(array: Array) -> numpy.ndarray[Any, Any]:
    """``array`` as a NumPy array; a CuPy array is copied to the host."""
    return numpy.asarray(array if device_of(array) == "cpu" else array.get())


# --------------------------------------------------------------------------------------
# Random numbers, always from an explicit generator
# --------------------------------------------------------------------------------------


def generator(rng: Any) -> numpy.random.Generator:
    """A NumPy generator of a generator, of a seed, or of fresh entropy for ``None``."""
    return numpy.random.default_rng(rng)


def random_like(rng: numpy.random.Generator, array: Array, shape: Sequence[int]) -> Array:
    """Uniform numbers in [0, 1), of ``array``'s library and device, float32.

    On a GPU they are drawn there, by a generator that ``rng`` seeds.
    """
    states = _states_before_drawing.get()
    if states is not None:
        states.setdefault(id(rng), (rng, rng.bit_generator.state))
    library = namespace(array)
    if library is not numpy:
        rng = library.random.default_rng(int(rng.integers(1 << 63)))
    return rng.random(shape, dtype="float32")


#: Generators by id, and the states in which they were when :func:`remembered_draws` began.
States: TypeAlias = "dict[int, tuple[numpy.random.Generator, Any]]"

_states_before_drawing: ContextVar[States | None] = ContextVar("states", default=None)


@contextmanager
def remembered_draws() -> Iterator[States]:
    """Collects the state that every generator had before it drew in this block."""
    states: States = {}
    outer = _states_before_drawing.get()
    token = _states_before_drawing.set(states)
    try:
        yield states
    finally:
        _states_before_drawing.reset(token)
        if outer is not None:
            outer |= {key: state for key, state in states.items() if key not in outer}


@contextmanager
def repeated_draws(states: States) -> Iterator[None]:
    """In this block the generators draw again what they drew from those states on."""
    now = [(rng, rng.bit_generator.state) for rng, _ in states.values()]
    for rng, state in states.values():
        rng.bit_generator.state = state
    try:
        yield
    finally:
        for rng, state in now:
            rng.bit_generator.state = state


# --------------------------------------------------------------------------------------
# What the two libraries do differently
# --------------------------------------------------------------------------------------


def add_at(target: Array, index: Any, values: Array) -> None:
    """``target[index] += values`` where positions that ``index`` repeats add up.

    Rows gathered by one array of integers, the gradient of an embedding, are by far the
    most common case, and NumPy's ``add.at`` is slow at it: they are sorted by position
    and each run of equals is summed at once.
    """
    library = namespace(target)
    if library is numpy and isinstance(index, numpy.ndarray) and index.dtype.kind in "iu":
        if values.size:
            positions = index.ravel().astype(numpy.intp) % len(target)
            order = numpy.argsort(positions, kind="stable")
            positions = positions[order]
            starts = numpy.flatnonzero(numpy.diff(positions, prepend=-1))
            rows = values.reshape(index.size, -1)[order]
            sums = numpy.add.reduceat(rows, starts, axis=0)
            target.reshape(len(target), -1)[positions[starts]] += sums
    else:
        library.add.at(target, index, values)


def check_positions(positions: Array, length: int, what: str) -> None:
    """Raise ``IndexError`` unless all ``positions`` are integers in ``0 .. length - 1``.

    The range is not checked on a GPU, where looking at a value waits for the device.
    """
    if positions.dtype.kind not in "iu":
        raise TypeError(f"{what} are integers, not {positions.dtype}; cast with .astype('int64')")
    if device_of(positions) == "cpu" and positions.size:
        low, high = positions.min(), positions.max()
        if low < 0 or high >= length:
            raise IndexError(
                f"{what} lie between 0 and {length - 1}; there is a {low if low < 0 else high}"
            )


def owner(array: Array) -> Array:
    """The array that owns the memory that ``array`` views."""
    while is_array(array.base):
        array = array.base
    return array


def solve(a: Array, b: Array) -> Array:
    """The x with  a x = b,  where stacks broadcast (as CuPy does not let them)."""
    columns = b[:, None] if b.ndim == 1 else b
    stacks = numpy.broadcast_shapes(a.shape[:-2], columns.shape[:-2])
    library = namespace(a)
    x = library.linalg.solve(
        library.broadcast_to(a, stacks + a.shape[-2:]),
        library.broadcast_to(columns, stacks + columns.shape[-2:]),
    )
    return x[..., 0] if b.ndim == 1 else x
